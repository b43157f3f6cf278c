"""EKMeans: equilibrium k-means as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ekmfast._parameters import ALPHA, COUNT, POSITIVE, AnyOf, OneOf
from ekmfast.estimators.fullbatch import FullBatchEstimator
from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.auto import find_clusters
from ekmfast.fit.cluster_path import MAX_CLUSTERS, NumberSearch
from ekmfast.fit.problem import Problem
from ekmfast.fit.solver import Run
from ekmfast.rows.threads import check_n_threads


class EKMeans(FullBatchEstimator):
    """Equilibrium k-means: clusters of very different sizes, each with its own centroid.

    Hard k-means tends to place several centroids in the largest cluster. Here the weight of a
    sample for a distant centroid is negative (Eq. 38). Centroids therefore repel each other, which
    keeps them from sharing one large cluster.

    Parameters
    ----------
    n_clusters : int or 'auto', default=8
        ``'auto'`` takes the number that :func:`cluster_path` finds best, from mixtures of a sample
        of the rows; ``cluster_centers_`` has that many. It depends on the sum of ``sample_weight``,
        of which 2 counts a row twice. With ``missing='partial'`` it must be a number.
    alpha : {'auto', 'dvariance'} or float, default='auto'
        The sharpness of the memberships, > 0. For large alpha the result is that of hard k-means.
        If alpha is too small, all centroids collapse to the mean. The best value depends on the
        data.
        ``'auto'`` clusters the data at multiples 1/2 to 32 of the ``'dvariance'`` alpha and keeps
        the clusters in which rows and labels are likeliest (:func:`alpha_path`, whose plot helps to
        choose by eye, computes the same likelihood). It compares the clusters on a sample of 10,000
        rows, to which it adds the rows that are far from the sample's clusters; they are found on
        2,000 of these rows, and the chosen centroids are iterated over all rows. If features are
        strongly correlated, the likelihood is computed from their leading principal components, and
        the clusters are found in those that hold 98 % of the variance. Rows with more than 500
        features, sparse ones or those of an array with at most a tenth of numbers that are not
        zero, are searched in their leading directions (singular vectors); there alpha is a multiple
        of the inverse dispersion in these.
        ``'dvariance'`` is the paper's rule, ``scale / mean_n(1/2 ||x_n - mean||^2)``.
        ``GridSearchCV`` cannot choose alpha, because ``score`` rises with alpha whatever the
        clusters are.
        Distances are ``d = 1/2 ||x - c||^2``. In packages without the factor 1/2, the same result
        needs half of this alpha.
    scale : float, default=2.0
        Factor of the ``'dvariance'`` rule.
    max_clusters : int, default=15
        The largest number that ``n_clusters="auto"`` tries.
    metric : {'euclidean', 'cosine'}, default='euclidean'
        With ``'cosine'`` the distance is ``1 - cos(x, c)``: rows count as if they were divided by
        their lengths, of which no copy is made, and centroids have length 1. Rows on a GPU are
        refused.
    zero_rows : {'error', 'label'}, default='error'
        What happens to rows of zeros with ``metric='cosine'``: an error that names the first one,
        or the label -1, memberships of 0 and no part in the fit.
    missing : {'error', 'partial'}, default='error'
        With ``'partial'`` NaN stands for a missing number: distances are over the features that a
        row has, scaled to all D, as those of scikit-learn's ``nan_euclidean_distances``, and each
        feature of a centroid is computed from the rows that have it. Sparse rows, whose numbers
        that are not stored are zeros, and rows on a GPU are refused. If nothing is missing in an
        array, the result is that of ``'error'``.
    init : {'auto', 'k-means++', 'farthest', 'k-means', 'random'}, array of shape (K, D) or \
