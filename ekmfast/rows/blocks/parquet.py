"""Blocks of a Parquet file or of a folder of Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ekmfast._parameters import PATH
from ekmfast.rows.blocks.block import Allocate, Blocks, _block_rows

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")


def _parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder; raises an error if files in subfolders would be ignored."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in PARQUET_SUFFIXES]
    files = sorted(path for path in found if path.parent == folder and not path.is_dir())
    below = sorted(path for path in found if path.parent != folder and not path.is_dir())
    if below:
        raise ValueError(
            f"{folder}: {below[0]} and other files in subfolders ({len(below):,} files) would be "
            "left out: name one folder of files"
        )
    if not files:
        raise ValueError(f"{folder}: holds no .parquet file")
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: a link to a file that does not exist")
    return files


def from_parquet(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    sample_weight: str | None = None,
    block_rows: int | None = None,
) -> Blocks:
    """Blocks of a Parquet file or of a folder of them; only ``columns`` are read.

    Parameters
    ----------
    path : path
        In a folder, all files that end in .parquet, .parq or .pq, in upper or lower case, are read
        in the order of their names.
    columns : sequence of str, default=None
        The features; None for all columns of the first file except ``sample_weight`` and an index
        of pandas. The rows are float32 if all these columns are float32 in every file, else
        float64. The files may have them in different orders.
    sample_weight : str, default=None
        The column that holds the weights of the rows.
    block_rows : int, default=None
        Number of rows of a block; None for blocks of about 16 MiB.

    Returns
    -------
    blocks : Blocks
        With ``feature_names``.

    Raises
    ------
    ValueError, TypeError
        If a file is not a Parquet file, lacks a column or has a column without numbers, or if
        files in subfolders would be left out.
    FileNotFoundError
        If there is no such file, or if the target of a link in the folder does not exist.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ImportError('reading Parquet needs pyarrow: pip install "ekmfast[parquet]"') from None
    path = PATH.check("path", path)
    files = _parquet_files(path) if path.is_dir() else [path]
    names: list[str] = [] if columns is None else list(columns)
    kinds = set()
    for file in files:
        try:
            schema = pq.read_schema(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{file}: not a Parquet file: {error}") from None
        if not names and columns is None:
            index = (schema.pandas_metadata or {}).get("index_columns", [])
            names = [c for c in schema.names if c != sample_weight and c not in index]
        for name in [*names, *([] if sample_weight is None else [sample_weight])]:
            if name not in schema.names:
                raise ValueError(f"{file}: has no column {name!r}, only {', '.join(schema.names)}")
            kind = schema.field(name).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise TypeError(f"{file}: column {name!r} must hold numbers, it holds {kind}")
        kinds |= {schema.field(name).type for name in names}
    dtype = np.dtype(np.float32 if kinds == {pa.float32()} else np.float64)
    step = min(_block_rows(block_rows, len(names) * dtype.itemsize), np.iinfo(np.int32).max)
    wanted = names if sample_weight is None else [*names, sample_weight]

    def read(allocate: Allocate) -> Iterator[Any]:
        for file in files:
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(step, columns=wanted):
                    block = allocate((batch.num_rows, len(names)), dtype)
                    for j, name in enumerate(names):
                        # A null becomes NaN, for which a later check raises an error.
                        block[:, j] = batch.column(name).to_numpy(zero_copy_only=False)
                    weight = None
                    if sample_weight is not None:
                        weight = batch.column(sample_weight).to_numpy(zero_copy_only=False)
                    yield block, weight

    return Blocks(read, str(path), feature_names=names)
