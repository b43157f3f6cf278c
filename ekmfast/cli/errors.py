"""Print warnings, and errors that the user can correct, as one line without a traceback."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

USER_ERRORS = (ImportError, OSError, ValueError, MemoryError)


class UserError(Exception):
    """Wraps an error that the program prints as one line, without its traceback."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def errors_in_one_line(*further: type[Exception]) -> Iterator[None]:
    """Raise `UserError` instead of errors of the types `USER_ERRORS` and ``further``."""
    caught: tuple[type[Exception], ...] = (*USER_ERRORS, *further)
    try:
        yield
    except BrokenPipeError:  # an OSError, but not an error of the user
        raise
    except caught as error:
        raise UserError(error) from None


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print each warning as one line, without the place in the code that raised it."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: print(
            f"ekmfast: warning: {message}", file=sys.stderr
        )
        yield
