"""Time of passes on a GPU, compared with their bounds.

Run them by `make bench BENCH_ARGS="-m gpu bench/test_cuda.py"`. Each benchmark compares its result
with that of the CPU's kernels. ``extra_info`` holds the share of a bound: of the bandwidth of a
copy for few small centroids, of the rate of the matrix products for many. Without a GPU the
benchmarks are skipped; no results have been published so far.
"""

import numpy as np
import pytest

from ekmfast import assign, ekm_statistics
from ekmfast.rows.device import cuda_status, describe_card

if cuda_status() is not None:
    pytest.skip(f"no card: {cuda_status()}", allow_module_level=True)

from numba import cuda

from ekmfast.rows.cuda.rows import CudaRows

pytestmark = pytest.mark.gpu
ALPHA = 0.5


def rows(n, d):
    return np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)


def seconds(work, repeat=20):
    """Seconds of one call on the GPU, the least of some."""
    begin, end = cuda.event(), cuda.event()
    work()
    best = np.inf
    for _ in range(repeat):
        begin.record()
        work()
        end.record()
        end.synchronize()
        best = min(best, cuda.event_elapsed_time(begin, end) / 1e3)
    return best


def copy_bandwidth(X):
    """Bytes that a copy of X on the GPU reads and writes in a second."""
    to = cuda.device_array_like(X)
    return 2 * X.nbytes / seconds(lambda: to.copy_to_device(X))


def product_rate(passes, k, d):
    """Multiply-adds in a second of the matrix products alone, on chunks as passes take them."""
    from ekmfast.rows.cuda.passes import DEPTH, Buffers

    T = passes.held.dtype
    b = Buffers(T, d, k, 1, passes.held.n)
    Y, scores, products = b.cut(b.rows)
    centroids = cuda.to_device(np.zeros((k, d), T))

    def both():
        passes.product.scores(Y, centroids, scores)
        passes.product.sums(scores, Y, DEPTH, products)

    return 2 * b.rows * k * d / seconds(both)


def check(X, C, sums):
    some = X[:100_000]
    wanted = ekm_statistics(some, C, ALPHA)
    got = ekm_statistics(cuda.to_device(some), C, ALPHA)
    for name in ("sum_wx", "sum_w", "sum_p"):
        scale = np.abs(getattr(wanted, name)).max()
        np.testing.assert_allclose(
            getattr(got, name), getattr(wanted, name), rtol=0, atol=1e-5 * scale
        )
    assert np.isfinite(sums.objective).all()


@pytest.mark.parametrize(("n", "k", "d"), [(20_000_000, 8, 8), (20_000_000, 3, 2)])
def test_few_small_centroids(benchmark, n, k, d):
    X = rows(n, d)
    C = X[:k].astype(np.float64)
    on_card = cuda.to_device(X)
    sums = benchmark(CudaRows(on_card).statistics, C[None], np.array([ALPHA]))
    check(X, C, sums)
    floor = X.nbytes / copy_bandwidth(on_card)
    benchmark.extra_info.update(
        card=describe_card(), share_of_copy_bandwidth=floor / benchmark.stats.stats.min
    )


@pytest.mark.parametrize(("n", "k", "d"), [(1_000_000, 1024, 128), (1_000_000, 64, 128)])
def test_many_centroids(benchmark, n, k, d):
    X = rows(n, d)
    C = X[:k].astype(np.float64)
    passes = CudaRows(cuda.to_device(X)).passes
    sums = benchmark(passes.statistics, C[None], np.array([ALPHA]))
    check(X, C, sums)
    floor = 2 * n * k * d / product_rate(passes, k, d)
    benchmark.extra_info.update(
        card=describe_card(),
        product=passes.product.name,
        share_of_product_rate=floor / benchmark.stats.stats.min,
    )


def test_assign(benchmark):
    X = rows(1_000_000, 128)
    C = X[:1024].astype(np.float64)
    labels, _ = benchmark(assign, cuda.to_device(X), C)
    wanted, _ = assign(X[:10_000], C)
    assert (labels[:10_000].copy_to_host() == wanted).mean() > 0.9999


@pytest.mark.parametrize("n", [4_000_000])
def test_torch_hard_k_means_for_comparison(benchmark, n):
    """One assignment and update of hard k-means by torch."""
    torch = pytest.importorskip("torch")
    X = torch.as_tensor(rows(n, 8), device="cuda")
    C = X[:8].clone()

    def iteration():
        labels = torch.cdist(X, C).argmin(dim=1)
        new = torch.zeros_like(C).index_add_(0, labels, X)
        new /= torch.bincount(labels, minlength=8)[:, None]
        torch.cuda.synchronize()
        return new

    assert torch.isfinite(benchmark(iteration)).all()
