"""Constants, base-2 functions and sums of partial sums that several kernels use."""

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

# How many rows of a chunk one thread block sums.
TILE = 8 if SIMULATED else 64

# How many rows one thread of the fused kernel sums at most.
ROWS_A_THREAD = 4 if SIMULATED else 64

LN2 = math.log(2)

# Exponents are not below this, as in the CPU's kernels (kernels.h).
FLOOR = {np.float32: -100.0, np.float64: -900.0}

# If ||y||^2 - (2 y . c - ||c||^2) is less than this share of ||y||^2 + ||c||^2, a quarter of its
# digits is lost, and the squared distance is summed from differences instead. The CPU's kernels
# tolerate the loss of half of the digits, since their norms and scores have the same rounding
# errors; those of a library's product differ from those of the norms.
CANCELLED = {np.float32: 2.0**-6, np.float64: 2.0**-13}

MIN_NORMAL = {np.float32: 2.0**-126, np.float64: 2.0**-1022}

Real = Any  # np.float32 or np.float64, the class


def _exp2(dtype: Real) -> Any:
    return exp2_32 if dtype is np.float32 else exp2_64


def _log2(dtype: Real) -> Any:
    return log2_32 if dtype is np.float32 else log2_64


@lru_cache(None)
def add_groups() -> Kernel:
    """``out[g]`` = sum of the ``size`` rows of values from ``g * size`` on; grid: all of out."""

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
