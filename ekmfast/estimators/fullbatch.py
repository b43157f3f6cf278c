"""FullBatchEstimator: what EKMeans and its neighbours share, fits that read all rows each pass."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._parameters import check_seed
from ekmfast.estimators.base import CentroidEstimator
from ekmfast.fit.problem import Problem
from ekmfast.fit.progress import with_callbacks
from ekmfast.fit.solver import Run
from ekmfast.rows.blocks import Blocks

Float64 = NDArray[np.float64]


class FullBatchEstimator(CentroidEstimator):
    """Restarts that share passes over the data, of which the lowest objective is kept."""

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: ArrayLike | Blocks,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 10,
    ) -> Self:
        """Find the centroids.

        Parameters
        ----------
        X : array-like of shape (N, D), array on a card, Blocks or dask collection
            float32 and float64 are kept (C-contiguous ones are not copied); others become float64.
            :class:`ekmfast.blocks.Blocks` are read anew for each pass and need not fit into memory;
            so are dask collections, and a memory map of 1 GiB or more. Then ``labels_`` is not
            kept: ``predict`` and ``fit_predict`` return labels, with one more pass.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice. Blocks bring their own.
        checkpoint : path, default=None
            A file that the iteration over all rows is kept in. Where it is there already, as after
            a crash, the fit goes on from it, to the same result. A damaged file, or that of another
            fit, is refused; ``max_iter`` alone may be raised.
        checkpoint_every : int, default=10
            Passes from one writing of the file to the next.

        Returns
        -------
        self : estimator
        """
        self._check_parameters()
        problem, progress = self._problem(X, sample_weight, checkpoint, checkpoint_every)
        run = self._find(problem, check_seed(self.random_state))
        self._end(problem, progress, run, run.alpha if self._uses_alpha else np.inf)
        return self

    def _find(self, problem: Problem, random_state: np.random.RandomState) -> Run:
        """Return the best run."""
        runs = problem.solve(self._starts(problem, random_state), self._alpha(problem))
        return runs.best

    def _alpha(self, problem: Problem) -> float:
        raise NotImplementedError
