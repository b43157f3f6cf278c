# ruff: noqa: E402
"""The CUDA kernels compiled for real, without a card: what they use of one is bounded here.

The compilers come with the extra ``test`` on the platforms that have them (`HAVE_COMPILERS`); the
simulator must be off.
"""

import platform
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

# EKMFAST_CUDA_COMPILER=numba-cuda-mlir runs these tests with the other compiler.
pytest.importorskip("ekmfast.rows.cuda.compiler", exc_type=ImportError)
from ekmfast.rows.cuda.compiler import NAME, SIMULATED, cuda, types

if SIMULATED:
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

CAPABILITY = (9, 0)
if NAME == "numba-cuda-mlir":  # it asks the GPU what to compile for
    from numba_cuda_mlir import tools

    tools._cached_cc = CAPABILITY


def nvidia_file(pattern):
    spec = find_spec("nvidia")
    folders = [] if spec is None else [Path(p) for p in spec.submodule_search_locations]
    return next((file for folder in folders for file in folder.glob(pattern)), None)


HAVE_COMPILERS = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
PTXAS = nvidia_file("*/bin/ptxas")
LIBRARIES = [nvidia_file("*/nvvm/libdevice/*.bc"), nvidia_file("*/lib*/libnvvm*")]
MISSING = None in (PTXAS, *LIBRARIES)
HOW = 'no compilers of CUDA: pip install "numba-cuda[cu13]" "cuda-toolkit[nvcc]"'

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.kernels import EQUILIBRIUM, FUZZY, HARD, MAXIMUM_ENTROPY

float32, float64, int32, int64 = types.float32, types.float64, types.int32, types.int64
TYPES = {np.float32: float32, np.float64: float64}
WEIGHTINGS = [EQUILIBRIUM, MAXIMUM_ENTROPY, HARD, FUZZY]


def array(dtype, ndim, layout="C"):
    return types.Array(TYPES.get(dtype, dtype), ndim, layout)


def fused(T, k, d, weighting, weighted=True):
    t = TYPES[T]
    return kernels.fused(T, k, d, weighting, weighted), (
        array(T, 1), array(T, 1), int64, int64, int64, int64, array(T, 1), array(T, 3),
        array(T, 2), t, array(float64, 3), int64,
    )  # fmt: skip


