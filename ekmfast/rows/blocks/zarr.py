"""Blocks of a Zarr array, or of another array on disk that can be sliced by rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ekmfast._arguments import shown
from ekmfast.rows.blocks.block import Allocate, Blocks, _block_rows


def from_zarr(array: Any, *, sample_weight: Any = None, block_rows: int | None = None) -> Blocks:
    """Blocks of a Zarr array of shape (N, D), or of a path to one.

    Parameters
    ----------
    array : zarr.Array or path
        Other arrays with ``shape``, ``dtype``, ``chunks`` and slicing work too, such as HDF5
        datasets.
    sample_weight : array of shape (N,), default=None
        A NumPy or Zarr array.
    block_rows : int, default=None
        Number of rows of a block; None for whole Zarr chunks of about 16 MiB together.

    Returns
    -------
    blocks : Blocks
    """
    name = "the Zarr array"
    if isinstance(array, (str, os.PathLike)):
        name = str(array)
        try:
            import zarr
        except ImportError:
            raise ImportError('reading Zarr needs zarr: pip install "ekmfast[zarr]"') from None
        try:
            array = zarr.open_array(name, mode="r")
        except ValueError as error:  # a group, or a damaged array
            raise ValueError(f"{name}: not a Zarr array: {error}") from None
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise TypeError(f"array must be a Zarr array or the path of one, got {shown(array)}")
    if len(array.shape) != 2:
        raise ValueError(f"{name}: expected shape (rows, features), got {array.shape}")
    n_rows, n_features = array.shape
    step = _block_rows(block_rows, n_features * np.dtype(array.dtype).itemsize)
    if block_rows is None and getattr(array, "chunks", None):
        step = max(1, round(step / array.chunks[0])) * array.chunks[0]
    if sample_weight is not None and not hasattr(sample_weight, "shape"):
        sample_weight = np.asarray(sample_weight)
    if sample_weight is not None and tuple(sample_weight.shape) != (n_rows,):
        raise ValueError(
            f"sample_weight has shape {sample_weight.shape}, but {name} has {n_rows} rows"
        )

    def read(_: Allocate) -> Iterator[Any]:
        for start in range(0, n_rows, step):
            rows = slice(start, min(start + step, n_rows))
            yield array[rows], None if sample_weight is None else sample_weight[rows]

    return Blocks(read, name)
