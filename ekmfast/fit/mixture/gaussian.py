"""The labels of a Gaussian mixture as scikit-learn's ``GaussianMixture`` finds it.

They are one of the starts of the search for a mixture. The iteration and the choice between
restarts are those of ``GaussianMixture(k, n_init=restarts)`` with full matrices, but the kernels of
`rows` compute it, and all restarts share one reading of the rows. To save time, restarts end early
whose likelihood is far below the best one or nearly that of another, and there are fewer iterations
at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture.iteration import Race, quick_maximization
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.step import Step
from ekmfast.fit.mixture.student import StudentMixture, stacked
from ekmfast.fit.mixture.sums import moments_of_labels

# The defaults of ``GaussianMixture``.
REGULARIZATION = 1e-6  # added to variances
TOL = 1e-3
# Its own default is 100. Only labels are needed, from which further iterations begin.
MAX_ITER = 30
# From this iteration on restarts end whose likelihood is so much below the best one, and those that
# do the same as one before them.
RACE = Race(4, 0.03, -np.inf, np.inf, same=3e-3)
STEP = Step(regularization=REGULARIZATION)


def gaussian_labels(
    rows: ScaledRows, k: int, labellings: Iterable[NDArray[Any]]
) -> NDArray[np.int32]:
    """The labels of the rows, float64, by the most likely of several Gaussian mixtures.

    Each begins from labels (N,) of all rows, which ``GaussianMixture`` takes from hard k-means.
    """
    starts = stacked([_start(rows.X, k, labels) for labels in labellings])
    fits = quick_maximization(starts, rows, max_iter=MAX_ITER, tol=TOL, step=STEP, behind=RACE)
    best = max(fits, key=lambda fitted: fitted.likelihood).mixture[None]
    last = STEP(best, rows.expectation(best))
    return label(last[0], rows)


def _start(X: NDArray[Any], k: int, labels: NDArray[Any]) -> StudentMixture:
    means, sums = moments_of_labels(X, np.ones(len(X)), labels, k, full=True)
    empty = StudentMixture(np.ones(k), means, sums.second, "full", np.inf, np.ones(k))
    return STEP(empty, sums)
