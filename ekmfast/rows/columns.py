"""Checks of input that is no plain array of numbers: column names, dates, text, masks, sparsity."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import _get_feature_names

# How many names of a list an error shows.
SHOWN = 5
# Names of dtypes of pandas, polars and Arrow that np.asarray converts to counts of days or
# nanoseconds.
DATES = re.compile("date|time|duration|period", re.IGNORECASE)
AS_NUMBERS = "drop it, or take seconds or days from a fixed date, as floats"


def check_names(names: Sequence[str] | None, fitted: Sequence[str] | None, estimator: str) -> None:
    """Refuse names that differ from those of the fit, and warn if only one of both has names.

    The messages are those of scikit-learn, so that they are the same for frames, which scikit-learn
    checks, and for blocks of frames.
    """
    if names is None and fitted is None:
        return
    if fitted is None:
        warnings.warn(
            f"X has feature names, but {estimator} was fitted without feature names", stacklevel=4
        )
        return
    if names is None:
        warnings.warn(
            f"X does not have valid feature names, but {estimator} was fitted with feature names",
            stacklevel=4,
        )
        return
    if list(names) == list(fitted):
        return
    message = "The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
    if unseen:
        message += f"Feature names unseen at fit time:\n{_listed(unseen)}"
    if missing:
        message += f"Feature names seen at fit time, yet now missing:\n{_listed(missing)}"
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)


def _listed(names: Sequence[str]) -> str:
    lines = [f"- {name}\n" for name in names[:SHOWN]]
    return "".join(lines + ["- ...\n"] * (len(names) > SHOWN))


def check_kind(X: Any, name: str = "X", *, sparse: bool = False) -> None:
    """Refuse input that cannot become an array of numbers without loss or with a clear error.

    Raises
    ------
    TypeError
        For sparse matrices, unless ``sparse`` is True, and for dates, naming the column.
    ValueError
        For masked arrays with masked entries.
    """
    if issparse(X):
        if sparse:
            return
        dense = X.shape[0] * X.shape[1] * 8 / 2**30
        size = f"{dense:.3g} GiB" if dense >= 0.01 else "less than 0.01 GiB"
        raise TypeError(
            f"{name} is a sparse matrix, but dense data is required: take an estimator that reads "
            "sparse rows, such as EKMeans, reduce them to their leading components first, with "
            f"make_pipeline(TruncatedSVD(50), ...), or take {name}.toarray(), {size}, where memory "
            "has room for it"
        )
    check_unmasked(X, name)
    if getattr(getattr(X, "dtype", None), "kind", "") in ("M", "m"):
        raise TypeError(f"{name} must hold numbers, got {X.dtype}: {AS_NUMBERS}")
    if _is_frame(X) and any(DATES.match(str(dtype)) for dtype in set(X.dtypes)):
        for column, values in _columns(X):
            if DATES.match(str(values.dtype)):
                raise TypeError(
                    f"{name} must hold numbers, its column {column!r} holds {values.dtype}: "
                    f"{AS_NUMBERS}"
                )


def check_unmasked(values: Any, name: str) -> None:
    """Refuse masked entries: conversion to an array would use the values under the mask."""
    if np.ma.is_masked(values):
        n_masked = np.count_nonzero(np.ma.getmaskarray(values))
        raise ValueError(f"{name} has {n_masked} masked entries: drop their rows, or fill them")


def explain_column(X: Any, error: Exception, name: str = "X") -> None:
    """Raise an error for the first column of a frame without numbers; return if there is none."""
    for column, values in _columns(X):
        array = np.asarray(values)
        if array.dtype.kind in "biuf":
            continue
        first = next((value for value in array if _is_no_number(value)), None)
        if first is not None:
            first = first.item() if isinstance(first, np.generic) else first
            raise kind_of(error)(
                f"{name} must hold numbers, its column {column!r} holds {values.dtype}, such as "
                f"{first!r}: drop it, or encode it, e.g. with sklearn.preprocessing.OneHotEncoder"
            ) from error


def kind_of(error: Exception) -> type[Exception]:
    """ValueError or TypeError, for an error that is raised again with a longer message."""
    return ValueError if isinstance(error, ValueError) else TypeError


def _is_no_number(value: Any) -> bool:
    if value is None or type(value).__name__ == "NAType":  # missing values have another error
        return False
    if isinstance(value, (complex, np.complexfloating)):
        return True
    try:
        float(value)
    except (TypeError, ValueError):
        return True
    return False


def names_unknown_to_sklearn(X: Any) -> list[str] | None:
    """Column names that scikit-learn does not find: those of polars frames, up to version 1.6."""
    if not _is_frame(X) or _get_feature_names(X) is not None:
        return None
    names = list(X.columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def _is_frame(X: Any) -> bool:
    return (hasattr(X, "iloc") and hasattr(X, "columns")) or hasattr(X, "get_columns")


def _columns(X: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the names and columns of a frame of pandas or polars; nothing for other input."""
    if _is_frame(X):
        yield from X.items() if hasattr(X, "iloc") else zip(X.columns, X.get_columns(), strict=True)
