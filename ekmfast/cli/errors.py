"""Errors that the user can mend, and warnings, each told in one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

MENDABLE = (ImportError, OSError, ValueError, MemoryError)


class UserError(Exception):
    """Carries an error that is told in one line, without its traceback."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def errors_in_one_line(*further: type[Exception]) -> Iterator[None]:
    """Tell in one line the errors that the user can mend: `MENDABLE`, and ``further`` ones."""
    mendable: tuple[type[Exception], ...] = (*MENDABLE, *further)
    try:
        yield
    except BrokenPipeError:  # no one is left to tell
        raise
    except mendable as error:
        raise UserError(error) from None


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Warnings as lines of the command, without the place in the code that they come from."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: print(
            f"ekmfast: warning: {message}", file=sys.stderr
        )
        yield
