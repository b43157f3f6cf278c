# ruff: noqa: E402
"""The CUDA kernels against the CPU's, on a card or, without one, in Numba's simulator.

`test_cuda_simulator.py` runs this file with NUMBA_ENABLE_CUDASIM=1.
"""

import ctypes
import os
import threading

import numpy as np
import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
if not SIMULATED:
    from ekmfast.rows.device import cuda_status

    if cuda_status() is not None:
        pytest.skip(f"no card: {cuda_status()}", allow_module_level=True)
else:
    import simulator

    simulator.patch()

from numba import cuda
from numpy.lib.stride_tricks import as_strided

from ekmfast import _reference
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.cuda import division, kernels
from ekmfast.rows.cuda.memory import ResidentRows, StreamedRows
from ekmfast.rows.cuda.passes import DEPTH, CudaPasses
from ekmfast.rows.cuda.passes.survey import box
from ekmfast.rows.cuda.product import (
    IN_FLOAT32,
    IN_TF32,
    SPLIT_CENTROIDS,
    CublasProduct,
    OwnProduct,
    choose_product,
)
from ekmfast.rows.cuda.rows import CudaRows

pytestmark = [] if SIMULATED else [pytest.mark.gpu]

SUMS = ("sum_wx", "sum_w", "sum_p", "objective")
WEIGHTINGS = ("equilibrium", "maximum-entropy", "hard", "fuzzy")
# Of the largest number of an array. Measured in the simulator: 4e-7, 1e-15.
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14}


class ColumnMajor:
    """The functions of cuBLAS that we call, as its manual defines them, on the host."""

    def cublasCreate_v2(self, handle):  # noqa: N802 - cuBLAS' name
        return 0

    def cublasDestroy_v2(self, handle):  # noqa: N802
        return 0

    def cublasSetStream_v2(self, handle, stream):  # noqa: N802
        return 0

    def cublasSetWorkspace_v2(self, handle, memory, size):  # noqa: N802
        return 0

    def cublasGemmStridedBatchedEx(  # noqa: N802
        self, handle, left, right, m, n, k, one, A, A_type, A_ld, A_step, B, B_type, B_ld, B_step,
        zero, out, out_type, out_ld, out_step, batches, precision, algorithm,
    ):  # fmt: skip
        assert A_type == B_type == out_type
        T = np.dtype([np.float32, np.float64][A_type])

        def matrix(address, rows, columns, ld, at):
            """The element of row i and column j lies at i + j ld."""
            bytes_ = ((columns - 1) * ld + rows) * T.itemsize
            memory = (ctypes.c_char * bytes_).from_address(address + at * T.itemsize)
            return as_strided(
                np.frombuffer(memory, T), (rows, columns), (T.itemsize, ld * T.itemsize)
            )

        def factor(transposed, address, rows, columns, ld, at):
            if transposed:
                found = matrix(address, columns, rows, ld, at).T
            else:
                found = matrix(address, rows, columns, ld, at)
            if precision == IN_TF32:
                found = leading_bits_of(np.ascontiguousarray(found))
            return found

        for i in range(batches):
            factors = (
                factor(left, A, m, k, A_ld, i * A_step),
                factor(right, B, k, n, B_ld, i * B_step),
            )
            with np.errstate(all="ignore"):
                # Unlike a matrix product of NumPy, this gives equal columns equal results.
                matrix(out, m, n, out_ld, i * out_step)[:] = np.einsum("ij,jk", *factors)
        return 0


def leading_bits_of(array):
    """float32 numbers with the first 10 bits of their mantissas, which TensorFloat-32 keeps."""
    return (array.view(np.int32) & np.int32(-(1 << 13))).view(np.float32)


def library():
    return CublasProduct(ColumnMajor()) if SIMULATED else choose_product()


