"""Scores that mean something where clusters differ in size.

The adjusted Rand index and the normalised mutual information are scikit-learn's
(``adjusted_rand_score``, ``normalized_mutual_info_score``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

__all__ = ["cluster_sizes", "clustering_accuracy", "imbalance_ratio"]


def clustering_accuracy(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of samples labelled rightly under the best one-to-one matching of clusters to classes.

    Where there are more clusters than classes, the samples of the unmatched clusters count as
    wrong. On imbalanced data read it beside the adjusted Rand index: putting everything into one
    cluster already scores the share of the largest class.

    Parameters
    ----------
    labels_true, labels_pred : array-like of shape (N,)
        Classes and clusters: integers, strings or booleans. Their values need not agree.

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    TypeError
        If labels are floats or objects.
    ValueError
        If the two differ in length, are empty or have more than one dimension.

    Examples
    --------
    >>> from ekmfast.metrics import clustering_accuracy
    >>> clustering_accuracy([0, 0, 0, 1], [7, 7, 3, 3])
    0.75
    """
    true, pred = _checked(labels_true, "labels_true"), _checked(labels_pred, "labels_pred")
    if len(true) != len(pred):
        raise ValueError(
            f"labels_true has {len(true)} entries and labels_pred {len(pred)}: must be as many"
        )
    table = contingency_matrix(true, pred)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / len(true))


def cluster_sizes(labels: ArrayLike, n_clusters: int | None = None) -> NDArray[np.int64]:
    """Samples in each cluster.

    Parameters
    ----------
    labels : array-like of shape (N,)
        Clusters, integers of at least 0.
    n_clusters : int, default=None
        Length of the result, so that empty clusters at the end are counted too; None for the
        largest label plus one.

    Returns
    -------
    ndarray of shape (n_clusters,), int64

    Raises
    ------
    TypeError
        If labels are not integers.
    ValueError
        If labels are empty, negative, not one-dimensional, or not below ``n_clusters``.

    Examples
    --------
    >>> from ekmfast.metrics import cluster_sizes
    >>> cluster_sizes([0, 0, 2], n_clusters=4).tolist()
    [2, 0, 1, 0]
    """
    checked = _checked(labels, "labels")
    if checked.dtype.kind not in "iu":
        raise TypeError(f"labels has dtype {checked.dtype}: must be integer")
    low, high = int(checked.min()), int(checked.max())
    if low < 0:
        raise ValueError(f"labels has the value {low}: must be at least 0")
    if n_clusters is not None and high >= n_clusters:
        raise ValueError(f"labels has the value {high}: must be below n_clusters={n_clusters}")
    counts = np.bincount(checked.astype(np.int64), minlength=n_clusters or 0)
    return counts.astype(np.int64)


def imbalance_ratio(labels: ArrayLike) -> float:
    """Size of the largest class divided by that of the smallest one that has samples.

    Parameters
    ----------
    labels : array-like of shape (N,)
        Classes or clusters: integers, strings or booleans.

    Returns
    -------
    float
        At least 1; 1 where all are of one size.

    Raises
    ------
    TypeError
        If labels are floats or objects.
    ValueError
        If labels are empty or have more than one dimension.

    Examples
    --------
    >>> from ekmfast.metrics import imbalance_ratio
    >>> imbalance_ratio(["cat"] * 20 + ["dog"] * 2)
    10.0
    """
    counts = np.unique(_checked(labels, "labels"), return_counts=True)[1]
    return float(counts.max() / counts.min())


def _checked(labels: ArrayLike, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: must be one-dimensional")
    if array.size == 0:
        raise ValueError(f"{name} is empty")
    # Floats are refused because NaN would be a cluster of its own and 0.9999 another one than 1.
    if array.dtype.kind not in "iubUS":
        raise TypeError(f"{name} has dtype {array.dtype}: must be integers, strings or booleans")
    return array
