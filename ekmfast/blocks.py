"""Data sets that are read in blocks of rows, again and again: more than memory holds.

``EKMeans.fit`` and its relatives take a :class:`Blocks` in the place of X. Each pass over the data
reads every block once, in order, a block ahead of the arithmetic; memory holds a few blocks,
whatever the number of rows.

>>> import numpy as np
>>> from ekmfast import EKMeans, blocks
>>> def months():  # called for each pass; anything that yields arrays
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
