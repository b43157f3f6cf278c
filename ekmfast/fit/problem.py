"""The rows of one fit, with the units and tolerances that they imply, their starts and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast.fit.checkpoint import Checkpoint
from ekmfast.fit.seeding import initial_centroids
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, WINDOW, Run, Runs, solve
from ekmfast.fit.spread import WEIGHT_UNDERFLOWS, check_spread
from ekmfast.rows.protocol import Rows, RowsAtHand, Sums, as_compiled
from ekmfast.rows.survey import Survey

Float64 = NDArray[np.float64]

# Number of passes that look for rows far from the starts found so far, and how many such rows each
# pass keeps for each cluster.
FAR_PASSES = 2
FAR_ROWS = 16
# How far centroids may leave the box of the rows by rounding, relative to its distance from 0.
BOUNDS_ROUNDING = 1e-9
# Memory of the runs that are solved at a time, if they do not share passes.
RUN_BYTES = 1 << 30
# A sketch has one far row for so many rows of its sample.
FAR_SHARE = 5
# The rows whose clusters they are far from, at most.
CENTRES_ROWS, CENTRES_ROWS_PER_CLUSTER = 2_000, 50

# Passes over rows in float64 compute in float32 at first if S runs of K clusters and D features are
# enough: if S K, S D and K D are at least this. One run takes .6 to .8 of the time then (Zen 5,
# AVX-512), sixteen .5 to .8. Fewer or smaller ones take up to as much time, or more, since the last
# passes in float64 are further ones.
LEAST_ROUNDED = 8
# The least tolerance for this. Steps have errors of some 1e-6 times the radius of the data.
ROUNDED_TOL = 1e-5
# How large the errors of alpha times a squared distance may be.
ROUNDED_SCORES = 1e-2
# The share of the range of float32 that squared distances, weights and their sums may take.
ROUNDED_RANGE = 1e-6
# How large the errors of J may be, relative to it, where it decides between runs. If clusters are
# narrow beside their distances, J is small beside the squares of which it is the difference.
ROUNDED_OBJECTIVE = 1e-4


class Problem:
    """The rows of one fit and their survey, and how a fit iterates over them.

    Parameters
    ----------
    rows : Rows
    n_clusters : int
    tol, max_iter
        As in `EKMeans`.
    report : callable, default=None
        Called by the solver after each pass. If it returns True, the solver stops.
    checkpoint : Path, default=None
        The file into which `solve` writes its runs after every ``checkpoint_every`` passes.
    survey : Survey, default=None
        The survey of the rows, if one was made before.

    Raises
    ------
    ValueError
        If there are fewer rows than clusters, if X has NaN or infinity, or if squared distances,
        with or without weights, overflow or underflow the dtype.
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
            heavy = some.subset(np.flatnonzero(some.sample_weight > 0)).survey()
            if (heavy.low != heavy.high).any():
                raise ValueError(WEIGHT_UNDERFLOWS)
        # Centroids must stay inside the bounding box of the rows, extended by its width on every
        # side. A converged centroid may lie outside the box itself, since others can repel it.
        # Sums of sparse rows are relative to the origin, so that centroids have rounding errors
        # where a feature is constant.
        room = (high - low) + BOUNDS_ROUNDING * np.maximum(np.abs(low), np.abs(high))
        self.bounds = low - room, high + room
        # The sums that the solver uses. A semi-supervised fit replaces them by sums that include
        # the labels, and puts all that these depend on besides the rows into `further_inputs`.
        self.sums: Sums = rows
        self.further_inputs: dict[str, str | float | NDArray[Any]] = {}

    @property
    def dispersion(self) -> float:
        """The weighted mean of 1/2 ||x - mean||^2, the unit of the distances d."""
        return self.survey.dispersion

    @property
    def radius(self) -> float:
        """The root mean square distance of a row from the mean."""
        return float(np.sqrt(2 * self.survey.dispersion))

    def sample(self, n_rows: int, random_state: np.random.RandomState) -> Problem:
        """The problem of a uniform sample of ``n_rows`` rows at most, in the same place."""
        rows: RowsAtHand = self.survey.sample
        if rows.n_rows <= n_rows:
            return self if rows is self.rows else self.of(rows, self.report)
        return self.of(rows.subset(self._uniform(n_rows, random_state)), self.report)

    def _uniform(self, n_rows: int, random_state: np.random.RandomState) -> NDArray[np.intp]:
        """Ascending numbers of rows of the survey's sample, most of which have weight."""
        rows = self.survey.sample
        s = rows.sample_weight
        numbers = np.arange(rows.n_rows) if s is None else np.flatnonzero(s)
        if len(numbers) < self.n_clusters:  # too few have weight: some rows without it, too
            others = np.flatnonzero(s == 0)[: self.n_clusters - len(numbers)]
            numbers = np.concatenate([numbers, others])
        # A Generator needs time for the rows that it draws, and not for all rows.
        draw = np.random.default_rng(random_state.randint(2**31 - 1))
        n_rows = min(n_rows, len(numbers))
        return np.sort(draw.choice(numbers, n_rows, replace=False, shuffle=False))

    def sketch(self, n_rows: int, random_state: np.random.RandomState) -> Problem:
        """The problem of some rows that stand for all, in memory of the host.

        One pass over all rows finds those that are farthest from the clusters of a uniform sample:
        they may belong to clusters that are too small to appear in it. These rows count once, and
        the sample, of ``n_rows`` rows at most, stands for all others.
        """
        rows = self.survey.sample
        if self.survey.whole and rows.n_rows <= n_rows:
            if rows is not self.rows or rows.on_host() is not rows:
                return self.of(rows.on_host(), self.report)
            same = copy(self)
            same.checkpoint = None
            return same
        numbers = np.arange(rows.n_rows)
        if rows.n_rows > n_rows:
            numbers = self._uniform(n_rows, random_state)
        most = max(CENTRES_ROWS, CENTRES_ROWS_PER_CLUSTER * self.n_clusters)
        few = rows.subset(numbers[:: max(1, len(numbers) // most)]).on_host()
        centroids = initial_centroids(few, self.n_clusters, "k-means", 1, random_state)[0]
        n_far = n_rows // FAR_SHARE
        if self.survey.whole:
            farthest = rows.farthest_rows(centroids, n_far)
            near = np.zeros(rows.n_rows, bool)
            near[numbers] = True
            near[farthest] = False
            numbers = np.flatnonzero(near)
            some = rows.subset(np.concatenate([numbers, farthest])).on_host()
            mass, apart = np.split(_mass(some), [len(numbers)])
        else:
            some, apart = rows.subset(numbers).on_host(), np.zeros(0)
            mass = _mass(some)
            if self.survey.far_rows is not None:
                far = self.survey.far_rows(centroids, int(random_state.randint(2**31 - 1)), n_far)
                some, apart = some.followed_by(far), _mass(far)
        if mass.any():  # else all rows that have weight are far ones
            mass *= max(self.survey.total_weight - apart.sum(), 0.0) / mass.sum()
        mass = np.concatenate([mass, apart]).astype(self.dtype)
        return self.of(some.reweighted(mass), self.report)

    def with_clusters(self, n_clusters: int) -> Problem:
        """The problem of the same rows with another number of clusters."""
        other = copy(self)
        other.n_clusters = n_clusters
        return other

    def at_hand(self) -> Problem:
        """The same problem with the survey's sample as its rows, if that sample holds all rows."""
        rows = self.survey.sample
        if rows is self.rows:
            return self
        problem = self.of(rows, self.report, checksum=self.checkpoint is not None)
        problem.checkpoint, problem.checkpoint_every = self.checkpoint, self.checkpoint_every
        return problem

    def of(
        self,
        rows: Rows,
        report: Callable[[Runs], bool] | None = None,
        *,
        checksum: bool = False,
    ) -> Problem:
        """A problem of other rows, with the same parameters but without a checkpoint."""
        return Problem(
            rows,
            self.n_clusters,
            tol=self.tol,
            max_iter=self.max_iter,
            report=report,
            survey=rows.survey(checksum=checksum),
        )

    def starts(self, init: Any, n_init: int, random_state: np.random.RandomState) -> Float64:
        """The starts (S, K, D), one for each run.

        If single rows cannot be read at any time, the starts are found from the survey's sample and
        from rows that a few passes over all rows find far from the starts of the sample. Such rows
        may belong to clusters that are too small to appear in the sample.
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
        some, mass = sample.on_host(), _mass(sample)
        mass *= self.survey.total_weight / mass.sum()
        for _ in range(FAR_PASSES):
            starts = draw(some.reweighted(mass.astype(self.dtype)))
            far = far_rows(
                starts.reshape(-1, some.n_features),
                int(random_state.randint(2**31 - 1)),
                FAR_ROWS * self.n_clusters,
            )
            some, mass = some.followed_by(far), np.concatenate([mass, _mass(far)])
        return draw(some.reweighted(mass.astype(self.dtype)))

    def solve(
        self,
        starts: Float64,
        alpha: ArrayLike,
        *,
        max_iter: int | None = None,
        radius: float | None = None,
        tol: float | None = None,
    ) -> Runs:
        """Run the solver from every start (S, K, D); alpha is a number or (S,).

        ``max_iter``, ``radius`` and ``tol`` replace those of the problem, if they are given.
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
            tol=self.tol if tol is None else tol,
            radius=self.radius if radius is None else radius,
            resolution=OBJECTIVE_RESOLUTION[self.dtype.itemsize],
            max_iter=max_iter,
            compete=True,
            bounds=self.bounds,
            space=self.rows.space,
            report=report,
            # Lloyd's iteration decreases J and ends after finitely many steps without acceleration.
            window=0 if self.rows.weighting == "hard" else WINDOW,
            runs=kept,
            n_threads=self.survey.sample.n_threads,
        )
        if checkpoint is not None:
            checkpoint.end(runs)
        return runs

    def _rounded(self, alpha: float, n_runs: int) -> Problem | None:
        """The problem with passes in float32, if these save time and lose nothing that matters."""
        rows, survey, compiled = self.rows, self.survey, as_compiled(self.rows)
        if compiled is None or self.dtype != np.float64:
            return None
        k, d = self.n_clusters, rows.n_features
        if min(n_runs * k, n_runs * d, k * d) < LEAST_ROUNDED:
            return None
        if self.tol < ROUNDED_TOL or self.max_iter < 2:
            return None
        if self.checkpoint is not None or self.sums is not rows:
            return None
        float32, s = np.finfo(np.float32), survey.sample.sample_weight
        with np.errstate(over="ignore"):
            widths = np.maximum(survey.high - survey.mean, survey.mean - survey.low)
            farthest = float(widths @ widths)  # squared distances from the mean are at most this
        least, largest = float(float32.tiny) / ROUNDED_RANGE, float(float32.max) * ROUNDED_RANGE
        if not (farthest < largest and survey.dispersion > least):
            return None
        if s is not None and (s[s > 0].min() < least or survey.total_weight > largest):
            return None
        sharp = rows.weighting in ("equilibrium", "maximum-entropy")
        if sharp and alpha * farthest * float(float32.eps) > ROUNDED_SCORES:
            return None
        other = copy(self)
        other.rows = other.sums = compiled.rounded()
        other.dtype = np.dtype(np.float32)  # that of J
        other.max_iter -= 1  # at least one pass is in float64
        return other

    def best(self, starts: Float64, alphas: Float64) -> list[Run]:
        """The best run at each alpha (A,), of those from every start (S, K, D).

        If the rows are in float64, passes compute in float32 until the runs end, and then in
        float64 until the best of them ends, mostly after one or two passes. If errors of float32
        may have decided which is the best, all passes are made again in float64.
        """
        rounded = self._rounded(float(alphas.max()), len(starts) * len(alphas))
        if rounded is not None:
            runs = rounded._best(starts, alphas)
            if len(starts) == 1 or not self._loses([run.objective for run in runs]):
                return list(map(self._ended, runs))
        return self._best(starts, alphas)

    def _best(self, starts: Float64, alphas: Float64) -> list[Run]:
        """The same from passes that all compute in one precision.

        If problems do not share passes, as those of sparse rows do not, the alphas are run one
        after another. A fit with a checkpoint runs all at a time.
        """
        n_starts = len(starts)
        if self.rows.shares_passes or self.checkpoint is not None:
            all_starts = np.concatenate([starts] * len(alphas))
            runs = self.solve(all_starts, np.repeat(alphas, n_starts))
            lowest = runs.objectives.reshape(-1, n_starts).argmin(axis=1)
            return [runs[a * n_starts + int(i)] for a, i in enumerate(lowest)]
        groups = list(self._groups(n_starts, starts[0].size))
        return [
            min(
                (self.solve(starts[part], alpha).best for part in groups),
                key=lambda run: run.objective,
            )
            for alpha in alphas
        ]

    def _loses(self, objectives: ArrayLike) -> bool:
        """Whether one of these J may be lost in errors of passes that compute in float32."""
        squares = 2 * self.dispersion * self.survey.total_weight
        error = float(np.finfo(np.float32).eps) * squares
        return bool(np.min(np.abs(objectives)) * ROUNDED_OBJECTIVE < error)

    def _ended(self, first: Run) -> Run:
        """The end of a run that has ended in passes that compute in float32."""
        run = self.solve(
            first.centroids[None], first.alpha, max_iter=self.max_iter - first.n_iter
        ).best
        run.n_iter += first.n_iter
        run.history[:0] = first.history[:-1]
        return run

    def ends(
        self, starts: Float64, alphas: Float64, *, tol: float, max_iter: int
    ) -> tuple[Float64, Float64]:
        """Where runs at alphas (R,) end: centroids (R, K, D), and J (R,).

        They begin from the starts (S, K, D) in turn, again and again if there are fewer of them.
        """
        n_runs = len(alphas)
        rounded = self._rounded(float(alphas.max()), n_runs)
        if rounded is not None:
            found = rounded.ends(starts, alphas, tol=tol, max_iter=max_iter)
            if not self._loses(found[1]):
                return found
        centroids, objectives = np.empty((n_runs, *starts.shape[1:])), np.empty(n_runs)
        for part in self._groups(n_runs, starts[0].size):
            numbers = np.arange(n_runs)[part]
            own = starts[part] if len(starts) == n_runs else starts[numbers % len(starts)]
            runs = self.solve(own, alphas[part], tol=tol, max_iter=max_iter)
            if len(numbers) == n_runs:
                return runs.positions, runs.objectives
            centroids[part], objectives[part] = runs.positions, runs.objectives
            del runs, own  # before the next ones take memory
        return centroids, objectives

    def _groups(self, n_runs: int, size: int) -> Iterator[slice]:
        """Slices of runs that are solved at a time: all, if problems share passes.

        Otherwise as many as `RUN_BYTES` allows: with very many features the centroids and earlier
        steps of all runs might take far more memory than the rows.
        """
        together = n_runs
        if not self.rows.shares_passes:
            matrices = 2 * WINDOW + 6  # (K, D): earlier steps, centroids, sums and proposals
            together = max(1, int(RUN_BYTES // (8 * matrices * size)))
        for i in range(0, n_runs, together):
            yield slice(i, i + together)

    def _identity(self, starts: Float64, alpha: ArrayLike) -> dict[str, str | float | NDArray[Any]]:
        """Everything that determines the result of `solve`, by the names that error messages use.

        ``max_iter`` is left out, so that a fit that was stopped by it can be continued with a
        larger one.
        """
        alphas = np.atleast_1d(np.asarray(alpha, np.float64))
        shape: dict[str, str | float | NDArray[Any]] = {
            "the estimator's weighting": self.rows.weighting,
            "the dtype of X": self.dtype.name,
            "the number of rows": self.survey.n_rows,
            "the number of features": self.rows.n_features,
            "the checksum of X and sample_weight, block by block": self.survey.checksum,
            "n_clusters": starts.shape[1],
            "the number of starts (n_init)": starts.shape[0],
            "alpha": float(alphas[0]) if (alphas == alphas[0]).all() else alphas,
            "tol": float(self.tol),
            "the first centroids (init, random_state, max_iter of their search)": starts,
        }
        if self.rows.space != "free":
            shape["the estimator's metric and missing"] = self.rows.space
        if self.rows.weighting == "fuzzy":
            shape["fuzzifier"] = float(self.rows.fuzzifier)
        return shape | self.further_inputs


def _mass(rows: RowsAtHand) -> Float64:
    """The weights (N,) of rows, which are ones if none are given."""
    s = rows.sample_weight
    return np.ones(rows.n_rows) if s is None else s.astype(np.float64)
