"""The ``ekmfast`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ekmfast._version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; None for those of the process.

    Returns
    -------
    int
        Exit code: 0, 1 for an error that the user can mend (told in one line on stderr), 130
        when interrupted. Wrong usage leaves through ``SystemExit`` with code 2.

    Examples
    --------
    >>> from ekmfast.cli import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    version ...
    0
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "info":
        from ekmfast import show_config

        show_config()
        return 0
    if (arguments.images is None) != (arguments.anomalies is None):
        parser.error("--images and --anomalies go together")
    try:
        return _demo(arguments)
    except KeyboardInterrupt:
        print("ekmfast: interrupted", file=sys.stderr)
        return 130


def _demo(arguments: argparse.Namespace) -> int:
    from ekmfast import demo

    # Only what the user can mend is told in a line: a missing package, the folders. Whatever goes
    # wrong later is a fault of the program, and its traceback is wanted.
    try:
        demo.check_requirements()
        data = demo.load_data(arguments.images, arguments.anomalies, quick=arguments.quick)
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (ImportError, OSError, ValueError) as error:
        print(f"ekmfast: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    demo.run(data, arguments.out, seed=arguments.seed, quick=arguments.quick)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ekmfast", description="Equilibrium K-means for imbalanced data."
    )
    parser.add_argument("--version", action="version", version=f"ekmfast {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="train an autoencoder, cluster its codes, find anomalies, write a report",
        description="Train a small autoencoder, cluster the codes of three classes drawn in unequal"
        " numbers, tell anomalies by their reconstruction, and write a report. Without --images:"
        " 5,000 handwritten digits, and 100 faces as anomalies, that come with Python packages.",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default: %(default)s"
    )
    demo.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: %(default)s")
    demo.add_argument(
        "--images", type=Path, metavar="DIR", help="normal images, one sub-folder a class"
    )
    demo.add_argument("--anomalies", type=Path, metavar="DIR", help="anomalous images")
    demo.add_argument(
        "--quick",
        action="store_true",
        help="little data and one epoch, to see that everything runs; the figures mean nothing",
    )

    commands.add_parser("info", help="show version, instruction set, threads and compiler")
    return parser


def _seed(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value < 2**32 - 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 4294966295")
    return value


if __name__ == "__main__":
    sys.exit(main())