def problem(n, k, d, S, dtype, weighted, offset=100.0):
    rng = np.random.default_rng(n + 7 * k + d)
    X = (rng.normal(size=(n, d)) * 2 + offset).astype(dtype)
    C = X[rng.integers(0, n, S * k)].astype(np.float64).reshape(S, k, d) + 0.1
    s = rng.uniform(0.5, 2, n).astype(dtype) if weighted else None
    return X, C, np.linspace(0.3, 0.6, S), s


def on_card(X, s=None):
    return ResidentRows(cuda.to_device(X), None if s is None else cuda.to_device(s))


def close(got, wanted, dtype, factor=1):
    np.testing.assert_allclose(
        got, wanted, rtol=0, atol=factor * TOLERANCE[dtype] * max(np.abs(wanted).max(), 1e-300)
    )


def same_sums(got, wanted, dtype):
    for name in SUMS:
        close(getattr(got, name), getattr(wanted, name), dtype)


# Few centroids go through the fused kernel, the others through chunks; several blocks, chunks and
# groups, tails, one row, one feature, one centroid.
SHAPES = [(70, 3, 2, 1), (33, 2, 3, 3), (1, 3, 2, 1), (40, 1, 1, 1), (90, 12, 9, 1), (45, 5, 20, 2)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "k", "d", "S"), SHAPES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_statistics_are_the_cpus(n, k, d, S, weighting, dtype):
    weighted = (n + k) % 2 == 1
    X, C, alpha, s = problem(n, k, d, S, dtype, weighted)
    m = 2.0 if weighted else 1.7
    got = CudaPasses(on_card(X, s), weighting, m, library()).statistics(C, alpha)
    same_sums(got, ArrayRows(X, s, 1, weighting, m).statistics(C, alpha), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_one_centroid_of_many_features(weighting, dtype):
    # Too many features for the fused kernel, and fewer centroids than threads that share a row.
    X, C, alpha, _ = problem(70, 1, 45, 1, dtype, False)
    got = CudaPasses(on_card(X), weighting, 1.7, library()).statistics(C, alpha)
    same_sums(got, ArrayRows(X, None, 1, weighting, 1.7).statistics(C, alpha), dtype)


def test_both_ways_are_taken():
    fused = [kernels.fits_fused(np.float32, k, d) for _, k, d, _ in SHAPES]
    assert fused == [True, True, True, True, False, False]


def test_the_oracle_agrees():
    X, C, alpha, s = problem(40, 4, 3, 1, np.float64, True, offset=0.0)
    got = CudaPasses(on_card(X, s)).statistics(C, alpha)
    sum_wx, sum_w, sum_p, objective = _reference.statistics(X, C[0], alpha[0], s)
    close(got.sum_w[0], sum_w, np.float64, 100)
    close(got.sum_p[0], sum_p, np.float64, 100)
    close(got.sum_wx[0] + got.sum_w[0][:, None] * got.reference, sum_wx, np.float64, 100)
    close(got.objective, np.array([objective]), np.float64, 100)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_own_product_is_the_librarys(dtype):
    X, C, alpha, s = problem(50, 7, 11, 2, dtype, True)
    got = CudaPasses(on_card(X, s), product=OwnProduct()).statistics(C, alpha)
    same_sums(got, ArrayRows(X, s, 1).statistics(C, alpha), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_multiply(dtype):
    rng = np.random.default_rng(0)
    Y, C = rng.normal(size=(2 * DEPTH, 5)).astype(dtype), rng.normal(size=(3, 5)).astype(dtype)
    w = rng.normal(size=(2 * DEPTH, 3)).astype(dtype)
    for product in (library(), OwnProduct()):
        scores = cuda.device_array((2 * DEPTH, 3), dtype)
        sums = cuda.device_array((2, 3, 5), dtype)
        product.scores(cuda.to_device(Y), cuda.to_device(C), scores)
        product.sums(cuda.to_device(w), cuda.to_device(Y), DEPTH, sums)
        close(scores.copy_to_host(), Y.astype(float) @ C.T, dtype)
        halves = [w[i : i + DEPTH].astype(float).T @ Y[i : i + DEPTH] for i in (0, DEPTH)]
        close(sums.copy_to_host(), np.array(halves), dtype)


def test_products_of_parts_are_nearly_those_of_float32():
    rng = np.random.default_rng(0)
    Y, C = (rng.normal(size=(n, 40)).astype(np.float32) for n in (2 * DEPTH, 300))
    parts = [leading_bits_of(a) for a in (Y, C)]
    Y3 = np.hstack([parts[0], parts[0], Y - parts[0]])
    C3 = np.hstack([parts[1], C - parts[1], parts[1]])
    wanted = Y.astype(float) @ C.T
    errors = []
    for factors, precision in (((Y3, C3), IN_TF32), ((Y, C), IN_TF32), ((Y, C), IN_FLOAT32)):
        out = cuda.device_array((2 * DEPTH, 300), np.float32)
        library()._scores(*map(cuda.to_device, factors), out, precision)
        errors.append(np.abs(out.copy_to_host() - wanted).max() / np.abs(wanted).max())
    # Measured on an H200: 1.4e-6; tensor cores round sums more coarsely than vector units.
    assert errors[0] < 3e-6
    assert errors[1] > 1e-5  # so TensorFloat-32 was used
    assert errors[2] < 4e-7


@pytest.mark.parametrize("setting", [None, "0", "1"])
def test_tf32_is_set_by_the_environment(monkeypatch, setting):
    monkeypatch.delenv("EKMFAST_CUDA_TF32", raising=False)
    if setting is not None:
        monkeypatch.setenv("EKMFAST_CUDA_TF32", setting)
    product = CublasProduct(ColumnMajor())
    assert product.tf32 == (setting == "1")
    assert product.splits(np.float32, SPLIT_CENTROIDS) == (setting is None)
    assert not product.splits(np.float32, SPLIT_CENTROIDS - 1)
    assert not product.splits(np.float64, 2048)
    monkeypatch.setenv("EKMFAST_CUDA_TF32", "yes")
    with pytest.raises(ValueError, match=r"EKMFAST_CUDA_TF32 must be 0 or 1, .* got 'yes'"):
        CublasProduct(ColumnMajor())


@pytest.mark.skipif(not SIMULATED, reason="the library is one of the simulator")
def test_a_thread_gives_its_handle_back():
    events = []

    class Counted(ColumnMajor):
        def cublasCreate_v2(self, handle):  # noqa: N802
            events.append("made")
            return 0

        def cublasDestroy_v2(self, handle):  # noqa: N802
            events.append("destroyed")
            return 0

    product = CublasProduct(Counted())

    def multiply():
        Y, C, scores = (cuda.device_array(s, np.float32) for s in ((8, 2), (3, 2), (8, 3)))
        for _ in range(2):
            product.scores(Y, C, scores)
        events.append("multiplied")

    for _ in range(2):
        thread = threading.Thread(target=multiply)
        thread.start()
        thread.join()
    assert events == ["made", "multiplied", "destroyed"] * 2


def test_product_is_chosen_by_name(monkeypatch):
    monkeypatch.setenv("EKMFAST_CUDA_PRODUCT", "own")
    assert choose_product().name == "own"
    monkeypatch.setenv("EKMFAST_CUDA_PRODUCT", "mkl")
    with pytest.raises(ValueError, match=r"EKMFAST_CUDA_PRODUCT must be one of .*'mkl'"):
        choose_product()


@pytest.mark.parametrize(("k", "d"), [(3, 2), (6, 11), (12, 9)])  # the last one in chunks
@pytest.mark.parametrize("weighted", [False, True])
def test_streamed_rows_give_the_bits_of_resident_ones(k, d, weighted):
    n = 201 if SIMULATED else 2 * division.SEGMENT_BYTES // (4 * d) + 201
    X, C, alpha, s = problem(n, k, d, 1, np.float32, weighted)
    rows = StreamedRows(X, s)
    assert rows.rows < len(X)
    got = CudaPasses(rows, product=library()).statistics(C, alpha)
    wanted = CudaPasses(on_card(X, s), product=library()).statistics(C, alpha)
    for name in SUMS:
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))


