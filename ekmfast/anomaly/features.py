"""EKMeansDetector: rows far from the large clusters, and rows in small clusters, are abnormal."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from ekmfast._parameters import ALPHA, COUNT, N_THREADS, AnyOf, Number, OneOf
from ekmfast.anomaly._detector import Detector
from ekmfast.anomaly._normals import Normals, fit_normals
from ekmfast.estimators.base import check_data
from ekmfast.estimators.ekmeans import EKMeans
from ekmfast.rows.array_api import like_x
from ekmfast.rows.sparse import SparseRows

# The share of the rows that small clusters may hold to be anomalies, if none is given.
SMALL = 0.1
# The largest number of features. Their covariances take 2 GiB, and a fit usually twice as much.
MAX_FEATURES = 1 << 14


class EKMeansDetector(Detector):
    """Detect outliers by their distance from the large clusters of equilibrium k-means.

    k-means places its centroids among the many normal rows. The centroids of equilibrium k-means
    repel each other out of large clusters, so some also settle on groups of few rows, and anomalies
    that resemble each other form small clusters. The smallest clusters, with at most a share
    ``contamination`` of the rows together, are considered anomalies. The other clusters are
    described by a mixture of normal densities with proportions q_k and a common covariance
    M = 0.7 S + 0.3 diag S, where S is the pooled covariance of the rows about their centroids. The
    score of a row is its log-density up to a constant:

        ln sum_k q_k exp(-1/2 (x - c_k)' M^-1 (x - c_k)).

    A row of ``fit`` pulls the centroid and the covariance towards itself, so its score would be
    better than that of a new row, and much better with many features and few rows. Therefore the
    threshold is computed from held-out scores: each row is scored with the centroids and the
    covariance of the other rows (leave-one-out). This needs no further fit, and the assignment of
    rows to clusters is kept. A new row that is distributed as those of ``fit`` is then called an
    outlier with probability ``contamination``. With ``contamination=0.05`` the measured shares were
    4.5 to 6 %, on average over draws of 200 to 2,000 rows with 2 to 256 features; the share was 8 %
    when 20 clusters were requested from 200 rows without clusters, since the assignment is kept.
    The share of a single fit deviates from ``contamination`` by about ``sqrt(contamination / N)``,
    which is the standard error of a quantile of N rows.

    Features of different units should be scaled, as for any clustering (``StandardScaler`` in a
    pipeline).

    Parameters
    ----------
    n_clusters : int, default=4
        Number of clusters, normal and abnormal. Few suffice, since the common covariance describes
        their shape. On 36 tasks of labelled data 3 or 4 were best (bench/README).
    alpha : {'auto', 'dvariance'} or float, default='auto'
        As in `ekmfast.EKMeans`.
    contamination : float or 'auto', default=0.1
        Share of the rows of ``fit``, in (0, 0.5], that are called outliers. If ``fit`` gets only
        normal rows, it is the share of false alarms among new rows. If it is less than 1 / (N + 1),
        the threshold is the lowest score, and a warning says so. ``'auto'``, for an unknown share,
        calls rows outliers whose score is more than three deviations below that of the others, and
        counts the smallest clusters, with at most a tenth of the rows together, as anomalies.
    random_state : int, RandomState instance or None, default=None
        Seed.
    n_threads : int, default=None
        As in `ekmfast.EKMeans`.

    Attributes
    ----------
    clustering_ : EKMeans
        The fitted clustering, with all clusters.
    large_ : ndarray of int
        Indices of the clusters that count as normal.
    offset_ : float
        The threshold; rows with a lower score are outliers.
    decision_scores_, labels_, threshold_
        As in PyOD, for the rows of ``fit``: the negative held-out score, which can be compared with
        scores of new rows; 1 for outliers and 0 for others; and ``-offset_``.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, only where X has column names

    Raises
    ------
    ValueError, TypeError
        From ``fit``, for parameters or data that are not as described.

    Warns
    -----
    UserWarning
        If ``contamination`` is less than 1 / (N + 1).

    Notes
    -----
    Sparse rows give the results of the dense array up to rounding if `ekmfast.EKMeans` finds the
    same clusters. No dense copy is made of them: some rows at a time become dense, 2^22 numbers.

    The covariance has D x D numbers, so X may have 16,384 features at most; rows with more can be
    reduced first, by ``TruncatedSVD`` in a pipeline. Time grows with N D^2. Fits to 5,000 sparse
    rows, 50 numbers of each stored, with 1,000, 2,000, 4,000, 8,000 and 16,000 features took .9,
    2.4, 6 to 9, 30 and 143 s, and at most .4, .5, .6, 1.3 and 4.3 GiB (two cores of a Zen 5, shared
    with others); dense rows took up to twice the time with 1,000 features, and 35 s with 8,000. If
    features are so strongly correlated that the variance in some direction is less than 1e-4 of
    their mean variance, eigenvectors are needed, which take the time of D^3: 14 to 48 s more with
    4,000 features.

    The log density of an :class:`ekmfast.EquilibriumMixture` was tried as the score. On those 46
    tasks of `bench/anomaly.py` from which this score was chosen, the mean area under the ROC curve
    was .847 (10 tasks) and .767 (36) with this score, and at most .825 and .755 with that of
    mixtures of 1, 2, 4 or ``'auto'`` components.

    On 46 tasks of labelled data, whose true share was 2 to 5 %, ``contamination="auto"`` was off by
    4 % of the rows in the mean, and found outliers with a mean F1 of .31, as ``0.1`` did; ``0.05``
    had .32. Of 300 normal rows with two features it called 9 % outliers, since one of four clusters
    may then be small; with 8 and with 30 features it called .2 %.

    ``fit_predict(X)`` and ``labels_`` mark a share ``contamination`` of X by the held-out scores.
    ``fit(X).predict(X)`` marks fewer rows, and ``score_samples(X)`` is higher than
    ``-decision_scores_``, since both score rows that the detector was fitted to. scikit-learn's own
    detectors compute the threshold from such scores, and therefore call more than a share
    ``contamination`` of new rows outliers.

    There is no method ``score``, because without labels no score can be right. `GridSearchCV` and
    `cross_val_score` need the parameter ``scoring``, for instance ``"roc_auc"`` with y = 1 for
    normal rows and -1 for outliers.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.anomaly import EKMeansDetector
    >>> rng = np.random.default_rng(0)
    >>> normal = np.vstack([rng.normal(0, 1, (500, 2)), rng.normal(9, 1, (300, 2))])
    >>> anomalies = rng.normal((0, 9), 0.3, (8, 2))
    >>> X = np.vstack([normal, anomalies])
    >>> detector = EKMeansDetector(n_clusters=3, contamination=0.02, random_state=0).fit(X)
    >>> detector.predict(anomalies).tolist()
    [-1, -1, -1, -1, -1, -1, -1, -1]
    """

    _constraints = Detector._constraints | {
        "contamination": AnyOf(OneOf("auto"), Number(0, 0.5, open_low=True)),
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
        contamination: float | str = 0.1,
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
        X : array-like or sparse matrix of shape (N, D), float32 or float64
            At most 16,384 features. Sparse matrices of SciPy are converted to CSR, if they are not.
            At least ``n_clusters`` rows, and at least 2.
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        X = self._check(X, reset=True)
        _check_width(X.shape[1])
        self.clustering_ = EKMeans(
            self.n_clusters,
            alpha=self.alpha,
            random_state=self.random_state,
            n_threads=self.n_threads,
        )
        with warnings.catch_warnings():
            # If centroids coincide, the remaining clusters still describe the rows.
            warnings.filterwarnings("ignore", r"only \d+ of \d+ centroids are distinct")
            self.clustering_.fit(X)
        labels = self.clustering_.labels_
        sizes = np.bincount(labels, minlength=self.n_clusters)
        free = isinstance(self.contamination, str)
        self.large_ = _large(sizes, SMALL if free else float(self.contamination))
        index_among_large = np.full(len(sizes), -1)
        index_among_large[self.large_] = np.arange(len(self.large_))
        members = index_among_large[labels]
        centres = self.clustering_.cluster_centers_[self.large_]
        self._normals = fit_normals(X, members, centres)
        scores = self._normals.held_out_scores(X, members, centres)
        if free:
            self._set_free_threshold(scores, self._normals.best)
        else:
            self._set_threshold(scores)
        return self

    @like_x
    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """Log-density of each row under the mixture of the large clusters, up to a constant.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D)

        Returns
        -------
        ndarray of shape (N,), dtype of X
            Lower is more abnormal.
        """
        check_is_fitted(self)
        return self._normals.scores(self._check(X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _check(self, X: Any, *, reset: bool) -> NDArray[Any]:
        """X as an array, or as a CSR matrix without duplicates."""
        checked = check_data(self, X, reset=reset, ensure_min_samples=2 if reset else 1)
        if not issparse(checked):
            return checked
        rows = SparseRows(checked)
        rows.refuse_not_finite()
        unique: NDArray[Any] = rows.X
        return unique


def _check_width(n_features: int) -> None:
    if n_features > MAX_FEATURES:
        raise ValueError(
            f"X has {n_features} features, of which EKMeansDetector takes at most {MAX_FEATURES}, "
            "as it computes their covariances: reduce X to its leading components first, with "
            "make_pipeline(TruncatedSVD(50), EKMeansDetector())"
        )


def _large(sizes: NDArray[np.intp], contamination: float) -> NDArray[np.intp]:
    """Indices of all clusters but the smallest, which hold at most a share ``contamination``."""
    order = np.argsort(sizes, kind="stable")
    small = np.cumsum(sizes[order]) <= contamination * sizes.sum()
    return np.sort(order[~small])
