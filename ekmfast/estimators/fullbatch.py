"""FullBatchEstimator, the base class of estimators whose every step is a pass over all rows."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._parameters import MISSING, check_seed
from ekmfast.estimators.base import CentroidEstimator
from ekmfast.fit.coarse import coarse_starts, is_worth_a_sample
from ekmfast.fit.likeliest import search_rows
from ekmfast.fit.problem import Problem
from ekmfast.fit.progress import with_callbacks
from ekmfast.fit.seeding import resolve_n_init
from ekmfast.fit.solver import Run
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.threads import one_blas_thread

Float64 = NDArray[np.float64]


class FullBatchEstimator(CentroidEstimator):
    """Restarts in shared passes over the data; ``fit`` keeps the one with the lowest objective."""

    _constraints = CentroidEstimator._constraints | {"missing": MISSING}

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
        X : array-like or sparse matrix of shape (N, D), array on a GPU, Blocks or Dask collection
            float32 and float64 are kept (C-contiguous arrays are not copied); other dtypes become
            float64. :class:`ekmfast.blocks.Blocks`, Dask collections and memory maps of 1 GiB or
            more are read again in each pass and need not fit into memory. For these ``labels_`` is
            not set: ``predict`` and ``fit_predict`` return labels after one more pass.
            Sparse matrices of SciPy are converted to CSR, if they are not, and never become dense.
            Their sums are computed in float64 on the CPU, relative to the origin: if the rows have
            an offset of F times their width, squared distances err by about ``1e-16 F^2`` of it.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice. Must be None for Blocks, which contain weights.
        checkpoint : path, default=None
            A file in which the state of the iteration is saved. If it exists, as after a crash, the
            fit continues from it and ends with the same result. A damaged file, or that of a fit
            with other rows or parameters, raises an error; only ``max_iter`` may be raised, and
            with ``alpha='auto'`` only if it was large enough for the search.
        checkpoint_every : int, default=10
            The file is written every so many passes.

        Returns
        -------
        self : estimator
        """
        self._check_parameters()
        problem, progress = self._problem(X, sample_weight, checkpoint, checkpoint_every)
        with one_blas_thread(problem.rows.n_features):
            run = self._find(problem, check_seed(self.random_state))
        self._end(problem, progress, run, run.alpha if self._uses_alpha else np.inf)
        return self

    def _find(self, problem: Problem, random_state: np.random.RandomState) -> Run:
        """The run with the lowest objective."""
        alpha, n_init = self._alpha(problem), resolve_n_init(self.n_init, self.init)
        n_rows = search_rows(problem.n_clusters)
        if isinstance(self.init, str) and is_worth_a_sample(problem, n_rows, n_init):
            starts = coarse_starts(problem, n_rows, self.init, n_init, alpha, random_state)
        else:
            starts = self._starts(problem, random_state)
        return problem.best(starts, np.array([alpha]))[0]

    def _alpha(self, problem: Problem) -> float:
        raise NotImplementedError
