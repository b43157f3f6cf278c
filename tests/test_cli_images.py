"""The commands for folders of images."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch
from PIL import Image

from ekmfast import EKMeans, cli
from ekmfast.autoencoder import ExportedPipeline, load
from ekmfast.data.image_files import ImageFiles
from ekmfast.datasets import load_image_folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Vertical and horizontal bars in two sub-folders, and noise as anomalies."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(60):
        pixels = rng.integers(0, 40, (20, 24))
        at = rng.integers(3, 14)
        bar = pixels[at : at + 4] if i % 2 else pixels[:, at : at + 4]
        bar += 180
        save(root / "bars" / ("lying" if i % 2 else "upright") / f"{i:02}.png", pixels)
    for i in range(6):
        save(root / "strange" / f"{i}.png", rng.integers(0, 256, (20, 24)))
    return root


OPTIONS = ["--image-size", "16", "--grey", "--latent-dim", "8", "--width", "0.125"]
OPTIONS += ["--epochs", "12", "--batch-size", "16"]


def run(*arguments):
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def trained(torchscript, folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "model.ts"
    assert run("train", folders / "bars", "-o", out, *OPTIONS, "--clusters", 2, "--quiet") == 0
    return out


def rows_of(text):
    return dict(line.split(maxsplit=1) for line in text.splitlines())


def test_train_tells_how_it_went_and_goes_on_where_it_was(folders, tmp_path, capsys):
    out = tmp_path / "model.pt2"
    options = [*OPTIONS, "--checkpoint", tmp_path / "state", "--augment"]
    assert run("train", folders / "bars", "-o", out, *options) == 0
    printed = capsys.readouterr()
    rows = rows_of(printed.out)
    assert rows["images"] == "60, 1 x 16 x 16"
    assert rows["classes"] == "lying, upright"
    assert float(rows["finetune"].split()[1].rstrip(",")) > 0.6
    assert rows["model"] == str(out)
    assert "pretrain" in printed.err  # the progress bar
    assert load(out).latent_dim == 8
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["finetune.pt", "pretrain.pt"]
    assert run("train", folders / "bars", "-o", out, *options, "--quiet") == 0
    again = capsys.readouterr()
    assert again.err == ""
    assert rows_of(again.out) == rows
    assert run("train", folders / "bars", "-o", out, *options, "--seed", "1") == 1
    assert "is of another training" in capsys.readouterr().err


def test_train_writes_clusters_to_a_program(folders, tmp_path, capsys):
    out, codes = tmp_path / "model.pt2", tmp_path / "codes.npz"
    options = [*OPTIONS, "--epochs", "1", "--quiet", "--clusters", 2]
    assert run("train", folders / "bars", "-o", out, *options) == 0
    assert run("encode", folders / "bars", "-m", out, "-o", codes, "--quiet") == 0
    with np.load(codes) as arrays:
        assert arrays["codes"].shape == (60, 8)
        assert set(arrays["label"].tolist()) == {0, 1}
        np.testing.assert_array_equal(arrays["label"], arrays["membership"].argmax(axis=1))


@pytest.mark.parametrize("clusters", [False, True])
def test_train_writes_onnx(folders, tmp_path, clusters):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx, program = tmp_path / "model.ONNX", tmp_path / "model.pt2"
    options = [*OPTIONS, "--epochs", "1", "--quiet", *(["--clusters", 2] if clusters else [])]
    for out in (onnx, program):
        assert run("train", folders / "bars", "-o", out, *options) == 0
    images = load_image_folder(folders / "bars", 16, channels=1).images
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    names = ["codes", "anomaly_loss", *(["labels"] if clusters else [])]
    codes, losses, *labels = session.run(names, {"images": images})
    model = load(program)
    np.testing.assert_allclose(codes, model.encode(images), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(losses, model.anomaly_loss(images), rtol=1e-4)
    if clusters:
        np.testing.assert_array_equal(labels[0], model.predict(images))


@pytest.mark.parametrize("scripts", [True, False])
def test_train_writes_onnx_by_way_of_a_file_that_pytorch_can_load(
    torchscript, folders, tmp_path, monkeypatch, scripts
):
    pytest.importorskip("onnx")
    from ekmfast.autoencoder import torchscript as used

    def refuse(*_, **__):
        raise RuntimeError("this version of PyTorch cannot")

    if scripts:
        monkeypatch.setattr(torch.export, "load", refuse)
    else:
        monkeypatch.setattr(used, "is_supported", lambda: False)
        monkeypatch.setattr(torch.jit, "script", refuse)
    out = tmp_path / "model.onnx"
    options = [*OPTIONS, "--epochs", "1", "--quiet", "--clusters", 2]
    assert run("train", folders / "bars", "-o", out, *options) == 0
    assert out.exists()


def test_without_onnx_the_commands_tell_it_before_they_work(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((20, 2)))
    message = 'onnx is needed here and is not installed: pip install "ekmfast[onnx]"'
    for command in (
        ("train", folders / "bars", "-o", tmp_path / "m.onnx", *OPTIONS),
        ("cluster", tmp_path / "x.npy", "--clusters", 2, "--save", tmp_path / "m.onnx"),
    ):
        assert run(*command) == 1
        told = capsys.readouterr()
        assert (told.out, told.err) == ("", f"ekmfast: error: {message}\n")


def test_a_flat_folder_trains_without_classes(torchscript, folders, tmp_path, capsys):
    out = tmp_path / "model.ts"
    options = [*OPTIONS, "--epochs", "1", "--quiet"]
    assert run("train", folders / "strange", "-o", out, *options) == 0
    assert "finetune" not in capsys.readouterr().out
    assert run("train", folders / "bars", "-o", out, *options, "--no-classes") == 0
    assert "finetune" not in capsys.readouterr().out


def test_encode_writes_codes_clusters_and_paths(folders, trained, tmp_path, capsys):
    model = load(trained)
    assert isinstance(model, ExportedPipeline)
    data = load_image_folder(folders / "bars", 16, channels=1)
    codes = model.encode(data.images)
    npz, npy, text = (tmp_path / f"codes.{suffix}" for suffix in ("npz", "npy", "csv"))
    for out in (npz, npy, text):
        assert run("encode", folders / "bars", "-m", trained, "-o", out) == 0
        printed = capsys.readouterr()
        assert rows_of(printed.out)["codes"] == f"60 x 8 to {out}"
        assert "60/60" in printed.err
    with np.load(npz) as file:
        np.testing.assert_allclose(file["codes"], codes, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(file["label"], model.predict(data.images))
        np.testing.assert_allclose(file["membership"].sum(axis=1), 1, rtol=1e-5)
        assert file["path"].tolist() == [str(path) for path in data.paths]
    np.testing.assert_allclose(np.load(npy), codes, rtol=1e-4, atol=1e-5)
    assert np.load(npy).dtype == np.float32
    assert (tmp_path / "codes.npy").stat().st_size == 128 + 60 * 8 * 4
    with text.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "label", *(f"z{i}" for i in range(8))]
    np.testing.assert_allclose(
        np.array([row[2:] for row in rows], float), codes, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["CODES.NPY", "codes.NpZ", "codes.CSV"])
def test_encode_reads_each_image_once(folders, trained, tmp_path, monkeypatch, name):
    read = []

    def counting(files, path):
        read.append(path)
        return original(files, path)

    original = ImageFiles._read
    monkeypatch.setattr(ImageFiles, "_read", counting)
    command = ["encode", folders / "bars", "-m", trained, "-o", tmp_path / name, "--quiet"]
    assert run(*command) == 0
    assert len(read) == len(set(read)) == 60
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", ["npz", "csv", "npy"])
def test_codes_of_images_are_clustered(folders, trained, tmp_path, capsys, suffix):
    out = tmp_path / f"codes.{suffix}"
    assert run("encode", folders / "bars", "-m", trained, "-o", out, "--quiet") == 0
    capsys.readouterr()
    assert run("cluster", out, "--clusters", 2, "--out", tmp_path / "l.csv") == 0
    assert rows_of(capsys.readouterr().out)["data"] == "60 rows, 8 columns"
    assert run("path", out, "--clusters", 2) == 0


@pytest.mark.parametrize("name", ["codes.npy", "codes.npz", "codes.csv", "scores.json"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_goes_wrong_leaves_the_old_file(
    folders, trained, tmp_path, monkeypatch, capsys, name, error
):
    out = tmp_path / name
    out.write_bytes(b"old")
    read = []

    def failing(files, path):
        read.append(path)
        if len(read) > 40:
            raise error("at image 41")
        return original(files, path)

    original = ImageFiles._read
    monkeypatch.setattr(ImageFiles, "_read", failing)
    command = "anomaly" if name == "scores.json" else "encode"
    options = ["-m", trained, "-o", out, "--quiet", "--batch-size", 8]
    code = run(command, folders / "bars", *options)
    assert code == (130 if error is KeyboardInterrupt else 1)
    assert out.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_full_disk_is_told_before_the_work(folders, trained, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr(ImageFiles, "_read", lambda *_: pytest.fail("read"))
    out = tmp_path / "codes.npy"
    assert run("encode", folders / "bars", "-m", trained, "-o", out, "--quiet") == 1
    assert capsys.readouterr().err == f"ekmfast: error: {out}: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_text_are_refused_before_or_kept(folders, trained, tmp_path, capsys):
    name = os.fsdecode(b"b\xff.png")
    try:
        save(tmp_path / "odd" / name, np.full((16, 16), 100))
    except OSError:
        pytest.skip("names must be text here")
    for command, suffix in (("encode", "csv"), ("anomaly", "csv")):
        out = tmp_path / f"out.{suffix}"
        assert run(command, tmp_path / "odd", "-m", trained, "-o", out, "--quiet") == 1
        assert "b\\udcff.png: the name is not in UTF-8" in capsys.readouterr().err
        assert not out.exists()
    out = tmp_path / "out.npz"
    assert run("encode", tmp_path / "odd", "-m", trained, "-o", out, "--quiet") == 0
    with np.load(out) as file:
        assert file["path"].tolist() == [str(tmp_path / "odd" / name)]
    out = tmp_path / "out.json"
    assert run("anomaly", tmp_path / "odd", "-m", trained, "-o", out, "--quiet") == 0
    assert json.loads(out.read_text())["images"][0]["path"] == str(tmp_path / "odd" / name)
    out = tmp_path / os.fsdecode(b"\xff.npy")
    assert run("encode", tmp_path / "odd", "-m", trained, "-o", out, "--quiet") == 0
    assert out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_missing_card_is_not_blamed_on_the_file(trained):
    with pytest.raises(ValueError, match=r"^device must be .*, got 'cuda:7': .*(CUDA|NVIDIA)"):
        load(trained, device="cuda:7")


def test_train_tells_the_alpha_that_it_took(folders, tmp_path, capsys):
    out = tmp_path / "model.TS"
    options = [*OPTIONS, "--epochs", "1", "--quiet", "--clusters", 2]
    assert run("train", folders / "bars", "-o", out, *options) == 0
    rows = rows_of(capsys.readouterr().out)
    default = EKMeans().alpha
    assert rows["alpha"] == f"{load(out).alpha:.6g} ({default})"
    assert sum(map(int, rows["sizes"].split())) == 60
    assert rows["clusters"].endswith("of 2 distinct")


def test_a_table_of_scores_goes_to_stdout(folders, trained):
    command = ["anomaly", folders / "strange", "-m", trained, "-o", "-", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "ekmfast.cli", *map(str, command)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    head, *rows = csv.reader(done.stdout.splitlines())
    assert head == ["path", "loss", "outlier"]
    assert len(rows) == 6
    assert rows_of(done.stderr)["images"] == "6"


def test_anomaly_tells_strangers(folders, trained, tmp_path, capsys):
    out, picture = tmp_path / "scores.json", tmp_path / "worst.png"
    begin = ["anomaly", folders / "strange", "-m", trained, "--quiet"]
    command = [*begin, "--normal", folders / "bars", "--contamination", "0.05"]
    assert run(*command, "-o", out, "--plot", picture) == 0
    rows = rows_of(capsys.readouterr().out)
    assert (rows["images"], rows["outliers"]) == ("6", "6")
    found = json.loads(out.read_text())
    assert [image["path"] for image in found["images"]] == [
        str(folders / "strange" / f"{i}.png") for i in range(6)
    ]
    assert all(image["outlier"] for image in found["images"])
    assert all(image["loss"] > found["threshold"] for image in found["images"])
    assert picture.stat().st_size > 5000
    assert run(*command, "-o", tmp_path / "scores.csv") == 0
    with (tmp_path / "scores.csv").open(newline="") as file:
        head, *lines = csv.reader(file)
    assert b"\r" not in (tmp_path / "scores.csv").read_bytes()
    assert head == ["path", "loss", "outlier"]
    assert [line[2] for line in lines] == ["1"] * 6
    assert run(*begin, "-o", tmp_path / "scores.npz", "--threshold", "10") == 0
    with np.load(tmp_path / "scores.npz") as file:
        assert not file["outlier"].any()
        losses = [image["loss"] for image in found["images"]]
        np.testing.assert_allclose(file["loss"], losses, rtol=1e-6)
        assert file["threshold"] == 10


@pytest.mark.parametrize("option", [("--contamination", "0.1"), ("--normal", "bars")])
def test_options_without_effect_beside_a_threshold_are_refused(tmp_path, capsys, option):
    with pytest.raises(SystemExit, match="2"):
        run("anomaly", tmp_path, "-m", "m.ts", "-o", "s.csv", "--threshold", "1", *option)
    assert f"{option[0]} has no effect with --threshold" in capsys.readouterr().err


def test_a_folder_of_one_normal_image_is_refused_before_the_work(
    folders, trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(ExportedPipeline, "anomaly_loss", None)  # no image is scored
    save(tmp_path / "one" / "a.png", np.full((16, 16), 100))
    out = tmp_path / "s.csv"
    command = ["anomaly", folders / "strange", "-m", trained, "--normal", tmp_path / "one"]
    assert run(*command, "-o", out) == 1
    printed = (
        f"ekmfast: error: {tmp_path / 'one'}: 1 image, at least 2 are needed for a threshold\n"
    )
    assert capsys.readouterr().err == printed
    assert not out.exists()


def test_normal_images_are_scored_in_batches_with_progress(
    folders, trained, tmp_path, capsys, monkeypatch
):
    score, sizes = ExportedPipeline.anomaly_loss, []

    def noted(self, images, *, batch_size):
        sizes.append((len(images), batch_size))
        return score(self, images, batch_size=batch_size)

    monkeypatch.setattr(ExportedPipeline, "anomaly_loss", noted)
    command = ["anomaly", folders / "strange", "-m", trained, "--normal", folders / "bars"]
    assert run(*command, "-o", tmp_path / "s.csv", "--batch-size", 7) == 0
    assert sizes == [(6, 7), (60, 7)]
    printed = capsys.readouterr().err
    assert "6/6" in printed
    assert "120/120" in printed  # first compared with the training images, then scored


def test_unreadable_images_stop_the_work_or_are_named(folders, trained, tmp_path, capsys):
    for i in range(3):
        save(tmp_path / "mixed" / f"{i}.png", np.full((16, 16), 100))
    (tmp_path / "mixed" / "bad.png").write_bytes(b"junk")
    command = ["anomaly", tmp_path / "mixed", "-m", trained, "-o", tmp_path / "scores.json"]
    assert run(*command, "--quiet") == 1
    assert "cannot read the image" in capsys.readouterr().err
    assert run(*command, "--quiet", "--skip-unreadable") == 0
    printed = capsys.readouterr()
    assert "1 of 4 images cannot be read" in printed.err
    assert printed.err.count("\n") == 1
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["skipped"] == [str(tmp_path / "mixed" / "bad.png")]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "missing", "-o", "m.ts"], "there is no such folder"),
        (["train", "bars", "-o", "no/m.ts"], "no such folder 'no'"),
        (["train", "bars", "-o", "m.ts", "--clusters", "61"], "60 images, fewer than --clusters"),
        (["train", "bars", "-o", "bars"], "bars: is a folder"),
        (["encode", "bars", "-m", "c.npz", "-o", "c.npz"], "c.npz: is an input"),
        (["anomaly", "bars", "-m", "c.npz", "-o", "x.png", "--plot", "x.png"], "must end in one"),
        (["encode", "bars", "-m", "m.ts", "-o", "/dev/null/c.npz"], "Not a directory"),
        (
            ["train", "bars", "-o", "m.ts", "--image-size", "20"],
            "image_size must be a multiple of 16 that is >= 16, got 20",
        ),
        (["encode", "bars", "-m", "missing.ts", "-o", "c.npz"], "there is no such file"),
        (
            ["encode", "bars", "-m", "bars/upright/00.png", "-o", "c.npz"],
            "torch.export: File is not a",
        ),
        (["encode", "bars", "-m", "bars", "-o", "c.npz"], "path='bars': is a folder"),
        (["encode", "bars", "-m", "missing.ts", "-o", "c.txt"], "must end in one of .npz"),
        (["anomaly", "bars", "-m", "missing.ts", "-o", "c.xml"], "must end in one of .csv"),
        (
            ["anomaly", "bars", "-m", "m.ts", "-o", "c.csv", "--plot", "x.xyz"],
            "the name must end in one of",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(folders, monkeypatch, capsys, command, message):
    monkeypatch.chdir(folders)
    assert run(*command) == 1
    error = capsys.readouterr().err
    assert error.startswith("ekmfast: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "x"],
        ["train", "x", "-o", "m.ts", "--epochs", "0"],
        ["encode", "x", "-m", "m.ts"],
        ["anomaly", "x", "-m", "m.ts", "-o", "s.csv", "--contamination", "0.7"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage: ekmfast" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "encode", "anomaly"])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main([command, "--help"])
    assert raised.value.code == 0
    assert f"ekmfast {command} photos/" in capsys.readouterr().out
