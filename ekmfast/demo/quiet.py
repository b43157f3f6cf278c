"""Warnings that the report tells in its own words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_convergence_warnings() -> Iterator[None]:
    """Say nothing of centroids that coincide or have not settled."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
