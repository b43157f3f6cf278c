"""The ``ekmfast`` command."""

from ekmfast.cli.program import main

__all__ = ["main"]
