"""The adjusted Rand index, by which a fit compares the labels of its candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix


def adjusted_rand(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The same bits as scikit-learn's ``adjusted_rand_score``, for labels that count from 0.

    scikit-learn's function calls ``np.unique``, which sorts all labels, and which aborts the
    process if a daemon thread is inside it when the interpreter exits.
    """
    ones = np.ones(len(a), np.int64)
    table = coo_matrix((ones, (a, b))).tocsr()
    rows, columns = (np.asarray(table.sum(axis=axis), np.int64) for axis in (1, 0))
    both, first, second = (int((sizes**2).sum()) for sizes in (table.data, rows, columns))
    n = len(a)
    # Numbers of pairs of rows that share a label in both labellings (tp), in only one of them (fp,
    # fn) and in neither (tn). Each pair is counted twice.
    tp, fp, fn = both - n, second - both, first - both
    tn = n * n - first - second + both
    if fn == 0 and fp == 0:
        return 1.0
    return 2.0 * (tp * tn - fn * fp) / ((tp + fn) * (fn + tn) + (tp + fp) * (fp + tn))
