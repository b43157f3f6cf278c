"""Read tables of numbers from files, with errors that name the file, the line and the column."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import warnings
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import open_input
from ekmfast._parameters import PATH

# Missing values, in lower case, as R, pandas, databases and spreadsheets write them. Errors of
# spreadsheets count as missing too.
MISSING = frozenset(
    {"", "?", "-", "--", ".", "na", "n/a", "<na>", "nan", "none", "null"}
    | {"#n/a", "#na", "#div/0!", "#num!", "#value!", "#ref!"}
)
# Columns and arrays that the command `encode` writes in addition to the codes.
BESIDE_CODES = ("path", "label", "membership")
LEAVE_OUT = "leave out such rows, fill them, or say --missing partial"
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")


def read_table(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    header: bool | None = None,
    missing: bool = False,
) -> tuple[NDArray[Any], list[str]]:
    """Read a table of finite numbers, of which some may be missing.

    Without ``columns``, columns that are no features are left out with a warning: an unnamed first
    column that counts the rows from 0 or 1, as pandas and R write it, and the paths, labels and
    memberships that the command ``encode`` writes in addition to codes.

    Parameters
    ----------
    path : str or os.PathLike
        ``.npy``; ``.npz`` with one array, or one named X or codes; otherwise text in UTF-8 (or
        UTF-16 with a byte order mark) with commas, semicolons or tabs between cells, with or
        without a line of names. Text is read once from beginning to end, so it may come through a
        pipe.
    columns : sequence of str, default=None
        Names of the columns to read, or their numbers from 0, in the order of the result; None for
        all.
    header : bool, default=None
        Whether the text begins with a line of names. None decides by the contents of the first two
        lines. A line of numbers is then never taken as names, and a warning is given if it might
        be names (0, 1, 2 or years), or if a line that is taken as names might be data.
    missing : bool, default=False
        Whether values may be missing: empty cells, NaN, NA and the like are then read as NaN.

    Returns
    -------
    X : ndarray of shape (N, D)
        float32 and float64 are kept; other types become float64.
    names : list of D str
        Names of the columns, or their numbers if the file has no names.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a table of finite numbers from beginning to end, or lacks a column. The
        message names the file and the line or row.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from ekmfast.data.tables import read_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "data.csv")
    ...     _ = path.write_text("name,height,weight\\nann,1.7,60\\nbob,1.8,80\\n")
    ...     X, names = read_table(path, ["weight", "height"])
    >>> X.tolist(), names
    ([[60.0, 1.7], [80.0, 1.8]], ['weight', 'height'])
    """
    path = PATH.check("path", path)
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            if header is not None:
                raise ValueError("only text has a line of names: leave header out")
            X, names = _read_array(path, columns, missing)
        else:
            X, names = _read_text(path, columns, header, missing)
        if not len(X):
            raise ValueError("no rows")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not text in UTF-8 or UTF-16") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return X, names


def _read_array(
    path: Path, columns: Sequence[str] | None, missing: bool
) -> tuple[NDArray[Any], list[str]]:
    # The file stays open, since an array of an .npz file is read only when it is accessed.
    with open(path, "rb") as file:
        unclear: list[str] | None = None  # names of arrays, if it is unclear which one to read
        left_out: list[str] = []
        try:
            content: Any = np.load(file, allow_pickle=False)
            if isinstance(content, np.lib.npyio.NpzFile):
                arrays = content.files
                name = arrays[0] if len(arrays) == 1 else "X" if "X" in arrays else "codes"
                if name in arrays:
                    content, left_out = content[name], sorted({*arrays} - {name})
                else:
                    unclear = arrays
        # numpy and zipfile raise errors of many types for damaged files.
        except Exception as error:
            why = "it holds Python objects" if "pickle" in str(error) else error
            raise ValueError(f"not a whole NumPy file of numbers: {why}") from None
    if unclear is not None:
        raise ValueError(f"holds the arrays {_listed(unclear)}: must be one, or X, or codes")
    if left_out and name == "codes":
        warnings.warn(
            f"{path}: the array {name} is read, {_listed(left_out)} left out", stacklevel=4
        )
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
    bad = ~np.isfinite(array) & ~(np.isnan(array) & missing)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        value = array[row, column]
        raise ValueError(f"row {row}, column {names[column]!r}: {value} is not a finite number")
    return np.ascontiguousarray(array), names


def _read_text(
    path: Path, columns: Sequence[str] | None, header: bool | None, missing: bool
) -> tuple[NDArray[Any], list[str]]:
    with open_input(path) as file:
        start = file.peek(8)
        if start.startswith(b"\x93NUMPY"):
            raise ValueError("is a NumPy file: its name must end in .npy")
        is_utf_16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "utf-16" if is_utf_16 else "utf-8-sig"
        # Invalid bytes are decoded to surrogates and found in `_lines`, since an error of the
        # decoder would not name the line.
        text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
        return _read_lines(path, _lines(text), columns, header, missing)


def _read_lines(
    path: Path,
    lines: Iterator[str],
    columns: Sequence[str] | None,
    header: bool | None,
    missing: bool,
) -> tuple[NDArray[Any], list[str]]:
    head = _first_record(lines)
    delimiter = _delimiter(head)
    records = _records(chain(head, lines), delimiter)
    first, second = next(records, None), next(records, None)
    if first is None:
        raise ValueError("no rows")
    names, below = ([cell.strip() for cell in cells] for _, cells in (first, second or first))
    doubtful = False
    if header is None:
        header = _is_header(names, below)
        doubtful = header and second is not None and _looks_like_data(names, below)
        if not header and second is not None and _looks_like_names(names, below):
            warnings.warn(
                f"{path}: line {first[0]} ({_listed(names)}) is read as a row of data; if it holds "
                "names, say --header (if not, --no-header)",
                stacklevel=5,
            )
    taken = _listed(names)
    unnamed = header and names[0] in ("", "Unnamed: 0")
    names = [name if header and name else str(i) for i, name in enumerate(names)]
    chosen = None if columns is None else _choose(names, columns)
    if columns is None and header and (codes := _codes(names)):
        left_out = [name for name in names if name in BESIDE_CODES]
        warnings.warn(f"{path}: the columns {_listed(left_out)} are left out", stacklevel=5)
        chosen, unnamed = codes, False

    rows = chain([] if header else [first], [] if second is None else [second], records)
    values, at = array("d"), array("q")
    for line, cells in rows:
        if len(cells) != len(names):
            hint = "; comments are not skipped" if first[1][0].startswith("#") else ""
            raise ValueError(f"line {line} has {len(cells)} cells: must be {len(names)}{hint}")
        read = cells if chosen is None else [cells[i] for i in chosen]
        if missing:
            read = ["nan" if cell.strip().lower() in MISSING else cell for cell in read]
        try:
            values.extend(map(float, read))
            if "_" in "".join(read):  # float() accepts it
                raise ValueError
        except ValueError:
            raise ValueError(_explain(line, names, cells, chosen, missing)) from None
        at.append(line)
    if chosen is not None:
        names = [names[i] for i in chosen]
    X = np.frombuffer(values, np.float64).reshape(len(at), len(names))
    bad = ~np.isfinite(X) & ~(np.isnan(X) & missing)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        value = X[row, column]
        what = f"{value} is not a finite number"
        if np.isnan(value):
            what = f"the value is missing; {LEAVE_OUT}"
        raise ValueError(f"line {at[row]}, column {names[column]!r}: {what}")
    if doubtful:
        warnings.warn(
            f"{path}: line {first[0]} ({taken}) is taken as names; if it is a row of data, say "
            "--no-header (if not, --header)",
            stacklevel=5,
        )
    if header and columns is None and len(at) and len(names) > 1:
        # Row numbers are no feature, but other integers, and what has a name, may be one.
        first_column, counted = X[:, 0], _counts_rows(X[:, 0])
        if unnamed and counted:
            X, names = np.ascontiguousarray(X[:, 1:]), names[1:]
            what = "unnamed, counts the rows and is left out."
        elif unnamed and (first_column % 1 == 0).all():
            what = "unnamed, is read; is it an index?"
        elif counted and len(at) > 2:
            what = f"{names[0]!r}, counts the rows and is read; is it an index?"
        else:
            return X, names
        warnings.warn(
            f"{path}: the first column, {what} Choose with --columns",
            stacklevel=5,
        )
    return X, names


def _lines(text: TextIO) -> Iterator[str]:
    for number, line in enumerate(text, 1):
        if "\0" in line:
            raise ValueError(f"line {number} holds a NUL byte: not text")
        if not line.isascii() and any("\udc80" <= character <= "\udcff" for character in line):
            raise ValueError(f"line {number}: not text in UTF-8")
        yield line


def _first_record(lines: Iterator[str]) -> list[str]:
    """The lines of the first record that is not blank; quoted names may contain line breaks."""
    head, quotes = [], 0
    for line in lines:
        head.append(line)
        quotes += line.count('"')
        if line.strip() and quotes % 2 == 0:
            break
    return head


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield, for each row that is not blank, the number of its first line, and its cells."""
    last = ""

    def remembered(line: str) -> str:
        nonlocal last
        last = line
        return line

    reader = csv.reader(
        map(remembered, lines), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # An open quote makes the reader report the end of data, or too large a field.
            is_open = reader.line_num > line or "end of data" in str(error)
            why = "a quote is not closed" if is_open else str(error)
            raise ValueError(f"line {line}: {why}") from None
        if cells is None:
            return
        if cells and not (len(cells) == 1 and last.isspace()):  # a quoted "" is a missing value
            yield line, cells


def _delimiter(head: list[str]) -> str:
    cells = {
        d: next(filter(None, csv.reader(head, delimiter=d, skipinitialspace=True)), [])
        for d in ",;\t"
    }
    for delimiter in ";\t":
        words = [cell.strip() for cell in cells[delimiter]]
        if len(words) > 1 and all(_is_number(w) or DECIMAL_COMMA.fullmatch(w) for w in words):
            return delimiter  # any commas are decimal commas
    return max(cells, key=lambda d: len(cells[d]))


def _codes(names: list[str]) -> list[int]:
    """Indices of the columns of codes if the command ``encode`` wrote the table; else none."""
    first = next((i for i, name in enumerate(names) if name not in BESIDE_CODES), 0)
    is_ours = first and names[first:] == [f"z{i}" for i in range(len(names) - first)]
    return list(range(first, len(names))) if is_ours else []


def _counts_rows(column: NDArray[np.float64]) -> bool:
    return column[0] in (0, 1) and bool((column == np.arange(len(column)) + column[0]).all())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # float() accepts it


def _is_header(first: list[str], second: list[str]) -> bool:
    """Whether the first line has a word above a number, or has only words."""
    numeric = [_is_number(c) or bool(DECIMAL_COMMA.fullmatch(c)) for c in first]
    words = _words(first)
    # The column of an index has no name; the names of the other columns may be integers.
    index = (
        len(first) > 1
        and not first[0]
        and all(word or c.isdigit() for word, c in zip(words[1:], first[1:], strict=True))
        and _is_number(second[0])
    )
    return _is_above_numbers(words, second) or index or (any(words) and not any(numeric))


def _looks_like_data(first: list[str], second: list[str]) -> bool:
    """Whether a line that is taken as names may be data, as some cells are numbers or missing.

    Integers in a line with words do not count, nor 0, 1, 2, ..., which pandas uses as names.
    """
    words = _words(first)
    lettered = [any(map(str.isalpha, cell)) for cell in first]
    odd = [
        cell
        for cell, word, letters in zip(first, words, lettered, strict=True)
        if cell and not (word and letters) and cell.lower() not in MISSING
    ]
    named = any(word and letters for word, letters in zip(words, lettered, strict=True))
    if not (named and all(map(str.isdigit, odd))) and odd != [str(i) for i in range(len(odd))]:
        return True
    missing = any(cell.lower() in MISSING for cell in (first if first[0] else first[1:]))
    return missing and not _is_above_numbers(words, second)


def _words(cells: list[str]) -> list[bool]:
    """Mask of the cells that are neither numbers nor missing values."""
    return [
        not (_is_number(c) or DECIMAL_COMMA.fullmatch(c) or c.lower() in MISSING) for c in cells
    ]


def _is_above_numbers(words: list[bool], second: list[str]) -> bool:
    return any(word and _is_number(cell) for word, cell in zip(words, second, strict=False))


def _looks_like_names(first: list[str], second: list[str]) -> bool:
    """Whether a line of numbers may be names (0, 1, 2 or years), and the next line may not."""

    def steps(cells: list[str]) -> set[int]:
        return {b - a for a, b in pairwise(map(int, cells))}

    def whole(cells: list[str]) -> bool:
        return all(cell.isascii() and cell.isdigit() for cell in cells)

    def years(cells: list[str]) -> bool:
        return whole(cells) and all(1900 <= int(cell) <= 2100 for cell in cells)

    if not whole(first):
        return False
    if len(first) == 1:
        return first == ["0"] and not whole(second)
    if years(first) and min(steps(first)) > 0:
        return not years(second)
    return steps(first) == {1} and not (whole(second) and steps(second) == {1})


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
    line: int, names: list[str], cells: list[str], chosen: list[int] | None, missing: bool
) -> str:
    """Error message for the first cell that is not a number."""
    for i in range(len(cells)) if chosen is None else chosen:
        cell = cells[i].strip()
        where = f"line {line}, column {names[i]!r}"
        if cell.lower() in MISSING:
            if missing:
                continue
            return f"{where}: the value is missing ({cell!r}); {LEAVE_OUT}"
        if DECIMAL_COMMA.fullmatch(cell):
            return f"{where}: {cell!r} has a decimal comma; it must be a point"
        if not _is_number(cell):
            hint = "choose others with --columns"
            if len(names) == 1 and all(map(_is_number, cell.split())):
                hint = "cells are parted by commas, semicolons or tabs"
            return f"{where}: {cell!r:.60} is not a number; {hint}"
    raise AssertionError(cells)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
