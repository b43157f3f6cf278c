"""The recipe of the README: train on a folder, then find anomalies in another one."""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch
from PIL import Image
from sklearn.datasets import load_digits

from ekmfast import cli
from ekmfast.autoencoder import load
from ekmfast.autoencoder.seen import unseen
from ekmfast.datasets import load_image_folder

OPTIONS = ["--image-size", "16", "--grey", "--latent-dim", "32", "--width", "0.125"]
OPTIONS += ["--epochs", "25", "--batch-size", "32", "--learning-rate", "0.01", "--quiet"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*arguments):
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """300 digits for training in two sub-folders, and 400 new digits."""
    root = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    for place, row in enumerate(order[:700]):
        folder = root / ("new" if place >= 300 else f"photos/{digits.target[row] % 2}")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.kron(digits.images[row] / 16 * 255, np.ones((2, 2)))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{place:03}.png")
    return root


@pytest.fixture(scope="module")
def model(torchscript, folders):
    out = folders / "model.ts"
    assert run("train", folders / "photos", "-o", out, *OPTIONS) == 0
    return out


def test_contamination_is_the_share_of_false_alarms_in_new_images(folders, model, capsys):
    """With the threshold on all of photos/ a third of the new images and more were outliers.

    The bound: four standard deviations, as in `test_detectors`, of the threshold's sample and of
    the new images.
    """
    c, out = 0.1, folders / "scores.json"
    command = ["anomaly", folders / "new", "-m", model, "-o", out, "--contamination", c, "--quiet"]
    assert run(*command, "--normal", folders / "photos") == 0
    assert "warning" not in capsys.readouterr().err
    found = json.loads(out.read_text())
    share = np.mean([image["outlier"] for image in found["images"]])
    photos = load_image_folder(folders / "photos", 16, channels=1).images
    exported = load(model)
    n_held_out = unseen(exported, photos).sum()
    # Images that both trainings, with classes and without, have held out.
    assert 20 <= n_held_out <= 30
    assert share < c + 4 * np.sqrt(c * (1 - c) * (1 / (n_held_out + 2) + 1 / 400))
    on_all = np.quantile(exported.anomaly_loss(photos), 1 - c)
    losses = np.array([image["loss"] for image in found["images"]])
    assert (losses > on_all).mean() > share + 0.1


def test_normal_images_that_were_trained_on_are_told(folders, model, tmp_path, capsys):
    photos = load_image_folder(folders / "photos", 16, channels=1)
    (tmp_path / "seen").mkdir()
    for path, is_new in zip(photos.paths, unseen(load(model), photos.images), strict=True):
        if not is_new:
            (tmp_path / "seen" / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "scores.csv"
    command = ["anomaly", folders / "new", "-m", model, "-o", out, "--quiet"]
    assert run(*command, "--normal", tmp_path / "seen") == 0
    assert "the model was trained on all 2" in capsys.readouterr().err
