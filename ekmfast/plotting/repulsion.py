"""Plot which samples attract a centroid and which repel it."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ekmfast._optional import require
from ekmfast._parameters import Integer, Kind
from ekmfast.plotting.axes import ATTRACT, REPEL, _draw_centroids, _plane, new_figure

# Negative weights smaller than this in absolute value do not count as repelling.
VISIBLE = 1e-3
ESTIMATOR = Kind(
    lambda value: hasattr(value, "cluster_centers_") and hasattr(value, "weights"),
    "a fitted estimator with cluster_centers_ and weights",
)


def plot_repulsion(X: ArrayLike, estimator: Any, cluster: int | None = None, ax: Any = None) -> Any:
    """Plot samples, coloured by their weight on a centroid, which is positive or negative.

    The weights are those of Eq. 38. Blue samples have positive weights and attract the centroid.
    Orange samples have negative weights and repel it, and so would any sample in the orange area.
    Grey samples have weights near zero. The two halves of the colour scale differ, as weights reach
    1 and above but are seldom far below 0. The titles give the sums of the positive weights
    ("pull") and of the negative weights ("push").

    Parameters
    ----------
    X : array-like of shape (N, 2)
        Samples.
    estimator : fitted estimator
        An estimator with ``cluster_centers_`` of shape (K, 2) and a method ``weights``, such as
        `EKMeans`.
    cluster : int, default=None
        Index of the centroid; None draws one panel for each centroid, with a common colour scale.
    ax : matplotlib Axes, default=None
        Where to draw, or a sequence of K Axes if ``cluster`` is None; None for a new figure.

    Returns
    -------
    matplotlib Axes, or ndarray of shape (K,) of Axes if ``cluster`` is None

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError
        If ``estimator`` is not fitted or has no weights, or ``cluster`` is not an integer.
    ValueError
        If ``X`` does not have two columns or has no rows, ``cluster`` is out of range, or ``ax``
        does not hold K Axes.

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
    ESTIMATOR.check("estimator", estimator)
    centroids = _plane(estimator.cluster_centers_, "cluster_centers_")
    # scikit-learn would warn that the grid has no column names, if the fit had some.
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
        chosen = [Integer(0, n_clusters - 1).check("cluster", cluster)]
        axes = np.array([new_figure(4.8, 4)[1][0, 0] if ax is None else ax], object)

    weights = nameless.weights(points)
    colors: Any = require("matplotlib.colors", "plot")
    colours = colors.LinearSegmentedColormap.from_list("repulsion", [REPEL, "#DDDDDD", ATTRACT])
    low, high = weights[:, chosen].min(), weights[:, chosen].max()
    # The scale needs an orange half even if no weight is negative.
    norm = colors.TwoSlopeNorm(0, min(low, -0.01), max(high, 0.01))

    both = np.vstack([points, centroids])
    margin = 0.06 * np.maximum(np.ptp(both, axis=0), 1e-9)
    (left, bottom), (right, top) = both.min(axis=0) - margin, both.max(axis=0) + margin
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    around = nameless.weights(np.column_stack([x.ravel(), y.ravel()]))

    for panel, k in zip(axes, chosen, strict=True):
        w = weights[:, k]
        # Far from a centroid, rounding gives tiny weights of either sign.
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
