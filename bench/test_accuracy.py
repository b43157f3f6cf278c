"""Errors and time of one step, near the origin and a thousand standard deviations from it."""

import numpy as np
import pytest
from conftest import N_THREADS, Problem, shape_id

import ekmfast

SHAPES = [(100_000, 3, 2), (100_000, 8, 8), (50_000, 16, 32), (20_000, 64, 128)]
# Largest errors in standard deviations of the data, before the result is rounded to its dtype.
LIMIT = {np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-11}


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
@pytest.mark.benchmark(group="accuracy")
def test_error_of_a_step(benchmark, shape, dtype, offset):
    problem = Problem(shape, dtype)
    problem.X += problem.X.dtype.type(offset)
    problem.centroids += problem.X.dtype.type(offset)
    centroids, objective = benchmark(
        ekmfast.ekm_step, problem.X, problem.centroids, problem.alpha, n_threads=N_THREADS
    )
    # Distances from differences, since the expanded form would lose digits at a large offset.
    C = problem.centroids.astype(np.float64)
    numerator = denominator = magnitude = J = 0.0
    for start in range(0, len(problem.X), 2000):
        X = problem.X[start : start + 2000].astype(np.float64)
        d = 0.5 * ((X[:, None] - C) ** 2).sum(axis=2)
        p = np.exp(-problem.alpha * (d - d.min(axis=1, keepdims=True)))
        p /= p.sum(axis=1, keepdims=True)
        mean = (p * d).sum(axis=1, keepdims=True)
        w = p * (1 - problem.alpha * (d - mean))
        numerator = numerator + w.T @ (X - offset)
        denominator = denominator + w.sum(axis=0)
        magnitude = magnitude + np.abs(w).sum(axis=0)
        J += mean.sum()
    answer = numerator / denominator[:, None] + offset
    sigma = problem.X.std(dtype=np.float64)
    # The same ratio before it is rounded to the dtype of X, which is coarse far from the origin.
    sums = ekmfast.ekm_statistics(problem.X, problem.centroids, problem.alpha)
    before = np.abs(sums.sum_wx / sums.sum_w[:, None] - answer).max(axis=1) / sigma
    # If the weights of a centroid nearly cancel, its error is larger by this factor.
    cancellation = magnitude / np.abs(denominator)
    error = np.abs(centroids - answer).max(axis=1) / sigma
    rounding = np.finfo(problem.X.dtype).eps * np.abs(answer).max() / sigma
    benchmark.extra_info.update(
        shape=shape,
        dtype=dtype,
        offset=offset,
        worst_error_in_deviations=float(error.max()),
        worst_error_but_for_cancelling=float((error / cancellation).max()),
        before_rounding_but_for_cancelling=float((before / cancellation).max()),
        rounding_of_the_result=float(rounding),
        error_of_objective=float(abs(objective - J) / J),
    )
    assert (before / cancellation).max() <= LIMIT[problem.X.dtype]
    assert (error / cancellation).max() <= LIMIT[problem.X.dtype] + rounding
