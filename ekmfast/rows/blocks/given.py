"""Whether what stands in the place of X is read in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ekmfast.rows.blocks.block import Blocks
from ekmfast.rows.blocks.npy import from_memmap

# A memory map of a file at least so large is read in blocks where X is expected.
LARGE_MEMMAP = 1 << 30


def as_blocks(X: Any, sample_weight: ArrayLike | None = None) -> Blocks | None:
    """X where it is blocks, or a large memory map as such; None where it is another array.

    ``sample_weight`` is that of the rows of a memory map; blocks bring their own.
    """
    if isinstance(X, Blocks):
        return X
    if isinstance(X, np.memmap) and X.nbytes >= LARGE_MEMMAP:
        return from_memmap(X, sample_weight)
    return None
