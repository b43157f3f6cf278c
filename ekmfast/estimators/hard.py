"""HardKMeans: Lloyd's k-means with the kernels of EKMeans."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast.estimators.fullbatch import FullBatchEstimator
from ekmfast.fit.problem import Problem
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.array_api import like_x
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.given import rows_in_memory
from ekmfast.rows.partial import PartialRows


class HardKMeans(FullBatchEstimator):
    """Hard k-means: every sample belongs only to its nearest centroid.

    It is the limit of :class:`EKMeans` for large alpha, with the same starts, restarts and kernels,
    and is meant for comparison. If you want hard k-means itself, scikit-learn's ``KMeans`` offers
    more.

    Parameters
    ----------
    n_clusters : int, default=8
    metric : {'euclidean', 'cosine'}, default='euclidean'
    zero_rows : {'error', 'label'}, default='error'
    missing : {'error', 'partial'}, default='error'
    init : {'auto', 'k-means++', 'farthest', 'k-means', 'random'}, array or callable, default='auto'
    n_init : int or 'auto', default='auto'
        As in :class:`EKMeans`, except that no restart is given up early: how far the objective of
        hard k-means will still fall cannot be predicted from its last decreases, and giving up
        restarts by them would sometimes lose the best one.
    max_iter : int, default=300
    tol : float, default=1e-4
    random_state : int, RandomState instance or None, default=None
    device : {'cpu', 'cuda', 'auto'}, default='cpu'
    n_threads : int, default=None
    verbose : int, default=0
        These are as in :class:`EKMeans`.

    Attributes
    ----------
    cluster_centers_, labels_, n_iter_, converged_, n_clusters_effective_, objective_history_
        As in :class:`EKMeans`.
    objective_ : float
        ``sum_n s_n min_k d_kn`` with ``d = 1/2 ||x - c||^2``: half of scikit-learn's inertia.
    alpha_ : float
        Infinity.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, for parameters or data that are not as described.

    References
    ----------
    S. P. Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28, 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import HardKMeans
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> np.sort(HardKMeans(2, random_state=0).fit(X).cluster_centers_.ravel()).tolist()
    [0.5, 9.5]
    """

    _weighting = "hard"
    _uses_alpha = False

    def __init__(
        self,
        n_clusters: int = 8,
        *,
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
        return 1.0

    @like_x
    def membership(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """1 for the nearest centroid, 0 for the others.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), or whatever ``fit`` takes

        Returns
        -------
        p : ndarray of shape (N, K), dtype of X
        """
        rows, centres = self._rows(X), self._centres
        make = PartialRows if rows.space == "features" else rows_in_memory
        one_hot = partial(_one_hot, centroids=centres, n_threads=rows.n_threads, make=make)
        return self._mapped(rows, one_hot)

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


def _one_hot(
    X: NDArray[Any], centroids: NDArray[np.float64], n_threads: int, make: Callable[..., ArrayRows]
) -> NDArray[Any]:
    nearest, _ = make(X, None, n_threads).nearest(centroids)
    p = np.zeros((len(nearest), len(centroids)), X.dtype)
    p[np.arange(len(nearest)), nearest] = 1
    return p
