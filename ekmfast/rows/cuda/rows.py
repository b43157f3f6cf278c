"""Rows whose sums a GPU computes; results are the same kind of array as X."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.array import ArrayRows, checksum_of, farthest_numbers
from ekmfast.rows.batches import ShuffledBatches
from ekmfast.rows.cuda.arrays import alike, as_device
from ekmfast.rows.cuda.layer import empty, free_memory, host, upload, view
from ekmfast.rows.cuda.memory import Held, ResidentRows, StreamedRows
from ekmfast.rows.cuda.passes import CudaPasses
from ekmfast.rows.cuda.passes.survey import box
from ekmfast.rows.device import is_cuda_array
from ekmfast.rows.limits import (
    check_nearest,
    explain_not_finite,
    refuse_not_finite,
    smallest_mean,
)
from ekmfast.rows.statistics import CentredStatistics
from ekmfast.rows.survey import CANCELLED, Survey, dispersion_by_passes

Float64 = NDArray[np.float64]

# How many rows are copied to the host at a time.
PART_ROWS = 1 << 20


def held_by_card(X: Any, sample_weight: NDArray[Any] | None) -> Held:
    """Rows for the GPU: X where it lies, copied to the GPU once, or copied again in each pass."""
    s = None
    if is_cuda_array(X):
        return ResidentRows(as_device(X), s if sample_weight is None else upload(sample_weight))
    # Half of the free memory is left for distances and for the arrays of chunks.
    if X.nbytes <= free_memory() // 2:
        return ResidentRows(upload(X), s if sample_weight is None else upload(sample_weight))
    return StreamedRows(X, sample_weight)


def _on_host(array: Any) -> NDArray[Any]:
    """A result of the kind of X, as an array on the host."""
    return array if isinstance(array, np.ndarray) else host(view(array))


class CudaRows:
    """Rows whose statistics a GPU computes.

    Parameters
    ----------
    X : array of shape (N, D) on a GPU or ndarray, float32 or float64
    sample_weight : ndarray of shape (N,) and the dtype of X, or None
    n_threads : int
        Number of threads for computations on the host.
    weighting, fuzzifier
        See `ArrayRows`.
    held : Held, default=None
        The rows as the GPU reads them; None for `held_by_card`.
    """

    at_hand = True
    shares_passes = True
    space = "free"

    def __init__(
        self,
        X: Any,
        sample_weight: NDArray[Any] | None = None,
        n_threads: int = 1,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
        held: Held | None = None,
    ) -> None:
        self.X = X
        self.sample_weight = sample_weight
        self.n_threads = n_threads
        self.passes = CudaPasses(held or held_by_card(X, sample_weight), weighting, fuzzifier)

    @property
    def n_rows(self) -> int:
        return int(self.passes.held.n)

    @property
    def n_features(self) -> int:
        return int(self.passes.held.d)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.passes.held.dtype)
        return dtype

    @property
    def weighting(self) -> str:
        return self.passes.weighting

    @property
    def fuzzifier(self) -> float:
        return self.passes.fuzzifier

    @property
    def weighted(self) -> bool:
        return self.sample_weight is not None

    @property
    def feature_names(self) -> list[str] | None:
        return None

    def survey(self, *, checksum: bool = False) -> Survey:
        """Three passes, for the mean, the dispersion and the bounding box.

        There are five if the reference is far from all rows with weight, as in `ArrayRows.survey`.
        """
        reference = self.passes.reference.astype(np.float64)
        mean, dispersion = dispersion_by_passes(self, reference)
        if dispersion < CANCELLED * float(np.square(mean - reference).sum()):
            self.passes.reference = mean.astype(self.dtype)
            mean, dispersion = dispersion_by_passes(self, mean)
        low, high = box(self.passes.held)
        if not (np.isfinite([low, high]).all() and np.isfinite(dispersion)):
            refuse_not_finite(self.parts())
        found = 0
        if checksum:
            for part in self.parts():
                found = checksum_of(part, None, found)
            found = checksum_of(np.empty(0), self.sample_weight, found)
        total = self.passes.total_weight
        return Survey(self.n_rows, total, mean, dispersion, low, high, self, checksum=found)

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over the rows for centroids (S, K, D) and alpha (S,)."""
        return self.passes.statistics(centroids, alpha)

    def with_weighting(self, weighting: str) -> CudaRows:
        other = copy(self)
        other.passes = self.passes.with_weighting(weighting)
        return other

    def nearest(self, centroids: Float64) -> tuple[Any, Any]:
        """Labels (N,) and squared distances (N,), as the same kind of array as X.

        If several centroids are equally near, the label is the first of them.
        """
        # The kernel stores labels as numbers of the dtype of X while it searches.
        most = 1 << (np.finfo(self.dtype).nmant + 1)
        if len(centroids) > most:
            raise ValueError(
                f"centroids must be at most {most} for {self.dtype} on a GPU, got {len(centroids)}"
            )
        make = np.empty if isinstance(self.X, np.ndarray) else empty
        labels, distances = make(self.n_rows, np.int32), make(self.n_rows, self.dtype)
        total = self.passes.assign(centroids, labels, distances)
        if not np.isfinite(total):
            explain_not_finite(self.parts(), self.dtype, centroids)
        if self.n_rows and not total > self.n_rows * smallest_mean(self.dtype):
            check_nearest(self.parts(), self.dtype, centroids)
        return alike(labels, self.X), alike(distances, self.X)

    def label(self, centroids: Float64, merged: NDArray[np.intp]) -> Any:
        labels, _ = self.nearest(centroids)
        if np.array_equal(merged, np.arange(len(merged))):
            return labels
        return self.given_back(merged.astype(np.int32)[_on_host(labels)])

    def weights(self, centroids: Float64, alpha: float, out: Any = None) -> Any:
        """The weights (N, K) of Eq. 38, written to ``out`` where it is given."""
        shape = (self.n_rows, len(centroids))
        if out is None:
            found = empty(shape, self.dtype)
            out = alike(found, self.X)
        else:
            if not is_cuda_array(out):
                raise TypeError(f"out must lie on the GPU as X does, got {type(out).__name__}")
            found = as_device(out, "out")
            if found.shape != shape or found.dtype != self.dtype or not found.is_c_contiguous():
                raise ValueError(
                    f"out must be a C-contiguous {self.dtype} array of shape {shape}, "
                    f"got {found.dtype} of shape {tuple(found.shape)}"
                )
        if not np.isfinite(self.passes.weights(centroids, alpha, found)):
            explain_not_finite(self.parts(), self.dtype, centroids, alpha)
        return out

    def check_weights(self, weights: Any, check_array: Callable[[Any, str], NDArray[Any]]) -> Any:
        """The weights (N, K) on the GPU, checked for `accumulate`."""
        if not is_cuda_array(weights):
            raise TypeError(f"weights must lie on the GPU as X does, got {type(weights).__name__}")
        w = as_device(weights, "weights")
        if w.dtype != self.dtype:
            raise TypeError(f"weights must have the dtype of X, {self.dtype}, got {w.dtype}")
        if w.shape[0] != self.n_rows:
            raise ValueError(
                f"weights must have one row a sample: {w.shape[0]} rows, X has {self.n_rows}"
            )
        return w

    def accumulate(self, weights: Any) -> tuple[Float64, Float64, Float64]:
        """sum_wx (K, D) about the reference, sum_w (K,) and the reference, for weights (N, K)."""
        sum_wx, sum_w = self.passes.accumulate(weights)
        return sum_wx, sum_w, self.passes.reference.astype(np.float64)

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]], n_columns: int) -> Any:
        """See `Rows.map`; the function is computed on the host, for some rows at a time."""
        parts = [function(part) for part in self.parts()]
        whole = np.concatenate([np.empty((0, n_columns), self.dtype), *parts])
        return self.given_back(whole)

    def parts(self) -> Iterator[NDArray[Any]]:
        if isinstance(self.X, np.ndarray):
            yield self.X
            return
        array = as_device(self.X)
        for first in range(0, array.shape[0], PART_ROWS):
            yield array[first : first + PART_ROWS].copy_to_host()

    def given_back(self, array: NDArray[Any]) -> Any:
        """A result as the same kind of array as X: in the same memory, of the same library."""
        return array if isinstance(self.X, np.ndarray) else alike(upload(array), self.X)

    # ------------------------------------------------------------------------------------------
    # Some of the rows

    def take(self, numbers: NDArray[np.intp]) -> Float64:
        """The rows with these numbers, in float64, on the host."""
        return self.passes.held.take(numbers)

    def fetch(self, numbers: NDArray[np.intp]) -> ArrayRows:
        s = self.sample_weight
        if isinstance(self.X, np.ndarray):
            some = self.X if len(numbers) == self.n_rows else self.X[numbers]
        else:
            some = self.take(numbers).astype(self.dtype)
        return ArrayRows(
            some,
            None if s is None else s[numbers],
            self.n_threads,
            self.weighting,
            self.fuzzifier,
        )

    def on_host(self) -> ArrayRows:
        return self.fetch(np.arange(self.n_rows))

    def subset(self, numbers: NDArray[np.intp]) -> CudaRows:
        held, s = self.passes.held.subset(numbers), self.sample_weight
        return CudaRows(
            held.X,
            None if s is None else s[numbers],
            self.n_threads,
            self.weighting,
            self.fuzzifier,
            held,
        )

    def stretches(self, numbers: NDArray[np.intp], length: int, *, rest: bool) -> CudaRows:
        some = (numbers[:, None] * length + np.arange(length)).ravel()
        left_over = np.arange(self.n_rows // length * length, self.n_rows) if rest else some[:0]
        return self.subset(np.concatenate([some, left_over]))

    def batches(self, batch_size: int, random_state: np.random.RandomState) -> ShuffledBatches:
        return ShuffledBatches(self, batch_size, random_state)

    # ------------------------------------------------------------------------------------------
    # Seeding

    def distances(self, n_seedings: int) -> Any:
        """Infinite squared distances (S, N), with which `closest` begins when no row is chosen."""
        return self.passes.distances(n_seedings)

    def closest(self, candidates: Float64, closest: Any, update: bool = False) -> Float64:
        """See `RowsAtHand.closest`; the distances stay on the GPU."""
        return self.passes.closest(candidates, closest, update)

    def farthest(self, closest: Any) -> NDArray[np.intp]:
        """For each start the first of the rows that are farthest from its chosen rows."""
        return self.passes.farthest(closest)

    def farthest_rows(self, centroids: Float64, n_rows: int) -> NDArray[np.intp]:
        """Numbers of the rows farthest from all centroids (K, D): see `RowsAtHand`."""
        _, squared = self.nearest(centroids)
        return farthest_numbers(_on_host(squared), self.sample_weight, n_rows)

    def draw(self, closest: Any, uniform: Float64) -> NDArray[np.intp]:
        """Random rows: see `RowsAtHand.draw`."""
        return self.passes.draw(closest, uniform)
