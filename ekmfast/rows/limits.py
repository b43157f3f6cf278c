"""Errors for inputs near the ends of a dtype's range: which input is at fault, and what helps.

The functions of `kernels` check their results, which are few numbers. Only if these are not finite,
or so small or large that they may consist of rounding error, do they call this module, which reads
the rows once more to find and name the input at fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
LOG2E = 1.4426950408889634
MISSING_HINT = (
    "; if numbers are missing, leave out such rows, fill them (sklearn.impute), or use "
    "missing='partial' of EKMeans"
)


def smallest_mean(dtype: Any) -> float:
    """If a mean of squares is above this bound, the squares did not underflow ``dtype``."""
    return 2.0**-100 if dtype == np.float32 else 2.0**-960


def largest_number(dtype: Any) -> float:
    """The largest finite number of a dtype."""
    return float(np.finfo(dtype).max)


def least_square(dtype: Any) -> float:
    """Squared distances below this bound cannot tell which of two centroids is nearer.

    In float32 the bound is near the smallest denormal number. In float64 it is larger, since alpha,
    which is of the order of 1 / distance^2, must be a float64 too.
    """
    return 2.0**-138 if dtype == np.float32 else 2.0**-1016


def not_finite(rows: NDArray[Any]) -> tuple[int, int, str] | None:
    """Row, column and name of the first number that is not finite; None if all are finite."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if not bad.size:
        return None
    row = int(bad[0])
    column = int(np.flatnonzero(~np.isfinite(rows[row]))[0])
    return row, column, name_of(rows[row, column])


def name_of(value: Any) -> str:
    """The name of a number that is not finite."""
    return "NaN" if np.isnan(value) else "infinity" if value > 0 else "-infinity"


def _range(blocks: Iterable[NDArray[Any]]) -> tuple[Float64, Float64]:
    """Least and greatest value of each feature; refuses rows that are not finite."""
    low: Any = np.inf
    high: Any = -np.inf
    first = 0
    for block in blocks:
        if (found := not_finite(block)) is not None:
            row, column, value = found
            raise ValueError(
                f"X must be finite, got {value} in row {first + row}, column {column}"
                + (MISSING_HINT if value == "NaN" else "")
            )
        if len(block):
            low = np.minimum(low, block.min(axis=0).astype(np.float64))
            high = np.maximum(high, block.max(axis=0).astype(np.float64))
        first += len(block)
    return low, high


def refuse_not_finite(parts: Iterable[NDArray[Any]]) -> None:
    """Raise an error for the first row that holds NaN or infinity; ``parts`` are in order."""
    _range(parts)


def _squares_fit(width: float, d: int, dtype: Any) -> bool:
    return bool(4.0 * d * width * width <= float(np.finfo(dtype).max))


def overflow_of(dtype: Any) -> ValueError:
    """The error for squared distances that overflow a dtype."""
    wider = ", or use float64" if dtype == np.float32 else ""
    return ValueError(f"squared distances overflow {dtype}: scale X and the centroids down{wider}")


def explain_not_finite(
    blocks: Iterable[NDArray[Any]],
    dtype: Any,
    centroids: Float64 | None = None,
    alpha: float = 0.0,
    sample_weight: NDArray[Any] | None = None,
) -> None:
    """Raise an error that names the input because of which a sum overflowed or is NaN.

    ``blocks`` are all rows, in order.
    """
    dtype = np.dtype(dtype)
    if centroids is not None and not np.isfinite(centroids).all():
        raise ValueError("centroids must be finite, got NaN or infinity")
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = _range(blocks)
        if centroids is not None:
            low = np.minimum(low, centroids.reshape(-1, centroids.shape[-1]).min(axis=0))
            high = np.maximum(high, centroids.reshape(-1, centroids.shape[-1]).max(axis=0))
        width, d = float(np.max(high - low)), np.size(low)
        if not _squares_fit(width, d, dtype):
            raise overflow_of(dtype)
        most = float(np.finfo(dtype).max)
        square = max(width * width * d, width)
        if 4 * alpha * LOG2E * square > most or alpha * LOG2E > most:
            raise ValueError(
                f"alpha times squared distances overflows {dtype}, alpha is {alpha:g}: "
                "choose a smaller alpha"
            )
        if sample_weight is not None and sample_weight.max() > 1:
            largest = float(sample_weight.max())
            raise ValueError(
                f"sample_weight of up to {largest:g} makes sums overflow {dtype}: scale "
                "sample_weight down, e.g. to a mean of 1"
            )
    raise ValueError(f"sums over the rows of X overflow {dtype}: scale X and the centroids down")


def explain_weights_not_finite(
    blocks: Iterable[NDArray[Any]], dtype: Any, weights: NDArray[Any]
) -> None:
    """`explain_not_finite` for sums of rows times weights that the caller gave."""
    if not np.isfinite(weights).all():
        raise ValueError("weights must be finite, got NaN or infinity")
    _range(blocks)
    largest = float(np.abs(weights).max())
    if largest > 1:
        raise ValueError(
            f"weights of up to {largest:g} make sums overflow {np.dtype(dtype)}: scale them down, "
            "which does not move the centroids"
        )
    raise ValueError(f"sums over the rows of X overflow {np.dtype(dtype)}: scale X down")


