"""MaximumEntropyKMeans: the weights are the Boltzmann memberships themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._parameters import DVARIANCE_OR_NUMBER, POSITIVE
from ekmfast.estimators.fullbatch import FullBatchEstimator
from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.problem import Problem
from ekmfast.rows.array_api import like_x
from ekmfast.rows.blocks import Blocks


class MaximumEntropyKMeans(FullBatchEstimator):
    """Maximum-entropy fuzzy clustering: EKMeans without repulsion between centroids.

    The weights are ``w = p = softmax_k(-alpha d_kn)`` with ``d = 1/2 ||x - c||^2``. They are never
    negative, so that nothing keeps several centroids from moving into the largest cluster. It has
    the same starts, restarts and kernels as :class:`EKMeans` and is meant for comparison.

    Parameters
    ----------
    n_clusters : int, default=8
    alpha : 'dvariance' or float, default='dvariance'
        Sharpness of the memberships, > 0; the rule is that of :class:`EKMeans`. ``GridSearchCV``
        cannot choose it, since ``score`` falls as alpha grows, however good the clusters are.
    scale : float, default=2.0
        Factor of the ``'dvariance'`` rule.
    metric : {'euclidean', 'cosine'}, default='euclidean'
    zero_rows : {'error', 'label'}, default='error'
    missing : {'error', 'partial'}, default='error'
    init : {'auto', 'k-means++', 'farthest', 'k-means', 'random'}, array or callable, default='auto'
    n_init : int or 'auto', default='auto'
    max_iter : int, default=300
    tol : float, default=1e-4
    random_state : int, RandomState instance or None, default=None
    device : {'cpu', 'cuda', 'auto'}, default='cpu'
    n_threads : int, default=None
    verbose : int, default=0
        These are as in :class:`EKMeans`.

    Attributes
    ----------
    cluster_centers_, labels_, n_iter_, converged_, alpha_, n_clusters_effective_
        As in :class:`EKMeans`.
    objective_ : float
        The free energy ``-1/alpha sum_n s_n ln sum_k exp(-alpha d_kn)``, which no step raises.
    objective_history_ : ndarray of float64

    Raises
    ------
    ValueError, TypeError
        From ``fit``, for parameters or data that are not as described.

    References
    ----------
    K. Rose, E. Gurewitz, G. Fox, "A deterministic annealing approach to clustering", Pattern
    Recognition Letters 11, 1990.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import MaximumEntropyKMeans
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> MaximumEntropyKMeans(2, alpha=1.0, random_state=0).fit(X).membership(X).round(3).max()
    np.float64(1.0)
    """

    _constraints = FullBatchEstimator._constraints | {
        "alpha": DVARIANCE_OR_NUMBER,
        "scale": POSITIVE,
    }
    _weighting = "maximum-entropy"

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        alpha: str | float = "dvariance",
        scale: float = 2.0,
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

    def _alpha(self, problem: Problem) -> float:
        return resolve_alpha(self.alpha, self.scale, problem.dispersion)

    @like_x
    def weights(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """Weights of the update, which are the memberships.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), or whatever ``fit`` takes

        Returns
        -------
        w : ndarray of shape (N, K), dtype of X
        """
        return self.membership(X)
