"""The pictures of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import replace_file
from ekmfast._optional import require
from ekmfast.demo.report.methods import NAMES
from ekmfast.plotting import (
    PALETTE,
    new_figure,
    plot_anomaly_map,
    plot_clusters,
    plot_sizes,
)

Scores = dict[str, Any]
Array = NDArray[Any]


def sizes_figure(clustering: dict[str, dict[str, Scores]], names: list[str], path: Path) -> Path:
    """Plot the sizes of the clusters of EKM and k-means, and of the true classes."""
    figure, axes = new_figure(9, 3.2, columns=len(clustering), sharey=True)
    for ax, (draw, row) in zip(axes[0], clustering.items(), strict=True):
        sizes = {"truth": row["ekm"]["true_sizes"]}
        sizes |= {NAMES[key]: row[key]["sizes"] for key in ("ekm", "kmeans")}
        plot_sizes(sizes, [f"class {name}" for name in names], ax)
        ax.set_title(f"drawn {draw}", fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    for ax in axes[0]:
        ax.get_legend().remove()
    axes[0, 1].set_ylabel("")
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _save(figure, path)


def path_figure(
    paths: dict[str, list[Scores]], clustering: dict[str, dict[str, Scores]], path: Path
) -> Path:
    """Plot ARI and mean objective over multiples of the paper's alpha, and mark the default."""
    figure, axes = new_figure(9, 3.4, columns=2, sharex=True)
    for (draw, rows), colour, marker in zip(paths.items(), PALETTE, "os", strict=False):
        multiples = [row["multiple"] for row in rows]
        for ax, key in zip(axes[0], ("ari", "mean_objective"), strict=True):
            values = [row[key] for row in rows]
            ax.plot(multiples, values, color=colour, marker=marker, ms=4, label=f"EKM, {draw}")
        fits = clustering[draw]
        alpha = fits["ekm"]["alpha"] / fits["dvariance"]["alpha"]
        axes[0, 0].plot(
            [alpha],
            [fits["ekm"]["ari"]],
            ls="",
            marker="*",
            ms=15,
            mec="k",
            color=colour,
            label=f"default, {draw}",
        )
        flat = fits["kmeans"]["ari"]
        axes[0, 0].axhline(flat, color=colour, ls="--", lw=1.2, label=f"k-means, {draw}")
    for ax, name in zip(axes[0], ("adjusted Rand index", "objective J per sample"), strict=True):
        ax.axvline(1, color="0.6", lw=0.8, zorder=0)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100) if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("multiple of the paper's alpha")
        ax.set_ylabel(name)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _save(figure, path)


def tsne_figure(
    points: Array,
    classes: Array,
    panels: dict[str, tuple[Array, Array, float]],
    names: list[str],
    path: Path,
) -> Path:
    """Plot clusters and centroids at three alphas, and the true classes, in the plane.

    Each value of ``panels`` holds the labels, the centroids and the adjusted Rand index of a fit.
    """
    figure, axes = new_figure(9, 8.2, 2, 2, sharex=True, sharey=True)
    for ax, (key, (labels, centroids, ari)) in zip(axes.flat, panels.items(), strict=False):
        plot_clusters(points, labels, centroids, ax, point_size=14)
        title = f"{NAMES[key]}: ARI {ari:.2f}"
        if len(np.unique(centroids, axis=0)) == 1:
            title += " (one point)"
        ax.set_title(title, fontsize=11)
    last = axes[1, 1]
    plot_clusters(points, classes, ax=last, point_size=14)
    last.set_title("true classes", fontsize=11)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    matplotlib: Any = require("matplotlib.lines", "plot")
    handles = [
        matplotlib.Line2D([], [], ls="", marker="o", color=PALETTE[c], label=f"class {name}")
        for c, name in enumerate(names)
    ]
    cross = matplotlib.Line2D([], [], ls="", marker="x", ms=9, mew=2, color="k", label="centroid")
    figure.legend(handles=[*handles, cross], loc="outside lower center", ncols=4, frameon=False)
    return _save(figure, path)


def reconstruction_figure(
    groups: dict[str, tuple[Array, Array, Array]], losses: tuple[Array, Array], path: Path
) -> Path:
    """Plot normal and anomalous images above their reconstructions, and a histogram of losses."""
    matplotlib: Any = require("matplotlib.figure", "plot")
    figure = matplotlib.Figure(figsize=(9, 7.6), layout="constrained")
    parts = figure.subfigures(3, 1, height_ratios=[1, 1, 1.1])
    for part, (name, (images, back, loss)) in zip(parts, groups.items(), strict=False):
        part.suptitle(f"{name}: original above, reconstruction below, loss", fontsize=11)
        axes = part.subplots(2, len(images), squeeze=False)
        for column, (image, again, value) in enumerate(zip(images, back, loss, strict=True)):
            for ax, picture in zip(axes[:, column], (image, again), strict=True):
                shown = np.clip(picture.transpose(1, 2, 0), 0, 1)
                ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
                ax.set_xticks([])
                ax.set_yticks([])
            axes[1, column].set_xlabel(f"{value:.3f}", fontsize=9)
    ax = parts[2].subplots()
    together = np.concatenate(losses)
    bins = np.geomspace(max(together.min(), 1e-6) * 0.95, together.max() * 1.05, 40)
    for values, name, colour, hatch in zip(losses, groups, PALETTE, ("", "//"), strict=False):
        share = np.full(len(values), 1 / len(values))
        ax.hist(values, bins, weights=share, color=colour, alpha=0.75, hatch=hatch, label=name)
    ax.set_xscale("log")
    ticker: Any = require("matplotlib.ticker", "plot")
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_xlabel("reconstruction loss (mean squared error)")
    ax.set_ylabel("share of images")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return _save(figure, path)


def map_figure(groups: dict[str, tuple[Array, Array, Array]], path: Path) -> Path:
    """Plot the error of each pixel in the first four images of each group."""
    images, back = (np.concatenate([group[i][:4] for group in groups.values()]) for i in (0, 1))
    axes = plot_anomaly_map(images, back)
    return _save(axes.flat[0].figure, path)


def _save(figure: Any, path: Path) -> Path:
    # Without Matplotlib's version in the file, the same numbers give the same bytes.
    replace_file(
        path,
        lambda file: figure.savefig(file, format="png", dpi=110, metadata={"Software": None}),
    )
    return path