def weigh(T, weighting, k):
    return kernels.weigh(T, weighting, k, True), (
        array(T, 1), array(T, 2), array(T, 1), array(T, 1), int64, int64, array(float64, 2),
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
    for split in (False, True) if T is np.float32 else (False,):
        yield kernels.prepare(T, split), (
            array(T, 2, "A"), int64, int64, array(T, 1), array(T, 2), array(T, 1), array(T, 2)
        )  # fmt: skip
    for split in (False, True) if T is np.float32 else (False,):
        yield kernels.scale_centroids(T, split), (
            f64, array(float64, 1), array(T, 2), array(T, 2), array(T, 2), array(T, 2)
        )  # fmt: skip
    yield kernels.add_partial(), (f64, int64, array(float64, 1))
    for slices in (1, 16):
        yield kernels.add_onto(slices), (array(T, 2), int64, array(float64, 1))
    yield kernels.column_sums(T, 128), (array(T, 2), f64)
    yield kernels.nearest(T, 32), (
        array(T, 1), array(T, 2), array(T, 2, "A"), int64, int64, f64, array(int32, 1),
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
    yield kernels.fill(T), (array(T, 1), float64)
    yield kernels.gather(T), (array(T, 2, "A"), array(int64, 1), f64)
    yield kernels.exact_memberships(True, True), (
        array(T, 2, "A"), array(T, 1), int64, int64, f64, float64, array(int64, 1), f64, f64
    )  # fmt: skip
    yield kernels.largest_exponents(), (f64, f64)
    yield kernels.raise_exponents(), (f64, f64, array(T, 1), int64, int64, array(float64, 1))


@cache
def built(kernel, signature, capability):
    """The instructions of a kernel, and what ptxas reports of them."""
    ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=capability)
    done = subprocess.run(
        [PTXAS, "-v", "-arch=sm_{}{}".format(*capability), "-", "-o", "/dev/null"],
        input=ptx, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return ptx, done.stderr


@pytest.fixture
def build(monkeypatch):
    if MISSING:
        pytest.skip(HOW)

    def build(kernel, signature, capability=CAPABILITY):
        # Device functions ask the current card what to compile for.
        device = SimpleNamespace(compute_capability=capability)
        if NAME == "numba-cuda":
            monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
        else:
            monkeypatch.setattr(tools, "_cached_cc", capability)
        return built(kernel, signature, capability)

    return build


@pytest.fixture
def resources(build):
    """Registers, bytes of shared memory and of spills and stack, as ptxas reports them."""

    def measure(kernel, signature, capability=(9, 0)):
        ptx, report = build(kernel, signature, capability)
        # With atomic operations sums would depend on which block comes first.
        assert not re.search(r"\b(atom|red)\.", ptx)
        shared = re.search(r"(\d+) bytes smem", report)
        spilled = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report
        )
        print(kernel.py_func.__qualname__, signature, report)
        return (
            int(re.search(r"Used (\d+) registers", report)[1]),
            int(shared[1]) if shared else 0,
            sum(map(int, spilled.groups())),
        )

    return measure


@pytest.mark.skipif(not HAVE_COMPILERS, reason="there are no compilers of CUDA for this platform")
def test_the_extra_test_has_installed_the_compilers():
    assert not MISSING, HOW


LARGEST = [
    (T, k, d)
    for T in (np.float32, np.float64)
    for d in (1, 2, 3, 4, 6, 8, 12, 16)
    for k in [max(k for k in range(50) if k == 0 or kernels.fits_fused(T, k, d))]
    if k
]
# Most kernels are compiled for one kind of GPU only, since this takes a second for each.
CASES = [((9, 0), *case) for case in LARGEST] + [
    ((8, 0), *case) for case in LARGEST if case[2] == 4
]


def name(value):
    return "sm_{}{}".format(*value) if isinstance(value, tuple) else None


@pytest.mark.parametrize(("capability", "T", "k", "d"), CASES, ids=name)
def test_largest_fused_kernels_spill_nothing(resources, capability, T, k, d):
    registers, shared, spilled = resources(*fused(T, k, d, EQUILIBRIUM), capability)
    assert spilled == 0
    assert registers <= 255
    assert shared <= 48 << 10  # what any card gives a block


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_fused_kernels_leave_room_for_three_blocks(resources, weighting):
    # K = D = 8 in float32: three blocks of 128 threads share 65,536 registers, or two for FUZZY and
    # with numba-cuda-mlir.
    registers, shared, spilled = resources(*fused(np.float32, 8, 8, weighting))
    assert spilled == 0
    two = weighting == FUZZY or NAME == "numba-cuda-mlir"
    assert registers <= (255 if two else 168)
    assert shared <= 46 << 10
    small, _, spilled = resources(*fused(np.float32, 3, 2, weighting))
    assert spilled == 0
    assert small <= 80


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize("weighting", [EQUILIBRIUM, MAXIMUM_ENTROPY, HARD])
def test_weighing_a_chunk_at_once_spills_nothing(resources, T, weighting):
    for k in (8, kernels.WEIGHED_COLUMNS[T]):
        registers, shared, spilled = resources(*weigh(T, weighting, k))
        assert spilled == 0, k
        assert registers <= 255, k
        assert shared <= 48 << 10, k


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


def test_vector_units_compute_powers_of_two(build):
    ptx, _ = build(*fused(np.float32, 3, 2, EQUILIBRIUM))
    # One for each row and centroid: the loops have unrolled.
    assert ptx.count("ex2.approx.ftz.f32") == 3 * kernels.rows_at_once(np.float32, 3, 2)
    assert "ld.local" not in ptx
    assert "call" not in ptx
