"""Base class of the detectors: a score of normality, and a threshold on it."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from ekmfast._parameters import SEED, Constraint, Number, Parameters
from ekmfast.rows.array_api import as_numpy, like_x

# A row is an outlier if it is so many deviations off, where the share of outliers is unknown. On
# the 46 problems of `bench/anomaly.py` from which our score was chosen, 2.5, 3 and 3.5 deviations
# found outliers with a mean F1 of .302, .305 and .299.
DEVIATIONS = 3.0
# The share of a normal distribution that is more than one deviation below the mean.
ONE_DEVIATION = 0.1587


class Detector(Parameters, OutlierMixin, BaseEstimator):
    """Base of the detectors: a subclass supplies ``score_samples``, and calls ``_set_threshold``.

    Methods follow scikit-learn: low scores are abnormal, +1 is an inlier, -1 an outlier. The
    attributes ``decision_scores_``, ``labels_`` and ``threshold_`` follow PyOD: high scores are
    abnormal, 1 is an outlier.

    Where scikit-learn's dispatch of the array API is on, results are arrays of the library of X.
    """

    _constraints: ClassVar[dict[str, Constraint]] = {
        "contamination": Number(0, 0.5, open_low=True),
        "random_state": SEED,
    }

    contamination: float | str
    offset_: float
    threshold_: float
    decision_scores_: NDArray[Any]
    labels_: NDArray[np.intp]

    def _set_threshold(
        self, scores: NDArray[Any], held_out: NDArray[np.bool_] | None = None
    ) -> None:
        """Choose the threshold so that a share ``contamination`` of new normal rows lies below it.

        The score of a new row has each of the n + 1 ranks among n held-out scores with the same
        probability. Therefore the threshold is the score of rank ``contamination (n + 1)``, which
        is Weibull's quantile.

        Parameters
        ----------
        scores : ndarray of shape (N,)
            Scores of the rows of ``fit``.
        held_out : ndarray of bool of shape (N,), default=None
            Mask of the rows that the score was not fitted to; None for all.
        """
        unseen = scores if held_out is None else scores[held_out]
        if float(self.contamination) * (len(unseen) + 1) < 1:
            warnings.warn(
                f"contamination={self.contamination!r} is less than one in {len(unseen)}, the "
                "number of held-out samples: the threshold is the lowest of their scores, and "
                f"about one in {len(unseen) + 1} normal samples will lie below it",
                UserWarning,
                stacklevel=3,
            )
        place = float(self.contamination)
        offset = float(np.quantile(unseen.astype(np.float64), place, method="weibull"))
        self._keep_threshold(scores, offset)

    def _set_free_threshold(self, scores: NDArray[Any], best: float) -> None:
        """Choose the threshold from the scores themselves, where the share of outliers is unknown.

        Minus twice the score is a squared distance, up to the constant ``best``, the largest score
        that a row can have. Its cube root is nearly normal where rows are normal (Wilson and
        Hilferty). Median and quantile below it, where no outliers are, give mean and deviation.

        Parameters
        ----------
        scores : ndarray of shape (N,)
            Held-out scores of the rows of ``fit``.
        best : float
        """
        with np.errstate(over="ignore"):  # rows infinitely far away
            root = np.cbrt(np.maximum(-2 * (scores.astype(np.float64) - best), 0.0))
        median, below = np.quantile(root, [0.5, ONE_DEVIATION])
        limit = median + DEVIATIONS * (median - below)
        self._keep_threshold(scores, best - 0.5 * float(limit) ** 3)

    def _keep_threshold(self, scores: NDArray[Any], offset: float) -> None:
        self.offset_ = offset
        self.threshold_ = -self.offset_
        self.decision_scores_ = -scores
        self.labels_ = (scores < self.offset_).astype(np.intp)

    def score_samples(self, X: Any) -> NDArray[Any]:
        raise NotImplementedError

    @like_x
    def decision_function(self, X: Any) -> NDArray[Any]:
        """Score minus the threshold, which is negative for outliers.

        Parameters
        ----------
        X : as in ``fit``

        Returns
        -------
        ndarray of shape (N,)
            ``score_samples(X) - offset_``.
        """
        check_is_fitted(self)
        scores = as_numpy(self.score_samples(X))
        limits = np.finfo(scores.dtype)  # the lowest is the score of rows infinitely far away
        with np.errstate(over="ignore"):
            beyond: NDArray[Any] = np.clip(scores - self.offset_, limits.min, limits.max)
        return beyond

    @like_x
    def predict(self, X: Any) -> NDArray[np.intp]:
        """Classify rows: +1 for inliers, -1 for outliers.

        Parameters
        ----------
        X : as in ``fit``

        Returns
        -------
        ndarray of shape (N,), int
        """
        return np.where(as_numpy(self.decision_function(X)) < 0, -1, 1)

    @like_x
    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.intp]:
        """Fit to rows, and classify the same rows as ``labels_`` does.

        ``fit(X).predict(X)`` finds fewer outliers, since it scores the rows to which the scores
        were fitted.

        Parameters
        ----------
        X : as in ``fit``
        y : ignored

        Returns
        -------
        ndarray of shape (N,), int
            +1 for inliers, -1 for outliers.
        """
        self.fit(X)
        return np.where(self.labels_ == 1, -1, 1)
