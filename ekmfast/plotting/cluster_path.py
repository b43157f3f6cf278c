"""Plot the cluster path: criteria, stability and sizes of clusters over their number."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from ekmfast._optional import require
from ekmfast.plotting.axes import NO_CLUSTER, PALETTE, check_path, three_axes


def plot_cluster_path(path: Any, axes: Any = None) -> Any:
    """Plot the result of `ekmfast.cluster_path` in three panels, to help choose a number.

    The upper panel shows the criterion by which ``path.best`` is chosen, BIC and ICL for each
    number of clusters, all minus their least value. A good number lies where they are low. The
    middle panel shows the stability, which is near 1 if the same clusters are found in both halves
    of the rows, and the likelihood, which grows with every further cluster. The lower panel shows
    the clusters as shares of the rows, sorted by size, and above them, in grey, the rows of the
    background, if there is one. The band marks ``path.best``. Hollow points
    are mixtures whose iteration did not converge.

    Parameters
    ----------
    path : ClusterPath
        The result of `ekmfast.cluster_path`.
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
        If ``path`` is not the result of `ekmfast.cluster_path`.
    ValueError
        If ``axes`` does not hold three Axes.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import cluster_path
    >>> from ekmfast.plotting import plot_cluster_path
    >>> rng = np.random.default_rng(0)
    >>> X = np.vstack([rng.normal(0, 1, (400, 2)), rng.normal(6, 1, (20, 2))])
    >>> axes = plot_cluster_path(cluster_path(X, 4, random_state=0))
    >>> axes[0].get_title()
    '2 clusters have the lowest criterion'
    """
    wanted = (
        "n_clusters criterion bic icl stability likelihood sizes converged best background_sizes"
    )
    check_path(path, wanted, "cluster_path")
    axes = three_axes(axes, 6.5, 7.5)
    numbers, best = np.asarray(path.n_clusters), index(path.best)
    chosen = int(numbers[best])
    for ax in axes:
        ax.axvspan(chosen - 0.5, chosen + 0.5, color="#F0E442", alpha=0.45, zorder=0, linewidth=0)
        ax.spines[["top", "right"]].set_visible(False)
    _draw_criteria(axes[0], path)
    few = "1 cluster has" if chosen == 1 else f"{chosen} clusters have"
    axes[0].set_title(f"{few} the lowest criterion", fontsize=10)
    _draw_line(axes[1], path, path.stability, PALETTE[5], "stability (ARI)")
    axes[1].set_ylim(min(0.0, float(np.min(path.stability))) - 0.03, 1.03)
    likelihood = axes[1].twinx()
    likelihood.spines["top"].set_visible(False)
    _draw_line(likelihood, path, path.likelihood, PALETTE[0], "likelihood")
    _draw_shares(axes[2], path)
    axes[2].set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    axes[2].set_xlabel("number of clusters")
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    return axes


def _draw_criteria(ax: Any, path: Any) -> None:
    for name, label, colour, style in (
        ("criterion", "criterion", PALETTE[2], "-"),
        ("bic", "BIC", PALETTE[3], "--"),
        ("icl", "ICL", "#666666", ":"),
    ):
        values = np.asarray(getattr(path, name))
        ax.plot(path.n_clusters, values - values.min(), style, color=colour, label=label)
    ax.scatter(path.n_clusters, path.criterion - np.min(path.criterion), s=18, color=PALETTE[2])
    # Where clusters stand apart, the first numbers are far worse than all others.
    ax.set_yscale("symlog", linthresh=10)
    ax.set_ylim(bottom=-1)
    ax.set_ylabel("above the least")
    ax.legend(frameon=False, fontsize=8)


def _draw_line(ax: Any, path: Any, values: Any, colour: str, label: str) -> None:
    at, heights, done = path.n_clusters, np.asarray(values), np.asarray(path.converged, bool)
    ax.plot(at, heights, color=colour, linewidth=1.5)
    ax.scatter(at[done], heights[done], s=22, color=colour, zorder=3)
    ax.scatter(at[~done], heights[~done], s=22, facecolor="white", edgecolor=colour, zorder=3)
    ax.set_ylabel(label, color=colour)
    ax.tick_params(axis="y", colors=colour)


def _draw_shares(ax: Any, path: Any) -> None:
    numbers, beside = np.asarray(path.n_clusters), np.asarray(path.background_sizes)
    ranked = -np.sort(-np.asarray(path.sizes, np.float64), axis=1)
    total = ranked.sum(axis=1) + beside
    tops = ranked.cumsum(axis=1) / total[:, None]
    floors = np.column_stack([np.zeros(len(numbers)), tops[:, :-1]])
    matplotlib: Any = require("matplotlib", "plot")
    # The largest cluster is dark; the smallest is bright, and lies on top.
    colours = matplotlib.colormaps["viridis"](np.linspace(0.15, 0.98, ranked.shape[1]))
    for rank, colour in enumerate(colours):
        ax.bar(numbers, tops[:, rank] - floors[:, rank], 0.9, floors[:, rank], color=colour,
               edgecolor="white", linewidth=0.6)  # fmt: skip
    if beside.any():
        ax.bar(numbers, beside / total, 0.9, tops[:, -1], color=NO_CLUSTER, linewidth=0)
    ax.set_ylabel("shares, sorted")
    ax.set_ylim(0, 1)