def test_segments_of_a_card_hold_whole_chunks_and_no_more_bytes_than_said(monkeypatch):
    sizes = {"DEPTH": 1024, "CHUNK_NUMBERS": 1 << 25, "CHUNK_ROWS": 1 << 18, "STRETCH": 4096}
    sizes |= {"SEGMENT_UNIT": 8192, "SEGMENT_BYTES": 128 << 20}
    for name, value in sizes.items():
        assert SIMULATED or getattr(division, name) == value
        monkeypatch.setattr(division, name, value)
    n = 1 << 26
    for d in (1, 3, 8, 64, 100, 1000, 4096):
        rows = division.segment_rows(n, d, 4)
        assert 64 << 20 < 4 * rows * d <= 128 << 20
        assert rows % 8192 == 0
        for width in (1, 8, 3000, 1 << 20):
            assert rows % division.chunk_rows(n, max(width, d)) == 0


@pytest.mark.parametrize(("k", "d"), [(3, 2), (12, 9)])
def test_results_are_the_same_bits_each_time(k, d):
    X, C, alpha, _ = problem(60, k, d, 1, np.float32, False)
    backend = CudaPasses(on_card(X))
    first, second = (backend.statistics(C, alpha) for _ in range(2))
    for name in SUMS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("k", "d"), [(3, 2), (12, 9)])
