"""Checks of input that is no plain array of numbers: column names, dates, text, masks, sparsity."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from ekmfast._arguments import shown

# How many names of a list an error shows.
SHOWN = 5
# Names of dtypes of pandas, polars and Arrow that np.asarray converts to counts of days or
# nanoseconds.
DATES = re.compile("date|time|duration|period", re.IGNORECASE)


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


def check_kind(X: Any, name: str = "X") -> None:
    """Refuse input that cannot become an array of numbers without loss or with a clear error.

    Raises
    ------
    TypeError
        For dates and for text, naming the column of a table, and for what is no array, such as a
        path or a generator.
    ValueError
        For masked arrays with masked entries, and for a table without columns.
    """
    if is_sparse(X):
        return
    if type(X).__name__ == "LazyFrame":  # of polars, which warns if it is asked for its columns
        raise TypeError(f"{name} is a LazyFrame: give {name}.collect()")
    if X is None or isinstance(X, (str, bytes, os.PathLike, Mapping, Set, Iterator)):
        raise TypeError(
            f"{name} must be an array or a table of numbers, not a path or an iterator, got "
            f"{shown(X)}"
        )
    check_unmasked(X, name)
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    if kind in ("M", "m", "U", "S"):
        raise TypeError(f"{name} must hold numbers, got {X.dtype}: {remedy(X.dtype)}")
    check_columns(X, name)


def is_sparse(X: Any) -> bool:
    """Whether X is sparse; SciPy is not imported for that, which `import ekmfast` does not need."""
    scipy_sparse = sys.modules.get("scipy.sparse")
    return scipy_sparse is not None and bool(scipy_sparse.issparse(X))


def check_unmasked(values: Any, name: str) -> None:
    """Refuse masked entries: conversion to an array would use the values under the mask."""
    if np.ma.is_masked(values):
        n_masked = np.count_nonzero(np.ma.getmaskarray(values))
        raise ValueError(f"{name} has {n_masked} masked entries: drop their rows, or fill them")


def check_columns(X: Any, name: str) -> None:
    """Refuse a table with a column that holds no numbers, or with two columns of one name.

    Text is refused even where it could be read as a number. Missing entries have another error.
    """
    labels = labels_of(X)
    if labels is None:
        return
    if not labels:
        raise ValueError(f"{name}: has no columns")
    if len(set(labels)) < len(labels):
        twice = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise ValueError(f"{name}: has more than one column {twice!r}")
    dtypes = getattr(X, "dtypes", None)  # of pandas, one for each column
    if dtypes is not None and {getattr(dtype, "kind", None) for dtype in dtypes} <= set("biuf"):
        return
    for label, values in zip(labels, columns_of(X), strict=True):
        said = str(getattr(values, "dtype", getattr(values, "type", "something else")))
        if DATES.match(said):
            example = ""
        elif np.asarray(values[:0]).dtype.kind in "biuf":
            continue
        else:
            entries = np.asarray(values)
            first = next((value for value in entries if _is_no_number(value)), None)
            # Without rows, objects may be anything.
            if first is None and (len(entries) or said == "object"):
                continue
            first = first.item() if isinstance(first, np.generic) else first
            example = "" if first is None else f", such as {first!r}"
        raise TypeError(
            f"{name}: column {label!r} must hold numbers, it holds {said}{example}: {remedy(said)}"
        )


def remedy(dtype: Any) -> str:
    """What can be done about a column of this dtype."""
    if DATES.match(str(dtype)):
        return "drop it, or take seconds or days from a fixed date, as floats"
    if str(dtype).startswith("complex"):
        return "drop it, or take its real and its imaginary part"
    return "drop it, encode it, e.g. with sklearn.preprocessing.OneHotEncoder, or convert it"


def kind_of(error: Exception) -> type[Exception]:
    """ValueError or TypeError, for an error that is raised again with a longer message."""
    return ValueError if isinstance(error, ValueError) else TypeError


def _is_no_number(value: Any) -> bool:
    if value is None or type(value).__name__ == "NAType":  # missing values have another error
        return False
    if isinstance(value, (complex, np.complexfloating, str, bytes)):
        return True
    try:
        float(value)
    except (TypeError, ValueError):
        return True
    return False


def names_unknown_to_sklearn(X: Any) -> list[str] | None:
    """Column names that scikit-learn does not find: those of polars frames, up to version 1.6."""
    from sklearn.utils.validation import _get_feature_names  # likewise

    if not hasattr(X, "columns") or _get_feature_names(X) is not None:
        return None
    return column_names(X)


def labels_of(X: Any) -> list[Any] | None:
    """The names of the columns of a frame or an Arrow table; None for other input."""
    labels = getattr(X, "column_names", None)
    if labels is None:
        labels = getattr(X, "columns", None)
    return None if labels is None else list(labels)


def column_names(X: Any) -> list[str] | None:
    """Names of the columns; None if there are none or they are not strings."""
    labels = labels_of(X)
    return labels if labels and all(isinstance(label, str) for label in labels) else None


def columns_of(X: Any) -> list[Any]:
    """The columns of a frame or an Arrow table, in order."""
    if hasattr(X, "iloc"):
        return [X.iloc[:, j] for j in range(len(X.columns))]
    return [X[label] for label in labels_of(X) or ()]
