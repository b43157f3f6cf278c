"""Suppress warnings about facts that the report describes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_convergence_warnings() -> Iterator[None]:
    """Suppress warnings of fits whose centroids coincide or did not converge."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
