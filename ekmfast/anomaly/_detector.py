"""What detectors share: a score of normality, and a threshold on it."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted


class Detector(OutlierMixin, BaseEstimator):
    """Base of the detectors: a subclass supplies ``score_samples``, and calls ``_set_threshold``.

    scikit-learn's way: low scores are abnormal, +1 is an inlier, -1 an outlier. PyOD's names are
    there beside it, as attributes and with PyOD's signs: high scores are abnormal, 1 is an outlier.
    """

    contamination: float
    offset_: float
    threshold_: float
    decision_scores_: NDArray[Any]
    labels_: NDArray[np.intp]

    def _check_contamination(self) -> None:
        value: Any = self.contamination
        is_number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
        if not (is_number and 0 < value <= 0.5):
            raise ValueError(f"contamination must be a number in (0, 0.5], got {value!r}")

    def _set_threshold(self, scores: NDArray[Any]) -> None:
        """Let the given share of the rows of ``fit`` lie below the threshold."""
        self.offset_ = float(np.quantile(scores, self.contamination))
        self.threshold_ = -self.offset_
        self.decision_scores_ = -scores
        self.labels_ = (scores < self.offset_).astype(np.intp)

    def score_samples(self, X: Any) -> NDArray[Any]:
        raise NotImplementedError

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Score less the threshold: negative for outliers.

        Parameters
        ----------
        X : as in ``fit``

        Returns
        -------
        ndarray of shape (N,)
            ``score_samples(X) - offset_``.
        """
        check_is_fitted(self)
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.intp]:
        """+1 for inliers, -1 for outliers.

        Parameters
        ----------
        X : as in ``fit``

        Returns
        -------
        ndarray of shape (N,), int
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.intp]:
        """Fit, and tell the outliers among the rows that were fitted.

        Parameters
        ----------
        X : as in ``fit``
        y : ignored

        Returns
        -------
        ndarray of shape (N,), int
            +1 for inliers, -1 for outliers: a share ``contamination`` of the rows, fewer with ties.
        """
        self.fit(X)
        return np.where(self.labels_ == 1, -1, 1)
