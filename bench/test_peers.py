"""One iteration of ours against one of sklekmeans and one of scikit-learn's Lloyd.

An iteration of a peer is timed by the difference of two fits from the same centroids that differ
in ``max_iter`` alone, so that checks, seeding and the closing passes cancel out. Each round times
the peer, then us, in one process; the ratio is taken within the round.
"""

import time
from functools import partial

import numpy as np
import pytest
import sklearn.cluster
import sklekmeans
from conftest import N_THREADS, shape_id

import ekmfast

SHAPES = [(1_000_000, 3, 2), (200_000, 16, 32), (100_000, 64, 128)]
OUR_STEPS = 10

with_shapes = pytest.mark.parametrize(
    "problem", [pytest.param((s, "float32", 1.0), id=shape_id(s)) for s in SHAPES], indirect=True
)


def author_fit(problem, max_iter, use_numba=False):
    """Fit the package of the method's author: its alpha goes with ||.||^2, half of ours.

    Its tolerance may not be zero; the least one never stops it early.
    """
    model = sklekmeans.EKMeans(
        n_clusters=len(problem.centroids),
        alpha=problem.alpha / 2,
        init=problem.centroids,
        max_iter=max_iter,
        tol=np.finfo(float).tiny,
        use_numba=use_numba,
        numba_threads=N_THREADS if use_numba else None,
    ).fit(problem.X)
    assert model.n_iter_ == max_iter - 1  # counted from zero
    return model


def lloyd_fit(problem, max_iter):
    model = sklearn.cluster.KMeans(
        n_clusters=len(problem.centroids),
        init=problem.centroids,
        n_init=1,
        max_iter=max_iter,
        tol=0,
        algorithm="lloyd",
    ).fit(problem.X)
    assert model.n_iter_ == max_iter  # it stops where labels stay the same
    return model


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def our_steps(problem):
    centroids = problem.centroids
    for _ in range(OUR_STEPS):
        centroids, _ = ekmfast.ekm_step(problem.X, centroids, problem.alpha, n_threads=N_THREADS)


def compare(benchmark, record_ratio, problem, peer, fit, few, many, rounds):
    peer_times = []

    def time_peer():
        short = seconds(fit, problem, few)
        peer_times.append((seconds(fit, problem, many) - short) / (many - few))
        time.sleep(0.1)  # let the peer's threads go to sleep
        ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS)

    benchmark.pedantic(our_steps, args=(problem,), setup=time_peer, rounds=rounds)
    centroids, _ = ekmfast.ekm_step(
        problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS
    )
    problem.check_centroids(centroids)
    if benchmark.stats is not None:  # None under --benchmark-disable
        our_times = [t / OUR_STEPS for t in benchmark.stats.stats.data]
        benchmark.extra_info["steps_per_round"] = OUR_STEPS
        record_ratio(benchmark, peer, problem.shape, peer_times, our_times)


@with_shapes
@pytest.mark.parametrize("use_numba", [False, True], ids=["numpy", "numba"])
@pytest.mark.benchmark(group="peers")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sklekmeans(benchmark, record_ratio, problem, use_numba):
    if use_numba:
        pytest.importorskip("numba")
    fit = partial(author_fit, use_numba=use_numba)
    theirs = fit(problem, 1).cluster_centers_  # compiles, too
    problem.check_centroids(theirs)
    ours, _ = ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    peer = "sklekmeans " + ("numba" if use_numba else "numpy")
    # Seconds an iteration at the largest shape: two iterations and three rounds are enough there.
    many, rounds = (2, 3) if np.prod(problem.shape) > 5e8 else (4, 5)
    compare(benchmark, record_ratio, problem, peer, fit, 1, many, rounds)


@with_shapes
@pytest.mark.benchmark(group="peers")
def test_lloyd(benchmark, record_ratio, problem):
    compare(benchmark, record_ratio, problem, "scikit-learn Lloyd", lloyd_fit, 2, 12, rounds=9)
