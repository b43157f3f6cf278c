"""The searches of ``alpha='auto'`` and `alpha_path` in wide sparse rows: in their directions.

Rows of an array that holds zeros mostly are searched as if they were sparse.

Of texts, most of the dispersion in all features is that of single words, and the alphas of the
grid, which are multiples of its inverse, are too small to tell topics apart. In the leading
directions (`fit.directions`) the rows are dense and short, and the search is that of
`fit.likeliest`. The centroids that it finds are then iterated over all rows in all features.

1. The rows that are searched are the rows in these directions, and divided by their lengths there
   if the metric is the cosine or if all rows have the same length, as those of TF-IDF have. Rows of
   one length are told apart by their angles, and long documents would otherwise lie farther out.
2. A squared distance in all features differs from one in the directions by a number that hardly
   depends on the centroid, so that memberships in both are nearly the same. Alpha times the
   dispersion of the rows in the directions is what stays the same where these are divided by their
   lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.directions import LEAST_LENGTH, WIDE, InDirections, is_wide, n_directions
from ekmfast.fit.likeliest import find_likeliest, search_rows
from ekmfast.fit.moved import moved
from ekmfast.fit.problem import Problem
from ekmfast.fit.seeding import initial_centroids, resolve_n_init
from ekmfast.fit.solver import Run
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.given import rows_in_memory, unit_rows_in_memory
from ekmfast.rows.threads import one_blas_thread
from ekmfast.rows.unit import ZeroOrUnit

Float64 = NDArray[np.float64]

# In the Euclidean metric the last run over rows of one length has so many times the alpha that is
# found by angle: at smaller ones the centroids of topics with few words in common are repelled into
# others. With 4, 16 and 64 times it the mean ARI was .29, .34 and .35 on 45 draws of docstrings,
# and the same on generated texts.
FLAT = 16.0

# The largest share of numbers other than zero of an array whose rows are searched as sparse ones.
# On 70 draws of docstrings as arrays the mean ARI is .329 in the directions and .124 in all
# features (+.206 +- .017), in .18 of the time (median).
MOSTLY_ZEROS = 0.1


def as_wide(problem: Problem) -> Problem | None:
    """The problem of the same rows as wide sparse ones; None if they are of another kind.

    The rows of an array are of this kind if most of its numbers are zero, as those of texts are.
    Rows in blocks, of which the sample has only some, are not.
    """
    if problem.rows is not problem.survey.sample:
        return None
    rows: Any = problem.survey.sample
    if is_wide(rows.X):
        return problem
    X = rows.X
    if not isinstance(X, np.ndarray) or X.shape[1] <= WIDE or rows.space == "features":
        return None
    if np.count_nonzero(X) > MOSTLY_ZEROS * X.size:
        return None
    given = csr_matrix(X), rows.sample_weight, rows.n_threads
    if rows.space == "unit":
        sparse = unit_rows_in_memory(*given, zeros=isinstance(rows, ZeroOrUnit))
    else:
        sparse = rows_in_memory(*given)
    return problem.of(sparse, problem.report)


class Reduced:
    """A problem in the leading directions of its rows, and the way back to all features.

    Attributes
    ----------
    rows : InDirections
    problem : Problem
        That of the rows in these directions.
    factor : float
        A run in all features has so many times the alpha of a run in the directions.
    """

    def __init__(self, whole: Problem) -> None:
        self.whole = whole
        rows = whole.survey.sample.on_host()
        self.rows = few = InDirections.of(rows, n_directions(whole.n_clusters))
        directions = few.directions
        report = moved(whole.report, lambda centroids: centroids @ directions.T)
        self.problem = whole.of(few.rows, report)
        self.flat = few.by_angle and rows.space != "unit"
        self.factor = FLAT if self.flat else 1.0
        if self.problem.dispersion > 0:
            in_features = ArrayRows(few.features, few.weight).survey().dispersion
            self.factor *= self.problem.dispersion / in_features

    @classmethod
    def of(cls, problem: Problem) -> Self | None:
        """None if the rows do not differ in their leading directions."""
        reduced = cls(problem)
        return reduced if reduced.problem.dispersion > 0 else None

    def dvariance(self, scale: float) -> float:
        """The alpha of the rule ``'dvariance'`` in the directions."""
        return resolve_alpha("dvariance", scale, self.problem.dispersion)

    def given(
        self, init: Any, n_init: int | str, random_state: np.random.RandomState
    ) -> tuple[Any, int | str]:
        """``init`` and ``n_init`` for the rows in the directions."""
        if isinstance(init, str):
            return init, n_init
        rows, few = self.whole.survey.sample.on_host(), self.rows
        n_init = resolve_n_init(n_init, init)
        starts = initial_centroids(rows, self.whole.n_clusters, init, n_init, random_state)
        starts = starts @ few.directions
        if few.by_angle:
            starts /= np.maximum(np.linalg.norm(starts, axis=2, keepdims=True), LEAST_LENGTH)
        return _one_by_one(starts), n_init

    def lifted(self, centroids: Float64) -> Float64:
        """Centroids (K, D) in all features from which a run there can begin."""
        if self.flat:
            centroids = _means(self.rows, centroids)
        lifted: Float64 = centroids @ self.rows.directions.T
        return lifted

    def best(
        self, init: Any, n_init: int | str, random_state: np.random.RandomState, alphas: Float64
    ) -> list[Run]:
        """The run in all features at each alpha (A,), from the best one there in the directions."""
        init, n_init = self.given(init, n_init, random_state)
        sketch = self.problem.sketch(search_rows(self.whole.n_clusters), random_state)
        starts = sketch.starts(init, resolve_n_init(n_init, init), random_state)
        found = sketch.best(starts, alphas / self.factor)
        return [
            self.whole.solve(self.lifted(run.centroids)[None], alpha).best
            for run, alpha in zip(found, alphas.tolist(), strict=True)
        ]


def find_in_directions(
    problem: Problem,
    init: Any,
    n_init: int | str,
    random_state: np.random.RandomState,
    scale: float,
) -> tuple[Float64, float] | None:
    """Centroids (K, D) in all features from which a fit can begin, and alpha.

    None if the rows do not differ in their leading directions. ``init``, ``n_init`` and ``scale``
    are those of `EKMeans`.
    """
    with one_blas_thread(n_directions(problem.n_clusters)):
        reduced = Reduced.of(problem)
        if reduced is None:
            return None
        given = reduced.given(init, n_init, random_state)
        sketch = reduced.problem.sketch(search_rows(problem.n_clusters), random_state)
        centroids, alpha = find_likeliest(sketch, *given, random_state, reduced.dvariance(scale))
        return reduced.lifted(centroids), alpha * reduced.factor


def given_for_array(
    problem: Problem, init: Any, n_init: int | str, random_state: np.random.RandomState
) -> tuple[Any, int | str]:
    """``init`` and ``n_init`` for the sparse rows of an array that is the problem's.

    A callable is called with the array, for which it was written.
    """
    if not callable(init):
        return init, n_init
    rows, n_starts = problem.survey.sample.on_host(), resolve_n_init(n_init, init)
    starts = initial_centroids(rows, problem.n_clusters, init, n_starts, random_state)
    return _one_by_one(starts), n_starts


def _one_by_one(starts: Float64) -> Callable[..., Float64]:
    """An ``init`` that returns one of the starts (S, K, R) whenever it is called."""
    left = iter(starts)
    return lambda X, n_clusters, random_state: next(left)


def _means(few: InDirections, centroids: Float64) -> Float64:
    """The mean (K, R) of each centroid's rows; a centroid without rows stays where it is."""
    labels, k = few.rows.nearest(centroids)[0], len(centroids)
    s = np.ones(len(labels)) if few.weight is None else few.weight
    mass = np.bincount(labels, s, k)
    sums = np.stack([np.bincount(labels, s * column, k) for column in few.features.T], axis=1)
    found = mass > 0
    means = centroids.copy()
    means[found] = sums[found] / mass[found, None]
    return means
