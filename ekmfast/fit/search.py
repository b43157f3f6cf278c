"""All starts at all alphas, in shared passes, and which alpha's result is the likeliest."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Candidates:
    """The best run at each of A alphas, its labels of the rows at hand, and the likeliest."""

    runs: list[Run]
    merged: list[NDArray[np.intp]]  # of each run the first of the centroids that coincide
    labels: NDArray[np.int32]  # (A, N)
    n_distinct: NDArray[np.intp]  # (A,), centroids that do not coincide with another
    likelihood: Float64  # (A,)
    n_components: int | None
    best: int


def compare_alphas(problem: Problem, starts: Float64, alphas: Float64) -> Candidates:
    """Run every start (S, K, D) at every alpha (A,), and compare the best of each alpha.

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
    n_distinct = np.array([count_distinct(names) for names in merged])
    likelihood = np.empty(len(runs))
    known: dict[bytes, float] = {}  # neighbouring alphas often give the same labels
    for a, run in enumerate(runs):
        labels[a] = rows.label(run.centroids, merged[a])
        key = labels[a].tobytes()
        if key not in known:
            known[key] = classification_likelihood(evidence, labels[a][sample], sampled_weight)
        likelihood[a] = known[key]
    allowed = np.ones(len(runs), bool)
    if evidence.shape[1] < X.shape[1] and (n_distinct == n_clusters).any():
        # What tells merged clusters apart may lie in the components that were left out.
        allowed = n_distinct == n_clusters
    n_components = None if evidence.shape[1] == X.shape[1] else evidence.shape[1]
    best = _most_likely(np.where(allowed, likelihood, -np.inf))
    return Candidates(runs, merged, labels, n_distinct, likelihood, n_components, best)


def path_of(problem: Problem, found: Candidates, dvariance: float) -> AlphaPath:
    """The candidates as what :func:`alpha_path` returns."""
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


def _sizes(problem: Problem, found: Candidates) -> Float64:
    """The weight of the rows with each label, (A, K)."""
    n_clusters = len(found.merged[0])
    if problem.survey.whole:
        weight = problem.survey.sample.sample_weight
        sizes = [np.bincount(row, weight, n_clusters) for row in found.labels]
        return np.stack(sizes).astype(float)
    # One more pass, by hard k-means: its sums of weights are the sizes.
    centroids = np.stack([run.centroids for run in found.runs])
    hard = problem.rows.with_weighting("hard").statistics(centroids, np.ones(len(found.runs)))
    pairs = zip(found.merged, hard.sum_w, strict=True)
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
