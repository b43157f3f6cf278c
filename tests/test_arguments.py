"""Errors for bad arguments of functions on images give the name and the value of the argument."""

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch

from ekmfast import datasets
from ekmfast._arguments import shown
from ekmfast.autoencoder import (
    ConvAutoencoder,
    DeepEKM,
    encode,
    equilibrium_loss,
    export,
    finetune,
    load,
    pretrain,
)
from ekmfast.autoencoder.augmentation import Augmentation

BAD_ANYWHERE = ("a", math.nan, -1, [1], np.array([1, 2]), 1 + 2j, 10**400, 10**5000)
NO_INTEGER = (None, 1.5, True, 0, *BAD_ANYWHERE)
NO_NUMBER = (None, True, *BAD_ANYWHERE)
NO_SHARE = (1.5, *NO_NUMBER)
NO_NAME = (1.5, True, "A", *BAD_ANYWHERE)
NO_SEED = (1.5, True, "a", math.nan, -1, 1 + 2j, object())
NO_PATH = (None, 3, [1], 1.5)

MODEL = ConvAutoencoder(16, 1, 4, 2, 0.0625)
IMAGES = np.zeros((6, 1, 16, 16), np.uint8)
LABELS = np.arange(6) % 2
TENSORS = torch.zeros(3, 2)


def train(**given):
    return pretrain(MODEL, IMAGES, epochs=1, verbose=0, **given)


def tune(**given):
    return finetune(MODEL, IMAGES, LABELS, epochs=1, verbose=0, **given)


def deep(**given):
    parameters = {"image_size": 16, "latent_dim": 4, "width": 0.0625, "warmup_epochs": 1}
    return DeepEKM(2, **(parameters | given)).fit(IMAGES)


@pytest.mark.parametrize(
    ("call", "name", "bad"),
    [
        *((ConvAutoencoder, n, NO_INTEGER) for n in ("image_size", "in_channels", "latent_dim")),
        (ConvAutoencoder, "n_classes", NO_INTEGER),
        (ConvAutoencoder, "width", NO_NUMBER),
        (ConvAutoencoder, "dropout", NO_SHARE),
        (ConvAutoencoder, "normalize_codes", (None, *BAD_ANYWHERE)),
        (train, "augment", BAD_ANYWHERE),
        (train, "corruption", NO_NUMBER[1:]),
        *((train, n, NO_INTEGER) for n in ("batch_size", "checkpoint_every")),
        (lambda epochs: pretrain(MODEL, IMAGES, epochs=epochs), "epochs", NO_INTEGER),
        (train, "patience", NO_INTEGER[1:]),
        *((train, n, NO_NUMBER) for n in ("learning_rate", "weight_decay")),
        (train, "max_grad_norm", NO_NUMBER[1:]),
        *((train, n, NO_NAME) for n in ("schedule", "precision")),
        *((call, "validation_split", NO_SHARE) for call in (train, tune)),
        *((call, "random_state", NO_SEED) for call in (train, tune)),
        (deep, "random_state", ("a", 1.5, -1, math.nan, 10**400)),
        (lambda checkpoint: train(random_state=0, checkpoint=checkpoint), "checkpoint", (3, [1])),
        (tune, "reconstruction_weight", NO_NUMBER),
        (tune, "validation_data", BAD_ANYWHERE),
        (Augmentation, "rotation", NO_NUMBER),
        (Augmentation, "noise", NO_NUMBER),
        *((Augmentation, n, NO_SHARE) for n in ("translation", "erasing", "horizontal_flip")),
        (Augmentation, "scale", ((1, 0.5), (1, 1, 1), (math.nan, 1), "ab", None, 1, 10**400)),
        (lambda batch_size: encode(MODEL, IMAGES, batch_size=batch_size), "batch_size", NO_INTEGER),
        (lambda alpha: equilibrium_loss(TENSORS, TENSORS, alpha), "alpha", (0, *NO_NUMBER)),
        (lambda codes: equilibrium_loss(codes, TENSORS, 1.0), "codes", (None, *BAD_ANYWHERE)),
        (lambda centroids: equilibrium_loss(TENSORS, centroids, 1.0), "centroids", BAD_ANYWHERE),
        (lambda path: export(MODEL, path), "path", NO_PATH),
        (lambda format: export(MODEL, "model", format=format), "format", NO_NAME),
        (load, "path", NO_PATH),
        (lambda device: load("model", device=device), "device", ("a", "cuda:99", "meta", *NO_PATH)),
        (lambda precision: load("model", precision=precision), "precision", NO_NAME),
        (deep, "clustering", NO_NAME),
        *((deep, n, NO_INTEGER) for n in ("image_size", "latent_dim", "batch_size")),
        *((deep, n, NO_NUMBER) for n in ("width", "learning_rate")),
        (deep, "augment", (None, False, *BAD_ANYWHERE)),
        (deep, "device", ("a", "cuda:99", "meta", True, 1.5)),
        (datasets.load_digits_and_faces, "image_size", NO_INTEGER),
        (datasets.make_imbalanced_blobs, "sizes", (None, 3, "3", (1, None), (1, -1), (2, 10**400))),
        (datasets.make_imbalanced_blobs, "centers", (None, "a", [["a"]], [[10**400]], [1 + 2j])),
        (datasets.make_imbalanced_blobs, "std", ("a", -1, math.nan, 10**400, (1, 2), [1 + 2j])),
        (datasets.make_imbalanced_blobs, "random_state", NO_SEED),
        (lambda path: datasets.open_image_folder(path, 16), "path", NO_PATH),
        (lambda image_size: datasets.open_image_folder(".", image_size), "image_size", NO_INTEGER),
        (lambda channels: datasets.open_image_folder(".", 16, channels=channels), "channels",
         (2, *NO_INTEGER)),
        (lambda on_error: datasets.open_image_folder(".", 16, on_error=on_error), "on_error",
         NO_NAME),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(call, name, bad):
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=f"^{name} ") as caught:
            call(**{name: value})
        assert len(str(caught.value)) < 300


def test_long_values_are_cut():
    assert shown("a" * 100) == "'" + "a" * 59 + "..."
    assert shown(10**5000) == "(an integer of 16610 bits)"
    assert shown(np.zeros((3, 3))).count("\n") == 0


def test_a_missing_device_is_not_a_damaged_file(tmp_path):
    file = export(MODEL, tmp_path / "model.ts")
    if not torch.cuda.is_available():
        with pytest.raises(
            ValueError, match=r"^device must be one that can be used here, got 'cuda': "
        ):
            load(file, device="cuda")
    with pytest.raises(ValueError, match=r"^device must be .*, got device.*99.*: "):
        load(file, device=torch.device("cuda:99"))
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load(tmp_path)
    assert load(file, device=torch.device("cpu")).device.type == "cpu"


@pytest.mark.parametrize("suffix", ["ts", "pt2"])
def test_any_damage_of_an_exported_model_names_the_file(tmp_path, suffix):
    file = export(MODEL, tmp_path / f"model.{suffix}")
    content = file.read_bytes()
    expected = load(file).encode(IMAGES)
    rng = np.random.default_rng(0)
    n_told = 0
    for at in rng.integers(len(content), size=60).tolist():
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            codes = load(file).encode(IMAGES)
        except ValueError as error:
            assert str(error).startswith(f"path='{file}': is not ")  # noqa: PT017 - either will do
            n_told += 1
        else:  # a time or the like, which means nothing
            np.testing.assert_array_equal(codes, expected)
    assert n_told > 30
