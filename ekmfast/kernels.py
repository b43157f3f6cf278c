"""The kernels as functions on arrays: Eq. 38, Eq. 39, their sums, and one fused step.

With ``d_kn = 1/2 ||x_n - c_k||^2``, ``p_kn = softmax_k(-alpha d_kn)`` and
``E_n = sum_k p_kn d_kn`` (Y. He, "Imbalanced Data Clustering using Equilibrium K-Means",
arXiv 2402.14490)::

    w_kn = p_kn (1 - alpha (d_kn - E_n))           Eq. 38
    c_k  = sum_n s_n w_kn x_n / sum_n s_n w_kn     Eq. 39
    J    = sum_n s_n E_n                           the objective

Arrays of float32 and float64 with contiguous rows are neither converted nor copied, and results
have the dtype of ``X``. NaN, infinity, and numbers so large or small that a result would consist of
rounding error are detected from the results, so that the check needs no pass over the rows. Only if
a result is suspicious does `rows.limits` read the rows again to find the input at fault. If ``X``
lies on a CUDA device, the results are computed there, and they are the same kind of array as ``X``.
Sparse matrices of SciPy are converted to CSR, if they are not, and are computed in float64.
"""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast import _core
from ekmfast._arguments import shown
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.columns import is_sparse
from ekmfast.rows.given import array_rows_of, on_host
from ekmfast.rows.limits import (
    check_not_underflowed,
    check_told_apart,
    check_weights_in_range,
    explain_not_finite,
    explain_weights_not_finite,
    smallest_mean,
)
from ekmfast.rows.statistics import CentredStatistics

if TYPE_CHECKING:
    from ekmfast.rows.cuda.rows import CudaRows

__all__ = [
    "Statistics",
    "assign",
    "compute_weights",
    "ekm_statistics",
    "ekm_step",
    "update_centroids",
]

Float64 = NDArray[np.float64]

