"""The labels of a Gaussian mixture after the first iterations of ``GaussianMixture``.

They are one of the starts of the search for a mixture. The start and the iteration are those of
scikit-learn's ``GaussianMixture(k)`` with full matrices, but the kernels of `rows` compute it, and
it mostly ends before it has converged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture.iteration import quick_maximization
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.step import Step
from ekmfast.fit.mixture.student import StudentMixture
from ekmfast.fit.mixture.sums import moments_of_labels

# The defaults of ``GaussianMixture``.
REGULARIZATION = 1e-6  # added to variances
TOL = 1e-3
# Its own default is 100. Only labels are needed, from which further iterations begin.
MAX_ITER = 8
STEP = Step(regularization=REGULARIZATION)


def gaussian_labels(rows: ScaledRows, k: int, labels: NDArray[Any]) -> NDArray[np.int32]:
    """The labels of the rows, float64, by the mixture that begins from labels (N,) of all rows.

    ``GaussianMixture`` takes these from hard k-means.
    """
    means, sums = moments_of_labels(rows.X, np.ones(rows.n_rows), labels, k, full=True)
    empty = StudentMixture(np.ones(k), means, sums.second, "full", np.inf, np.ones(k))
    start = STEP(empty, sums)[None]
    (fitted,) = quick_maximization(start, rows, max_iter=MAX_ITER, tol=TOL, step=STEP)
    last = fitted.mixture[None]
    return label(STEP(last, rows.expectation(last))[0], rows)
