"""The command that studies the photos of a folder, with and without classes."""

import csv
import json
import os
import re
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")
pytest.importorskip("kornia", reason="augmentation is an extra")
pytest.importorskip("matplotlib", reason="pictures are an extra")
pytest.importorskip("jinja2", reason="it is in the extra demo")

from PIL import Image

from ekmfast import cli
from ekmfast.autoencoder import ExportedPipeline, load
from ekmfast.autoencoder import torchscript as script
from ekmfast.study import chain, for_photos, load_photos
from ekmfast.study.anomalies import _half, _overlap
from ekmfast.study.clustering import TUNED
from ekmfast.study.progress import Stages, spoken
from ekmfast.study.report import readings


def folder_of(path, sizes, *, mode="RGB", side=20):
    """Noise on bars at a place that depends on the class; no class is the folder itself."""
    rng = np.random.default_rng(0)
    for at, (name, count) in enumerate(sizes.items()):
        (path / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 100, (side, side, 3), np.uint8)
            pixels[:, 3 + 4 * at : 6 + 4 * at, at % 3] += 150
            Image.fromarray(pixels).convert(mode).save(path / name / f"{i:03}.png")
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    folder_of(root / "animals", {"few": 3, "cats": 8, "dogs": 25, "owls": 9})
    folder_of(root / "flat", {"": 30}, mode="L", side=70)
    folder_of(root / "odd", {"": 6})
    return root


def study(*arguments):
    return cli.main(["study", *map(str, arguments)])