_wanted_isa = os.environ.get("EKMFAST_ISA")
if _wanted_isa and _wanted_isa not in _core.available_isas():
    warnings.warn(
        f"EKMFAST_ISA={_wanted_isa!r} is not one of {', '.join(_core.available_isas())} on this "
        f"machine; using {_core.isa()}.",
        RuntimeWarning,
        stacklevel=2,
    )


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums over some rows, all float64; ``+`` adds those of disjoint rows.

    Attributes
    ----------
    sum_wx : ndarray of shape (K, D)
        ``sum_n s_n w_kn x_n``, the numerator of Eq. 39.
    sum_w, sum_p : ndarray of shape (K,)
        ``sum_n s_n w_kn``, its denominator, and ``sum_n s_n p_kn``.
    objective : float or ndarray
        ``J = sum_n s_n E_n``.

    For several problems, that is centroids (S, K, D), each of these has a leading axis S.
    """

    sum_wx: Float64
    sum_w: Float64
    sum_p: Float64
    objective: float | Float64

    def __add__(self, other: Statistics) -> Statistics:
        if not isinstance(other, Statistics):
            return NotImplemented
        if self.sum_wx.shape != other.sum_wx.shape:
            raise ValueError(
                "Statistics of different problems cannot be added: sum_wx has shapes "
                f"{self.sum_wx.shape} and {other.sum_wx.shape}"
            )
        return Statistics(
            self.sum_wx + other.sum_wx,
            self.sum_w + other.sum_w,
            self.sum_p + other.sum_p,
            self.objective + other.objective,
        )


MOST_CENTROIDS = 2**31 - 1  # labels are int32


def _as_numbers(name: str, value: ArrayLike, dtype: Any = None) -> NDArray[Any]:
    """``value`` as an aligned C-contiguous array, without a copy if it is one already.

    If ``dtype`` is None, float32 is kept and everything else becomes float64.
    """
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must not have masked entries: fill them or leave out their rows")
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "biufO":
            raise TypeError(f"got {given.dtype}")
        if dtype is None:
            dtype = given.dtype if given.dtype == np.float32 else np.float64
        # The caller checks for infinity and NaN; of the latter, signalling ones would warn.
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(given, dtype=dtype, order="C")
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of real numbers: {error}") from None
    return array if array.flags.aligned else array.copy()


def _check_sparse(X: Any) -> Any:
    """X as a CSR matrix of float32 or float64."""
    if X.dtype.char not in "fd" or not X.dtype.isnative:
        raise TypeError(
            f"X must be float32 or float64 in native byte order, got {X.dtype}; "
            "convert it, e.g. X.astype(np.float64)"
        )
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(
            f"X must have 2 dimensions (rows, columns) and at least one column, got shape {X.shape}"
        )
    return X.tocsr()


def _check_samples(X: ArrayLike, name: str = "X") -> NDArray[Any]:
    if is_sparse(X):
        if name != "X":
            raise TypeError(f"{name} must be a dense array, got {type(X).__name__}")
        return _check_sparse(X)  # type: ignore[no-any-return]
    if not isinstance(X, np.ndarray):
        X = _as_numbers(name, X)
    elif np.ma.is_masked(X):
        raise ValueError(f"{name} must not have masked entries: fill them or leave out their rows")
    X = np.asarray(X)  # a plain array, since subclasses may define other operations
    if X.dtype.char not in "fd" or not X.dtype.isnative:
        raise TypeError(
            f"{name} must be float32 or float64 in native byte order, got {X.dtype}; "
            f"convert it, e.g. {name}.astype(np.float64)"
        )
    if X.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions (rows, columns), got {X.ndim}")
    if X.shape[1] == 0:
        raise ValueError(f"{name} must have at least one column, got shape {X.shape}")
    n, d = X.shape
    item = X.itemsize
    rows_dense = d == 1 or X.strides[1] == item
    rows_apart = n <= 1 or (X.strides[0] >= d * item and X.strides[0] % item == 0)
    if X.size and not (rows_dense and rows_apart):
        raise ValueError(
            f"{name} must have contiguous rows, got strides {X.strides}; "
            f"use np.ascontiguousarray({name})"
        )
    if not X.flags.aligned:
        raise ValueError(
            f"{name} must be aligned, its address a multiple of {item} bytes; use {name}.copy()"
        )
    return X


def _check_centroids(centroids: ArrayLike, d: int, several: bool) -> Float64:
    C = _as_numbers("centroids", on_host(centroids), np.float64)
    if C.ndim != 2 and not (several and C.ndim == 3):
        allowed = "(K, D) or (S, K, D)" if several else "(K, D)"
        raise ValueError(f"centroids must have shape {allowed}, got {C.shape}")
    if C.shape[0] == 0 and C.ndim == 3:
        raise ValueError(f"centroids must hold at least one problem, got shape {C.shape}")
    if C.shape[-2] == 0:
        raise ValueError(f"centroids must hold at least one centroid, got shape {C.shape}")
    if C.shape[-1] != d:
        raise ValueError(f"centroids have {C.shape[-1]} features but X has {d}")
    return C


def _check_alpha(alpha: ArrayLike, shape: tuple[int, ...]) -> Float64:
    number: Any = alpha
    if isinstance(number, float) and 0 < number < np.inf:  # the usual case, made fast
        return np.full(shape, number)
    if isinstance(number, int) and not 0 < number < 2**1023:  # float() would raise OverflowError
        raise ValueError(f"alpha must be finite and > 0, got {shown(alpha)}")
    try:
        a = _as_numbers("alpha", alpha, np.float64)
    except ValueError:
        raise TypeError(f"alpha must be a number > 0, got {shown(alpha)}") from None
    if not (np.isfinite(a).all() and (a > 0).all()):
        raise ValueError(f"alpha must be finite and > 0, got {shown(alpha)}")
    if a.ndim and a.shape != shape:
        allowed = f"a number or have shape {shape}" if shape else "a number"
        raise ValueError(f"alpha must be {allowed}, got shape {a.shape}")
    return np.array(np.broadcast_to(a, shape))


def _check_sample_weight(sample_weight: ArrayLike | None, X: NDArray[Any]) -> NDArray[Any] | None:
    if sample_weight is None:
        return None
    s = _as_numbers("sample_weight", sample_weight, X.dtype)
    if s.shape != (X.shape[0],):
        raise ValueError(f"sample_weight must have shape ({X.shape[0]},), got {s.shape}")
    if not len(s):
        return s
    largest = s.max()
    if not (s.min() >= 0 and largest < np.inf):
        given = _as_numbers("sample_weight", sample_weight, np.float64)
        bad = np.flatnonzero(~((s >= 0) & (s < np.inf)))[0]
        beyond = f", beyond {s.dtype}," if given[bad] >= 0 and given[bad] < np.inf else ""
        raise ValueError(
            f"sample_weight must be finite and >= 0, got {given[bad]}{beyond} in row {bad}"
        )
    if largest == 0:
        given = _as_numbers("sample_weight", sample_weight, np.float64)
        if given.any():
            raise ValueError(
                f"sample_weight of at most {given.max():g} underflows {s.dtype}: scale "
                "sample_weight up, e.g. to a mean of 1"
            )
        raise ValueError("sample_weight must not be all zero")
    return s


def _rows(X: Any, sample_weight: Any, n_threads: int | None) -> ArrayRows | CudaRows:
    """The rows of X, checked, wherever X lies."""
    return array_rows_of(X, sample_weight, n_threads, _check_samples, _check_sample_weight)


def _check_sums(
    sums: CentredStatistics, rows: ArrayRows | CudaRows, C: Float64, alphas: Float64
) -> None:
    """Raise an error that names the input at fault if sums are not finite or only rounding error.

    C is (S, K, D), alphas (S,). The rows are read only if the sums themselves are suspicious.
    """
    n, dtype, s = rows.n_rows, rows.dtype, rows.sample_weight
    if _core.plausible_sums(
        n,
        alphas,
        sums.sum_wx,
        sums.sum_w,
        sums.sum_p,
        sums.exponent,
        sums.objective,
        dtype == np.float32,
    ):
        return
    J, sum_p = sums.objective, sums.sum_p * np.exp2(sums.exponent)
    if not all(np.isfinite(part).all() for part in (J, sum_p, sums.sum_wx, sums.sum_w)):
        explain_not_finite(rows.parts(), dtype, C, float(alphas.max()), s)
    if n == 0:
        return
    total = sum_p.sum(axis=1)
    least = smallest_mean(dtype) * np.maximum(total, n)
    if not ((least < J).all() and (least < np.abs(sums.sum_wx).max(axis=(1, 2))).all()):
        check_not_underflowed(rows.parts(), dtype, C, s)
    for i in range(len(C)):
        mean = max(float(J[i] / total[i]), 0.0)
        check_told_apart(dtype, C[i], sum_p[i], float(alphas[i]), mean, sums.reference)


def _statistics(
    X: ArrayLike,
    centroids: ArrayLike,
    alpha: ArrayLike,
    sample_weight: ArrayLike | None,
    n_threads: int | None,
) -> tuple[ArrayRows | CudaRows, Float64, CentredStatistics]:
    """Check the arguments; return the rows, the centroids (S, K, D) and the sums."""
    rows = _rows(X, sample_weight, n_threads)
    C = _check_centroids(centroids, rows.n_features, several=True)
    alphas = _check_alpha(alpha, C.shape[:-2])
    C = C.reshape(-1, *C.shape[-2:])
    alphas = alphas.reshape(-1)
    sums = rows.statistics(C, alphas)
    _check_sums(sums, rows, C, alphas)
    return rows, C, sums


def ekm_statistics(
    X: ArrayLike,
    centroids: ArrayLike,
    alpha: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
) -> Statistics:
    """Sums of one pass over the rows, from which Eq. 39 and the objective follow.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64, rows contiguous, or sparse matrix
    centroids : array-like of shape (K, D) or (S, K, D)
        Converted to float64. Several problems share each reading of X.
    alpha : float or array-like of shape (S,)
        Sharpness of the memberships, > 0, in units of 1 / (1/2 ||x||^2).
    sample_weight : array-like of shape (N,), default=None
        Non-negative; 2 counts a row twice. Converted to the dtype of X.
    n_threads : int, default=None
        1 to 2^31 - 1. None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's
        limits. The result is the same, to the bit, for any number.

    Returns
    -------
    Statistics

    Raises
    ------
    ValueError, TypeError
        For NaN, infinity, complex numbers, masked entries, wrong shapes, dtypes or layouts, and
        ``alpha <= 0``. Also if an input is so large or small that a result would not be finite or
        would consist of rounding error; the message names the input.

    Notes
    -----
    The weights are those of Eq. 38 of arXiv 2402.14490. The work is O(N K D). The memory is O(K D),
    plus a slice of the rows for each thread.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import ekm_statistics
    >>> X = np.array([[0.0], [1.0], [9.0]])
    >>> whole = ekm_statistics(X, [[0.0], [9.0]], alpha=1.0)
    >>> first, last = (ekm_statistics(part, [[0.0], [9.0]], 1.0) for part in (X[:2], X[2:]))
    >>> np.allclose(whole.sum_wx, (first + last).sum_wx)
    True
    """
    *_, sums = _statistics(X, centroids, alpha, sample_weight, n_threads)
    with np.errstate(over="ignore", invalid="ignore"):
        sum_wx = sums.sum_wx + sums.sum_w[..., None] * sums.reference
        doubtful = not math.isfinite(sum_wx.sum())
    if doubtful and not np.isfinite(sum_wx).all():
        which = "X" if sample_weight is None else "sample_weight or X"
        raise ValueError(f"sums of w x overflow float64: scale {which} down")
    scale = np.exp2(sums.exponent)
    sum_wx, sum_w, sum_p = sum_wx * scale[..., None], sums.sum_w * scale, sums.sum_p * scale
    if len(np.shape(centroids)) == 3:
        return Statistics(sum_wx, sum_w, sum_p, sums.objective)
    return Statistics(sum_wx[0], sum_w[0], sum_p[0], float(sums.objective[0]))


def ekm_step(
    X: ArrayLike,
    centroids: ArrayLike,
    alpha: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[Any], float | Float64]:
    """One exact iteration, Eq. 38 and Eq. 39 fused.

    Parameters
    ----------
    X, centroids, alpha, sample_weight, n_threads
        As in :func:`ekm_statistics`; N >= 1.

    Returns
    -------
    centroids : ndarray of shape (K, D) or (S, K, D), dtype of X
        The ratio of Eq. 39 without an epsilon. It is exact even for a centroid so far away that
        all its weights underflow. A centroid whose weights sum to exactly zero does not move.
    objective : float or ndarray of shape (S,)
        J at the centroids *given*.

    Raises
    ------
    ValueError, TypeError
        As in :func:`ekm_statistics`.

    Notes
    -----
    Weights may be negative (Eq. 38 of arXiv 2402.14490), so that a step may move centroids out of
    the range of the data, and J may rise; :class:`EKMeans` prevents both.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import ekm_step
    >>> X = np.array([[100.0], [101], [102], [110], [111]])
    >>> centroids, objective = ekm_step(X, [[105.0], [1000.0]], alpha=2.0)
    >>> centroids.ravel().round(6)
    array([104.8, 111. ])
    """
    rows, C, sums = _statistics(X, centroids, alpha, sample_weight, n_threads)
    if rows.n_rows == 0:
        raise ValueError(f"X must have at least one row, got shape {rows.X.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        exact = sums.ratio(C)
        new = exact.astype(rows.dtype, copy=False)
        doubtful = not math.isfinite(new.sum())
    if doubtful:
        _check_new(exact, rows.dtype)
    if len(np.shape(centroids)) == 3:
        return rows.given_back(new), sums.objective
    return rows.given_back(new[0]), float(sums.objective[0])


def _check_new(new: Float64, dtype: Any) -> None:
    """Raise an error if the dtype of X cannot hold the new centroids (S, K, D)."""
    beyond = np.argwhere(~(np.abs(new) <= np.finfo(dtype).max))
    if len(beyond):
        raise ValueError(
            f"centroid {beyond[0][1]} leaves the range of {dtype}: its positive and negative "
            "weights nearly cancel; choose another alpha or other centroids"
        )


def compute_weights(
    X: ArrayLike,
    centroids: ArrayLike,
    alpha: float,
    *,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    """The weights of Eq. 38 as a matrix.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64, rows contiguous, or sparse matrix
    centroids : array-like of shape (K, D)
        Converted to float64.
    alpha : float
        > 0.
    out : ndarray of shape (N, K), dtype of X, C-contiguous, default=None
        The array to write to and return; it must not overlap X or the centroids.
    n_threads : int, default=None

    Returns
    -------
    weights : ndarray of shape (N, K), dtype of X
        ``w_kn = p_kn (1 - alpha (d_kn - E_n))``, one row for each sample. Each row sums to 1;
        entries may be negative.

    Raises
    ------
    ValueError, TypeError
        For NaN, infinity, complex numbers, masked entries, wrong shapes, dtypes or layouts, and
        ``alpha <= 0``. Also if an input is so large or small that a result would not be finite or
        would consist of rounding error; the message names the input.

    Notes
    -----
    Eq. 38 of arXiv 2402.14490. A fit never forms this matrix; see :func:`ekm_step`.

    Examples
    --------
    >>> from ekmfast import compute_weights
    >>> compute_weights([[0.0], [1.0], [4.0]], [[0.0], [4.0]], alpha=0.5).round(3)
    array([[ 1.053, -0.053],
           [ 1.091, -0.091],
           [-0.053,  1.053]])
    """
    rows = _rows(X, None, n_threads)
    C = _check_centroids(centroids, rows.n_features, several=False)
    a = float(_check_alpha(alpha, ()))
    weights: NDArray[Any] = rows.weights(C, a, out)
    return weights


def _update(rows: ArrayRows | CudaRows, weights: Any) -> NDArray[Any]:
    """The centroids of Eq. 39, or an error that names the input at fault."""
    sum_wx, sum_w, reference = rows.accumulate(weights)
    n, dtype = rows.n_rows, rows.dtype
    if not _core.plausible_update(n, sum_wx, sum_w, dtype == np.float32):
        if not (np.isfinite(sum_wx).all() and np.isfinite(sum_w).all()):
            explain_weights_not_finite(rows.parts(), dtype, on_host(weights))
        small = np.flatnonzero(np.abs(sum_wx).max(axis=1) <= n * smallest_mean(dtype))
        if small.size:
            check_weights_in_range(rows.parts(), dtype, on_host(weights), small)
        empty = np.flatnonzero(sum_w == 0)
        if empty.size:
            raise ValueError(
                f"column {empty[0]} of weights sums to zero: its centroid is undefined"
            )
    with np.errstate(over="ignore", invalid="ignore"):
        exact = reference + sum_wx / sum_w[:, None]
        new: NDArray[Any] = exact.astype(dtype, copy=False)
        doubtful = not math.isfinite(new.sum())
    if doubtful and not np.isfinite(new).all():
        beyond = np.flatnonzero(~np.isfinite(new).all(axis=1))[0]
        raise ValueError(
            f"column {beyond} of weights nearly cancels: its centroid leaves the range of {dtype}"
        )
    return new


def update_centroids(
    X: ArrayLike, weights: ArrayLike, *, n_threads: int | None = None
) -> NDArray[Any]:
    """Centroids from weights, Eq. 39.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64, rows contiguous, or sparse matrix
    weights : ndarray of shape (N, K), dtype of X, C-contiguous
        As :func:`compute_weights` returns them, or any other real numbers.
    n_threads : int, default=None

    Returns
    -------
    centroids : ndarray of shape (K, D), dtype of X
        ``sum_n w_kn x_n / sum_n w_kn``.

    Raises
    ------
    ValueError
        For NaN, infinity, masked entries, wrong shapes, no rows, or a column of weights that sums
        to zero, for which Eq. 39 is undefined (:func:`ekm_step` finds the centroid even if the
        column is zero because the weights underflow). Also for weights so large or small that their
        sums overflow or underflow.
    TypeError
        For other dtypes.

    Notes
    -----
    Eq. 39 of arXiv 2402.14490.

    Examples
    --------
    >>> from ekmfast import update_centroids
    >>> update_centroids([[0.0], [2.0], [9.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    array([[1.],
           [9.]])
    """
    rows = _rows(X, None, n_threads)
    if not rows.n_rows:
        raise ValueError(f"X must have at least one row, got shape {rows.X.shape}")
    new: NDArray[Any] = rows.given_back(_update(rows, rows.check_weights(weights, _check_samples)))
    return new


def assign(
    X: ArrayLike, centroids: ArrayLike, *, n_threads: int | None = None
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """The nearest centroid of each row.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64, rows contiguous, or sparse matrix
    centroids : array-like of shape (K, D)
        Converted to float64.
    n_threads : int, default=None

    Returns
    -------
    labels : ndarray of shape (N,), int32
        The index of the nearest centroid; the first of them if several are equally near.
    squared_distances : ndarray of shape (N,), dtype of X
        ``||x_n - c_label||^2``, summed from differences, so that small distances are exact too.

    Raises
    ------
    ValueError, TypeError
        For NaN, infinity, complex numbers, masked entries, wrong shapes, dtypes or layouts, if
        squared distances overflow the dtype of X, and if those to all centroids underflow it, so
        that the nearest is not known.

    Examples
    --------
    >>> from ekmfast import assign
    >>> assign([[0.0], [9.0]], [[0.0], [10.0]])
    (array([0, 1], dtype=int32), array([0., 1.]))
    """
    rows = _rows(X, None, n_threads)
    C = _check_centroids(centroids, rows.n_features, several=False)
    if len(C) > MOST_CENTROIDS:
        raise ValueError(f"centroids must be at most {MOST_CENTROIDS}, got {len(C)}")
    found: tuple[NDArray[np.int32], NDArray[Any]] = rows.nearest(C)
    return found
