"""The matrix products of chunks, for machines without cuBLAS."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.kernels.common import Real
from ekmfast.rows.cuda.layer import (
    SIMULATED,
    THREADS,
    Kernel,
    kernel,
)


@lru_cache(None)
def product(dtype: Real, transposed: bool) -> Kernel:
    """A matrix product without a library.

    IN A (M, L), B (N, L), depth = L; OUT out (1, M, N) = A B^T.
    With ``transposed``: IN A (rows, M), B (rows, N); OUT out (batches, M, N) = A^T B for each
    ``depth`` rows.
    grid: `product_blocks`, the number of batches times that of tiles of out
    """
    T = dtype
    WIDE = 4 if SIMULATED else 8  # a thread block is HIGH x WIDE threads
    HIGH = THREADS // WIDE
    EACH = 2 if SIMULATED else 4  # a thread sums EACH x EACH numbers of out
    ROWS, COLUMNS = HIGH * EACH, WIDE * EACH
    STEP = 4 if SIMULATED else 16
    A_SHAPE, B_SHAPE, SUMS = (STEP, ROWS + 1), (STEP, COLUMNS + 1), EACH * EACH
    zero = T(0)

    def multiply(A: Any, B: Any, depth: Any, out: Any) -> None:
        a = cuda.shared.array(A_SHAPE, T)
        b = cuda.shared.array(B_SHAPE, T)
        sums = cuda.local.array(SUMS, T)
        tid = cuda.threadIdx.x
        down = (out.shape[1] + ROWS - 1) // ROWS
        across = (out.shape[2] + COLUMNS - 1) // COLUMNS
        at = cuda.blockIdx.x % (down * across)
        batch = cuda.blockIdx.x // (down * across)
        row0, column0 = at // across * ROWS, at % across * COLUMNS
        y, x = tid // WIDE, tid % WIDE
        for i in range(EACH * EACH):
            sums[i] = zero
        for start in range(0, depth, STEP):
            for i in range(tid, STEP * ROWS, THREADS):
                step, row = (i // ROWS, i % ROWS) if transposed else (i % STEP, i // STEP)
                value = zero
                if start + step < depth and row0 + row < out.shape[1]:
                    if transposed:
                        value = A[batch * depth + start + step, row0 + row]
                    else:
                        value = A[row0 + row, start + step]
                a[step, row] = value
            for i in range(tid, STEP * COLUMNS, THREADS):
                step, row = (i // COLUMNS, i % COLUMNS) if transposed else (i % STEP, i // STEP)
                value = zero
                if start + step < depth and column0 + row < out.shape[2]:
                    if transposed:
                        value = B[batch * depth + start + step, column0 + row]
                    else:
                        value = B[column0 + row, start + step]
                b[step, row] = value
            cuda.syncthreads()
            for step in range(STEP):
                for i in range(EACH):
                    for j in range(EACH):
                        sums[i * EACH + j] += a[step, y + i * HIGH] * b[step, x + j * WIDE]
            cuda.syncthreads()
        for i in range(EACH):
            for j in range(EACH):
                row, column = row0 + y + i * HIGH, column0 + x + j * WIDE
                if row < out.shape[1] and column < out.shape[2]:
                    out[batch, row, column] = sums[i * EACH + j]

    return kernel(multiply)


def product_blocks(m: int, n: int, batches: int) -> int:
    """How many thread blocks `product` needs for an out of shape (batches, m, n)."""
    rows = THREADS // (4 if SIMULATED else 8) * (2 if SIMULATED else 4)
    columns = (4 if SIMULATED else 8) * (2 if SIMULATED else 4)
    return -(-m // rows) * -(-n // columns) * batches
