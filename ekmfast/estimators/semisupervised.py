"""SemiSupervisedEKMeans: equilibrium k-means with known labels of some rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse, vstack
from sklearn.utils import check_array, check_random_state

from ekmfast._arguments import shown
from ekmfast._parameters import DVARIANCE_OR_NUMBER, POSITIVE, AnyOf, Number, OneOf
from ekmfast.estimators.base import CentroidEstimator
from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.problem import Problem
from ekmfast.fit.progress import with_callbacks
from ekmfast.fit.seeding import resolve_n_init
from ekmfast.fit.supervision import (
    SupervisedSums,
    Supervision,
    starts_with_labels,
    supervise,
)
from ekmfast.rows.array_api import like_x
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.given import on_host

Float64 = NDArray[np.float64]

# The rows of a prior may sum to slightly more than 1 because of rounding in float32.
ROUNDING = 1e-5


class SemiSupervisedEKMeans(CentroidEstimator):
    """Equilibrium k-means with known labels of some rows.

    Cluster k is class k. Centroids start at the means of their labelled rows, and a labelled row
    that is nearer to other centroids attracts that of its class, the more strongly the larger
    ``theta`` is. Clusters without labelled rows are found among the other rows.

    Parameters
    ----------
    n_clusters : int, default=8
        At least the number of classes in ``y``.
    alpha : 'dvariance' or float, default='dvariance'
        Sharpness of the memberships, > 0, as in `EKMeans`. ``GridSearchCV`` cannot choose it by
        ``score``, which rises with alpha, however good the clusters are: see `alpha_path`.
    scale : float, default=2.0
        Factor of the ``'dvariance'`` rule.
    theta : 'auto' or float, default='auto'
        Weight of the labels, >= 0. With 0 the labels only determine the starts; with 1 a labelled
        row counts only for the centroid of its label; with more it outweighs unlabelled rows. With
        N rows, S of them labelled (both weighted by ``sample_weight``), ``'auto'`` is
        min(N / S, S). N / S is the paper's choice, which gives both parts of the objective the same
        weight; S keeps a few labels, whose sums are mostly noise, from outweighing the data.
    metric : {'euclidean', 'cosine'}, default='euclidean'
        As in `EKMeans`.
    zero_rows : {'error', 'label'}, default='error'
        As in `EKMeans`.
    init : str, array of shape (K, D) or callable, default='auto'
        How to choose the first centroids of clusters without labels: ``'auto'`` (farthest-first
        once, then k-means++), ``'k-means++'``, ``'farthest'``, ``'random'`` or ``'k-means'`` (the
        centroids of hard k-means, from k-means++). The first centroids of labelled clusters are
        given and stay fixed meanwhile. An array or callable gives all K centroids. Without labels
        everything is as in `EKMeans`.
    n_init : int or 'auto', default='auto'
        Restarts, as in `EKMeans`; they differ in the clusters without labels. If every cluster has
        a label, there is one.
    max_iter : int, default=300
        Largest number of passes over the data.
    tol : float, default=1e-4
        A run ends when its step, as root mean square over the centroids, is at most ``tol`` times
        the root mean square distance of the samples from their mean.
    random_state : int, RandomState instance or None, default=None
        Seed; the same seed gives the same bits for any number of threads.
    device : {'cpu', 'cuda', 'auto'}, default='cpu'
        As in `EKMeans`.
    n_threads : int, default=None
        None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's limits.
    verbose : int, default=0
        1 prints a line for each pass.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (K, D), dtype of X
        Row k is the centroid of class k.
    labels_ : ndarray of shape (N,), int32
        Index of the nearest centroid of each row, labelled or not; merged centroids have the index
        of the first of them.
    objective_ : float
        J with the part of the labels.
    objective_history_ : ndarray
        The objective after each step that the best run accepted.
    theta_ : float
        The weight of the labels that was used; 0 without labels.
    n_iter_ : int
        Passes of the best run.
    converged_ : bool
    alpha_ : float
    n_clusters_effective_ : int
        Distinct centroids; fewer than ``n_clusters`` when some coincide.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (D,)
        Only where X has string column names.

    Warns
    -----
    ConvergenceWarning
        If the best run did not converge or if centroids coincide.

    References
    ----------
    Y. He, "Semi-supervised equilibrium K-means for imbalanced data clustering", Knowledge-Based
    Systems 113990, 2025. Since d = 1/2 ||x - c||^2, our alpha is twice that of the paper, and our
    objective is half.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import SemiSupervisedEKMeans
    >>> X = np.array([[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]])
    >>> model = SemiSupervisedEKMeans(2).fit(X, y=[1, -1, -1, -1, -1, 0])
    >>> model.labels_
    array([1, 1, 1, 0, 0, 0], dtype=int32)
    >>> model.theta_  # min(6 / 2, 2)
    2.0
    """

    _constraints = CentroidEstimator._constraints | {
        "alpha": DVARIANCE_OR_NUMBER,
        "scale": POSITIVE,
        "theta": AnyOf(OneOf("auto"), Number(0)),
    }
    theta_: float

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        alpha: str | float = "dvariance",
        scale: float = 2.0,
        theta: str | float = "auto",
        metric: str = "euclidean",
        zero_rows: str = "error",
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
        self.theta = theta
        self.metric = metric
        self.zero_rows = zero_rows
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device
        self.n_threads = n_threads
        self.verbose = verbose

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: ArrayLike | Blocks,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        prior: ArrayLike | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 10,
    ) -> SemiSupervisedEKMeans:
        """Find the centroids.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), array on a GPU, Blocks or Dask collection
            float32 and float64 are kept (C-contiguous arrays are not copied); other dtypes become
            float64. The labelled rows are held in memory. For Blocks, Dask collections and memory
            maps of 1 GiB or more, ``labels_`` is not set.
        y : array-like of shape (N,), default=None
            Cluster of each row, an integer in [0, n_clusters), or -1 if it is not known. It may be
            a column of pandas, polars or Arrow. A missing value raises an error, since it might not
            mean -1. A list of arrays, one for each block, is concatenated.
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row, and its label, twice. Must be None for Blocks, which
            contain weights.
        prior : array-like or sparse matrix of shape (N, K), default=None
            Instead of ``y``, the probability of each cluster for each row. The probabilities of a
            row are non-negative and sum to 1 if its label is certain, to 0 if it has none, or to a
            number in between. It may be a list of arrays, one for each block, too.
        checkpoint : path, default=None
        checkpoint_every : int, default=10
            As in `EKMeans`.

        Returns
        -------
        self : SemiSupervisedEKMeans

        Raises
        ------
        ValueError, TypeError
            If a parameter or an argument is not as described, or if both ``y`` and ``prior`` are
            given.

        Examples
        --------
        >>> from ekmfast import SemiSupervisedEKMeans
        >>> X = [[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]]
        >>> prior = [[0.1, 0.9], [0, 0], [0, 0], [0, 0], [0.8, 0.2], [1, 0]]
        >>> SemiSupervisedEKMeans(2).fit(X, prior=prior).labels_
        array([1, 1, 1, 0, 0, 0], dtype=int32)
        """
        self._check_parameters()
        if y is not None and prior is not None:
            raise ValueError("give y or prior, not both")
        problem, progress = self._problem(X, sample_weight, checkpoint, checkpoint_every)
        n_rows = problem.survey.n_rows
        known = self._check_labels(y, n_rows) if prior is None else self._check_prior(prior, n_rows)
        given = supervise(problem.rows, known)
        self.theta_ = self._resolve_theta(given, problem.survey.total_weight)
        if self.theta_ > 0:
            problem.sums = SupervisedSums(problem.rows, given, self.theta_)
            problem.further_inputs = {
                "theta": self.theta_,
                "the labels (y or prior)": np.stack([*known.nonzero(), known.data]),
            }
        alpha = resolve_alpha(self.alpha, self.scale, problem.dispersion)
        (run,) = problem.best(self._starts_with(problem, given), np.array([alpha]))
        self._end(problem, progress, run, alpha)
        return self

    def _starts_with(self, problem: Problem, given: Supervision) -> Float64:
        """The starts (S, K, D): means of labelled rows, and ``init`` for the other clusters."""
        random_state = check_random_state(self.random_state)
        if np.isnan(given.start[:, 0]).all() or not isinstance(self.init, str):
            return self._starts(problem, random_state)
        n_init = resolve_n_init(self.n_init, self.init)
        return starts_with_labels(problem, given, self.init, n_init, random_state)

    @like_x
    def fit_predict(
        self,
        X: ArrayLike | Blocks,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        prior: ArrayLike | None = None,
        **kwargs: Any,
    ) -> NDArray[np.int32]:
        """Find the centroids and return the label of each row.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : array-like of shape (N,), default=None
        sample_weight : array-like of shape (N,), default=None
        prior : array-like of shape (N, K), default=None
        **kwargs
            All as in ``fit``.

        Returns
        -------
        labels : ndarray of shape (N,), int32

        Examples
        --------
        >>> from ekmfast import SemiSupervisedEKMeans
        >>> SemiSupervisedEKMeans(2).fit_predict([[0.0], [1.0], [9.0], [8.0]], [1, -1, 0, -1])
        array([1, 1, 0, 0], dtype=int32)
        """
        labels: NDArray[np.int32] = super().fit_predict(
            X, y, sample_weight=sample_weight, prior=prior, **kwargs
        )
        return labels

    def _check_labels(self, y: ArrayLike | None, n: int) -> csr_matrix:
        labels = np.full(n, -1) if y is None else _joined("y", y, 1)
        if labels.shape != (n,):
            raise ValueError(f"y must have shape (n_samples,) = ({n},), got {labels.shape}")
        if labels.dtype.kind == "O" or np.ma.is_masked(labels):
            labels = np.array([self._label_of(label, i) for i, label in enumerate(labels)])
        if labels.dtype.kind not in "iuf":
            raise TypeError(
                f"Unknown label type: y must hold integers, -1 where unknown, got {labels.dtype}"
            )
        # Floats that are integers are allowed, as from a column of floats; NaN is not.
        bad = ~((labels >= -1) & (labels < self.n_clusters) & (np.floor(labels) == labels))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise self._bad_label(labels[row], row)
        rows = np.flatnonzero(labels >= 0)
        entries = (np.ones(len(rows)), (rows, labels[rows].astype(np.intp)))
        return csr_matrix(entries, shape=(n, self.n_clusters))

    def _label_of(self, label: Any, row: int) -> float:
        """A label from an array of objects, as columns with missing values become."""
        numbers = (int, float, np.integer, np.floating)
        if isinstance(label, numbers) and not isinstance(label, bool):
            if not -1 <= label < self.n_clusters:  # also true for NaN
                long = isinstance(label, int) and label.bit_length() > 63
                raise self._bad_label("an integer of more than 64 bits" if long else label, row)
            return float(label)
        if label is None or label is np.ma.masked or type(label).__name__ in ("NAType", "NaTType"):
            raise self._bad_label("a missing value", row)
        raise TypeError(
            "Unknown label type: y must hold integers, -1 where unknown, got "
            f"{type(label).__name__} {label!r} in row {row}"
        )

    def _bad_label(self, label: Any, row: int) -> ValueError:
        return ValueError(
            f"y must hold integers from -1 (unknown) to n_clusters - 1 = {self.n_clusters - 1}, "
            f"got {label} in row {row}"
        )

    def _check_prior(self, prior: ArrayLike, n: int) -> csr_matrix:
        if np.ma.is_masked(prior):  # the conversion below would ignore the mask
            raise ValueError("prior must not hold masked values; 0 says that nothing is known")
        known = _joined("prior", prior, 2)
        if not issparse(known):
            known = check_array(known, dtype=np.float64, input_name="prior")
        known = csr_matrix(known, dtype=np.float64, copy=True)  # it is changed below
        if known.shape != (n, self.n_clusters):
            raise ValueError(
                f"prior must have shape (n_samples, n_clusters) = ({n}, {self.n_clusters}), "
                f"got {known.shape}"
            )
        known.sum_duplicates()
        known.eliminate_zeros()
        bad = np.flatnonzero(~((known.data >= 0) & (known.data < np.inf)))
        if bad.size:
            row = int(np.searchsorted(known.indptr, bad[0], side="right")) - 1
            raise ValueError(
                f"prior must hold probabilities >= 0, got {known.data[bad[0]]} in row {row}"
            )
        sums = np.asarray(known.sum(axis=1)).ravel()
        if sums.max() > 1 + ROUNDING:
            row = int(sums.argmax())
            raise ValueError(
                f"rows of prior must sum to at most 1, got a sum of {sums[row]} in row {row}"
            )
        return known

    def _resolve_theta(self, given: Supervision, total: float) -> float:
        labelled = float(given.mass.sum())
        if labelled <= 0:
            return 0.0
        if isinstance(self.theta, str):
            return min(total / labelled, labelled)
        return float(self.theta)


def _joined(name: str, given: Any, n_dimensions: int) -> Any:
    """``given`` as an array, masked array or sparse matrix; a list of arrays is concatenated."""
    given = on_host(given)
    parts = given if isinstance(given, list | tuple) else []
    try:
        by_block = bool(parts) and all(
            hasattr(part, "shape") and len(part.shape) == n_dimensions for part in parts
        )
        if by_block and all(issparse(part) for part in parts):
            return vstack(parts, "csr")
        if by_block and not any(issparse(part) or np.ma.is_masked(part) for part in parts):
            return np.concatenate([np.asarray(part) for part in parts])
        return given if issparse(given) else np.ma.asanyarray(given)
    except (TypeError, ValueError) as error:
        shape = "(n_samples,)" if n_dimensions == 1 else "(n_samples, n_clusters)"
        raise ValueError(
            f"{name} must be an array of shape {shape}, or a list of such arrays, one for each "
            f"block, got {shown(given)}: {error}"
        ) from None
