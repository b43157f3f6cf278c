"""The adjusted Rand index of two labellings, for the fits that compare their candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix


def adjusted_rand(a: NDArray[Any], b: NDArray[Any]) -> float:
    """scikit-learn's ``adjusted_rand_score`` of labels from 0 on, bit by bit.

    That one goes through ``np.unique``, which sorts all labels, and which aborts the process where
    a daemon thread is in it when the interpreter exits.
    """
    ones = np.ones(len(a), np.int64)
    table = coo_matrix((ones, (a, b))).tocsr()
    rows, columns = (np.asarray(table.sum(axis=axis), np.int64) for axis in (1, 0))
    both, first, second = (int((sizes**2).sum()) for sizes in (table.data, rows, columns))
    n = len(a)
    # Pairs of rows that are together in both, in one of the two, in neither; each pair twice.
    tp, fp, fn = both - n, second - both, first - both
    tn = n * n - first - second + both
    if fn == 0 and fp == 0:
        return 1.0
    return 2.0 * (tp * tn - fn * fp) / ((tp + fn) * (fn + tn) + (tp + fp) * (fp + tn))
