"""Pictures of clusterings: needs Matplotlib, ``pip install "ekmfast[plot]"``.

Every function draws into the axes it is given, or into a figure of its own that pyplot does not
know of, so nothing is left behind in the caller's session.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._optional import require
from ekmfast.metrics import cluster_sizes

__all__ = [
    "PALETTE",
    "new_figure",
    "plot_alpha_path",
    "plot_anomaly_map",
    "plot_clusters",
    "plot_repulsion",
    "plot_sizes",
]

# Okabe and Ito's colours, told apart with the common kinds of colour blindness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")

ATTRACT, REPEL = PALETTE[0], PALETTE[5]
# Weights of a smaller size are drawn as none.
VISIBLE = 1e-3
# Of the axis of shares: leaves a line for numbers above the bars.
TOP = 1.08


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
        _draw_centroids(ax, _plane(centroids, "centroids"))
    return ax


def plot_repulsion(X: ArrayLike, estimator: Any, cluster: int | None = None, ax: Any = None) -> Any:
    """Samples coloured by their weight on a centroid: which pull it, and which push it away.

    The weights are those of Eq. 38. Blue samples attract the centroid; orange ones, of negative
    weight, repel it, and the orange area is where a sample would. Samples in grey leave it alone.
    The two halves of the colour scale differ, as weights reach 1 and above but are seldom far
    below 0; the titles give the sum of each sign.

    Parameters
    ----------
    X : array-like of shape (N, 2)
        Samples.
    estimator : fitted estimator
        With ``cluster_centers_`` of shape (K, 2) and a method ``weights``, as `EKMeans`.
    cluster : int, default=None
        The centroid, 0 to K - 1; None for a panel each, all in one colour scale.
    ax : matplotlib Axes, default=None
        Where to draw, or a sequence of K of them where ``cluster`` is None; None for a new figure.

    Returns
    -------
    matplotlib Axes, or ndarray of shape (K,) of them where ``cluster`` is None

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError
        If ``estimator`` is not fitted or has no weights, or ``cluster`` is not an integer.
    ValueError
        If ``X`` has not two columns or no rows, ``cluster`` is out of range, or ``ax`` are not K.

    References
    ----------
    Y. He, "Imbalanced Data Clustering using Equilibrium K-Means", arXiv 2402.14490, Eq. 38.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import EKMeans
    >>> from ekmfast.plotting import plot_repulsion
    >>> rng = np.random.default_rng(0)
    >>> X = np.vstack([rng.normal(0, 1, (400, 2)), rng.normal(6, 1, (20, 2))])
    >>> model = EKMeans(n_clusters=2, random_state=0).fit(X)
    >>> len(plot_repulsion(X, model))
    2
    >>> ax = plot_repulsion(X, model, cluster=1)
    """
    points = _plane(X, "X")
    if not len(points):
        raise ValueError("X has no rows")
    if not (hasattr(estimator, "cluster_centers_") and hasattr(estimator, "weights")):
        raise TypeError(
            f"estimator is {estimator!r:.80}: must be fitted and have cluster_centers_ and weights"
        )
    centroids = _plane(estimator.cluster_centers_, "cluster_centers_")
    # The grid has no column names, and scikit-learn warns where the fit had them.
    nameless = copy(estimator)
    vars(nameless).pop("feature_names_in_", None)
    n_clusters = len(centroids)
    if cluster is None:
        chosen = list(range(n_clusters))
        if ax is None:
            columns = n_clusters if n_clusters <= 3 else min(4, int(np.ceil(n_clusters**0.5)))
            rows = -(-n_clusters // columns)
            grid = new_figure(3.2 * columns + 0.8, 3.1 * rows, rows, columns,
                              sharex=True, sharey=True)[1].ravel()  # fmt: skip
            for unused in grid[n_clusters:]:
                unused.remove()
            axes = grid[:n_clusters]
            for lowest in axes[-columns:]:
                lowest.tick_params(labelbottom=True)
        else:
            axes = np.ravel(np.asarray(ax, object))
            if len(axes) != n_clusters:
                raise ValueError(f"ax has {len(axes)} Axes: must be {n_clusters}, one a centroid")
    else:
        chosen = [index(cluster)]
        if not 0 <= chosen[0] < n_clusters:
            raise ValueError(f"cluster is {cluster}: must be from 0 to {n_clusters - 1}")
        axes = np.array([new_figure(4.8, 4)[1][0, 0] if ax is None else ax], object)

    weights = nameless.weights(points)
    colors: Any = require("matplotlib.colors", "plot")
    colours = colors.LinearSegmentedColormap.from_list("repulsion", [REPEL, "#DDDDDD", ATTRACT])
    low, high = weights[:, chosen].min(), weights[:, chosen].max()
    # Without a negative weight the scale still needs an orange half.
    norm = colors.TwoSlopeNorm(0, min(low, -0.01), max(high, 0.01))

    both = np.vstack([points, centroids])
    margin = 0.06 * np.maximum(np.ptp(both, axis=0), 1e-9)
    (left, bottom), (right, top) = both.min(axis=0) - margin, both.max(axis=0) + margin
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    around = nameless.weights(np.column_stack([x.ravel(), y.ravel()]))

    for panel, k in zip(axes, chosen, strict=True):
        w = weights[:, k]
        # Rounding leaves weights of either sign where a centroid is out of reach.
        area = around[:, k].reshape(x.shape) < -VISIBLE
        if area.any():
            panel.contourf(x, y, area, levels=[0.5, 1], colors=[REPEL], alpha=0.12, zorder=0)
        order = np.argsort(np.abs(norm(w) - 0.5), kind="stable")
        scatter = panel.scatter(
            *points[order].T, c=w[order], s=9, cmap=colours, norm=norm, linewidths=0
        )
        others = np.arange(n_clusters) != k
        panel.scatter(*centroids[others].T, s=60, color="#666666", marker="x", linewidths=1.5)
        _draw_centroids(panel, centroids[k : k + 1])
        panel.set_xlim(left, right)
        panel.set_ylim(bottom, top)
        pull, push = w[w > 0].sum(), abs(w[w < 0].sum())
        panel.set_title(f"centroid {k}: pull {pull:,.4g}, push {push:,.3g}", fontsize=9)
    bar = axes[0].figure.colorbar(scatter, ax=list(axes), aspect=30, pad=0.02)
    ends = [f"{low:.2g}", f"{high:.2g}"] if low < 0 else ["0", f"{high:.2g}"]
    bar.set_ticks([norm.vmin, 0, norm.vmax], labels=[ends[0], "0", ends[1]])
    bar.set_label("repels            weight            attracts")
    return axes if cluster is None else axes[0]


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


def plot_alpha_path(path: Any, axes: Any = None) -> Any:
    """What `ekmfast.alpha_path` found at each alpha, in three panels, to choose one at a glance.

    Above, each alpha's clusters as shares of the samples, sorted by size, and the size of the
    smallest. In the middle, the likelihood, which may be compared between alphas, and the agreement
    of the labels with those of the neighbouring alphas: a good alpha lies on a plateau of both.
    Below, the number of distinct centroids, and the objective, which falls as alpha grows whatever
    the clusters. The band marks the alpha of the largest likelihood, ``path.best``. Hollow points
    did not converge.

    Parameters
    ----------
    path : AlphaPath
        From `ekmfast.alpha_path`.
    axes : sequence of 3 matplotlib Axes, default=None
        Where to draw; None for a new figure.

    Returns
    -------
    ndarray of shape (3,) of matplotlib Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError
        If ``path`` is not the result of `ekmfast.alpha_path`.
    ValueError
        If ``axes`` are not three.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import alpha_path
    >>> from ekmfast.plotting import plot_alpha_path
    >>> rng = np.random.default_rng(0)
    >>> X = np.vstack([rng.normal(0, 1, (400, 2)), rng.normal(6, 1, (20, 2))])
    >>> axes = plot_alpha_path(alpha_path(X, 2, random_state=0))
    >>> len(axes)
    3
    """
    wanted = "alphas dvariance sizes likelihood agreement n_clusters_effective objective converged"
    missing = [name for name in [*wanted.split(), "best"] if not hasattr(path, name)]
    if missing:
        raise TypeError(
            f"path is a {type(path).__name__} without {', '.join(missing)}: must be the result of "
            "ekmfast.alpha_path"
        )
    if axes is None:
        heights = {"height_ratios": [3, 2.2, 1.6]}
        axes = new_figure(7.5, 7.5, 3, sharex=True, gridspec_kw=heights)[1]
    axes = np.ravel(np.asarray(axes, object))
    if len(axes) != 3:
        raise ValueError(f"axes has {len(axes)} Axes: must be 3")

    multiples = np.asarray(path.alphas, np.float64) / path.dvariance
    edges = _edges(multiples)
    best = index(path.best)
    for ax in axes:
        ax.axvspan(edges[best], edges[best + 1], color="#F0E442", alpha=0.45, zorder=0, linewidth=0)
        ax.spines[["top", "right"]].set_visible(False)
    _draw_shares(axes[0], multiples, edges, np.asarray(path.sizes, np.float64))
    axes[0].axvspan(edges[best], edges[best + 1], ymax=1 / TOP, fill=False, linewidth=2, zorder=3)
    if np.isfinite(path.likelihood[best]):
        title = (
            f"alpha = {path.alphas[best]:.4g} ({multiples[best]:.3g} x dvariance) has the largest "
            f"likelihood: {path.n_clusters_effective[best]} clusters"
        )
    else:
        title = "no alpha tells clusters apart"
    axes[0].set_title(title, fontsize=10)

    done = np.asarray(path.converged, bool)
    _draw_line(axes[1], multiples, path.likelihood, done, PALETTE[0], "likelihood")
    agreement = axes[1].twinx()
    _draw_line(agreement, multiples, path.agreement, done, PALETTE[5], "agreement (ARI)", "--")
    agreement.set_ylim(min(0, np.nanmin(path.agreement)) - 0.03, 1.03)
    _draw_line(axes[2], multiples, path.n_clusters_effective, done, PALETTE[2], "distinct clusters")
    axes[2].set_ylim(0.5, np.max(path.n_clusters_effective) + 0.5)
    axes[2].yaxis.get_major_locator().set_params(integer=True)
    objective = axes[2].twinx()
    _draw_line(objective, multiples, path.objective, done, "#666666", "objective", "--")

    for ax in axes:
        ax.set_xscale("log")
        ax.set_xlim(edges[0], edges[-1])
        ax.set_xticks([], minor=True)
        ax.set_xticks(*_ticks(multiples))
    axes[2].set_xlabel(f"alpha / dvariance (dvariance: alpha = {path.dvariance:.4g})")
    return axes


def plot_anomaly_map(images: ArrayLike, reconstructions: ArrayLike, axes: Any = None) -> Any:
    """Draw images, their reconstructions, and where the two differ.

    Parameters
    ----------
    images : array-like of shape (N, C, H, W) or (N, H, W), C 1 or 3
        Floats in [0, 1], or uint8. A column each, so a dozen at most look well.
    reconstructions : array-like of the same shape
        From ``reconstruct``, in [0, 1].
    axes : ndarray of 3 N matplotlib.axes.Axes of shape (3, N), default=None
        Where to draw; None for a new figure outside pyplot.

    Returns
    -------
    ndarray of shape (3, N)
        The axes: images above, reconstructions, and squared errors below on one common scale, of
        which the mean, the image's reconstruction loss, is written underneath.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the shapes do not agree.

    See Also
    --------
    ekmfast.anomaly.anomaly_map : The errors as numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.plotting import plot_anomaly_map
    >>> images = np.random.default_rng(0).random((2, 1, 16, 16))
    >>> plot_anomaly_map(images, np.full((2, 1, 16, 16), 0.5)).shape
    (3, 2)
    """
    pictures = [_pictures(images, "images"), _pictures(reconstructions, "reconstructions")]
    shape = pictures[0].shape
    if pictures[1].shape != shape:
        raise ValueError(
            f"reconstructions has shape {np.shape(reconstructions)}: must be that of images, "
            f"{np.shape(images)}"
        )
    errors = ((pictures[0] - pictures[1]) ** 2).mean(axis=3)
    if axes is None:
        _, axes = new_figure(max(3.0, 1.2 * shape[0] + 0.8), 4.2, 3, shape[0])
    axes = np.asarray(axes, object)
    if axes.shape != (3, shape[0]):
        raise ValueError(f"axes has shape {axes.shape}: must be (3, {shape[0]})")
    for row, values in zip(axes[:2], pictures, strict=True):
        for ax, picture in zip(row, values, strict=True):
            ax.imshow(np.clip(picture, 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
    most = max(float(errors.max()), 1e-12)
    for ax, error in zip(axes[2], errors, strict=True):
        drawn = ax.imshow(error, cmap="inferno", vmin=0, vmax=most)
        ax.set_xlabel(f"{error.mean():.4f}", fontsize=9)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax, name in zip(axes[:, 0], ("image", "reconstruction", "squared error"), strict=True):
        ax.set_ylabel(name)
    figure = axes[0, 0].figure
    figure.colorbar(drawn, ax=list(axes[2]), fraction=0.05)
    return axes


def _pictures(images: ArrayLike, name: str) -> NDArray[np.float64]:
    """Images as (N, H, W, C) in [0, 1]."""
    values = np.asarray(images)
    scale = 255.0 if values.dtype == np.uint8 else 1.0
    if values.ndim == 3:
        values = values[:, None]
    if values.ndim != 4 or values.shape[1] not in (1, 3) or values.shape[0] == 0:
        raise ValueError(
            f"{name} has shape {np.shape(images)}: must be (N, C, H, W) or (N, H, W), "
            "N at least 1, C 1 or 3"
        )
    return values.transpose(0, 2, 3, 1).astype(np.float64) / scale


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bounds of bars that meet halfway between ``values``, on a logarithmic scale."""
    logs = np.log(values)
    if len(logs) == 1:
        return np.exp([logs[0] - 0.2, logs[0] + 0.2])
    middles = (logs[:-1] + logs[1:]) / 2
    return np.exp([2 * logs[0] - middles[0], *middles, 2 * logs[-1] - middles[-1]])


