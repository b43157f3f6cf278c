"""Frames and tables of other libraries: their numbers as arrays, and the names of their columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse


def _labels(X: Any) -> list[Any] | None:
    """The names of the columns of a frame or an Arrow table; None for an array."""
    labels = getattr(X, "column_names", None)
    if labels is None:
        labels = getattr(X, "columns", None)
    return None if labels is None else list(labels)


def column_names(X: Any) -> list[str] | None:
    """Names of the columns; None if there are none or they are not strings."""
    labels = _labels(X)
    return labels if labels and all(isinstance(label, str) for label in labels) else None


def matrix(X: Any, name: str) -> NDArray[Any]:
    """X as an array of numbers; an error names the column of a frame that holds no numbers."""
    if np.ma.is_masked(X):
        raise ValueError(f"{name}: holds masked values; leave their rows out")
    if issparse(X):
        raise TypeError(
            f"{name}: is a sparse matrix, but blocks must be dense: give the estimator one CSR "
            "matrix of all rows, or take a dense array of each block"
        )
    labels = _labels(X)
    if labels is not None:
        # Each column is checked, since some frames convert a date beside numbers to a number.
        columns = [
            X.iloc[:, j] if hasattr(X, "iloc") else X[label] for j, label in enumerate(labels)
        ]
        for label, column in zip(labels, columns, strict=True):
            if numbers(column[:0]).dtype.kind not in "biuf":
                kind = getattr(column, "dtype", getattr(column, "type", "something else"))
                raise TypeError(f"{name}: column {label!r} must hold numbers, it holds {kind}")
    array = np.asarray(X)
    if array.dtype.kind in "biuf":
        return array
    if not labels:
        raise TypeError(f"{name}: expected numbers, got dtype {array.dtype}")
    return np.column_stack([numbers(column) for column in columns])


def numbers(values: Any) -> NDArray[Any]:
    """A column as an array. Missing values become NaN, which later checks refuse."""
    if np.ma.isMaskedArray(values):
        return np.ma.filled(values.astype(np.float64), np.nan)
    array = np.asarray(values)
    if array.dtype.kind == "O" and getattr(getattr(values, "dtype", None), "kind", "O") in "biuf":
        array = values.to_numpy(np.float64, na_value=np.nan)
    return array
