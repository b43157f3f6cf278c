# ruff: noqa: E402
"""Times of a GPU, beside floors that its own rates set, and beside other packages.

`make gpu` runs this file and writes a report; `python -m pytest -m gpu bench/test_cuda.py` runs it
alone. Without a GPU the benchmarks are skipped, and the reason is shown.

A benchmark's time is that of whole calls, as a program sees it. ``extra_info`` also holds

- ``gpu_ms`` and ``gpu_kernels``, the time that kernels and copies take on the GPU, by their names,
  which torch's profiler records; where copies and kernels overlap, their sum counts both;
- ``floor_ms``: the rows' bytes at the rate of a copy on the GPU (which reads and writes), or the
  two matrix products at cuBLAS' rate for float32, or the rows' bytes at the rate of the bus. The
  rates are measured in the same process. Products of TF32 parts can be faster than this floor;
- ``ratios``: the time of another package over ours, measured in turns. The others compute an
  iteration of hard k-means, whose arithmetic is half of ours: it needs one matrix product instead
  of two, and no exponentials.

Every benchmark compares its result with that of the CPU's kernels. With EKMFAST_BENCH_SMALL=1 all
shapes are tiny, so that the file can be tried in Numba's simulator.
"""

import os
import statistics
import sys
import time
import warnings
from collections import Counter
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from ekmfast import EKMeans, assign, ekm_statistics
from ekmfast.rows.device import cuda_status, describe_card
from ekmfast.rows.threads import get_num_threads

if cuda_status() is not None:
    pytest.skip(f"no card: {cuda_status()}", allow_module_level=True)

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
if SIMULATED:
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    import simulator

    simulator.patch()

from numba import cuda

from ekmfast.rows.cuda.passes import DEPTH
from ekmfast.rows.cuda.rows import CudaRows

try:
    import torch
except ImportError:
    torch = None
if torch is not None and (SIMULATED or not torch.cuda.is_available()):
    torch = None

pytestmark = pytest.mark.gpu
SMALL = os.environ.get("EKMFAST_BENCH_SMALL") == "1"
ALPHA = 0.5
CHECKED_ROWS = 100_000
COPIED_BYTES = 1 << 16 if SMALL else 1 << 30
BUS_BYTES = 1 << 16 if SMALL else 256 << 20
# Calls of which the mean is taken, and how often.
BACK_TO_BACK, REPEATS = (1, 2) if SMALL else (10, 10)
# Seconds for the rounds of one benchmark, and how many rounds there are.
BUDGET, LEAST_ROUNDS, MOST_ROUNDS = 0.6, 5, 100
# A peer's time is the difference between runs of two numbers of iterations.
FEW, MANY, TURNS = 1, 5, 1 if SMALL else 5
# How far a peer's centroids may be from ours, in standard deviations and on average over the rows.
# Some peers round to 10 bits, which changes a few labels.
PEER_TOLERANCE = 0.02


def shape(n, k, d):
    return (150, min(k, 5), min(d, 4)) if SMALL else (n, k, d)


def on_card(n, d):
    """Normal random numbers (n, d) on the GPU: a tensor where torch can make one."""
    if torch is None:
        return cuda.to_device(on_host(n, d))
    generator = torch.Generator("cuda").manual_seed(0)
    return torch.randn(n, d, generator=generator, device="cuda")


def on_host(n, d):
    return np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)


def first_rows(X, n):
    if isinstance(X, np.ndarray):
        return X[:n]
    return X[:n].copy_to_host() if torch is None else X[:n].cpu().numpy()


# --------------------------------------------------------------------------------------------------
# Clocks


def seconds(work):
    """Seconds of one call, as a program sees it."""
    cuda.synchronize()
    begin = time.perf_counter()
    work()
    cuda.synchronize()
    return time.perf_counter() - begin


def seconds_of_many(work):
    """Seconds of one of several calls that the GPU gets back to back; the median of repeats."""
    work()
    times = []
    for _ in range(REPEATS):
        begin, end = cuda.event(), cuda.event()
        clock = time.perf_counter()
        begin.record()
        for _ in range(BACK_TO_BACK):
            work()
        end.record()
        end.synchronize()
        passed = time.perf_counter() - clock  # the simulator's events hold no time
        times.append(passed if SIMULATED else begin.elapsed_time(end) / 1e3)
    return statistics.median(times) / BACK_TO_BACK


def kernel_times(work, calls=5):
    """Milliseconds on the GPU of one call, by kernels and copies; empty without torch."""
    if torch is None:
        return {}
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
    found = Counter()
    for event in profile.events():
        on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
        if on_gpu and not getattr(event, "is_user_annotation", False):
            found[event.name] += event.time_range.elapsed_us() / 1e3 / calls
    return dict(found.most_common())


