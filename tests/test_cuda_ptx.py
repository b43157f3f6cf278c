# ruff: noqa: E402
"""The CUDA kernels compiled for real, without a card: what they use of one is bounded here.

It needs the compilers of the extra ``cuda``; the simulator must be off.
"""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba_cuda")
from numba.cuda.core import config

if config.ENABLE_CUDASIM:
    pytest.skip("the simulator compiles nothing", allow_module_level=True)


def nvidia_files(pattern):
    spec = find_spec("nvidia")
    folders = [] if spec is None else [Path(p) for p in spec.submodule_search_locations]
    return [file for folder in folders for file in folder.glob(pattern)]


PTXAS = next(iter(nvidia_files("*/bin/ptxas")), None)
if PTXAS is None or not nvidia_files("*/nvvm/libdevice/*.bc") or not nvidia_files("*/lib/libnvvm*"):
    pytest.skip(
        'no compilers of CUDA: pip install "ekmfast[cuda]" nvidia-cuda-nvcc nvidia-nvvm',
        allow_module_level=True,
    )

from numba import cuda, float32, float64, int32, int64, types

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.kernels import EQUILIBRIUM, FUZZY, HARD, MAXIMUM_ENTROPY

TYPES = {np.float32: float32, np.float64: float64}
CAPABILITIES = [(8, 0), (9, 0)]
WEIGHTINGS = [EQUILIBRIUM, MAXIMUM_ENTROPY, HARD, FUZZY]


def array(dtype, ndim, layout="C"):
    return types.Array(TYPES.get(dtype, dtype), ndim, layout)


def fused(T, k, d, weighting, weighted=True):
    t = TYPES[T]
    return kernels.fused(T, k, d, weighting, weighted), (
        array(T, 1), array(T, 1), int64, int64, int64, array(T, 1), array(T, 3), array(T, 2), t,
        array(float64, 3),
    )  # fmt: skip


def weigh_rows(T, weighting, lanes=32):
    return kernels.weigh_rows(T, weighting, lanes, True), (
        array(T, 2), array(T, 2), array(T, 1), array(T, 2), array(T, 2), array(T, 1), int64, int64,
        TYPES[T], array(T, 3), array(float64, 2),
    )  # fmt: skip


def weigh_columns(T, weighting):
    return kernels.weigh_columns(T, weighting, 128), (
        array(T, 2), array(T, 2), array(T, 3), TYPES[T], array(float64, 2)
    )  # fmt: skip


def others(T):
    f64, i64 = array(float64, 2), array(int64, 2)
    yield kernels.prepare(T), (
        array(T, 2, "A"), int64, int64, array(T, 1), array(T, 2), array(T, 1)
    )  # fmt: skip
    yield kernels.add_groups(), (f64, int64, int64, f64)
    yield kernels.add_onto(), (f64, int64, array(float64, 1))
    yield kernels.add_chunk(), (array(T, 2), int64, f64, f64, int64, array(float64, 1))
    yield kernels.column_sums(T, 128), (array(T, 2), f64)
    yield kernels.nearest(T, 32), (
        array(T, 2), array(T, 2), array(T, 2, "A"), int64, int64, f64, array(int32, 1),
        array(T, 1), f64,
    )  # fmt: skip
    for update in (False, True):
        yield kernels.closest(T, 128, True, update), (
            array(T, 2), array(T, 2), array(T, 1), array(T, 2), array(T, 2), array(T, 1), int64,
            int64, array(T, 2, "A"), f64,
        )  # fmt: skip
    for farthest in (False, True):
        yield kernels.row_masses(True, True, farthest), (
            array(T, 2, "A"), array(T, 1), int64, int64, f64, i64
        )  # fmt: skip
    yield kernels.box(T), (array(T, 2, "A"), int64, int64, array(T, 2), array(T, 2))
    yield kernels.gather(T), (array(T, 2, "A"), array(int64, 1), f64)
    yield kernels.exact_memberships(True, True), (
        array(T, 2, "A"), array(T, 1), int64, int64, f64, float64, array(int64, 1), f64, f64
    )  # fmt: skip
    yield kernels.largest_exponents(), (f64, f64)
    yield kernels.raise_exponents(), (f64, f64, array(T, 1), int64, int64, array(float64, 1))


