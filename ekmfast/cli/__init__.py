"""The ``ekmfast`` command."""

from ekmfast.cli.main import main

__all__ = ["main"]
