"""The pictures of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import replace_file
from ekmfast._optional import require
from ekmfast.plotting import (
    PALETTE,
    new_figure,
    plot_anomaly_map,
    plot_clusters,
    plot_sizes,
)
from ekmfast.study.report.methods import NAMES

Scores = dict[str, Any]
Array = NDArray[Any]


def training_figure(histories: dict[str, dict[str, list[float]]], path: Path) -> Path:
    """Plot the loss of each training, and the accuracy of those with classes, over epochs."""
    figure, axes = new_figure(9, 3.2, columns=len(histories))
    for ax, (name, curves) in zip(axes[0], histories.items(), strict=True):
        epochs = np.arange(1, len(curves["train_loss"]) + 1)
        ax.plot(epochs, curves["train_loss"], color=PALETTE[0], label="loss, training images")
        ax.plot(
            epochs,
            curves["validation_loss"],
            color=PALETTE[1],
            ls="--",
            label="loss, held-out images",
        )
        ax.set_yscale("log")
        _plain_ticks(ax.yaxis)
        ax.set_title(name, fontsize=11)
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
        if curves["validation_accuracy"]:
            right = ax.twinx()
            right.plot(epochs, curves["validation_accuracy"], color=PALETTE[2], ls=":", lw=2)
            right.set_ylim(0, 1.02)
            right.spines["top"].set_visible(False)
            right.set_ylabel("accuracy" if ax is axes[0, -1] else "")
            if ax is not axes[0, -1]:
                right.set_yticklabels([])
    axes[0, 0].set_ylabel("loss")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    if len(histories) > 1:
        lines: Any = require("matplotlib.lines", "plot")
        handles.append(
            lines.Line2D([], [], color=PALETTE[2], ls=":", lw=2, label="accuracy, held-out images")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _save(figure, path)


def confusion_figure(scores: Scores, names: list[str], path: Path) -> Path:
    """Plot how many held-out images of each class were called which class, without and with
    augmentation.
    """
    n = len(names)
    size = min(max(0.32 * n + 1.6, 3.2), 9.0)
    figure, axes = new_figure(2 * size, size, columns=2)
    across = 0 if n <= 4 or max(map(len, names)) <= 3 else 90
    short = [_label(name if len(name) <= 14 else f"{name[:13]}\u2026") for name in names]
    for ax, key, title in zip(
        axes[0],
        ("confusion", "confusion_augmented"),
        ("without augmentation", "with augmentation"),
        strict=True,
    ):
        table = np.array(scores[key])
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("predicted")
        if n <= 30:
            ax.set_xticks(range(n), short, rotation=across, fontsize=8)
            ax.set_yticks(range(n), short, fontsize=8)
            for i, j in np.argwhere(table):
                colour = "white" if shares[i, j] > 0.5 else "black"
                ax.text(j, i, table[i, j], ha="center", va="center", color=colour, fontsize=8)
    axes[0, 0].set_ylabel("class")
    return _save(figure, path)


def examples_figure(
    images: Array, labellings: dict[str, Array], n_clusters: int, path: Path
) -> Path:
    """Plot the first images of each cluster, for each clustering."""
    columns = 8
    figure_of: Any = require("matplotlib.figure", "plot")
    rows = len(labellings) * n_clusters
    figure = figure_of.Figure(figsize=(9, 1.1 * rows + 0.5 * len(labellings)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(labellings), 1))
    for part, (name, labels) in zip(parts, labellings.items(), strict=True):
        part.suptitle(name, fontsize=11)
        axes = part.subplots(n_clusters, columns, squeeze=False)
        for k, row in enumerate(axes):
            own = np.flatnonzero(labels == k)
            row[0].set_ylabel(f"{k}: {len(own)}", fontsize=9)
            # Evenly over the cluster, since neighbouring files often show the same thing.
            some = own[np.linspace(0, len(own) - 1, min(columns, len(own))).astype(int)]
            for ax in row:
                ax.set_xticks([])
                ax.set_yticks([])
                ax.spines[:].set_visible(False)
            for ax, image in zip(row, images[some], strict=False):
                ax.imshow(_shown(image), cmap="gray", vmin=0, vmax=1)
    return _save(figure, path)


def sizes_figure(clustering: dict[str, dict[str, Scores]], names: list[str], path: Path) -> Path:
    """Plot the sizes of the clusters of EKM and k-means, and of the true classes."""
    figure, axes = new_figure(9, 3.2, columns=len(clustering), sharey=True)
    for ax, (draw, row) in zip(axes[0], clustering.items(), strict=True):
        labelled = "true_sizes" in row["ekm"]
        sizes = {"truth": row["ekm"]["true_sizes"]} if labelled else {}
        sizes |= {NAMES[key]: row[key]["sizes"] for key in ("ekm", "tuned", "kmeans")}
        plot_sizes(
            sizes, [f"{'class' if labelled else 'cluster'} {_label(name)}" for name in names], ax
        )
        ax.set_title(f"drawn {draw}" if labelled else f"wanted {draw}", fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    for ax in axes[0]:
        ax.get_legend().remove()
    axes[0, 0].set_ylabel("images")
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return _save(figure, path)


def path_figure(
    paths: dict[str, list[Scores]], clustering: dict[str, dict[str, Scores]], path: Path
) -> Path:
    """Plot ARI and mean objective over multiples of the paper's alpha, and mark the default.

    Without classes, the share of the largest cluster is plotted instead of the ARI.
    """
    figure, axes = new_figure(9, 3.4, columns=2, sharex=True)
    labelled = all("ari" in fits["ekm"] for fits in clustering.values())
    key = "ari" if labelled else "largest"
    for (draw, rows), colour, marker in zip(paths.items(), PALETTE, "os", strict=False):
        multiples = [row["multiple"] for row in rows]
        for ax, name in zip(axes[0], (key, "mean_objective"), strict=True):
            values = [row[name] for row in rows]
            ax.plot(multiples, values, color=colour, marker=marker, ms=4, label=f"EKM, {draw}")
        fits = clustering[draw]
        for method, sign, label in (("ekm", "*", "default"), ("tuned", "P", "tuned")):
            axes[0, 0].plot(
                [fits[method]["alpha"] / fits["dvariance"]["alpha"]],
                [_of_path(fits[method], key)],
                ls="",
                marker=sign,
                ms=15 if sign == "*" else 10,
                mec="k",
                color=colour,
                label=f"{label}, {draw}",
            )
        flat = _of_path(fits["kmeans"], key)
        axes[0, 0].axhline(flat, color=colour, ls="--", lw=1.2, label=f"k-means, {draw}")
    quantity = "adjusted Rand index" if labelled else "share of the largest cluster"
    for ax, name in zip(axes[0], (quantity, "objective J per image"), strict=True):
        ax.axvline(1, color="0.6", lw=0.8, zorder=0)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [tick for tick in (0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("multiple of the paper's alpha")
        ax.set_ylabel(name)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return _save(figure, path)


def _of_path(scores: Scores, key: str) -> float:
    if key == "ari":
        return float(scores["ari"])
    return float(max(scores["sizes"]) / sum(scores["sizes"]))


def tsne_figure(
    points: Array,
    last: tuple[str, Array],
    panels: dict[str, tuple[Array, Array, float | None]],
    names: list[str],
    path: Path,
) -> Path:
    """Plot clusters and centroids at three alphas, and the last panel's labels, in the plane.

    Each value of ``panels`` holds the labels, the centroids and the adjusted Rand index of a fit;
    ``last`` holds the title and the labels of the last panel.
    """
    figure, axes = new_figure(9, 8.2, 2, 2, sharex=True, sharey=True)
    for ax, (key, (labels, centroids, ari)) in zip(axes.flat, panels.items(), strict=False):
        plot_clusters(points, labels, centroids, ax, point_size=14)
        title = NAMES[key] + ("" if ari is None else f": ARI {ari:.2f}")
        if len(np.unique(centroids, axis=0)) == 1:
            title += " (one point)"
        ax.set_title(title, fontsize=11)
    title, labels = last
    plot_clusters(points, labels, ax=axes[1, 1], point_size=14)
    axes[1, 1].set_title(title, fontsize=11)
    kind = "class" if title == "true classes" else "cluster"
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    matplotlib: Any = require("matplotlib.lines", "plot")
    handles = [
        matplotlib.Line2D(
            [],
            [],
            ls="",
            marker="o",
            color=PALETTE[c % len(PALETTE)],
            label=f"{kind} {_label(name)}",
        )
        for c, name in enumerate(names)
    ]
    cross = matplotlib.Line2D([], [], ls="", marker="x", ms=9, mew=2, color="k", label="centroid")
    figure.legend(
        handles=[*handles, cross],
        loc="outside lower center",
        ncols=min(len(handles) + 1, 6),
        frameon=False,
    )
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
                ax.imshow(_shown(picture), cmap="gray", vmin=0, vmax=1)
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
    _plain_ticks(ax.xaxis)
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


def _label(name: str) -> str:
    """The name of a folder as Matplotlib draws it: no formulas, no bytes that are not UTF-8."""
    return name.encode("utf-8", "replace").decode().replace("$", r"\$")


def _shown(image: Array) -> Array:
    """An image (C, S, S) as Matplotlib draws it."""
    return np.clip(image.transpose(1, 2, 0), 0, 1)


def _plain_ticks(axis: Any) -> None:
    """Numbers such as 0.02 instead of powers of ten on a logarithmic axis."""
    ticker: Any = require("matplotlib.ticker", "plot")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(ticker.NullLocator())


def _save(figure: Any, path: Path) -> Path:
    # Without Matplotlib's version in the file, the same numbers give the same bytes.
    replace_file(
        path,
        lambda file: figure.savefig(file, format="png", dpi=110, metadata={"Software": None}),
    )
    return path
