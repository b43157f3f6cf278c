"""Kernels for any number of centroids, which replace the scores of a chunk by weights."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ekmfast.rows.cuda.compiler import cuda
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
    _reciprocal,
    lanes_in_tile,
)
from ekmfast.rows.cuda.layer import (
    LANES,
    SIMULATED,
    THREADS,
    Kernel,
    kernel,
    lanes_max,
    lanes_sum,
    larger,
    leading_bits,
)

# How many rows a thread block of `prepare` reads.
PREPARED = 8 if SIMULATED else 32


@lru_cache(None)
def prepare(dtype: Real, split: bool = False) -> Kernel:
    """A chunk of rows minus the reference; rows after the last one are zero.

    IN X (n, d), first, n (rows of X), reference (d,); grid: chunk / PREPARED
    OUT Y (chunk, d), half_norm (chunk,) = 1/2 ||y||^2
    OUT parts (chunk, 3 d), only with ``split``: the leading bits of y, the same again, and the
    rest, for which see `CublasProduct`
    """
    T = dtype
    ROWS = THREADS // LANES
    zero, half = T(0), T(0.5)

    def centre(
        X: Any, first: Any, n: Any, reference: Any, Y: Any, half_norm: Any, parts: Any
    ) -> None:
        scratch = cuda.shared.array(THREADS, T)
        tid = cuda.threadIdx.x
        lane = tid % LANES
        d = np.uint64(Y.shape[1])
        step = np.uint64(LANES)
        for turn in range(PREPARED // ROWS):
            # Unsigned, because Numba adds the length of the array to indices that may be negative.
            row = np.uint64(cuda.blockIdx.x * PREPARED + turn * ROWS + tid // LANES)
            here = np.uint64(first) + row
            norm = zero
            j = np.uint64(lane)
            while j < d:
                y = zero
                if here < np.uint64(n):
                    y = T(X[here, j]) - reference[j]
                Y[row, j] = y
                norm += y * y
                if split:
                    leading = leading_bits(y)
                    parts[row, j] = leading
                    parts[row, d + j] = leading
                    parts[row, d + d + j] = y - leading
                j += step
            norm = lanes_sum(norm, LANES, scratch)
            if lane == 0:
                half_norm[row] = half * norm

    return kernel(centre)


# For so many centroids a thread's registers hold its part of a row in `weigh`.
WEIGHED_COLUMNS = {np.float32: 32 * LANES, np.float64: 16 * LANES}


@lru_cache(None)
def weigh(dtype: Real, weighting: int, k: int, weighted: bool) -> Kernel:
    """Replace scores by s w, for up to WEIGHED_COLUMNS centroids and all weightings but FUZZY.

    Some threads hold a row of scores in their registers, so that the scores are read and written
    once.
    IN scores (chunk * S k,) without bias, bias (S, k), half_norm, s, first, n; grid: chunk / TILE
    times S, the problem varying fastest
    OUT scores = s w; sums (2 S k + 2 S, chunk / TILE): see `weigh_rows` and `weigh_columns`
    """
    T, exp2, log2, reciprocal = dtype, _exp2(dtype), _log2(dtype), _reciprocal(dtype)
    LANES_A_ROW = lanes_in_tile(k)
    EACH = -(-k // LANES_A_ROW)
    COLUMNS, SLOTS = EACH * LANES_A_ROW, THREADS // LANES_A_ROW
    FULL = k == COLUMNS  # all threads have EACH columns
    SHOWN = 2 * SLOTS * COLUMNS
    zero, one, ln2, floor = T(0), T(1), T(LN2), T(FLOOR[dtype])

    def replace(
        scores: Any, bias: Any, half_norm: Any, s: Any, first: Any, n: Any, sums: Any
    ) -> None:
        shown = cuda.shared.array(SHOWN, T)  # the sums of all slots, at the end
        b = cuda.shared.array(COLUMNS, T)
        scratch = cuda.shared.array(THREADS, T)
        norm_sums = cuda.shared.array(THREADS, np.float64)
        cost_sums = cuda.shared.array(THREADS, np.float64)
        t = cuda.local.array(EACH, T)
        u = cuda.local.array(EACH, T)
        w_sums = cuda.local.array(EACH, T)
        p_sums = cuda.local.array(EACH, T)
        tid = cuda.threadIdx.x
        lane, slot = tid % LANES_A_ROW, tid // LANES_A_ROW
        n_problems = bias.shape[0]
        tile, problem = cuda.blockIdx.x // n_problems, cuda.blockIdx.x % n_problems
        width = n_problems * k
        for i in range(tid, k, THREADS):
            b[i] = bias[problem, i]
        for e in range(EACH):
            w_sums[e] = zero
            p_sums[e] = zero
        norm_sum, cost_sum = 0.0, 0.0
        row = np.int64(tile) * TILE + slot
        # Unsigned, because Numba adds the length of the array to indices that may be negative.
        at = np.uint64(row * width + problem * k + lane)
        step = np.uint64(SLOTS * width)
        cuda.syncthreads()
        for _turn in range(TILE // SLOTS):
            weight = zero
            if first + row < n:
                weight = T(s[first + row]) if weighted else one
            best = T(-np.inf)
            for e in range(EACH):
                t[e] = T(-np.inf)
                if FULL or e * LANES_A_ROW + lane < k:
                    t[e] = scores[at + np.uint64(e * LANES_A_ROW)] + b[e * LANES_A_ROW + lane]
                best = larger(best, t[e])
            best = lanes_max(best, LANES_A_ROW, scratch)
            if weighting == HARD:
                found = T(-k)
                for e in range(EACH):
                    if (FULL or e * LANES_A_ROW + lane < k) and not best > t[e]:
                        found = larger(found, T(-(e * LANES_A_ROW + lane)))
                label = -lanes_max(found, LANES_A_ROW, scratch)
                cost = best
                for e in range(EACH):
                    w = weight if label == T(e * LANES_A_ROW + lane) else zero
                    w_sums[e] += w
                    p_sums[e] += w
                    if FULL or e * LANES_A_ROW + lane < k:
                        scores[at + np.uint64(e * LANES_A_ROW)] = w
            else:
                total, moment = zero, zero
                for e in range(EACH):
                    t[e] = larger(t[e] - best, floor)
                    u[e] = exp2(t[e])
                    total += u[e]
                    moment += u[e] * t[e]
                total = lanes_sum(total, LANES_A_ROW, scratch)
                inverse = reciprocal(total)
                share = weight * inverse
                level, slope = share, zero
                if weighting == EQUILIBRIUM:
                    mean = lanes_sum(moment, LANES_A_ROW, scratch) * inverse
                    cost = best + mean
                    slope = share * ln2
                    level = share - slope * mean
                else:
                    cost = best + log2(total)
                for e in range(EACH):
                    p_sums[e] += u[e] * share
                    w = u[e] * (level + slope * t[e])
                    w_sums[e] += w
                    if FULL or e * LANES_A_ROW + lane < k:
                        scores[at + np.uint64(e * LANES_A_ROW)] = w
            if lane == 0:
                norm_sum += np.float64(weight) * np.float64(half_norm[row])
                cost_sum += np.float64(weight) * np.float64(cost)
            row += SLOTS
            at += step
        for e in range(EACH):
            shown[slot * COLUMNS + e * LANES_A_ROW + lane] = w_sums[e]
            shown[(SLOTS + slot) * COLUMNS + e * LANES_A_ROW + lane] = p_sums[e]
        norm_sums[tid], cost_sums[tid] = norm_sum, cost_sum
        cuda.syncthreads()
        for i in range(tid, k, THREADS):
            w_total, p_total = 0.0, 0.0
            for r in range(SLOTS):
                w_total += np.float64(shown[r * COLUMNS + i])
                p_total += np.float64(shown[(SLOTS + r) * COLUMNS + i])
            sums[problem * k + i, tile] = w_total
            sums[width + problem * k + i, tile] = p_total
        if tid < 2:
            total_sum = 0.0
            for i in range(0, THREADS, LANES_A_ROW):
                total_sum += norm_sums[i] if tid == 0 else cost_sums[i]
            sums[2 * (width + problem) + tid, tile] = total_sum

    return kernel(replace)


@lru_cache(None)
def weigh_rows(dtype: Real, weighting: int, lanes: int, weighted: bool) -> Kernel:
    """For each row the numbers that `weigh_columns` needs for all centroids, and the objective.

    ``lanes`` threads share a row: see `lanes_in_tile`.
    IN scores (chunk, S k) without bias, bias (S, k), half_norm, Y, centroids (S k, d) (only for
    FUZZY), s, first, n, power; grid: chunk / TILE times S, the problem varying fastest
    OUT shared (chunk, S, 4): best, level, slope, share for EQUILIBRIUM; best, -, -, share for
    MAXIMUM_ENTROPY; label, s for HARD; least, scale, share for FUZZY, which also replaces the
    scores by squared distances
    OUT sums (2 S k + 2 S, chunk / TILE): from row 2 S k on, for each problem, the sums over the
    tile of s 1/2 ||y||^2 and of s times the row's part of the objective in units of scores
    """
    T, exp2, log2 = dtype, _exp2(dtype), _log2(dtype)
    ROWS = THREADS // lanes
    zero, one, ln2 = T(0), T(1), T(LN2)
    floor, tiny, cancelled = T(FLOOR[dtype]), T(MIN_NORMAL[dtype]), T(CANCELLED[dtype])

    def weigh(
        scores: Any, bias: Any, half_norm: Any, Y: Any, centroids: Any, s: Any, first: Any, n: Any,
        power: Any, shared: Any, sums: Any,
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
            sums[2 * (n_problems * k + problem) + tid, tile] = total_sum

    return kernel(weigh)


@lru_cache(None)
def weigh_columns(dtype: Real, weighting: int, columns: int) -> Kernel:
    """Replace scores by s w, and sum s w and s p over each tile of rows.

    A thread block covers ``columns`` columns and THREADS / ``columns`` rows at a time.
    IN scores (chunk, S k) after `weigh_rows`, bias (S, k), shared, power; grid: chunk / TILE times
    ceil(S k / columns), the columns varying fastest
    OUT scores = s w; sums (2 S k + 2 S, chunk / TILE): all sums over the tile of s w, then of s p
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
            sums[column, tile] = w_total
            sums[width + column, tile] = p_total

    return kernel(weigh)


def columns_for(width: int) -> int:
    """How many of ``width`` columns a thread block covers: a power of two."""
    most = min(THREADS, 8 if SIMULATED else 128)
    return max(min(most, 1 << math.ceil(math.log2(max(width, 1)))), THREADS // TILE)


@lru_cache(None)
def column_sums(dtype: Real, columns: int) -> Kernel:
    """Sums over the rows of each tile. IN values (chunk, width), OUT sums (width, chunk / TILE)."""
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
            sums[column, tile] = total

    return kernel(add)
