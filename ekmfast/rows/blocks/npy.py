"""Blocks of a ``.npy`` file, or of a memory map of one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ekmfast._parameters import PATH
from ekmfast.rows.blocks.block import Allocate, Blocks, _block_rows
from ekmfast.rows.frames import numbers

NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def from_npy(
    path: str | os.PathLike[str],
    *,
    sample_weight: ArrayLike | None = None,
    block_rows: int | None = None,
) -> Blocks:
    """Blocks of a ``.npy`` file of shape (N, D), which is read, not memory-mapped.

    Parameters
    ----------
    path : path
    sample_weight : array-like of shape (N,), default=None
        In memory, or a memory map.
    block_rows : int, default=None
        Number of rows of a block; None for blocks of about 16 MiB.

    Returns
    -------
    blocks : Blocks

    Raises
    ------
    ValueError
        If the file is not a complete ``.npy`` file of a matrix of numbers in C order, or if it
        holds anything after the matrix.
    """
    path = PATH.check("path", path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = NPY_HEADERS[version](file)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: not a .npy file: {error}") from None
        offset = file.tell()
    if fortran and len(shape) == 2 and 1 not in shape:
        raise ValueError(f"{path}: rows are not contiguous (Fortran order); save it in C order")
    more = size - offset - math.prod(shape) * dtype.itemsize
    if more > 0 and not dtype.hasobject:
        raise ValueError(
            f"{path}: {more:,} bytes follow the array of shape {shape} that its header announces: "
            "does it hold several arrays, or is it still being written?"
        )
    return _of_file(path, shape, dtype, offset, sample_weight, block_rows)


def _of_file(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    offset: int,
    sample_weight: ArrayLike | None = None,
    block_rows: int | None = None,
) -> Blocks:
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"{path}: expected shape (rows, features), got {shape}")
    if dtype.kind not in "biuf" or dtype.hasobject:
        raise TypeError(f"{path}: expected numbers, got dtype {dtype}")
    n_rows, n_features = shape
    row_bytes = n_features * dtype.itemsize
    step = _block_rows(block_rows, row_bytes)
    weight = None if sample_weight is None else numbers(sample_weight)
    if weight is not None and weight.shape != (n_rows,):
        raise ValueError(f"sample_weight has shape {weight.shape}, but {path} has {n_rows} rows")

    def read(allocate: Allocate) -> Iterator[Any]:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size < offset + n_rows * row_bytes:
                raise ValueError(
                    f"{path}: truncated: it has {size:,} bytes, but its header announces "
                    f"{offset + n_rows * row_bytes:,}"
                )
            file.seek(offset)
            for start in range(0, n_rows, step):
                rows = min(step, n_rows - start)
                block = allocate((rows, n_features), dtype)
                _fill(file, memoryview(block.data).cast("B"), f"{path}: row {start:,}")
                yield block, None if weight is None else weight[start : start + rows]

    return Blocks(read, str(path))


def _fill(file: Any, buffer: memoryview, where: str) -> None:
    """Read until the buffer is full, since one read may return fewer bytes."""
    done = 0
    while done < len(buffer):
        count = file.readinto(buffer[done:])
        if not count:
            raise ValueError(f"{where}: the file ended while it was read")
        done += count


def from_memmap(X: np.memmap[Any, Any], sample_weight: ArrayLike | None = None) -> Blocks | None:
    """Blocks of the file of a memory map; None if X is not a contiguous part of the file."""
    if X.mode == "c" or X.filename is None or X.ndim != 2 or not X.flags.c_contiguous:
        return None
    mapped = np.frombuffer(X._mmap, np.uint8)  # type: ignore[attr-defined]
    into = X.ctypes.data - mapped.ctypes.data
    # NumPy maps the file from a multiple of the allocation granularity, the last one before
    # `offset`. A view of a memory map has the `offset` of the whole map.
    import mmap

    start = X.offset - X.offset % mmap.ALLOCATIONGRANULARITY
    if not 0 <= into <= mapped.nbytes - X.nbytes:
        return None
    if X.mode != "r":
        X.flush()
    if np.isscalar(sample_weight):  # the weight of every row, as for arrays
        sample_weight = np.broadcast_to(np.asarray(sample_weight), len(X))
    return _of_file(Path(str(X.filename)), X.shape, X.dtype, start + into, sample_weight)
