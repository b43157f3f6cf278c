"""Scores of clusterings that remain informative where clusters differ in size.

The adjusted Rand index and the normalised mutual information are scikit-learn's
(``adjusted_rand_score``, ``normalized_mutual_info_score``).
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

from ekmfast._parameters import COUNT, NONE, AnyOf

__all__ = [
    "class_recall",
    "cluster_sizes",
    "clustering_accuracy",
    "cv_difference",
    "imbalance_ratio",
]

N_CLUSTERS = AnyOf(NONE, COUNT)


def clustering_accuracy(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of correctly labelled samples when clusters are matched one-to-one to classes.

    Where there are more clusters than classes, the samples of the unmatched clusters count as
    wrong. On imbalanced data use it together with the adjusted Rand index: a single cluster with
    all samples already has an accuracy equal to the share of the largest class.

    Parameters
    ----------
    labels_true, labels_pred : array-like of shape (N,)
        Classes and clusters: integers, strings or booleans, also as columns of pandas, polars or
        Arrow, such as categories. Their values need not agree.

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    TypeError
        If labels are floats, or objects that are not all integers, strings or booleans.
    ValueError
        If the two differ in length, are empty or have more than one dimension.

    Examples
    --------
    >>> from ekmfast.metrics import clustering_accuracy
    >>> clustering_accuracy([0, 0, 0, 1], [7, 7, 3, 3])
    0.75
    """
    matched, sizes = _matched(labels_true, labels_pred)
    return float(matched.sum() / sizes.sum())


def class_recall(labels_true: ArrayLike, labels_pred: ArrayLike) -> NDArray[np.float64]:
    """Share of each class that lies in the cluster matched to it.

    The matching is that of `clustering_accuracy`: each class is matched to at most one cluster, so
    that the most samples are labelled correctly. A class without a matched cluster has recall 0.
    The unweighted mean over the classes is the balanced accuracy.

    Parameters
    ----------
    labels_true, labels_pred : array-like of shape (N,)
        Classes and clusters: integers, strings or booleans, also as columns of pandas, polars or
        Arrow, such as categories. Their values need not agree.

    Returns
    -------
    ndarray of shape (n_classes,), float64
        In [0, 1], in the order of ``np.unique(labels_true)``.

    Raises
    ------
    TypeError
        If labels are floats, or objects that are not all integers, strings or booleans.
    ValueError
        If the two differ in length, are empty or have more than one dimension.

    Examples
    --------
    >>> from ekmfast.metrics import class_recall
    >>> class_recall([0, 0, 0, 1], [7, 7, 3, 3]).round(2).tolist()
    [0.67, 1.0]
    """
    matched, sizes = _matched(labels_true, labels_pred)
    return matched / sizes


