"""FuzzyCMeans: memberships are a power of the distance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._parameters import Number
from ekmfast.estimators.fullbatch import FullBatchEstimator
from ekmfast.fit.problem import Problem
from ekmfast.rows.array_api import like_x
from ekmfast.rows.blocks import Blocks

Float64 = NDArray[np.float64]


class FuzzyCMeans(FullBatchEstimator):
    """Fuzzy c-means: memberships ``u_kn`` proportional to ``d_kn^(-1 / (m - 1))``.

    It has the same starts, restarts and kernels as :class:`EKMeans` and is meant for comparison. It
    favours clusters of equal size even more than hard k-means.

    Parameters
    ----------
    n_clusters : int, default=8
    fuzzifier : float, default=2.0
        The exponent m > 1; the limit for m -> 1 is hard k-means. At most
        ``1 + 800 / log2(n_clusters)``.
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
    cluster_centers_, labels_, n_iter_, converged_, n_clusters_effective_, objective_history_
        As in :class:`EKMeans`.
    objective_ : float
        ``sum_n s_n sum_k u_kn^m d_kn`` with ``d = 1/2 ||x - c||^2``.
    alpha_ : float
        Infinity; the memberships do not depend on it.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, for parameters or data that are not as described.

    References
    ----------
    J. C. Bezdek, "Pattern Recognition with Fuzzy Objective Function Algorithms", 1981.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import FuzzyCMeans
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> FuzzyCMeans(2, random_state=0).fit(X).membership(X).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    _constraints = FullBatchEstimator._constraints | {"fuzzifier": Number(1, open_low=True)}
    _weighting = "fuzzy"
    _uses_alpha = False

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        fuzzifier: float = 2.0,
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
        self.fuzzifier = fuzzifier
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
    def _weighting_fuzzifier(self) -> float:  # type: ignore[override]
        return float(self.fuzzifier)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        # The limit of the kernels, beyond which u^m of equal memberships underflows in float64.
        most = 1 + 800 / np.log2(max(self.n_clusters, 2))
        if self.fuzzifier > most:
            raise ValueError(
                f"fuzzifier must be at most {most:.6g} with n_clusters={self.n_clusters}, got "
                f"{self.fuzzifier!r}"
            )

    def _alpha(self, problem: Problem) -> float:
        return 1.0

    @like_x
    def membership(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """Fuzzy memberships, whose rows sum to 1.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), or whatever ``fit`` takes

        Returns
        -------
        u : ndarray of shape (N, K), dtype of X
            A sample that equals a centroid belongs only to it.
        """
        return self._of_distances(X, partial(fuzzy_memberships, fuzzifier=self.fuzzifier))

    @like_x
    def weights(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """Weights of the update, ``u^m``.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), or whatever ``fit`` takes

        Returns
        -------
        w : ndarray of shape (N, K), dtype of X
        """
        return self._of_distances(
            X, partial(fuzzy_memberships, fuzzifier=self.fuzzifier, power=self.fuzzifier)
        )


def fuzzy_memberships(d2: Float64, fuzzifier: float, power: float = 1.0) -> Float64:
    """The memberships (n, K) of squared distances (n, K), raised to ``power``."""
    nearest = d2.min(axis=1, keepdims=True)
    # Relative to the nearest centroid, so that nothing overflows; a sample that equals a centroid
    # gives 0 / 0, which the next line replaces by 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (nearest / d2) ** (1 / (fuzzifier - 1))
    u = np.where(d2 == nearest, 1, u)
    return cast(Float64, (u / u.sum(axis=1, keepdims=True)) ** power)
