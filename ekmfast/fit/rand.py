"""The adjusted Rand index, by which a fit compares the labels of its candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core


def adjusted_rand(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The same bits as scikit-learn's ``adjusted_rand_score``, for labels that count from 0.

    scikit-learn's function calls ``np.unique``, which sorts all labels, and which aborts the
    process if a daemon thread is inside it when the interpreter exits.
    """
    n = len(a)
    both, first, second = _core.shared_labels(_labels(a), _labels(b))
    # Numbers of pairs of rows that share a label in both labellings (tp), in only one of them (fp,
    # fn) and in neither (tn). Each pair is counted twice.
    tp, fp, fn = both - n, second - both, first - both
    tn = n * n - first - second + both
    if fn == 0 and fp == 0:
        return 1.0
    return 2.0 * (tp * tn - fn * fp) / ((tp + fn) * (fn + tn) + (tp + fp) * (fp + tn))


def _labels(labels: NDArray[Any]) -> NDArray[np.int32]:
    return np.ascontiguousarray(labels, np.int32)