def test_a_pass_that_is_repeated_gives_what_a_first_one_gives(k, d, weighting):
    # From the second time on a GPU repeats a recording of the pass. More problems need more memory,
    # which makes older recordings useless.
    X, C, alpha, s = problem(60, k, d, 5, np.float32, True)
    rows = on_card(X, s)
    passes = CudaPasses(rows, weighting, 1.7, library())
    turns = [(0, 1), (1, 2), (2, 3), (0, 5), (3, 4), (1, 3), (0, 3), (4, 5)]
    for begin, end in turns[:2] if SIMULATED else 3 * turns:
        got = passes.statistics(C[begin:end], alpha[begin:end])
        fresh = CudaPasses(rows, weighting, 1.7, library())
        wanted = fresh.statistics(C[begin:end], alpha[begin:end])
        for name in SUMS:
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
    if not SIMULATED:
        assert any(passes.kept.recordings.values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 20])
@pytest.mark.parametrize("weighting", ["equilibrium", "maximum-entropy", "fuzzy"])
@pytest.mark.parametrize("far", [40.0, 1000.0])
def test_underflowed_columns_keep_their_ratio(dtype, d, weighting, far):
    X = np.repeat(np.array([[100.0], [101], [102], [110], [111]], dtype), d, axis=1) / dtype(d**0.5)
    s = np.array([1, 2, 1, 0.5, 1], dtype)
    C = np.repeat([[[105.0], [105.0 + far]]], d, axis=2) / d**0.5
    alpha = np.array([2.0])
    m = 1.02
    got = CudaPasses(on_card(X, s), weighting, m, library()).statistics(C, alpha)
    wanted = ArrayRows(X, s, 1, weighting, m).statistics(C, alpha)
    np.testing.assert_allclose(got.ratio(C), wanted.ratio(C), rtol=3 * TOLERANCE[dtype])
    np.testing.assert_allclose(got.exponent, wanted.exponent, rtol=1e-12)
    assert far < 100 or weighting == "fuzzy" or got.exponent[0, 1] < -1000


