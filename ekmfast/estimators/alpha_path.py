"""alpha_path: one data set clustered at a grid of alphas, and what tells the results apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_array

from ekmfast import kernels
from ekmfast.estimators.base import (
    check_integer,
    check_number,
    check_seed,
    check_weight,
    count_distinct,
    merge_coincident,
)
from ekmfast.fit.alpha import MULTIPLES, SAMPLE_ROWS, classification_likelihood, resolve_alpha
from ekmfast.fit.evidence import evidence_features
from ekmfast.fit.problem import Problem
from ekmfast.fit.progress import Progress
from ekmfast.fit.rand import adjusted_rand
from ekmfast.fit.seeding import check_init, initial_centroids, resolve_n_init
from ekmfast.fit.solver import Run
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.columns import check_kind
from ekmfast.rows.threads import check_n_threads

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
    labels : ndarray of shape (A, N), int32
        Nearest centroid; coincident centroids share the first one's label.
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
    _runs: list[Run] = field(repr=False, default_factory=list)


def alpha_path(
    X: ArrayLike,
    n_clusters: int,
    alphas: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    init: Any = "auto",
    n_init: int | str = "auto",
    max_iter: int = 300,
    tol: float = 1e-4,
    random_state: int | np.random.RandomState | None = None,
    n_threads: int | None = None,
    verbose: int = 0,
) -> AlphaPath:
    """Cluster at every alpha of a grid, all alphas and restarts in shared passes over X.

    Parameters
    ----------
    X : array-like of shape (N, D)
        float32 and float64 are kept; others become float64.
    n_clusters : int
    alphas : array-like of shape (A,), default=None
        > 0. None: 1/2 to 32 times the alpha of the rule ``'dvariance'``, in steps of sqrt(2) to 8
        and of 2 from there.
    sample_weight : array-like of shape (N,), default=None
    init, n_init, max_iter, tol, random_state, n_threads, verbose
        As of :class:`EKMeans`. Every alpha starts from the same centroids.

    Returns
    -------
    path : AlphaPath

    Raises
    ------
    ValueError, TypeError
        For parameters or data that are not as described.

    See Also
    --------
    ekmfast.plotting.plot_alpha_path : the path as a picture.

    Notes
    -----
    The objective is J of arXiv 2402.14490 (see :mod:`ekmfast.kernels`). The likelihood is computed
    from at most 50,000 rows.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import alpha_path
    >>> rng = np.random.default_rng(0)
    >>> X = np.vstack([rng.normal(0, 1, (900, 2)), rng.normal(7, 1, (30, 2))])
    >>> path = alpha_path(X, 2, random_state=0)
    >>> sorted(path.sizes[path.best].tolist())
    [30.0, 900.0]
    """
    check_integer("n_clusters", n_clusters, 1)
    check_init(init)
    if n_init != "auto":
        check_integer("n_init", n_init, 1)
    check_integer("max_iter", max_iter, 1)
    check_number("tol", tol, positive=False)
    if isinstance(X, Blocks):
        raise TypeError("X must be an array here: a sample of the rows; go through the blocks")
    check_kind(X)
    data: NDArray[Any] = check_array(X, dtype=[np.float64, np.float32], order="C", input_name="X")
    weight = check_weight(sample_weight, data)
    if len(data) < n_clusters:
        raise ValueError(f"n_samples={len(data)} should be >= n_clusters={n_clusters}")
    threads = check_n_threads(n_threads)
    problem = Problem(
        data,
        weight,
        threads,
        tol=tol,
        max_iter=max_iter,
        report=Progress(None, data, verbose),
    )
    dvariance = resolve_alpha("dvariance", 2.0, problem.dispersion)
    starts = initial_centroids(
        data,
        n_clusters,
        init,
        resolve_n_init(n_init, init),
        weight,
        check_seed(random_state),
        threads,
    )
    return explore(problem, starts, _check_alphas(alphas, dvariance), dvariance)


def _check_alphas(alphas: ArrayLike | None, dvariance: float) -> Float64:
    if alphas is None:
        return dvariance * MULTIPLES
    try:
        grid = np.unique(np.asarray(alphas, np.float64))
    except (TypeError, ValueError):
        raise TypeError(f"alphas must be numbers > 0, got {alphas!r}") from None
    if np.ndim(alphas) != 1 or not grid.size:
        raise ValueError(f"alphas must have shape (A,), A >= 1, got {np.shape(alphas)}")
    if not (np.isfinite(grid).all() and (grid > 0).all()):
        raise ValueError(f"alphas must be finite and > 0, got {alphas!r}")
    return grid


def explore(problem: Problem, starts: Float64, alphas: Float64, dvariance: float) -> AlphaPath:
    """Run every start (S, K, D) at every alpha (A,) and keep the best of each alpha."""
    X, weight = problem.X, problem.sample_weight
    n_starts, n_clusters = starts.shape[:2]
    everything = problem.solve(np.concatenate([starts] * len(alphas)), np.repeat(alphas, n_starts))
    runs = [
        min(everything[i : i + n_starts], key=lambda run: run.objective)
        for i in range(0, len(everything), n_starts)
    ]
    sample: slice | NDArray[np.intp] = slice(None)
    if len(X) > SAMPLE_ROWS:
        sample = np.random.default_rng(0).choice(len(X), SAMPLE_ROWS, replace=False)
        sample.sort()
    sampled_weight = None if weight is None else weight[sample]
    evidence = evidence_features(X[sample], sampled_weight)

    labels = np.empty((len(runs), len(X)), np.int32)
    effective = np.empty(len(runs), np.intp)
    likelihood = np.empty(len(runs))
    for a, run in enumerate(runs):
        merged = merge_coincident(run.centroids, run.alpha)
        nearest, _ = kernels.assign(X, run.centroids, n_threads=problem.n_threads)
        labels[a] = merged[nearest]
        effective[a] = count_distinct(merged)
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
        sizes=np.stack([np.bincount(row, weight, n_clusters) for row in labels]).astype(float),
        n_clusters_effective=effective,
        objective=np.array([run.objective for run in runs]),
        likelihood=likelihood,
        agreement=np.nanmean([left, right], axis=0) if alike else np.ones(1),
        converged=np.array([run.converged for run in runs]),
        best=_most_likely(np.where(allowed, likelihood, -np.inf)),
        n_components=None if evidence.shape[1] == X.shape[1] else evidence.shape[1],
        _runs=runs,
    )


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