@pytest.fixture(params=CAPABILITIES, ids=lambda c: "sm_{}{}".format(*c))
def resources(request, monkeypatch, tmp_path):
    """Registers, bytes of shared memory and of spills and stack, as ptxas reports them."""
    # Device functions ask the current card what to compile for.
    device = SimpleNamespace(compute_capability=request.param)
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)

    def compile_for_real(kernel, signature):
        ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=request.param)
        # With atomic operations sums would depend on which block comes first.
        assert not re.search(r"\b(atom|red)\.", ptx)
        file = tmp_path / "kernel.ptx"
        file.write_text(ptx)
        architecture = "sm_{}{}".format(*request.param)
        done = subprocess.run(
            [PTXAS, "-v", f"-arch={architecture}", file, "-o", tmp_path / "kernel.cubin"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        shared = re.search(r"(\d+) bytes smem", done.stderr)
        spilled = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
            done.stderr,
        )
        print(kernel.py_func.__qualname__, signature, done.stderr)
        return (
            int(re.search(r"Used (\d+) registers", done.stderr)[1]),
            int(shared[1]) if shared else 0,
            sum(map(int, spilled.groups())),
        )

    return compile_for_real


LARGEST = [
    (T, k, d)
    for T in (np.float32, np.float64)
    for d in (1, 2, 3, 4, 6, 8, 12, 16)
    for k in [max(k for k in range(50) if k == 0 or kernels.fits_fused(T, k, d))]
    if k
]


@pytest.mark.parametrize(("T", "k", "d"), LARGEST)
def test_largest_fused_kernels_spill_nothing(resources, T, k, d):
    registers, shared, spilled = resources(*fused(T, k, d, EQUILIBRIUM))
    assert spilled == 0
    assert registers <= 255
    assert shared <= 48 << 10  # what any card gives a block


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_fused_kernels_leave_room_for_two_blocks(resources, weighting):
    # K = D = 8 in float32: two blocks of 128 threads share 65,536 registers.
    registers, shared, spilled = resources(*fused(np.float32, 8, 8, weighting))
    assert spilled == 0
    assert registers <= 255
    assert shared <= 46 << 10
    small, _, spilled = resources(*fused(np.float32, 3, 2, weighting))
    assert spilled == 0
    assert small <= 80


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weighing_a_chunk_spills_nothing(resources, T, weighting):
    for registers, shared, spilled in (
        resources(*weigh_rows(T, weighting)),
        resources(*weigh_columns(T, weighting)),
    ):
        assert spilled == 0
        assert registers <= 128
        assert shared <= 2 << 10


@pytest.mark.parametrize("T", [np.float32, np.float64])
def test_all_other_kernels_compile_and_spill_nothing(resources, T):
    for kernel, signature in others(T):
        registers, shared, spilled = resources(kernel, signature)
        assert spilled == 0, kernel
        assert registers <= 64, kernel
        assert shared <= 2 << 10, kernel


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_own_product_spills_nothing(resources, T, transposed):
    signature = (array(T, 2), array(T, 2), int64, array(T, 3))
    registers, shared, spilled = resources(kernels.product(T, transposed), signature)
    assert spilled == 0
    assert registers <= 168
    assert shared <= 16 << 10


def test_vector_units_compute_powers_of_two(monkeypatch):
    device = SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    kernel, signature = fused(np.float32, 3, 2, EQUILIBRIUM)
    ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=(9, 0))
    assert ptx.count("ex2.approx.ftz.f32") == 3  # one a centroid: the loop has unrolled
    assert "ld.local" not in ptx
    assert "call" not in ptx
