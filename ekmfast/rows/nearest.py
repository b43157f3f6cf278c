"""The nearest centroid of each row of an array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.limits import check_nearest, explain_not_finite, smallest_mean

Float64 = NDArray[np.float64]

# The kernels store labels in vectors of X's dtype while they search, and float32 holds integers
# exactly only up to 2^24. With this bound their scratch memory also stays below about 400 MB for
# each thread.
CENTROIDS_AT_ONCE = 1 << 20


def nearest_centroids(
    X: NDArray[Any], centroids: Float64, n_threads: int, factor: NDArray[Any] | None = None
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Labels (N,), and squared distances (N,) in the dtype of X.

    If several centroids are equally near, the label is the first of them. X and centroids (K, D)
    are aligned and have contiguous rows, as the kernels require. If ``factor`` (N,) is given, the
    rows are multiplied by it.
    """
    labels, squared, total = _nearest(X, centroids[:CENTROIDS_AT_ONCE], n_threads, factor)
    for first in range(CENTROIDS_AT_ONCE, len(centroids), CENTROIDS_AT_ONCE):
        some = centroids[first : first + CENTROIDS_AT_ONCE]
        more_labels, more_squared, more_total = _nearest(X, some, n_threads, factor)
        closer = more_squared < squared
        labels[closer] = more_labels[closer] + np.int32(first)
        squared[closer] = more_squared[closer]
        total += more_total  # not finite if one of the parts is not
    if not math.isfinite(total):
        explain_not_finite([X], X.dtype, centroids)
    if factor is None and len(X) and not total > len(X) * smallest_mean(X.dtype):
        check_nearest([X], X.dtype, centroids)
    return labels, squared


def _nearest(
    X: NDArray[Any], centroids: Float64, n_threads: int, factor: NDArray[Any] | None
) -> tuple[NDArray[np.int32], NDArray[Any], float]:
    labels, squared = np.empty(len(X), np.int32), np.empty(len(X), X.dtype)
    return labels, squared, _core.assign(X, centroids, labels, squared, n_threads, factor)
