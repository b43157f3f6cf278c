"""Rows of which some numbers are missing: distances over the features that a row has.

With O_n the features of row n, the distance is

    d_kn = 1/2 D / |O_n| sum_{j in O_n} (x_nj - c_kj)^2,

half the square of `sklearn.metrics.pairwise.nan_euclidean_distances`. The sums of Eq. 39 have one
denominator for each feature, since other rows have each of them. Missing numbers are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class FeatureSums:
    """Sums over some rows for each feature (D,), with the weights ``s_n a_n``, ``a_n = D / |O_n|``.

    Those of disjoint rows can be added.
    """

    n_rows: int
    weight: float  # sum_n s_n
    total: Float64  # sum s_n a_n x_nj over the rows that have feature j
    mass: Float64  # sum s_n a_n over these rows
    low: Float64  # the smallest and the largest number; infinite if no row has any
    high: Float64

    def __add__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(
            self.n_rows + other.n_rows,
            self.weight + other.weight,
            self.total + other.total,
            self.mass + other.mass,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def check(self, name: str) -> None:
        """Refuse a feature of which no row has a number."""
        for column in np.flatnonzero(np.isinf(self.low))[:1]:
            raise ValueError(
                f"every feature must have a number with missing='partial': all numbers in column "
                f"{column} of {name} are missing; leave out such columns"
            )

    def means_or(self, others: Float64 | None) -> Float64:
        """The mean of each feature; that of ``others``, or 0, if no row with weight has it."""
        there = self.mass > 0
        others = np.zeros_like(self.mass) if others is None else others
        return np.where(there, self.total / np.where(there, self.mass, 1), others)

    def survey(
        self,
        scatter: float,
        sample: ArrayRows,
        means: Float64,
        numbers: NDArray[np.intp] | None = None,
        checksum: int = 0,
        far_rows: Callable[[Float64, int, int], ArrayRows] | None = None,
    ) -> Survey:
        absent = np.isinf(self.low)
        return Survey(
            self.n_rows,
            self.weight,
            means,
            0.5 * scatter / self.weight if self.weight > 0 else np.nan,
            np.where(absent, means, self.low),
            np.where(absent, means, self.high),
            sample,
            numbers,
            checksum,
            far_rows,
            self.mass,
        )


class PartialRows(ArrayRows):
    """Rows in memory with missing numbers, which are NaN; the parameters are those of `ArrayRows`.

    All sums are computed in float64 from differences, whatever the dtype of X is. Errors call the
    array ``name``. ``means`` (D,) is the point from which differences are taken, and
    ``means_of_all`` replaces the means of features that no row has.

    Raises
    ------
    ValueError
        If a row has no number, or an infinite one.
    """

    space = "features"
    iterated = False
    compiled = False

    def __init__(
        self,
        *given: Any,
        name: str = "X",
        means: Float64 | None = None,
        means_of_all: Float64 | None = None,
    ) -> None:
        super().__init__(*given)
        self._means = means
        # The means of the rows of which these are some, for features that none of these has.
        self._means_of_all = means_of_all
        first = 0
        for part in _parts(self.X):
            missing = np.isnan(part)
            for row in np.flatnonzero(missing.all(axis=1))[:1]:
                raise ValueError(
                    f"every row must have a number with missing='partial': all numbers of row "
                    f"{first + row} of {name} are missing; leave out such rows"
                )
            infinite = np.argwhere(np.isinf(part))
            if len(infinite):
                row, column = infinite[0]
                raise ValueError(
                    f"{name} must be finite or NaN, got {name_of(part[row, column])} in row "
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

    def feature_sums(self) -> FeatureSums:
        """One pass over X for what the survey needs of each feature."""
        low, high = np.full(self.n_features, np.inf), np.full(self.n_features, -np.inf)
        total, mass = np.zeros((2, self.n_features))
        for x, there, scale in self._masked():
            total += scale @ x
            mass += scale @ there
            low = np.minimum(low, np.where(there, x, np.inf).min(axis=0))
            high = np.maximum(high, np.where(there, x, -np.inf).max(axis=0))
        s = self.sample_weight
        weight = float(self.n_rows if s is None else s.sum(dtype=np.float64))
        return FeatureSums(self.n_rows, weight, total, mass, low, high)

    def scatter(self, means: Float64) -> float:
        """One pass over X: the weighted sum of squared distances from ``means`` (D,)."""
        scatter = 0.0
        with np.errstate(over="ignore"):  # `check_spread` finds overflow
            for x, there, scale in self._masked():
                scatter += float(scale @ np.square(np.where(there, x - means, 0)).sum(axis=1))
        return scatter

    @property
    def means(self) -> Float64:
        """The weighted mean (D,) of each feature, the point with the least sum of distances.

        A feature of which no row with weight has a number keeps that of all rows, or 0.
        """
        if self._means is None:
            self._means = self.feature_sums().means_or(self._means_of_all)
        return self._means

    def survey(self, *, checksum: bool = False) -> Survey:
        """Two passes over X: the means, then the distances from them."""
        sums = self.feature_sums()
        if self._means_of_all is None:
            sums.check("X")
        self._means = sums.means_or(self._means_of_all)
        crc = checksum_of(self.X, self.sample_weight) if checksum else 0
        return sums.survey(self.scatter(self._means), self, self._means, checksum=crc)

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over X; ``sum_w`` and ``sum_p`` are (S, K, D), and exponents are 0."""
        options = self.n_threads, self.weighting, self.fuzzifier
        sum_wx, sum_w, sum_p, objective = _core.partial_statistics(
            self.X, centroids, alpha, self.sample_weight, self.means, *options
        )
        exponent = np.zeros(sum_w.shape[:2])
        return CentredStatistics(sum_wx, sum_w, sum_p, exponent, objective, self.means)

    def reweighted(self, sample_weight: NDArray[Any] | None) -> Self:
        options = self.n_threads, self.weighting, self.fuzzifier
        return type(self)(self.X, sample_weight, *options, means_of_all=self._means_of_all)

    def among(self, means: Float64) -> Self:
        """The same rows as some of many, whose means ``means`` (D,) replace those of no row."""
        options = self.n_threads, self.weighting, self.fuzzifier
        return type(self)(self.X, self.sample_weight, *options, means_of_all=means)

    def _of(
        self,
        X: NDArray[Any],
        sample_weight: NDArray[Any] | None,
        factor: NDArray[Any] | None = None,
    ) -> Self:
        options = self.n_threads, self.weighting, self.fuzzifier
        return type(self)(X, sample_weight, *options, means_of_all=self.means)

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

    def label_each(self, centroids: Float64, names: NDArray[np.int32]) -> NDArray[np.int32]:
        """For each of R results (R, K, D) the names (R, K) of the nearest centroids, (R, N)."""
        pairs = zip(names, centroids, strict=True)
        return np.stack([own[self.nearest(places)[0]] for own, places in pairs])

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
