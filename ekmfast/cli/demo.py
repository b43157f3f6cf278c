"""Run the demo, which trains, clusters and finds anomalies, and writes a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from ekmfast.cli.arguments import seed
from ekmfast.cli.errors import errors_in_one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a small autoencoder, cluster the codes of three classes drawn in unequal"
        " numbers, detect anomalies by their reconstruction errors, and write a report. The images"
        " are 5,000 handwritten digits, and 100 faces as anomalies, which Python packages contain;"
        " for your own photos see the command study."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use little data and one epoch, to test that everything runs; results mean nothing",
    )


def run(arguments: argparse.Namespace) -> None:
    from ekmfast import study

    # The user can correct a missing package. Later errors are bugs of the program, for which the
    # traceback is needed.
    with errors_in_one_line():
        study.check_requirements()
        data = study.load_digits(quick=arguments.quick)
        arguments.out.mkdir(parents=True, exist_ok=True)
    settings = study.QUICK if arguments.quick else study.Settings()
    study.run(data, arguments.out, settings=settings, seed=arguments.seed, quick=arguments.quick)
