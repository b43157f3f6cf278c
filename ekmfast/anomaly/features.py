"""EKMeansDetector: rows far from the large clusters are abnormal, small clusters too."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from ekmfast._parameters import ALPHA, COUNT, N_THREADS
from ekmfast.anomaly._detector import Detector
from ekmfast.anomaly._normals import Normals, fit_normals
from ekmfast.estimators.ekmeans import EKMeans


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

    A row of ``fit`` pulls centroid and covariance towards itself, and would score better than a
    fresh one: far better where features are many and rows are few. So the threshold comes from
    held-out scores: each row's under the clusters and the covariance of the other rows
    (leave-one-out, computed without a further fit; which rows form a cluster is held). A fresh row
    that is like those of ``fit`` is called an outlier with probability ``contamination``: 5 % asked
    for, 4.5 to 6 % found, on average over draws of 200 to 2,000 rows with 2 to 256 features; 8 %
    where 20 clusters of ten rows are asked for and there are none, as their choice is held. The
    share of one fit deviates from it by about ``sqrt(contamination / N)``, as N rows cannot say
    where their quantile lies more precisely.

    Features of different units should be scaled, as for any clustering (``StandardScaler`` in a
    pipeline).

    Parameters
    ----------
    n_clusters : int, default=4
        Clusters to look for, normal and abnormal: few, since what they share, the covariance, does
        the rest. On 36 tasks of labelled data 3 or 4 were best (bench/README).
    alpha : {'auto', 'dvariance'} or float, default='auto'
        As in `ekmfast.EKMeans`, whose default it is too.
    contamination : float, default=0.1
        Share of the rows of ``fit``, in (0, 0.5], to be called outliers. Where ``fit`` gets normal
        rows alone: the share of false alarms among fresh ones. Less than one row in N + 1 cannot
        be promised: the threshold then is the lowest score, and a warning says so.
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
        Of the rows of ``fit`` in the way of PyOD: the negative held-out score, comparable with
        scores of fresh rows; 1 for outliers and 0 for others; and ``-offset_``.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, only where X has column names

    Raises
    ------
    ValueError, TypeError
        From ``fit``, for parameters or data that are not as described.

    Warns
    -----
    UserWarning
        If ``contamination`` is less than one row in N + 1.

    Notes
    -----
    ``fit_predict(X)`` marks a share ``contamination`` of X by the held-out scores, as ``labels_``
    does. ``fit(X).predict(X)`` marks fewer, and ``score_samples(X)`` is higher than
    ``-decision_scores_``: it meets rows that it was fitted to. scikit-learn's own detectors set
    the threshold there, and call more than ``contamination`` of fresh rows outliers.

    There is no method ``score``, as without labels none is right: `GridSearchCV` and
    `cross_val_score` need ``scoring``, such as ``"roc_auc"`` with y = 1 for normal rows and -1 for
    outliers.

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

    _constraints = Detector._constraints | {
        "n_clusters": COUNT,
        "alpha": ALPHA,
        "n_threads": N_THREADS,
    }
    _saved_state = ("_normals",)
    _normals: Normals

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
            At least ``n_clusters`` rows, and at least 2.
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
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
        labels = self.clustering_.labels_
        sizes = np.bincount(labels, minlength=self.n_clusters)
        self.large_ = _large(sizes, self.contamination)
        place = np.full(len(sizes), -1)
        place[self.large_] = np.arange(len(self.large_))
        members = place[labels]
        self._normals = fit_normals(X, members, self.clustering_.cluster_centers_[self.large_])
        self._set_threshold(self._normals.held_out_scores(X, members, self._normals.scores(X)))
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
        return self._normals.scores(self._check(X, reset=False))

    def _check(self, X: Any, *, reset: bool) -> NDArray[Any]:
        checked: NDArray[Any] = validate_data(
            self,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_min_samples=2 if reset else 1,
        )
        return checked


def _large(sizes: NDArray[np.intp], contamination: float) -> NDArray[np.intp]:
    """The clusters that are left when the smallest, a share ``contamination`` at most, are not."""
    order = np.argsort(sizes, kind="stable")
    small = np.cumsum(sizes[order]) <= contamination * sizes.sum()
    return np.sort(order[~small])
