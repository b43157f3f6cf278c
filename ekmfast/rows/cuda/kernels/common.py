"""What several kernels share: constants, base-2 functions, and sums of sums."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from ekmfast.rows.cuda.layer import (
    SIMULATED,
    THREADS,
    Kernel,
    exp2_32,
    exp2_64,
    kernel,
    log2_32,
    log2_64,
)

EQUILIBRIUM, MAXIMUM_ENTROPY, HARD, FUZZY = range(4)

# Rows of a chunk whose scores one block weighs.
TILE = 8 if SIMULATED else 64

# Rows that one thread of the fused kernel sums at most.
ROWS_A_THREAD = 4 if SIMULATED else 64

LN2 = math.log(2)

# As the CPU's kernels have them (kernels.h).
FLOOR = {np.float32: -100.0, np.float64: -900.0}

# Where a squared distance is a smaller share than this of what it is the difference of, it is
# summed from differences: a quarter of the digits. The CPU's kernels wait for a half of them, since
# their norms and scores round alike; a library's product shares no rounding with the norms.
CANCELLED = {np.float32: 2.0**-6, np.float64: 2.0**-13}

MIN_NORMAL = {np.float32: 2.0**-126, np.float64: 2.0**-1022}

Real = Any  # np.float32 or np.float64, the class


def _exp2(dtype: Real) -> Any:
    return exp2_32 if dtype is np.float32 else exp2_64


def _log2(dtype: Real) -> Any:
    return log2_32 if dtype is np.float32 else log2_64


@lru_cache(None)
def add_groups() -> Kernel:
    """``out[g]`` = sum of rows ``g * size`` and on of values, in order; grid: all of out."""

    def add(values: Any, count: Any, size: Any, out: Any) -> None:
        at = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        width = values.shape[1]
        group, i = at // width, at % width
        if group < out.shape[0]:
            total = 0.0
            for r in range(group * size, min(count, (group + 1) * size)):
                total += np.float64(values[r, i])
            out[group, i] = total

    return kernel(add)


@lru_cache(None)
def add_onto() -> Kernel:
    """``totals[i] += values[0, i] + ... + values[count - 1, i]``, in order; grid: all i."""

    def add(values: Any, count: Any, totals: Any) -> None:
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < totals.shape[0]:
            total = totals[i]
            for r in range(count):
                total += np.float64(values[r, i])
            totals[i] = total

    return kernel(add)