def metrics_of(out):
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def labelled(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled") / "new" / "out"
    arguments = (folders / "animals", "--anomalies", folders / "odd", "--quick", "--out", out)
    assert study(*arguments) == 0
    return out, arguments


@pytest.fixture(scope="module")
def flat(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("flat")
    shares = ("--shares", "5:3:1:1")
    assert study(folders / "flat", *shares, "--quick", "--out", out) == 0
    return out


# --- with classes --------------------------------------------------------------------------


def test_a_folder_with_classes(labelled):
    out, _ = labelled
    metrics = metrics_of(out)
    assert metrics["classes"] == ["dogs", "owls", "cats"]
    assert list(metrics["clustering"]) == ["2:1:1"]
    assert metrics["clustering"]["2:1:1"]["ekm"]["true_sizes"] == [16, 8, 8]
    assert metrics["anomaly"]["n_anomalies"] == 6
    assert metrics["model"]["image_size"] == 32  # the photos are small
    assert metrics["model"]["in_channels"] == 3
    for key in ("confusion", "confusion_augmented"):
        table = np.array(metrics["finetune"][key])
        assert table.shape == (4, 4)
        assert table.sum() == metrics["finetune"]["n_validation"]
    right = np.trace(metrics["finetune"]["confusion"]) / metrics["finetune"]["n_validation"]
    assert right == pytest.approx(metrics["finetune"]["accuracy"])
    assert list(metrics["training"]) == ["pretraining", "finetuning", "with augmentation"]


def test_rows_name_the_files(labelled, folders):
    with (labelled[0] / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    for row in rows:
        assert row["class_name"] == row["file"].split("/")[-2]
        assert (folders / "animals" / row["class_name"] / row["file"].split("/")[-1]).exists()


def test_the_report_is_one_page(labelled, flat):
    for out, heading, other in (
        (labelled[0], "Clustering classes dogs, owls, cats", "deep clustering</h2>"),
        (flat, "Clusters of the codes", "Anomalies</h2>"),
    ):
        page = (out / "report.html").read_text()
        assert heading in page
        assert other not in page
        assert not re.findall(r'(?:src|href)="(?!data:)', page)
        pictures = [name.stem for name in out.glob("*.png")]
        assert page.count("data:image/png;base64,") == len(pictures)
        assert [int(n) for n in re.findall(r"<h2>(\d+)\.", page)] == list(
            range(1, 1 + page.count("<h2>"))
        )


def test_chosen_classes_without_torchscript(folders, tmp_path, capsys, monkeypatch):
    """On a Python that is too new for TorchScript, the models are files of torch.export."""
    monkeypatch.setattr(script, "is_supported", lambda: False)
    out = tmp_path / "out"
    options = ("--classes", "owls, few,cats", "--image-size", "16", "--grey", "--shares", "3:1:2")
    assert study(folders / "animals", *options, "--quick", "--quiet", "--out", out) == 0
    assert capsys.readouterr() == ("", "")
    metrics = metrics_of(out)
    assert metrics["classes"] == ["owls", "few", "cats"]
    assert metrics["clustering"]["3:1:2"]["ekm"]["true_sizes"] == [9, 3, 6]
    assert metrics["anomaly"] is None
    assert (metrics["model"]["image_size"], metrics["model"]["in_channels"]) == (16, 1)
    assert load(out / "pipeline.pt2").n_clusters == 3
    assert metrics["pipeline"]["equal_labels"] == 1
    assert "pipeline.pt2" in (out / "report.html").read_text()
    # The alpha is the one of the path whose sizes are nearest to the wanted ones.
    from ekmfast import alpha_path

    images = load_photos(
        folders / "animals", image_size=16, grey=True, classes=("owls", "few", "cats"), quick=True
    ).images
    codes = load(out / "model.pt2").encode(images).astype(np.float64)
    with (out / "labels.csv").open(newline="") as file:
        rows = [int(row["image"]) for row in csv.DictReader(file)]
    scores = metrics["clustering"]["3:1:2"]
    alphas = scores["dvariance"]["alpha"] * TUNED
    path = alpha_path(codes[rows], 3, alphas, target_sizes=(3, 1, 2), random_state=0)
    assert scores["tuned"]["alpha"] == path.alphas[path.best]
    assert scores["tuned"]["n_alphas"] == len(TUNED)


# --- without classes -----------------------------------------------------------------------


def test_a_flat_folder(flat):
    metrics = metrics_of(flat)
    assert metrics["finetune"] is None
    assert metrics["anomaly"] is None
    assert metrics["classes"] == ["0", "1", "2", "3"]
    assert (metrics["model"]["image_size"], metrics["model"]["in_channels"]) == (64, 1)
    (rows,) = metrics["clustering"].values()
    for scores in [*rows.values(), *metrics["deep"].values()]:
        assert "ari" not in scores
        assert sum(scores["sizes"]) == 30
        assert scores["sizes"] == sorted(scores["sizes"], reverse=True)
    assert isinstance(load(next(flat.glob("pipeline.*"))), ExportedPipeline)
    with (flat / "labels.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header[:4] == ["draw", "image", "file", "ekm"]
    assert (flat / "examples.png").exists()
    assert not (flat / "confusion.png").exists()


# --- interrupted, and how long it takes ----------------------------------------------------


def without_times(metrics):
    return {name: value for name, value in metrics.items() if name != "seconds"}


def test_an_interrupted_study_continues(labelled, tmp_path, monkeypatch, capsys):
    """The trainings that were complete are read, and the result is that without interruption."""
    out, arguments = labelled
    arguments = (*arguments[:-1], tmp_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(chain, "export_and_encode", interrupt)
        assert study(*arguments) == 130
    told = "ekmfast: the same command continues this study\nekmfast: interrupted\n"
    assert capsys.readouterr().err.endswith(told)
    states = sorted((tmp_path / "quick-states").iterdir())
    assert [path.name for path in states] == ["augmented.pt", "finetune.pt", "pretrain.pt"]
    times = [path.stat().st_mtime_ns for path in states]
    assert study(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("45 images in 4 classes of animals, 6 anomalies of odd")
    stages = [line for line in lines if re.match(r" +[\d.]+ s  ", line)]
    assert len(stages) == 10  # and the total
    # The work of a quick study says nothing about its time.
    assert not any(" left)" in line for line in stages)
    assert lines[-1] == str(tmp_path / "report.html")
    assert [path.stat().st_mtime_ns for path in states] == times
    assert without_times(metrics_of(tmp_path)) == without_times(metrics_of(out))
    assert study(*arguments, "--seed", "1") == 1
    error = capsys.readouterr().err
    assert "pretrain.pt" in error
    assert "is of another training" in error


def test_the_time_left_follows_the_work(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    stages = Stages({"a": 1, "b": 3, "c": 100}, quiet=False)
    for name, seconds in (("a", 10.0), ("b", 30.0), ("c", 7.0)):
        with stages.stage(name):
            now[0] += seconds
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "  10.0 s  a (about 17 min left)"
    assert printed[1] == "  30.0 s  b (about 17 min left)"
    assert printed[2] == "   7.0 s  c"
    assert stages.total() == 47
    stages = Stages({"a": 2, "b": 1, "c": 1, "d": 4}, quiet=False)
    for name, seconds in (("a", 0.0), ("b", 9.0), ("c", 11.0), ("d", 1.0)):
        with stages.stage(name, resumed=name == "a"):
            now[0] += seconds
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["   0.0 s  a", "   9.0 s  b"]
    assert printed[2] == "  11.0 s  c (about 40 s left)"
    assert [spoken(s) for s in (0.1, 89, 100, 5000, 7200)] == [
        "1 s", "89 s", "2 min", "83 min", "2.0 h"
    ]  # fmt: skip


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        (None, [], "there is no such folder"),
        ({"": 9}, [], "has 9 images: must have at least 10"),
        ({"a": 2, "b": 2, "c": 2}, [], "has 6 images: must have at least 10"),
        ({"cats": 30}, [], "in 1 sub-folder (cats): must have at least three"),
        ({"cats": 30, "dogs": 30}, [], "in 2 sub-folders (cats, dogs): must have at least three"),
        ({"a": 9, "b": 9, "c": 1}, [], "class 'c' has one image: must have at least 2"),
        ({"a": 9, "b": 9, "c": 9}, ["--classes", "a,b"], "must be three different names, got a, b"),
        ({"a": 9, "b": 9, "c": 9}, ["--classes", "a,b,b"], "must be three different names"),
        ({"a": 9, "b": 9, "c": 9}, ["--classes", "a,b,d"], "'d' is not one of a, b, c"),
        ({"a": 9, "b": 9, "c": 9}, ["--shares", "2:1"], "--shares 2:1: must be three"),
        ({"a": 9, "b": 9, "c": 9}, ["--image-size", "33"], "image_size must be"),
        ({"": 12}, ["--classes", "a,b,c"], "no sub-folders, so that no classes can be chosen"),
    ],
)
def test_bad_folders_are_one_line(tmp_path, capsys, sizes, options, message):
    if sizes is not None:
        folder_of(tmp_path / "photos", sizes)
    out = tmp_path / "out"
    assert study(tmp_path / "photos", *options, "--out", out) == 1
    error = capsys.readouterr().err
    assert error.startswith("ekmfast: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_broken_photos_are_named_or_left_out(tmp_path, capsys):
    photos = folder_of(tmp_path / "photos", {"a": 6, "b": 6, "c": 6})
    (photos / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (photos / "c" / "empty.png").write_bytes(b"")
    arguments = (photos, "--quick", "--out", tmp_path / "out")
    assert study(*arguments) == 1
    error = capsys.readouterr().err
    assert "broken.jpg" in error
    assert "empty.png" in error
    assert study(*arguments, "--skip-unreadable") == 0
    assert "broken.jpg" in capsys.readouterr().err
    assert metrics_of(tmp_path / "out")["data"].startswith("18 images in 3 classes")
    # A class that is left with one image is named, although there were enough files.
    for path in list((photos / "c").glob("0*"))[1:]:
        path.write_bytes(b"")
    assert study(*arguments, "--skip-unreadable") == 1
    assert "class 'c' has one image" in capsys.readouterr().err


def test_the_output_is_not_in_the_photos(folders, capsys):
    photos = folders / "animals"
    assert study(photos, "--out", photos / "out", "--quick") != 0
    assert "must not be in" in capsys.readouterr().err
    assert not (photos / "out").exists()


@pytest.mark.parametrize(("anomalies", "n"), [("animals", 45), ("animals/owls", 9)])
def test_photos_are_no_anomalies(folders, tmp_path, capsys, anomalies, n):
    photos, strange = folders / "animals", folders / anomalies
    assert study(photos, "--anomalies", strange, "--quick", "--out", tmp_path / "out") == 1
    message = f"{n} of its {n} images also lie in {photos}: anomalies must be other images"
    assert capsys.readouterr().err == f"ekmfast: error: {strange}: {message}\n"


def test_equal_photos_are_refused(tmp_path, capsys):
    for i in range(12):
        path = tmp_path / "photos" / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9, 9, 9)).save(path)
    assert study(tmp_path / "photos", "--out", tmp_path / "out") == 1
    assert "all 12 images of a, b, c are equal: must differ" in capsys.readouterr().err


def test_names_of_classes_are_drawn_as_they_are(tmp_path):
    """No formulas, no tags, and names that are no UTF-8."""
    names = ["$\\bad$", "<b>&", "long " * 8]
    if sys.platform.startswith("linux"):
        names.append(os.fsdecode(b"\xff"))
    folder = tmp_path / f"photos{names[-1]}"
    folder_of(folder, dict.fromkeys(names, 4))
    assert study(folder, "--quick", "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    with (tmp_path / "out" / "labels.csv").open(newline="", errors="surrogateescape") as file:
        assert {row["class_name"] for row in csv.DictReader(file)} <= set(names)


def test_a_missing_extra_is_one_line(monkeypatch, capsys, folders):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert study(folders / "flat") == 1
    assert 'pip install "ekmfast[demo]"' in capsys.readouterr().err


# --- settings, figures and sentences -------------------------------------------------------


def test_small_sets_get_more_epochs():
    assert for_photos(200, 64, (2, 1, 1)).pretrain_epochs == 60
    assert for_photos(1000, 64, (2, 1, 1)).pretrain_epochs == 20
    assert for_photos(10**6, 64, (2, 1, 1)).finetune_epochs == 8
    full = for_photos(1000, 64, (2, 1, 1), full=True, epochs=3)
    assert (full.width, full.latent_dim, full.pretrain_epochs) == (1.0, 1024, 3)


def test_overlap_and_half():
    low, high = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert _overlap(low, high) == 0
    assert _overlap(high, low) == 0.5
    assert _overlap(low, low) == 0.5
    assert _overlap(np.array([1.0, 2.0, 3.0, 9.0]), np.array([4.0, 5.0])) == 0.125
    maps = np.zeros((2, 2, 4))
    maps[0, 0, 0] = 1  # one of eight pixels has it all
    maps[1] = 1  # half of it lies in half of the pixels
    assert _half(maps) == pytest.approx((1 / 8 + 4 / 8) / 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"overlap": 0.0}, "one threshold separates them"),
        ({"overlap": 0.03}, "almost: at the best threshold, 3.0 %"),
        ({"overlap": 0.1}, "in part: at the best threshold, 10 %"),
        ({"overlap": 0.4}, "does not separate"),
        ({"overlap": 0.5, "auc": 0.2}, "even the smaller losses"),
        ({"anomaly_loss": 0.08}, "learned what normal images look like"),
        ({"anomaly_loss": 0.08, "overlap": 0.4}, "so little contrast"),
        ({"contrast": {"normal": 0.1, "anomalous": 0.4}, "anomaly_loss": 0.04}, "more contrast"),
        ({}, "about as well as the normal ones"),
        ({"normal_loss": 0.12, "anomaly_loss": 0.5}, "hardly better than by their mean colour"),
    ],
)
def test_reading_of_the_separation(changes, expected):
    scores = {
        "overlap": 0.1,
        "auc": 0.9,
        "normal_loss": 0.01,
        "anomaly_loss": 0.01,
        "contrast": {"normal": 0.1, "anomalous": 0.1},
        "half_of_error": {"normal": 0.1, "anomalous": 0.2},
    }
    assert expected in readings.separation_reading(scores | changes)


def test_reading_of_the_confusion():
    scores = {
        "accuracy": 0.9,
        "accuracy_augmented": 0.8,
        "confusion": [[8, 2], [0, 10]],
        "confusion_augmented": [[9, 1], [3, 7]],
    }
    text = readings.confusion_reading(scores, ["cat", "dog"])
    assert "mistakes cat for dog (2 of 10" in text
    assert "worst class is cat, of which it finds 8 of 10." in text
    assert "other pair" not in text
    scores["confusion"] = [[8, 1], [1, 10]]
    text = readings.confusion_reading(scores, ["cat", "dog"])
    assert "(1 of 9 held-out images of this class), and 1 other pair of classes as often." in text
    equal = readings.confusion_reading(scores | {"accuracy": 0.8}, ["cat", "dog"])
    assert equal.startswith("The model with augmentation most often mistakes dog for cat (3 of 10")
    scores["confusion"] = [[10, 0], [0, 10]]
    assert "every held-out image correctly" in readings.confusion_reading(scores, ["cat", "dog"])


@pytest.mark.parametrize(
    ("n", "expected"),
    [(10, "about one in 11 normal images lies above it"), (250, "2 % of normal images should lie")],
)
def test_reading_of_a_threshold(n, expected):
    detector = {"auc": 0.9, "found": 0.5, "false_alarms": 0.1}
    scores = {"normal_loss": 0.01, "anomaly_loss": 0.02, "auc": 0.9, "contamination": 0.02}
    scores |= {"n_threshold": n, "detectors": {"reconstruction": detector, "codes": detector}}
    text = readings.anomaly_reading(scores)
    assert expected in text
    assert f"held-out images ({n})" in text
