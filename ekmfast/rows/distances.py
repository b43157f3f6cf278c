"""Squared distances of rows to all centroids, summed from differences.

The expanded form ``||x||^2 + ||c||^2 - 2 x.c`` cancels if distances are small compared with the
offset of the data: for timestamps no correct digit is left, and the distance of a row that equals
its centroid is about the square root of the rounding error instead of 0. Sums of squared
differences are exact in these cases. Differences are computed in float64 for every dtype of X, so
that the squares of float32 numbers neither overflow nor underflow.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from scipy.spatial.distance import cdist

from ekmfast import _core
from ekmfast.rows.limits import overflow_of
from ekmfast.rows.sparse import SparseRows
from ekmfast.rows.threads import check_n_threads

Float64 = NDArray[np.float64]

# The rows of a chunk in float64 and their distances should fit into the cache of a core.
CHUNK_BYTES = 1 << 20
# The distances of a chunk of sparse rows. Each chunk also copies the centroids once.
SPARSE_NUMBERS = 1 << 20


def squared_distances(
    X: NDArray[Any],
    centroids: ArrayLike,
    function: Callable[[Float64], Float64] | None = None,
    *,
    n_threads: int | None = None,
    partial: bool = False,
) -> NDArray[Any]:
    """``||x_n - c_k||^2``, or a function of them, without a second (N, K) array.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64, rows contiguous, or CSR matrix
        For a CSR matrix the squares of the differences are summed over the numbers that a row
        holds, and ``||c_k||^2`` without the other squares of ``c_k`` is added.
    centroids : array-like of shape (K, D)
        Taken in float64.
    function : callable, default=None
        Called with the squared distances of some rows, (n, K) in float64; returns the values that
        replace them.
    n_threads : int, default=None
        None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's limits. The result is
        the same, to the bit, for any number.
    partial : bool, default=False
        Whether NaN stands for a missing number: see `rows.partial`.

    Returns
    -------
    values : ndarray of shape (N, K), dtype of X

    Raises
    ------
    ValueError
        If squared distances, or the returned values, overflow the dtype of X.

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
    threads = check_n_threads(n_threads)
    sparse = SparseRows(X, n_threads=threads) if issparse(X) else None
    numbers = SPARSE_NUMBERS if sparse else CHUNK_BYTES // 8
    step = max(1, numbers // (n_clusters if sparse else X.shape[1] + n_clusters))

    def fill(start: int) -> bool:
        """Fill one chunk of ``values``; return whether all its numbers are finite."""
        if sparse:
            d2 = sparse.squared_distances(C, start, min(start + step, n_rows))
        elif partial:
            d2 = _core.partial_distances(X[start : start + step], np.ascontiguousarray(C), 1)
        else:
            d2 = cdist(X[start : start + step], C, "sqeuclidean")  # from differences in float64
        if not d2.max() < np.inf:
            return False
        chunk = values[start : start + step]
        with np.errstate(over="ignore"):  # the last line of this function finds overflow
            chunk[:] = d2 if function is None else function(d2)
        return bool(np.isfinite(chunk).all())

    starts = range(0, n_rows, step)
    threads = 1 if sparse else min(threads, len(starts))  # the sparse kernel has threads itself
    if threads <= 1:
        all_finite = all(map(fill, starts))
    else:  # threads help, as cdist and NumPy release the interpreter's lock
        with ThreadPoolExecutor(threads, thread_name_prefix="ekmfast-distances") as pool:
            all_finite = all(pool.map(fill, starts))
    if not all_finite:
        if sparse:
            sparse.refuse_not_finite()
        raise overflow_of(X.dtype)
    return values
