"""Time of each kernel, by shape and dtype; every benchmark checks its result."""

import numpy as np
import pytest
from conftest import N_THREADS, SHAPES, shape_id

import ekmfast
from ekmfast import _core

ISAS = _core.available_isas()
every_isa = pytest.mark.parametrize("isa", ISAS, indirect=True)
best_isa = pytest.mark.parametrize("isa", ISAS[-1:], indirect=True)


def problems(*sharpnesses):
    return pytest.mark.parametrize(
        "problem",
        [
            pytest.param(
                (shape, dtype, sharpness),
                id=f"{shape_id(shape)}-{dtype}" + ("-sharp" if sharpness > 1 else ""),
            )
            for shape in SHAPES
            for dtype in ("float32", "float64")
            for sharpness in sharpnesses
        ],
        indirect=True,
    )


# With the sharpness 30, weights are nearly hard, and most of them are zero.
@problems(1.0, 30.0)
@every_isa
@pytest.mark.benchmark(group="ekm_step")
def test_ekm_step(benchmark, record_share, problem, isa):
    centroids, objective = benchmark(
        ekmfast.ekm_step, problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS
    )
    assert objective > 0
    problem.check_centroids(centroids)
    n, k, d = problem.shape
    record_share(benchmark, problem, 4 * n * k * d, n * d)


@problems(1.0)
@best_isa
@pytest.mark.benchmark(group="compute_weights")
def test_compute_weights(benchmark, record_share, problem, isa):
    out = np.empty((len(problem.X), len(problem.centroids)), problem.X.dtype)
    benchmark(
        ekmfast.compute_weights,
        problem.X,
        problem.centroids,
        problem.alpha,
        out=out,
        n_threads=N_THREADS,
    )
    rows, _, _, weights = next(problem.parts())
    tolerance = 1e-3 if out.dtype == np.float32 else 1e-9
    np.testing.assert_allclose(out[rows], weights, rtol=0, atol=tolerance)
    n, k, d = problem.shape
    record_share(benchmark, problem, 2 * n * k * d, n * d + n * k)


@problems(1.0)
@best_isa
@pytest.mark.benchmark(group="update_centroids")
def test_update_centroids(benchmark, record_share, problem, isa):
    weights = np.empty((len(problem.X), len(problem.centroids)), problem.X.dtype)
    for rows, _, _, w in problem.parts():
        weights[rows] = w
    centroids = benchmark(ekmfast.update_centroids, problem.X, weights, n_threads=N_THREADS)
    problem.check_centroids(centroids)
    n, k, d = problem.shape
    record_share(benchmark, problem, 2 * n * k * d, n * d + n * k)


@problems(1.0)
@best_isa
@pytest.mark.benchmark(group="assign")
def test_assign(benchmark, record_share, problem, isa):
    labels, squared = benchmark(ekmfast.assign, problem.X, problem.centroids, n_threads=N_THREADS)
    rows, _, d, _ = next(problem.parts())
    tolerance = 1e-4 if problem.X.dtype == np.float32 else 1e-9
    chosen = 2 * d[np.arange(len(d)), labels[rows]]
    np.testing.assert_allclose(chosen, 2 * d.min(axis=1), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(squared[rows], chosen, rtol=tolerance, atol=10 * tolerance)
    n, k, d = problem.shape
    record_share(benchmark, problem, 2 * n * k * d, n * d)
