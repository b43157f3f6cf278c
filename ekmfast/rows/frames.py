"""Frames and tables of other libraries as arrays of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.columns import check_columns, check_unmasked, columns_of, is_sparse, remedy


def matrix(X: Any, name: str) -> NDArray[Any]:
    """X as an array of numbers; an error names the column of a frame that holds no numbers."""
    if is_sparse(X):
        raise TypeError(
            f"{name}: is a sparse matrix, but blocks must be dense: give the estimator one CSR "
            "matrix of all rows, or take a dense array of each block"
        )
    check_unmasked(X, name)
    check_columns(X, name)
    array = np.asarray(X)
    if array.dtype.kind in "biuf":
        return array
    columns = columns_of(X)
    if not columns:
        raise TypeError(f"{name}: expected numbers, got dtype {array.dtype}: {remedy(array.dtype)}")
    return np.column_stack([numbers(column) for column in columns])


def numbers(values: Any) -> NDArray[Any]:
    """A column as an array. Missing values become NaN, which later checks refuse."""
    if np.ma.isMaskedArray(values):
        return np.ma.filled(values.astype(np.float64), np.nan)
    array = np.asarray(values)
    if array.dtype.kind == "O" and getattr(getattr(values, "dtype", None), "kind", "O") in "biuf":
        array = values.to_numpy(np.float64, na_value=np.nan)
    return array
