"""Data sets that are read in blocks of rows, so that they need not fit into memory.

The clustering estimators take a :class:`Blocks` instead of X in ``fit``. Each pass over the data
reads every block once, in order, and a thread reads the next block while one is computed. Only a
few blocks are in memory at a time, whatever the number of rows.

>>> import numpy as np
>>> from ekmfast import EKMeans, blocks
>>> def months():  # called once in each pass; it may be any function that yields arrays
...     for month in range(12):
...         yield np.random.default_rng(month).normal(size=(100, 2))
>>> EKMeans(2, alpha="dvariance", init=np.eye(2)).fit(blocks.from_factory(months)).n_features_in_
2
"""

from ekmfast.rows.blocks import (
    Block,
    Blocks,
    from_arrays,
    from_factory,
    from_npy,
    from_parquet,
    from_zarr,
)

__all__ = [
    "Block",
    "Blocks",
    "from_arrays",
    "from_factory",
    "from_npy",
    "from_parquet",
    "from_zarr",
]
