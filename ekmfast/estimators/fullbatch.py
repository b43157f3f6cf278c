"""FullBatchEstimator: what EKMeans and its neighbours share, fits that read all rows each pass."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._parameters import COUNT, PATH, check_seed
from ekmfast.estimators.base import WEIGHT_OF_BLOCKS, CentroidEstimator
from ekmfast.fit.alpha import SAMPLE_ROWS
from ekmfast.fit.block_problem import BlockProblem
from ekmfast.fit.problem import Problem
from ekmfast.fit.progress import CallbackSupportMixin, Progress, with_callbacks
from ekmfast.fit.seeding import resolve_n_init
from ekmfast.fit.solver import Run
from ekmfast.rows.blocks import Blocks, as_blocks
from ekmfast.rows.device import DEVICE, choose, is_cuda_array
from ekmfast.rows.source import LocalSource, Source
from ekmfast.rows.threads import check_n_threads

Float64 = NDArray[np.float64]


class FullBatchEstimator(CallbackSupportMixin, CentroidEstimator):
    """Restarts that share passes over the data, of which the lowest objective is kept."""

    _constraints = CentroidEstimator._constraints | {"device": DEVICE}

    n_clusters: int
    init: str | ArrayLike | Callable[..., Any]
    n_init: int | str
    max_iter: int
    tol: float
    random_state: int | np.random.RandomState | None
    device: str
    n_threads: int | None
    verbose: int

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
        X : array-like of shape (N, D), or Blocks
            float32 and float64 are kept (C-contiguous ones are not copied); others become float64.
            :class:`ekmfast.blocks.Blocks` are read anew for each pass and need not fit into memory;
            so is a memory map of 1 GiB or more. Then ``labels_`` is not kept: ``predict`` and
            ``fit_predict`` return labels, with one more pass.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice. Blocks bring their own.
        checkpoint : path, default=None
            With blocks: a file that the iteration is kept in. Where it is there already, as after
            a crash, the fit goes on from it, to the same result. A damaged file, or that of another
            fit, is refused; ``max_iter`` alone may be raised.
        checkpoint_every : int, default=10
            Passes from one writing of the file to the next.

        Returns
        -------
        self : estimator
        """
        self._check_parameters()
        if checkpoint is not None and self.random_state is None:
            raise ValueError(
                "checkpoint needs a random_state other than None: a fit that goes on from the file "
                "must begin with the same centroids"
            )
        source = self._source_of(X, sample_weight)
        if source is not None:
            checkpoint_every = COUNT.check("checkpoint_every", checkpoint_every)
            path = None if checkpoint is None else PATH.check("checkpoint", checkpoint)
            if path is not None and not path.parent.is_dir():
                raise FileNotFoundError(
                    f"checkpoint={str(path)!r}: the folder {path.parent} does not exist"
                )
            self._fit_source(source, path, checkpoint_every)
        elif checkpoint is not None:
            raise ValueError("checkpoint is for X in blocks: see ekmfast.blocks")
        else:
            self._fit_array(X, sample_weight)
        self._warn_of_the_fit(4)  # past the decorator's frame
        return self

    def fit_predict(self, X: Any, y: Any = None, **kwargs: Any) -> NDArray[np.int32]:
        """Find the centroids; return the label of each row.

        Parameters
        ----------
        X : array-like of shape (N, D), or Blocks
        y : ignored
        **kwargs
            As ``fit`` takes them.

        Returns
        -------
        labels : ndarray of shape (N,), int32
        """
        self.fit(X, **kwargs)
        return self.labels_ if hasattr(self, "labels_") else self.predict(X)

    def _source_of(self, X: Any, sample_weight: Any) -> Source | None:
        """X where it comes in blocks, None where it is an array."""
        if is_cuda_array(X):
            return None
        on_disk = isinstance(X, np.memmap) and self.device != "cpu"
        if on_disk and choose(self.device, X, self._work(X))[0] == "cuda":
            return None  # the card reads it in segments
        if isinstance(X, Blocks) and sample_weight is not None:
            raise ValueError(WEIGHT_OF_BLOCKS)
        blocks = as_blocks(X, sample_weight)
        if blocks is None:
            return None
        if self.device == "cuda":
            raise ValueError(
                f"device='cuda' takes arrays, not {type(X).__name__}; use device='cpu' for blocks"
            )
        return LocalSource(blocks, check_n_threads(self.n_threads))

    def _work(self, X: Any) -> float:
        """Multiply-adds of a pass over an array."""
        n_init = resolve_n_init(self.n_init, self.init)
        return 2.0 * np.size(X) * self.n_clusters * n_init

    def _fit_array(self, X: Any, sample_weight: ArrayLike | None) -> None:
        if is_cuda_array(X):
            device, _ = choose(self.device, X)
            X, weight, dtype = self._check_card(X, sample_weight)
        else:
            X = self._check_data(X, reset=True)
            weight, dtype = self._check_weight(sample_weight, X), X.dtype
            device, _ = choose(self.device, X, self._work(X))
        if X.shape[0] < self.n_clusters:
            raise ValueError(f"n_samples={X.shape[0]} should be >= n_clusters={self.n_clusters}")
        progress = Progress(self, X, self.verbose)
        problem = Problem(
            X,
            weight,
            check_n_threads(self.n_threads),
            tol=self.tol,
            max_iter=self.max_iter,
            weighting=self._weighting,
            fuzzifier=self._weighting_fuzzifier,
            report=progress,
            device=device,
        )
        progress.dtype = dtype
        run = self._find(problem, check_seed(self.random_state))
        self._keep(run, dtype, self._alpha_of(run))
        if device == "cuda" and isinstance(X, np.ndarray):
            self.labels_ = self._label_by(problem.backend, X)
        else:
            self._label(X)
        progress.end()

    def _label_by(self, backend: Any, X: NDArray[Any]) -> NDArray[np.int32]:
        labels, distances = np.empty(len(X), np.int32), np.empty(len(X), X.dtype)
        backend.assign(self.cluster_centers_.astype(np.float64), labels, distances)
        return self._merged_[labels].astype(np.int32)

    def _fit_source(
        self,
        source: Source,
        checkpoint: Path | None,
        checkpoint_every: int,
    ) -> None:
        progress = Progress(self, source, self.verbose)
        problem = BlockProblem(
            source,
            check_n_threads(self.n_threads),
            tol=self.tol,
            max_iter=self.max_iter,
            n_sample=SAMPLE_ROWS,
            weighting=self._weighting,
            fuzzifier=self._weighting_fuzzifier,
            report=progress,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
        )
        if problem.n_rows < self.n_clusters:
            raise ValueError(
                f"n_samples={problem.n_rows} should be >= n_clusters={self.n_clusters}"
            )
        self.n_features_in_ = problem.kind.n_features
        # What an earlier fit to something else has left.
        for name in ("feature_names_in_", "labels_"):
            self.__dict__.pop(name, None)
        if source.feature_names is not None:
            self.feature_names_in_ = np.array(source.feature_names, object)
        progress.dtype = problem.kind.dtype
        run = self._find(problem, check_seed(self.random_state))
        self._keep(run, problem.kind.dtype, self._alpha_of(run))
        progress.end()

    def _alpha_of(self, run: Run) -> float:
        return run.alpha if self._uses_alpha else np.inf

    def _starts(
        self, problem: Problem | BlockProblem, random_state: np.random.RandomState
    ) -> Float64:
        n_init = resolve_n_init(self.n_init, self.init)
        return problem.starts(self.n_clusters, self.init, n_init, random_state)

    def _find(self, problem: Problem | BlockProblem, random_state: np.random.RandomState) -> Run:
        """Return the best run."""
        runs = problem.solve(self._starts(problem, random_state), self._alpha(problem))
        return min(runs, key=lambda run: run.objective)

    def _alpha(self, problem: Problem | BlockProblem) -> float:
        raise NotImplementedError
