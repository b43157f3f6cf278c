"""Cluster the rows of a file at many alphas, and compare the results."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ekmfast.cli import tables
from ekmfast.cli.arguments import positive
from ekmfast.cli.errors import errors_in_one_line, warnings_in_one_line
from ekmfast.cli.output import check_outputs, write_figure
from ekmfast.cli.printing import printing, say

if TYPE_CHECKING:
    from ekmfast import AlphaPath


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Cluster the rows of a file at many alphas, and compare the results."
    tables.add_arguments(parser)
    parser.add_argument(
        "--alphas", type=_alphas, metavar="A,B", help="default: multiples of the rule dvariance"
    )
    parser.add_argument(
        "--sizes",
        type=_alphas,
        metavar="S1,S2,...",
        help="wanted proportions of the sizes, such as 2,1,1: choose the alpha nearest to them",
    )
    parser.add_argument("--plot", type=Path, metavar="PICTURE", help="draw the path")


def _alphas(text: str) -> list[float]:
    return [positive(part) for part in text.split(",")]


def _chosen(path: AlphaPath) -> str:
    if path.size_errors is None:
        if path.likelihood[path.best] == -math.inf:
            return "* no likelihood to choose by: there is one cluster at every alpha"
        return "* largest likelihood"
    error = 100 * path.size_errors[path.best]
    return f"* nearest to the wanted sizes: {error:.3g} % of the rows belong elsewhere"


def run(arguments: argparse.Namespace) -> None:
    from ekmfast import alpha_path

    tables.check_rows_options(arguments)
    with errors_in_one_line():
        check_outputs(plot=arguments.plot, inputs=[arguments.data])
        with warnings_in_one_line():
            X, _, _ = tables.read(arguments)
            path = alpha_path(
                X,
                arguments.clusters,
                arguments.alphas,
                target_sizes=arguments.sizes,
                random_state=arguments.seed,
                **tables.rows_options(arguments),
            )
        with printing():
            print("       alpha  x dvariance  likelihood  agreement  clusters     objective  sizes")
            for a, alpha in enumerate(path.alphas):
                sizes = " ".join(f"{size:.0f}" for size in sorted(path.sizes[a], reverse=True))
                print(
                    f"{'*' if a == path.best else ' '} {alpha:10.5g}  "
                    f"{alpha / path.dvariance:11.4g}  {path.likelihood[a]:10.4f}  "
                    f"{path.agreement[a]:9.3f}  {path.n_clusters_effective[a]:8d}  "
                    f"{path.objective[a]:12.6g}  {sizes}"
                    f"{'' if path.converged[a] else '  (not converged)'}"
                )
            print(_chosen(path))
        if arguments.plot is not None:
            from ekmfast.plotting import plot_alpha_path

            write_figure(arguments.plot, plot_alpha_path(path)[0].figure)
            say("picture", arguments.plot)
