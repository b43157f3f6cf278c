"""EKMeans: equilibrium k-means as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ._alpha import check_alpha_parameter, resolve_alpha
from ._backends.cpu import CpuBackend
from ._base import CentroidEstimator, check_integer, check_number, print_pass
from ._init import check_init, initial_centroids, resolve_n_init
from ._solver import OBJECTIVE_RESOLUTION, solve
from ._threads import check_n_threads


class EKMeans(CentroidEstimator):
    """Equilibrium k-means: clusters of very different sizes, each with its own centroid.

    Hard k-means pulls several centroids into the largest cluster. Here a sample's weight on a
    distant centroid is negative (Eq. 38), so that centroids repel each other out of it.

    Parameters
    ----------
    n_clusters : int, default=8
    alpha : 'dvariance' or float, default='dvariance'
        Sharpness of the memberships, > 0. ``'dvariance'`` is the paper's rule,
        ``scale / mean_n(1/2 ||x_n - mean||^2)``. With distances ``d = 1/2 ||x - c||^2`` this alpha
        is twice that of packages that leave the half out. Large alpha tends to hard k-means; too
        small an alpha lets all centroids meet in the mean.
    scale : float, default=2.0
        Factor of the ``'dvariance'`` rule.
    init : {'auto', 'k-means++', 'random'}, array of shape (K, D) or callable, default='auto'
        First centroids; ``'auto'`` is k-means++. A callable gets (X, n_clusters, random_state).
    n_init : int or 'auto', default='auto'
        Restarts, of which the lowest objective is kept. They share every read of X.
        ``'auto'``: 10, or 1 where ``init`` is an array.
    max_iter : int, default=300
        Most passes over the data.
    tol : float, default=1e-4
        A run ends when its step, root mean square over the centroids, is at most ``tol`` times the
        root mean square distance of the samples from their mean: free of units and origin.
    random_state : int, RandomState instance or None, default=None
        Seed; the same seed gives the same bits for any number of threads.
    device : {'cpu'}, default='cpu'
    n_threads : int, default=None
        None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's limits.
    verbose : int, default=0
        1 prints a line each pass.

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
    >>> np.bincount(EKMeans(n_clusters=2, random_state=0).fit_predict(X)).tolist()
    [2000, 40]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        alpha: str | float = "dvariance",
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

    def _check_parameters(self) -> None:
        check_integer("n_clusters", self.n_clusters, 1)
        check_alpha_parameter(self.alpha)
        check_number("scale", self.scale, positive=True)
        check_init(self.init)
        if self.n_init != "auto":
            check_integer("n_init", self.n_init, 1)
        check_integer("max_iter", self.max_iter, 1)
        check_number("tol", self.tol, positive=False)
        if self.device != "cpu":
            raise ValueError(f"device must be 'cpu', got {self.device!r}")

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> EKMeans:
        """Find the centroids.

        Parameters
        ----------
        X : array-like of shape (N, D)
            float32 and float64 are kept (C-contiguous ones are not copied); others become float64.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice.

        Returns
        -------
        self : EKMeans
        """
        self._check_parameters()
        X = self._check_data(X, reset=True)
        weight = self._check_weight(sample_weight, X)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}")

        backend = CpuBackend(X, weight, check_n_threads(self.n_threads))
        dispersion = backend.dispersion()
        if not np.isfinite(dispersion):
            raise ValueError(f"squared distances overflow {X.dtype}: scale X down")
        alpha = resolve_alpha(self.alpha, self.scale, dispersion)
        starts = initial_centroids(
            X,
            self.n_clusters,
            self.init,  # type: ignore[arg-type]
            resolve_n_init(self.n_init, self.init),
            weight,
            check_random_state(self.random_state),
        )
        runs = solve(
            backend,
            starts,
            alpha,
            tol=self.tol,
            radius=float(np.sqrt(2 * dispersion)),
            resolution=OBJECTIVE_RESOLUTION[X.itemsize],
            max_iter=self.max_iter,
            report=print_pass if self.verbose else None,
        )
        self._keep(min(runs, key=lambda run: run.objective), X, alpha)
        return self
