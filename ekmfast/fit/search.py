"""Runs from all starts at all alphas, in shared passes, and the choice of alpha by likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.evidence import evidence_features
from ekmfast.fit.likelihood import likelihoods_of_labels
from ekmfast.fit.merging import count_distinct, merge_all
from ekmfast.fit.problem import Problem
from ekmfast.fit.rand import adjusted_rand
from ekmfast.fit.solver import Run
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.survey import SAMPLE_ROWS

Float64 = NDArray[np.float64]

# Likelihoods that differ by less than this relative difference are treated as equal. Equal labels
# have equal likelihoods; labels that differ only in their numbering differ by rounding errors.
SAME_LIKELIHOOD = 1e-9


@dataclass(frozen=True)
class AlphaPath:
    """The result of :func:`alpha_path`; entry a of every array belongs to ``alphas[a]``.

    Attributes
    ----------
    alphas : ndarray of shape (A,)
        Ascending.
    dvariance : float
        The alpha of the rule ``'dvariance'``. Alphas of different data sets are comparable as
        multiples of it. For sparse rows with more than 500 features it is the alpha that
        corresponds to that of the rule for the rows in their leading directions.
    centroids : ndarray of shape (A, K, D), dtype of X
        The centroids of the restart with the lowest objective.
    labels : ndarray of shape (A, N) or (A, M), int32
        The nearest centroid of each row; coincident centroids share the first one's label. If the
        data is read in blocks, only M sampled rows have labels here, at most 50,000.
    rows : ndarray of shape (M,) or None
        The numbers of the rows whose labels these are. None if ``labels`` has all rows, in order.
    sizes : ndarray of shape (A, K)
        The number of rows with each label, or the sum of their ``sample_weight``. It is 0 for a
        centroid that shares the label of an earlier one.
    n_clusters_effective : ndarray of shape (A,)
        The number of distinct centroids, where coincident ones count once.
    objective : ndarray of shape (A,)
        J. It decreases as alpha grows, whatever the clusters are, so it cannot be used to choose
        alpha.
    likelihood : ndarray of shape (A,)
        The mean log likelihood of rows and labels, if each cluster has a heavy-tailed distribution.
        It can be compared between alphas. It is -inf if all rows have the same label.
    n_components : int or None
        If the features are strongly correlated, as codes of neural networks are, the likelihood is
        computed from the leading principal components, which hold 70 % of the variance (of sparse
        rows at most 50 components); of sparse rows with more than 500 features, from their leading
        directions. This is their number. None if the likelihood is computed from the features of X.
    agreement : ndarray of shape (A,)
        The mean adjusted Rand index with the labels at the neighbouring alphas. It is near 1 where
        the labels hardly depend on alpha.
    converged : ndarray of shape (A,), bool
    best : int
        The entry with the largest likelihood, or the middle one of several that are equal. Mostly
        ``EKMeans(alpha="auto")`` finds the same clusters, by a shorter search in which the
        likelihood also chooses between restarts. If ``n_components`` is not None, only results
        whose centroids are all distinct are considered, provided that there are any. With
        ``target_sizes`` it is the entry with the smallest ``size_errors`` instead, and the most
        likely one of several that are equal.
    size_errors : ndarray of shape (A,) or None
        How far the sizes are from ``target_sizes``: the share of the rows that would have to change
        their cluster, ``1/2 sum_k |sorted share_k - sorted target_k|``. None if ``target_sizes`` is
        not given.
    """

    alphas: Float64
    dvariance: float
    centroids: NDArray[Any]
    labels: NDArray[np.int32]
    sizes: Float64
    n_clusters_effective: NDArray[np.intp]
    objective: Float64
    likelihood: Float64
    agreement: Float64
    converged: NDArray[np.bool_]
    best: int
    n_components: int | None = None
    rows: NDArray[np.intp] | None = None
    size_errors: Float64 | None = None


@dataclass(frozen=True)
class Candidates:
    """The best run at each of A alphas, its labels, and which run has the largest likelihood."""

    runs: list[Run]
    merged: list[NDArray[np.intp]]  # for each run (K,), see `merge_coincident`
    labels: NDArray[np.int32]  # (A, N)
    n_distinct: NDArray[np.intp]  # (A,), numbers of distinct centroids
    likelihood: Float64  # (A,)
    n_components: int | None
    best: int


def compare_alphas(problem: Problem, starts: Float64, alphas: Float64) -> Candidates:
    """Run every start (S, K, D) at every alpha (A,), and compare the best run of each alpha.

    The labels are those of the rows in the survey's sample, which may be all rows.
    """
    return compare_runs(problem, problem.best(starts, alphas), alphas)


def compare_runs(
    problem: Problem, runs: list[Run], alphas: Float64, reduced: ArrayRows | None = None
) -> Candidates:
    """Compare one run for each alpha (A,), by rows of fewer features if ``reduced`` is given."""
    n_clusters = problem.n_clusters
    rows = problem.survey.sample.on_host()
    sample: slice | NDArray[np.intp] = slice(None)
    if rows.n_rows > SAMPLE_ROWS:
        sample = np.random.default_rng(0).choice(rows.n_rows, SAMPLE_ROWS, replace=False)
        sample.sort()
    sampled_weight = rows.likelihood_weight(sample)
    if reduced is None:
        evidence = evidence_features(rows.part(sample), sampled_weight)
    else:
        evidence = reduced.part(sample)

    labels = np.empty((len(runs), rows.n_rows), np.int32)
    merged = list(merge_all(np.stack([run.centroids for run in runs]), alphas))
    n_distinct = np.array([count_distinct(names) for names in merged])
    for a, run in enumerate(runs):
        labels[a] = merged[a][rows.nearest(run.centroids)[0]]
    likelihood = likelihoods_of_labels(evidence, labels[:, sample], sampled_weight, rows.n_threads)
    allowed = np.ones(len(runs), bool)
    if evidence.shape[1] < rows.n_features and (n_distinct == n_clusters).any():
        # The likelihood leaves out some components, and clusters may differ in these alone. It
        # could therefore prefer a result in which such clusters are merged.
        allowed = n_distinct == n_clusters
    n_components = None if evidence.shape[1] == rows.n_features else evidence.shape[1]
    best = most_likely(np.where(allowed, likelihood, -np.inf))
    return Candidates(runs, merged, labels, n_distinct, likelihood, n_components, best)


def path_of(problem: Problem, found: Candidates, dvariance: float) -> AlphaPath:
    """Make of the candidates the result that :func:`alpha_path` returns."""
    runs, labels = found.runs, found.labels
    alike = [adjusted_rand(a, b) for a, b in pairwise(labels)]
    left, right = np.array([np.nan, *alike]), np.array([*alike, np.nan])
    return AlphaPath(
        alphas=np.array([run.alpha for run in runs]),
        dvariance=dvariance,
        centroids=np.stack([run.centroids for run in runs]).astype(problem.dtype),
        labels=labels,
        rows=problem.survey.numbers,
        sizes=_sizes(problem, found),
        n_clusters_effective=found.n_distinct,
        objective=np.array([run.objective for run in runs]),
        likelihood=found.likelihood,
        agreement=np.nanmean([left, right], axis=0) if alike else np.ones(1),
        converged=np.array([run.converged for run in runs]),
        best=found.best,
        n_components=found.n_components,
    )


def with_target_sizes(path: AlphaPath, target_sizes: Float64) -> AlphaPath:
    """The path whose best entry has the sizes that are nearest to proportions (K,)."""
    shares = np.sort(path.sizes / path.sizes.sum(axis=1, keepdims=True), axis=1)
    errors = 0.5 * np.abs(shares - np.sort(target_sizes / target_sizes.sum())).sum(axis=1)
    nearest = np.flatnonzero(errors <= errors.min() + SAME_LIKELIHOOD)
    best = nearest[most_likely(path.likelihood[nearest])]
    return replace(path, best=int(best), size_errors=errors)


def _sizes(problem: Problem, found: Candidates) -> Float64:
    """The total weight (A, K) of the rows with each label."""
    n_clusters = len(found.merged[0])
    if problem.survey.whole:
        weight = problem.survey.sample.sample_weight
        sizes = [np.bincount(row, weight, n_clusters) for row in found.labels]
        return np.stack(sizes).astype(float)
    # The sizes are the sums of weights of hard k-means, which one more pass over all rows computes.
    centroids = np.stack([run.centroids for run in found.runs])
    hard = problem.rows.with_weighting("hard").statistics(centroids, np.ones(len(found.runs)))
    mass = hard.sum_w
    if mass.ndim > 2:  # numbers are missing: the mean over the features is the weight of the rows
        mass = mass.mean(axis=-1)
    pairs = zip(found.merged, mass, strict=True)
    return np.stack([np.bincount(names, own, n_clusters) for names, own in pairs])


def most_likely(likelihood: Float64) -> int:
    """The index of the largest likelihood, or the middle one of several that are equal.

    Alphas that find the same clusters have likelihoods that differ by rounding errors, which must
    not decide between them.
    """
    if not np.isfinite(likelihood).any():
        # All candidates have only one label. Distinct clusters are least likely to have been merged
        # at the largest alpha, where memberships are sharpest.
        return len(likelihood) - 1
    largest = likelihood.max()
    equal = np.flatnonzero(likelihood >= largest - SAME_LIKELIHOOD * (1 + abs(largest)))
    return int(equal[(len(equal) - 1) // 2])
