"""Kernels for starts and surveys: distances to chosen rows, random rows, bounding box, copies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.kernels.common import CANCELLED, TILE, Real
from ekmfast.rows.cuda.layer import (
    THREADS,
    Kernel,
    kernel,
)


@lru_cache(None)
def closest(dtype: Real, columns: int, weighted: bool, update: bool) -> Kernel:
    """Sums of the squared distances to the nearest chosen row, if a candidate were chosen too.

    There are S starts with L candidates each: see `RowsAtHand.closest`.
    IN scores (chunk, S L) for q = 2 without bias, bias (S, L), half_norm, Y, candidates (S L, d),
    s, first, n; grid: chunk / TILE times ceil(S L / columns), the columns varying fastest
    IN/OUT distances (S, n): with ``update``, for which L = 1, the minima replace them
    OUT sums (S L, chunk / TILE) = sum s min(distance, ||y - candidate||^2)
    """
    T = dtype
    SLOTS = THREADS // columns
    zero, one, cancelled = T(0), T(1), T(CANCELLED[dtype])

    def measure(
        scores: Any, bias: Any, half_norm: Any, Y: Any, candidates: Any, s: Any, first: Any,
        n: Any, distances: Any, sums: Any,
    ) -> None:  # fmt: skip
        parts = cuda.shared.array(THREADS, np.float64)
        tid = cuda.threadIdx.x
        each, width = bias.shape[1], scores.shape[1]
        across = (width + columns - 1) // columns
        tile = cuda.blockIdx.x // across
        column = cuda.blockIdx.x % across * columns + tid % columns
        total = zero
        if column < width:
            seeding = column // each
            own = bias[seeding, column % each]
            for turn in range(TILE // SLOTS):
                row = tile * TILE + turn * SLOTS + tid // columns
                if first + row < n:
                    norm = half_norm[row] + half_norm[row]
                    d2 = norm - (scores[row, column] + own)
                    if not d2 > cancelled * (norm - own):
                        d2 = zero
                        for j in range(Y.shape[1]):
                            y = Y[row, j] - candidates[column, j]
                            d2 += y * y
                    now = distances[seeding, first + row]
                    if d2 > now:
                        d2 = now
                    if update:
                        distances[seeding, first + row] = d2
                    weight = T(s[first + row]) if weighted else one
                    # A norm that is not finite makes the sum NaN, since 0 times it is NaN.
                    total += (weight + zero * norm) * d2
        parts[tid] = np.float64(total)
        cuda.syncthreads()
        if tid < columns and column < width:
            whole = 0.0
            for slot in range(SLOTS):
                whole += parts[slot * columns + tid]
            sums[column, tile] = whole

    return kernel(measure)


@lru_cache(None)
def row_masses(weighted: bool, measured: bool, farthest: bool) -> Kernel:
    """For each stretch of ``size`` rows the sum of s times distance, or its farthest row.

    IN distances (S, n) (1 unless ``measured``), s, n, size; grid: stretches times S, the start
    varying fastest
    OUT masses (S, stretches): the sums, or with ``farthest`` the largest distance of a row with
    s > 0, and -1 if there is none; rows (S, stretches): the first row with that distance
    """

    def find(distances: Any, s: Any, n: Any, size: Any, masses: Any, rows: Any) -> None:
        parts = cuda.shared.array(THREADS, np.float64)
        indices = cuda.shared.array(THREADS, np.int64)
        tid = cuda.threadIdx.x
        n_seedings = masses.shape[0]
        stretch, seeding = cuda.blockIdx.x // n_seedings, cuda.blockIdx.x % n_seedings
        end = min(n, (np.int64(stretch) + 1) * size)
        mass = -np.inf if farthest else 0.0
        index = np.int64(n)
        for row in range(np.int64(stretch) * size + tid, end, THREADS):
            value = np.float64(distances[seeding, row]) if measured else 1.0
            if farthest:
                if weighted and not s[row] > 0:
                    value = -1.0
                if value > mass:
                    mass = value
                    index = np.int64(row)
            else:
                if weighted:
                    value *= np.float64(s[row])
                mass += value
        parts[tid] = mass
        indices[tid] = index
        cuda.syncthreads()
        if tid == 0:
            for i in range(1, THREADS):
                if farthest:
                    if parts[i] > mass or (parts[i] == mass and indices[i] < index):
                        mass = parts[i]
                        index = indices[i]
                else:
                    mass += parts[i]
            masses[seeding, stretch] = mass
            rows[seeding, stretch] = index

    return kernel(find)


@lru_cache(None)
def box(dtype: Real) -> Kernel:
    """The smallest and largest value of each feature for stretches of rows; NaN if there is one.

    IN X (n, d), n, size; grid: stretches times ceil(d / THREADS), the features varying fastest
    OUT low, high (stretches, d)
    """
    T = dtype

    def find(X: Any, n: Any, size: Any, low: Any, high: Any) -> None:
        across = (X.shape[1] + THREADS - 1) // THREADS
        stretch = cuda.blockIdx.x // across
        j = cuda.blockIdx.x % across * THREADS + cuda.threadIdx.x
        if j < X.shape[1]:
            least, greatest = T(np.inf), T(-np.inf)
            for row in range(np.int64(stretch) * size, min(n, (np.int64(stretch) + 1) * size)):
                x = X[row, j]
                if x < least or np.isnan(x):
                    least = x
                if x > greatest or np.isnan(x):
                    greatest = x
            low[stretch, j] = least
            high[stretch, j] = greatest

    return kernel(find)


@lru_cache(None)
def fill(dtype: Real) -> Kernel:
    """OUT values (n,) = value; grid: all n."""
    T = dtype

    def write(values: Any, value: Any) -> None:
        at = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if at < values.shape[0]:
            values[at] = T(value)

    return kernel(write)


@lru_cache(None)
def gather(dtype: Real) -> Kernel:
    """IN X (n, d), rows (m,); OUT out (m, d) = X[rows], of any dtype; grid: all m d."""

    def copy(X: Any, rows: Any, out: Any) -> None:
        at = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        row, j = at // X.shape[1], at % X.shape[1]
        if row < rows.shape[0]:
            out[row, j] = X[rows[row], j]

    return kernel(copy)
