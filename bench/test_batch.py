"""Time of several problems in one pass, where restarts or alphas share the reading of X."""

import time

import numpy as np
import pytest
from conftest import N_THREADS, shape_id

import ekmfast

SHAPES = [(1_000_000, 3, 2), (1_000_000, 8, 8), (50_000, 3, 1024)]
ROUNDS = 7


@pytest.mark.parametrize("n_problems", [4, 20])
@pytest.mark.parametrize(
    "problem", [pytest.param((s, "float32", 1.0), id=shape_id(s)) for s in SHAPES], indirect=True
)
@pytest.mark.benchmark(group="several problems in one pass")
def test_several_problems(benchmark, record_ratio, problem, n_problems):
    n, k, _ = problem.shape
    rng = np.random.default_rng(1)
    rows = rng.choice(n, size=(n_problems, k))
    centroids = problem.X[rows]
    alphas = problem.alpha * np.geomspace(0.5, 4, n_problems)

    def together():
        return ekmfast.ekm_statistics(problem.X, centroids, alphas, n_threads=N_THREADS)

    def apart():
        return [
            ekmfast.ekm_statistics(problem.X, c, a, n_threads=N_THREADS)
            for c, a in zip(centroids, alphas, strict=True)
        ]

    alone = []

    def time_apart():
        start = time.perf_counter()
        apart()
        alone.append(time.perf_counter() - start)

    sums = benchmark.pedantic(together, setup=time_apart, rounds=ROUNDS)
    for i, one in enumerate(apart()):
        np.testing.assert_allclose(sums.sum_w[i], one.sum_w, rtol=1e-12)
        np.testing.assert_allclose(sums.sum_wx[i], one.sum_wx, rtol=1e-9, atol=1e-9 * n)
    if benchmark.stats is not None:
        peer = f"{n_problems} calls of one problem"
        record_ratio(benchmark, peer, problem, alone, benchmark.stats.stats.data)
