"""Rows in an array in memory, whose sums the compiled kernels compute."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.batches import ShuffledBatches
from ekmfast.rows.limits import check_told_apart, explain_not_finite, refuse_not_finite
from ekmfast.rows.nearest import nearest_centroids
from ekmfast.rows.statistics import CentredStatistics
from ekmfast.rows.survey import Moments, Survey, reference_of, reference_rows

Float64 = NDArray[np.float64]

# Numbers of a matrix of weights whose magnitudes are summed at a time.
SLICE = 1 << 17
EPS = {char: float(np.finfo(char).eps) for char in "fd"}


class ArrayRows:
    """Rows in memory, whose statistics the CPU computes.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64, rows contiguous
        Not copied.
    sample_weight : ndarray of shape (N,) and the dtype of X, or None
    n_threads : int
    weighting : {'equilibrium', 'maximum-entropy', 'fuzzy', 'hard'}
        How the weights w_kn of the sums are defined: see ``csrc/weighting.h``.
    fuzzifier : float > 1
        The exponent m of ``'fuzzy'``.
    """

    at_hand = True
    shares_passes = True
    iterated = True
    compiled = True
    space = "free"
    # Whether sums are computed in float32 although X is float64: see `rounded`.
    _rounds = False
    # Numbers (N,) by which the kernels multiply the rows, or None: see `rows.unit`.
    factor: NDArray[Any] | None = None

    def __init__(
        self,
        X: NDArray[Any],
        sample_weight: NDArray[Any] | None = None,
        n_threads: int = 1,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
    ) -> None:
        self.X = X
        self.sample_weight = sample_weight
        self.n_threads = n_threads
        self.weighting = weighting
        self.fuzzifier = fuzzifier
        self._reference: Float64 | None = None

    @property
    def n_rows(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.X.dtype

    @property
    def weighted(self) -> bool:
        return self.sample_weight is not None

    @property
    def feature_names(self) -> list[str] | None:
        """None, since scikit-learn reads the column names of arrays and frames itself."""
        return None

    def survey(self, *, checksum: bool = False) -> Survey:
        """One pass over X, and a second one if the reference is far from all rows with weight.

        The sums and distances that are computed later use the same reference.
        """
        found = self._moments(None)
        if not found.finite:
            refuse_not_finite([self.X])
        if found.cancelled:
            found = self._moments(found.mean)
        self._reference = found.reference
        return Survey(
            found.n_rows,
            found.weight,
            found.mean if found.weight > 0 else found.reference,
            found.dispersion(self, self.dtype),
            found.low,
            found.high,
            self,
            checksum=checksum_of(self.X, self.sample_weight) if checksum else 0,
        )

    def _moments(self, reference: Float64 | None) -> Moments:
        return Moments.of(self.X, self.sample_weight, reference, self.n_threads, self.factor)

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over X for centroids (S, K, D) and alpha (S,)."""
        sums = CentredStatistics(
            *_core.statistics(
                self.X,
                centroids,
                alpha,
                self.sample_weight,
                self._reference,
                self.n_threads,
                self.weighting,
                self.fuzzifier,
                factor=self.factor,
                rounded=self._rounds,
            )
        )
        self._reference = sums.reference
        return sums

    def iterate(self, solver: _core.Solver, max_passes: int) -> None:
        """Make at most so many passes over X, until all runs are done: see `Compiled`."""
        self._reference = solver.iterate(
            self.X,
            self.sample_weight,
            self._reference,
            max_passes,
            self.n_threads,
            self.weighting,
            self.fuzzifier,
            self.factor,
            self._rounds,
        )

    def rounded(self) -> Self:
        """The same rows in float64, whose sums are computed in float32, in .6 to .8 of the time.

        The kernels centre the rows before they round them, as they read them. Squared distances and
        weights must be in the range of float32.
        """
        other = copy(self)
        other._rounds = True
        return other

    def with_weighting(self, weighting: str) -> Self:
        other = copy(self)
        other.weighting = weighting
        return other

    def followed_by(self, others: ArrayRows) -> Self:
        """These rows and then others, without weights."""
        return self._of(np.concatenate([self.X, others.X]), None)

    def reweighted(self, sample_weight: NDArray[Any] | None) -> Self:
        """The same rows with other weights."""
        return self._of(self.X, sample_weight, self.factor)

    def nearest(self, centroids: Float64) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Labels (N,) and squared distances (N,) in the dtype of X: see `nearest_centroids`."""
        return nearest_centroids(self.X, centroids, self.n_threads, self.factor)

    def label(self, centroids: Float64, merged: NDArray[np.intp]) -> NDArray[np.int32]:
        labels, _ = self.nearest(centroids)
        return merged.astype(np.int32)[labels]

    def label_each(self, centroids: Float64, names: NDArray[np.int32]) -> NDArray[np.int32]:
        """For each of R results (R, K, D) the names (R, K) of the nearest centroids, (R, N)."""
        return _core.label_each(self.X, centroids, names, self.n_threads, self.factor)

    def weights(
        self, centroids: Float64, alpha: float, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The weights (N, K) of Eq. 38, written to ``out`` where it is given."""
        out = self._check_out(out, centroids)
        witness = _core.weights(self.X, centroids, alpha, out, self.n_threads, self.factor)
        if not math.isfinite(witness):
            explain_not_finite(self.parts(), self.dtype, centroids, alpha)
        if len(self.X):
            self._check_told_apart(centroids, alpha, out)
        return out

    def _check_out(self, out: Any, centroids: Float64) -> NDArray[Any]:
        """The array to write weights to: a new one, or ``out`` if it can hold them."""
        shape, dtype = (self.n_rows, len(centroids)), self.dtype
        if out is None:
            return np.empty(shape, dtype)
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out must be an ndarray, got {type(out).__name__}")
        fits = out.shape == shape and out.dtype == dtype and out.flags.carray
        if np.ma.isMaskedArray(out) or not fits:
            raise ValueError(
                f"out must be a writable, aligned and C-contiguous {dtype} array of shape {shape}, "
                f"without a mask, got {type(out).__name__} of {out.dtype} and shape {out.shape}"
            )
        for name, other in (("X", self._numbers), ("centroids", centroids)):
            if np.may_share_memory(other, out):
                raise ValueError(f"out must not share memory with {name}")
        return out

    @property
    def _numbers(self) -> NDArray[Any]:
        """The array that holds the numbers of X."""
        return self.X

    def _check_told_apart(self, centroids: Float64, alpha: float, weights: NDArray[Any]) -> None:
        """Call `check_told_apart`, with the distances of the first row for the mean distance.

        Most calls return early: then alpha times the distances is too small for rounding to matter.
        """
        with np.errstate(over="ignore"):
            away = centroids - self.part(0)
            about = float(np.einsum("kd,kd->k", away, away).max())
        if alpha * about * EPS[self.dtype.char] <= 0.01:
            return
        mass = np.zeros(len(centroids))  # summed in slices, to avoid a second (N, K) array
        step = max(1, SLICE // len(centroids))
        for first in range(0, len(self.X), step):
            mass += np.abs(weights[first : first + step]).sum(axis=0, dtype=np.float64)
        check_told_apart(self.dtype, centroids, mass, alpha, about, self._near())

    def _near(self) -> Float64:
        """The point that the kernels subtract from the rows."""
        return reference_of(self.part(reference_rows(self.n_rows)))

    def check_weights(
        self, weights: Any, check_array: Callable[[Any, str], NDArray[Any]]
    ) -> NDArray[Any]:
        """The weights (N, K), checked for `accumulate`."""
        w = check_array(weights, "weights")
        if w.dtype != self.dtype:
            raise TypeError(f"weights must have the dtype of X, {self.dtype}, got {w.dtype}")
        if len(w) != self.n_rows:
            raise ValueError(
                f"weights must have one row a sample: {len(w)} rows, X has {self.n_rows}"
            )
        if not w.flags.c_contiguous:
            raise ValueError("weights must be C-contiguous; use np.ascontiguousarray(weights)")
        return w

    def accumulate(self, weights: NDArray[Any]) -> tuple[Float64, Float64, Float64]:
        """sum_wx (K, D) about the reference, sum_w (K,) and the reference, for weights (N, K)."""
        return _core.accumulate(self.X, weights, self.n_threads)

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]], n_columns: int) -> NDArray[Any]:
        return function(self.X)

    def parts(self) -> Iterator[NDArray[Any]]:
        yield self.X

    def given_back(self, array: NDArray[Any]) -> NDArray[Any]:
        """A result as the same kind of array as X: a NumPy array already is."""
        return array

    # ------------------------------------------------------------------------------------------
    # Some of the rows

    def part(self, numbers: Any) -> NDArray[Any]:
        """The rows with these numbers, or of this slice, as the fit sees them."""
        part: NDArray[Any] = self.X[numbers]
        return part

    def likelihood_weight(self, numbers: Any) -> NDArray[Any] | None:
        """The weights with which these rows decide between results; None for ones."""
        return None if self.sample_weight is None else self.sample_weight[numbers]

    def take(self, numbers: NDArray[np.intp]) -> Float64:
        """The rows with these numbers, in float64."""
        return self.part(numbers).astype(np.float64)

    def subset(self, numbers: NDArray[np.intp]) -> Self:
        s, f = self.sample_weight, self.factor
        own = None if s is None else s[numbers], None if f is None else f[numbers]
        # Of an array, `take` needs a third of the time.
        array = isinstance(self.X, np.ndarray)
        X = self.X.take(numbers, axis=0) if array else self.X[numbers]
        return self._of(X, *own)

    def fetch(self, numbers: NDArray[np.intp]) -> Self:
        return self if len(numbers) == self.n_rows else self.subset(numbers)

    def on_host(self) -> Self:
        return self

    def stretches(self, numbers: NDArray[np.intp], length: int, *, rest: bool) -> Self:
        def cut(values: NDArray[Any]) -> NDArray[Any]:
            whole = len(values) // length
            some = values[: whole * length].reshape(whole, -1).take(numbers, axis=0)
            some = some.reshape(-1, values.shape[1])
            return np.concatenate([some, values[whole * length :]]) if rest else some

        own = [
            None if v is None else cut(v[:, None])[:, 0] for v in (self.sample_weight, self.factor)
        ]
        return self._of(cut(self.X), *own)

    def _of(
        self,
        X: NDArray[Any],
        sample_weight: NDArray[Any] | None,
        factor: NDArray[Any] | None = None,
    ) -> Self:
        return type(self)(X, sample_weight, self.n_threads, self.weighting, self.fuzzifier)

    def batches(self, batch_size: int, random_state: np.random.RandomState) -> ShuffledBatches:
        return ShuffledBatches(self, batch_size, random_state)

    # ------------------------------------------------------------------------------------------
    # Seeding

    def distances(self, n_seedings: int) -> NDArray[Any]:
        """Infinite squared distances (S, N), with which `closest` begins when no row is chosen."""
        return np.full((n_seedings, self.n_rows), np.inf, self.dtype)

    def closest(self, candidates: Float64, closest: NDArray[Any], update: bool = False) -> Float64:
        """One pass over X for S starts at once: see `RowsAtHand`."""
        return _core.closest(
            self.X,
            candidates,
            closest,
            self.sample_weight,
            self._reference,
            self.n_threads,
            update,
            self.factor,
        )

    def farthest(self, closest: NDArray[Any]) -> NDArray[np.intp]:
        """For each start the first of the rows that are farthest from its chosen rows."""
        if self.sample_weight is not None:
            closest = np.where(self.sample_weight > 0, closest, -1)
        rows: NDArray[np.intp] = closest.argmax(axis=1)
        return rows

    def farthest_rows(self, centroids: Float64, n_rows: int) -> NDArray[np.intp]:
        """Numbers of the rows farthest from all centroids (K, D): see `RowsAtHand`."""
        _, squared = self.nearest(centroids)
        return farthest_numbers(squared, self.sample_weight, n_rows)

    def choose(self, first: Float64, uniform: Float64) -> NDArray[np.intp]:
        """Numbers (S, K) of the rows that seeding chooses: see `Compiled`."""
        weight, reference = self.sample_weight, self._reference
        return _core.choose_rows(
            self.X, weight, first, uniform, reference, self.n_threads, self.factor
        )

    def draw(self, closest: NDArray[Any] | None, uniform: Float64) -> NDArray[np.intp]:
        """Random rows: see `RowsAtHand`."""
        if closest is None:
            closest, uniform = np.ones((1, self.n_rows), self.dtype), uniform[None]
        s = self.sample_weight
        mass = None if s is None else s.astype(np.float64, copy=False)
        return _core.draw_rows(closest, mass, uniform, self.n_threads)


def farthest_numbers(
    squared: NDArray[Any], sample_weight: NDArray[Any] | None, n_rows: int
) -> NDArray[np.intp]:
    """Ascending numbers of the rows with the largest squared distances, if they have weight."""
    weighted = np.arange(len(squared)) if sample_weight is None else np.flatnonzero(sample_weight)
    n_rows = min(n_rows, len(weighted))
    last = np.argpartition(squared[weighted], len(weighted) - n_rows)[len(weighted) - n_rows :]
    return np.sort(weighted[last])


def checksum_of(X: NDArray[Any], sample_weight: NDArray[Any] | None, start: int = 0) -> int:
    """CRC-32 of rows and weights; ``start`` is the CRC-32 of the rows before them."""
    crc = zlib.crc32(np.ascontiguousarray(X).data, start)
    return crc if sample_weight is None else zlib.crc32(sample_weight.data, crc)
