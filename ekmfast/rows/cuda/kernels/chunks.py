"""Kernels for any number of centroids, which replace the scores of a chunk by weights."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from ekmfast.rows.cuda.kernels.common import (
    CANCELLED,
    EQUILIBRIUM,
    FLOOR,
    FUZZY,
    HARD,
    LN2,
    MIN_NORMAL,
    TILE,
    Real,
    _exp2,
    _log2,
)
from ekmfast.rows.cuda.layer import (
    LANES,
    SIMULATED,
    THREADS,
    Kernel,
    kernel,
    lanes_max,
    lanes_sum,
)


@lru_cache(None)
def add_chunk() -> Kernel:
    """`add_onto` for the three results of a chunk, in one launch.

    IN products (batches, S k d), sums (tiles, 2 S k), costs (tiles, 2 S)
    IN/OUT totals (S k d + 2 S k + 2 S,): the totals of the three, concatenated; grid: all of them
    """

    def add(products: Any, batches: Any, sums: Any, costs: Any, tiles: Any, totals: Any) -> None:
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < totals.shape[0]:
            total = totals[i]
            if i < products.shape[1]:
                for r in range(batches):
                    total += np.float64(products[r, i])
            elif i < products.shape[1] + sums.shape[1]:
                for r in range(tiles):
                    total += sums[r, i - products.shape[1]]
            else:
                for r in range(tiles):
                    total += costs[r, i - products.shape[1] - sums.shape[1]]
            totals[i] = total

    return kernel(add)


@lru_cache(None)
def prepare(dtype: Real) -> Kernel:
    """A chunk of rows minus the reference; rows after the last one are zero.

    IN X (n, d), first, n (rows of X), reference (d,); grid: chunk / rows of a thread block
    OUT Y (chunk, d), half_norm (chunk,) = 1/2 ||y||^2
    """
    T = dtype
    zero, half = T(0), T(0.5)

    def centre(X: Any, first: Any, n: Any, reference: Any, Y: Any, half_norm: Any) -> None:
        scratch = cuda.shared.array(THREADS, T)
        tid = cuda.threadIdx.x
        lane = tid % LANES
        row = cuda.blockIdx.x * (THREADS // LANES) + tid // LANES
        norm = zero
        for j in range(lane, Y.shape[1], LANES):
            y = zero
            if first + row < n:
                y = T(X[first + row, j]) - reference[j]
            Y[row, j] = y
            norm += y * y
        norm = lanes_sum(norm, LANES, scratch)
        if lane == 0:
            half_norm[row] = half * norm

    return kernel(centre)


@lru_cache(None)
def weigh_rows(dtype: Real, weighting: int, lanes: int, weighted: bool) -> Kernel:
    """For each row the numbers that `weigh_columns` needs for all centroids, and the objective.

    IN scores (chunk, S k) without bias, bias (S, k), half_norm, Y, centroids (S k, d) (only for
    FUZZY), s, first, n, power; grid: chunk / TILE times S, the problem varying fastest
    OUT shared (chunk, S, 4): best, level, slope, share for EQUILIBRIUM; best, -, -, share for
    MAXIMUM_ENTROPY; label, s for HARD; least, scale, share for FUZZY, which also replaces the
    scores by squared distances
    OUT costs (chunk / TILE, 2 S): sums over the tile of s 1/2 ||y||^2 and of s times the row's part
    of the objective in units of scores
    """
    T, exp2, log2 = dtype, _exp2(dtype), _log2(dtype)
    ROWS = THREADS // lanes
    zero, one, ln2 = T(0), T(1), T(LN2)
    floor, tiny, cancelled = T(FLOOR[dtype]), T(MIN_NORMAL[dtype]), T(CANCELLED[dtype])

    def weigh(
        scores: Any, bias: Any, half_norm: Any, Y: Any, centroids: Any, s: Any, first: Any, n: Any,
        power: Any, shared: Any, costs: Any,
    ) -> None:  # fmt: skip
        scratch = cuda.shared.array(THREADS, T)
        norm_sums = cuda.shared.array(THREADS, np.float64)
        cost_sums = cuda.shared.array(THREADS, np.float64)
        tid = cuda.threadIdx.x
        lane = tid % lanes
        n_problems, k = bias.shape
        tile, problem = cuda.blockIdx.x // n_problems, cuda.blockIdx.x % n_problems
        column = problem * k
        norm_sum, cost_sum = 0.0, 0.0
        for turn in range(TILE // ROWS):
            row = tile * TILE + turn * ROWS + tid // lanes
            weight = zero
            if first + row < n:
                weight = T(s[first + row]) if weighted else one
            half = half_norm[row]
            cost = zero
            if weighting == FUZZY:
                norm = half + half
                least = T(np.inf)
                for i in range(lane, k, lanes):
                    # With q = 2 a score is 2 y . c - ||c||^2. If ||y||^2 minus the score cancels,
                    # the squared distance is summed from differences instead.
                    d2 = norm - (scores[row, column + i] + bias[problem, i])
                    if not d2 > cancelled * (norm - bias[problem, i]):
                        d2 = zero
                        for j in range(Y.shape[1]):
                            y = Y[row, j] - centroids[column + i, j]
                            d2 += y * y
                    scores[row, column + i] = d2
                    if d2 < least:
                        least = d2
                least = -lanes_max(-least, lanes, scratch)
                total = zero
                for i in range(lane, k, lanes):
                    d2 = scores[row, column + i]
                    r = least / d2 if d2 > zero else one
                    if power != one:
                        x = log2(r) * power if r > tiny else floor
                        r = exp2(x) if x > floor else zero
                    total += r
                total = lanes_sum(total, lanes, scratch)
                shrunk = one / total
                share = weight * shrunk
                if power != one:
                    x = -log2(total) / power
                    shrunk = exp2(x if x > floor else floor)
                cost = least * shrunk + zero * norm
                if lane == 0:
                    shared[row, problem, 0] = least
                    shared[row, problem, 1] = share * shrunk
                    shared[row, problem, 2] = share
            else:
                best = T(-np.inf)
                for i in range(lane, k, lanes):
                    t = scores[row, column + i] + bias[problem, i]
                    if t > best:
                        best = t
                best = lanes_max(best, lanes, scratch)
                if weighting == HARD:
                    found = T(-k)
                    for i in range(lane, k, lanes):
                        if not best > scores[row, column + i] + bias[problem, i]:
                            found = max(found, T(-i))
                    found = lanes_max(found, lanes, scratch)
                    cost = best
                    if lane == 0:
                        shared[row, problem, 0] = -found
                        shared[row, problem, 1] = weight
                else:
                    total, moment = zero, zero
                    for i in range(lane, k, lanes):
                        r = scores[row, column + i] + bias[problem, i] - best
                        if not r > floor:
                            r = floor
                        u = exp2(r)
                        total += u
                        moment += u * r
                    total = lanes_sum(total, lanes, scratch)
                    share = weight / total
                    if weighting == EQUILIBRIUM:
                        mean = lanes_sum(moment, lanes, scratch) / total
                        cost = best + mean
                        if lane == 0:
                            slope = share * ln2
                            shared[row, problem, 1] = share - slope * mean
                            shared[row, problem, 2] = slope
                    else:
                        cost = best + log2(total)
                    if lane == 0:
                        shared[row, problem, 0] = best
                        shared[row, problem, 3] = share
            if lane == 0:
                norm_sum += np.float64(weight) * np.float64(half)
                cost_sum += np.float64(weight) * np.float64(cost)
        norm_sums[tid], cost_sums[tid] = norm_sum, cost_sum
        cuda.syncthreads()
        if tid < 2:
            total_sum = 0.0
            for i in range(0, THREADS, lanes):
                total_sum += norm_sums[i] if tid == 0 else cost_sums[i]
            costs[tile, 2 * problem + tid] = total_sum

    return kernel(weigh)


@lru_cache(None)
def weigh_columns(dtype: Real, weighting: int, columns: int) -> Kernel:
    """Replace scores by s w, and sum s w and s p over each tile of rows.

    A thread block covers ``columns`` columns and THREADS / ``columns`` rows at a time.
    IN scores (chunk, S k) after `weigh_rows`, bias (S, k), shared, power; grid: chunk / TILE times
    ceil(S k / columns), the columns varying fastest
    OUT scores = s w; sums (chunk / TILE, 2 S k): all sums of s w, then all sums of s p
    """
    T, exp2, log2 = dtype, _exp2(dtype), _log2(dtype)
    SLOTS = THREADS // columns
    zero, one = T(0), T(1)
    floor, tiny = T(FLOOR[dtype]), T(MIN_NORMAL[dtype])

    def weigh(scores: Any, bias: Any, shared: Any, power: Any, sums: Any) -> None:
        w_sums = cuda.shared.array(THREADS, np.float64)
        p_sums = cuda.shared.array(THREADS, np.float64)
        tid = cuda.threadIdx.x
        k, width = bias.shape[1], scores.shape[1]
        across = (width + columns - 1) // columns
        tile = cuda.blockIdx.x // across
        column = cuda.blockIdx.x % across * columns + tid % columns
        w_sum, p_sum = zero, zero
        if column < width:
            problem, i = column // k, column % k
            own = bias[problem, i]
            for turn in range(TILE // SLOTS):
                row = tile * TILE + turn * SLOTS + tid // columns
                if weighting == HARD:
                    w = shared[row, problem, 1] if shared[row, problem, 0] == T(i) else zero
                    p = w
                elif weighting == FUZZY:
                    d2 = scores[row, column]
                    r = shared[row, problem, 0] / d2 if d2 > zero else one
                    u = r
                    if power != one:
                        x = log2(r) * power if r > tiny else floor
                        u = exp2(x) if x > floor else zero
                    w = u * r * shared[row, problem, 1]
                    p = u * shared[row, problem, 2]
                else:
                    r = scores[row, column] + own - shared[row, problem, 0]
                    if not r > floor:
                        r = floor
                    u = exp2(r)
                    p = u * shared[row, problem, 3]
                    w = p
                    if weighting == EQUILIBRIUM:
                        w = u * (shared[row, problem, 1] + shared[row, problem, 2] * r)
                scores[row, column] = w
                w_sum += w
                p_sum += p
        w_sums[tid], p_sums[tid] = np.float64(w_sum), np.float64(p_sum)
        cuda.syncthreads()
        if tid < columns and column < width:
            w_total, p_total = 0.0, 0.0
            for slot in range(SLOTS):
                w_total += w_sums[slot * columns + tid]
                p_total += p_sums[slot * columns + tid]
            sums[tile, column] = w_total
            sums[tile, width + column] = p_total

    return kernel(weigh)


def columns_for(width: int) -> int:
    """How many of ``width`` columns a thread block covers: a power of two."""
    most = min(THREADS, 8 if SIMULATED else 128)
    return max(min(most, 1 << math.ceil(math.log2(max(width, 1)))), THREADS // TILE)


@lru_cache(None)
def column_sums(dtype: Real, columns: int) -> Kernel:
    """Sums over the rows of each tile. IN values (chunk, width), OUT sums (chunk / TILE, width)."""
    SLOTS = THREADS // columns

    def add(values: Any, sums: Any) -> None:
        parts = cuda.shared.array(THREADS, np.float64)
        tid = cuda.threadIdx.x
        width = values.shape[1]
        across = (width + columns - 1) // columns
        tile = cuda.blockIdx.x // across
        column = cuda.blockIdx.x % across * columns + tid % columns
        total = 0.0
        if column < width:
            for turn in range(TILE // SLOTS):
                total += np.float64(values[tile * TILE + turn * SLOTS + tid // columns, column])
        parts[tid] = total
        cuda.syncthreads()
        if tid < columns and column < width:
            total = 0.0
            for slot in range(SLOTS):
                total += parts[slot * columns + tid]
            sums[tile, column] = total

    return kernel(add)
