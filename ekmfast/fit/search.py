"""All starts at all alphas, in shared passes, and which alpha's result is the likeliest."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.evidence import evidence_features
from ekmfast.fit.likelihood import classification_likelihood
from ekmfast.fit.merging import count_distinct, merge_coincident
from ekmfast.fit.problem import Problem
from ekmfast.fit.rand import adjusted_rand
from ekmfast.fit.solver import Run
from ekmfast.rows.survey import SAMPLE_ROWS

Float64 = NDArray[np.float64]

# Relative: likelihoods of the same clusters, summed from different centroids and in any order.
SAME_LIKELIHOOD = 1e-9


@dataclass(frozen=True)
class AlphaPath:
    """What :func:`alpha_path` found; entry a of every array belongs to ``alphas[a]``.

    Attributes
    ----------
    alphas : ndarray of shape (A,)
        Ascending.
    dvariance : float
        The alpha of the rule ``'dvariance'``, the unit in which alphas of data sets compare.
    centroids : ndarray of shape (A, K, D), dtype of X
        Of the restart with the lowest objective.
    labels : ndarray of shape (A, N) or (A, M), int32
        Nearest centroid; coincident centroids share the first one's label. Of data that is read in
        blocks only M sampled rows have labels here, at most 50,000.
    rows : ndarray of shape (M,) or None
        The numbers of the rows that ``labels`` are of; None: of all, in order.
    sizes : ndarray of shape (A, K)
        Rows with each label (their weights, with ``sample_weight``); 0 for a merged centroid.
    n_clusters_effective : ndarray of shape (A,)
        Centroids that do not coincide with another.
    objective : ndarray of shape (A,)
        J. It falls as alpha grows whatever the clusters, so it does not choose between alphas.
    likelihood : ndarray of shape (A,)
        Mean log likelihood of rows and labels under one heavy-tailed distribution a cluster;
        comparable between alphas. -inf where all rows have one label.
    n_components : int or None
        Where the features are strongly correlated, as codes of neural networks are, the likelihood
        is that of the rows' leading principal components, which hold 70 % of the variance; this is
        their number. None: the likelihood is that of the features as given.
    agreement : ndarray of shape (A,)
        Mean adjusted Rand index with the labels of the neighbouring alphas: near 1 on a plateau.
    converged : ndarray of shape (A,), bool
    best : int
        Entry of the largest likelihood, of equals the middle one: the alpha that
        ``EKMeans(alpha="auto")`` takes. With ``n_components``, among the results whose centroids
        are all distinct, where there are any.
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
    _runs: list[Run] = field(repr=False, default_factory=list)


def explore(problem: Problem, starts: Float64, alphas: Float64, dvariance: float) -> AlphaPath:
    """Run every start (S, K, D) at every alpha (A,) and keep the best of each alpha.

    Labels are those of all rows, or of the survey's sample where that does not hold all.
    """
    n_starts, n_clusters = starts.shape[:2]
    everything = problem.solve(np.concatenate([starts] * len(alphas)), np.repeat(alphas, n_starts))
    lowest = everything.objectives.reshape(-1, n_starts).argmin(axis=1)
    runs = [everything[a * n_starts + int(i)] for a, i in enumerate(lowest)]
    rows = problem.survey.sample.on_host()
    X, weight = rows.X, rows.sample_weight
    sample: slice | NDArray[np.intp] = slice(None)
    if len(X) > SAMPLE_ROWS:
        sample = np.random.default_rng(0).choice(len(X), SAMPLE_ROWS, replace=False)
        sample.sort()
    sampled_weight = None if weight is None else weight[sample]
    evidence = evidence_features(X[sample], sampled_weight)

    labels = np.empty((len(runs), len(X)), np.int32)
    merged = [merge_coincident(run.centroids, run.alpha) for run in runs]
    effective = np.array([count_distinct(names) for names in merged])
    likelihood = np.empty(len(runs))
    for a, run in enumerate(runs):
        labels[a] = rows.label(run.centroids, merged[a])
        likelihood[a] = classification_likelihood(evidence, labels[a][sample], sampled_weight)
    alike = [adjusted_rand(a, b) for a, b in pairwise(labels)]
    allowed = np.ones(len(runs), bool)
    if evidence.shape[1] < X.shape[1] and (effective == n_clusters).any():
        # What tells merged clusters apart may lie in the components that were left out.
        allowed = effective == n_clusters
    left, right = np.array([np.nan, *alike]), np.array([*alike, np.nan])
    return AlphaPath(
        alphas=alphas,
        dvariance=dvariance,
        centroids=np.stack([run.centroids for run in runs]).astype(X.dtype),
        labels=labels,
        rows=problem.survey.numbers,
        sizes=_sizes(problem, runs, merged, labels, weight),
        n_clusters_effective=effective,
        objective=np.array([run.objective for run in runs]),
        likelihood=likelihood,
        agreement=np.nanmean([left, right], axis=0) if alike else np.ones(1),
        converged=np.array([run.converged for run in runs]),
        best=_most_likely(np.where(allowed, likelihood, -np.inf)),
        n_components=None if evidence.shape[1] == X.shape[1] else evidence.shape[1],
        _runs=runs,
    )


def _sizes(
    problem: Problem,
    runs: list[Run],
    merged: list[NDArray[np.intp]],
    labels: NDArray[np.int32],
    weight: NDArray[Any] | None,
) -> Float64:
    """The weight of the rows with each label, (A, K)."""
    n_clusters = len(merged[0])
    if problem.survey.whole:
        return np.stack([np.bincount(row, weight, n_clusters) for row in labels]).astype(float)
    # One more pass, by hard k-means: its sums of weights are the sizes.
    centroids = np.stack([run.centroids for run in runs])
    hard = problem.rows.with_weighting("hard").statistics(centroids, np.ones(len(runs)))
    pairs = zip(merged, hard.sum_w, strict=True)
    return np.stack([np.bincount(names, own, n_clusters) for names, own in pairs])


def _most_likely(likelihood: Float64) -> int:
    """Where the likelihood is largest; of equals the middle one.

    Alphas that find the same clusters have likelihoods that differ by rounding, which must not
    choose between them.
    """
    if not np.isfinite(likelihood).any():
        # The sharpest memberships are the least likely to have merged what differs.
        return len(likelihood) - 1
    largest = likelihood.max()
    equal = np.flatnonzero(likelihood >= largest - SAME_LIKELIHOOD * (1 + abs(largest)))
    return int(equal[(len(equal) - 1) // 2])
