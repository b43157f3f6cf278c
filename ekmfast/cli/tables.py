"""Read the table for the commands ``cluster`` and ``path``."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from ekmfast.cli.arguments import count, count_or_auto, seed


def add_arguments(parser: argparse.ArgumentParser, *, auto: bool = False) -> None:
    """Add the arguments that ``cluster`` and ``path`` share; ``auto``: K may be searched for."""
    parser.add_argument(
        "data",
        type=lambda text: Path("/dev/stdin" if text == "-" else text),
        metavar="DATA",
        help=".npy, .npz, or text with one line for each sample (.csv); - for text from stdin",
    )
    parser.add_argument(
        "--clusters",
        type=count_or_auto if auto else count,
        required=True,
        metavar="K",
        help="a number, or auto to search for it" if auto else None,
    )
    parser.add_argument(
        "--columns", metavar="A,B", help="names, or numbers from 0, of the columns; default: all"
    )
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of text holds names; default: decided by its contents",
    )
    parser.add_argument(
        "--standardize", action="store_true", help="scale columns to mean 0, standard deviation 1"
    )
    parser.add_argument(
        "--metric",
        choices=["euclidean", "cosine"],
        default="euclidean",
        help="how rows are compared: by distances, or by their directions; default: %(default)s",
    )
    parser.add_argument(
        "--zero-rows",
        choices=["error", "label"],
        default="error",
        help="what --metric cosine does with rows of zeros: stop, or leave them out and label them "
        "-1; default: %(default)s",
    )
    parser.add_argument(
        "--missing",
        choices=["error", "partial"],
        default="error",
        help="what to do if values are missing: stop, or compare rows by the values that they "
        "have; default: %(default)s",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="default: %(default)s")


def rows_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parameters of estimators that say what rows may be and how they are compared."""
    return {name: getattr(arguments, name) for name in ("metric", "zero_rows", "missing")}


def check_rows_options(arguments: argparse.Namespace) -> None:
    """Refuse options of rows that have no effect, or no meaning, with the metric."""
    for name, value, metric in (
        ("zero_rows", "label", "cosine"),
        ("missing", "partial", "euclidean"),
    ):
        if getattr(arguments, name) == value and arguments.metric != metric:
            option = name.replace("_", "-")
            raise argparse.ArgumentError(
                None, f"--{option} {value} is an option of --metric {metric} only"
            )


def read(arguments: argparse.Namespace) -> tuple[Any, list[str], Any]:
    """The rows, the names of their columns, and the fitted scaler, or None."""
    from ekmfast.data.tables import read_table

    columns = None
    if arguments.columns is not None:
        columns = next(csv.reader([arguments.columns], skipinitialspace=True)) or [""]
    missing = arguments.missing == "partial"
    X, names = read_table(arguments.data, columns, header=arguments.header, missing=missing)
    if arguments.clusters != "auto" and len(X) < arguments.clusters:
        raise ValueError(f"{arguments.data}: {len(X)} rows, fewer than --clusters")
    there = (X == X).any(axis=0)  # NaN differs from itself
    if not there.all():
        name = names[int(there.argmin())]
        raise ValueError(f"{arguments.data}, column {name!r}: all values are missing")
    scaler = None
    if arguments.standardize:
        X, scaler = _standardized(X, names, arguments.data)
    if arguments.metric == "cosine":
        _check_directions(X, arguments)
    return X, names, scaler


def _check_directions(X: Any, arguments: argparse.Namespace) -> None:
    """Refuse rows of zeros, which have no direction, as the options say."""
    zero = ~X.any(axis=1)
    scaled = " once standardized" if arguments.standardize else ""
    if zero.all():
        raise ValueError(
            f"{arguments.data}: --metric cosine needs a row that is not zero, as zeros have no "
            f"direction: all are zero{scaled}"
        )
    if zero.any() and arguments.zero_rows == "error":
        raise ValueError(
            f"{arguments.data}: row {zero.argmax()} is zero{scaled}, and zeros have no direction: "
            "leave out such rows, or say --zero-rows label"
        )


def _standardized(X: Any, names: list[str], data: Path) -> tuple[Any, Any]:
    """The rows with columns of mean 0 and standard deviation 1, and the fitted scaler."""
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    with np.errstate(over="ignore", invalid="ignore"):
        scaler.fit(X)
    # Check var_ and not scale_, which is 1 where var_ is infinite.
    usable = np.isfinite(scaler.mean_) & np.isfinite(scaler.var_)
    if not usable.all():
        name = names[int(usable.argmin())]
        raise ValueError(f"{data}, column {name!r}: values too large to standardize")
    return scaler.transform(X), scaler
