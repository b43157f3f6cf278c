"""Tables of numbers from files, with errors that name the file, the line and the column."""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = frozenset({"", "?", "na", "n/a", "nan", "none", "null"})


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None
) -> tuple[NDArray[Any], list[str]]:
    """Read a table of finite numbers.

    Parameters
    ----------
    path : str or os.PathLike
        ``.npy``; ``.npz`` with one array, or one named X; otherwise text in UTF-8 with commas,
        semicolons or tabs between cells, with or without a line of names.
    columns : sequence of str, default=None
        Names, or numbers from 0, of the columns to read, in this order; None for all.

    Returns
    -------
    X : ndarray of shape (N, D)
        float32 and float64 are kept, others become float64.
    names : list of D str
        Names of the columns; their numbers where the file has none.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a table of finite numbers, or lacks a column.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from ekmfast._tables import read_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "data.csv")
    ...     _ = path.write_text("name,height,weight\\nann,1.7,60\\nbob,1.8,80\\n")
    ...     X, names = read_table(path, ["weight", "height"])
    >>> X.tolist(), names
    ([[60.0, 1.7], [80.0, 1.8]], ['weight', 'height'])
    """
    path = Path(path)
    try:
        is_array = path.suffix.lower() in (".npy", ".npz")
        X, names = (_read_array if is_array else _read_text)(path, columns)
        if not len(X):
            raise ValueError("no rows")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not text in UTF-8") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    return X, names


def _read_array(path: Path, columns: Sequence[str] | None) -> tuple[NDArray[Any], list[str]]:
    # Open until the end, as an .npz is read only when its arrays are asked for.
    with open(path, "rb") as file:
        found: list[str] | None = None
        try:
            content: Any = np.load(file, allow_pickle=False)
            if isinstance(content, np.lib.npyio.NpzFile):
                found = content.files
                if len(found) == 1 or "X" in found:
                    content, found = content["X" if "X" in found else found[0]], None
        # On damaged files numpy and zipfile raise what they happen to meet.
        except Exception as error:
            raise ValueError(f"not a whole NumPy file of numbers: {error}") from None
    if found is not None:
        raise ValueError(f"holds the arrays {_listed(found)}: must be one, or X")
    array = np.asarray(content)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(f"has shape {array.shape}: must be (rows, columns)")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"has dtype {array.dtype}: must be of numbers")
    names = [str(i) for i in range(array.shape[1])]
    if columns is not None:
        chosen = _choose(names, columns)
        array, names = array[:, chosen], [names[i] for i in chosen]
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        value = array[row, column]
        raise ValueError(f"row {row}, column {names[column]!r}: {value} is not a finite number")
    return np.ascontiguousarray(array), names


def _read_text(path: Path, columns: Sequence[str] | None) -> tuple[NDArray[Any], list[str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = []
        blank = 0
        for line in file:
            if line.strip():
                lines.append(line)
                if len(lines) == 2:
                    break
            elif not lines:
                blank += 1
    if not lines:
        raise ValueError("no rows")
    delimiter = max(",;\t", key=lambda d: len(_cells(lines[0], d)))
    first, second = _cells(lines[0], delimiter), _cells(lines[-1], delimiter)
    has_header = _is_header(first, second)
    names = [cell.strip() or str(i) for i, cell in enumerate(first)]
    if not has_header:
        names = [str(i) for i in range(len(first))]
    chosen = None if columns is None else _choose(names, columns)
    skip = blank + has_header
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input contained no data")
            X = np.loadtxt(
                path,
                delimiter=delimiter,
                skiprows=skip,
                usecols=chosen,
                quotechar='"',
                comments=None,
                encoding="utf-8-sig",
                ndmin=2,
            )
    except ValueError as error:
        raise ValueError(_explain(path, delimiter, skip, names, chosen) or str(error)) from None
    if len(X) and ((chosen is None and X.shape[1] != len(names)) or not np.isfinite(X).all()):
        raise ValueError(_explain(path, delimiter, skip, names, chosen))
    return X, names if chosen is None else [names[i] for i in chosen]


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python's literals allow


def _is_header(first: list[str], second: list[str]) -> bool:
    """Whether the first line holds words where the second holds numbers, or words alone."""
    words = [not _is_number(cell) and cell.strip().lower() not in MISSING for cell in first]
    above = any(word and _is_number(cell) for word, cell in zip(words, second, strict=False))
    return above or not any(_is_number(cell) for cell in first)


def _choose(names: list[str], columns: Sequence[str]) -> list[int]:
    chosen = []
    for column in columns:
        if names.count(column) > 1:
            raise ValueError(f"more than one column {column!r}: give its number, from 0")
        if column in names:
            chosen.append(names.index(column))
        elif column.isascii() and column.isdigit() and int(column) < len(names):
            chosen.append(int(column))
        else:
            raise ValueError(f"no column {column!r}: there are {_listed(names)}")
    return chosen


def _explain(
    path: Path, delimiter: str, skip: int, names: list[str], chosen: list[int] | None
) -> str | None:
    """What is wrong with the first cell that is not a finite number."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        for _ in range(skip):
            next(file)
        reader = csv.reader(file, delimiter=delimiter)
        for cells in filter(None, reader):
            line = f"line {skip + reader.line_num}"
            if len(cells) != len(names):
                return f"{line} has {len(cells)} cells: must be {len(names)}"
            for i in range(len(cells)) if chosen is None else chosen:
                cell = cells[i].strip()
                where = f"{line}, column {names[i]!r}"
                if cell.lower() in MISSING:
                    return f"{where}: the value is missing ({cell!r})"
                if not _is_number(cell):
                    return f"{where}: {cell!r:.60} is not a number; choose others with --columns"
                if not math.isfinite(float(cell)):
                    return f"{where}: {cell} is not a finite number"
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
