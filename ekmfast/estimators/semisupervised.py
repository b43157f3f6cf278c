"""SemiSupervisedEKMeans: equilibrium k-means told the clusters of some rows.

With f_kn the prior of row n for cluster k and b_n = sum_k f_kn (1 for a labelled row, 0 for an
unlabelled one) the objective is

    J + theta sum_n s_n (sum_k f_kn d_kn - b_n E_n)

a labelled row pays, theta times over, for its distance to its own centroid beyond the distance E_n
that it would settle for by itself. A row in its place pays nothing, so labels do not draw their
centroid towards the rows that happen to be labelled. Its gradient in c_k is B_k c_k - A_k with

    w'_kn = w_kn + theta (f_kn - b_n w_kn)

so the sums of one pass are those over all rows, less theta times those over the labelled rows,
plus theta times sums of f, which depend on nothing: the class masses and means. With m_k the mean
of class k, n_k its mass and S_k the scatter about m_k, sum_n s_n f_kn d_kn is
1/2 (S_k + n_k ||c_k - m_k||^2). The solver iterates on these sums as it does on EKM's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.utils import check_array, check_random_state

from ekmfast import kernels
from ekmfast._parameters import DVARIANCE_OR_NUMBER, POSITIVE, AnyOf, Number, OneOf
from ekmfast.estimators.base import CentroidEstimator
from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.problem import bounds_of
from ekmfast.fit.seeding import LLOYD_PASSES, initial_centroids, resolve_n_init
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, solve
from ekmfast.fit.spread import check_spread
from ekmfast.rows.array import CentredStatistics, CpuBackend
from ekmfast.rows.threads import check_n_threads

Float64 = NDArray[np.float64]

# Rows of a prior may sum to 1 only but for the rounding of float32.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Supervision:
    """What the labelled rows say, however they say it."""

    rows: NDArray[np.intp]  # (M,), those with b > 0
    trust: Float64  # (M,), b of those rows
    mass: Float64  # (K,), sum_n s_n f_kn
    means: Float64  # (K, D), of the classes; any where the mass is 0
    scatter: Float64  # (K,), sum_n s_n f_kn ||x_n - mean_k||^2
    seeds: Float64  # (K, D), NaN for a cluster that no row speaks for


def supervise(X: NDArray[Any], weight: NDArray[Any] | None, prior: csr_matrix) -> Supervision:
    """Sums over the rows of X for which ``prior`` (N, K) says something."""
    trust = np.asarray(prior.sum(axis=1), np.float64).ravel()
    rows = np.flatnonzero(trust)
    trust, prior = trust[rows], prior[rows]
    data = X[rows].astype(np.float64)
    origin = data.mean(axis=0) if len(rows) else np.zeros(X.shape[1])
    data -= origin
    counts = np.repeat(np.arange(len(rows)), np.diff(prior.indptr))
    scale = np.ones(len(rows)) if weight is None else weight[rows].astype(np.float64)

    weighted = prior.copy()
    weighted.data = prior.data * scale[counts]
    mass, means = _class_means(weighted, data)
    means = np.where(np.isnan(means), 0.0, means)
    scatter = weighted.T @ np.square(data).sum(axis=1) - mass * np.square(means).sum(axis=1)

    # A prior that leans to no cluster says nothing of where to start: what counts is the excess.
    excess = prior.copy()
    excess.data = scale[counts] * np.maximum(prior.data - trust[counts] / prior.shape[1], 0.0)
    _, seeds = _class_means(excess, data)
    return Supervision(rows, trust, mass, means + origin, np.maximum(scatter, 0.0), seeds + origin)


def _class_means(prior: csr_matrix, data: Float64) -> tuple[Float64, Float64]:
    mass = np.asarray(prior.sum(axis=0), np.float64).ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (prior.T @ data) / mass[:, None]
    return mass, np.where(mass[:, None] > 0, means, np.nan)


class SupervisedBackend:
    """The sums of Eq. 39 with the labels' share, for the solver."""

    def __init__(
        self, all_rows: CpuBackend, labelled: CpuBackend, supervision: Supervision, theta: float
    ) -> None:
        self.all_rows = all_rows
        self.labelled = labelled  # weighted by s b
        self.supervision = supervision
        self.theta = theta

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over all rows, and one over the labelled ones."""
        everything = self.all_rows.statistics(centroids, alpha)
        labelled = self.labelled.statistics(centroids, alpha)
        theta, given, reference = self.theta, self.supervision, everything.reference
        # A class's own mass does not underflow, whatever the memberships do.
        exponent = np.where(given.mass > 0, 0.0, np.maximum(everything.exponent, labelled.exponent))
        own = np.exp2(np.minimum(everything.exponent - exponent, 0.0))
        less = np.exp2(np.minimum(labelled.exponent - exponent, 0.0))
        p, p_labelled = own * everything.sum_p, less * labelled.sum_p
        w_labelled = less * labelled.sum_w
        # sum w (x - reference) = sum w (x - other) + (other - reference) sum w
        wx_labelled = (
            less[..., None] * labelled.sum_wx
            + (labelled.reference - reference) * w_labelled[..., None]
        )
        distance = given.scatter + given.mass * np.square(centroids - given.means).sum(axis=-1)
        return CentredStatistics(
            sum_wx=own[..., None] * everything.sum_wx
            - theta * wx_labelled
            + theta * given.mass[:, None] * (given.means - reference),
            sum_w=own * everything.sum_w - theta * w_labelled + theta * given.mass,
            # The yardstick of weak columns: every membership, by the size of its factor.
            sum_p=p - p_labelled + abs(1 - theta) * p_labelled + theta * given.mass,
            exponent=exponent,
            objective=everything.objective
            - theta * labelled.objective
            + 0.5 * theta * distance.sum(axis=-1),
            reference=reference,
        )


class SemiSupervisedEKMeans(CentroidEstimator):
    """Equilibrium k-means that is told the clusters of some rows.

    Cluster k is class k: centroids start at the means of their labelled rows, and labelled rows
    that would go elsewhere pull their centroid, ``theta`` times as strongly as others. Clusters
    without a labelled row are found among the rest.

    Parameters
    ----------
    n_clusters : int, default=8
        At least the number of classes in ``y``.
    alpha : 'dvariance' or float, default='dvariance'
        Sharpness of the memberships, > 0, as in `EKMeans`. ``GridSearchCV`` cannot choose it by
        ``score``, which rises with alpha whatever the clusters: see `alpha_path`.
    scale : float, default=2.0
        Factor of the ``'dvariance'`` rule.
    theta : 'auto' or float, default='auto'
        Weight of the labels, >= 0. 0 takes labels as seeds alone, 1 lets a labelled row follow its
        label alone, more lets labelled rows stand for the others as well. With N rows, S of them
        labelled (both counted by ``sample_weight``), ``'auto'`` is min(N / S, S). N / S is the
        paper's choice, which gives both parts of the objective the same weight; S keeps a handful
        of labels, whose sums are mostly noise, from outweighing the data.
    init : str, array of shape (K, D) or callable, default='auto'
        How to seed clusters without labels: ``'auto'`` (farthest-first once, then k-means++),
        ``'k-means++'``, ``'farthest'``, ``'random'`` or ``'k-means'`` (the centroids of hard
        k-means, from k-means++), given the seeds of the others, which stay where they are. An
        array or callable gives all K centroids. Without any label everything is as in `EKMeans`.
    n_init : int or 'auto', default='auto'
        Restarts, as in `EKMeans`; they vary the clusters without labels, so with a label for each
        cluster there is one.
    max_iter : int, default=300
        Most passes over the data.
    tol : float, default=1e-4
        A run ends when its step, root mean square over the centroids, is at most ``tol`` times the
        root mean square distance of the samples from their mean.
    random_state : int, RandomState instance or None, default=None
        Seed; the same seed gives the same bits for any number of threads.
    device : {'cpu'}, default='cpu'
    n_threads : int, default=None
        None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's limits.
    verbose : int, default=0
        1 prints a line for each restart.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (K, D), dtype of X
        Row k is the centroid of class k.
    labels_ : ndarray of shape (N,), int32
        Nearest centroid of each row, labelled or not; coincident centroids share the first one's.
    objective_ : float
        J with the labels' share.
    objective_history_ : ndarray
        The objective at every centroids that the best run accepted.
    theta_ : float
        The weight used; 0 where nothing was labelled.
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
        When the best run did not converge or when centroids coincide.

    References
    ----------
    Y. He, "Semi-supervised equilibrium K-means for imbalanced data clustering", Knowledge-Based
    Systems 113990, 2025. With d = 1/2 ||x - c||^2 our alpha is twice its, our objective half.

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
        "device": OneOf("cpu"),
    }
    theta_: float

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        alpha: str | float = "dvariance",
        scale: float = 2.0,
        theta: str | float = "auto",
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
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device
        self.n_threads = n_threads
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        prior: ArrayLike | None = None,
    ) -> SemiSupervisedEKMeans:
        """Find the centroids.

        Parameters
        ----------
        X : array-like of shape (N, D)
            float32 and float64 are kept (C-contiguous ones are not copied); others become float64.
        y : array-like of shape (N,), default=None
            Cluster of each row, an integer in [0, n_clusters), or -1 where it is not known. A
            column of pandas, polars or Arrow will do; a missing value is refused, as it may stand
            for either.
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice, and its label.
        prior : array-like of shape (N, K), default=None
            In place of ``y``, the probability of each cluster for each row: non-negative, summing
            to 1 for a row whose label is trusted, to 0 for an unlabelled one, or to anything in
            between.

        Returns
        -------
        self : SemiSupervisedEKMeans

        Raises
        ------
        ValueError, TypeError
            A parameter or an argument is not what is said above, or both ``y`` and ``prior`` are
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
        X = self._check_data(X, reset=True)
        weight = self._check_weight(sample_weight, X)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}")
        n_threads = check_n_threads(self.n_threads)
        if prior is not None:
            known = self._check_prior(prior, len(X))
        else:
            known = self._check_labels(y, len(X))

        everything = CpuBackend(X, weight, n_threads)
        dispersion = everything.dispersion()
        check_spread(dispersion, *everything.box(), X.dtype, weighted=weight is not None)
        alpha = resolve_alpha(self.alpha, self.scale, dispersion)
        given = supervise(X, weight, known)
        backend: CpuBackend | SupervisedBackend = everything
        self.theta_ = self._resolve_theta(given, weight, len(X))
        if self.theta_ > 0:
            trust = given.trust if weight is None else given.trust * weight[given.rows]
            labelled = CpuBackend(X[given.rows], trust.astype(X.dtype), n_threads)
            backend = SupervisedBackend(everything, labelled, given, self.theta_)
        runs = solve(
            backend,
            self._starts(X, weight, given),
            alpha,
            tol=self.tol,
            radius=float(np.sqrt(2 * dispersion)),
            resolution=OBJECTIVE_RESOLUTION[X.itemsize],
            max_iter=self.max_iter,
            bounds=bounds_of(X),
            compete=True,
        )
        if self.verbose:
            for i, run in enumerate(runs):
                print(f"start {i + 1}: objective {run.objective:.8g} after {run.n_iter} passes")
        self._keep(min(runs, key=lambda run: run.objective), X.dtype, alpha)
        self._label(X)
        self._warn_of_the_fit()
        return self

    def fit_predict(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        prior: ArrayLike | None = None,
    ) -> NDArray[np.int32]:
        """``fit`` and return ``labels_``.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : array-like of shape (N,), default=None
        sample_weight : array-like of shape (N,), default=None
        prior : array-like of shape (N, K), default=None
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
        labels: NDArray[np.int32] = self.fit(X, y, sample_weight, prior=prior).labels_
        return labels

    def _check_labels(self, y: ArrayLike | None, n: int) -> csr_matrix:
        labels = np.full(n, -1) if y is None else np.ma.asanyarray(y)
        if labels.shape != (n,):
            raise ValueError(f"y must have shape (n_samples,) = ({n},), got {labels.shape}")
        if labels.dtype.kind == "O" or np.ma.is_masked(labels):
            labels = np.array([self._label_of(label, i) for i, label in enumerate(labels)])
        if labels.dtype.kind not in "iuf":
            raise TypeError(
                f"Unknown label type: y must hold integers, -1 where unknown, got {labels.dtype}"
            )
        # Integers that passed through a column of floats are integers still; NaN is not.
        bad = ~((labels >= -1) & (labels < self.n_clusters) & (np.floor(labels) == labels))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise self._bad_label(labels[row], row)
        rows = np.flatnonzero(labels >= 0)
        entries = (np.ones(len(rows)), (rows, labels[rows].astype(np.intp)))
        return csr_matrix(entries, shape=(n, self.n_clusters))

    def _label_of(self, label: Any, row: int) -> float:
        """One of the objects that columns with missing values are made of."""
        numbers = (int, float, np.integer, np.floating)
        if isinstance(label, numbers) and not isinstance(label, bool):
            if not -1 <= label < self.n_clusters:  # NaN too, and integers that no float holds
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
        if np.ma.is_masked(prior):  # the mask would be dropped
            raise ValueError("prior must not hold masked values; 0 says that nothing is known")
        values = check_array(prior, dtype=np.float64, input_name="prior")
        if values.shape != (n, self.n_clusters):
            raise ValueError(
                f"prior must have shape (n_samples, n_clusters) = ({n}, {self.n_clusters}), "
                f"got {values.shape}"
            )
        if values.min() < 0:
            raise ValueError(f"prior must hold probabilities >= 0, got {values.min()}")
        most = values.sum(axis=1).max()
        if most > 1 + ROUNDING:
            raise ValueError(f"rows of prior must sum to at most 1, got a sum of {most}")
        return csr_matrix(values)

    def _resolve_theta(self, given: Supervision, weight: NDArray[Any] | None, n: int) -> float:
        labelled = float(given.mass.sum())
        if labelled <= 0:
            return 0.0
        if isinstance(self.theta, str):
            total = float(n) if weight is None else float(weight.sum(dtype=np.float64))
            return min(total / labelled, labelled)
        return float(self.theta)

    def _starts(self, X: NDArray[Any], weight: NDArray[Any] | None, given: Supervision) -> Float64:
        """First centroids (S, K, D): labelled clusters at their means, the others by ``init``."""
        n_init = resolve_n_init(self.n_init, self.init)
        random_state = check_random_state(self.random_state)
        free = np.isnan(given.seeds[:, 0])
        if free.all() or not isinstance(self.init, str):
            return initial_centroids(
                X,
                self.n_clusters,
                self.init,  # type: ignore[arg-type]
                n_init,
                weight,
                random_state,
                check_n_threads(self.n_threads),
            )
        if not free.any():
            return given.seeds[None]
        mass = np.ones(len(X)) if weight is None else weight.astype(np.float64)
        unknown = mass.copy()
        unknown[given.rows] *= np.maximum(1 - given.trust, 0.0)
        if unknown.sum() > 0:
            mass = unknown
        rules = ["farthest"] if self.init in ("auto", "farthest") else []
        if self.init != "farthest":
            rules += [self.init] * (n_init - len(rules))
        starts = np.repeat(given.seeds[None], len(rules), axis=0)
        for start, rule in zip(starts, rules, strict=True):
            self._fill(start, free, X, mass, rule, random_state)
            if rule == "k-means":
                self._lloyd(start, free, X, mass)
        return starts

    def _lloyd(
        self, start: Float64, free: NDArray[np.bool_], X: NDArray[Any], mass: Float64
    ) -> None:
        """Move the free centroids of ``start`` as hard k-means does, in place."""
        n_threads = check_n_threads(self.n_threads)
        hard = CpuBackend(X, mass.astype(X.dtype), n_threads, weighting="hard")
        for _ in range(LLOYD_PASSES):
            moved = hard.statistics(start[None], np.ones(1)).ratio(start[None])[0][free]
            if np.array_equal(moved, start[free]):
                break
            start[free] = moved

    def _fill(
        self,
        start: Float64,
        free: NDArray[np.bool_],
        X: NDArray[Any],
        mass: Float64,
        rule: str,
        random_state: np.random.RandomState,
    ) -> None:
        """Rows of X, of those with ``mass``, for the free centroids of ``start``, in place."""
        closest = self._squared_distances(X, start[~free])
        for k in np.flatnonzero(free):
            chances = mass * (closest > 0) if rule == "random" else mass * closest
            if not chances.sum() > 0:  # every row is a seed already
                chances = mass
            if rule == "farthest":
                row = int(np.where(mass > 0, closest, -1.0).argmax())
            else:
                total = np.cumsum(chances)
                drawn = random_state.uniform() * total[-1]
                row = min(int(np.searchsorted(total, drawn, side="right")), len(X) - 1)
            start[k] = X[row]
            closest = np.minimum(closest, self._squared_distances(X, start[k : k + 1]))

    def _squared_distances(self, X: NDArray[Any], centroids: Float64) -> Float64:
        _, squared = kernels.assign(X, centroids, n_threads=self.n_threads)
        return np.asarray(squared, np.float64)
