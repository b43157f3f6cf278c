"""The search of ``alpha='auto'``: runs at a few alphas, of which the likeliest clusters are kept.

The clusters that a run ends with depend on its start and on alpha. J decides between starts at one
alpha, but not between alphas. The likelihood of `fit.likelihood` compares all of them, and so
decides between starts as well.

1. Runs from the starts of `seeding.SEARCH_RULES` at four alphas end early, at a large tolerance.
2. The four likeliest are continued, at their own alpha and at the next ones of the grid above and
   below it.
3. Of what they end with, the four likeliest are refined to mixtures of Student distributions, by a
   few iterations of `fit.mixture`, most of them on the rows of the runs. The candidate whose labels
   agree best with those of the likeliest mixture is chosen. The likelihood of given labels has many
   near ties, which the mixture, whose clusters overlap, decides better.

All this is done on some thousand rows (`Problem.sketch`), of which the runs read fewer than the
comparison of their ends in the steps 2 and 3: which labels are likelier is a closer question than
where the centroids are.

If features are strongly correlated, as codes of neural networks are, the likelihood is a worse
judge, and the search is that of `fit.correlated`; where numbers are missing, it is that of
`fit.search`, in all features. So it is for sparse rows that do not differ in their directions
(`fit.wide`).

The rules were chosen on problems of `bench/problems.py` with seeds that no published figure uses,
against 16 starts at eleven alphas, each run to its end, of which J decided between starts and the
likelihood between alphas. On 160 such problems of 300 to 6,000 rows those took 3,050 passes over
the rows (each counted once for every run that it served), with a mean ARI of .724. Twelve starts
at four alphas take 520, with .740, and .733 with eight starts. Without step 3 eight starts
lost another .010. On fresh seeds the mean ARI was above the older one's by .014 +- .008 (240
problems) and, at 20,000 to 60,000 rows, by .006 +- .009 (100 problems). J cannot choose between
starts early either: to go on with the half of the starts at each alpha that have the lowest J after
three or five passes lost .015 and .010 +- .002 (1,440 problems).

Starts and runs on a part of the rows that are compared, with a limit to their passes, were added
later. At 20,000 to 60,000 rows the runs read a quarter as many rows as they did before.
On fresh seeds the mean ARI differed by -.002 +- .002 (140 problems), and with starts on that part
by a further -.001 +- .004 (320 problems); on 400 problems of 300 to 6,000 rows by .001 +- .002.
To refine the mixtures on that part first made no difference (-.000 +- .001, 740 problems), nor did
8 and 2 iterations in place of 12 and 3 (.000 +- .001 on 472 problems, -.000 on 2,088 small ones),
rows in float32 (.000 +- .000 on 1,676 problems), and 2 reweightings in place of 4 in the likelihood
that compares the first runs (-.000 +- .000 on 1,196 problems).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from ekmfast import _core
from ekmfast.fit.alpha import MULTIPLES
from ekmfast.fit.correlated import find_in_components
from ekmfast.fit.directions import is_wide
from ekmfast.fit.evidence import components_of
from ekmfast.fit.likelihood import (
    REWEIGHTINGS,
    TAIL,
    classification_likelihoods,
    distinct_labels,
)
from ekmfast.fit.merging import merge_all
from ekmfast.fit.mixture.iteration import expectation_maximization
from ekmfast.fit.mixture.labelled import from_moments
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.student import stacked
from ekmfast.fit.mixture.sums import moments_of_labels
from ekmfast.fit.moved import moved
from ekmfast.fit.problem import Problem
from ekmfast.fit.rand import adjusted_rand
from ekmfast.fit.search import compare_alphas
from ekmfast.fit.seeding import (
    AUTO_RESTARTS,
    AUTO_RULES,
    SEARCH_RULES,
    initial_centroids,
    resolve_n_init,
)
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.survey import may_overflow
from ekmfast.rows.unit import UnitRows, ZeroOrUnit, ZeroOrUnitRows

Float64 = NDArray[np.float64]

# The rows of a search, at most, besides those that are far from all its clusters. With half as many
# the mean ARI on 98 problems of 20,000 to 60,000 rows was lower by .010 +- .004.
SEARCH_ROWS = 10_000
ROWS_PER_CLUSTER = 50  # but not fewer than so many, if there are many clusters
# The same for those rows on which the runs iterate. With 1,200 the mean ARI on 400 problems was
# lower by .002 +- .001.
PART_ROWS = 2_000
PART_ROWS_PER_CLUSTER = 50
# Which alphas of the grid `MULTIPLES` the first runs use. Those between them are next to these.
FIRST = (1, 4, 7, 9)
# Objectives with a smaller relative difference are equal: rounding errors must not decide.
SAME_OBJECTIVE = 1e-5
FIRST_TOL, NEXT_TOL = 1e-2, 1e-3
FIRST_PASSES, NEXT_PASSES = 20, 40
# Reweightings of the likelihoods by which the ends of the runs are compared.
FIRST_REWEIGHTINGS, NEXT_REWEIGHTINGS = 2, 3
# Passes over all rows of the search, from the candidate that is chosen.
LAST_PASSES = 100
LAST_TOL = 3e-4
KEPT = 4  # candidates that are continued, and afterwards refined
ITERATIONS = 8  # of the refinement
LAST_ITERATIONS = 1  # on the rows of the comparison, after those on the part
EM_TOL = 1e-4
# The largest J of a candidate, relative to the lowest one at the same alpha. In rows of categories,
# which have few distinct values, clusters of a single category have no variance, and so too large a
# likelihood.
MOST = 1.1


class Candidate(NamedTuple):
    """What one run ended with, and its labels of the rows of the search."""

    centroids: Float64  # (K, D)
    labels: NDArray[np.int32]  # (N,), numbered from 0 on in the order of their first rows
    alpha: float
    objective: float
    multiple: int  # of the grid `MULTIPLES`
    n_distinct: int  # labels
    likelihood: float
    kind: int  # the same number for all candidates of a list that have the same labels


def search_rows(n_clusters: int) -> int:
    """The rows of a search, at most, besides those that are far from all its clusters."""
    return max(SEARCH_ROWS, ROWS_PER_CLUSTER * n_clusters)


def rows_of_runs(n_clusters: int) -> int:
    """The rows on which the runs of a search iterate, at most, besides the far ones."""
    return max(PART_ROWS, PART_ROWS_PER_CLUSTER * n_clusters)


def find_likeliest(
    problem: Problem,
    init: Any,
    n_init: int | str,
    random_state: np.random.RandomState,
    dvariance: float,
) -> tuple[Float64, float]:
    """Centroids (K, D) and the alpha with which they were found on the rows of a problem.

    ``init`` and ``n_init`` are those of `EKMeans`; the grid of alphas are the `MULTIPLES` of
    ``dvariance``.
    """
    problem = _dense(problem)
    rounded, centre = in_float32(problem)
    rows = rounded.survey.sample.on_host()
    X, weight = rows.part(slice(None)), rows.likelihood_weight(slice(None))
    n_rows = rows_of_runs(problem.n_clusters)
    components = components_of(X, weight)
    rules, n_starts = (
        (SEARCH_RULES, len(SEARCH_RULES)) if components is None else (AUTO_RULES, AUTO_RESTARTS)
    )
    draw = partial(
        initial_centroids,
        n_clusters=problem.n_clusters,
        init=init,
        n_init=resolve_n_init(n_init, init, n_starts),
        random_state=random_state,
        rules=rules,
    )
    if issparse(X) or (components is not None and rows.space == "features"):
        starts = draw(problem.survey.sample.on_host())
        found = compare_alphas(problem, starts, dvariance * MULTIPLES)
        run = found.runs[found.best]
        return run.centroids, run.alpha
    given = None if isinstance(init, str) else draw(problem.survey.sample.on_host()) - centre
    if components is not None:
        centroids, alpha = find_in_components(
            rounded, components, dvariance, n_rows, draw, given, random_state
        )
        if problem.rows.space == "unit":
            centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        return _polished(rounded, centroids, alpha) + centre, alpha
    part = rounded.sketch(n_rows, random_state)
    starts = draw(part.survey.sample.on_host()) if given is None else given
    judge = _Judge(rows, X, weight, NEXT_REWEIGHTINGS)
    chosen = _Search(rounded, part, judge, dvariance).likeliest(starts)
    if part.survey.sample is not rows:
        return _polished(rounded, chosen.centroids, chosen.alpha) + centre, chosen.alpha
    # In all digits of the rows.
    last = _polished(problem, chosen.centroids + centre, chosen.alpha, passes=1)
    return last, chosen.alpha


def _polished(
    problem: Problem, centroids: Float64, alpha: float, passes: int = LAST_PASSES
) -> Float64:
    """The centroids (K, D) after further passes over the rows of a search."""
    runs = problem.solve(
        centroids[None],
        alpha,
        max_iter=min(passes, problem.max_iter),
        tol=max(LAST_TOL, problem.tol),
    )
    end = runs.whole(0)
    # A run ends before a step that is shorter than its tolerance. It is taken here, since it leads
    # to the means of clusters that are narrow beside their distances.
    if end.step is None or not np.isfinite(end.step).all():
        return end.centroids
    return end.centroids + end.step


def _likeliest_labels(candidates: list[Candidate]) -> list[Candidate]:
    """The `KEPT` likeliest candidates, without those that have the labels of another one.

    Of several candidates with the same labels it is that of the middle alpha with the lowest J
    there; of two middle alphas the larger, at which distant centroids repel each other less.
    """
    alike: dict[int, list[Candidate]] = {}
    for one in candidates:
        alike.setdefault(one.kind, []).append(one)
    middle = []
    for group in alike.values():
        if len(group) == 1:
            middle += group
            continue
        alphas = sorted({one.alpha for one in group})
        at_middle = [one for one in group if one.alpha == alphas[len(alphas) // 2]]
        least = min(one.objective for one in at_middle)
        equal = least + SAME_OBJECTIVE * abs(least)
        middle.append(next(one for one in at_middle if one.objective <= equal))
    return sorted(middle, key=lambda one: -one.likelihood)[:KEPT]


def _beside(candidates: list[Candidate]) -> tuple[Float64, NDArray[np.intp]]:
    """Centroids (S, K, D) of the likeliest, to go on at their alphas and at those beside these."""
    pairs = [
        (one.centroids, one.multiple + step)
        for one in _likeliest_labels(candidates)
        for step in (-1, 0, 1)
        if 0 <= one.multiple + step < len(MULTIPLES)
    ]
    centroids, multiples = zip(*pairs, strict=True)
    return np.stack(centroids), np.array(multiples)


class _Judge:
    """Labels of some rows, and their likelihood."""

    def __init__(
        self,
        rows: ArrayRows,
        evidence: Any,
        weight: NDArray[Any] | None,
        reweightings: int = REWEIGHTINGS,
    ) -> None:
        self.rows, self.evidence, self.weight = rows, evidence, weight
        self.reweightings = reweightings

    def candidates(
        self, ends: Float64, objectives: Float64, multiples: NDArray[np.intp], alphas: Float64
    ) -> list[Candidate]:
        """What runs ended with, except for local minima of J that are far above the lowest.

        ``ends`` (R, K, D) is not copied if all are kept: of wide rows it may be most of the memory.
        The number of clusters is given, so that only candidates with the most clusters are kept: at
        small alphas some centroids coincide.
        """
        lowest = np.full(len(MULTIPLES), np.inf)  # J at each alpha
        np.minimum.at(lowest, multiples, objectives)
        lowest = lowest[multiples]
        # Rounding may make J of rows that equal their centroids negative.
        low = np.flatnonzero(objectives <= lowest + (MOST - 1) * np.abs(lowest))
        places = ends if len(low) == len(ends) else ends[low]
        names = merge_all(places, alphas[low]).astype(np.int32)
        labels = self.rows.label_each(places, names)
        n_distinct = _core.renumber(labels, places.shape[1])
        most = n_distinct == n_distinct.max()
        if not most.all():
            low, labels, places, n_distinct = (
                low[most],
                labels[most],
                places[most],
                n_distinct[most],
            )
        kinds, first = distinct_labels(labels)
        likelihood = classification_likelihoods(
            self.evidence, labels[first], self.weight, self.rows.n_threads, self.reweightings
        )[kinds]
        numbers = alphas[low], objectives[low], multiples[low], n_distinct, likelihood
        columns = (column.tolist() for column in numbers)
        return list(map(Candidate, places, labels, *columns, kinds))


class _Search:
    """Runs on a part of the rows of a search, and how their candidates are compared."""

    def __init__(self, whole: Problem, part: Problem, judge: _Judge, dvariance: float) -> None:
        self.whole, self.part, self.judge, self.dvariance = whole, part, judge, dvariance

    def likeliest(self, starts: Float64) -> Candidate:
        """The candidate that is chosen, from starts (S, K, D)."""
        rows = self.part.survey.sample.on_host()
        X, weight = rows.part(slice(None)), rows.likelihood_weight(slice(None))
        judge = _Judge(rows, X, weight, FIRST_REWEIGHTINGS)
        numbers = np.repeat(FIRST, len(starts))
        again = _beside(self.run(starts, numbers, judge, FIRST_TOL, FIRST_PASSES))
        return self.choose(self.run(*again, self.judge, NEXT_TOL, NEXT_PASSES))

    def run(
        self,
        starts: Float64,
        multiples: NDArray[np.intp],
        judge: _Judge,
        tol: float,
        max_iter: int,
    ) -> list[Candidate]:
        """What runs from the starts (S, K, D), in turn, end with at alphas given by multiples."""
        alphas = self.dvariance * MULTIPLES[multiples]
        tol, max_iter = max(tol, self.part.tol), min(max_iter, self.part.max_iter)
        ends, objectives = self.part.ends(starts, alphas, tol=tol, max_iter=max_iter)
        return judge.candidates(ends, objectives, multiples, alphas)

    def choose(self, candidates: list[Candidate]) -> Candidate:
        """The candidate whose labels are nearest to those of the likeliest mixture."""
        kept = _likeliest_labels(candidates)
        distinct = [one for one in kept if np.isfinite(one.likelihood)]
        if len(distinct) < 2 or not self._can_refine():
            return kept[0]
        labels = self._mixture_labels(distinct)
        known: dict[int, float] = {}
        for one in candidates:
            if one.kind not in known:
                known[one.kind] = adjusted_rand(one.labels, labels)
        nearest = max(known.values())
        alike = [one for one in candidates if known[one.kind] == nearest]
        return _likeliest_labels(alike)[0]

    def _can_refine(self) -> bool:
        return not np.isnan(self.judge.evidence).any()

    def _mixture_labels(self, candidates: list[Candidate]) -> NDArray[np.int32]:
        """The labels (N,) of the likeliest mixture that is refined from a candidate."""
        judge, part = self.judge, self.part.survey.sample.on_host()
        X = judge.evidence
        weight = _relative(judge.weight, X)
        centre, unit = self.whole.survey.mean, self.whole.radius
        rows = ScaledRows(X, weight, centre, unit, judge.rows.n_threads)
        few = rows
        labels = np.stack([one.labels for one in candidates])
        if part is not judge.rows:
            places = np.stack([one.centroids for one in candidates])
            names = merge_all(places, np.array([one.alpha for one in candidates]))
            of_part = part.label_each(places, names.astype(np.int32))
            # A small cluster may have no row in the part.
            if _core.renumber(of_part, places.shape[1]).min() == candidates[0].n_distinct:
                X = part.part(slice(None))
                weight = _relative(part.likelihood_weight(slice(None)), X)
                few, labels = ScaledRows(X, weight, centre, unit, part.n_threads), of_part
        scaled, s, k = (X - centre) / unit, weight.astype(np.float64), candidates[0].n_distinct
        means, sums = moments_of_labels(scaled, s, labels, k, full=False, n_threads=rows.n_threads)
        starts = from_moments(means, sums, "diag", np.full(len(means), TAIL))
        fitted = expectation_maximization(starts, few, max_iter=ITERATIONS, tol=EM_TOL)
        if few is not rows:
            mixtures = stacked([one.mixture for one in fitted])
            fitted = expectation_maximization(mixtures, rows, max_iter=LAST_ITERATIONS, tol=EM_TOL)
        return label(max(fitted, key=lambda one: one.criterion).mixture, rows)


def in_float32(problem: Problem) -> tuple[Problem, Float64]:
    """The problem of the rows minus a centre (D,) in float32, and the centre.

    Passes over them take about half the time. At the alphas of the search centroids that are nearer
    to each other than about a hundredth of the radius coincide, so that runs depend on rounding
    errors no more than on their tolerance. The problem stays as it is where float32 cannot hold
    squared distances or weights, and for rows other than dense ones in memory.
    """
    rows, survey = problem.survey.sample.on_host(), problem.survey
    s, float32 = rows.sample_weight, np.finfo(np.float32)
    # Rows of little or no weight may be much farther away than the dispersion.
    fits = survey.dispersion > 1e-12 and not may_overflow(
        survey.total_weight, survey.low, survey.high, float32.dtype
    )
    if s is not None:
        fits = fits and s[s > 0].min() > float32.tiny
    if type(rows) is not ArrayRows or rows.dtype == np.float32 or not fits:
        return problem, np.zeros(rows.n_features)
    X = (rows.X - survey.mean).astype(np.float32)
    weights = None if s is None else s.astype(np.float32)
    report = moved(problem.report, lambda centroids: centroids + survey.mean)
    return problem.of(ArrayRows(X, weights, rows.n_threads), report), survey.mean


def _dense(problem: Problem) -> Problem:
    """The problem of the same rows as an array, if they are sparse ones that few numbers hold."""
    rows = problem.survey.sample.on_host()
    if not issparse(rows.X) or is_wide(rows.X):
        return problem
    return problem.of(dense_rows(rows), problem.report)


def dense_rows(rows: ArrayRows) -> ArrayRows:
    """Sparse rows as an array, with the same lengths, weights and threads."""
    sparse: Any = rows.X
    X, s = sparse.toarray(), rows.sample_weight
    kind: type[ArrayRows] = ArrayRows
    if rows.space == "unit":
        kind = ZeroOrUnitRows if isinstance(rows, ZeroOrUnit) else UnitRows
    return kind(X, None if s is None else s.astype(X.dtype), rows.n_threads)


def _relative(sample_weight: NDArray[Any] | None, X: NDArray[Any]) -> NDArray[Any]:
    """Weights (N,) with a mean of 1, in the dtype of X."""
    if sample_weight is None:
        return np.ones(len(X), X.dtype)
    weights = sample_weight / sample_weight.mean(dtype=np.float64)
    own: NDArray[Any] = weights.astype(X.dtype, copy=False)
    return own
