"""Cluster the rows of a file, with equilibrium k-means or by a mixture that it finds."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ekmfast._files import write_csv
from ekmfast.cli import tables
from ekmfast.cli.arguments import alpha, count
from ekmfast.cli.errors import errors_in_one_line, warnings_in_one_line
from ekmfast.cli.output import asks_for_onnx, check_outputs, text_path, write_figure
from ekmfast.cli.printing import counted, say, say_clusters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Cluster the rows of a file with equilibrium k-means."
    tables.add_arguments(parser, auto=True)
    parser.add_argument(
        "--max-clusters",
        type=count,
        metavar="K",
        help="the largest number that --clusters auto tries; default: 15",
    )
    parser.add_argument(
        "--shapes",
        choices=["round", "auto", "full", "tied", "diag", "spherical"],
        default="round",
        help="round: nearest centroids; others: a mixture whose components have shapes of this "
        "covariance type; default: %(default)s",
    )
    parser.add_argument(
        "--background",
        action="store_true",
        help="one more component of the mixture, for rows of no cluster, which get the label -1; "
        "not for --shapes round",
    )
    parser.add_argument("--alpha", type=alpha, metavar="A", help="a number > 0, dvariance or auto")
    parser.add_argument(
        "--out", type=text_path, metavar="CSV", help="write the labels; - for stdout"
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the model, and its scaling if --standardize, for ekmfast.load; or for ONNX "
        "(.onnx)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PICTURE",
        help="draw the clusters; missing values are drawn at the means of their columns",
    )


def run(arguments: argparse.Namespace) -> None:
    from sklearn.pipeline import make_pipeline

    from ekmfast.metrics import cluster_sizes
    from ekmfast.persist.file import save
    from ekmfast.persist.onnx import export_onnx

    if arguments.shapes != "round" and arguments.alpha is not None:
        raise argparse.ArgumentError(None, "--alpha is an option of --shapes round only")
    if arguments.shapes == "round" and arguments.background:
        raise argparse.ArgumentError(
            None,
            "--background is an option of mixtures only: say --shapes auto, full, tied, diag or "
            "spherical",
        )
    for name, value in tables.rows_options(arguments).items():
        if arguments.shapes != "round" and value not in ("euclidean", "error"):
            option = name.replace("_", "-")
            raise argparse.ArgumentError(
                None, f"--{option} {value} is an option of --shapes round only"
            )
    tables.check_rows_options(arguments)
    if arguments.clusters != "auto" and arguments.max_clusters is not None:
        raise argparse.ArgumentError(None, "--max-clusters is an option of --clusters auto only")
    with errors_in_one_line():
        check_outputs(
            arguments.save, texts=[arguments.out], plot=arguments.plot, inputs=[arguments.data]
        )
        write = export_onnx if arguments.save and asks_for_onnx(arguments.save) else save
        model = _model(arguments)
        with warnings_in_one_line():
            X, names, scaler = tables.read(arguments)
            model.fit(X)
        mixture = hasattr(model, "means_")
        n_clusters = len(model.means_ if mixture else model.cluster_centers_)
        labelled = model.labels_ >= 0
        sizes = cluster_sizes(model.labels_, n_clusters)
        shape = f"{counted(len(X), 'row', 'rows')}, {counted(len(names), 'column', 'columns')}"
        say("data", f"{shape}{'' if mixture else _faults(X, labelled)}")
        (_say_mixture if mixture else say_clusters)(model, sizes)
        if arguments.out is not None:
            write_csv(arguments.out, ["label"], ([label] for label in model.labels_))
            say("labels", arguments.out)
        if arguments.save is not None:
            write(model if scaler is None else make_pipeline(scaler, model), arguments.save)
            scaled = "" if scaler is None else " (a pipeline, which standardizes by itself)"
            say("model", f"{arguments.save}{scaled}")
        if arguments.plot is not None:
            if mixture and len(names) > 1:
                figure = _plot_mixture(X, names, model, sizes)
            else:
                drawn = labelled | mixture  # rows of zeros have no place, those of -1 are grey
                shown = _for_picture(X[drawn], arguments.metric)
                figure = _plot_clusters(shown, model.labels_[drawn], names, model, sizes)
            write_figure(arguments.plot, figure)
            say("picture", arguments.plot)


def _model(arguments: argparse.Namespace) -> Any:
    from ekmfast import EKMeans, EquilibriumMixture

    options: dict[str, Any] = {"random_state": arguments.seed}
    if arguments.max_clusters is not None:
        options["max_clusters"] = arguments.max_clusters
    if arguments.shapes != "round":
        options |= {"covariance_type": arguments.shapes, "background": arguments.background}
        return EquilibriumMixture(arguments.clusters, **options)
    if arguments.alpha is not None:
        options["alpha"] = arguments.alpha
    return EKMeans(arguments.clusters, **tables.rows_options(arguments), **options)


def _faults(X: Any, labelled: Any) -> str:
    """How many values are missing and how many rows are zero, if any."""
    import numpy as np

    missing, zero = int(np.isnan(X).sum()), int((~labelled).sum())
    return (f", {counted(missing, 'value', 'values')} missing" if missing else "") + (
        f", {counted(zero, 'row', 'rows')} of zeros" if zero else ""
    )


def _for_picture(X: Any, metric: str) -> Any:
    """Rows as they are drawn: of length 1 for the cosine, and with means for missing values."""
    import numpy as np
    from sklearn.preprocessing import normalize

    if metric == "cosine":
        return normalize(X)
    return np.where(np.isnan(X), np.nanmean(X, axis=0), X)


def _say_mixture(model: Any, sizes: Iterable[int]) -> None:
    """Print the shapes, likelihood, convergence and sizes of a mixture."""
    say("shapes", f"{model.covariance_type_}, {model.degrees_of_freedom_:g} degrees of freedom")
    say("likelihood", f"{model.lower_bound_:.8g}")
    iterations = counted(model.n_iter_, "iteration", "iterations")
    say("converged", f"{'yes' if model.converged_ else 'no'}, {iterations}")
    say("clusters", len(model.weights_))
    say("sizes", " ".join(map(str, sizes)))
    if model.background:
        rows = counted(int((model.labels_ < 0).sum()), "row", "rows")
        say("background", f"{rows}, share {model.background_weight_:.3g}")


def _plot_mixture(X: Any, names: list[str], model: Any, sizes: Any) -> Any:
    """Plot the samples in a plane, with the ellipses of the components."""
    from ekmfast.plotting import new_figure, plot_mixture

    figure, axes = new_figure(6, 5)
    ax = plot_mixture(X, model, axes[0, 0])
    if len(names) == 2:
        ax.set_xlabel(names[0])
        ax.set_ylabel(names[1])
    _add_legend(ax, sizes)
    return figure


def _plot_clusters(X: Any, labels: Any, names: list[str], model: Any, sizes: Any) -> Any:
    """Plot the samples by their two columns, or else by their first two principal components."""
    import numpy as np

    from ekmfast.plotting import new_figure, plot_clusters

    figure, axes = new_figure(6, 5)
    ax = axes[0, 0]
    centroids = model.means_ if hasattr(model, "means_") else model.cluster_centers_
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
    _add_legend(ax, sizes)
    return figure


def _add_legend(ax: Any, sizes: Any) -> None:
    handles, ticks = ax.get_legend_handles_labels()
    if len(ticks) <= 20:
        texts = [f"{k}: {sizes[int(k)]}" for k in ticks]
        ax.legend(handles, texts, title="cluster: samples", markerscale=2, fontsize=8,
                  loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)  # fmt: skip
