"""Pictures of clusterings: needs Matplotlib, ``pip install "ekmfast[plot]"``.

Every function draws into the axes it is given, or into a figure of its own that pyplot does not
know of, so nothing is left behind in the caller's session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._optional import require
from ekmfast.metrics import cluster_sizes

__all__ = ["PALETTE", "new_figure", "plot_clusters", "plot_sizes"]

# Okabe and Ito's colours, told apart with the common kinds of colour blindness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Any, NDArray[Any]]:
    """A figure outside pyplot, and its axes.

    Parameters
    ----------
    width, height : float
        Size in inches.
    rows, columns : int, default=1
        Grid of the axes.
    **options
        For ``Figure.subplots``, such as ``sharex``.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of shape (rows, columns)

    Examples
    --------
    >>> from ekmfast.plotting import new_figure
    >>> figure, axes = new_figure(6, 3, columns=2)
    >>> axes.shape
    (1, 2)
    """
    matplotlib: Any = require("matplotlib.figure", "plot")
    # savefig picks the Agg canvas for PNG by itself.
    figure = matplotlib.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def plot_clusters(
    X: ArrayLike,
    estimator_or_labels: Any,
    centroids: ArrayLike | None = None,
    ax: Any = None,
    *,
    point_size: float = 9.0,
) -> Any:
    """Scatter samples in two dimensions, a colour a cluster, with the centroids as crosses.

    Parameters
    ----------
    X : array-like of shape (N, 2)
        Samples.
    estimator_or_labels : fitted estimator, or array-like of shape (N,)
        Labels, integers of at least 0; or an estimator, whose ``predict`` and
        ``cluster_centers_`` are used.
    centroids : array-like of shape (K, 2), default=None
        Centroids; None for those of the estimator, or for none.
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
        If ``X`` or ``centroids`` is not two-dimensional, or the labels are not one a sample.

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
    # The large clusters first, so that the small ones are not buried under them.
    sizes = cluster_sizes(labels)
    for k in np.argsort(-sizes, kind="stable"):
        if sizes[k]:
            chosen = points[labels == k]
            colour = PALETTE[k % len(PALETTE)]
            ax.scatter(*chosen.T, s=point_size, color=colour, alpha=0.7, linewidths=0, label=str(k))
    if centroids is not None:
        # A white cross under a black one stands out on every colour.
        crosses = _plane(centroids, "centroids").T
        ax.scatter(*crosses, s=130, color="white", marker="x", linewidths=5, zorder=4)
        ax.scatter(*crosses, s=100, color="black", marker="x", linewidths=2.2, zorder=5)
    return ax


def plot_sizes(
    sizes: dict[str, Sequence[int]], names: Sequence[str] | None = None, ax: Any = None
) -> Any:
    """Sizes of the clusters of several clusterings, side by side, on a logarithmic scale.

    Parameters
    ----------
    sizes : dict of str to sequence of K int
        Sizes under the name of each clustering; in a legend where there are several.
    names : sequence of K str, default=None
        Names of the clusters; None for their numbers.
    ax : matplotlib Axes, default=None
        Where to draw; None for a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError
        If ``sizes`` is not a dict.
    ValueError
        If there is nothing to draw, or the lengths differ.

    Examples
    --------
    >>> from ekmfast.plotting import plot_sizes
    >>> axes = plot_sizes({"truth": [400, 20], "k-means": [230, 190]}, names=["large", "small"])
    >>> len(axes.patches)
    4
    """
    try:
        rows = list(sizes.items())
    except AttributeError:
        raise TypeError(
            f"sizes is a {type(sizes).__name__}: must be a dict of names to sizes"
        ) from None
    lengths = {len(row) for _, row in rows}
    if len(lengths) != 1:
        raise ValueError(f"sizes has rows of lengths {sorted(lengths)}: must be one length")
    n_clusters = lengths.pop()
    names = [str(k) for k in range(n_clusters)] if names is None else names
    if len(names) != n_clusters:
        raise ValueError(f"names has {len(names)} entries: must be {n_clusters}")
    if ax is None:
        ax = new_figure(5, 3)[1][0, 0]
    width = 0.8 / len(sizes)
    for i, (name, row) in enumerate(rows):
        at = np.arange(n_clusters) + (i - (len(sizes) - 1) / 2) * width
        bars = ax.bar(at, row, 0.92 * width, color=PALETTE[i % len(PALETTE)], label=name)
        ax.bar_label(bars, fontsize=8, padding=1)
    # symlog so that an empty cluster has a place, at 0.
    ax.set_yscale("symlog", linthresh=1)
    ax.margins(y=0.12)
    ax.set_xticks(np.arange(n_clusters), names)
    ax.set_ylabel("samples")
    ax.spines[["top", "right"]].set_visible(False)
    if len(sizes) > 1:
        ax.legend(frameon=False, fontsize=8, loc="upper right")
    return ax


def _plane(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} has shape {array.shape}: must be (n, 2)")
    return array
