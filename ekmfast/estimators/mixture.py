"""EquilibriumMixture: a mixture of Student distributions, found by equilibrium k-means."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from ekmfast._parameters import (
    BOOLEAN,
    COUNT,
    N_THREADS,
    SEED,
    VERBOSE,
    AnyOf,
    Constraint,
    Kind,
    Number,
    OneOf,
    Parameters,
    check_seed,
)
from ekmfast.estimators.base import check_columns, check_data, check_weight
from ekmfast.fit.cluster_path import MAX_CLUSTERS, NumberSearch, n_init_of_path
from ekmfast.fit.mixture.background import Box, box_of
from ekmfast.fit.mixture.blocks import OfRows, ScaledBlocks, map_rows, scaled
from ekmfast.fit.mixture.iteration import Fitted, last_maximization
from ekmfast.fit.mixture.kinds import KINDS, MATRICES
from ekmfast.fit.mixture.rows import ScaledRows, densities
from ekmfast.fit.mixture.search import SEARCH_ROWS, MixtureSearch, centre_and_unit, restarts
from ekmfast.fit.mixture.student import StudentMixture
from ekmfast.fit.problem import Problem
from ekmfast.fit.seeding import N_INIT
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.array_api import like_x
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.blockwise import BlockRows
from ekmfast.rows.device import is_cuda_array
from ekmfast.rows.given import rows_of
from ekmfast.rows.limits import overflow_of
from ekmfast.rows.sparse import SparseRows
from ekmfast.rows.threads import check_n_threads, one_blas_thread

Float64 = NDArray[np.float64]

COVARIANCE_TYPE = OneOf("auto", *KINDS)
DEGREES_OF_FREEDOM = AnyOf(
    OneOf("auto"), Number(2, open_low=True), Kind(lambda v: v == math.inf, "inf")
)


def report_mixture(fitted: Fitted) -> None:
    """Print a line about one run of expectation maximization."""
    mixture = fitted.mixture
    print(
        f"EquilibriumMixture: {len(mixture.weights)} {mixture.kind} components, "
        f"{mixture.degrees:g} degrees of freedom, {fitted.n_iter} iterations, "
        f"criterion {fitted.criterion:.5g}"
    )


class EquilibriumMixture(Parameters, ClusterMixin, BaseEstimator):
    """A mixture of Student distributions that equilibrium k-means finds: clusters with shapes.

    :class:`EKMeans` finds small clusters beside large ones, but gives each row to the nearest
    centroid, as if all clusters were round and equally wide. Here each cluster also has a share of
    the rows, a scale and a shape. The labels of equilibrium k-means at a grid of alphas, and those
    of a Gaussian mixture, are the starts of expectation maximization. The result with the largest
    likelihood, minus a penalty for its parameters, is kept if its tails are heavy, and otherwise
    that with the largest classification likelihood among those with light tails. Student
    distributions have heavier tails than Gaussians, so that far rows hardly move a component. Last,
    moves are tried that join two components and split another one.

    The interface is that of scikit-learn's ``GaussianMixture``.

    Parameters
    ----------
    n_components : int or 'auto', default=1
        The number of components. ``'auto'`` takes the number that :func:`cluster_path` finds best;
        with ``background=True`` its mixtures have a background, too.
    max_clusters : int, default=15
        The largest number that ``'auto'`` tries.
    covariance_type : {'auto', 'full', 'tied', 'diag', 'spherical'}, default='auto'
        As for ``GaussianMixture``; ``'auto'`` chooses ``'diag'`` or ``'full'``. For sparse rows it
        means ``'diag'``, or ``'spherical'`` where they have more than 500 features, and
        ``'tied'`` and ``'full'`` are refused, whose matrices would have D x D entries.
    degrees_of_freedom : 'auto' or float > 2, default='auto'
        Those of the Student distributions; ``inf`` for Gaussians. ``'auto'`` chooses from 3, 6, 20
        and infinity, the same for all components.
    background : bool, default=False
        Whether there is one more component, for rows that belong to no cluster. Its density is
        constant, that of a uniform distribution over the box of the rows, and its share is
        estimated, at most 1/2. Rows that most probably belong to it get the label -1, also new ones
        outside of the box.
    n_init : int or 'auto', default='auto'
        The number of restarts of equilibrium k-means at each alpha; ``'auto'`` means 8.
    max_iter : int, default=100
        The largest number of iterations of a run of expectation maximization.
    tol : float, default=1e-4
        A run ends when the mean log density of a row rises by less than this.
    random_state : int, RandomState instance or None, default=None
    n_threads : int, default=None
        The number of threads, as for :class:`EKMeans`.
    verbose : int, default=0
        1 prints a line for each run.

    Attributes
    ----------
    weights_ : ndarray of shape (K,)
        The shares of the components, which add up to ``1 - background_weight_``. If components
        coincide, there are fewer than ``n_components``.
    background_weight_ : float
        The share of the background, 0 if there is none.
    means_ : ndarray of shape (K, D)
    covariances_ : ndarray of shape (K, D, D), (D, D), (K, D) or (K,)
        For the types 'full', 'tied', 'diag' and 'spherical', as for ``GaussianMixture``. That of a
        Student distribution is ``v / (v - 2)`` times its scatter matrix.
    covariance_type_ : str
        The type that was used.
    degrees_of_freedom_ : float
        Those that were used.
    labels_ : ndarray of shape (N,), int32
        The most likely component of each row, -1 for the background. Not set by a fit to Blocks or
        a Dask collection.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        The mean log density of the rows of the fit.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, only where X has column names

    Raises
    ------
    ValueError, TypeError
        From ``fit``, if parameters or data are not as described.

    Warns
    -----
    ConvergenceWarning
        If the run that is kept did not converge.

    See Also
    --------
    EKMeans : Round clusters, also in rows on a GPU.
    cluster_path : What ``n_components='auto'`` chooses the number from.

    Notes
    -----
    The components are searched for on a sample of at most 7,000 rows, and their parameters are
    then computed from all rows, in their dtype.

    Sparse rows are read in float64 whatever their dtype is. Of at most 500 features, it
    is searched as dense rows are, and the result is that of the dense array with the same
    ``covariance_type``. Otherwise the search begins from the labels of :class:`EKMeans` alone. The
    relative error of a variance is about 1e-16 times the squared mean over the variance.

    Where features are strongly correlated, as in codes of neural networks, the likelihood is a poor
    judge. There, and without a background, a mixture of ``'diag'`` (or of the given type) that
    begins from the labels of :class:`EKMeans` is tried first, and kept if it hardly changes them.
    Otherwise the components are searched for in the leading principal components, and computed
    from the labels found there.

    The box of the background holds all rows with weight; of blocks, all rows. Along a constant
    feature its side is such that its density is about that of a component. For ``'spherical'`` the
    density is that of a box whose sides have the root mean square length, but `sample` draws rows
    from the box itself. If clusters fill little of the box, as in many
    dimensions, rows are of the background only where they are far from all clusters.

    The page Mathematics has the formulas: the density (Eq. 22, eq-student), the iteration (Eq. 23,
    eq-responsibility, and Eq. 24, eq-em), the background (Eq. 25, eq-background) and the
    criterion by which the search chooses (Eq. 28, eq-criterion).

    References
    ----------
    D. Peel and G. J. McLachlan, "Robust mixture modelling using the t distribution", Statistics and
    Computing 10, 339 (2000). C. Biernacki, G. Celeux and G. Govaert, "Assessing
    a mixture model for clustering with the integrated completed likelihood", IEEE Transactions on
    Pattern Analysis and Machine Intelligence 22, 719 (2000). Y. He, "Imbalanced Data Clustering
    using Equilibrium K-Means", arXiv 2402.14490.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import EquilibriumMixture
    >>> rng = np.random.default_rng(0)
    >>> long = rng.normal(size=(1000, 2)) * [10, 0.3]
    >>> X = np.vstack([long, rng.normal(size=(60, 2)) * 0.5 + [0, 4]])
    >>> model = EquilibriumMixture(2, random_state=0).fit(X)
    >>> sorted(np.bincount(model.labels_).tolist())
    [60, 1000]
    """

    _constraints: ClassVar[dict[str, Constraint]] = {
        "n_components": AnyOf(OneOf("auto"), COUNT),
        "max_clusters": COUNT,
        "covariance_type": COVARIANCE_TYPE,
        "degrees_of_freedom": DEGREES_OF_FREEDOM,
        "background": BOOLEAN,
        "n_init": N_INIT,
        "max_iter": COUNT,
        "tol": Number(0),
        "random_state": SEED,
        "n_threads": N_THREADS,
        "verbose": VERBOSE,
    }

    n_features_in_: int
    labels_: NDArray[np.int32]
    means_: NDArray[Any]
    # The mixture of rows minus `_centre`, in units of `_unit`.
    _saved_state = ("_mixture", "_centre", "_unit", "_box")
    _mixture: StudentMixture
    _box: Box  # of the same rows
    _centre: Float64
    _unit: float

    def __init__(
        self,
        n_components: int | str = 1,
        *,
        max_clusters: int = MAX_CLUSTERS,
        covariance_type: str = "auto",
        degrees_of_freedom: str | float = "auto",
        background: bool = False,
        n_init: int | str = "auto",
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.max_clusters = max_clusters
        self.covariance_type = covariance_type
        self.degrees_of_freedom = degrees_of_freedom
        self.background = background
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_threads = n_threads
        self.verbose = verbose

    def fit(
        self, X: ArrayLike | Blocks, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Find the components.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), Blocks or Dask collection
            float32 and float64 are kept; other dtypes become float64. For Blocks, Dask collections
            and memory maps of 1 GiB or more, components are searched for in a sample, every
            iteration after that is a pass over the blocks, and ``labels_`` is not set.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice. Must be None for Blocks, which contain weights.

        Returns
        -------
        self : EquilibriumMixture
        """
        self._check_parameters()
        rows = self._rows(X, sample_weight, reset=True)
        if isinstance(rows, SparseRows) and self.covariance_type in MATRICES:
            raise _no_matrices(f"covariance_type={self.covariance_type!r}")
        random_state = check_seed(self.random_state)
        least = 1 if isinstance(self.n_components, str) else self.n_components
        survey = rows.survey()
        if survey.n_rows < least:
            raise ValueError(f"n_samples={survey.n_rows} should be >= n_components={least}")
        problem = Problem(rows, least, tol=1e-4, max_iter=300, survey=survey)
        self._centre, self._unit = centre_and_unit(problem)
        self._box = box_of(rows, survey, self._centre, self._unit)
        with one_blas_thread(rows.n_features):
            fitted = self._found(problem, random_state)
            if survey.n_rows > SEARCH_ROWS or not survey.whole:
                mixture = fitted.mixture
                if self.background:
                    mixture = mixture.in_box(self._box, survey.total_weight)
                widths = np.maximum(survey.high - self._centre, self._centre - survey.low)
                fitted = last_maximization(
                    mixture,
                    scaled(rows, survey.total_weight, self._centre, self._unit),
                    largest=float(widths.max()) / self._unit,
                    max_iter=self.max_iter,
                    tol=self.tol,
                )
        self._keep(fitted, rows.dtype)
        self.__dict__.pop("labels_", None)  # an earlier fit may have set it
        if rows.at_hand:
            self.labels_ = self._map(rows, _Labels(self._mixture), None, np.int32)
        if not fitted.converged:
            warnings.warn(
                f"EquilibriumMixture did not converge (max_iter={self.max_iter}): raise max_iter "
                "or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _found(self, problem: Problem, random_state: np.random.RandomState) -> Fitted:
        """The best mixture of a sample."""
        if not isinstance(self.n_components, str):
            return self._search(problem, random_state).best(self.n_components)
        numbers = NumberSearch(
            problem,
            self.max_clusters,
            random_state,
            n_threads=check_n_threads(self.n_threads),
            covariance_type=self.covariance_type,
            degrees_of_freedom=self.degrees_of_freedom,
            background=self.background,
            n_init=n_init_of_path(self.n_init),
            max_iter=self.max_iter,
            tol=self.tol,
            report=report_mixture if self.verbose else None,
        )
        search = self._search(problem, random_state)
        found = None
        if not issparse(search.rows.X):
            found = numbers.labels_of(self._centre + self._unit * search.rows.X)
        return search.best(numbers.best + 1, [] if found is None else [found])

    def _search(self, problem: Problem, random_state: np.random.RandomState) -> MixtureSearch:
        return MixtureSearch.of(
            problem,
            self._centre,
            self._unit,
            random_state,
            covariance_type=self.covariance_type,
            degrees_of_freedom=self.degrees_of_freedom,
            n_threads=check_n_threads(self.n_threads),
            n_rows=SEARCH_ROWS,
            n_init=restarts(self.n_init),
            max_iter=self.max_iter,
            tol=self.tol,
            box=self._box if self.background else None,
            report=report_mixture if self.verbose else None,
        )

    def _keep(self, fitted: Fitted, dtype: np.dtype[Any]) -> None:
        mixture, unit = fitted.mixture, self._unit
        self._mixture = mixture
        self.weights_ = mixture.weights.copy()
        self.means_ = (self._centre + unit * mixture.means).astype(dtype)
        covariances = unit**2 * mixture.covariances
        if mixture.kind == "tied":
            covariances = covariances[0]
        elif mixture.kind == "spherical":
            covariances = covariances[:, 0]
        self.covariances_ = covariances.astype(dtype)
        self.covariance_type_ = mixture.kind
        self.degrees_of_freedom_ = mixture.degrees
        self.converged_ = fitted.converged
        self.n_iter_ = fitted.n_iter
        self.lower_bound_ = fitted.likelihood - self.n_features_in_ * math.log(unit)

    @property
    def background_weight_(self) -> float:
        return float(self._mixture.background)

    # ------------------------------------------------------------------------------------------

    def _rows(self, X: Any, sample_weight: Any = None, *, reset: bool) -> ArrayRows | BlockRows:
        """The rows of X. Without ``reset``, X must have the columns of the fit."""
        if not reset:
            check_is_fitted(self)
        checked_by_sklearn = False

        def check_array(X: Any) -> NDArray[Any]:
            # In ``fit`` the survey finds NaN and infinity, and names their row.
            nonlocal checked_by_sklearn
            checked_by_sklearn = True
            return check_data(self, X, reset=reset, ensure_all_finite=not reset)

        if is_cuda_array(X):
            check_array(X)  # which says that it is not taken
        rows: Any = rows_of(
            X,
            sample_weight,
            check_array=check_array,
            check_weight=check_weight,
            n_threads=self.n_threads,
        )
        if not checked_by_sklearn:  # blocks and Dask collections
            check_columns(self, rows.n_features, rows.feature_names, reset=reset)
        if isinstance(rows, SparseRows) and not reset:
            if self._mixture.full:
                raise _no_matrices(f"this mixture has covariance_type_={self.covariance_type_!r}")
            rows.refuse_not_finite()
        return cast("ArrayRows | BlockRows", rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.covariance_type not in MATRICES
        return tags

    def _map(
        self, rows: ArrayRows | BlockRows, function: OfRows, n_columns: int | None, dtype: Any
    ) -> Any:
        return map_rows(rows, function, self._centre, self._unit, n_columns, dtype)

    @like_x
    def predict(self, X: ArrayLike | Blocks) -> NDArray[np.int32]:
        """The most likely component of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), Blocks or Dask collection

        Returns
        -------
        labels : ndarray of shape (N,), int32
            -1 for the background. For a Dask collection a lazy Dask array.
        """
        rows = self._rows(X, reset=False)
        labels: NDArray[np.int32] = self._map(rows, _Labels(self._mixture), None, np.int32)
        return labels

    @like_x
    def predict_proba(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """The probability of each component, given the row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), Blocks or Dask collection

        Returns
        -------
        probabilities : ndarray of shape (N, K), dtype of X
            Rows add up to 1. If there is a background, there is one more column, the last one, for
            it: so ``probabilities[:, label]`` is that of each label, also of -1. For a Dask
            collection a lazy Dask array.
        """
        rows = self._rows(X, reset=False)
        k = len(self._mixture.weights) + self._mixture.has_background
        probabilities: NDArray[Any] = self._map(rows, _Probabilities(self._mixture), k, None)
        return probabilities

    @like_x
    def score_samples(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """The log density at each row; it is low for rows that belong to no component.

        If there is a background, it is nowhere less than that of the background, also outside of
        the box of the rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), Blocks or Dask collection

        Returns
        -------
        log_density : ndarray of shape (N,), float64
            For a Dask collection a lazy Dask array.
        """
        density: NDArray[Any] = self._map(
            self._rows(X, reset=False), _Density(self._mixture, self._log_unit), None, np.float64
        )
        return density

    @property
    def _log_unit(self) -> float:
        return self.n_features_in_ * math.log(self._unit)

    def _sum_of_logs(self, X: Any, *, classified: bool = False) -> tuple[float, float]:
        """The sum of the log densities of the rows, and the number of rows.

        With ``classified`` the density is that of the most likely component, which may be the
        background. The rows of blocks
        count by their weights.
        """
        rows = self._rows(X, reset=False)
        if isinstance(rows, BlockRows):
            sums = ScaledBlocks(rows, 0.0, self._centre, self._unit).expectation(
                self._mixture[None]
            )
            n = float(sums.mass.sum() + sums.background.sum())
            found = float((sums.classified if classified else sums.likelihood)[0])
            return found - n * self._log_unit, n
        function = _Density(self._mixture, self._log_unit, classified)
        found = float(self._map(rows, function, None, np.float64).sum())
        return found, float(rows.n_rows)

    def score(self, X: ArrayLike | Blocks, y: Any = None) -> float:
        """The mean log density of the rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), Blocks or Dask collection
            The rows of blocks count by their weights.
        y : ignored

        Returns
        -------
        score : float
        """
        found, n = self._sum_of_logs(X)
        return found / n

    @property
    def _n_parameters(self) -> float:
        return self._mixture.n_parameters + (self.degrees_of_freedom == "auto")

    def bic(self, X: ArrayLike | Blocks) -> float:
        """The Bayesian information criterion of the rows; lower is better.

        Parameters
        ----------
        X : as for `score`

        Returns
        -------
        bic : float
        """
        found, n = self._sum_of_logs(X)
        return -2 * found + self._n_parameters * math.log(n)

    def aic(self, X: ArrayLike | Blocks) -> float:
        """The Akaike information criterion of the rows; lower is better.

        Parameters
        ----------
        X : as for `score`

        Returns
        -------
        aic : float
        """
        return -2 * self._sum_of_logs(X)[0] + 2 * self._n_parameters

    def icl(self, X: ArrayLike | Blocks) -> float:
        """The integrated completed likelihood criterion of the rows; lower is better.

        It is `bic` with the density of each row's most likely component in place of the density of
        the mixture, so that components that overlap cost more (Biernacki, Celeux and Govaert 2000;
        Eq. 30, eq-icl, of the page Mathematics).

        Parameters
        ----------
        X : as for `score`

        Returns
        -------
        icl : float
        """
        found, n = self._sum_of_logs(X, classified=True)
        return -2 * found + self._n_parameters * math.log(n)

    def sample(self, n_samples: int = 1) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Random rows of the mixture.

        Parameters
        ----------
        n_samples : int, default=1

        Returns
        -------
        X : ndarray of shape (n_samples, D), dtype of the rows of the fit
        labels : ndarray of shape (n_samples,), int32
            The component of each row, -1 for the background, whose rows are uniform in the box.
        """
        check_is_fitted(self)
        n_samples = COUNT.check("n_samples", n_samples)
        random_state = check_seed(self.random_state)
        mixture, d = self._mixture, self.n_features_in_
        share, names = mixture.weights, np.arange(len(mixture.weights))
        if mixture.has_background:
            share, names = np.append(share, mixture.background), np.append(names, -1)
        labels = np.repeat(names, random_state.multinomial(n_samples, share / share.sum()))
        y = random_state.standard_normal((n_samples, d))
        if np.isfinite(mixture.degrees):
            y /= np.sqrt(random_state.chisquare(mixture.degrees, n_samples) / mixture.degrees)[
                :, None
            ]
        for k, scatter in enumerate(mixture.scatters):
            own = labels == k
            y[own] = (
                y[own] @ np.linalg.cholesky(scatter).T
                if mixture.full
                else (y[own] * np.sqrt(scatter))
            )
        y += mixture.means[labels]
        if mixture.has_background:
            beside = labels < 0
            y[beside] = self._box.draw(int(beside.sum()), random_state)
        return (self._centre + self._unit * y).astype(self.means_.dtype), labels.astype(np.int32)

    @like_x
    def fit_predict(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.int32]:
        """Find the components and return the most likely one of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D)
        y : ignored
        sample_weight : array-like of shape (N,), default=None

        Returns
        -------
        labels : ndarray of shape (N,), int32
        """
        self.fit(X, y, sample_weight)
        return self.labels_ if hasattr(self, "labels_") else self.predict(X)


@dataclass(frozen=True)
class _Labels:
    """The most likely component of each row, -1 for the background."""

    mixture: StudentMixture

    def __call__(self, rows: ScaledRows) -> NDArray[Any]:
        labels, largest = np.empty(rows.n_rows, np.int32), np.empty(rows.n_rows, rows.X.dtype)
        densities(self.mixture, rows, labels=labels, largest=largest)
        _refuse_overflow(largest)
        return labels


@dataclass(frozen=True)
class _Probabilities:
    """The probability of each component, given the row."""

    mixture: StudentMixture

    def __call__(self, rows: ScaledRows) -> NDArray[Any]:
        joint = np.empty((rows.n_rows, len(self.mixture.weights)), rows.X.dtype)
        densities(self.mixture, rows, joint=joint)
        if self.mixture.has_background:
            beside = np.full((len(joint), 1), self.mixture.log_background, joint.dtype)
            joint = np.concatenate([joint, beside], axis=1)
        largest = joint.max(axis=1, keepdims=True)
        _refuse_overflow(largest)
        joint -= largest
        np.exp(joint, out=joint)
        joint /= joint.sum(axis=1, keepdims=True)
        return joint


@dataclass(frozen=True)
class _Density:
    """The log density at each row, or that of its most likely component."""

    mixture: StudentMixture
    log_unit: float
    classified: bool = False

    def __call__(self, rows: ScaledRows) -> NDArray[Any]:
        density = np.empty(rows.n_rows, rows.X.dtype)
        densities(self.mixture, rows, **{"largest" if self.classified else "density": density})
        _refuse_overflow(density)
        return density.astype(np.float64) - self.log_unit


def _no_matrices(what: str) -> ValueError:
    return ValueError(
        f"sparse rows need variances, but {what}: use covariance_type='diag' or 'spherical', or "
        "reduce the rows to their leading components first, with make_pipeline(TruncatedSVD(50), "
        "...), or take X.toarray(), where memory has room for it"
    )


def _refuse_overflow(log_densities: NDArray[Any]) -> None:
    """Refuse rows so far from all components that their squared distances overflow."""
    if not np.isfinite(log_densities).all():
        raise overflow_of(log_densities.dtype)
