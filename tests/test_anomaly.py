"""Reconstruction loss of models in memory and of exported models."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch

from ekmfast.anomaly import anomaly_map, reconstruction_loss
from ekmfast.autoencoder import ConvAutoencoder, export, load, pretrain
from ekmfast.datasets import load_image_folder, open_image_folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images(n, seed=0):
    """Images with one soft bright spot each."""
    rng = np.random.default_rng(seed)
    grid = np.arange(16)
    at = rng.uniform(4, 12, (n, 2, 1))
    rows, columns = np.exp(-((grid - at) ** 2) / 8).transpose(1, 0, 2)
    return (rows[:, None, :, None] * columns[:, None, None, :]).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=16, width=0.125)
    pretrain(model, images(300), epochs=15, batch_size=32, random_state=0, verbose=0)
    return model


def test_loss_is_the_mean_squared_error_of_each_image(model):
    x = images(10, seed=1)
    losses = reconstruction_loss(model, x, batch_size=4)
    assert (losses.shape, losses.dtype) == ((10,), np.float32)
    with torch.no_grad():
        x_prime = model(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(losses, ((x_prime - x) ** 2).mean(axis=(1, 2, 3)), rtol=1e-4)


def test_an_exported_model_gives_the_same(model, tmp_path):
    x = images(10, seed=1)
    loaded = load(export(model, tmp_path / "model.pt"))
    np.testing.assert_allclose(
        reconstruction_loss(loaded, x), reconstruction_loss(model, x), rtol=1e-3
    )


def test_strangers_lose_more(model):
    strangers = np.random.default_rng(0).random((20, 1, 16, 16), np.float32)
    known = reconstruction_loss(model, images(50, seed=2))
    assert reconstruction_loss(model, strangers).min() > known.max()


def test_tensors_and_empty_batches(model):
    x = images(3)
    losses = reconstruction_loss(model, torch.from_numpy(x))
    assert isinstance(losses, torch.Tensor)
    np.testing.assert_array_equal(losses.numpy(), reconstruction_loss(model, x))
    assert reconstruction_loss(model, x[:0]).shape == (0,)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_statistics_stay(model, training):
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reconstruction_loss(model, images(5))
    assert model.training is training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()


def test_refusals(model):
    with pytest.raises(
        TypeError, match=r"model must be a ConvAutoencoder or an Exp.*, got 'model\.pt'"
    ):
        reconstruction_loss("model.pt", images(2))
    with pytest.raises(ValueError, match="images has shape"):
        reconstruction_loss(model, images(2)[..., :8])
    with pytest.raises(ValueError, match=r"batch_size must be .*, got 0"):
        reconstruction_loss(model, images(2), batch_size=0)


def test_importing_the_module_imports_no_torch():
    code = "import sys, ekmfast.anomaly; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_torch_is_told_plainly():
    code = """
import sys


class NoTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name=name)


sys.meta_path.insert(0, NoTorch())
from ekmfast.anomaly import anomaly_map, reconstruction_loss
try:
    reconstruction_loss(None, None)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "ekmfast[torch]"' in done.stdout


def test_a_folder_is_encoded_and_scored_as_its_array_is(tmp_path, model):
    from PIL import Image

    for i, image in enumerate(images(30)):
        Image.fromarray((255 * image[0]).astype(np.uint8)).save(tmp_path / f"{i:02}.png")
    data = load_image_folder(tmp_path, model.image_size, channels=1)
    files = open_image_folder(tmp_path, model.image_size, channels=1)
    loaded = load(export(model, tmp_path / "model.ts"))
    for function in (loaded.encode, loaded.reconstruct, loaded.anomaly_loss):
        np.testing.assert_array_equal(
            function(files, batch_size=8), function(data.images, batch_size=8)
        )
    np.testing.assert_array_equal(
        reconstruction_loss(model, files), reconstruction_loss(model, data.images)
    )


def test_an_error_of_a_file_is_told(tmp_path, model):
    from PIL import Image

    for i, image in enumerate(images(5)):
        Image.fromarray((255 * image[0]).astype(np.uint8)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "03.png").write_bytes(b"junk")
    files = open_image_folder(tmp_path, model.image_size, channels=1)
    with pytest.raises(ValueError, match=r"cannot read the image .*03\.png"):
        reconstruction_loss(model, files, batch_size=1)


def test_a_map_is_the_error_of_each_pixel(tmp_path, model):
    x = images(10, seed=1)
    maps = anomaly_map(model, x, batch_size=4)
    assert (maps.shape, maps.dtype) == ((10, 16, 16), np.float32)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), reconstruction_loss(model, x), rtol=1e-4)
    loaded = load(export(model, tmp_path / "model.ts"))
    np.testing.assert_allclose(anomaly_map(loaded, x), maps, atol=1e-5)
    x[0, 0, 3, 12] = 1  # one abnormal pixel
    row, column = np.unravel_index(anomaly_map(model, x)[0].argmax(), (16, 16))
    assert (row, column) == (3, 12)
    with pytest.raises(TypeError, match=r"model must be .*, got 'model\.pt'"):
        anomaly_map("model.pt", x)