@pytest.mark.parametrize(("k", "d"), [(3, 2), (12, 9)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_seen(k, d, value):
    X, C, alpha, _ = problem(20, k, d, 1, np.float32, False)
    X[7, 1] = value
    for weighting in WEIGHTINGS:
        backend = CudaPasses(on_card(X), weighting, 2.0, library())
        assert not np.isfinite(backend.statistics(C, alpha).objective[0]), weighting


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_closest_is_the_cpus(dtype, weighted):
    X, C, _, s = problem(70, 3, 4, 2, dtype, weighted)
    gpu, cpu = CudaPasses(on_card(X, s)), ArrayRows(X, s, 1)
    mine, wanted = gpu.distances(2), cpu.distances(2)
    seeds = X[[[3], [5]]].astype(np.float64)
    gpu.closest(seeds, mine, update=True)
    cpu.closest(seeds, wanted, update=True)
    np.testing.assert_allclose(mine.copy_to_host(), wanted, rtol=1e-4, atol=1e-30)
    assert mine.copy_to_host()[0, 3] == 0
    close(gpu.closest(C, mine), cpu.closest(C, wanted), dtype, 10)
    np.testing.assert_array_equal(gpu.farthest(mine), cpu.farthest(wanted))
    uniform = np.random.default_rng(0).uniform(size=(2, 3))
    np.testing.assert_array_equal(gpu.draw(mine, uniform), cpu.draw(wanted, uniform))
    np.testing.assert_array_equal(gpu.draw(None, uniform[0]), cpu.draw(None, uniform[0]))
    np.testing.assert_array_equal(gpu.held.take(np.array([[1, 4]])), cpu.take(np.array([[1, 4]])))


def test_a_survey_is_the_cpus():
    X, _, _, s = problem(70, 3, 4, 1, np.float64, True)
    gpu, cpu = CudaRows(X, s).survey(checksum=True), ArrayRows(X, s).survey(checksum=True)
    np.testing.assert_array_equal([gpu.low, gpu.high], [cpu.low, cpu.high])
    np.testing.assert_allclose(gpu.mean, cpu.mean, rtol=1e-13)
    assert gpu.dispersion == pytest.approx(cpu.dispersion, rel=1e-13)
    assert gpu.total_weight == pytest.approx(cpu.total_weight, rel=1e-14)
    assert gpu.checksum == cpu.checksum


def test_a_box_keeps_what_is_not_finite():
    X = np.arange(40.0).reshape(20, 2)
    X[4, 0], X[9, 1] = np.nan, np.inf
    (low, _), (high, infinite) = box(on_card(X))
    assert np.isnan([low, high]).all()
    assert infinite == np.inf


@pytest.mark.parametrize("weighted", [True, False])
def test_farthest_rows_are_the_cpus(weighted):
    X, C, _, s = problem(70, 3, 4, 1, np.float64, weighted)
    wanted = ArrayRows(X, s).farthest_rows(C[0], 5)
    for rows in (X, cuda.to_device(X)):
        np.testing.assert_array_equal(CudaRows(rows, s).farthest_rows(C[0], 5), wanted)


@pytest.mark.parametrize("weighted", [True, False])
def test_some_of_the_rows_are_those(weighted):
    X, _, _, s = problem(70, 3, 4, 1, np.float32, weighted)
    numbers = np.array([3, 4, 60])
    for held in (ResidentRows(cuda.to_device(X), s if s is None else cuda.to_device(s)), None):
        some = CudaRows(X, s, held=held or StreamedRows(X, s)).subset(numbers).on_host()
        np.testing.assert_array_equal(some.X, X[numbers])
        if weighted:
            np.testing.assert_array_equal(some.sample_weight, s[numbers])
    stretches = CudaRows(X, s).stretches(np.array([5, 2]), 10, rest=True).on_host()
    wanted = ArrayRows(X, s).stretches(np.array([5, 2]), 10, rest=True)
    np.testing.assert_array_equal(stretches.X, wanted.X)
