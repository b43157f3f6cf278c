"""A data set in blocks to be fitted: the counterpart of `fit.problem.Problem`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast.fit.checkpoint import Checkpoint, check_writable
from ekmfast.fit.problem import Problem
from ekmfast.fit.seeding import initial_centroids
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, WINDOW, Run, solve
from ekmfast.fit.spread import check_spread
from ekmfast.rows.blockwise import BlockwiseBackend, Pass
from ekmfast.rows.source import Source
from ekmfast.rows.survey import Lottery, begin, far_rows, survey

Float64 = NDArray[np.float64]

# Passes that look for rows far from the seeds so far, and the rows that each keeps per cluster.
FAR_PASSES = 2
FAR_ROWS = 16
# The sample is held in memory, so wide rows are fewer.
SAMPLE_BYTES = 128 << 20


class BlockProblem:
    """Rows in blocks, and how a fit iterates over them.

    One pass surveys the rows. Of ``n_sample`` rows or fewer the survey's sample is all of them, and
    seeds are drawn as they are from an array. Of more, they are drawn from the sample and from rows
    that passes over all blocks find far from what the sample offers: clusters too small for it.
    """

    def __init__(
        self,
        source: Source,
        n_threads: int,
        *,
        tol: float,
        max_iter: int,
        n_sample: int,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
        report: Callable[[list[Run]], bool] | None = None,
        checkpoint: Path | None = None,
        checkpoint_every: int = 10,
    ) -> None:
        self.source = source
        self.tol = tol
        self.max_iter = max_iter
        self.report = report
        self.n_threads = n_threads  # of what is computed here, from the sample
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        if checkpoint is not None:
            check_writable(checkpoint)
        self.kind, reference = source.first(begin)
        row_bytes = self.kind.n_features * self.kind.dtype.itemsize
        n_sample = min(n_sample, max(1, SAMPLE_BYTES // row_bytes))
        self.settings = Pass(reference, weighting, fuzzifier, source.n_threads)
        found = source.sum(
            partial(
                survey,
                kind=self.kind,
                settings=self.settings,
                n_sample=n_sample,
                n_rows=source.n_rows,
                checksum=checkpoint is not None,
            )
        )
        self.n_rows, self.total_weight = found.n_rows, found.total_weight
        self._checksum = found.checksum
        if self.total_weight <= 0:  # NaN where squares overflow, as the dispersion then is
            raise ValueError(f"sample_weight must have a positive sum, got {self.total_weight}")
        self.dispersion = found.dispersion
        weighted, dtype = self.kind.weighted, self.kind.dtype
        check_spread(self.dispersion, found.low, found.high, dtype, weighted=weighted)
        low, high = found.low.astype(np.float64), found.high.astype(np.float64)
        self.bounds = low - (high - low), high + (high - low)
        self.window = 0 if weighting == "hard" else WINDOW
        order = np.lexsort(found.sample.place.T[::-1])
        self._X = found.sample.X[order]
        s = found.sample.sample_weight
        self._sample_weight = None if s is None else s[order]
        self.backend = BlockwiseBackend(source, self.settings, self.total_weight, self.kind.dtype)

    def sample(self, n_rows: int, random_state: np.random.RandomState) -> tuple[Problem, bool]:
        """A problem in memory of ``n_rows`` rows at most, and whether they are all there are."""
        problem = Problem(
            self._X,
            self._sample_weight,
            self.n_threads,
            tol=self.tol,
            max_iter=self.max_iter,
            weighting=self.settings.weighting,
            fuzzifier=self.settings.fuzzifier,
            report=self.report,
        )
        return problem, len(self._X) == self.n_rows

    def starts(
        self,
        n_clusters: int,
        init: Any,
        n_init: int,
        random_state: np.random.RandomState,
    ) -> Float64:
        """First centroids (S, K, D) of every run."""
        X, weight = self._X, self._sample_weight
        draw = partial(
            initial_centroids,
            n_clusters=n_clusters,
            init=init,
            n_init=n_init,
            random_state=random_state,
            n_threads=self.n_threads,
        )
        if len(X) == self.n_rows or not isinstance(init, str) or init == "random":
            return draw(X, sample_weight=weight)
        mass = np.ones(len(X)) if weight is None else weight.astype(np.float64)
        mass *= self.total_weight / mass.sum()
        for _ in range(FAR_PASSES):
            seeds = draw(X, sample_weight=mass.astype(X.dtype))
            far: Lottery = self.source.sum(
                partial(
                    far_rows,
                    centroids=np.unique(seeds.reshape(-1, X.shape[1]), axis=0),
                    seed=int(random_state.randint(2**31 - 1)),
                    limit=FAR_ROWS * int(n_clusters),
                    n_threads=self.source.n_threads,
                )
            )
            own = np.ones(len(far.X)) if far.sample_weight is None else far.sample_weight
            X, mass = np.concatenate([X, far.X]), np.concatenate([mass, own])
        return draw(X, sample_weight=mass.astype(X.dtype))

    def solve(self, starts: Float64, alpha: ArrayLike) -> list[Run]:
        """Run every start (S, K, D) to its end; alpha is a number or (S,)."""
        runs, report = None, self.report
        if self.checkpoint is not None:
            checkpoint = Checkpoint(
                self.checkpoint,
                self.checkpoint_every,
                fit=self._identity(starts, alpha),
                report=report,
            )
            runs, report = checkpoint.read(self.max_iter), checkpoint
        return solve(
            self.backend,
            starts,
            alpha,
            tol=self.tol,
            radius=float(np.sqrt(2 * self.dispersion)),
            resolution=OBJECTIVE_RESOLUTION[self.kind.dtype.itemsize],
            max_iter=self.max_iter,
            compete=True,
            bounds=self.bounds,
            report=report,
            window=self.window,
            runs=runs,
        )

    def _identity(self, starts: Float64, alpha: ArrayLike) -> dict[str, str | float | Float64]:
        """All that shapes the result of `solve`, as errors call it.

        Not ``max_iter``, which says only how far to go: a fit that it has stopped may go on.
        """
        alphas = np.unique(np.asarray(alpha, np.float64))
        shape: dict[str, str | float | Float64] = {
            "the estimator's weighting": self.settings.weighting,
            "the dtype of X": self.kind.dtype.name,
            "the number of rows": self.n_rows,
            "the number of features": self.kind.n_features,
            "the checksum of X and sample_weight, block by block": self._checksum,
            "n_clusters": starts.shape[1],
            "the number of starts (n_init)": starts.shape[0],
            "alpha": float(alphas[0]) if len(alphas) == 1 else np.asarray(alpha, np.float64),
            "tol": float(self.tol),
            "the first centroids (init, random_state)": starts,
        }
        if self.settings.weighting == "fuzzy":
            shape["fuzzifier"] = float(self.settings.fuzzifier)
        return shape
