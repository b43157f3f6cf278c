"""Plot the alpha path: sizes of clusters, likelihood and agreement over alpha."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._optional import require
from ekmfast.plotting.axes import PALETTE, check_path, three_axes

# Upper limit of the axis of shares, which leaves space for numbers above the bars.
TOP = 1.08


def plot_alpha_path(path: Any, axes: Any = None) -> Any:
    """Plot the result of `ekmfast.alpha_path` in three panels, to help choose an alpha.

    The upper panel shows, for each alpha, the clusters as shares of the samples, sorted by size,
    and the size of the smallest cluster. The middle panel shows the likelihood, which can be
    compared between alphas, and the agreement of the labels with those of the neighbouring alphas;
    a good alpha lies on a plateau of both. The lower panel shows the number of distinct centroids,
    and the objective, which falls as alpha grows whatever the clusters. The band marks
    ``path.best``, the alpha of the largest likelihood or of the sizes nearest to ``target_sizes``.
    Hollow points are fits that did not converge.

    Parameters
    ----------
    path : AlphaPath
        The result of `ekmfast.alpha_path`.
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
        If ``axes`` does not hold three Axes.

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
    check_path(path, f"{wanted} best", "alpha_path")
    axes = three_axes(axes, 7.5, 7.5, gridspec_kw={"height_ratios": [3, 2.2, 1.6]})

    multiples = np.asarray(path.alphas, np.float64) / path.dvariance
    edges = _edges(multiples)
    best = index(path.best)
    for ax in axes:
        ax.axvspan(edges[best], edges[best + 1], color="#F0E442", alpha=0.45, zorder=0, linewidth=0)
        ax.spines[["top", "right"]].set_visible(False)
    _draw_shares(axes[0], multiples, edges, np.asarray(path.sizes, np.float64))
    axes[0].axvspan(edges[best], edges[best + 1], ymax=1 / TOP, fill=False, linewidth=2, zorder=3)
    chosen = f"alpha = {path.alphas[best]:.4g} ({multiples[best]:.3g} x dvariance)"
    errors = getattr(path, "size_errors", None)
    if errors is not None:
        title = f"{chosen} has the wanted sizes up to {100 * errors[best]:.2g} % of the samples"
    elif np.isfinite(path.likelihood[best]):
        title = f"{chosen} has the largest likelihood: {path.n_clusters_effective[best]} clusters"
    else:
        title = "at no alpha are there two distinct clusters"
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


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of adjacent bars, halfway between ``values`` on a logarithmic scale."""
    logs = np.log(values)
    if len(logs) == 1:
        return np.exp([logs[0] - 0.2, logs[0] + 0.2])
    middles = (logs[:-1] + logs[1:]) / 2
    return np.exp([2 * logs[0] - middles[0], *middles, 2 * logs[-1] - middles[-1]])


def _ticks(multiples: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[str]]:
    """Positions and labels of ticks at about ten or fewer of the alphas."""
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
    # The largest cluster is dark; the smallest is bright, and lies on top.
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
    # Results with one cluster have the likelihood -inf, and become a gap in the line.
    heights = np.asarray(values, np.float64)
    heights = np.where(np.isfinite(heights), heights, np.nan)
    ax.plot(at, heights, style, color=colour, linewidth=1.5)
    ax.scatter(at[done], heights[done], s=22, color=colour, zorder=3)
    ax.scatter(at[~done], heights[~done], s=22, facecolor="white", edgecolor=colour, zorder=3)
    ax.set_ylabel(label, color=colour)
    ax.tick_params(axis="y", colors=colour)
    ax.spines["top"].set_visible(False)
