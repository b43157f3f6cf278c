"""What the estimators share: checks of parameters and the methods that need centroids alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ekmfast import kernels
from ekmfast._parameters import COUNT, N_THREADS, SEED, VERBOSE, Constraint, Number, Parameters
from ekmfast.fit.merging import count_distinct, merge_coincident
from ekmfast.fit.seeding import INIT, N_INIT
from ekmfast.fit.solver import Run
from ekmfast.fit.spread import WEIGHT_OVERFLOWS
from ekmfast.rows import limits as _limits
from ekmfast.rows.array import CpuBackend
from ekmfast.rows.blocks import Block, Blocks, as_blocks
from ekmfast.rows.columns import (
    check_kind,
    check_names,
    check_unmasked,
    explain_column,
    kind_of,
    names_unknown_to_sklearn,
)
from ekmfast.rows.device import is_cuda_array
from ekmfast.rows.distances import squared_distances
from ekmfast.rows.source import LocalSource
from ekmfast.rows.survey import finite
from ekmfast.rows.threads import check_n_threads

WEIGHT_OF_BLOCKS = "sample_weight must be given to the blocks, not with them"


def check_weight(sample_weight: ArrayLike | None, X: NDArray[Any]) -> NDArray[Any] | None:
    """The weights of rows X, in the dtype of X."""
    if sample_weight is None:
        return None
    check_unmasked(sample_weight, "sample_weight")
    try:
        weight: NDArray[Any] = _check_sample_weight(
            sample_weight, X, dtype=X.dtype, ensure_non_negative=True
        )
    except (TypeError, ValueError) as error:
        if "sample_weight" in str(error):
            raise
        raise kind_of(error)(f"sample_weight is not as it should be: {error}") from error
    if not weight.any():  # scikit-learn looks for this itself in later versions than 1.6
        raise ValueError("sample_weight must have a non-zero entry, got zeros alone")
    return weight


class CentroidEstimator(
    Parameters, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator
):
    """Base of the estimators whose result is ``cluster_centers_`` and ``alpha_``."""

    _constraints: ClassVar[dict[str, Constraint]] = {
        "n_clusters": COUNT,
        "init": INIT,
        "n_init": N_INIT,
        "max_iter": COUNT,
        "tol": Number(0),
        "random_state": SEED,
        "n_threads": N_THREADS,
        "verbose": VERBOSE,
    }
    # The weight function of the kernels, and its exponent where that is 'fuzzy'.
    _weighting: ClassVar[str] = "equilibrium"
    _weighting_fuzzifier: float = 2.0
    # Where the weights do not depend on alpha, alpha_ is infinite and centroids merge if equal.
    _uses_alpha: ClassVar[bool] = True

    n_clusters: int
    max_iter: int
    n_threads: int | None
    n_features_in_: int
    cluster_centers_: NDArray[Any]
    alpha_: float
    objective_: float
    _merged_: NDArray[np.intp]

    def _check_data(self, X: Any, *, reset: bool) -> NDArray[Any]:
        if isinstance(X, Blocks):
            raise TypeError(
                "X must be an array here; go through the blocks: for block in blocks: ... block.X"
            )
        check_kind(X)
        names = names_unknown_to_sklearn(X)
        try:
            with warnings.catch_warnings() if names else nullcontext():
                if names:
                    warnings.filterwarnings("ignore", "X does not have valid feature names")
                rows = validate_data(
                    self, X, reset=reset, dtype=[np.float64, np.float32], order="C"
                )
        except (TypeError, ValueError) as error:
            explain_column(X, error)
            raise
        if names and reset:
            self.feature_names_in_ = np.array(names, object)
        elif names:
            self._check_names(names)
        return np.require(rows, requirements="A")

    def _check_weight(
        self, sample_weight: ArrayLike | None, X: NDArray[Any]
    ) -> NDArray[Any] | None:
        return check_weight(sample_weight, X)

    def _check_card(self, X: Any, sample_weight: Any) -> tuple[Any, Any, np.dtype[Any]]:
        """X on a card as it is, the weight on the host, and the dtype; they define a fit."""
        from ekmfast.rows.cuda.arrays import as_device, weight_on_host

        rows = as_device(X)
        self.n_features_in_ = rows.shape[1]
        self.__dict__.pop("feature_names_in_", None)
        like = np.broadcast_to(np.zeros(1, rows.dtype), (rows.shape[0], 1))
        return X, self._check_weight(weight_on_host(sample_weight), like), rows.dtype

    def _checked_card(self, X: Any) -> Any:
        """X on a card, with the features of the fit."""
        from ekmfast.rows.cuda.arrays import as_device

        check_is_fitted(self)
        if as_device(X).shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        self._check_names(None)
        return X

    def _checked(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        if is_cuda_array(X):
            raise TypeError(
                "X lies on a CUDA device, where predict, weights and score are computed; copy it "
                "to the host for this method"
            )
        return self._check_data(X, reset=False)

    @property
    def _n_features_out(self) -> int:
        return int(self.cluster_centers_.shape[0])

    def _check_names(self, names: Sequence[str] | None) -> None:
        """Compare the names of columns with those of the fit, as scikit-learn does for frames."""
        check_names(names, getattr(self, "feature_names_in_", None), type(self).__name__)

    def _source(self, blocks: Blocks) -> LocalSource:
        check_is_fitted(self)
        self._check_names(blocks.feature_names)
        return LocalSource(blocks, check_n_threads(self.n_threads))

    def _nearest(self, X: Any) -> NDArray[np.int32]:
        labels: Any
        labels, _ = kernels.assign(X, self.cluster_centers_, n_threads=self.n_threads)
        if not isinstance(labels, np.ndarray):
            from ekmfast.rows.cuda.arrays import merged

            return cast(NDArray[np.int32], merged(labels, self._merged_, X))
        return cast(NDArray[np.int32], self._merged_[labels].astype(np.int32))

    def predict(self, X: ArrayLike | Blocks) -> NDArray[np.int32]:
        """Index of the nearest centroid; coincident centroids share the first one's.

        Parameters
        ----------
        X : array-like of shape (N, D), or Blocks

        Returns
        -------
        labels : ndarray of shape (N,), int32
        """
        if is_cuda_array(X):
            return self._nearest(self._checked_card(X))
        blocks = as_blocks(X)
        if blocks is None:
            return self._nearest(self._checked(X))
        return np.concatenate(self._source(blocks).map(self._predict_block))

    def _predict_block(self, block: Block, index: int) -> NDArray[np.int32]:
        self._check_block(block)
        return self._nearest(block.X)

    def _score_block(self, block: Block, index: int) -> float:
        self._check_block(block)
        return self._score(block.X, block.sample_weight)

    def _check_block(self, block: Block) -> None:
        finite(block)
        if block.X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"{block.name}: has {block.X.shape[1]} features, but {type(self).__name__} is "
                f"expecting {self.n_features_in_} features as input"
            )

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Euclidean distance of each row to each centroid.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        distances : ndarray of shape (N, K), dtype of X
        """
        return self._of_distances(X, np.sqrt)

    def _of_distances(
        self, X: Any, function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> NDArray[Any]:
        """A function of the squared distances to all centroids, some rows at a time."""
        return squared_distances(
            self._checked(X), self.cluster_centers_, function, n_threads=self.n_threads
        )

    def membership(self, X: ArrayLike) -> NDArray[Any]:
        """Boltzmann memberships ``p_kn = softmax_k(-alpha d_kn)``; rows sum to 1.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        p : ndarray of shape (N, K), dtype of X
        """

        def boltzmann(d2: NDArray[np.float64]) -> NDArray[np.float64]:
            # From the nearest on, so that no row is divided by a sum that underflowed.
            p = np.exp(-0.5 * self.alpha_ * (d2 - d2.min(axis=1, keepdims=True)))
            return cast(NDArray[np.float64], p / p.sum(axis=1, keepdims=True))

        return self._of_distances(X, boltzmann)

    def weights(self, X: ArrayLike) -> NDArray[Any]:
        """Weights of Eq. 38; rows sum to 1, and negative entries repel.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        w : ndarray of shape (N, K), dtype of X
        """
        X = self._checked_card(X) if is_cuda_array(X) else self._checked(X)
        return kernels.compute_weights(
            X, self.cluster_centers_, self.alpha_, n_threads=self.n_threads
        )

    def score(
        self, X: ArrayLike | Blocks, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Minus the objective of the rows: higher is better, at one alpha and ``n_clusters``.

        Not a score to choose these by: J falls as ``n_clusters`` grows and as alpha grows
        (MaximumEntropyKMeans': rises), whatever the clusters are worth, so that ``GridSearchCV``
        ends at an edge of its grid. To choose alpha take :class:`EKMeans` with ``alpha="auto"`` or
        :func:`alpha_path`, which compare likelihoods, or, with known labels,
        ``GridSearchCV(..., scoring="adjusted_rand_score")``.

        Parameters
        ----------
        X : array-like of shape (N, D), or Blocks
        y : ignored
        sample_weight : array-like of shape (N,), default=None

        Returns
        -------
        score : float
        """
        if is_cuda_array(X):
            from ekmfast.rows.cuda.arrays import weight_on_host

            return self._score(self._checked_card(X), weight_on_host(sample_weight))
        if isinstance(X, Blocks) and sample_weight is not None:
            raise ValueError(WEIGHT_OF_BLOCKS)
        blocks = as_blocks(X, sample_weight)
        if blocks is not None:
            return self._source(blocks).sum(self._score_block)
        X = self._checked(X)
        return self._score(X, self._check_weight(sample_weight, X))

    def _score(self, X: Any, sample_weight: NDArray[Any] | None) -> float:
        backend: Any
        if isinstance(X, np.ndarray):
            backend = CpuBackend(
                X,
                sample_weight,
                check_n_threads(self.n_threads),
                self._weighting,
                self._weighting_fuzzifier,
            )
        else:
            from ekmfast.rows.cuda.arrays import backend_of

            backend = backend_of(X, sample_weight, self._weighting, self._weighting_fuzzifier)
        sums = backend.statistics(
            self.cluster_centers_[None].astype(np.float64),
            np.array([float(self.alpha_) if self._uses_alpha else 1.0]),
        )
        objective = float(sums.objective[0])
        if not np.isfinite(objective):
            if sample_weight is not None:
                self._score(X, None)  # where that is finite, the weights are to blame
                raise ValueError(WEIGHT_OVERFLOWS)
            if isinstance(X, np.ndarray):
                C = self.cluster_centers_.astype(np.float64)
                _limits.explain_not_finite([X], X.dtype, C)
            from ekmfast.rows.cuda.arrays import explain_not_finite

            explain_not_finite(X)
        return -objective

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
        """How a warning goes on that the run has not converged."""
        other = ", or try another alpha" if self._uses_alpha else ""
        if run.n_iter >= self.max_iter:
            return f" (max_iter={self.max_iter}): raise max_iter or tol{other}"
        if run.stalled:
            finer = ", take X in float64" if dtype == np.float32 else ""
            return (
                f", as its step, longer than tol asks for, no longer lowers the objective beyond "
                f"the rounding of {dtype}: raise tol{finer}{other}"
            )
        if run.held:
            return (
                ", as a centroid stands as far from the data as is let: lower n_clusters, or try "
                + ("another alpha" if self._uses_alpha else "another random_state")
            )
        if run.done:
            return f", as the next centroids would not be finite: scale X down{other}"
        return ", as a callback stopped it"

    def _label(self, X: NDArray[Any]) -> None:
        self.labels_ = self._nearest(X)

    def _warn_of_the_fit(self, stacklevel: int = 3) -> None:
        """Warn of what a user should know of the fit; ``stacklevel`` 3 is the caller's caller."""
        ending = self.__dict__.pop("_ending", "")  # no part of what a fit leaves
        if not self.converged_:
            warnings.warn(
                f"{type(self).__name__} stopped after {self.n_iter_} passes without converging"
                f"{ending}.",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )
        if self.n_clusters_effective_ < self.n_clusters:
            warnings.warn(
                f"only {self.n_clusters_effective_} of {self.n_clusters} centroids are distinct: "
                + ("alpha may be too small, or " if self._uses_alpha else "")
                + "n_clusters may be too large for X.",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )
