"""EKMeans: equilibrium k-means as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ekmfast._parameters import ALPHA, POSITIVE
from ekmfast.estimators.fullbatch import FullBatchEstimator
from ekmfast.fit.alpha import MULTIPLES, resolve_alpha
from ekmfast.fit.problem import Problem
from ekmfast.fit.search import compare_alphas
from ekmfast.fit.solver import Run

# Rows on which alpha is chosen, at most, and some far ones (`Problem.sample`). On problems of
# `bench/problems.py` with seeds that publication never sees, the mean ARI differs from that of
# 50,000 rows by -.006 +- .004 (80 problems of 12,000 rows), +.002 +- .005 (48 of 30,000) and
# +.002 +- .004 (48 of 60,000, without the far rows), in .2 to .5 of the time.
SEARCH_ROWS = 5_000


class EKMeans(FullBatchEstimator):
    """Equilibrium k-means: clusters of very different sizes, each with its own centroid.

    Hard k-means pulls several centroids into the largest cluster. Here a sample's weight on a
    distant centroid is negative (Eq. 38), so that centroids repel each other out of it.

    Parameters
    ----------
    n_clusters : int, default=8
    alpha : {'auto', 'dvariance'} or float, default='auto'
        Sharpness of the memberships, > 0. Large alpha tends to hard k-means; too small an alpha
        makes all centroids collapse to the mean. What is best depends on the data.
        ``'auto'`` clusters at multiples 1/2 to 32 of the ``'dvariance'`` alpha and keeps the result
        under which rows and labels are likeliest (see :func:`alpha_path`, and its plot to choose
        by eye); with more than 5,000 rows, alpha is chosen on a sample of so many. The likelihood
        of strongly correlated features is that of their leading principal components.
        ``'dvariance'`` is the paper's rule, ``scale / mean_n(1/2 ||x_n - mean||^2)``.
        ``GridSearchCV`` cannot choose it, as ``score`` rises with alpha whatever the clusters.
        With distances ``d = 1/2 ||x - c||^2`` alpha is twice that of packages that leave the half
        out.
    scale : float, default=2.0
        Factor of the ``'dvariance'`` rule.
    init : {'auto', 'k-means++', 'farthest', 'k-means', 'random'}, array of shape (K, D) or \
callable, default='auto'
        First centroids. ``'k-means++'`` is the greedy form, ``'farthest'`` takes the row farthest
        from the centroids so far, ``'k-means'`` the centroids of hard k-means, ``'random'`` rows;
        ``'auto'`` goes round the first three over the restarts, with ``'farthest'`` every other
        time. A callable gets (X, n_clusters, random_state).
    n_init : int or 'auto', default='auto'
        Restarts, of which the lowest objective is kept. They share every read of X, and one that
        will not reach the best is given up early. ``'auto'``: 16, or 1 where ``init`` is an array.
    max_iter : int, default=300
        Most passes over the data of one run.
    tol : float, default=1e-4
        A run ends when its step, root mean square over the centroids, is at most ``tol`` times the
        root mean square distance of the samples from their mean: free of units and origin.
    random_state : int, RandomState instance or None, default=None
        Seed; the same seed gives the same bits for any number of threads.
    device : {'cpu', 'cuda', 'auto'}, default='cpu'
        Where passes over an array are computed. ``'cuda'`` takes NumPy arrays too, in segments
        where they do not fit the card. ``'auto'`` takes the card for arrays that lie there, and
        for others that are worth it; ``logging`` says why. ``labels_`` lie where X does.
    n_threads : int, default=None
        None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's limits.
    verbose : int, default=0
        1 prints a line each pass. Where scikit-learn has callbacks (1.9), ``set_callbacks`` takes
        them too, such as its progress bar.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (K, D), dtype of X
    labels_ : ndarray of shape (N,), int32
        Nearest centroid of each row; coincident centroids share the first one's label.
    objective_ : float
        ``J = sum_n s_n sum_k p_kn d_kn`` at ``cluster_centers_``.
    n_iter_ : int
        Passes over the data of the best run, at least 1.
    converged_ : bool
    alpha_ : float
        The alpha in use.
    n_clusters_effective_ : int
        Centroids that do not coincide with another.
    objective_history_ : ndarray of float64
        J at each accepted set of centroids of the best run.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, only where X has column names

    Raises
    ------
    ValueError, TypeError
        From ``fit``, for parameters or data that are not as described: NaN, infinity, fewer rows
        than clusters, ``alpha <= 0``.

    Warns
    -----
    ConvergenceWarning
        When the best run did not converge, or centroids coincide.

    References
    ----------
    Y. He, "Imbalanced Data Clustering using Equilibrium K-Means", arXiv 2402.14490, Eq. 38, 39.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import EKMeans
    >>> rng = np.random.default_rng(0)
    >>> X = np.vstack([rng.normal(0, 1, (2000, 2)), rng.normal(7, 1, (40, 2))])
    >>> sorted(np.bincount(EKMeans(n_clusters=2, random_state=0).fit_predict(X)).tolist())
    [40, 2000]
    """

    _constraints = FullBatchEstimator._constraints | {"alpha": ALPHA, "scale": POSITIVE}

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        alpha: str | float = "auto",
        scale: float = 2.0,
        init: str | ArrayLike | Callable[..., Any] = "auto",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.alpha = alpha
        self.scale = scale
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device
        self.n_threads = n_threads
        self.verbose = verbose

    def _alpha(self, problem: Problem) -> float:
        return resolve_alpha(self.alpha, self.scale, problem.dispersion)

    def _find(self, problem: Problem, random_state: np.random.RandomState) -> Run:
        if self.alpha != "auto" or self.n_clusters == 1 or problem.dispersion == 0:
            return super()._find(problem, random_state)
        dvariance = resolve_alpha("dvariance", self.scale, problem.dispersion)
        if problem.survey.whole:
            problem = problem.at_hand()
        sample = problem.sample(SEARCH_ROWS, random_state)
        found = compare_alphas(sample, self._starts(sample, random_state), dvariance * MULTIPLES)
        run = found.runs[found.best]
        if sample.survey.n_rows == problem.survey.n_rows:
            return run
        starts = np.concatenate([self._starts(problem, random_state), run.centroids[None]])
        return problem.solve(starts, run.alpha).best
