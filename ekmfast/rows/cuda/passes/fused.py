"""Few centroids of few features: one kernel reads the rows once and leaves their sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import SIMULATED, THREADS, ceil_div, flat, power_of_two
from ekmfast.rows.cuda.passes.base import Passes
from ekmfast.rows.cuda.passes.centroids import Centroids
from ekmfast.rows.cuda.passes.sums import add_partial

Float64 = NDArray[np.float64]

# The kernel leaves one set of sums for each thread block, in one launch at most so many numbers.
PARTIAL_NUMBERS = 1 << 23
# So many thread blocks keep a large GPU busy. For more rows each thread sums more rows instead.
ENOUGH_BLOCKS = 2 if SIMULATED else 2048


def is_fused(passes: Passes, dtype: Any, k: int) -> bool:
    """Whether the fused kernel can read the rows and holds the sums."""
    held = passes.held
    return (
        held.dense
        and held.aligned
        and dtype is held.dtype
        and kernels.fits_fused(dtype, k, held.d, passes.kind)
    )


def sum_fused(passes: Passes, dtype: Any, c: Centroids, k: int) -> Float64:
    """The sums of S problems, as an array (S, sums) in the order of `kernels.fused_width`."""
    rows, d = passes.held, passes.held.d
    S = len(c.q)
    compiled = kernels.fused(dtype, k, d, passes.kind, rows.weighted)
    width = kernels.fused_width(k, d)
    at_once = kernels.rows_at_once(dtype, k, d)
    each = power_of_two(rows.n / (THREADS * ENOUGH_BLOCKS), 1, kernels.ROWS_A_THREAD)
    turns = max(each // at_once, 1)
    block_rows = THREADS * at_once * turns
    most = max(PARTIAL_NUMBERS // (S * width), 1)
    blocks = min(ceil_div(rows.n, block_rows), most)
    key = (dtype, "fused", k, S, blocks)
    partial = passes.kept.scratch(key, partial=((S, width, blocks), np.float64))["partial"]
    flat_partial = flat(partial, S * width)
    totals = passes.kept.mirror("fused", S, k, totals=((S * width,), np.float64))
    centroids = c.plain if passes.weighting == "fuzzy" else c.scaled
    power = passes.power(dtype)

    def work() -> None:
        # Sums are added when ``partial`` is full, wherever segments end, so that the order of
        # summation does not depend on segments. These hold a multiple of the rows of a block.
        filled = 0
        c.make_ready()
        totals.clear()
        for _, X, s in rows.segments():
            n, first = X.shape[0], 0
            while first < n:
                here = min(ceil_div(n - first, block_rows), blocks - filled)
                launch(compiled, here * S, flat(X), s, first, n, S, turns, c.reference,
                       centroids, c.bias, power, partial, filled)  # fmt: skip
                first += here * block_rows
                filled += here
                if filled == blocks:
                    add_partial(flat_partial, filled, totals.card["totals"])
                    filled = 0
        if filled:
            add_partial(flat_partial, filled, totals.card["totals"])

    passes.kept.run(("fused", dtype, S, k), work)
    totals.fetch()
    return totals.host["totals"].reshape(S, width).copy()
