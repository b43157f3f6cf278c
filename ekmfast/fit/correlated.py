"""The search of ``alpha='auto'`` where features are strongly correlated: in their components.

In the codes of a neural network the likelihood is a worse judge, since it counts the same
information many times. It is therefore computed from some components (`fit.evidence`), J decides
between runs at one alpha, all alphas are tried, and their ends are not refined to mixtures. All
starts run at four alphas, and their best ends go on to the alphas between these.

The leading components that hold nearly all of the variance are far fewer than the features, and
distances in them are nearly those between the rows. Runs in these components take a fraction of the
time. They end early, on some of the rows. The run that is chosen goes on to its end, in components
on all rows of the search and then in all features. If centroids coincide there that were distinct
where it ended early, as may be at small alphas, the next likely run is chosen: without this 2 of 60
synthetic problems of 1,000 to 5,000 rows got fewer clusters than were asked for, with it none, and
the mean ARI was .848 and .850 (.850 with 16 runs in all features).

The rules were chosen on draws and data sets with strongly correlated features, none of which is
published. On 201 small ones, codes of seven models of three widths, digits, sentence embeddings and
labelled tables, the mean ARI is .761 with 16 runs in all features, each to its end, at each alpha,
and .762 in the components (+.000 +- .001), in a quarter of the time (10 ms for 46, one thread, Zen
5). On 158 synthetic ones of 4,000 to 40,000 rows and 32 to 128 features it is .848 and .853 (+.005
+- .008), in a fifth (62 ms for 335). There 12 starts by `seeding.SEARCH_RULES`, of which fewer are
farthest-first, lost .020.

All starts at all alphas, as it was in these comparisons, take 1.6 (codes) to 1.8 times as long as
now, and the mean ARI changed by +.003 +- .003 (126 draws of codes), -.000 +- .000 (300 draws with
classes of 10 and 20 rows) and +.001 +- .003 (90 synthetic problems). The smallest alpha must be one
of the four: where all starts run from the second one on, these 300 draws lost .053 +- .011.

All runs from the starts go on to their ends. Where only those with the four lowest J at each alpha
go on after eight passes, a fit takes .86 of the time, and after five .74, but the mean ARI on 60
synthetic problems was lower by .006 +- .005 and .016 +- .010. With a tolerance of 1e-2, from which
the best two at each alpha go on, it takes .90, and lost .002 +- .001 on 120.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.alpha import MULTIPLES
from ekmfast.fit.evidence import VARIANCE_SHARE, Components
from ekmfast.fit.likelihood import likelihoods_of_labels
from ekmfast.fit.merging import count_distinct, merge_all, merge_coincident
from ekmfast.fit.moved import moved
from ekmfast.fit.problem import Problem
from ekmfast.fit.search import most_likely
from ekmfast.rows.array import ArrayRows

Float64 = NDArray[np.float64]

# The share of the variance that the components of the runs hold. With .95 the mean ARI was lower by
# .002 and .004, and lower on digits whose features had been scaled to equal variances.
SEARCH_SHARE = 0.98
# Of the runs. Centroids that coincide at one alpha would not yet do so at a larger tolerance, which
# may therefore be smaller than that of the fit.
TOL, PASSES = 1e-3, 40
# The alphas of the grid at which all starts run. Classes of few rows are found at the smallest.
FIRST = (0, 3, 6, 9)


def _lowest(part: Problem, starts: Float64, alphas: Float64) -> Float64:
    """The ends (A, K, D) with the lowest J found at each alpha (A,), from starts (S, K, D).

    All starts run at the alphas `FIRST`. At those between them, runs begin where the best ones at
    the next of these alphas, above and below, have ended.
    """
    lowest = np.full(len(alphas), np.inf)
    ends = np.empty((len(alphas), *starts.shape[1:]))

    def run(centroids: Float64, numbers: NDArray[np.intp]) -> None:
        max_iter = min(PASSES, part.max_iter)
        runs = part.solve(centroids, alphas[numbers], tol=TOL, max_iter=max_iter)
        for i, (a, objective) in enumerate(zip(numbers, runs.objectives, strict=True)):
            if objective < lowest[a]:
                lowest[a], ends[a] = objective, runs.position(i)[0]

    run(np.concatenate([starts] * len(FIRST)), np.repeat(FIRST, len(starts)))
    others = np.setdiff1d(np.arange(len(alphas)), FIRST)
    next_above = np.searchsorted(FIRST, others)
    pairs = [(a, FIRST[i - 1]) for a, i in zip(others, next_above, strict=True) if i > 0]
    pairs += [(a, FIRST[i]) for a, i in zip(others, next_above, strict=True) if i < len(FIRST)]
    to, source = np.array(pairs).T
    run(ends[source], to)
    return ends


def find_in_components(
    problem: Problem,
    components: Components,
    dvariance: float,
    n_rows: int,
    draw: Callable[[ArrayRows], Float64],
    given: Float64 | None,
    random_state: np.random.RandomState,
) -> tuple[Float64, float]:
    """Centroids (K, D) in all features, and the alpha with which they were found.

    Runs iterate on ``n_rows`` of the problem's rows, from starts that ``draw`` finds in these or
    from the given ones (S, K, D). They are compared on all rows.
    """
    rows = problem.survey.sample.on_host()
    few = components.first(SEARCH_SHARE)
    features = few.of_rows(rows.part(slice(None)))
    weight = rows.likelihood_weight(slice(None))
    evidence = np.ascontiguousarray(features[:, : len(components.first(VARIANCE_SHARE).held)])
    X = features.astype(rows.dtype)
    report = moved(problem.report, few.rows_of)
    reduced = problem.of(ArrayRows(X, rows.sample_weight, rows.n_threads), report)
    part = reduced.sketch(n_rows, random_state)
    starts = draw(part.survey.sample.on_host()) if given is None else few.of_rows(given)
    alphas = dvariance * MULTIPLES
    ends = _lowest(part, starts, alphas)
    names = merge_all(ends, alphas)
    labels = reduced.survey.sample.on_host().label_each(ends, names.astype(np.int32))
    likelihood = likelihoods_of_labels(evidence, labels, weight, rows.n_threads)
    # The likelihood leaves out some components, and clusters may differ in these alone. It could
    # therefore prefer a result in which such clusters are merged.
    n_distinct = np.array([count_distinct(own) for own in names])
    complete = n_distinct == problem.n_clusters
    while complete.any():
        best = most_likely(np.where(complete, likelihood, -np.inf))
        end = reduced.solve(ends[best][None], alphas[best]).best
        # Centroids that will coincide may not yet do so where a run was ended early.
        merged = merge_coincident(end.centroids, float(alphas[best]))
        if count_distinct(merged) == problem.n_clusters:
            return few.rows_of(end.centroids), float(alphas[best])
        complete[best] = False
    best = most_likely(likelihood)
    return few.rows_of(ends[best]), float(alphas[best])
