"""The nearest centroid of each row of an array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.limits import check_nearest, explain_not_finite, smallest_mean

Float64 = NDArray[np.float64]

# A float32 holds whole numbers exactly up to 2^24 only, and the kernels find labels in lanes of X's
# dtype. So many centroids at once also keep their scratch within some 400 MB a thread.
CENTROIDS_AT_ONCE = 1 << 20


def nearest_centroids(
    X: NDArray[Any], centroids: Float64, n_threads: int
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Labels (N,) and squared distances (N,), dtype of X; of equals the first.

    X and centroids (K, D) are as the kernels take them: aligned, rows contiguous.
    """
    labels, squared, total = _nearest(X, centroids[:CENTROIDS_AT_ONCE], n_threads)
    for first in range(CENTROIDS_AT_ONCE, len(centroids), CENTROIDS_AT_ONCE):
        more, theirs, others = _nearest(X, centroids[first : first + CENTROIDS_AT_ONCE], n_threads)
        closer = theirs < squared
        labels[closer] = more[closer] + np.int32(first)
        squared[closer] = theirs[closer]
        total += others  # not finite if one is not
    if not math.isfinite(total):
        explain_not_finite([X], X.dtype, centroids)
    if len(X) and not total > len(X) * smallest_mean(X.dtype):
        check_nearest([X], X.dtype, centroids)
    return labels, squared


def _nearest(
    X: NDArray[Any], centroids: Float64, n_threads: int
) -> tuple[NDArray[np.int32], NDArray[Any], float]:
    labels, squared = np.empty(len(X), np.int32), np.empty(len(X), X.dtype)
    return labels, squared, _core.assign(X, centroids, labels, squared, n_threads)
