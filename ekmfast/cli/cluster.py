"""Cluster the rows of a file with equilibrium k-means."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ekmfast._files import write_csv
from ekmfast.cli import tables
from ekmfast.cli.arguments import alpha
from ekmfast.cli.errors import errors_in_one_line, warnings_in_one_line
from ekmfast.cli.output import check_outputs, text_path, write_figure
from ekmfast.cli.printing import say, say_clusters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Cluster the rows of a file with equilibrium k-means."
    tables.add_arguments(parser)
    parser.add_argument("--alpha", type=alpha, metavar="A", help="a number > 0, dvariance or auto")
    parser.add_argument(
        "--out", type=text_path, metavar="CSV", help="write the labels; - for stdout"
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the model, and its scaling if --standardize, for ekmfast.load",
    )
    parser.add_argument("--plot", type=Path, metavar="PICTURE", help="draw the clusters")


def run(arguments: argparse.Namespace) -> None:
    from sklearn.pipeline import make_pipeline

    from ekmfast import EKMeans
    from ekmfast.metrics import cluster_sizes
    from ekmfast.persist.file import save

    with errors_in_one_line():
        check_outputs(
            arguments.save, texts=[arguments.out], plot=arguments.plot, inputs=[arguments.data]
        )
        options = {} if arguments.alpha is None else {"alpha": arguments.alpha}
        model = EKMeans(arguments.clusters, random_state=arguments.seed, **options)
        with warnings_in_one_line():
            X, names, scaler = tables.read(arguments)
            model.fit(X)
        sizes = cluster_sizes(model.labels_, arguments.clusters)
        say("data", f"{len(X)} rows, {len(names)} columns")
        say_clusters(model, sizes)
        if arguments.out is not None:
            write_csv(arguments.out, ["label"], ([label] for label in model.labels_))
            say("labels", arguments.out)
        if arguments.save is not None:
            save(model if scaler is None else make_pipeline(scaler, model), arguments.save)
            scaled = "" if scaler is None else " (a pipeline, which standardizes by itself)"
            say("model", f"{arguments.save}{scaled}")
        if arguments.plot is not None:
            write_figure(arguments.plot, _plot_clusters(X, names, model, sizes))
            say("picture", arguments.plot)


def _plot_clusters(X: Any, names: list[str], model: Any, sizes: Any) -> Any:
    """Plot the samples by their two columns, or else by their first two principal components."""
    import numpy as np

    from ekmfast.plotting import new_figure, plot_clusters

    figure, axes = new_figure(6, 5)
    ax = axes[0, 0]
    labels, centroids = model.labels_, model.cluster_centers_
    if len(names) == 1:
        X = np.column_stack([X, np.arange(len(X))])
        centroids = np.column_stack([centroids, np.full(len(centroids), len(X) / 2)])
        names = [*names, "row"]
    elif len(names) > 2:
        from sklearn.decomposition import PCA

        plane = PCA(2, random_state=0).fit(X)
        X, centroids = plane.transform(X), plane.transform(centroids)
        shares = plane.explained_variance_ratio_
        names = [f"principal component {i + 1} ({100 * s:.0f} %)" for i, s in enumerate(shares)]
    plot_clusters(X, labels, centroids, ax)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    handles, ticks = ax.get_legend_handles_labels()
    if len(ticks) <= 20:
        texts = [f"{k}: {sizes[int(k)]}" for k in ticks]
        ax.legend(handles, texts, title="cluster: samples", markerscale=2, fontsize=8,
                  loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)  # fmt: skip
    return figure
