"""CentroidEstimator, the base class of all estimators: checks, labels, memberships and scores."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ekmfast._parameters import (
    COUNT,
    METRIC,
    N_THREADS,
    PATH,
    SEED,
    VERBOSE,
    ZERO_ROWS,
    Constraint,
    Number,
    Parameters,
)
from ekmfast.fit.checkpoint import check_writable
from ekmfast.fit.merging import count_distinct, merge_coincident
from ekmfast.fit.problem import Problem
from ekmfast.fit.progress import CallbackSupportMixin, Progress
from ekmfast.fit.seeding import INIT, N_INIT, resolve_n_init
from ekmfast.fit.solver import Run
from ekmfast.fit.spread import check_spread
from ekmfast.rows.array_api import as_numpy, like_x
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.columns import (
    check_kind,
    check_names,
    check_unmasked,
    kind_of,
    names_unknown_to_sklearn,
)
from ekmfast.rows.device import DEVICE, is_cuda_array
from ekmfast.rows.distances import squared_distances
from ekmfast.rows.given import is_dask, rows_of
from ekmfast.rows.limits import refuse_not_finite
from ekmfast.rows.protocol import Rows
from ekmfast.rows.unit import filled

Float64 = NDArray[np.float64]


def check_weight(sample_weight: ArrayLike | None, X: NDArray[Any]) -> NDArray[Any] | None:
    """The weights of the rows of X, checked, in the dtype of X."""
    if sample_weight is None:
        return None
    check_unmasked(sample_weight, "sample_weight")
    sample_weight = as_numpy(sample_weight)
    try:
        weight: NDArray[Any] = _check_sample_weight(
            sample_weight, X, dtype=X.dtype, ensure_non_negative=True
        )
    except (TypeError, ValueError) as error:
        if "sample_weight" in str(error):
            raise
        raise kind_of(error)(f"sample_weight is not valid: {error}") from error
    if not weight.any():  # scikit-learn checks this only after version 1.6
        raise ValueError("sample_weight must have a non-zero entry, got zeros alone")
    return weight


def check_data(
    estimator: Any, X: Any, *, reset: bool, ensure_all_finite: bool = True, **options: Any
) -> NDArray[Any]:
    """X as a C-contiguous array of float32 or float64, checked like any input of scikit-learn.

    Sparse matrices of any format become CSR matrices. ``options`` are those of
    `sklearn.utils.validation.validate_data`. Errors name the columns of a table that hold no
    numbers, and the row and column of NaN or infinity in an array; masked entries are refused.
    """
    if isinstance(X, Blocks) or is_dask(X) or is_cuda_array(X):
        raise TypeError(
            f"{type(estimator).__name__} takes arrays in the memory of the host, got "
            f"{type(X).__name__}: give it an array, such as a sample of the rows"
        )
    X = as_numpy(X)
    check_kind(X)
    names = names_unknown_to_sklearn(X)
    with warnings.catch_warnings() if names else nullcontext():
        if names:
            warnings.filterwarnings("ignore", "X does not have valid feature names")
        rows = validate_data(
            estimator,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            order="C",
            ensure_all_finite=False,
            accept_sparse="csr",
            **options,
        )
    if ensure_all_finite and not issparse(rows):
        with np.errstate(over="ignore", invalid="ignore"):
            suspect = not np.isfinite(rows.sum())  # the sum of finite numbers may overflow, too
        if suspect:
            refuse_not_finite([rows])
    if names and reset:
        estimator.feature_names_in_ = np.array(names, object)
    elif names:
        check_names(names, getattr(estimator, "feature_names_in_", None), type(estimator).__name__)
    return readable(rows)


def readable(rows: Any) -> NDArray[Any]:
    """An array or CSR matrix that scikit-learn has checked, as the kernels can read it."""
    if not issparse(rows):
        return np.require(rows, requirements="A")
    # scikit-learn keeps the dtype bool of a frame of sparse columns.
    kept: NDArray[Any] = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
    return kept


def check_columns(
    estimator: Any, n_features: int, names: Sequence[str] | None, *, reset: bool
) -> None:
    """Remember the columns of blocks in ``fit``, or compare them with those of the fit later."""
    if reset:
        estimator.n_features_in_ = n_features
        vars(estimator).pop("feature_names_in_", None)  # an earlier fit may have set it
        if names is not None:
            estimator.feature_names_in_ = np.array(names, object)
        return
    name = type(estimator).__name__
    check_names(names, getattr(estimator, "feature_names_in_", None), name)
    if n_features != estimator.n_features_in_:
        raise ValueError(
            f"X has {n_features} features, but {name} is expecting "
            f"{estimator.n_features_in_} features as input"
        )


class CentroidEstimator(
    CallbackSupportMixin,
    Parameters,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClusterMixin,
    BaseEstimator,
):
    """Base class of the estimators whose result is ``cluster_centers_`` and ``alpha_``."""

    _constraints: ClassVar[dict[str, Constraint]] = {
        "n_clusters": COUNT,
        "metric": METRIC,
        "zero_rows": ZERO_ROWS,
        "init": INIT,
        "n_init": N_INIT,
        "max_iter": COUNT,
        "tol": Number(0),
        "random_state": SEED,
        "device": DEVICE,
        "n_threads": N_THREADS,
        "verbose": VERBOSE,
    }
    metric: str = "euclidean"
    zero_rows: str = "error"
    missing: str = "error"
    # The weight function of the kernels, and the exponent m of 'fuzzy'.
    _weighting: ClassVar[str] = "equilibrium"
    _weighting_fuzzifier: float = 2.0
    # If the weights do not depend on alpha, alpha_ is infinite and only equal centroids are merged.
    _uses_alpha: ClassVar[bool] = True

    n_clusters: int
    init: str | ArrayLike | Callable[..., Any]
    n_init: int | str
    max_iter: int
    tol: float
    random_state: int | np.random.RandomState | None
    device: str
    n_threads: int | None
    verbose: int
    n_features_in_: int
    cluster_centers_: NDArray[Any]
    labels_: NDArray[np.int32]
    alpha_: float
    objective_: float
    _merged_: NDArray[np.intp]

    @property
    def _n_clusters(self) -> int:
        """The number of clusters with which a fit begins."""
        return self.n_clusters

    # ------------------------------------------------------------------------------------------
    # Rows

    def _rows(
        self, X: Any, sample_weight: Any = None, *, fit: bool = False, device: str | None = None
    ) -> Rows:
        """The rows of X, wherever they are. After ``fit``, X must have the columns of the fit.

        If ``device`` is None, passes are computed where the rows are.
        """
        if not fit:
            check_is_fitted(self)
            self._check_metric()
        checked_by_sklearn = False

        def check_array(X: Any) -> NDArray[Any]:
            nonlocal checked_by_sklearn
            checked_by_sklearn = True
            return self._check_data(X, reset=fit)

        rows = rows_of(
            X,
            sample_weight,
            check_array=check_array,
            check_weight=check_weight,
            device=device,
            work=2.0 * self._n_clusters * resolve_n_init(self.n_init, self.init),
            n_threads=self.n_threads,
            weighting=self._weighting,
            fuzzifier=self._weighting_fuzzifier,
            metric=self.metric,
            missing=self.missing,
            zero_rows=self.zero_rows,
        )
        if not checked_by_sklearn:  # blocks, Dask collections and arrays on a GPU
            self._check_columns(rows.n_features, rows.feature_names, reset=fit)
        return rows

    def _check_metric(self) -> None:
        """Refuse centroids whose length is not 1 for the cosine, with which distances are wrong."""
        if self.metric == "cosine" and not np.allclose(
            np.linalg.norm(self._centres, axis=1), 1, atol=1e-3
        ):
            raise ValueError(
                "metric has become 'cosine' since the fit, whose centroids do not have length 1: "
                "call fit again"
            )

    def _check_data(self, X: Any, *, reset: bool) -> NDArray[Any]:
        """X as an array that the kernels can read; in ``fit`` the survey finds NaN and infinity."""
        # In sparse rows every method finds them, and names the row and the column.
        # Of rows with missing numbers `PartialRows` finds infinity.
        finite = not reset and not issparse(X) and self.missing == "error"
        return check_data(self, X, reset=reset, ensure_all_finite=finite)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.missing == "error"
        tags.input_tags.allow_nan = self.missing == "partial"
        return tags

    def _check_columns(self, n_features: int, names: Sequence[str] | None, *, reset: bool) -> None:
        """Remember the columns in ``fit``, or compare them with those of the fit later."""
        check_columns(self, n_features, names, reset=reset)

    def _check_names(self, names: Sequence[str] | None) -> None:
        check_names(names, getattr(self, "feature_names_in_", None), type(self).__name__)

    def _problem(
        self,
        X: Any,
        sample_weight: Any,
        checkpoint: str | os.PathLike[str] | None,
        checkpoint_every: int,
    ) -> tuple[Problem, Progress]:
        """The problem of clustering X with the parameters of this estimator, after a survey."""
        checkpoint_every = COUNT.check("checkpoint_every", checkpoint_every)
        path = None if checkpoint is None else PATH.check("checkpoint", checkpoint)
        if path is not None:
            if self.random_state is None:
                raise ValueError(
                    "checkpoint needs a random_state other than None: a fit that goes on from the "
                    "file must begin with the same centroids"
                )
            check_writable(path)
        rows = self._rows(X, sample_weight, fit=True, device=self.device)
        progress = Progress(self, X, rows.dtype, self.verbose)
        problem = Problem(
            rows,
            self._n_clusters,
            tol=self.tol,
            max_iter=self.max_iter,
            report=progress.report,
            checkpoint=path,
            checkpoint_every=checkpoint_every,
        )
        return problem, progress

    def _starts(self, problem: Problem, random_state: np.random.RandomState) -> Float64:
        n_init = resolve_n_init(self.n_init, self.init)
        return problem.starts(self.init, n_init, random_state)

    @property
    def _n_features_out(self) -> int:
        return int(self.cluster_centers_.shape[0])

    @property
    def _centres(self) -> Float64:
        return np.ascontiguousarray(self.cluster_centers_, np.float64)

    # ------------------------------------------------------------------------------------------
    # Methods that need centroids alone

    @like_x
    def predict(self, X: ArrayLike | Blocks) -> NDArray[np.int32]:
        """Index of the nearest centroid; merged centroids have the index of the first of them.

        With ``zero_rows="label"`` a row of zeros has the label -1.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), or whatever ``fit`` takes

        Returns
        -------
        labels : ndarray of shape (N,), int32
            On the GPU if X lies there; for a Dask collection a lazy Dask array.
        """
        labels: NDArray[np.int32] = self._rows(X).label(self._centres, self._merged_)
        return labels

    @like_x
    def fit_predict(
        self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None, **kwargs: Any
    ) -> NDArray[np.int32]:
        """Find the centroids and return the label of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), array on a GPU, Blocks or Dask collection
        y : ignored
        sample_weight : array-like of shape (N,), default=None
        **kwargs
            As in ``fit``.

        Returns
        -------
        labels : ndarray of shape (N,), int32
            As from ``predict``.
        """
        self.fit(X, y, sample_weight, **kwargs)
        return self.labels_ if hasattr(self, "labels_") else self.predict(X)

    @like_x
    def transform(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """Distance of each row to each centroid, as ``metric`` says.

        With ``metric="cosine"`` it is ``1 - cos(x, c)``, half of the squared Euclidean distance of
        the row, divided by its length, to the centroid. It is 1 for a row of zeros, as in
        scikit-learn's ``cosine_distances``.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), or whatever ``fit`` takes

        Returns
        -------
        distances : ndarray of shape (N, K), dtype of X
            Where labels of ``predict`` are.
        """
        function = np.sqrt if self.metric == "euclidean" else _half
        return self._of_distances(X, function, of_zeros=1)

    def _of_distances(
        self,
        X: Any,
        function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        *,
        of_zeros: float = 0,
    ) -> NDArray[Any]:
        """A function of the squared distances to all centroids, applied to some rows at a time.

        Rows of zeros that the cosine allows get ``of_zeros`` instead.
        """
        rows, centres = self._rows(X), self._centres
        distances = partial(
            squared_distances,
            centroids=centres,
            function=function,
            n_threads=rows.n_threads,
            partial=rows.space == "features",
        )
        return self._mapped(rows, distances, of_zeros)

    def _mapped(
        self, rows: Rows, function: Callable[[Any], NDArray[Any]], of_zeros: float = 0
    ) -> NDArray[Any]:
        if rows.space == "unit" and self.zero_rows == "label":
            function = partial(filled, function, of_zeros)
        values: NDArray[Any] = rows.map(function, len(self._centres))
        return values

    @like_x
    def membership(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """Boltzmann memberships ``p_kn = softmax_k(-alpha d_kn)``, whose rows sum to 1.

        With ``zero_rows="label"`` they are 0 for a row of zeros, as are the weights.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), or whatever ``fit`` takes

        Returns
        -------
        p : ndarray of shape (N, K), dtype of X
            Where labels of ``predict`` are.
        """
        check_is_fitted(self)  # before alpha_ is read
        return self._of_distances(X, partial(boltzmann, alpha=self.alpha_))

    @like_x
    def weights(self, X: ArrayLike | Blocks) -> NDArray[Any]:
        """Weights of Eq. 38, whose rows sum to 1; a negative weight pushes the centroid away.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), or whatever ``fit`` takes

        Returns
        -------
        w : ndarray of shape (N, K), dtype of X
            Where labels of ``predict`` are.
        """
        weights: NDArray[Any] = self._rows(X).weights(self._centres, self.alpha_)
        return weights

    def score(
        self, X: ArrayLike | Blocks, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Minus the objective of the rows; higher is better for the same alpha and ``n_clusters``.

        Do not choose alpha or ``n_clusters`` by this score. However good the clusters are, J falls
        as ``n_clusters`` grows and as alpha grows (that of MaximumEntropyKMeans rises with alpha),
        so that ``GridSearchCV`` would end at an edge of its grid. To choose alpha, use
        :class:`ekmfast.EKMeans` with ``alpha="auto"`` or :func:`ekmfast.alpha_path`, which compare
        likelihoods, or, with known labels, ``GridSearchCV(..., scoring="adjusted_rand_score")``.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), array on a GPU, Blocks or Dask collection
        y : ignored
        sample_weight : array-like of shape (N,), default=None

        Returns
        -------
        score : float
        """
        rows, centres = self._rows(X, sample_weight), self._centres
        alpha = np.array([float(self.alpha_) if self._uses_alpha else 1.0])
        objective = float(rows.statistics(centres[None], alpha).objective[0])
        if not np.isfinite(objective):
            found = rows.survey()  # raises an error that names the row with NaN or infinity
            low = np.minimum(found.low, centres.min(axis=0))
            high = np.maximum(found.high, centres.max(axis=0))
            check_spread(np.inf, low, high, rows.dtype, weighted=rows.weighted)
        return -objective

    # ------------------------------------------------------------------------------------------
    # The result of a fit

    def _end(self, problem: Problem, progress: Progress, run: Run, alpha: float) -> None:
        """Store the result of a fit, with labels if the rows are at hand, and warn."""
        if progress.cut_short:  # though the centroids that a stopped search led to may not move
            run = replace(run, converged=False, done=False)
        self._keep(run, problem.dtype, alpha)
        self.__dict__.pop("labels_", None)  # an earlier fit may have set it
        if problem.rows.at_hand:
            self.labels_ = problem.rows.label(self._centres, self._merged_)
        progress.end()
        self._warn_of_the_fit(5)  # skips the frames of this method, `fit` and its decorator

    def _keep(self, run: Run, dtype: np.dtype[Any], alpha: float) -> None:
        if not np.isfinite(run.objective):
            raise ValueError(
                "no start gave a finite objective: the initial centroids are too far from X, or "
                + (f"alpha={alpha:.3g} or " if self._uses_alpha else "")
                + "sample_weight is too large"
            )
        self.alpha_ = alpha
        self.cluster_centers_ = run.centroids.astype(dtype)
        self.objective_ = run.objective
        self.objective_history_ = np.array(run.history)
        self.n_iter_ = run.n_iter
        self.converged_ = run.converged
        self._ending = self._why_unfinished(run, dtype)
        self._merged_ = merge_coincident(run.centroids, alpha)
        self.n_clusters_effective_ = count_distinct(self._merged_)

    def _why_unfinished(self, run: Run, dtype: np.dtype[Any]) -> str:
        """The end of the warning that the run has not converged: why, and what may help."""
        other = ", or try another alpha" if self._uses_alpha else ""
        if run.n_iter >= self.max_iter:
            return f" (max_iter={self.max_iter}): raise max_iter or tol{other}"
        if run.stalled:
            finer = ", take X in float64" if dtype == np.float32 else ""
            return (
                f", as its step is longer than tol allows but no longer lowers the objective by "
                f"more than the rounding of {dtype}: raise tol{finer}{other}"
            )
        if run.held:
            return (
                ", as a centroid is as far from the data as is allowed: lower n_clusters, or try "
                + ("another alpha" if self._uses_alpha else "another random_state")
            )
        if run.done:
            return f", as the next centroids would not be finite: scale X down{other}"
        return ", as a callback stopped it"

    def _warn_of_the_fit(self, stacklevel: int = 3) -> None:
        """Warn if the run has not converged or if centroids coincide."""
        ending = self.__dict__.pop("_ending", "")  # removed, so that it is not saved
        if not self.converged_:
            warnings.warn(
                f"{type(self).__name__} stopped after {self.n_iter_} "
                f"{'pass' if self.n_iter_ == 1 else 'passes'} without converging{ending}.",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )
        n_clusters = len(self.cluster_centers_)
        if self.n_clusters_effective_ < n_clusters:
            small = ""
            if self._uses_alpha:
                alpha = f"alpha={self.alpha_:.3g}"
                small = f"{alpha} may be too small (alpha_path compares others), or "
            warnings.warn(
                f"only {self.n_clusters_effective_} of {n_clusters} centroids are distinct: {small}"
                "n_clusters may be too large for X.",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )


def _half(d2: Float64) -> Float64:
    return 0.5 * d2


def boltzmann(d2: Float64, alpha: float) -> Float64:
    """Memberships (n, K) from squared distances (n, K)."""
    # Relative to the nearest centroid, so that no sum underflows.
    p = np.exp(-0.5 * alpha * (d2 - d2.min(axis=1, keepdims=True)))
    return cast(Float64, p / p.sum(axis=1, keepdims=True))
