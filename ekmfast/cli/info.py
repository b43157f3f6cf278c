"""Show version, instruction set, threads and compiler."""

from __future__ import annotations

import argparse

from ekmfast.cli.printing import printing


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Do nothing, since the command has no arguments."""


def run(_: argparse.Namespace) -> None:
    from ekmfast import show_config

    with printing():
        show_config()
