"""The choice of the device, and the error where there is no GPU."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

import ekmfast
from ekmfast import EKMeans, FuzzyCMeans, HardKMeans, MaximumEntropyKMeans
from ekmfast.rows import device as _backends

X = np.random.default_rng(0).normal(size=(60, 2))


class Elsewhere:
    """Has the interface of an array on a GPU."""

    shape = (60, 2)

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape}


class ByDlpack:
    def __init__(self, device):
        self.device = device

    def __dlpack_device__(self):
        return self.device, 0


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(_backends, "cuda_status", lambda: "the driver finds no GPU")


@pytest.mark.parametrize("estimator", [EKMeans, HardKMeans, FuzzyCMeans, MaximumEntropyKMeans])
def test_cuda_without_a_card_says_why(no_card, estimator):
    with pytest.raises(RuntimeError, match="needs a usable GPU: the driver finds no GPU"):
        estimator(3, device="cuda").fit(X)


def test_auto_without_a_card_is_the_cpu_and_says_why(no_card, caplog):
    with caplog.at_level(logging.INFO, "ekmfast"):
        auto = EKMeans(3, alpha=1.0, device="auto", random_state=0).fit(X)
    assert "device='auto' is cpu: the driver finds no GPU" in caplog.text
    cpu = EKMeans(3, alpha=1.0, random_state=0).fit(X)
    np.testing.assert_array_equal(auto.cluster_centers_, cpu.cluster_centers_)
    with pytest.raises(RuntimeError, match="cannot be used: the driver finds no GPU"):
        EKMeans(3, device="auto").fit(Elsewhere())


def test_choice_with_a_card(monkeypatch):
    monkeypatch.setattr(_backends, "cuda_status", lambda: None)
    assert _backends.choose("cpu", X) == ("cpu", "device='cpu'")
    assert _backends.choose("cuda", X) == ("cuda", "device='cuda'")
    assert _backends.choose("auto", Elsewhere()) == ("cuda", "X lies on the GPU")
    device, why = _backends.choose("auto", X, 1e3)
    assert device == "cpu"
    assert "too few" in why
    assert _backends.choose("auto", X, 1e12)[0] == "cuda"


def test_what_lies_on_a_card_is_not_taken_for_the_host():
    with pytest.raises(ValueError, match="lies on a CUDA device but device='cpu'"):
        EKMeans(3).fit(Elsewhere())
    assert _backends.is_cuda_array(ByDlpack(2))
    assert not _backends.is_cuda_array(ByDlpack(1))
    for value in (X, X.tolist(), None, 3):
        assert not _backends.is_cuda_array(value)


def test_a_tensor_of_the_host_is_no_card_array():
    torch = pytest.importorskip("torch")
    assert not _backends.is_cuda_array(torch.zeros(3, 2))


def test_blocks_are_for_the_cpu(no_card):
    blocks = ekmfast.blocks.from_arrays([X])
    with pytest.raises(ValueError, match="device='cuda' takes arrays"):
        EKMeans(3, device="cuda").fit(blocks)


@pytest.mark.parametrize("missing", ["numba", "numba_cuda"])
def test_missing_packages_are_named(monkeypatch, missing):
    find = _backends.find_spec
    monkeypatch.setattr(_backends, "find_spec", lambda n: None if n == missing else find(n))
    assert _backends.cuda_status.__wrapped__() == (
        f'{missing} is not installed: pip install "ekmfast[cuda]"'
    )


def test_show_config_tells_the_card_or_why_there_is_none(no_card):
    assert _backends.describe_card() == "none: the driver finds no GPU"


def test_show_config_in_the_simulator():
    pytest.importorskip("numba_cuda")
    code = "import ekmfast; print(ekmfast.show_config('dict')['gpu'])"
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "none: Numba simulates one"
