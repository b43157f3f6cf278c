"""The command line and the demo behind it."""

import csv
import json
import re
import sys

import numpy as np
import pytest

from ekmfast import __version__, cli, demo, report

FILES = ["anomalies.png", "labels.csv", "metrics.json", "model.ts", "path.png", "report.html"]
FILES += ["sizes.png", "tsne.png"]
METHODS = ["ekm", "ekm_0.1x", "ekm_10x", "stable_10x", "naive_10x", "stable_100x"]
METHODS += ["naive_100x", "kmeans"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    assert cli.main(["demo", "--quick", "--seed", "3", "--out", str(out)]) == 0
    return out, json.loads((out / "metrics.json").read_text())


def test_demo_writes_its_files(quick):
    out, _ = quick
    assert sorted(file.name for file in out.iterdir()) == FILES


def test_demo_writes_its_metrics(quick):
    _, metrics = quick
    assert metrics["seed"] == 3
    assert metrics["quick"] is True
    assert metrics["versions"]["ekmfast"] == __version__
    assert {"pretrain", "finetune", "cluster", "anomalies", "total"} <= set(metrics["seconds"])
    assert 0 <= metrics["finetune"]["accuracy"] <= 1
    assert 0 <= metrics["finetune"]["accuracy_augmented"] <= 1
    assert set(metrics["anomaly"]) >= {"normal_loss", "anomaly_loss", "auc"}
    for draw, sizes in {"2:1:1": [40, 20, 20], "20:1:1": [40, 2, 2]}.items():
        rows = metrics["clustering"][draw]
        assert set(rows) == set(METHODS)
        for row in rows.values():
            assert row["true_sizes"] == sizes
            assert sum(row["sizes"]) == sum(sizes)
            assert {"alpha", "ari", "nmi", "accuracy", "objective"} <= set(row)
        assert rows["ekm_10x"]["alpha"] == pytest.approx(10 * rows["ekm"]["alpha"])
        # The path passes the default at its middle and must find there what the default found.
        middle = metrics["path"][draw][1]
        assert middle["multiple"] == pytest.approx(1)
        assert middle["ari"] == pytest.approx(rows["ekm"]["ari"])


def test_demo_writes_a_row_for_each_clustered_image(quick):
    out, metrics = quick
    with (out / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80 + 44
    for method in METHODS:
        sizes = np.bincount([int(r[method]) for r in rows if r["draw"] == "2:1:1"], minlength=3)
        assert sizes.tolist() == metrics["clustering"]["2:1:1"][method]["sizes"]


def test_report_needs_no_other_file(quick):
    page = (quick[0] / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "{{" not in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().split()


def test_demo_repeats_itself(quick, tmp_path):
    out, metrics = quick
    assert cli.main(["demo", "--quick", "--seed", "3", "--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "metrics.json").read_text())
    del metrics["seconds"], again["seconds"]
    assert again == metrics
    assert (tmp_path / "labels.csv").read_bytes() == (out / "labels.csv").read_bytes()


def image_folders(tmp_path, sizes):
    from PIL import Image

    rng = np.random.default_rng(0)
    for folder, count in {**{f"images/{k}": n for k, n in sizes.items()}, "odd": 6}.items():
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    return str(tmp_path / "images"), str(tmp_path / "odd")


def test_demo_takes_folders(tmp_path):
    images, odd = image_folders(tmp_path, {"few": 3, "cats": 8, "dogs": 25, "owls": 9})
    out = tmp_path / "out"
    arguments = ["demo", "--quick", "--images", images, "--anomalies", odd, "--out", str(out)]
    assert cli.main(arguments) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["classes"] == ["dogs", "owls", "cats"]
    rows = metrics["clustering"]
    assert rows["2:1:1"]["ekm"]["true_sizes"] == [16, 8, 8]
    assert rows["20:1:1"]["ekm"]["true_sizes"] == [20, 1, 1]
    assert metrics["anomaly"]["n_anomalies"] == 6


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "no such folder"),
        ({"cats": 3, "dogs": 3}, "at least three sub-folders"),
        ({"cats": 3, "dogs": 3, "owls": 1}, "'owls' has one image"),
    ],
)
def test_bad_folders_are_one_line(tmp_path, capsys, sizes, message):
    images, odd = image_folders(tmp_path, sizes)
    out = tmp_path / "out"
    arguments = ["demo", "--images", images, "--anomalies", odd, "--out", str(out)]
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("ekmfast: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_an_unusable_out_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "load_data", lambda *_, **__: None)
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--quick", "--out", str(tmp_path / "file" / "out")]) == 1
    assert capsys.readouterr().err.startswith("ekmfast: error: ")


def test_a_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert cli.main(["demo"]) == 1
    assert 'pip install "ekmfast[demo]"' in capsys.readouterr().err


def test_an_interrupt_is_told(monkeypatch, capsys):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "load_data", interrupt)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "ekmfast: interrupted\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["no-such"], ["demo", "--images", "x"], ["demo", "--seed", "-1"], ["demo", "--seed", "a"]],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage: ekmfast" in capsys.readouterr().err


def test_info_and_version(capsys):
    assert cli.main(["info"]) == 0
    assert __version__ in capsys.readouterr().out
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"ekmfast {__version__}\n"


# --- the sentences follow the numbers ------------------------------------------------------


@pytest.mark.parametrize(
    ("ekm", "kmeans", "said"),
    [(0.98, 0.25, "well ahead"), (0.25, 0.98, "falls behind"), (0.97, 0.98, "about equally")],
)
def test_reading_of_a_draw(ekm, kmeans, said):
    text = report._draw_reading("20:1:1", {"ekm": {"ari": ekm}, "kmeans": {"ari": kmeans}})
    assert said in text
    assert ("does not find" in text) == (ekm < 0.9)


@pytest.mark.parametrize(
    ("to_origin", "converged", "said"),
    [
        ([0, 0, 0], True, "every centroid to the origin"),
        ([0, 1, 1], True, "1 of 3 centroids"),
        ([1, 1, 1], False, "without settling"),
        ([1, 1, 1], True, "settles too"),
    ],
)
def test_reading_of_the_naive_formula(to_origin, converged, said):
    place = {"to_origin": to_origin, "to_each_other": [0.5, 0.5, 0.5]}
    row = {"ari": 0.5, "centroids": place, "converged": converged}
    text = report._collapse_reading(dict.fromkeys(METHODS, row))
    assert text.count(said) == 2
    assert "do not all meet" in text


@pytest.mark.parametrize(
    ("plain", "augmented", "said"),
    [(0.98, 0.98, "as many"), (0.98, 0.99, "chance"), (0.9, 0.99, "45 more of 500")],
)
def test_reading_of_the_augmentation(plain, augmented, said):
    scores = {"accuracy": plain, "accuracy_augmented": augmented, "n_validation": 500}
    assert said in report._finetune_reading(scores)
