"""Plot clusters of samples in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ekmfast.metrics import cluster_sizes
from ekmfast.plotting.axes import NO_CLUSTER, PALETTE, _draw_centroids, _plane, new_figure


def plot_clusters(
    X: ArrayLike,
    estimator_or_labels: Any,
    centroids: ArrayLike | None = None,
    ax: Any = None,
    *,
    point_size: float = 9.0,
) -> Any:
    """Plot samples in two dimensions, with a colour for each cluster, and centroids as crosses.

    Parameters
    ----------
    X : array-like of shape (N, 2)
        Samples.
    estimator_or_labels : fitted estimator, or array-like of shape (N,)
        Labels, integers of at least 0, or -1 for rows of no cluster, which are drawn in grey; or an
        estimator, whose ``predict`` and ``cluster_centers_`` are used.
    centroids : array-like of shape (K, 2), default=None
        Centroids; None for those of the estimator, or for none if labels are given.
    ax : matplotlib Axes, default=None
        Where to draw; None for a new figure.
    point_size : float, default=9.0
        Area of a point, in square points.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If ``X`` or ``centroids`` is not two-dimensional, or there is not one label for each sample.

    Examples
    --------
    >>> from ekmfast.plotting import plot_clusters
    >>> axes = plot_clusters([[0, 0], [1, 1], [5, 5]], [0, 0, 1], centroids=[[0.5, 0.5], [5, 5]])
    >>> len(axes.collections)
    4
    """
    points = _plane(X, "X")
    if hasattr(estimator_or_labels, "predict"):
        labels = np.asarray(estimator_or_labels.predict(X))
        if centroids is None:
            centroids = estimator_or_labels.cluster_centers_
    else:
        labels = np.asarray(estimator_or_labels)
    if labels.shape != (len(points),):
        raise ValueError(f"labels have shape {labels.shape}: must be ({len(points)},)")
    if ax is None:
        ax = new_figure(4.5, 4)[1][0, 0]
    # Large clusters are drawn first, so that they do not cover small ones.
    beside = labels == -1
    if beside.any():
        ax.scatter(*points[beside].T, s=point_size, color=NO_CLUSTER, alpha=0.7, linewidths=0)
    sizes = cluster_sizes(labels[~beside]) if not beside.all() else np.empty(0, np.int64)
    for k in np.argsort(-sizes, kind="stable"):
        if sizes[k]:
            chosen = points[labels == k]
            colour = PALETTE[k % len(PALETTE)]
            ax.scatter(*chosen.T, s=point_size, color=colour, alpha=0.7, linewidths=0, label=str(k))
    if centroids is not None:
        _draw_centroids(ax, _plane(centroids, "centroids"))
    return ax
