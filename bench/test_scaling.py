"""Growth of the time of a step with rows, centroids and features, and speed-up by threads."""

import time

import numpy as np
import pytest
from conftest import N_THREADS, SHAPES, Problem, shape_id

import ekmfast

GROWTH = [
    *[(n, 3, 2) for n in (1_000, 10_000, 100_000, 1_000_000)],
    *[(100_000, k, 32) for k in (2, 8, 32, 128, 512)],
    *[(100_000, 8, d) for d in (2, 8, 32, 128, 512)],
]
ROUNDS = 9


def steps(problem, n_threads, count=5):
    for _ in range(count):
        ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=n_threads)


@pytest.mark.parametrize("shape", GROWTH, ids=shape_id)
@pytest.mark.benchmark(group="growth")
def test_growth(benchmark, shape):
    problem = Problem(shape, "float32").solve()
    centroids, _ = benchmark(
        ekmfast.ekm_step, problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS
    )
    problem.check_centroids(centroids)
    benchmark.extra_info["shape"] = shape


@pytest.mark.skipif(N_THREADS < 2, reason="one thread to compare with itself")
@pytest.mark.parametrize(
    "problem", [pytest.param((s, "float32", 1.0), id=shape_id(s)) for s in SHAPES], indirect=True
)
@pytest.mark.benchmark(group="threads")
def test_threads(benchmark, record_ratio, problem):
    alone = []

    def time_alone():
        start = time.perf_counter()
        steps(problem, 1)
        alone.append(time.perf_counter() - start)

    steps(problem, N_THREADS)
    benchmark.pedantic(steps, args=(problem, N_THREADS), setup=time_alone, rounds=ROUNDS)
    one, many = (
        ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=n)[0]
        for n in (1, N_THREADS)
    )
    np.testing.assert_array_equal(one, many)
    if benchmark.stats is not None:
        record_ratio(benchmark, "one thread", problem, alone, benchmark.stats.stats.data)
