"""Overhead of a call, measured with 100 rows, for which the kernels take microseconds."""

import numpy as np
import pytest
from conftest import N_THREADS

import ekmfast
from ekmfast import _core

X = np.random.default_rng(0).standard_normal((100, 2))
C = X[:3].copy()
W = np.abs(np.random.default_rng(1).standard_normal((100, 3)))

CALLS = {
    "ekm_step": lambda: ekmfast.ekm_step(X, C, 1.0, n_threads=N_THREADS),
    "ekm_statistics": lambda: ekmfast.ekm_statistics(X, C, 1.0, n_threads=N_THREADS),
    "compute_weights": lambda: ekmfast.compute_weights(X, C, 1.0, n_threads=N_THREADS),
    "update_centroids": lambda: ekmfast.update_centroids(X, W, n_threads=N_THREADS),
    "assign": lambda: ekmfast.assign(X, C, n_threads=N_THREADS),
}


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.benchmark(group="small calls")
def test_call_of_100_rows(benchmark, function):
    result = benchmark(CALLS[function])
    for value in result if isinstance(result, tuple) else [result]:
        assert np.isfinite(getattr(value, "objective", value)).all()


@pytest.mark.benchmark(group="small calls")
def test_the_arithmetic_of_a_step_alone(benchmark):
    """The function of the extension that a step calls, with its checks, kernels and sums."""
    alpha = np.ones(1)
    result = benchmark(_core.statistics, X, C[None], alpha, None, None, N_THREADS)
    assert all(np.isfinite(sums).all() for sums in result)