def check_not_underflowed(
    blocks: Iterable[NDArray[Any]],
    dtype: Any,
    centroids: Float64,
    sample_weight: NDArray[Any] | None = None,
) -> None:
    """Raise an error if results are nearly 0 by underflow, not because rows equal centroids.

    ``centroids`` are (K, D) or (S, K, D).
    """
    dtype = np.dtype(dtype)
    low, high = _range(blocks)
    if np.isinf(low).any():  # there are no rows
        return
    width = float(np.max(high - low))
    # If all rows are (nearly) equal, they may still be far from the nearest centroid.
    away = float(np.abs(centroids - low).max(axis=-1).min(axis=-1).min())
    least = 16 * float(np.finfo(dtype).tiny)
    # The factors are compared with the limit, since the product itself may be 0.
    if 0 < max(width, away) < np.sqrt(least) or 0 < width < least:
        wider = ", or use float64" if dtype == np.float32 else ""
        raise ValueError(
            f"squared distances underflow {dtype}: rows of X differ by at most {width:.3g}, and "
            f"{away:.3g} from a centroid; scale X and the centroids up{wider}"
        )
    largest = 1.0 if sample_weight is None else float(sample_weight.max())
    if largest >= 1:
        return
    # Weights differ, and products with a weight of a millionth of the largest must not underflow.
    least *= 2**20
    farthest = max(width, away)
    if (farthest > 0 and largest * farthest**2 < least) or 0 < width < least / largest:
        raise ValueError(
            f"sample_weight of at most {largest:g} makes sums underflow {dtype}: scale "
            "sample_weight up, e.g. to a mean of 1"
        )


def check_nearest(blocks: Iterable[NDArray[Any]], dtype: Any, centroids: Float64) -> None:
    """Raise an error if squared distances to all ``centroids`` (K, D) underflow.

    Then it is not known which centroid is nearest. If only some of the squared distances underflow,
    their centroids are nearer than the others.
    """
    dtype = np.dtype(dtype)
    low, high = _range(blocks)
    no_rows, all_equal = np.isinf(low).any(), (centroids == centroids[0]).all()
    if no_rows or all_equal:
        return
    width, apart = float(np.max(high - low)), float(np.abs(centroids - low).max())
    if max(width, apart) < np.sqrt(least_square(dtype) / np.size(low)):
        wider = ", or use float64" if dtype == np.float32 else ""
        raise ValueError(
            f"squared distances underflow {dtype}: rows of X differ by at most {width:.3g}, and "
            f"by {apart:.3g} from all centroids; scale X and the centroids up{wider}"
        )


def check_told_apart(
    dtype: Any,
    centroids: Float64,
    mass: Float64,
    alpha: float,
    mean_distance: float,
    reference: Float64,
) -> None:
    """Raise an error if two centroids differ by less than rounding changes their memberships.

    The kernels subtract ``reference``, a point among the rows, from the centroids (K, D) and round
    the differences to ``dtype``. Two centroids far from it and near each other may then become
    equal. This matters if ``alpha`` times their distance from the rows is so large that such
    rounding changes memberships, and if the sums of their memberships, ``mass`` (K,), are not
    negligible.
    """
    eps = float(np.finfo(dtype).eps)
    with np.errstate(over="ignore", invalid="ignore"):
        far = np.abs(centroids - reference).max(axis=1)
        rounding = alpha * eps * far * np.maximum(far, np.sqrt(2 * mean_distance))
    suspects = np.flatnonzero((rounding > 0.1) & (mass > 1e-3 * mass.max()))
    for k in suspects:
        apart = np.abs(centroids - centroids[k]).max(axis=1)
        alike = (apart > 0) & (apart <= 32 * eps * far[k]) & (np.arange(len(far)) != k)
        if alike.any():
            other = np.flatnonzero(alike)[0]
            wider = ", or use float64" if np.dtype(dtype) == np.float32 else ""
            raise ValueError(
                f"centroids {min(k, other)} and {max(k, other)} differ by {apart[other]:.3g} and "
                f"lie {far[k]:.3g} away from X, where {np.dtype(dtype)} cannot tell them apart: "
                f"choose centroids nearer to X or a smaller alpha{wider}"
            )


def check_weights_in_range(
    blocks: Iterable[NDArray[Any]],
    dtype: Any,
    weights: NDArray[Any],
    columns: NDArray[np.intp],
) -> None:
    """Raise an error if products of X with one of the ``columns`` of ``weights`` underflow."""
    tiny = 16 * float(np.finfo(dtype).tiny)
    low, high = _range(blocks)
    width = float(np.max(high - low))
    for k in columns:
        largest = float(np.abs(weights[:, k]).max())
        if largest > 0 and (largest < tiny or 0 < width < tiny / largest):
            raise ValueError(
                f"column {k} of weights, of at most {largest:g}, underflows {np.dtype(dtype)} "
                "times X: scale it up, which does not move its centroid"
            )
