"""Blocks of a Parquet file or of a folder of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ekmfast.rows.blocks.block import Allocate, Blocks, _block_rows

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")


def _parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder; none is left out without a word."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in PARQUET_SUFFIXES]
    files = sorted(path for path in found if path.parent == folder and not path.is_dir())
    below = sorted(path for path in found if path.parent != folder and not path.is_dir())
    if below:
        raise ValueError(
            f"{folder}: {below[0]} and others in folders of it ({len(below):,} files) would be "
            "left out: name one folder of files"
        )
    if not files:
        raise ValueError(f"{folder}: holds no .parquet file")
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: a link that leads nowhere")
    return files


def from_parquet(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    sample_weight: str | None = None,
    block_rows: int | None = None,
) -> Blocks:
    """Blocks of a Parquet file, or of a folder of them, of which only these columns are read.

    Parameters
    ----------
    path : path
        Of a folder all files that end in .parquet, .parq or .pq, in upper case or lower, are read,
        in the order of their names.
    columns : sequence of str, default=None
        The features; None for all of the first file but ``sample_weight`` and an index of pandas'.
        float32 if all of them are, in every file. Each file may have them in an order of its own.
    sample_weight : str, default=None
        The column that holds the rows' weights.
    block_rows : int, default=None
        Rows of a block; None for about 16 MiB.

    Returns
    -------
    blocks : Blocks
        With ``feature_names``.

    Raises
    ------
    ValueError, TypeError
        If a file is no Parquet file, lacks a column or holds something else than numbers in it, or
        if files in folders of the folder would be left out.
    FileNotFoundError
        If there is no such file, or a link in the folder leads nowhere.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ImportError('reading Parquet needs pyarrow: pip install "ekmfast[parquet]"') from None
    path = Path(path)
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
                raise ValueError(f"{file}: has no column {name!r}, but {', '.join(schema.names)}")
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
                        # A null becomes NaN, which is refused as such.
                        block[:, j] = batch.column(name).to_numpy(zero_copy_only=False)
                    weight = None
                    if sample_weight is not None:
                        weight = batch.column(sample_weight).to_numpy(zero_copy_only=False)
                    yield block, weight

    return Blocks(read, str(path), feature_names=names)
