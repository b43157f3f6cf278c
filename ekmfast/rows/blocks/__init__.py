"""`Blocks`, data sets that are read in blocks of rows, and the functions that make them."""

from ekmfast.rows.blocks.block import Block, Blocks, Kind, checked
from ekmfast.rows.blocks.memory import from_arrays, from_factory
from ekmfast.rows.blocks.npy import from_memmap, from_npy
from ekmfast.rows.blocks.parquet import from_parquet
from ekmfast.rows.blocks.zarr import from_zarr

__all__ = [
    "Block",
    "Blocks",
    "Kind",
    "checked",
    "from_arrays",
    "from_factory",
    "from_memmap",
    "from_npy",
    "from_parquet",
    "from_zarr",
]
