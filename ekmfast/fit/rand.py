"""The adjusted Rand index, by which a fit compares the labels of its candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix

# The size of a table of pairs of labels that is small, even if there are fewer rows.
DENSE = 1 << 10


def adjusted_rand(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The same bits as scikit-learn's ``adjusted_rand_score``, for labels that count from 0.

    scikit-learn's function calls ``np.unique``, which sorts all labels, and which aborts the
    process if a daemon thread is inside it when the interpreter exits.
    """
    n, width = len(a), int(b.max()) + 1
    height = int(a.max()) + 1
    if height * width <= max(n, DENSE):
        pairs = np.bincount(a.astype(np.intp) * width + b, minlength=height * width)
        table = pairs.reshape(height, width)
        sizes = table.sum(axis=1), table.sum(axis=0)
    else:  # of so many pairs of labels most have no row
        table = coo_matrix((np.ones(n, np.int64), (a, b))).tocsr().data
        sizes = np.bincount(a), np.bincount(b)
    first, second = (int((size**2).sum()) for size in sizes)
    both = int((table**2).sum())
    # Numbers of pairs of rows that share a label in both labellings (tp), in only one of them (fp,
    # fn) and in neither (tn). Each pair is counted twice.
    tp, fp, fn = both - n, second - both, first - both
    tn = n * n - first - second + both
    if fn == 0 and fp == 0:
        return 1.0
    return 2.0 * (tp * tn - fn * fp) / ((tp + fn) * (fn + tn) + (tp + fp) * (fp + tn))