def run(benchmark, work):
    """Measure as many calls as fit into the budget, and return the result of the last."""
    work()  # compiles
    rounds = int(np.clip(BUDGET / seconds(work), LEAST_ROUNDS, MOST_ROUNDS))
    return benchmark.pedantic(work, rounds=2 if SMALL else rounds)


# --------------------------------------------------------------------------------------------------
# Floors


@cache
def copy_rate():
    """Bytes that a copy on the GPU reads and writes in a second."""
    X = cuda.device_array(COPIED_BYTES // 4, np.float32)
    to = cuda.device_array_like(X)
    return 2 * X.nbytes / seconds_of_many(lambda: to.copy_to_device(X))


@cache
def bus_rate():
    """Bytes in a second from pinned memory of the host to the GPU."""
    X = cuda.pinned_array(BUS_BYTES // 4, np.float32)
    X[:] = 0
    to, stream = cuda.device_array_like(X), cuda.stream()

    def send():
        to.copy_to_device(X, stream=stream)

    def several():
        for _ in range(BACK_TO_BACK):
            send()
        stream.synchronize()

    several()
    return X.nbytes * BACK_TO_BACK / statistics.median(seconds(several) for _ in range(REPEATS))


def product_rate(passes, k, d):
    """Multiply-adds in a second of both products of a pass, computed by cuBLAS for some rows.

    The products are those of a pass: rows times centroids, and weights times rows in batches of
    DEPTH rows. Of two numbers of rows the faster counts.
    """
    rows = max(min((1 << 23) // max(k, d), 1 << 16) // DEPTH, 1) * DEPTH
    if SMALL:
        rows = DEPTH
    return max(_product_rate(passes, rows, k, d), _product_rate(passes, 4 * rows, k, d))


def _product_rate(passes, rows, k, d):
    batches = rows // DEPTH
    sizes = (rows, d), (k, d), (rows, k), (batches, k, d)
    if torch is None:
        Y, C, scores, sums = (cuda.to_device(np.ones(size, np.float32)) for size in sizes)

        def both():
            passes.product.scores(Y, C, scores)
            passes.product.sums(scores, Y, DEPTH, sums)

    else:
        exact = torch.full((64, 64), 1 + 2**-12, device="cuda")
        assert torch.equal(exact @ torch.eye(64, device="cuda"), exact), "torch rounds to 10 bits"
        Y, C, scores, sums = (torch.randn(size, device="cuda") for size in sizes)
        weights = torch.randn_like(scores).view(batches, DEPTH, k).transpose(1, 2)

        def both():
            torch.mm(Y, C.T, out=scores)
            torch.bmm(weights, Y.view(batches, DEPTH, d), out=sums)

    return 2 * rows * k * d / seconds_of_many(both)


def record(benchmark, what, size, work, floor, floor_is, rates, **more):
    """Add to the benchmark what the report needs; ``floor`` is in seconds."""
    kernels = kernel_times(work)
    on_gpu = sum(kernels.values()) / 1e3
    benchmark.extra_info.update(
        case=what, shape=size, dtype="float32", card=describe_card(), rates=rates, **more
    )
    if kernels:
        benchmark.extra_info.update(gpu_ms=1e3 * on_gpu, gpu_kernels=kernels)
    if floor is None:
        return
    benchmark.extra_info.update(floor_ms=1e3 * floor, floor_is=floor_is)
    if kernels:
        benchmark.extra_info["share_on_gpu"] = floor / on_gpu
    if benchmark.stats is not None:  # it is None under --benchmark-disable
        benchmark.extra_info["share"] = floor / benchmark.stats.stats.median


# --------------------------------------------------------------------------------------------------
# Passes


def close(got, wanted, tolerance=1e-5):
    for name in ("sum_wx", "sum_w", "sum_p"):
        a, b = getattr(got, name), getattr(wanted, name)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(), err_msg=name)


def check(X, C, sums):
    """Sums of the first rows are the CPU's, and those of all rows are plausible."""
    some = first_rows(X, CHECKED_ROWS)
    close(ekm_statistics(cuda.to_device(some), C, ALPHA), ekm_statistics(some, C, ALPHA))
    assert np.isfinite(sums.objective).all()
    assert abs(sums.sum_p.sum() / X.shape[0] - 1) < 1e-5  # memberships of a row add up to 1


def statistics_of(rows, C):
    alpha = np.array([ALPHA])
    return lambda: rows.statistics(C[None], alpha)


@pytest.mark.parametrize(("n", "k", "d"), [(20_000_000, 8, 8), (20_000_000, 3, 2)])
def test_few_small_centroids(benchmark, n, k, d):
    n, k, d = shape(n, k, d)
    X = on_card(n, d)
    C = first_rows(X, k).astype(np.float64)
    work = statistics_of(CudaRows(X), C)
    check(X, C, run(benchmark, work))
    rates = {"copy": copy_rate()}
    floor = 4 * n * d / rates["copy"]
    record(benchmark, "pass", (n, k, d), work, floor, "bytes of the rows", rates)


@pytest.mark.parametrize(
    ("n", "k", "d"), [(1_000_000, 1024, 128), (1_000_000, 64, 128), (200_000, 16, 32)]
)
def test_many_centroids(benchmark, n, k, d):
    n, k, d = shape(n, k, d)
    X = on_card(n, d)
    C = first_rows(X, k).astype(np.float64)
    rows = CudaRows(X)
    work = statistics_of(rows, C)
    check(X, C, run(benchmark, work))
    rates = {"copy": copy_rate(), "products": product_rate(rows.passes, k, d)}
    floor = 2 * n * k * d / rates["products"]
    product = rows.passes.product.name
    record(benchmark, "pass", (n, k, d), work, floor, "two products", rates, product=product)


def test_rows_sent_in_each_pass(benchmark, monkeypatch):
    n, k, d = shape(20_000_000, 8, 8)
    X = on_host(n, d)
    C = X[:k].astype(np.float64)
    monkeypatch.setenv("EKMFAST_CUDA_MEMORY", str(X.nbytes))  # of which X may take half
    rows = CudaRows(X)
    monkeypatch.delenv("EKMFAST_CUDA_MEMORY")
    assert type(rows.passes.held).__name__ == "StreamedRows"
    work = statistics_of(rows, C)
    sums = run(benchmark, work)
    check(X, C, sums)
    close(sums, CudaRows(cuda.to_device(X)).statistics(C[None], np.array([ALPHA])))
    rates = {"bus": bus_rate()}
    floor = X.nbytes / rates["bus"]
    record(benchmark, "pass, rows sent", (n, k, d), work, floor, "bytes over the bus", rates)


def test_assign(benchmark):
    n, k, d = shape(1_000_000, 1024, 128)
    X = on_card(n, d)
    C = first_rows(X, k).astype(np.float64)

    def work():
        found = assign(X, C)
        cuda.synchronize()
        return found

    labels, distances = run(benchmark, work)
    wanted = assign(first_rows(X, 10_000), C)
    assert (first_rows(labels, 10_000) == wanted[0]).mean() > 0.9999
    np.testing.assert_allclose(first_rows(distances, 10_000), wanted[1], rtol=1e-4, atol=1e-4)
    rates = {"products": product_rate(CudaRows(X).passes, k, d)}
    floor = n * k * d / rates["products"]
    record(benchmark, "assign", (n, k, d), work, floor, "one product", rates)


# --------------------------------------------------------------------------------------------------
# Fits, and other packages


@pytest.mark.parametrize("given", ["array on the GPU", "NumPy array"])
def test_fit(benchmark, record_ratio, given):
    """A fit of 20 iterations at most, with its seeding, its checks of X and its labels."""
    n, k, d = shape(1_000_000, 8, 8)
    centres = 6 * np.random.default_rng(1).standard_normal((k, d), dtype=np.float32)
    X = on_host(n, d) + centres[np.arange(n) % k]
    there = X
    if given != "NumPy array":
        there = cuda.to_device(X) if torch is None else torch.as_tensor(X, device="cuda")

    def fit(X, device):
        model = EKMeans(
            k, alpha=ALPHA, n_init=1, max_iter=1 if SMALL else 20, tol=0, random_state=0,
            device=device,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(X)

    def work():
        return fit(there, "cuda")

    got, wanted = run(benchmark, work), fit(X, "cpu")
    np.testing.assert_allclose(got.objective_, wanted.objective_, rtol=1e-4)
    record(benchmark, f"fit, {given}", (n, k, d), work, None, None, {}, passes=got.n_iter_)
    turns = [(seconds(lambda: fit(X, "cpu")), seconds(work)) for _ in range(TURNS)]
    with_threads = f"fit, {given}, by the CPU with {get_num_threads()} threads"
    record_ratio(benchmark, with_threads, as_problem((n, k, d)), *zip(*turns, strict=True))


def as_problem(size, dtype="float32"):
    """What `record_ratio` reads of a problem."""
    return SimpleNamespace(shape=size, X=SimpleNamespace(dtype=dtype))


def torch_iterations(one_hot, X, C, iterations):
    """Lloyd's iterations by torch's own functions, in chunks whose distances take 256 MB."""
    k = len(C)
    numbers = torch.arange(k, device=X.device)
    for _ in range(iterations):
        sums, counts = torch.zeros_like(C), torch.zeros(k, device=X.device)
        for part in X.split(max((1 << 26) // k, 1)):
            labels = torch.cdist(part, C).argmin(dim=1)
            if one_hot:
                members = (labels[:, None] == numbers).to(part.dtype)
                sums += members.T @ part
                counts += members.sum(dim=0)
            else:
                sums.index_add_(0, labels, part)
                counts += torch.bincount(labels, minlength=k)
        C = sums / counts[:, None]
    return C


def flash_iterations(X, C, iterations):
    kmeans = pytest.importorskip("flash_kmeans").batch_kmeans_Euclid
    if kmeans.__module__.endswith("torch_fallback"):
        pytest.skip("flash_kmeans has no Triton here")
    return kmeans(X[None], len(C), max_iters=iterations, tol=-1.0, init_centroids=C[None])[1][0]


def fastkmeans_iterations(X, norms, C, iterations):
    # The public class takes rows on the host only and sends them in each iteration. Its function
    # takes rows on the GPU too, and draws the centroids that `peer_centroids` draws.
    lloyd = pytest.importorskip("fastkmeans.kmeans")
    torch.manual_seed(0)
    return lloyd._kmeans_torch_double_chunked(
        X, norms, len(C), X.device, max_iters=iterations, tol=-1.0, max_points_per_centroid=None,
        chunk_size_data=51_200, chunk_size_centroids=10_240,
        use_triton=lloyd.HAS_TRITON and X.shape[1] >= 32,  # its kernel reads 32 features at a time
    )[0]  # fmt: skip


def cuml_iterations(X, C, iterations):
    cluster, cupy = pytest.importorskip("cuml.cluster"), pytest.importorskip("cupy")
    model = cluster.KMeans(len(C), init=cupy.asarray(C), n_init=1, max_iter=iterations, tol=1e-30)
    return torch.as_tensor(model.fit(cupy.asarray(X)).cluster_centers_, device="cuda")


def peer_centroids(X, k):
    torch.manual_seed(0)
    return X[torch.randperm(len(X))[:k].to(X.device)].clone()


# Their arithmetic is part of their name; torch's is float32.
PEERS = {
    "torch, index_add": partial(torch_iterations, False),
    "torch, one-hot product": partial(torch_iterations, True),
    "flash_kmeans, TF32": flash_iterations,
    "flash_kmeans, float16": flash_iterations,
    "fastkmeans, float16": fastkmeans_iterations,
    "cuML": cuml_iterations,
}


def prepared(peer, X, C):
    """The peer as a function of the number of iterations."""
    if peer == "flash_kmeans, float16":
        X, C = X.half(), C.half()
    if peer == "fastkmeans, float16":
        return partial(PEERS[peer], X, X.square().sum(dim=1), C)
    return partial(PEERS[peer], X, C)


@pytest.mark.skipif(torch is None, reason="the peers need torch with a card")
@pytest.mark.parametrize(("n", "k", "d"), [(1_000_000, 1024, 128), (20_000_000, 8, 8)])
@pytest.mark.parametrize("peer", PEERS)
def test_hard_k_means_of_others(benchmark, record_ratio, peer, n, k, d):
    """One iteration of hard k-means by another package, in turns with one of ours.

    A peer that fails, or computes other centroids, is skipped with the reason.
    """
    n, k, d = shape(n, k, d)
    torch.cuda.empty_cache()
    X = on_card(n, d)
    C = peer_centroids(X, k)
    try:
        iterations = prepared(peer, X, C)
        found = iterations(1)
        iterations(2)  # what the second iteration compiles
    except Exception as error:  # peers fail in ways of their own
        pytest.skip(f"{peer} fails: {type(error).__name__}: {str(error)[:200]}")
    exact = C.cpu().numpy().astype(np.float64)
    sums = CudaRows(X, weighting="hard").statistics(exact[None], np.ones(1))
    wanted = sums.sum_wx[0] / sums.sum_w[0][:, None] + sums.reference
    error = np.abs(found.cpu().numpy() - wanted).max(axis=1)
    if not (off := np.average(error, weights=sums.sum_w[0])) < PEER_TOLERANCE:
        pytest.skip(f"{peer}: centroids are off by {off:.3g} standard deviations")

    def peer_seconds():
        few, many = seconds(lambda: iterations(FEW)), seconds(lambda: iterations(MANY))
        return (many - few) / (MANY - FEW)

    work = statistics_of(CudaRows(X), exact)
    work()
    benchmark.pedantic(iterations, args=(MANY,), rounds=2)
    benchmark.extra_info.update(peer=peer, error_of_centroids=off)
    turns = [(peer_seconds(), seconds(work)) for _ in range(TURNS)]
    record_ratio(benchmark, peer, as_problem((n, k, d)), *zip(*turns, strict=True))