def cv_difference(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Coefficient of variation of the clusters' sizes minus that of the classes' sizes.

    The coefficient of variation of the sizes ``m_1 .. m_k`` is their standard deviation divided by
    their mean, ``sqrt(sum_i (m_i - m)^2 / (k - 1)) / m``, and 0 for k = 1. A negative difference
    says that the sizes of the clusters differ less than those of the classes, which is the "uniform
    effect" of k-means. A difference of 0 says only that the sizes vary equally, not that the
    clusters are right, so use it together with the adjusted Rand index. Clusters without samples
    are not counted.

    Parameters
    ----------
    labels_true, labels_pred : array-like of shape (N,)
        Classes and clusters: integers, strings or booleans, also as columns of pandas, polars or
        Arrow, such as categories. Their values need not agree.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If labels are floats, or objects that are not all integers, strings or booleans.
    ValueError
        If the two differ in length, are empty or have more than one dimension.

    References
    ----------
    H. Xiong, J. Wu, J. Chen, "K-Means Clustering Versus Validation Measures: A Data-Distribution
    Perspective", IEEE Trans. Systems, Man, and Cybernetics B 39(2), 2009,
    doi:10.1109/TSMCB.2008.2004559. It uses the coefficient of variation as a criterion.

    Examples
    --------
    Classes of 90 and 10 samples, clusters of 60 and 40:

    >>> from ekmfast.metrics import cv_difference
    >>> round(cv_difference([0] * 90 + [1] * 10, [0] * 60 + [1] * 40), 3)
    -0.849
    """
    true, pred = _checked_pair(labels_true, labels_pred)
    return _size_variation(pred) - _size_variation(true)


def cluster_sizes(labels: ArrayLike, n_clusters: int | None = None) -> NDArray[np.int64]:
    """Number of samples in each cluster.

    Samples with the label -1 belong to no cluster and are not counted: ``zero_rows="label"`` and
    ``EquilibriumMixture(background=True)`` give this label.

    Parameters
    ----------
    labels : array-like of shape (N,)
        Clusters, integers of at least 0, or -1 for no cluster.
    n_clusters : int, default=None
        Length of the result, which may include empty clusters at the end; None for the largest
        label plus one.

    Returns
    -------
    ndarray of shape (n_clusters,), int64

    Raises
    ------
    TypeError
        If labels or ``n_clusters`` are not integers.
    ValueError
        If labels are empty, below -1, not one-dimensional, or not below ``n_clusters``.

    Examples
    --------
    >>> from ekmfast.metrics import cluster_sizes
    >>> cluster_sizes([0, 0, 2, -1], n_clusters=4).tolist()
    [2, 0, 1, 0]
    """
    N_CLUSTERS.check("n_clusters", n_clusters)
    checked = _checked(labels, "labels")
    if checked.dtype.kind not in "iu":
        raise TypeError(f"labels has dtype {checked.dtype}: must be integer")
    low, high = int(checked.min()), int(checked.max())
    if low < -1:
        raise ValueError(f"labels has the value {low}: must be at least -1")
    if n_clusters is not None and high >= n_clusters:
        raise ValueError(f"labels has the value {high}: must be below n_clusters={n_clusters}")
    counts = np.bincount(checked[checked != -1].astype(np.int64), minlength=n_clusters or 0)
    return counts.astype(np.int64)


def imbalance_ratio(labels: ArrayLike) -> float:
    """Size of the largest class divided by that of the smallest one that has samples.

    Parameters
    ----------
    labels : array-like of shape (N,)
        Classes or clusters: integers, strings or booleans, also as columns of pandas, polars or
        Arrow, such as categories.

    Returns
    -------
    float
        At least 1; it is 1 where all sizes are equal.

    Raises
    ------
    TypeError
        If labels are floats, or objects that are not all integers, strings or booleans.
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


def _size_variation(labels: NDArray[Any]) -> float:
    sizes = np.unique(labels, return_counts=True)[1]
    return float(sizes.std(ddof=1) / sizes.mean()) if len(sizes) > 1 else 0.0


def _matched(
    labels_true: ArrayLike, labels_pred: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of samples of each class in its matched cluster, and the size of each class."""
    table = contingency_matrix(*_checked_pair(labels_true, labels_pred))
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched = np.zeros(len(table), np.int64)
    matched[rows] = table[rows, columns]
    return matched, table.sum(axis=1)


def _checked_pair(
    labels_true: ArrayLike, labels_pred: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    true, pred = _checked(labels_true, "labels_true"), _checked(labels_pred, "labels_pred")
    if len(true) != len(pred):
        raise ValueError(
            f"labels_true has {len(true)} entries and labels_pred {len(pred)}: must be equal"
        )
    return true, pred


def _checked(labels: ArrayLike, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: must be one-dimensional")
    if array.size == 0:
        raise ValueError(f"{name} is empty")
    if np.ma.is_masked(labels):
        raise ValueError(f"{name} has masked entries: drop them")
    if array.dtype.kind in "OT":
        array = _unwrapped(array, name)
    # Floats are refused because NaN would be a cluster of its own, and 0.9999 differs from 1.
    if array.dtype.kind not in "iubUS":
        raise TypeError(f"{name} has dtype {array.dtype}: must be integers, strings or booleans")
    return array


def _unwrapped(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Convert an array of Python objects, as columns of text and categories are, to NumPy types."""
    kinds = [_kind(label) for label in array]
    for row, kind in enumerate(kinds):
        if kind is None or kind != kinds[0]:
            raise TypeError(
                f"{name} has the value {array[row]!r} in row {row}: must be integers, strings or "
                "booleans, all of one kind and none missing"
            )
    plain = np.array(array.tolist())
    if plain.dtype.kind not in "iubUS":
        raise TypeError(f"{name} has integers beyond 64 bits")
    return plain


def _kind(label: Any) -> type | None:
    if isinstance(label, (bool, np.bool_)):  # checked first, since bool is a subclass of int
        return bool
    return next((kind for kind in (Integral, str, bytes) if isinstance(label, kind)), None)
