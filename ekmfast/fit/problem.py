"""One data set to be fitted: its backend, its units, and the tolerances that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast.fit.seeding import initial_centroids
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, WINDOW, Run, solve
from ekmfast.fit.spread import check_spread
from ekmfast.rows.array import CpuBackend

Float64 = NDArray[np.float64]


def bounds_of(X: NDArray[Any]) -> tuple[Float64, Float64]:
    """Where centroids may be: the box of the rows and its width again on every side.

    Equilibrium centroids do lie outside the data now and then, pushed there by other clusters.
    """
    low, high = X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
    width = high - low
    return low - width, high + width


class Problem:
    """Rows, their weights, and how a fit iterates over them."""

    def __init__(
        self,
        X: Any,  # an array, on the host or on a card
        sample_weight: NDArray[Any] | None,
        n_threads: int,
        *,
        tol: float,
        max_iter: int,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
        report: Callable[[list[Run]], bool] | None = None,
        device: str = "cpu",
    ) -> None:
        self.X = X
        self.sample_weight = sample_weight
        self.n_threads = n_threads
        self.tol = tol
        self.max_iter = max_iter
        self.report = report
        self.device, self.weighting, self.fuzzifier = device, weighting, fuzzifier
        self.backend: Any
        if device == "cuda":
            from ekmfast.rows.cuda.arrays import backend_of

            self.backend = backend_of(X, sample_weight, weighting, fuzzifier)
            self.dtype = np.dtype(self.backend.rows.dtype)
        else:
            self.backend = CpuBackend(X, sample_weight, n_threads, weighting, fuzzifier)
            self.dtype = X.dtype
        # The weighted mean of 1/2 ||x - mean||^2.
        self.dispersion = self.backend.dispersion()
        low, high = self.backend.box()
        if not isinstance(X, np.ndarray) and not np.isfinite([low, high]).all():
            from ekmfast.rows.cuda.arrays import explain_not_finite

            explain_not_finite(X)  # nobody has looked at what is in there
        weighted = sample_weight is not None
        check_spread(self.dispersion, low, high, self.dtype, weighted=weighted)
        self.bounds = low - (high - low), high + (high - low)
        # Lloyd's iteration and its kin are monotone and stop by themselves: nothing to speed up.
        self.window = 0 if weighting == "hard" else WINDOW

    def sample(self, n_rows: int, random_state: np.random.RandomState) -> tuple[Problem, bool]:
        """A problem of ``n_rows`` of the rows at most, and whether they are all there are."""
        if self.X.shape[0] <= n_rows and isinstance(self.X, np.ndarray):
            return self, True
        if self.X.shape[0] <= n_rows:  # labels and likelihoods are found on the host
            return self._of(self.backend.take(np.arange(self.X.shape[0])), self.sample_weight), True
        weight = self.sample_weight
        rows = np.arange(self.X.shape[0]) if weight is None else np.flatnonzero(weight)
        rows = np.sort(random_state.permutation(rows)[:n_rows])
        weight = None if weight is None else weight[rows]
        return self._of(self.backend.take(rows), weight), False

    def _of(self, X: Float64, sample_weight: NDArray[Any] | None) -> Problem:
        """A problem of some rows, like this one in all else."""
        return Problem(
            X.astype(self.dtype),
            sample_weight,
            self.n_threads,
            tol=self.tol,
            max_iter=self.max_iter,
            weighting=self.weighting,
            fuzzifier=self.fuzzifier,
            report=self.report,
            device=self.device,
        )

    def starts(
        self,
        n_clusters: int,
        init: Any,
        n_init: int,
        random_state: np.random.RandomState,
    ) -> Float64:
        """First centroids (S, K, D) of every run."""
        return initial_centroids(
            self.X,
            n_clusters,
            init,
            n_init,
            self.sample_weight,
            random_state,
            backend=self.backend,
            itemsize=self.dtype.itemsize,
        )

    def solve(self, starts: Float64, alpha: ArrayLike) -> list[Run]:
        """Run every start (S, K, D) to its end; alpha is a number or (S,)."""
        return solve(
            self.backend,
            starts,
            alpha,
            tol=self.tol,
            radius=float(np.sqrt(2 * self.dispersion)),
            resolution=OBJECTIVE_RESOLUTION[self.dtype.itemsize],
            max_iter=self.max_iter,
            compete=True,
            bounds=self.bounds,
            report=self.report,
            window=self.window,
        )