callable, default='auto'
        The first centroids. ``'k-means++'`` is the greedy form. ``'farthest'`` takes the row
        farthest from the centroids so far, ``'k-means'`` the centroids of hard k-means, and
        ``'random'`` random rows. ``'auto'`` uses the first three rules in turn over the restarts,
        with ``'farthest'`` for every second one. A callable gets (X, n_clusters, random_state); if
        alpha is searched on a sample, X is that sample.
    n_init : int or 'auto', default='auto'
        The number of restarts, of which the one with the lowest objective is kept. They share every
        pass over X, and a restart that will not reach the best one is given up early. Of more than
        15,000 rows they read 10,000 and those that are far from the clusters of these, and only the
        best four at most are iterated over all rows. ``'auto'`` means 16, or 1 if ``init`` is an
        array. With ``alpha='auto'`` it means 12, and the likelihood chooses between restarts as
        well; it means 16 and the objective chooses if features are strongly correlated.
    max_iter : int, default=300
        The largest number of passes over the data.
    tol : float, default=1e-4
        A run ends when the root mean square of its step, over the centroids, is at most ``tol``
        times the root mean square distance of the samples from their mean. So ``tol`` does not
        depend on the units and the origin of the data. If it is at least 1e-5, most passes over an
        array in float64 may compute in float32, and the last ones compute in float64.
    random_state : int, RandomState instance or None, default=None
        Seed; the same seed gives the same bits for any number of threads.
    device : {'cpu', 'cuda', 'auto'}, default='cpu'
        The device that computes passes over an array. ``'cuda'`` also accepts NumPy arrays, and
        reads them in segments if they do not fit into the memory of the GPU. ``'auto'`` uses the
        GPU for arrays in its memory, and for others if that is expected to be faster; ``logging``
        gives the reason. ``labels_`` are on the GPU if X is.
    n_threads : int, default=None
        The number of threads. None means ``OMP_NUM_THREADS`` if that is set, else all processors,
        within the limits of threadpoolctl.
    verbose : int, default=0
        1 prints a line for each pass. With scikit-learn 1.9 or later, ``set_callbacks`` accepts its
        callbacks, such as the progress bar.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (K, D), dtype of X
    labels_ : ndarray of shape (N,), int32
        The nearest centroid of each row; coincident centroids share the first one's label.
    objective_ : float
        ``J = sum_n s_n sum_k p_kn d_kn`` at ``cluster_centers_``.
    n_iter_ : int
        The number of passes over the data of the best run, at least 1.
    converged_ : bool
    alpha_ : float
        The value of alpha that was used.
    n_clusters_effective_ : int
        The number of distinct centroids, where coincident ones count once.
    objective_history_ : ndarray of float64
        J after each accepted step of the best run. Where passes compute in float32, it has the
        digits of float32.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, only where X has column names

    Raises
    ------
    ValueError, TypeError
        From ``fit``, if parameters or data are not as described, for example for NaN, infinity,
        fewer rows than clusters, or ``alpha <= 0``.

    Warns
    -----
    ConvergenceWarning
        If the best run did not converge, or if centroids coincide.

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

    _constraints = FullBatchEstimator._constraints | {
        "n_clusters": AnyOf(OneOf("auto"), COUNT),
        "alpha": ALPHA,
        "scale": POSITIVE,
        "max_clusters": COUNT,
    }

    n_clusters: int | str  # type: ignore[assignment]

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        alpha: str | float = "auto",
        scale: float = 2.0,
        max_clusters: int = MAX_CLUSTERS,
        metric: str = "euclidean",
        zero_rows: str = "error",
        missing: str = "error",
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
        self.max_clusters = max_clusters
        self.metric = metric
        self.zero_rows = zero_rows
        self.missing = missing
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device
        self.n_threads = n_threads
        self.verbose = verbose

    @property
    def _n_clusters(self) -> int:
        return 1 if isinstance(self.n_clusters, str) else self.n_clusters

    def _alpha(self, problem: Problem) -> float:
        return resolve_alpha(self.alpha, self.scale, problem.dispersion)

    def _find(self, problem: Problem, random_state: np.random.RandomState) -> Run:
        if isinstance(self.n_clusters, str):
            if not isinstance(self.init, str) and not callable(self.init):
                raise ValueError("init must not be an array if n_clusters is 'auto'")
            if problem.rows.space == "features":
                raise ValueError(
                    "n_clusters must be a number with missing='partial', got 'auto': choose it by "
                    "cluster_path of the rows that have all features, or of filled rows"
                )
            search = NumberSearch(
                problem,
                self.max_clusters,
                random_state,
                n_threads=check_n_threads(self.n_threads),
            )
            problem = problem.with_clusters(search.best + 1)
        if self.alpha != "auto" or problem.n_clusters == 1 or problem.dispersion == 0:
            return super()._find(problem, random_state)
        centroids, alpha = find_clusters(problem, self.init, self.n_init, random_state, self.scale)
        if problem.survey.whole:
            problem = problem.at_hand()
        return problem.best(centroids[None], np.array([alpha]))[0]
