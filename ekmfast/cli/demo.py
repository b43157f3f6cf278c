"""Run the demo, which trains, clusters and finds anomalies, and writes a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from ekmfast.cli.arguments import seed
from ekmfast.cli.errors import errors_in_one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a small autoencoder, cluster the codes of three classes drawn in unequal"
        " numbers, detect anomalies by their reconstruction errors, and write a report. Without"
        " --images, the demo uses 5,000 handwritten digits, and 100 faces as anomalies, which"
        " Python packages contain."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="normal images, one sub-folder a class"
    )
    parser.add_argument("--anomalies", type=Path, metavar="DIR", help="anomalous images")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use little data and one epoch, to test that everything runs; results mean nothing",
    )


def run(arguments: argparse.Namespace) -> None:
    if (arguments.images is None) != (arguments.anomalies is None):
        raise argparse.ArgumentError(None, "--images and --anomalies go together")
    from ekmfast import demo

    # The user can correct a missing package or a wrong folder. Later errors are bugs of the
    # program, for which the traceback is needed.
    with errors_in_one_line(NotImplementedError):
        demo.check_requirements()
        data = demo.load_data(arguments.images, arguments.anomalies, quick=arguments.quick)
        arguments.out.mkdir(parents=True, exist_ok=True)
    demo.run(data, arguments.out, seed=arguments.seed, quick=arguments.quick)
