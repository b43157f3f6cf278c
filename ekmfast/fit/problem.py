"""Rows to be fitted: their units, the tolerances that follow from them, starts and runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast.fit.checkpoint import Checkpoint
from ekmfast.fit.seeding import MIXTURE, farthest_and_drawn, initial_centroids
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, WINDOW, Runs, solve
from ekmfast.fit.spread import WEIGHT_UNDERFLOWS, check_spread
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.given import on_host
from ekmfast.rows.protocol import Rows, RowsAtHand, Sums
from ekmfast.rows.survey import Survey

Float64 = NDArray[np.float64]

# Passes that look for rows far from the seeds so far, and the rows that each keeps per cluster.
FAR_PASSES = 2
FAR_ROWS = 16


class Problem:
    """Rows, surveyed, and how a fit iterates over them.

    Parameters
    ----------
    rows : Rows
    n_clusters : int
    tol, max_iter
        As of `EKMeans`.
    report : callable, default=None
        Called by the solver after each pass; True stops it.
    checkpoint : Path, default=None
        The file that `solve` keeps its runs in, every ``checkpoint_every`` passes.
    survey : Survey, default=None
        Of the rows, where there was one.

    Raises
    ------
    ValueError
        For fewer rows than clusters, rows that are not finite, and squared distances or weights
        that their dtype cannot hold.
    """

    def __init__(
        self,
        rows: Rows,
        n_clusters: int,
        *,
        tol: float,
        max_iter: int,
        report: Callable[[Runs], bool] | None = None,
        checkpoint: Path | None = None,
        checkpoint_every: int = 10,
        survey: Survey | None = None,
    ) -> None:
        self.rows = rows
        self.n_clusters = int(n_clusters)
        self.tol = tol
        self.max_iter = max_iter
        self.report = report
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        if survey is None:
            survey = rows.survey(checksum=checkpoint is not None)
        self.survey = survey
        self.dtype = rows.dtype
        if survey.n_rows < n_clusters:
            raise ValueError(f"n_samples={survey.n_rows} should be >= n_clusters={n_clusters}")
        low, high = survey.low, survey.high
        check_spread(survey.dispersion, low, high, self.dtype, weighted=rows.weighted)
        if survey.dispersion == 0 and rows.weighted and (low != high).any():
            some = survey.sample.on_host()
            assert some.sample_weight is not None
            heavy = some.X[some.sample_weight > 0]
            if (heavy != heavy[:1]).any():
                raise ValueError(WEIGHT_UNDERFLOWS)
        # Where centroids may be: the box of the rows and its width again on every side.
        # Equilibrium centroids do lie outside the rows now and then, pushed there by others.
        self.bounds = low - (high - low), high + (high - low)
        # What the solver iterates on, and what makes it so by name. A fit that knows more than the
        # rows puts its own here.
        self.sums: Sums = rows
        self.knows: dict[str, str | float | NDArray[Any]] = {}

    @property
    def dispersion(self) -> float:
        """The weighted mean of 1/2 ||x - mean||^2, the unit of distances."""
        return self.survey.dispersion

    @property
    def radius(self) -> float:
        """The root mean square distance of a row from the mean."""
        return float(np.sqrt(2 * self.survey.dispersion))

    def sample(self, n_rows: int, random_state: np.random.RandomState) -> Problem:
        """The problem of some rows that stand for all, ``n_rows`` and a few more at most.

        They are a uniform sample, and rows that lie far from what the sample offers: the farthest
        of all, and some drawn with chances by their squared distance. A sampled row has the weight
        of those that it stands for, so that a small cluster keeps its own.
        """
        rows: RowsAtHand = self.survey.sample
        if rows.n_rows <= n_rows:
            return self.at_hand()
        s = rows.sample_weight
        numbers = np.arange(rows.n_rows) if s is None else np.flatnonzero(s)
        if len(numbers) <= n_rows:
            return self.of(rows.subset(numbers), self.report)
        numbers = np.sort(random_state.permutation(numbers)[:n_rows])
        some = rows.fetch(numbers)
        X, own = some.X, some.sample_weight
        mass = np.ones(len(X)) if own is None else own.astype(np.float64)
        mass *= self.survey.total_weight / mass.sum()
        seeds = initial_centroids(some, self.n_clusters, "auto", len(MIXTURE), random_state)
        _, distances = rows.nearest(np.unique(seeds.reshape(-1, X.shape[1]), axis=0))
        far = farthest_and_drawn(on_host(distances), s, FAR_ROWS * self.n_clusters, random_state)
        added = rows.fetch(np.setdiff1d(far, numbers))
        more = np.ones(added.n_rows) if added.sample_weight is None else added.sample_weight
        weight = np.concatenate([mass, more]).astype(self.dtype)
        return self.of(rows.replaced(np.concatenate([X, added.X]), weight), self.report)

    def at_hand(self) -> Problem:
        """The problem of the same rows in memory, where the survey's sample holds all of them."""
        rows = self.survey.sample
        return self if rows is self.rows else self.of(rows, self.report)

    def of(self, rows: Rows, report: Callable[[Runs], bool] | None = None) -> Problem:
        """The same problem of other rows."""
        return Problem(rows, self.n_clusters, tol=self.tol, max_iter=self.max_iter, report=report)

    def starts(self, init: Any, n_init: int, random_state: np.random.RandomState) -> Float64:
        """First centroids (S, K, D) of every run.

        Where not all rows are at hand, seeds are drawn from a sample, and from rows that passes
        over all rows find far from what the sample offers: clusters that are too small for it.
        """
        sample = self.survey.sample
        draw = partial(
            initial_centroids,
            n_clusters=self.n_clusters,
            init=init,
            n_init=n_init,
            random_state=random_state,
        )
        far_rows = self.survey.far_rows
        given = not isinstance(init, str) or init == "random"
        if self.survey.whole or far_rows is None or given:
            return draw(sample)
        X, s = sample.X, sample.sample_weight
        mass = np.ones(len(X)) if s is None else s.astype(np.float64)
        mass *= self.survey.total_weight / mass.sum()
        for _ in range(FAR_PASSES):
            seeds = draw(ArrayRows(X, mass.astype(self.dtype), sample.n_threads))
            far = far_rows(
                np.unique(seeds.reshape(-1, X.shape[1]), axis=0),
                int(random_state.randint(2**31 - 1)),
                FAR_ROWS * self.n_clusters,
            )
            own = np.ones(far.n_rows) if far.sample_weight is None else far.sample_weight
            X, mass = np.concatenate([X, far.X]), np.concatenate([mass, own])
        return draw(ArrayRows(X, mass.astype(self.dtype), sample.n_threads))

    def solve(
        self,
        starts: Float64,
        alpha: ArrayLike,
        *,
        max_iter: int | None = None,
        radius: float | None = None,
    ) -> Runs:
        """Run every start (S, K, D) to its end; alpha is a number or (S,).

        ``max_iter`` and ``radius`` stand in for the problem's own.
        """
        max_iter = self.max_iter if max_iter is None else max_iter
        kept, report, checkpoint = None, self.report, None
        if self.checkpoint is not None:
            checkpoint = Checkpoint(
                self.checkpoint,
                self.checkpoint_every,
                fit=self._identity(starts, alpha),
                report=report,
            )
            kept, report = checkpoint.read(max_iter), checkpoint
        runs = solve(
            self.sums,
            starts,
            alpha,
            tol=self.tol,
            radius=self.radius if radius is None else radius,
            resolution=OBJECTIVE_RESOLUTION[self.dtype.itemsize],
            max_iter=max_iter,
            compete=True,
            bounds=self.bounds,
            report=report,
            # Lloyd's iteration is monotone and stops by itself: there is nothing to speed up.
            window=0 if self.rows.weighting == "hard" else WINDOW,
            runs=kept,
            n_threads=self.survey.sample.n_threads,
        )
        if checkpoint is not None:
            checkpoint.end(runs)
        return runs

    def _identity(self, starts: Float64, alpha: ArrayLike) -> dict[str, str | float | NDArray[Any]]:
        """All that shapes the result of `solve`, as errors call it.

        Not ``max_iter``, which says only how far to go: a fit that it has stopped may go on.
        """
        alphas = np.unique(np.asarray(alpha, np.float64))
        shape: dict[str, str | float | NDArray[Any]] = {
            "the estimator's weighting": self.rows.weighting,
            "the dtype of X": self.dtype.name,
            "the number of rows": self.survey.n_rows,
            "the number of features": self.rows.n_features,
            "the checksum of X and sample_weight, block by block": self.survey.checksum,
            "n_clusters": starts.shape[1],
            "the number of starts (n_init)": starts.shape[0],
            "alpha": float(alphas[0]) if len(alphas) == 1 else np.asarray(alpha, np.float64),
            "tol": float(self.tol),
            "the first centroids (init, random_state, max_iter of their search)": starts,
        }
        if self.rows.weighting == "fuzzy":
            shape["fuzzifier"] = float(self.rows.fuzzifier)
        return shape | self.knows
