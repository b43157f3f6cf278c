"""The search for a mixture: components are found by equilibrium k-means, then get their shapes.

Expectation maximization ends in a local maximum, which its start decides. Good starts are the
labels of equilibrium k-means at a grid of alphas, since it finds small clusters beside large ones,
and those of a Gaussian mixture, which finds long ones. From all of them short runs with 8 degrees
of freedom are made. From the best few, runs with several degrees of freedom go on, and one of these
is chosen (`chosen`). There are two criteria: the likelihood and the classification likelihood, both
minus a penalty for parameters (`mixture.Fitted`). The likelihood tells whether tails are heavy. If
it is largest for few degrees of freedom, that mixture is kept, since the classification likelihood
prefers components that overlap little even where heavy tails do overlap. Among mixtures with light
tails the classification likelihood decides. Which runs go on is decided by both.

Of the runs that go on, those end from the third iteration on that are far below the best by both.
So do short runs, with a wider margin, and those that come as near to another run as if they went to
the same maximum.

At last moves (`moves`) are tried with the chosen mixture, and with the best one of a different
maximum. Each joins two components and splits another. It counts if the criterion rises by at least
`MOVE_GAIN`. Then degrees of freedom are chosen again.

What follows was chosen on problems of `bench/problems.py` with seeds that no published figure uses;
mean ARIs have their standard error. The classification likelihood chose alone at first. That the
likelihood takes part was found on 720 problems and tried on 480 others. There the mean ARI rose by
.0074 +- .0025, by .021 +- .009 where tails are heavy and by .008 +- .004 beside a background. It
did not change on gaussian and correlated problems (-.0001 +- .0005 and .0000 +- .0015), and fits
took hardly longer. The likelihood alone was worse on these (-.013 +- .006 and -.010 +- .008), and a
mean of both was not better. Of the 480 problems the first 160 led to the limit `HEAVY`: if 20
degrees of freedom are heavy tails, too, the mean ARI of the 720 was larger by .001, but one problem
lost .38, as both likelihoods were nearly equal. On the other 320 it rose by .011 +- .004.

Moves raised the mean ARI by .0108 +- .0019 on 600 problems: it rose on 63 and fell on 3. Of 44
moves of a prototype, on 240 problems, that raised the criterion by more than .02, 41 raised the
ARI; of 19 that raised it by .002 to .02, 7 did. Starts with two joined components of a mixture with
one more, which there had been before, were then worth .002 +- .002 (800 problems) and took a third
of the time of a fit, so they were left out. Twice as many restarts of equilibrium k-means (8), and
one Gaussian mixture instead of the best of three, gave the same. Moves from a second maximum raise
the mean ARI by .0029 +- .0012 (800 problems). All this together, with a search in 7,000 rows, fewer
iterations of the Gaussian mixture (8) and a larger tolerance of the search (3e-4), raised it by
.0109 +- .0031 on 800 problems of 300 to 3,000 rows, in .67 of the time, and by .0085 +- .0030 on
240 problems of 20,000 rows before the last two of these, in .62 of the time.

Tried with moves and left out: splits by `EKMeans` with two clusters (the same ARI, but fits took
half as long again), features in units of the whole common matrix (no change), moves from short runs
too (+.001 +- .001, .3 of the time), from more maxima (.000 +- .000), components chosen from those
of all runs (half as much as moves, in more time), 4 or 5 runs that go on, 12 or 16 restarts (-.001
+- .002, .002 +- .002), and 5,000 rows (-.003 +- .002). Without the Gaussian mixture the mean ARI
fell by .03 where tails are heavy. Two other rules to choose among the last runs were tried on 240
problems: likelihoods integrated over the parameters (.000), and the mixture whose labels agree with
those of most others (+.002). On 98 labelled sets of the real world (KEEL) it was not better to take
light tails where few degrees of freedom are likelier by more than the divergence of a Student
distribution from a Gaussian, which only many equal values explain (-.007 +- .006).

Tried before there were moves, without success: a Gaussian mixture that begins from equilibrium
k-means (-.012 +- .006, 240 problems) or from hard k-means on 2,000 of 20,000 rows (-.0049 +- .0023,
180 problems), short runs on 2,000 rows (-.009 +- .004, 40 problems of 20,000 rows), and full
matrices that begin only from those labels from which variances came to their ends (.94 of the time,
-.0015 +- .0007, 160 problems of 20,000 rows). That runs which go on end near another one of the
same degrees of freedom took .98 of the time (-.0004 +- .0002, 800 problems). With a background
short runs must come to their ends (104 problems).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture.background import FIRST_BACKGROUND, Box
from ekmfast.fit.mixture.iteration import (
    Fitted,
    Race,
    expectation_maximization,
    quick_maximization,
)
from ekmfast.fit.mixture.kinds import MATRICES
from ekmfast.fit.mixture.labelled import from_labels, from_moments
from ekmfast.fit.mixture.moves import moved_labels
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.student import StudentMixture, stacked
from ekmfast.fit.mixture.sums import Sums

Float64 = NDArray[np.float64]

SHORT = 12  # iterations of a short run
SHORT_DEGREES = 8.0
# The least tolerance of the runs that are compared. The one that is chosen goes on to its end.
SEARCH_TOL = 3e-4
# From this iteration on those end of which both criteria are so far below the best ones, also of
# the kinds before, and those of which both differ so little from those of a run before it.
SHORT_FAIR, SHORT_MARGIN, SAME = 3, 0.5, 3e-3
KEPT = 3  # how many short runs go on, by each of the two criteria
# From this iteration on those runs that go on end of which both criteria are so far below.
FAIR, MARGIN = 3, 0.03
DEGREES = (3.0, 6.0, 20.0, np.inf)
HEAVY = 6.0  # so many degrees of freedom, at most, make heavy tails
# Moves after one another, at most, how many are tried at once, and by how much each must raise the
# criterion. Those end that are behind by `MOVE_MARGIN`.
MOVES, TRIED, MOVE_GAIN, MOVE_MARGIN = 4, 2, 0.02, 0.0


class Start(NamedTuple):
    """From what a run begins."""

    labels: NDArray[np.intp]
    kind: str
    degrees: float


@dataclass(frozen=True)
class Runs:
    """Runs of expectation maximization on the same rows.

    Attributes
    ----------
    rows : ScaledRows
        Float64, not scaled any more, and all weights positive.
    kinds, degrees
        The kinds of scatter matrices and the degrees of freedom to choose from.
    max_iter, tol
        Of expectation maximization.
    report : callable or None
        Called for every run.
    races
        Whether runs end early that fall behind.
    tails
        Whether the likelihood takes part in the choice; else the classification likelihood alone
        decides.
    """

    rows: ScaledRows
    kinds: Sequence[str]
    degrees: Sequence[float]
    max_iter: int
    tol: float
    report: Callable[[Fitted], None] | None = None
    races: bool = True
    tails: bool = True
    _moments: dict[bytes, tuple[Float64, Sums]] = field(default_factory=dict, repr=False)

    def search(self, short: Iterable[Fitted], kept: int = KEPT, *, moves: bool = False) -> Fitted:
        """The mixture that is chosen.

        Parameters
        ----------
        short : iterable of Fitted
            The results of short runs.
        kept : int
            How many of them go on, by each criterion.
        moves : bool
            Whether moves (`moves`) follow.
        """
        short = list(short)
        runs = self._distinct(best_of(short), kept)
        if self.tails:
            runs |= self._distinct(sorted(short, key=lambda one: -one.mixture_criterion), kept)
        found = [Start(labels, kind, v) for (kind, _), labels in runs.items() for v in self.degrees]
        # The group of the best one goes first, so that others are compared with it.
        groups = [(start.kind, start.labels.max()) for start in found]
        starts = sorted(found, key=lambda one: groups.index((one.kind, one.labels.max())))
        fits = self._run(starts, self.max_iter, self._search_tol, self._race)
        best = self._chosen(fits)
        if moves:
            moved = self._moved(best, fits)
            if moved is not best:
                best = self._chosen([moved, *self._with_all_degrees(moved)])
        return self._ended(best)

    @property
    def _search_tol(self) -> float:
        return max(SEARCH_TOL, self.tol)

    @property
    def _race(self) -> dict[str, Any] | None:
        """The settings of `_far` for runs that go on."""
        return {"first": FAIR, "margin": MARGIN, "tails": self.tails} if self.races else None

    def _chosen(self, fits: Iterable[Fitted]) -> Fitted:
        return chosen(fits) if self.tails else best_of(fits)[0]

    def _with_all_degrees(self, fitted: Fitted) -> list[Fitted]:
        """Mixtures that begin from the labels of that one, with all degrees of freedom."""
        labels, kind = compact(label(fitted.mixture, self.rows)), fitted.mixture.kind
        if labels.max() + 1 < len(fitted.mixture.weights):
            return []
        starts = [Start(labels, kind, v) for v in self.degrees]
        return self._run(starts, self.max_iter, self._search_tol, self._race, [fitted])

    def _moved(self, best: Fitted, fits: Iterable[Fitted]) -> Fitted:
        """The best mixture after moves from that one and from another of those fits."""
        heavy = self.tails and float(best.mixture.degrees) <= HEAVY

        def criterion(fitted: Fitted) -> float:
            return fitted.mixture_criterion if heavy else fitted.criterion

        like = (best.mixture.degrees, best.mixture.means.shape)
        others = [
            one
            for one in fits
            if (one.mixture.degrees, one.mixture.means.shape) == like
            and criterion(one) < criterion(best) - SAME
        ]
        starts = [best, *sorted(others, key=criterion)[-1:]]
        ends = [self._after_moves(start, criterion, heavy=heavy) for start in starts]
        return max(ends, key=criterion)

    def _after_moves(
        self, found: Fitted, criterion: Callable[[Fitted], float], *, heavy: bool
    ) -> Fitted:
        """The mixture after moves, each of which raises the criterion."""
        kind, degrees = found.mixture.kind, float(found.mixture.degrees)
        for _ in range(MOVES):
            labellings = moved_labels(found.mixture, self.rows, TRIED)
            starts = [Start(labels, kind, degrees) for labels in labellings]
            # With heavy tails the rise may come late.
            race = None if heavy or self._race is None else self._race | {"margin": MOVE_MARGIN}
            fits = self._run(starts, self.max_iter, self._search_tol, race, [found])
            best = max([found, *fits], key=criterion)
            if criterion(best) < criterion(found) + MOVE_GAIN:
                break
            found = best
        return found

    def _distinct(
        self, fits: Iterable[Fitted], count: int
    ) -> dict[tuple[str, bytes], NDArray[np.intp]]:
        """Labels of the first fits, and their kinds, until so many differ."""
        found: dict[tuple[str, bytes], NDArray[np.intp]] = {}
        for fitted in fits:
            labels = compact(label(fitted.mixture, self.rows))
            found.setdefault((fitted.mixture.kind, labels.tobytes()), labels)
            if len(found) == count:
                break
        return found

    def short(self, labellings: Iterable[NDArray[Any]], *, race: bool = True) -> list[Fitted]:
        """The results of short runs from labels (N,).

        Equal ones count once, and only those with the most clusters are used. Without ``race`` all
        come to their end.
        """
        degrees = SHORT_DEGREES if len(self.degrees) > 1 else self.degrees[0]
        distinct = {labels.tobytes(): labels for labels in map(compact, labellings)}
        # The number of components is given. At small alphas centroids coincide, and the penalty for
        # parameters would prefer fewer components where there are many features.
        most = max(int(labels.max()) for labels in distinct.values())
        used = [labels for labels in distinct.values() if labels.max() == most]
        starts = [Start(labels, kind, degrees) for kind in self.kinds for labels in used]
        settings = {"first": SHORT_FAIR, "margin": SHORT_MARGIN, "same": SAME, "tails": True}
        iterations = min(SHORT, self.max_iter)
        far = settings if race and self.races else None
        return self._run(starts, iterations, self._search_tol, far)

    def with_background(self, labellings: Iterable[NDArray[Any]], box: Box) -> Fitted:
        """The mixture with the largest criterion that has a background, whose label is -1.

        Equal labels count once, and only those with the most clusters are used.
        """
        distinct = {labels.tobytes(): labels for labels in map(compact, labellings)}
        most = max(int(labels.max()) for labels in distinct.values())
        fits: list[Fitted] = []
        for kind in self.kinds:
            starts = [
                from_labels(self.rows, labels, kind, v, box)
                for labels in distinct.values()
                if labels.max() == most
                for v in self.degrees
            ]
            mixtures = stacked(starts)
            # None ends early, as a background takes many iterations to find its rows.
            fits += self._iterate(mixtures, self.max_iter, self.tol)
        if self.report is not None:
            for one in fits:
                self.report(one)
        return self._ended(max(fits, key=lambda one: one.criterion))

    def one_by_one(self, labels: NDArray[np.intp]) -> Fitted:
        """The mixture that is chosen of those that begin from the same labels.

        One run ends before the next one begins, and only those are kept that may be chosen.
        """
        means, sums = self.rows.moments(labels, int(labels.max()) + 1, full=False)
        fits: list[Fitted] = []
        for kind in self.kinds:
            for v in self.degrees:
                mixture = from_moments(means, sums, kind, v)
                fits += expectation_maximization(
                    mixture[None], self.rows, max_iter=self.max_iter, tol=self.tol
                )
                if self.report is not None:
                    self.report(fits[-1])
                light = [one for one in fits if one.mixture.degrees > HEAVY]
                likeliest = max(fits, key=lambda one: one.mixture_criterion)
                fits = [likeliest, *(one for one in best_of(light)[:1] if one is not likeliest)]
        return chosen(fits)

    def from_labels(self, labels: NDArray[np.intp]) -> Fitted:
        """The mixture that is chosen of those that begin from the same labels.

        Of each kind the one with the lightest tails comes first, and heavier ones as long as the
        likelihood rises.
        """
        fits: list[Fitted] = []
        for kind in self.kinds:
            likeliest = -np.inf
            for v in sorted(self.degrees, reverse=True):
                fits += self._run([Start(labels, kind, v)], self.max_iter, self._search_tol, None)
                if fits[-1].mixture_criterion < likeliest:
                    break
                likeliest = fits[-1].mixture_criterion
        return self._ended(chosen(fits))

    def _iterate(
        self, mixtures: StudentMixture, iterations: int, tol: float, behind: Race | None = None
    ) -> list[Fitted]:
        return quick_maximization(mixtures, self.rows, max_iter=iterations, tol=tol, behind=behind)

    def _ended(self, fitted: Fitted) -> Fitted:
        """What a run of the search, which mostly read the rows in float32, ends with in float64."""
        left = self.max_iter - fitted.n_iter
        if left < 2:  # one iteration cannot tell that it converged
            return fitted
        (end,) = expectation_maximization(
            fitted.mixture[None], self.rows, max_iter=left, tol=self.tol
        )
        return replace(end, n_iter=fitted.n_iter + end.n_iter)

    def background_labels(self, mixture: StudentMixture, box: Box) -> NDArray[Any]:
        """Its labels, with -1 for rows that are likelier of a background of a small share.

        A component of which all rows are so keeps its labels.
        """
        beside = mixture.with_background(FIRST_BACKGROUND, box, self.rows.total)
        labels = label(beside, self.rows)
        components = label(mixture, self.rows)
        return np.where(np.isin(components, labels), labels, components)

    def without_widest(self, mixture: StudentMixture) -> NDArray[Any]:
        """Its labels, with -1 for the rows of the component of the largest volume."""
        labels = label(mixture, self.rows)
        widest = int(mixture.log_sizes.argmax())
        return np.where(labels == widest, -1, labels)

    def _run(
        self,
        starts: Sequence[Start],
        iterations: int,
        tol: float,
        race: dict[str, Any] | None,
        ended: Sequence[Fitted] = (),
    ) -> list[Fitted]:
        """Runs from the starts. In a race, of which `_far` gets the settings, some end early."""
        fits: list[Fitted] = []
        for (kind, _), alike in groupby(starts, lambda one: (one.kind, one.labels.max())):
            several = list(alike)
            means, sums = self._moments_of([one.labels for one in several])
            degrees = np.array([one.degrees for one in several])
            mixtures = from_moments(means, sums, kind, degrees)
            behind = (
                None if race is None else _far(mixtures, self.rows.total, [*ended, *fits], **race)
            )
            fits += self._iterate(mixtures, iterations, tol, behind)
        if self.report is not None:
            for fitted in fits:
                self.report(fitted)
        return fits

    def _moments_of(self, labellings: Sequence[NDArray[np.intp]]) -> tuple[Float64, Sums]:
        """The means and sums of labellings with the same number of labels, in parallel."""
        keys = [labels.tobytes() for labels in labellings]
        both = zip(keys, labellings, strict=True)
        new = {key: labels for key, labels in both if key not in self._moments}
        if new:
            k, full = int(labellings[0].max()) + 1, any(kind in MATRICES for kind in self.kinds)
            means, sums = self.rows.moments(np.stack(list(new.values())), k, full=full)
            self._moments.update((key, (means[i], sums[i])) for i, key in enumerate(new))
        found_means, found_sums = zip(*(self._moments[key] for key in keys), strict=True)
        return np.stack(found_means), Sums.stacked(found_sums)


def _far(
    mixtures: StudentMixture,
    n_rows: float,
    ended: list[Fitted],
    *,
    first: int = FAIR,
    margin: float = MARGIN,
    same: float = 0.0,
    tails: bool = True,
) -> Race:
    """What ends runs that are far behind the best one of them, or of other runs that ended."""
    penalty = mixtures.penalty(n_rows)
    least = max((one.criterion for one in ended), default=-np.inf)
    likelihood = max((one.mixture_criterion for one in ended), default=-np.inf)
    # Without regard to tails any likelihood is too low.
    return Race(first, margin, likelihood + penalty if tails else np.inf, least + penalty, same)


def chosen(fits: Iterable[Fitted]) -> Fitted:
    """The likeliest mixture if its tails are heavy, else the best one with light tails."""
    fits = list(fits)
    likeliest = max(fits, key=lambda one: one.mixture_criterion)
    if likeliest.mixture.degrees <= HEAVY:
        return likeliest
    return best_of(one for one in fits if one.mixture.degrees > HEAVY)[0]


def best_of(fits: Iterable[Fitted]) -> list[Fitted]:
    """The fits by their criterion, the best one first."""
    return sorted(fits, key=lambda fitted: -fitted.criterion)


def compact(labels: NDArray[Any]) -> NDArray[np.intp]:
    """The labels, numbered from 0 on without gaps in the order of their first rows; -1 stays."""
    n, shifted = len(labels), labels + 1
    first = np.full(int(shifted.max()) + 1, n)
    first[shifted[::-1]] = np.arange(n - 1, -1, -1)  # of equal indices the last one is written
    first[0] = -1
    rank = np.argsort(np.argsort(first, kind="stable")) - 1
    compact: NDArray[np.intp] = rank[shifted]
    return compact
