"""FullBatchEstimator: what EKMeans and its neighbours share, fits that read all rows each pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from ._base import CentroidEstimator, check_integer, check_number
from ._callbacks import CallbackSupportMixin, Progress, with_callbacks
from ._init import check_init, initial_centroids, resolve_n_init
from ._problem import Problem
from ._solver import Run
from ._threads import check_n_threads

Float64 = NDArray[np.float64]


class FullBatchEstimator(CallbackSupportMixin, CentroidEstimator):
    """Restarts that share passes over the data, of which the lowest objective is kept."""

    n_clusters: int
    init: str | ArrayLike | Callable[..., Any]
    n_init: int | str
    max_iter: int
    tol: float
    random_state: int | np.random.RandomState | None
    device: str
    n_threads: int | None
    verbose: int

    def _check_parameters(self) -> None:
        check_integer("n_clusters", self.n_clusters, 1)
        check_init(self.init)
        if self.n_init != "auto":
            check_integer("n_init", self.n_init, 1)
        check_integer("max_iter", self.max_iter, 1)
        check_number("tol", self.tol, positive=False)
        if self.device != "cpu":
            raise ValueError(f"device must be 'cpu', got {self.device!r}")

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Find the centroids.

        Parameters
        ----------
        X : array-like of shape (N, D)
            float32 and float64 are kept (C-contiguous ones are not copied); others become float64.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice.

        Returns
        -------
        self : estimator
        """
        self._check_parameters()
        X = self._check_data(X, reset=True)
        weight = self._check_weight(sample_weight, X)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}")
        progress = Progress(self, X, self.verbose)
        run = self._find(self._problem(X, weight, progress), check_random_state(self.random_state))
        # Warnings point past the decorator's frame, at the caller of fit.
        self._keep(run, X, run.alpha if self._uses_alpha else np.inf, stacklevel=4)
        progress.end()
        return self

    def _problem(
        self,
        X: NDArray[Any],
        weight: NDArray[Any] | None,
        report: Callable[[list[Run]], bool] | None,
    ) -> Problem:
        return Problem(
            X,
            weight,
            check_n_threads(self.n_threads),
            tol=self.tol,
            max_iter=self.max_iter,
            weighting=self._weighting,
            fuzzifier=self._weighting_fuzzifier,
            report=report,
        )

    def _starts(self, problem: Problem, random_state: np.random.RandomState) -> Float64:
        return initial_centroids(
            problem.X,
            self.n_clusters,
            self.init,  # type: ignore[arg-type]
            resolve_n_init(self.n_init, self.init),
            problem.sample_weight,
            random_state,
            problem.n_threads,
        )

    def _find(self, problem: Problem, random_state: np.random.RandomState) -> Run:
        """Return the best run."""
        runs = problem.solve(self._starts(problem, random_state), self._alpha(problem))
        return min(runs, key=lambda run: run.objective)

    def _alpha(self, problem: Problem) -> float:
        raise NotImplementedError