def _ticks(multiples: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[str]]:
    """At most about ten of the alphas, under their own values."""
    chosen = multiples[:: -(-len(multiples) // 11)]
    return chosen, [f"{value:.3g}" for value in chosen]


def _draw_shares(
    ax: Any,
    at: NDArray[np.float64],
    edges: NDArray[np.float64],
    sizes: NDArray[np.float64],
) -> None:
    ranked = -np.sort(-sizes, axis=1)
    tops = ranked.cumsum(axis=1) / ranked.sum(axis=1, keepdims=True)
    floors = np.column_stack([np.zeros(len(at)), tops[:, :-1]])
    matplotlib: Any = require("matplotlib", "plot")
    # Dark for the largest, bright for the smallest, which lie as a seam on top.
    colours = matplotlib.colormaps["viridis"](np.linspace(0.15, 0.98, ranked.shape[1]))
    for rank, colour in enumerate(colours):
        ax.bar(edges[:-1], tops[:, rank] - floors[:, rank], np.diff(edges), floors[:, rank],
               align="edge", color=colour, edgecolor="white", linewidth=0.6)  # fmt: skip
    if len(at) <= 16:
        smallest = np.where(sizes > 0, sizes, np.inf).min(axis=1)
        for x, size in zip(at, smallest, strict=True):
            ax.annotate(f"{size:,.4g}", (x, 1), (0, 2), textcoords="offset points", ha="center",
                        fontsize=8)  # fmt: skip
        ax.set_ylabel("shares, sorted; smallest above")
    else:
        ax.set_ylabel("shares, sorted")
    ax.set_ylim(0, TOP)


def _draw_line(
    ax: Any,
    at: NDArray[np.float64],
    values: ArrayLike,
    done: NDArray[np.bool_],
    colour: str,
    label: str,
    style: str = "-",
) -> None:
    # One-cluster results have a likelihood of -inf: no point, a gap in the line.
    heights = np.asarray(values, np.float64)
    heights = np.where(np.isfinite(heights), heights, np.nan)
    ax.plot(at, heights, style, color=colour, linewidth=1.5)
    ax.scatter(at[done], heights[done], s=22, color=colour, zorder=3)
    ax.scatter(at[~done], heights[~done], s=22, facecolor="white", edgecolor=colour, zorder=3)
    ax.set_ylabel(label, color=colour)
    ax.tick_params(axis="y", colors=colour)
    ax.spines["top"].set_visible(False)


def _draw_centroids(ax: Any, centroids: NDArray[Any]) -> None:
    # A white cross under a black one stands out on every colour.
    ax.scatter(*centroids.T, s=130, color="white", marker="x", linewidths=5, zorder=4)
    ax.scatter(*centroids.T, s=100, color="black", marker="x", linewidths=2.2, zorder=5)


def _plane(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} has shape {array.shape}: must be (n, 2)")
    return array
