"""EKMeansDetector: rows far from the large clusters are abnormal, small clusters too."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted, validate_data

from ekmfast._ekmeans import EKMeans
from ekmfast.anomaly._detector import Detector

# Share of the covariance's diagonal in what it is shrunk to, as in the likelihood that chooses
# alpha; and of the mean variance, below which no direction counts as narrow.
SHRINK = 0.3
FLOOR = 1e-4
CHUNK = 1 << 22  # numbers at a time: rows times the larger of D and K


class EKMeansDetector(Detector):
    """Tell outliers by their distance from the large clusters of equilibrium k-means.

    k-means gives its centroids to the many normal rows; equilibrium k-means also to groups of a
    few rows, because its centroids repel each other out of the large clusters. So anomalies that
    resemble each other come out as small clusters: the smallest clusters, together no more than
    ``contamination`` of the rows, are taken for anomalies. The others are a mixture of normal
    densities of one shape, with proportions q_k and the pooled covariance S of the rows about
    their centroids, shrunk as 0.7 S + 0.3 diag S. A row's score is its log-density, but for a
    constant:

        ln sum_k q_k exp(-1/2 (x - c_k)' S^-1 (x - c_k)).

    Features of different units should be scaled, as for any clustering (``StandardScaler`` in a
    pipeline).

    Parameters
    ----------
    n_clusters : int, default=4
        Clusters to look for, normal and abnormal: few, since what they share, the covariance, does
        the rest. On 36 tasks of labelled data 3 or 4 were best (bench/README).
    alpha : {'auto', 'dvariance'} or float, default='auto'
        As in `ekmfast.EKMeans`.
    contamination : float, default=0.1
        Share of the rows of ``fit``, in (0, 0.5], to be called outliers. Where ``fit`` gets normal
        rows alone: the share of false alarms.
    random_state : int, RandomState instance or None, default=None
        Seed.
    n_threads : int, default=None
        As in `ekmfast.EKMeans`.

    Attributes
    ----------
    clustering_ : EKMeans
        The clusters, all of them.
    large_ : ndarray of int
        Which of its clusters count as normal.
    offset_ : float
        Scores below are outliers.
    decision_scores_, labels_, threshold_
        Of the rows of ``fit`` in the way of PyOD: the negative score, 1 for outliers and 0 for
        others, and ``-offset_``.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, only where X has column names

    Raises
    ------
    ValueError, TypeError
        From ``fit``, for parameters or data that are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.anomaly import EKMeansDetector
    >>> rng = np.random.default_rng(0)
    >>> normal = np.vstack([rng.normal(0, 1, (500, 2)), rng.normal(9, 1, (300, 2))])
    >>> strange = rng.normal((0, 9), 0.3, (8, 2))
    >>> X = np.vstack([normal, strange])
    >>> detector = EKMeansDetector(n_clusters=3, contamination=0.02, random_state=0).fit(X)
    >>> detector.predict(strange).tolist()
    [-1, -1, -1, -1, -1, -1, -1, -1]
    """

    def __init__(
        self,
        n_clusters: int = 4,
        *,
        alpha: str | float = "auto",
        contamination: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.alpha = alpha
        self.contamination = contamination
        self.random_state = random_state
        self.n_threads = n_threads

    def fit(self, X: ArrayLike, y: Any = None) -> EKMeansDetector:
        """Cluster the rows, and find the threshold of their scores.

        Parameters
        ----------
        X : array-like of shape (N, D), float32 or float64
            At least ``n_clusters`` rows.
        y : ignored

        Returns
        -------
        self
        """
        self._check_contamination()
        X = self._check(X, reset=True)
        self.clustering_ = EKMeans(
            self.n_clusters,
            alpha=self.alpha,
            random_state=self.random_state,
            n_threads=self.n_threads,
        )
        with warnings.catch_warnings():
            # Fewer clusters than asked for describe the rows as well.
            warnings.filterwarnings("ignore", r"only \d+ of \d+ centroids are distinct")
            self.clustering_.fit(X)
        sizes = np.bincount(self.clustering_.labels_, minlength=self.n_clusters)
        self.large_ = _large(sizes, self.contamination)
        self._centre = X.mean(axis=0, dtype=np.float64)
        centroids = self.clustering_.cluster_centers_[self.large_].astype(np.float64)
        self._whitener = _whitener(X, self.clustering_.labels_, self.large_, centroids)
        self._means = (centroids - self._centre) @ self._whitener
        self._log_share = np.log(sizes[self.large_] / sizes[self.large_].sum())
        self._set_threshold(self._scores(X))
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """Log-density of each row among the large clusters, but for a constant.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N,), dtype of X
            Lower is more abnormal.
        """
        check_is_fitted(self)
        return self._scores(self._check(X, reset=False))

    def _check(self, X: Any, *, reset: bool) -> NDArray[Any]:
        checked: NDArray[Any] = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        return checked

    def _scores(self, X: NDArray[Any]) -> NDArray[Any]:
        scores = np.empty(len(X), X.dtype)
        rows = max(1, CHUNK // max(X.shape[1], len(self._means)))
        norms = (self._means**2).sum(axis=1)
        for start in range(0, len(X), rows):
            z = (X[start : start + rows] - self._centre) @ self._whitener
            d = (z**2).sum(axis=1)[:, None] + norms - 2 * z @ self._means.T
            scores[start : start + rows] = logsumexp(self._log_share - 0.5 * d, axis=1)
        return scores


def _large(sizes: NDArray[np.intp], contamination: float) -> NDArray[np.intp]:
    """The clusters that are left when the smallest, a share ``contamination`` at most, are not."""
    order = np.argsort(sizes, kind="stable")
    small = np.cumsum(sizes[order]) <= contamination * sizes.sum()
    return np.sort(order[~small])


def _whitener(
    X: NDArray[Any],
    labels: NDArray[np.int32],
    large: NDArray[np.intp],
    centroids: NDArray[np.float64],
) -> NDArray[np.float64]:
    """W with W W' the inverse of the shrunk covariance of the rows about their centroids."""
    n_features = X.shape[1]
    place = np.full(labels.max() + 1, -1)
    present = large[large < len(place)]
    place[present] = np.arange(len(present))
    scatter = np.zeros((n_features, n_features))
    n_rows = 0
    rows = max(1, CHUNK // n_features)
    for start in range(0, len(X), rows):
        which = place[labels[start : start + rows]]
        residuals = X[start : start + rows][which >= 0] - centroids[which[which >= 0]]
        scatter += residuals.T @ residuals
        n_rows += len(residuals)
    covariance = scatter / n_rows
    variance = np.diag(covariance).copy()
    covariance *= 1 - SHRINK
    mean = variance.mean()
    floor = FLOOR * mean if mean > 0 else 1.0
    covariance[np.diag_indices(n_features)] = np.maximum(variance, floor)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors / np.sqrt(np.maximum(values, floor)), np.float64)
