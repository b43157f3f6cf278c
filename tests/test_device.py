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
    assert why.startswith("a pass should take the CPU ")
    assert _backends.choose("auto", X, 1e12)[0] == "cuda"


def test_the_estimate_of_a_pass_is_what_was_measured(monkeypatch):
    # 2 N K D and D, and the milliseconds of 16 threads in bench/results/gpu-nvidia-h200.md.
    monkeypatch.setattr(_backends, "get_num_threads", lambda: 16)
    measured = [(1.23e7, 2, 0.245), (1.31e8, 8, 0.628), (1.05e9, 32, 2.75), (1.68e10, 128, 27.3)]
    for work, d, ms in measured:
        assert 1e3 * _backends.cpu_seconds(work, d) == pytest.approx(ms, rel=0.05)
    assert _backends.cpu_seconds(1e9, 8, 1) == pytest.approx(16 * _backends.cpu_seconds(1e9, 8))
    assert _backends.cpu_seconds(1e9, 1) == _backends.cpu_seconds(1e9, 2)
    assert _backends.cpu_seconds(1e9, 1000) == _backends.cpu_seconds(1e9, 128)
    assert (
        _backends.cpu_seconds(1e9, 2)
        > _backends.cpu_seconds(1e9, 5)
        > _backends.cpu_seconds(1e9, 8)
    )


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


def test_missing_compilers_are_named():
    code = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if "numba_cuda" in name else find(name, *more)
from ekmfast.rows.device import cuda_status
print(cuda_status())
"""
    why = 'numba_cuda is needed here and is not installed: pip install "ekmfast[cuda]"'
    assert run(code) == why


def run(code, **environment):
    """What a Python of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            AttributeError("module 'numpy' has no attribute 'row_stack'"),
            ', which is too new for it: pip install "numpy<2.5"',
        ),
        (ImportError("no such\nlibrary"), ""),
    ],
)
def test_a_compiler_that_cannot_be_imported_is_a_reason(error, advice):
    why = _backends.import_failure("numba-cuda-unknown", error)
    assert why == (
        f"numba-cuda-unknown of unknown version cannot be imported with numpy {np.__version__}"
        f"{advice} ({type(error).__name__}: {' '.join(str(error).split())})"
    )


@pytest.mark.skipif(not hasattr(np, "row_stack"), reason="NumPy is too new for numba-cuda")
def test_numpy_that_is_too_new_for_numba_cuda_is_a_reason():
    pytest.importorskip("numba_cuda")
    # As in NumPy 2.5.
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy
del numpy.row_stack
from ekmfast.rows.device import choose, describe_card
print(describe_card())
import numpy; print(choose("auto", numpy.zeros((2, 2)), 1e12)[0])
"""
    card, choice = run(code, NUMBA_ENABLE_CUDASIM="0").splitlines()
    assert card.startswith("none: numba-cuda ")
    assert f"cannot be imported with numpy {np.__version__}, which is too new" in card
    assert 'pip install "numpy<2.5"' in card
    assert choice == "cpu"


COMPILER = "from ekmfast.rows.cuda import compiler; print(compiler.NAME, compiler.SIMULATED)"


def test_numba_cuda_compiles_the_kernels_where_it_is_installed():
    pytest.importorskip("numba_cuda")
    assert run(COMPILER, NUMBA_ENABLE_CUDASIM="0") == "numba-cuda False"
    assert run(COMPILER, NUMBA_ENABLE_CUDASIM="1") == "numba-cuda True"
    assert run(COMPILER, EKMFAST_CUDA_COMPILER="numba-cuda").startswith("numba-cuda ")


def test_choice_of_the_compiler(monkeypatch):
    pytest.importorskip("numba_cuda")
    from ekmfast.rows.cuda import compiler

    installed = []
    monkeypatch.setattr(compiler, "find_spec", lambda name: name in installed or None)
    monkeypatch.delenv("EKMFAST_CUDA_COMPILER", raising=False)
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "numba_cuda", None)  # so that its import fails
        with pytest.raises(ImportError, match=r'pip install "ekmfast\[cuda\]"'):
            compiler.choose()
    installed.append("numba_cuda_mlir")
    assert compiler.choose() == "numba-cuda-mlir"
    monkeypatch.setenv("EKMFAST_CUDA_COMPILER", "numba-cuda")
    with pytest.raises(ImportError, match=r'not installed: pip install "ekmfast\[cuda\]"'):
        compiler.choose()
    installed.append("numba_cuda")
    assert compiler.choose() == "numba-cuda"
    monkeypatch.setenv("EKMFAST_CUDA_COMPILER", "numba-cuda-mlir")
    assert compiler.choose() == "numba-cuda-mlir"
    monkeypatch.delenv("EKMFAST_CUDA_COMPILER")
    assert compiler.choose() == "numba-cuda"
    monkeypatch.setenv("EKMFAST_CUDA_COMPILER", "nvcc")
    with pytest.raises(ValueError, match=r"one of \('numba-cuda', 'numba-cuda-mlir'\), got 'nvcc'"):
        compiler.choose()


def test_show_config_tells_the_card_or_why_there_is_none(no_card):
    assert _backends.describe_card() == "none: the driver finds no GPU"


def test_show_config_in_the_simulator():
    pytest.importorskip("numba_cuda")
    code = "import ekmfast; print(ekmfast.show_config('dict')['gpu'])"
    assert run(code, NUMBA_ENABLE_CUDASIM="1") == "none: Numba simulates one"
