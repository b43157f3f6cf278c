"""The search for mixtures of a sample of rows, for any number of components.

The labels from which it begins are found by equilibrium k-means and by a Gaussian mixture; what
follows is `shapes.search`.

Features that are strongly correlated (`evidence`), as the codes of neural networks are, are an
exception. There the likelihood is a poor judge: full matrices have by far the largest one, and
expectation maximization with them moves away from the right labels even if it begins from these.
If the clusters of `EKMeans` are well separated, however, variances alone suffice to describe them,
and a mixture that begins from them keeps their labels. So the first of the kinds, which are the
variances if the kind is not given, begins from the labels of `EKMeans` alone. If the adjusted Rand
index of what it ends with and these labels is at least `CONFIRMED`, two methods with different
assumptions agree, and the mixture is kept. Otherwise mixtures are searched for in the leading
principal components that `evidence` uses, which are few and not correlated, and the mixture of all
features begins from the labels found there.

On codes of three models with seeds that no published figure uses, 168 draws of 387 to 670 rows and
128 features, the mean ARI was .903 without the first rule and is .989 with it; `EKMeans` has .980.
On 24 draws of codes with 32 features it was .851 and is .990. Nearly all of these draws are
confirmed. On codes of an autoencoder that was trained without labels (9 draws) hardly any is, and
full matrices are better there than variances (.48 and .34). Of draws of 8 x 8 digits a tenth is
confirmed. With a limit of .9 the mean ARI of the codes without labels was .40.

The search in components was added later, together with a mend of the iteration where many
directions have hardly any variance (`mixture.Step`). Over all draws, confirmed ones too, the mean
ARI rose from .908 to .930 on 126 draws of codes of a classifier (+.022 +- .013; 20 components had
been lost before), from .211 to .231 on 42 draws of codes without labels (+.020
+- .013), and from .798 to .881 on 10 problems of codes that are mixtures of eight features (+.084
+- .027). It fell from .557 to .532 on 210 draws of digits (-.025 +- .010). Fits took .12 to .39 of
the time. Before that mend, components that hold .9 of the variance were worse than those with .7 on
the third of these (-.090 +- .017, 8 problems) and on digits (-.030 +- .020, 22 draws), and better
on codes without labels (+.034 +- .018, 27 draws). Of the degrees of freedom infinite ones were
chosen on all draws that were looked at. Runs with heavier tails are ahead in the first iterations,
so that none may end early (`Runs.from_labels`).

With a background the search is that of other features, without races.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from ekmfast.fit.alpha import MULTIPLES, resolve_alpha
from ekmfast.fit.auto import find_clusters
from ekmfast.fit.directions import is_wide
from ekmfast.fit.evidence import evidence_features
from ekmfast.fit.likeliest import dense_rows
from ekmfast.fit.merging import merge_all
from ekmfast.fit.mixture.background import Box
from ekmfast.fit.mixture.gaussian import gaussian_labels
from ekmfast.fit.mixture.iteration import Fitted, expectation_maximization
from ekmfast.fit.mixture.joining import joined_labels
from ekmfast.fit.mixture.labelled import from_labels
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.shapes import DEGREES, KEPT, Runs, best_of, compact
from ekmfast.fit.mixture.sparse import ScaledSparseRows
from ekmfast.fit.mixture.student import stacked
from ekmfast.fit.problem import Problem
from ekmfast.fit.rand import adjusted_rand
from ekmfast.fit.seeding import initial_centroids
from ekmfast.rows.array import ArrayRows

Float64 = NDArray[np.float64]

# Rows from which mixtures are searched for, at most.
SEARCH_ROWS = 7_000
# Equilibrium k-means, whose labels are starts, runs on fewer, but on not fewer than so many for
# each component.
SKETCH_ROWS = 2_000
ROWS_PER_COMPONENT = 100
# There are so many restarts, at every second alpha.
N_INIT = 8
EVERY = 2
# Of the restarts, whose labels are all that is needed.
TOL, PASSES = 1e-2, 20
# Pairs of components that are joined to find mixtures of one component less.
JOINED = 3
# Mixtures of one component more from which a background begins.
WITHOUT_WIDEST = 3
# The least adjusted Rand index of the labels of a mixture and of those from which it began, where
# features are strongly correlated, with which the search ends.
CONFIRMED = 0.93
# Clusters of fewer rows are not kept so. With heavy tails they are outliers, which a component that
# begins from them never leaves.
LEAST_ROWS = 5


@dataclass(frozen=True)
class MixtureSearch:
    """A sample of rows, and how mixtures are searched for in it.

    Attributes
    ----------
    sample : Problem
        That of the sample.
    rows : ScaledRows
        Those rows of the sample that have weight, float64, not scaled any more.
    weighted : slice or ndarray of bool
        Which rows of the sample these are.
    random_state : RandomState
    kinds : sequence of str
        The kinds of scatter matrices to choose from.
    degrees : sequence of float
        The degrees of freedom to choose from.
    n_init : int
        Restarts of equilibrium k-means at each alpha.
    max_iter, tol
        Of expectation maximization.
    report : callable or None
        Called for every run.
    kept : int
        How many short runs go on, by each criterion.
    box : Box or None
        The box of the rows, if mixtures have a background.
    tails : bool
        Whether the likelihood takes part in the choice (`shapes`).
    """

    sample: Problem
    rows: ScaledRows
    weighted: Any
    random_state: np.random.RandomState
    kinds: Sequence[str]
    degrees: Sequence[float]
    n_init: int
    max_iter: int
    tol: float
    report: Callable[[Fitted], None] | None = None
    kept: int = KEPT
    box: Box | None = None
    tails: bool = True

    @classmethod
    def of(
        cls,
        problem: Problem,
        centre: Float64,
        unit: float,
        random_state: np.random.RandomState,
        *,
        covariance_type: str,
        degrees_of_freedom: str | float,
        n_threads: int,
        n_rows: int,
        **settings: Any,
    ) -> MixtureSearch:
        """The search in a sample of the rows of a problem, relative to a centre and in units."""
        sample = problem.sample(n_rows, random_state)
        rows = sample.survey.sample.on_host()
        sparse = issparse(rows.X)
        if sparse and not is_wide(rows.X):
            rows = dense_rows(rows)
            sample = sample.of(rows)
        s = rows.sample_weight
        weighted = slice(None) if s is None else s > 0
        own = None if s is None else s[weighted].astype(np.float64)
        if issparse(rows.X):
            scaled: ScaledRows = ScaledSparseRows(rows.X[weighted], own, centre, unit, n_threads)
        else:
            X = (rows.X[weighted].astype(np.float64) - centre) / unit
            scaled = ScaledRows(X, own, np.zeros(X.shape[1]), 1.0, n_threads)
        return cls(
            sample,
            scaled,
            weighted,
            random_state,
            kinds=kinds_of(covariance_type, sparse=sparse, wide=issparse(rows.X)),
            degrees=degrees_of(degrees_of_freedom),
            **settings,
        )

    def best(self, k: int, further: Iterable[NDArray[Any]] = ()) -> Fitted:
        """The best mixture of k components that is found; ``further``: labels of more starts.

        A background begins from what is found without it. Components that it might replace are
        those of mixtures with one more, so that runs with a background also begin from these,
        without their widest component. On 36 sets of two to four round clusters in 10 to 40 % of
        noise the mean ARI of the clusters was .79 with the background of the best mixture alone,
        which had spent a component on the noise in every second set. A background that takes part
        in all runs was worse on 24 problems of the family 'background' (.799 and .819): which runs
        go on is then decided before it has found its rows.
        """
        if issparse(self.rows.X):
            return self._of_sparse(k)
        if self.box is None and self._correlated:
            found = self._confirmed(k) or self._from_components(k, further)
            if found is not None:
                return found
        return self._searched(k, further)

    def _searched(self, k: int, further: Iterable[NDArray[Any]]) -> Fitted:
        """The best mixture of those that begin from the labels of many restarts."""
        runs = self._runs(self.kinds)
        races = self.box is None  # a background begins from several of the short runs
        labels = [*self._labellings(k), *further]
        short = best_of(runs.short(labels, race=races))
        found = runs.search(short, self.kept, moves=not self._correlated)
        if self.box is None:
            return found
        mixtures = [found.mixture, *(fitted.mixture for fitted in short[: self.kept])]
        starts = [runs.background_labels(mixture, self.box) for mixture in mixtures]
        if k < len(self.rows.X):
            more = runs.short(self._labellings(k + 1), race=False)
            widest = [one for one in best_of(more) if len(one.mixture.weights) == k + 1]
            starts += [runs.without_widest(one.mixture) for one in widest[:WITHOUT_WIDEST]]
        return runs.with_background(starts, self.box)

    def _runs(self, kinds: Sequence[str]) -> Runs:
        settings = self.degrees, self.max_iter, self.tol, self.report
        return Runs(self.rows, kinds, *settings, races=not self._correlated, tails=self.tails)

    def _confirmed(self, k: int) -> Fitted | None:
        """The mixture that begins from the clusters of `EKMeans`, or None if it changes them."""
        if not 1 < k < self.rows.n_rows:
            return None
        labels = self._clusters(k)
        if labels.max() + 1 < k or np.bincount(labels).min() < LEAST_ROWS:
            return None
        runs = self._runs(self.kinds[:1])
        fitted = runs.search(runs.short([labels]))
        same = adjusted_rand(label(fitted.mixture, self.rows), labels) >= CONFIRMED
        return fitted if same else None

    def _from_components(self, k: int, further: Iterable[NDArray[Any]]) -> Fitted | None:
        """The mixture that begins from the labels of one in the leading principal components.

        None if that has fewer labels than components.
        """
        if not 1 < k < self.rows.n_rows:
            return None
        search = self._in_components(k)
        found = search._searched(k, further)
        labels = compact(label(found.mixture, search.rows))
        return self._runs(self.kinds).from_labels(labels) if labels.max() + 1 == k else None

    def _in_components(self, k: int) -> MixtureSearch:
        """The search in the leading components of the weighted rows, which are not correlated."""
        s, n_threads = self.rows.sample_weight, self.rows.n_threads
        of_rows = ArrayRows(np.ascontiguousarray(self._evidence), s, n_threads)
        problem = Problem(of_rows, k, tol=self.sample.tol, max_iter=self.sample.max_iter)
        centre, unit = centre_and_unit(problem)
        rows = replace(self.rows, X=(of_rows.X - centre) / unit, centre=np.zeros(len(centre)))
        return replace(
            self, sample=problem, rows=rows, weighted=slice(None), kinds=kinds_of("auto")
        )

    def _clusters(self, k: int) -> NDArray[np.intp]:
        """The labels of the weighted rows by `EKMeans`."""
        problem = self.sample.with_clusters(k)
        found, alpha = find_clusters(problem, "auto", "auto", self.random_state)
        names = merge_all(found[None], np.array([alpha]))[0]
        return compact(self.sample.survey.sample.on_host().label(found, names)[self.weighted])

    def from_clusters(self, labels: NDArray[np.intp]) -> Fitted:
        """The best mixture that begins from these labels of the weighted rows alone."""
        fits: list[Fitted] = []
        for kind in self.kinds:
            starts = [from_labels(self.rows, labels, kind, v) for v in self.degrees]
            fits += expectation_maximization(
                stacked(starts), self.rows, max_iter=self.max_iter, tol=self.tol
            )
        if self.report is not None:
            for fitted in fits:
                self.report(fitted)
        best = best_of(fits)[0]
        if self.box is None:
            return best
        runs = self._runs(self.kinds)
        return runs.with_background([runs.background_labels(best.mixture, self.box)], self.box)

    def _of_sparse(self, k: int) -> Fitted:
        """The best mixture of sparse rows that begins from the clusters of `EKMeans`.

        One run after another, since arrays of K D numbers may take more memory than the rows. Of
        18,000 texts with 100,000 words and 20 topics (`bench/sparse_mixture`) `EKMeans` had
        an ARI of .963, the mixture of the kind 'spherical' .967 and that of the kind 'diag', which
        has more variances than the texts have numbers, .171. On a second set the first two had
        .985 and .996.
        """
        alone = k == 1 or self.rows.n_rows <= k or self.sample.dispersion == 0
        labels = np.zeros(self.rows.n_rows, np.intp) if alone else self._clusters(k)
        runs = Runs(self.rows, self.kinds, self.degrees, self.max_iter, self.tol, self.report)
        found = runs.one_by_one(labels)
        if self.box is None:
            return found
        return runs.with_background([runs.background_labels(found.mixture, self.box)], self.box)

    @cached_property
    def _correlated(self) -> bool:
        """Whether features are so strongly correlated that likelihoods are poor judges.

        Where they are, there are no moves and runs do not race. Before there were other rules for
        them, the mean ARI on 84 draws of codes of a neural network, with 128 features and 2 to 5
        classes, was .94 so, .83 with starts in which components of a larger mixture were joined,
        although their criterion was larger, and .82 with the race.
        """
        return bool(self._evidence.shape[1] < self.rows.X.shape[1])

    @cached_property
    def _evidence(self) -> Any:
        """The rows themselves, or their leading components if features are strongly correlated."""
        return evidence_features(self.rows.X, self.rows.sample_weight)

    def from_more(self, more: Fitted) -> list[Fitted]:
        """Mixtures of one component less, from this one with two of its components joined."""
        rows = self.rows
        joined = joined_labels(more.mixture, rows, JOINED)
        fits = []
        for kind in self.kinds if joined else ():
            starts = [
                from_labels(rows, compact(each), kind, float(more.mixture.degrees), self.box)
                for each in joined
            ]
            fits += expectation_maximization(
                stacked(starts), rows, max_iter=self.max_iter, tol=self.tol
            )
        if self.report is not None:
            for fitted in fits:
                self.report(fitted)
        return fits

    def _labellings(self, k: int) -> Iterator[NDArray[Any]]:
        """Yield labels of the weighted rows from which expectation maximization begins."""
        n, sample = len(self.rows.X), self.sample.with_clusters(k)
        if k == 1 or sample.dispersion == 0:
            yield np.zeros(n, np.intp)
            return
        # Where a sketch has the clusters, centroids of all rows would only be more exact starts.
        sketch = sample.sketch(max(SKETCH_ROWS, ROWS_PER_COMPONENT * k), self.random_state)
        starts = sketch.starts("auto", self.n_init, self.random_state)
        dvariance = resolve_alpha("dvariance", 2.0, sketch.dispersion)
        alphas = dvariance * MULTIPLES[::EVERY]
        ends, J = sketch.ends(starts, alphas.repeat(len(starts)), tol=TOL, max_iter=PASSES)
        lowest = J.reshape(len(alphas), -1).argmin(axis=1)
        found = ends[np.arange(len(alphas)) * len(starts) + lowest]
        rows = sample.survey.sample.on_host()
        for centroids, names in zip(found, merge_all(found, alphas), strict=True):
            yield rows.label(centroids, names)[self.weighted]
        if n >= k:
            (centroids,) = initial_centroids(rows, k, "k-means", 1, self.random_state)
            nearest = rows.nearest(centroids)[0][self.weighted]
            yield gaussian_labels(replace(self.rows, sample_weight=None), k, nearest)


def kinds_of(covariance_type: str, *, sparse: bool = False, wide: bool = False) -> tuple[str, ...]:
    """The kinds of scatter matrices among which a parameter lets the search choose.

    ``sparse``: of sparse rows; ``wide``: of those that are not searched as dense ones.
    """
    if covariance_type != "auto":
        return (covariance_type,)
    if sparse:
        return ("spherical",) if wide else ("diag",)
    return ("diag", "full")


def degrees_of(degrees_of_freedom: str | float) -> tuple[float, ...]:
    """The degrees of freedom among which a parameter lets the search choose."""
    return DEGREES if isinstance(degrees_of_freedom, str) else (float(degrees_of_freedom),)


def restarts(n_init: int | str) -> int:
    """The number of restarts that the parameter of the estimator means."""
    return N_INIT if isinstance(n_init, str) else n_init


def centre_and_unit(problem: Problem) -> tuple[Float64, float]:
    """The mean of the rows, and the root mean square distance of a feature from it."""
    radius = math.sqrt(2 * problem.dispersion / problem.rows.n_features)
    return problem.survey.mean, radius if radius > 0 else 1.0
