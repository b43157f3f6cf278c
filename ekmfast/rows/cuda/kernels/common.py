"""Constants, base-2 functions and sums of partial sums that several kernels use."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.layer import (
    SIMULATED,
    THREADS,
    Kernel,
    exp2_32,
    exp2_64,
    kernel,
    lanes_for,
    log2_32,
    log2_64,
    reciprocal_32,
    reciprocal_64,
)

EQUILIBRIUM, MAXIMUM_ENTROPY, HARD, FUZZY = range(4)

# How many rows of a chunk one thread block sums. They are half of its threads in the simulator too,
# since tests of few columns would otherwise miss what goes wrong on a GPU.
TILE = 4 if SIMULATED else 64

# How many rows one thread of the fused kernel sums at most.
ROWS_A_THREAD = 4 if SIMULATED else 64

# How many neighbouring totals a thread block of `add_onto` adds to, unless there are so many totals
# that a thread can add all numbers of one.
ADDED = 4 if SIMULATED else 8
FILLS_A_GPU = 64 if SIMULATED else 1 << 15

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


def lanes_in_tile(columns: int) -> int:
    """How many threads share a row of so many columns where a thread block has one tile of rows."""
    return max(lanes_for(columns), THREADS // TILE)


def _exp2(dtype: Real) -> Any:
    return exp2_32 if dtype is np.float32 else exp2_64


def _reciprocal(dtype: Real) -> Any:
    return reciprocal_32 if dtype is np.float32 else reciprocal_64


def _log2(dtype: Real) -> Any:
    return log2_32 if dtype is np.float32 else log2_64


@lru_cache(None)
def add_partial() -> Kernel:
    """``totals[i] += values[i, 0] + ... + values[i, count - 1]``.

    A thread block adds the numbers of one i, always in the same order; grid: all i.
    IN values (m, count or more); IN/OUT totals (m,)
    """

    def add(values: Any, count: Any, totals: Any) -> None:
        parts = cuda.shared.array(THREADS, np.float64)
        tid, i = cuda.threadIdx.x, cuda.blockIdx.x
        total = 0.0
        for r in range(tid, count, THREADS):
            total += values[i, r]
        parts[tid] = total
        cuda.syncthreads()
        half = THREADS // 2
        while half > 0:
            if tid < half:
                parts[tid] += parts[tid + half]
            cuda.syncthreads()
            half //= 2
        if tid == 0:
            totals[i] += parts[0]

    return kernel(add)


@lru_cache(None)
def add_onto(slices: int) -> Kernel:
    """``totals[i] += values[0, i] + ... + values[count - 1, i]``, always in the same order.

    ``slices`` threads add the numbers of one i; grid: all i times slices / THREADS.
    """
    ADDED = THREADS // slices  # how many neighbouring totals a thread block adds to

    def add(values: Any, count: Any, totals: Any) -> None:
        parts = cuda.shared.array(THREADS, np.float64)
        tid = cuda.threadIdx.x
        i = np.int64(cuda.blockIdx.x) * ADDED + tid % ADDED
        total = 0.0
        if i < totals.shape[0]:
            for r in range(tid // ADDED, count, slices):
                total += np.float64(values[r, i])
        if slices > 1:
            parts[tid] = total
            cuda.syncthreads()
            if tid < ADDED:
                for r in range(tid + ADDED, THREADS, ADDED):
                    total += parts[r]
        if tid < ADDED and i < totals.shape[0]:
            totals[i] += total

    return kernel(add)


def slices_for(width: int) -> int:
    """How many threads add one of so many totals; one where the totals alone fill a GPU."""
    return 1 if width >= FILLS_A_GPU else THREADS // ADDED
