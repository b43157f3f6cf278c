"""Squared distances of rows to all centroids, summed from differences.

The expanded form ``||x||^2 + ||c||^2 - 2 x.c`` loses what is small beside the data's offset: of
timestamps it leaves nothing, and a row on its centroid comes out at the square root of rounding.
Differences are exact there. They are taken in float64 whatever the dtype of X, so that the squares
of float32 numbers neither overflow nor underflow.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from ekmfast.rows.limits import overflow_of
from ekmfast.rows.threads import check_n_threads

Float64 = NDArray[np.float64]

# Rows of a chunk in float64, and their distances, lie in a core's cache.
CHUNK_BYTES = 1 << 20


def squared_distances(
    X: NDArray[Any],
    centroids: ArrayLike,
    function: Callable[[Float64], Float64] | None = None,
    *,
    n_threads: int | None = None,
) -> NDArray[Any]:
    """``||x_n - c_k||^2``, or a function of them, without a second array of N x K.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64, rows contiguous
    centroids : array-like of shape (K, D)
        Taken in float64.
    function : callable, default=None
        Gets the squared distances of some rows, (n, K) in float64, and returns what is to stand in
        their place.
    n_threads : int, default=None
        None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's limits. The bits of
        the result do not depend on it.

    Returns
    -------
    values : ndarray of shape (N, K), dtype of X

    Raises
    ------
    ValueError
        If squared distances overflow, as from ``predict``, or what is returned does in float32.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.rows.distances import squared_distances
    >>> squared_distances(1.7e9 + np.array([[0.0], [0.5]]), [[1.7e9], [1.7e9 + 3]])
    array([[0.  , 9.  ],
           [0.25, 6.25]])
    """
    C = np.asarray(centroids, np.float64)
    n_rows, n_clusters = X.shape[0], C.shape[0]
    values = np.empty((n_rows, n_clusters), X.dtype)
    step = max(1, CHUNK_BYTES // (8 * (X.shape[1] + n_clusters)))

    def fill(start: int) -> bool:
        """Whether the distances of a chunk are finite, and their function is."""
        d2 = cdist(X[start : start + step], C, "sqeuclidean")  # differences, taken in float64
        if not d2.max() < np.inf:
            return False
        chunk = values[start : start + step]
        with np.errstate(over="ignore"):  # found below
            chunk[:] = d2 if function is None else function(d2)
        return bool(np.isfinite(chunk).all())

    starts = range(0, n_rows, step)
    threads = min(check_n_threads(n_threads), len(starts))
    if threads <= 1:
        held = all(map(fill, starts))
    else:  # cdist and NumPy let go of the interpreter's lock
        with ThreadPoolExecutor(threads, thread_name_prefix="ekmfast-distances") as pool:
            held = all(pool.map(fill, starts))
    if not held:
        raise overflow_of(X.dtype)
    return values
