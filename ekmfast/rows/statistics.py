"""`CentredStatistics`: the sums of one pass over some rows. Those of disjoint rows can be added."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CentredStatistics:
    """Sums of one pass for S problems, relative to ``reference``, with a scale for each column.

    ``sum_wx[s, k] * 2**exponent[s, k]`` is ``sum_n s_n w_kn (x_n - reference)``; ``sum_w`` and
    ``sum_p`` have the same factor. The exponent is 0 except for columns whose memberships
    underflow, and it cancels in every ratio. If numbers are missing, ``sum_w`` and ``sum_p`` are
    (S, K, D), for each feature, and all exponents are 0. The sums of a ``'hard'`` or ``'fuzzy'``
    column may be exactly 0.
    """

    sum_wx: Float64  # (S, K, D)
    sum_w: Float64  # (S, K)
    sum_p: Float64  # (S, K)
    exponent: Float64  # (S, K)
    objective: Float64  # (S,)
    reference: Float64  # (D,)

    def ratio(self, centroids: Float64) -> Float64:
        """Eq. 39, (S, K, D); a column that sums to exactly zero keeps its centroid."""
        w = self.sum_w
        w = w if w.ndim == self.sum_wx.ndim else w[..., None]
        if w.all():
            return self.reference + self.sum_wx / w
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(w == 0, centroids, self.reference + self.sum_wx / w)

    def problem(self, i: int) -> CentredStatistics:
        """The sums of one of the problems."""
        one = slice(i, i + 1)
        return CentredStatistics(
            self.sum_wx[one],
            self.sum_w[one],
            self.sum_p[one],
            self.exponent[one],
            self.objective[one],
            self.reference,
        )

    def __add__(self, other: CentredStatistics) -> CentredStatistics:
        """The sums over both sets of rows, which must have the same reference."""
        if not np.array_equal(self.reference, other.reference):
            raise ValueError("sums with different references cannot be added")
        # Both are scaled to the larger exponent; numbers that underflow then are too small to
        # change a digit of the sum. The exponent of a column of zeros does not count.
        exponent = np.zeros_like(self.exponent)
        if self.exponent.any() or other.exponent.any():
            here = np.where(self.sum_p == 0, -np.inf, self.exponent)
            there = np.where(other.sum_p == 0, -np.inf, other.exponent)
            exponent = np.maximum(here, there)
            exponent = np.where(np.isfinite(exponent), exponent, 0.0)

        def scaled(sums: CentredStatistics) -> tuple[Float64, Float64, Float64]:
            shift = np.clip(sums.exponent - exponent, -3000, 0).astype(np.int32)
            if not shift.any():
                return sums.sum_wx, sums.sum_w, sums.sum_p
            wx = np.ldexp(sums.sum_wx, shift[..., None])
            return wx, np.ldexp(sums.sum_w, shift), np.ldexp(sums.sum_p, shift)

        (wx, w, p), (more_wx, more_w, more_p) = scaled(self), scaled(other)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the result
            objective = self.objective + other.objective
            return CentredStatistics(
                wx + more_wx, w + more_w, p + more_p, exponent, objective, self.reference
            )
