"""`Survey`: what a fit must know about the rows before it begins, from one pass over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.limits import largest_number
from ekmfast.rows.protocol import RowsAtHand, Sums

if TYPE_CHECKING:
    from ekmfast.rows.array import ArrayRows

Float64 = NDArray[np.float64]

# Largest sample of rows that are not at hand, in rows and in bytes.
SAMPLE_ROWS = 50_000
SAMPLE_BYTES = 128 << 20
# The reference is the median of so many rows, as in csrc/ekm.cpp.
REFERENCE_ROWS = 15
# The dispersion is computed as a difference. If it is less than this share of the number that is
# subtracted, it has lost too many digits.
CANCELLED = 2.0**-10


@dataclass(frozen=True)
class Moments:
    """Sums over some rows relative to ``reference``, and the bounding box of the rows.

    Those with the same reference can be added.
    """

    n_rows: int
    weight: float  # sum_n s_n
    squares: float  # sum_n s_n ||x_n - reference||^2
    sum: Float64  # (D,), sum_n s_n (x_n - reference)
    reference: Float64  # (D,)
    low: Float64  # (D,), the bounding box of all rows, including those of weight 0
    high: Float64

    @classmethod
    def of(
        cls,
        X: NDArray[Any],
        sample_weight: NDArray[Any] | None,
        reference: Float64 | None,
        n_threads: int,
        factor: NDArray[Any] | None = None,
    ) -> Moments:
        """One pass over an array, whose rows are multiplied by ``factor`` (N,) if it is given."""
        return cls(len(X), *_core.survey(X, sample_weight, reference, n_threads, factor))

    def __add__(self, other: Moments) -> Moments:
        with np.errstate(over="ignore", invalid="ignore"):  # `dispersion` checks for overflow
            total = self.sum + other.sum
        return Moments(
            self.n_rows + other.n_rows,
            self.weight + other.weight,
            self.squares + other.squares,
            total,
            self.reference,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def finite(self) -> bool:
        """True if all rows are certainly finite; False if their numbers must be checked."""
        return math.isfinite(self.squares)

    @property
    def mean(self) -> Float64:
        with np.errstate(over="ignore", invalid="ignore"):  # `dispersion` checks for overflow
            return self.reference + self.sum / self.weight

    @property
    def cancelled(self) -> bool:
        """Whether the reference is so far from the mean that the dispersion has lost digits.

        For any point c the mean of 1/2 ||x - c||^2 is the dispersion plus 1/2 ||mean - c||^2.
        """
        with np.errstate(all="ignore"):
            beside = float(np.square(self.sum / self.weight).sum())
            return bool(self.squares / self.weight - beside < CANCELLED * beside)

    def dispersion(self, rows: Sums, dtype: np.dtype[Any]) -> float:
        """The weighted mean of 1/2 ||x - mean||^2 of ``rows``, whose moments these are.

        If sums in ``dtype`` may overflow, it is computed by the kernels of the fit, so that it
        overflows exactly if the sums of the fit do.
        """
        if not self.weight > 0:
            return math.nan
        if may_overflow(self.weight, self.low, self.high, dtype):
            return dispersion_by_passes(rows, self.reference)[1]
        offset = self.sum / self.weight
        return max(0.5 * (self.squares / self.weight - float(offset @ offset)), 0.0)


def may_overflow(weight: float, low: Float64, high: Float64, dtype: np.dtype[Any]) -> bool:
    """Whether sums of squared distances in the box of the rows may overflow ``dtype``."""
    with np.errstate(over="ignore", invalid="ignore"):
        widest = float(np.square(high - low).sum())
    return not 4 * max(weight, 1.0) * widest < largest_number(dtype)


def reference_of(X: NDArray[Any]) -> Float64:
    """The point that the kernels subtract from the rows of X: the median of some of them."""
    some = X[reference_rows(len(X))]
    return _core.survey(np.ascontiguousarray(some), None, None, 1)[3]


def reference_rows(n_rows: int) -> NDArray[np.intp]:
    """The numbers of the rows whose median is the reference."""
    n = min(REFERENCE_ROWS, n_rows)
    return np.arange(n) * n_rows // n


def dispersion_by_passes(rows: Sums, reference: Float64) -> tuple[Float64, float]:
    """The weighted mean (D,) of the rows and their dispersion, in two passes.

    With one centroid all weights w are 1 for every alpha and every weighting, so that J is the
    weighted sum of 1/2 ||x - c||^2.
    """
    one = np.ones(1)
    first = rows.statistics(reference[None, None].copy(), one)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the result
        mean = first.ratio(reference[None, None])
    second = rows.statistics(mean, one)
    return mean[0, 0], float(second.objective[0] / first.sum_w[0, 0])


@dataclass(frozen=True)
class Survey:
    """What a fit must know about the rows before it begins."""

    n_rows: int
    total_weight: float
    mean: Float64  # (D,), weighted
    dispersion: float  # the weighted mean of 1/2 ||x - mean||^2
    low: Float64  # (D,), the smallest and the largest value of each feature
    high: Float64
    sample: RowsAtHand  # all rows, or a uniform sample of them
    numbers: NDArray[np.intp] | None = None  # of the sampled rows; None if the sample is all rows
    checksum: int = 0  # of all rows and weights, if it was asked for
    # If the sample is not all rows: a function of centroids (K, D), the seed of a random generator
    # and a number of rows. It draws so many rows in one pass, most of them far from the centroids.
    far_rows: Callable[[Float64, int, int], ArrayRows] | None = None
    # If numbers are missing: for each feature (D,) the weight of the rows that have it, which is
    # scaled so that its mean over the features is the total weight.
    mass: Float64 | None = None

    @property
    def whole(self) -> bool:
        """Whether the sample is all rows, in their order."""
        return self.numbers is None
