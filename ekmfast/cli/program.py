"""The ``ekmfast`` command: its parser, and its exit code after errors or a closed pipe."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout, suppress

from ekmfast._version import __version__
from ekmfast.cli.commands import COMMANDS
from ekmfast.cli.errors import UserError
from ekmfast.cli.output import STDOUT
from ekmfast.cli.printing import STANDARD_OUTPUT, printing


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; None for those of the process.

    Returns
    -------
    int
        Exit code: 0 for success, 1 for an error that the user can correct (printed as one line on
        stderr), 130 after an interruption, 141 when the reader of stdout has closed the pipe.
        Wrong usage raises ``SystemExit`` with code 2.

    Examples
    --------
    >>> from ekmfast.cli import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    version ...
    0
    """
    try:
        try:
            return _run(argv)
        finally:  # also after --help, which raises SystemExit
            if sys.stdout is not None:
                with printing():
                    sys.stdout.flush()
    except KeyboardInterrupt:
        print("ekmfast: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _give_up_stdout()
        return 141
    except OSError as error:
        if error.filename != STANDARD_OUTPUT:
            raise
        _give_up_stdout()
        return _fail(error)


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    command, _ = COMMANDS[arguments.command]
    # If a table is written to stdout, messages go to stderr, so that stdout holds only the table.
    table_to_stdout = getattr(arguments, "out", None) == STDOUT
    try:
        with redirect_stdout(sys.stderr) if table_to_stdout else nullcontext():
            command.run(arguments)
    except argparse.ArgumentError as error:
        parser.error(str(error))
    except UserError as failure:
        return _fail(failure.error)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line from the table of commands."""
    parser = argparse.ArgumentParser(
        prog="ekmfast", description="Equilibrium K-means for imbalanced data."
    )
    parser.add_argument("--version", action="version", version=f"ekmfast {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (command, line) in COMMANDS.items():
        command.add_arguments(parsers.add_parser(name, help=line))
    return parser


def _give_up_stdout() -> None:
    """Discard further output, since the interpreter would fail when it flushes stdout at exit."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Exception) -> int:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        name = os.fsdecode(error.filename)
        text = f"{name}: {error.strerror}"
        if isinstance(error, FileNotFoundError) and os.path.islink(name):
            text += f": the link points to {os.readlink(name)!r}, which does not exist"
    elif isinstance(error, MemoryError):
        text = text or "out of memory"
    print(f"ekmfast: error: {' '.join(text.split())}", file=sys.stderr)
    return 1
