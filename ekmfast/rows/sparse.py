"""Sparse rows in memory (CSR), whose sums the compiled kernels compute without a dense copy."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.limits import (
    check_nearest,
    check_told_apart,
    explain_not_finite,
    name_of,
    smallest_mean,
)
from ekmfast.rows.statistics import CentredStatistics
from ekmfast.rows.survey import Survey, dispersion_by_passes, may_overflow

Float64 = NDArray[np.float64]

FLOAT64 = np.dtype(np.float64)
# Bytes of the dense rows that `parts` yields at a time.
PART_BYTES = 1 << 24


class SparseRows(ArrayRows):
    """Rows in compressed form (CSR), whose statistics the CPU computes.

    All sums are computed in float64, whatever the dtype of X is, and relative to the origin, since
    a point that is subtracted from the rows would fill them. An offset that all rows share is
    therefore not removed: if it is F times the width of the data, the error of squared distances
    is about F^2 times the rounding error of float64, relative to the width squared.

    Parameters
    ----------
    X : csr_matrix or csr_array of shape (N, D), float32 or float64
        Not copied if the column indices ascend in each row without duplicates. Otherwise a copy is
        sorted, and duplicates are added.
    sample_weight, n_threads, weighting, fuzzifier
        As in `ArrayRows`.

    Raises
    ------
    ValueError
        If X is no valid matrix, for example because a column index is out of range.
    """

    shares_passes = False
    compiled = False
    X: Any

    def __init__(
        self,
        X: Any,
        sample_weight: NDArray[Any] | None = None,
        n_threads: int = 1,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
    ) -> None:
        super().__init__(X, sample_weight, n_threads, weighting, fuzzifier)
        self._csr = self._compiled(X)
        if not self._csr.ascending:
            self.X = type(X)((X.data.copy(), X.indices.copy(), X.indptr.copy()), shape=X.shape)
            self.X.sum_duplicates()
            self._csr = self._compiled(self.X)

    def _compiled(self, X: Any) -> _core.Csr:
        """The kernels' view of X, which checks its structure."""
        s = self.sample_weight
        weight = None if s is None else np.ascontiguousarray(s, np.float64)
        data, indices = (np.require(part, requirements=["C", "A"]) for part in (X.data, X.indices))
        return _core.Csr(data, indices, X.indptr, X.shape[1], weight)

    @property
    def n_rows(self) -> int:
        return int(self.X.shape[0])

    @property
    def _numbers(self) -> NDArray[Any]:
        data: NDArray[Any] = self.X.data
        return data

    @property
    def _origin(self) -> Float64:
        return np.zeros(self.n_features)

    def survey(self, *, checksum: bool = False) -> Survey:
        """Two passes over the numbers of X: the mean, then squares of differences from it."""
        weight, mean, dispersion, low, high = self._csr.survey()
        if not math.isfinite(dispersion):
            self.refuse_not_finite()
        if not weight > 0:
            mean, dispersion = self._origin, math.nan
        elif may_overflow(weight, low, high, FLOAT64):
            dispersion = dispersion_by_passes(self, self._origin)[1]
        crc = self._checksum() if checksum else 0
        return Survey(self.n_rows, weight, mean, dispersion, low, high, self, checksum=crc)

    def _checksum(self) -> int:
        parts, crc = [self.X.data, self.X.indices, self.X.indptr], 0
        for part in parts if self.sample_weight is None else [*parts, self.sample_weight]:
            crc = zlib.crc32(np.ascontiguousarray(part).data, crc)
        return crc

    def refuse_not_finite(self) -> None:
        """Raise an error for the first number that is NaN or infinity."""
        bad = np.flatnonzero(~np.isfinite(self.X.data))
        if bad.size:
            first = int(bad[0])
            row = int(np.searchsorted(self.X.indptr, first, side="right")) - 1
            raise ValueError(
                f"X must be finite, got {name_of(self.X.data[first])} in row {row}, "
                f"column {self.X.indices[first]}"
            )

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over X for each of the centroids (S, K, D), with alpha (S,)."""
        sums = self._csr.statistics(
            centroids, alpha, self.n_threads, self.weighting, self.fuzzifier
        )
        return CentredStatistics(*sums, self._origin)

    def iterate(self, solver: _core.Solver, max_passes: int) -> None:
        """Make at most so many passes over X, until all runs are done: see `Iterated`."""
        solver.iterate_sparse(self._csr, max_passes, self.n_threads, self.weighting, self.fuzzifier)

    def followed_by(self, others: ArrayRows) -> Self:
        from scipy.sparse import vstack  # not above, since `import ekmfast` stays light

        return self._of(vstack([self.X, others.X], format="csr"), None)

    def nearest(self, centroids: Float64) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Labels (N,) and squared distances (N,) in the dtype of X: see `nearest_centroids`."""
        labels, squared = np.empty(self.n_rows, np.int32), np.empty(self.n_rows, self.dtype)
        total = self._csr.assign(centroids, labels, squared, self.n_threads)
        if not math.isfinite(total):
            explain_not_finite(self.parts(), self.dtype, centroids)
        if self.n_rows and not total > self.n_rows * smallest_mean(self.dtype):
            check_nearest(self._box(), self.dtype, centroids)
        return labels, squared

    def label_each(self, centroids: Float64, names: NDArray[np.int32]) -> NDArray[np.int32]:
        """For each of R results (R, K, D) the names (R, K) of the nearest centroids, (R, N)."""
        pairs = zip(names, centroids, strict=True)
        return np.stack([own[self.nearest(places)[0]] for own, places in pairs])

    def _box(self) -> Iterator[NDArray[Any]]:
        """The corners of the bounding box, for errors that depend on the range of the rows."""
        yield np.stack(self._csr.survey()[3:])

    def weights(
        self, centroids: Float64, alpha: float, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The weights (N, K) of Eq. 38, written to ``out`` where it is given."""
        out = self._check_out(out, centroids)
        if not math.isfinite(self._csr.weights(centroids, alpha, out, self.n_threads)):
            explain_not_finite(self.parts(), self.dtype, centroids, alpha)
        if self.n_rows:
            mass = np.abs(out).sum(axis=0, dtype=np.float64)
            mean = float(self._csr.survey()[2])
            check_told_apart(FLOAT64, centroids, mass, alpha, mean, self._origin)
        return out

    def accumulate(self, weights: NDArray[Any]) -> tuple[Float64, Float64, Float64]:
        """sum_wx (K, D), sum_w (K,) and the reference, the origin, for weights (N, K)."""
        return *self._csr.accumulate(weights, self.n_threads), self._origin

    def squared_distances(self, centroids: Float64, first: int, last: int) -> Float64:
        """``||x_n - c_k||^2`` (n, K) of the rows from ``first`` to ``last``."""
        return self._csr.distances(first, last, np.ascontiguousarray(centroids), self.n_threads)

    def expectation(
        self, centre: Float64, unit: float, mixtures: tuple[Float64, ...]
    ) -> tuple[Float64, ...]:
        """The sums of mixtures with variances: ``_core.Csr.expectation``."""
        means, whiteners, offsets, degrees, background = mixtures
        return self._csr.expectation(
            centre, unit, means, whiteners, offsets, degrees, background, self.n_threads
        )

    def log_densities(
        self, centre: Float64, unit: float, mixture: tuple[Float64, ...], out: Sequence[Any]
    ) -> None:
        """Write log densities under a mixture to arrays: ``_core.Csr.densities``."""
        means, whiteners, offsets, degrees, background = mixture
        joint, labels, largest, density = out
        self._csr.densities(
            centre,
            unit,
            means,
            whiteners,
            offsets,
            degrees,
            background,
            joint,
            labels,
            largest,
            density,
            self.n_threads,
        )

    def parts(self) -> Iterator[NDArray[Any]]:
        """Yield the rows, dense, a few at a time; NaN and infinity raise an error before."""
        self.refuse_not_finite()
        step = max(1, PART_BYTES // (8 * self.n_features))
        for first in range(0, self.n_rows, step):
            yield self.X[first : first + step].toarray()

    # ------------------------------------------------------------------------------------------
    # Some of the rows

    def take(self, numbers: NDArray[np.intp]) -> Float64:
        """The rows with these numbers, dense, in float64."""
        dense: Float64 = self.X[np.ravel(numbers)].astype(np.float64).toarray()
        return dense.reshape(*np.shape(numbers), self.n_features)

    def stretches(self, numbers: NDArray[np.intp], length: int, *, rest: bool) -> Self:
        rows = (np.asarray(numbers)[:, None] * length + np.arange(length)).ravel()
        if rest:
            behind = self.n_rows // length * length
            rows = np.concatenate([rows, np.arange(behind, self.n_rows)])
        return self.subset(rows)

    # ------------------------------------------------------------------------------------------
    # Seeding

    def closest(self, candidates: Float64, closest: NDArray[Any], update: bool = False) -> Float64:
        """One pass over X for S starts at once: see `RowsAtHand`."""
        return self._csr.closest(candidates, closest, self.n_threads, update)
