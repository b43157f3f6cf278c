"""EquilibriumMixture: a mixture of Student distributions, found by equilibrium k-means."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from ekmfast._parameters import (
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
from ekmfast.estimators.base import check_data, check_weight
from ekmfast.fit.alpha import MULTIPLES, resolve_alpha
from ekmfast.fit.gaussian import gaussian_labels
from ekmfast.fit.mixture import (
    KINDS,
    Fitted,
    ScaledRows,
    StudentMixture,
    densities,
    expectation_maximization,
    label,
)
from ekmfast.fit.problem import Problem
from ekmfast.fit.search import compare_alphas
from ekmfast.fit.seeding import N_INIT, resolve_n_init
from ekmfast.fit.shapes import DEGREES, search
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.array_api import like_x
from ekmfast.rows.threads import check_n_threads

Float64 = NDArray[np.float64]

# Rows from which the mixture is searched for, at most; it then gets its last iterations on all.
SEARCH_ROWS = 10_000
# Restarts of the Gaussian mixture whose labels are one of the starts.
GAUSSIAN_INIT = 3


class EquilibriumMixture(Parameters, ClusterMixin, BaseEstimator):
    """A mixture of Student distributions that equilibrium k-means finds: clusters with shapes.

    :class:`EKMeans` finds small clusters beside large ones, but gives each row to the nearest
    centroid, as if all clusters were round and equally wide. Here each cluster also has a share of
    the rows, a scale and a shape. The labels of equilibrium k-means at a grid of alphas, and those
    of a Gaussian mixture, are the starts of expectation maximization; the result with the largest
    classification likelihood, minus a penalty for its parameters, is kept. Student distributions
    have heavier tails than Gaussians, so that far rows hardly move a component.

    The interface is that of scikit-learn's ``GaussianMixture``.

    Parameters
    ----------
    n_components : int, default=1
        The number of components.
    covariance_type : {'auto', 'full', 'tied', 'diag', 'spherical'}, default='auto'
        As for ``GaussianMixture``; ``'auto'`` chooses ``'diag'`` or ``'full'``.
    degrees_of_freedom : 'auto' or float > 2, default='auto'
        Those of the Student distributions; ``inf`` for Gaussians. ``'auto'`` chooses from 3, 6, 20
        and infinity, the same for all components.
    n_init : int or 'auto', default='auto'
        The number of restarts of equilibrium k-means at each alpha; ``'auto'`` means 16.
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
        The shares of the components. If components coincide, there are fewer than
        ``n_components``.
    means_ : ndarray of shape (K, D)
    covariances_ : ndarray of shape (K, D, D), (D, D), (K, D) or (K,)
        For the types 'full', 'tied', 'diag' and 'spherical', as for ``GaussianMixture``. That of a
        Student distribution is ``v / (v - 2)`` times its scatter matrix.
    covariance_type_ : str
        The type that was used.
    degrees_of_freedom_ : float
        Those that were used.
    labels_ : ndarray of shape (N,), int32
        The most likely component of each row.
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
    EKMeans : Round clusters, also in rows that are not in memory or are on a GPU.

    Notes
    -----
    The components are searched for on a sample of at most 10,000 rows, and their parameters are
    then computed from all rows, in their dtype.

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
        "n_components": COUNT,
        "covariance_type": OneOf("auto", *KINDS),
        "degrees_of_freedom": AnyOf(
            OneOf("auto"), Number(2, open_low=True), Kind(lambda v: v == math.inf, "inf")
        ),
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
    _saved_state = ("_mixture", "_centre", "_unit")
    _mixture: StudentMixture
    _centre: Float64
    _unit: float

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "auto",
        degrees_of_freedom: str | float = "auto",
        n_init: int | str = "auto",
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.degrees_of_freedom = degrees_of_freedom
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_threads = n_threads
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Find the components.

        Parameters
        ----------
        X : array-like of shape (N, D)
            float32 and float64 are kept; other dtypes become float64.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice.

        Returns
        -------
        self : EquilibriumMixture
        """
        self._check_parameters()
        rows = self._check_data(X, reset=True)
        if len(rows) < self.n_components:
            raise ValueError(f"n_samples={len(rows)} should be >= n_components={self.n_components}")
        s = check_weight(sample_weight, rows)
        random_state = check_seed(self.random_state)
        problem = Problem(
            ArrayRows(rows, s, check_n_threads(self.n_threads)),
            self.n_components,
            tol=1e-4,
            max_iter=300,
        )
        self._centre = problem.survey.mean
        radius = math.sqrt(2 * problem.dispersion / rows.shape[1])
        self._unit = radius if radius > 0 else 1.0
        fitted = self._search(problem, random_state)
        if len(rows) > SEARCH_ROWS:
            (fitted,) = expectation_maximization(
                fitted.mixture[None],
                self._scaled(rows, s),
                max_iter=self.max_iter,
                tol=self.tol,
            )
        self._keep(fitted, rows.dtype)
        self.labels_ = label(self._mixture, self._scaled(rows))
        if not fitted.converged:
            warnings.warn(
                f"EquilibriumMixture did not converge (max_iter={self.max_iter}): raise max_iter "
                "or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _search(self, problem: Problem, random_state: np.random.RandomState) -> Fitted:
        """The best mixture of the rows of a sample."""
        sample = problem.sample(SEARCH_ROWS, random_state)
        rows = sample.survey.sample.on_host()
        s = rows.sample_weight
        weighted = slice(None) if s is None else s > 0
        X = (rows.X[weighted].astype(np.float64) - self._centre) / self._unit
        some = ScaledRows(
            X,
            None if s is None else s[weighted].astype(np.float64),
            np.zeros(X.shape[1]),
            1.0,
            check_n_threads(self.n_threads),
        )
        kinds = ("diag", "full") if self.covariance_type == "auto" else (self.covariance_type,)
        v = self.degrees_of_freedom
        return search(
            some,
            self._labellings(sample, some, weighted, random_state),
            kinds,
            DEGREES if isinstance(v, str) else (float(v),),
            max_iter=self.max_iter,
            tol=self.tol,
            report=self._report if self.verbose else None,
        )

    def _labellings(
        self,
        sample: Problem,
        rows: ScaledRows,
        weighted: Any,
        random_state: np.random.RandomState,
    ) -> Iterator[NDArray[Any]]:
        """Yield labels of the sample's weighted rows from which expectation maximization begins."""
        k, n = self.n_components, len(rows.X)
        if k == 1 or sample.dispersion == 0:
            yield np.zeros(n, np.intp)
            return
        starts = sample.starts("auto", resolve_n_init(self.n_init, "auto"), random_state)
        dvariance = resolve_alpha("dvariance", 2.0, sample.dispersion)
        for labels in compare_alphas(sample, starts, dvariance * MULTIPLES).labels:
            yield labels[weighted]
        if n >= k:
            unweighted = replace(rows, sample_weight=None)
            yield gaussian_labels(unweighted, k, GAUSSIAN_INIT, random_state)

    def _report(self, fitted: Fitted) -> None:
        mixture = fitted.mixture
        print(
            f"EquilibriumMixture: {len(mixture.weights)} {mixture.kind} components, "
            f"{mixture.degrees:g} degrees of freedom, {fitted.n_iter} iterations, "
            f"criterion {fitted.criterion:.5g}"
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

    # ------------------------------------------------------------------------------------------

    def _check_data(self, X: Any, *, reset: bool) -> NDArray[Any]:
        # In ``fit`` the survey finds NaN and infinity, and names their row.
        return check_data(self, X, reset=reset, ensure_all_finite=not reset)

    def _scaled(self, rows: NDArray[Any], s: NDArray[Any] | None = None) -> ScaledRows:
        """Rows minus their mean, in units of their root mean square distance from it."""
        return ScaledRows(rows, s, self._centre, self._unit, check_n_threads(self.n_threads))

    def _checked(self, X: Any) -> ScaledRows:
        check_is_fitted(self)
        return self._scaled(self._check_data(X, reset=False))

    @like_x
    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """The most likely component of each row.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        labels : ndarray of shape (N,), int32
        """
        rows = self._checked(X)
        return label(self._mixture, rows)

    @like_x
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """The probability of each component, given the row.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        probabilities : ndarray of shape (N, K), dtype of X
        """
        rows = self._checked(X)
        joint = np.empty((len(rows.X), len(self._mixture.weights)), rows.X.dtype)
        densities(self._mixture, rows, joint=joint)
        joint -= joint.max(axis=1, keepdims=True)
        np.exp(joint, out=joint)
        joint /= joint.sum(axis=1, keepdims=True)
        return joint

    @like_x
    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """The log density at each row; it is low for rows that belong to no component.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        log_density : ndarray of shape (N,), float64
        """
        return self._log_density(X)

    def _log_density(self, X: ArrayLike) -> Float64:
        rows = self._checked(X)
        density = np.empty(len(rows.X), rows.X.dtype)
        densities(self._mixture, rows, density=density)
        return density.astype(np.float64) - self.n_features_in_ * math.log(self._unit)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """The mean log density of the rows.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : ignored

        Returns
        -------
        score : float
        """
        return float(self._log_density(X).mean())

    @property
    def _n_parameters(self) -> float:
        return self._mixture.n_parameters + (self.degrees_of_freedom == "auto")

    def bic(self, X: ArrayLike) -> float:
        """The Bayesian information criterion of the rows; lower is better.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        bic : float
        """
        density = self._log_density(X)
        return float(-2 * density.sum() + self._n_parameters * math.log(len(density)))

    def aic(self, X: ArrayLike) -> float:
        """The Akaike information criterion of the rows; lower is better.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        aic : float
        """
        return float(-2 * self._log_density(X).sum() + 2 * self._n_parameters)

    def icl(self, X: ArrayLike) -> float:
        """The integrated completed likelihood criterion of the rows; lower is better.

        It is `bic` with the density of each row's most likely component in place of the density of
        the mixture, so that components that overlap cost more (Biernacki, Celeux and Govaert 2000).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        icl : float
        """
        rows = self._checked(X)
        largest = np.empty(len(rows.X), rows.X.dtype)
        densities(self._mixture, rows, largest=largest)
        own = largest.astype(np.float64) - self.n_features_in_ * math.log(self._unit)
        return float(-2 * own.sum() + self._n_parameters * math.log(len(own)))

    def sample(self, n_samples: int = 1) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Random rows of the mixture.

        Parameters
        ----------
        n_samples : int, default=1

        Returns
        -------
        X : ndarray of shape (n_samples, D), dtype of the rows of the fit
        labels : ndarray of shape (n_samples,), int32
            The component of each row.
        """
        check_is_fitted(self)
        n_samples = COUNT.check("n_samples", n_samples)
        random_state = check_seed(self.random_state)
        mixture, d = self._mixture, self.n_features_in_
        share = mixture.weights / mixture.weights.sum()
        labels = np.repeat(np.arange(len(share)), random_state.multinomial(n_samples, share))
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
        return (self._centre + self._unit * y).astype(self.means_.dtype), labels.astype(np.int32)

    @like_x
    def fit_predict(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.int32]:
        """Find the components and return the most likely one of each row.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : ignored
        sample_weight : array-like of shape (N,), default=None

        Returns
        -------
        labels : ndarray of shape (N,), int32
        """
        return self.fit(X, y, sample_weight).labels_
