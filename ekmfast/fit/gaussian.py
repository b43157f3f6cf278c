"""The labels of scikit-learn's ``GaussianMixture``, computed by the kernels of `fit.mixture`.

They are one of the starts of the search for a mixture. The starts, the iteration, its end and the
choice between restarts are those of ``GaussianMixture(k, n_init=restarts)`` with full matrices, but
all restarts share one reading of the rows.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

from ekmfast.fit.mixture import (
    ScaledRows,
    StudentMixture,
    Sums,
    centred_moments,
    expectation_maximization,
    label,
    moments_of_labels,
    stacked,
)

# The defaults of ``GaussianMixture``.
REGULARIZATION = 1e-6  # added to variances
TOL = 1e-3
MAX_ITER = 100
# What it adds to the mass of a component.
LEAST_MASS = 10 * float(np.finfo(np.float64).eps)


def gaussian_labels(
    rows: ScaledRows, k: int, restarts: int, random_state: np.random.RandomState
) -> NDArray[np.int32]:
    """The labels of the rows, float64, by the most likely of several Gaussian mixtures."""
    starts = [_start(rows.X, k, random_state) for _ in range(restarts)]
    fits = expectation_maximization(
        stacked(starts), rows, max_iter=MAX_ITER, tol=TOL, step=_maximization
    )
    best = max(fits, key=lambda fitted: fitted.likelihood).mixture[None]
    last = _maximization(best, rows.expectation(best))
    return label(last[0], rows)


@cache
def _threads() -> ThreadpoolController:
    """Threads of the libraries that scikit-learn uses; to find these takes some milliseconds."""
    return ThreadpoolController()


def _start(X: NDArray[Any], k: int, random_state: np.random.RandomState) -> StudentMixture:
    # One thread, since threads add their sums in the order in which they finish.
    with warnings.catch_warnings(), _threads().limit(limits={"openmp": 1, "blas": 1}):
        warnings.simplefilter("ignore", ConvergenceWarning)  # its labels are good starts anyway
        labels = KMeans(k, n_init=1, random_state=random_state).fit(X).labels_
    means, sums = moments_of_labels(X, np.ones(len(X)), labels, k, full=True)
    empty = StudentMixture(np.ones(k), means, sums.second, "full", np.inf, np.ones(k))
    return _maximization(empty, sums)


def _maximization(before: StudentMixture, sums: Sums) -> StudentMixture:
    mass = sums.mass + LEAST_MASS
    shift, second = centred_moments(sums, full=True)
    regularization = REGULARIZATION * np.eye(before.means.shape[-1])
    return replace(
        before,
        weights=mass / mass.sum(axis=-1, keepdims=True),
        means=before.means + shift,
        scatters=second / mass[..., None, None] + regularization,
    )
