"""Encoder and decoder with weights in the layout of oneDNN, against those of PyTorch's modules."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch

from ekmfast.autoencoder import ConvAutoencoder, _packed, export, load, torchscript

NAMES = ("encode", "reconstruct", "anomaly_loss", "anomaly_map")

packs = pytest.mark.skipif(
    not _packed.can_pack(torch.device("cpu"), torch.float32),
    reason="PyTorch has no oneDNN here, or the processor no AVX2",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(path, size, channels, latent_dim, **parameters):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConvAutoencoder(size, channels, latent_dim, width=0.125, **parameters)
        model(torch.rand(20, channels, size, size))  # so that BatchNorm has averages
    return export(model.eval(), path)


@packs
@pytest.mark.parametrize("suffix", ["ts", "pt2"])
@pytest.mark.parametrize(
    ("size", "channels", "latent_dim"),
    [(16, 1, 3), (32, 3, 16), (48, 4, 8), (16, 5, 8)],  # above 4 channels no layer is shuffled
)
def test_results_are_those_of_the_module(size, channels, latent_dim, suffix, tmp_path, monkeypatch):
    path = made(tmp_path / f"model.{suffix}", size, channels, latent_dim, normalize_codes=True)
    loaded = load(path)
    assert loaded._encoder is not loaded._module.encoder
    monkeypatch.setattr(_packed, "can_pack", lambda device, dtype: False)
    plain = load(path)
    assert plain._encoder is plain._module.encoder
    x = np.random.default_rng(0).random((70, channels, size, size), np.float32)
    for name in NAMES:
        for n, batch_size in ((0, 256), (1, 256), (70, 256), (70, 64), (7, 1)):
            wanted = getattr(plain, name)(x[:n], batch_size=batch_size)
            got = getattr(loaded, name)(x[:n], batch_size=batch_size)
            assert got.shape == wanted.shape
            assert got.flags.c_contiguous
            scale = np.abs(wanted).max(initial=0)
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * scale, err_msg=name)


@packs
def test_weights_stay_as_they_were(tmp_path):
    path = made(tmp_path / "model.ts", 16, 1, 4)
    loaded = load(path)
    before = torchscript.load(path).state_dict()
    after = loaded._module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_cannot_be_packed(monkeypatch):
    cpu = torch.device("cpu")
    assert not _packed.can_pack(torch.device("meta"), torch.float32)
    for capability in ("DEFAULT", "NO AVX", "AVX", "SVE256"):
        with monkeypatch.context() as patch:
            patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
            assert not _packed.can_pack(cpu, torch.float32)
    with monkeypatch.context() as patch:
        patch.setattr(_packed, "OPERATORS", (*_packed.OPERATORS, "_that_is_missing"))
        assert not _packed.can_pack(cpu, torch.float32)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert not _packed.can_pack(cpu, torch.float32)


@pytest.mark.parametrize("packed", [True, False])
def test_half_precision(packed, tmp_path, monkeypatch):
    if packed and not _packed.can_pack(torch.device("cpu"), torch.bfloat16):
        pytest.skip("PyTorch has no oneDNN here, or the processor no bfloat16")
    path = made(tmp_path / "model.ts", 32, 3, 16)
    exact = load(path)
    monkeypatch.setattr(_packed, "can_pack", lambda device, dtype: packed)
    coarse = load(path, precision="bfloat16")
    x = np.random.default_rng(0).random((9, 3, 32, 32), np.float32)
    for name in NAMES:
        a, b = getattr(exact, name)(x), getattr(coarse, name)(x)
        assert b.dtype == np.float32
        assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()
