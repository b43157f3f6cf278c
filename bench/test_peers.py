"""Compare the time of our iteration with that of every peer that is installed.

An iteration of a peer is timed by the difference of two fits from the same centroids, which differ
only in the number of iterations, so that checks, seeding and final passes cancel. Each round times
the peers and then our step in one process, and ratios are taken within the round.

Our step always begins with the same centroids. Chained plain steps from random rows would move
single centroids out of the data, where memberships underflow in float32 and a step is repeated in
float64. The solver of the estimators prevents this.
"""

import time
from functools import partial

import numpy as np
import pytest
import sklearn.cluster
import sklekmeans
from conftest import N_THREADS, SHAPES, shape_id

import ekmfast

OUR_STEPS = 10
ROUNDS = 7

with_shapes = pytest.mark.parametrize(
    "problem",
    [
        pytest.param((shape, dtype, 1.0), id=f"{shape_id(shape)}-{dtype}")
        for shape in SHAPES
        for dtype in ("float32", "float64")
    ],
    indirect=True,
)


def author_fit(problem, max_iter, use_numba=False):
    """Fit the package of the method's author, whose alpha is half of ours, since it uses ||.||^2.

    Its tolerance must not be zero; the smallest positive number never stops it early.
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
    assert model.n_iter_ == max_iter - 1  # it counts from zero
    return model


def lloyd_fit(estimator, problem, max_iter):
    model = estimator(
        n_clusters=len(problem.centroids),
        init=problem.centroids,
        n_init=1,
        max_iter=max_iter,
        tol=0,
        algorithm="lloyd",
    ).fit(problem.X)
    assert model.n_iter_ == max_iter  # it would stop if no label changed


def faiss_fit(faiss, problem, max_iter):
    k, d = problem.centroids.shape
    model = faiss.Kmeans(
        d,
        k,
        niter=max_iter,
        min_points_per_centroid=1,
        max_points_per_centroid=len(problem.X),  # otherwise it uses a sample
    )
    model.train(problem.X, init_centroids=problem.centroids)


def superkmeans_fit(SuperKMeans, problem, max_iter):
    """It takes no centroids to begin with; both fits of a round begin with the same random rows."""
    k, d = problem.centroids.shape
    model = SuperKMeans(
        k,
        d,
        hierarchical=False,
        iters=max_iter,
        sampling_fraction=1.0,  # otherwise it uses samples
        max_points_per_cluster=len(problem.X),
        early_termination=False,
        n_threads=N_THREADS,
    )
    model.train(problem.X)
    assert len(model.iteration_stats) == max_iter


def hard_peers(dtype):
    """Hard k-means, with half the arithmetic and no exponentials, of each installed library."""
    peers = {"scikit-learn": partial(lloyd_fit, sklearn.cluster.KMeans)}
    try:
        from sklearnex.cluster import KMeans
    except ImportError:
        pass
    else:
        peers["scikit-learn-intelex"] = partial(lloyd_fit, KMeans)
    if dtype == np.float32:
        try:
            import faiss
        except ImportError:
            pass
        else:
            faiss.omp_set_num_threads(N_THREADS)
            peers["faiss"] = partial(faiss_fit, faiss)
        try:
            from superkmeans import SuperKMeans
        except ImportError:
            pass
        else:
            peers["SuperKMeans"] = partial(superkmeans_fit, SuperKMeans)
    return peers


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def our_steps(problem):
    for _ in range(OUR_STEPS):
        ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS)


def compare(benchmark, record_ratio, problem, peers, few, many, rounds):
    """Time the fits of `peers` and our steps in each round, and record the ratios."""
    times = {name: [] for name in peers}

    def time_peers():
        for name, fit in peers.items():
            short = seconds(fit, problem, few)
            times[name].append((seconds(fit, problem, many) - short) / (many - few))
            time.sleep(0.1)  # until the peer's threads sleep
        ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS)

    benchmark.pedantic(our_steps, args=(problem,), setup=time_peers, rounds=rounds)
    centroids, _ = ekmfast.ekm_step(
        problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS
    )
    problem.check_centroids(centroids)
    if benchmark.stats is None:  # under --benchmark-disable
        return
    our_times = [t / OUR_STEPS for t in benchmark.stats.stats.data]
    benchmark.extra_info["steps_per_round"] = OUR_STEPS
    for name, of_peer in times.items():
        record_ratio(benchmark, name, problem, of_peer, our_times)
    # If most long fits took less time than the short ones, the difference is noise.
    measurable = [name for name in times if np.median(times[name]) > 0]
    if len(peers) > 1 and measurable:
        fastest = min(measurable, key=lambda name: np.median(times[name]))
        record_ratio(benchmark, f"fastest: {fastest}", problem, times[fastest], our_times)


@with_shapes
@pytest.mark.benchmark(group="peers: hard k-means")
def test_hard_kmeans(benchmark, record_ratio, problem):
    peers = hard_peers(problem.X.dtype)
    for fit in peers.values():
        fit(problem, 2)
    compare(benchmark, record_ratio, problem, peers, 2, 12, ROUNDS)


@with_shapes
@pytest.mark.benchmark(group="peers: equilibrium k-means")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sklekmeans(benchmark, record_ratio, problem):
    pytest.importorskip("numba")
    peers = {
        "sklekmeans, NumPy": author_fit,
        "sklekmeans, Numba": partial(author_fit, use_numba=True),
    }
    ours, _ = ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS)
    for fit in peers.values():
        theirs = fit(problem, 1).cluster_centers_  # also compiles
        problem.check_centroids(theirs)
        error = np.abs(ours - theirs).max(axis=1) / problem.cancellation
        assert error.max() < 1e-3
    # At the largest shapes an iteration takes seconds, so two of them and few rounds suffice.
    size = np.prod(problem.shape)
    many, rounds = (4, 5) if size < 1e8 else (2, 3) if size < 1e9 else (2, 2)
    compare(benchmark, record_ratio, problem, peers, 1, many, rounds)
