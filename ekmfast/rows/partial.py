"""Rows of which some numbers are missing: distances over the features that a row has.

With O_n the features of row n, the distance is

    d_kn = 1/2 D / |O_n| sum_{j in O_n} (x_nj - c_kj)^2,

half the square of `sklearn.metrics.pairwise.nan_euclidean_distances`. The sums of Eq. 39 have one
denominator for each feature, since other rows have each of them. Missing numbers are NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.array import ArrayRows, checksum_of
from ekmfast.rows.limits import largest_number, name_of, overflow_of
from ekmfast.rows.statistics import CentredStatistics
from ekmfast.rows.survey import Survey

Float64 = NDArray[np.float64]

# Rows decide between results if they have this share of the features, or as many as the median row.
ENOUGH = 2 / 3
# Distances of rows that are computed at a time.
CHUNK_NUMBERS = 1 << 20
# Numbers of the rows of which NumPy computes sums at a time.
PART_NUMBERS = 1 << 18


def has_missing(X: NDArray[Any]) -> bool:
    """Whether an array holds NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum()):
            return False
    return any(bool(np.isnan(part).any()) for part in _parts(X))


def _parts(X: NDArray[Any]) -> Iterator[NDArray[Any]]:
    step = max(1, PART_NUMBERS // X.shape[1])
    for first in range(0, len(X), step):
        yield X[first : first + step]


class PartialRows(ArrayRows):
    """Rows in memory with missing numbers, which are NaN; the parameters are those of `ArrayRows`.

    All sums are computed in float64 from differences, whatever the dtype of X is.

    Raises
    ------
    ValueError
        If a row has no number, or an infinite one.
    """

    space = "features"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._means: Float64 | None = None
        # The means of the rows of which these are some, for features that none of these has.
        self._means_of_all: Float64 | None = None
        first = 0
        for part in _parts(self.X):
            missing = np.isnan(part)
            for row in np.flatnonzero(missing.all(axis=1))[:1]:
                raise ValueError(
                    f"every row must have a number with missing='partial': all numbers of row "
                    f"{first + row} of X are missing; leave out such rows"
                )
            infinite = np.argwhere(np.isinf(part))
            if len(infinite):
                row, column = infinite[0]
                raise ValueError(
                    f"X must be finite or NaN, got {name_of(part[row, column])} in row "
                    f"{first + row}, column {column}"
                )
            first += len(part)

    def _masked(self) -> Iterator[tuple[Float64, NDArray[np.bool_], Float64]]:
        """Rows with 0 for missing numbers, which numbers there are, and ``s_n a_n``."""
        first = 0
        for part in _parts(self.X):
            there = ~np.isnan(part)
            scale = self.n_features / there.sum(axis=1)
            if self.sample_weight is not None:
                scale *= self.sample_weight[first : first + len(part)]
            yield np.where(there, part, 0).astype(np.float64), there, scale
            first += len(part)

    @property
    def means(self) -> Float64:
        """The weighted mean (D,) of each feature, the point with the least sum of distances."""
        if self._means is None:
            total, mass = np.zeros((2, self.n_features))
            for x, there, scale in self._masked():
                total += scale @ x
                mass += scale @ there
            # Features of which rows with weight have no number keep 0, or the mean of all rows.
            self._means = total / np.where(mass > 0, mass, 1)
            if self._means_of_all is not None:
                self._means = np.where(mass > 0, self._means, self._means_of_all)
        return self._means

    def survey(self, *, checksum: bool = False) -> Survey:
        """Two passes over X: the means, then the distances from them."""
        low, high = np.full(self.n_features, np.inf), np.full(self.n_features, -np.inf)
        for part in _parts(self.X):
            low = np.fmin(low, np.fmin.reduce(part, axis=0))
            high = np.fmax(high, np.fmax.reduce(part, axis=0))
        absent = np.isinf(low)
        if self._means_of_all is not None:  # some rows of many may lack a feature
            low[absent] = high[absent] = self.means[absent]
            absent = np.zeros_like(absent)
        for column in np.flatnonzero(absent)[:1]:
            raise ValueError(
                f"every feature must have a number with missing='partial': all numbers in column "
                f"{column} of X are missing; leave out such columns"
            )
        s = self.sample_weight
        weight = float(self.n_rows if s is None else s.sum(dtype=np.float64))
        means, scatter = self.means, 0.0
        with np.errstate(over="ignore"):  # `check_spread` finds overflow
            for x, there, scale in self._masked():
                scatter += float(scale @ np.square(np.where(there, x - means, 0)).sum(axis=1))
        dispersion = 0.5 * scatter / weight if weight > 0 else np.nan
        crc = checksum_of(self.X, s) if checksum else 0
        box = low.astype(np.float64), high.astype(np.float64)
        return Survey(self.n_rows, weight, means, dispersion, *box, self, checksum=crc)

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over X; ``sum_w`` and ``sum_p`` are (S, K, D), and exponents are 0."""
        options = self.n_threads, self.weighting, self.fuzzifier
        sum_wx, sum_w, sum_p, objective = _core.partial_statistics(
            self.X, centroids, alpha, self.sample_weight, self.means, *options
        )
        exponent = np.zeros(sum_w.shape[:2])
        return CentredStatistics(sum_wx, sum_w, sum_p, exponent, objective, self.means)

    def reweighted(self, sample_weight: NDArray[Any] | None) -> Self:
        same = type(self)(self.X, sample_weight, self.n_threads)
        same._means_of_all = self._means_of_all
        return same

    def _of(
        self,
        X: NDArray[Any],
        sample_weight: NDArray[Any] | None,
        factor: NDArray[Any] | None = None,
    ) -> Self:
        some = super()._of(X, sample_weight, factor)
        some._means_of_all = self.means
        return some

    def _distances(self, centroids: Float64) -> Iterator[tuple[slice, Float64]]:
        """Squared distances (n, K) of some rows at a time."""
        step = max(1, CHUNK_NUMBERS // len(centroids))
        for first in range(0, self.n_rows, step):
            chunk = slice(first, first + step)
            d2 = _core.partial_distances(self.X[chunk], centroids, self.n_threads)
            if not (d2 <= largest_number(self.dtype)).all():
                raise overflow_of(self.dtype)
            yield chunk, d2

    def nearest(self, centroids: Float64) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Labels (N,) and squared distances (N,) in the dtype of X."""
        labels, squared = np.empty(self.n_rows, np.int32), np.empty(self.n_rows, self.dtype)
        for chunk, d2 in self._distances(np.ascontiguousarray(centroids)):
            labels[chunk] = d2.argmin(axis=1)
            squared[chunk] = d2.min(axis=1)
        return labels, squared

    def weights(
        self, centroids: Float64, alpha: float, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The weights (N, K) of Eq. 38, written to ``out`` where it is given."""
        out = self._check_out(out, centroids)
        for chunk, d2 in self._distances(centroids):
            away = d2 - d2.min(axis=1, keepdims=True)
            p = np.exp(-0.5 * alpha * away)
            p /= p.sum(axis=1, keepdims=True)
            mean = (p * away).sum(axis=1, keepdims=True)
            out[chunk] = p * (1 - 0.5 * alpha * (away - mean))
        return out

    def likelihood_weight(self, numbers: Any) -> NDArray[Any] | None:
        """Rows with few of the features decide nothing, unless half of the rows have as few.

        The label of a row with one of two features says little of a result. On a square and eight
        blobs in the plane, with 10 % of the numbers missing, all rows together chose an alpha with
        an ARI of .18, and complete rows one with .57.
        """
        count = (~np.isnan(self.X[numbers])).sum(axis=1)
        s = None if self.sample_weight is None else self.sample_weight[numbers]
        weighted = count if s is None or not s.any() else count[s > 0]
        least = min(float(np.median(weighted)), ENOUGH * self.n_features)
        enough: NDArray[Any] = (count >= least).astype(self.dtype)
        return enough if s is None else enough * s

    def take(self, numbers: NDArray[np.intp]) -> Float64:
        """The rows with these numbers, in float64, with means for missing numbers: as centroids."""
        some = self.X[numbers].astype(np.float64)
        return np.where(np.isnan(some), self.means, some)

    def closest(self, candidates: Float64, closest: NDArray[Any], update: bool = False) -> Float64:
        """One pass over X for S starts at once: see `RowsAtHand`."""
        n_starts, each, n_features = candidates.shape
        potentials = np.zeros((n_starts, each))
        for chunk, d2 in self._distances(candidates.reshape(-1, n_features)):
            least = np.minimum(closest[:, chunk], d2.T.reshape(n_starts, each, -1).swapaxes(0, 1))
            s = 1.0 if self.sample_weight is None else self.sample_weight[chunk]
            potentials += (s * least).sum(axis=2, dtype=np.float64).T
            if update:
                closest[:, chunk] = least[0]
        return potentials
