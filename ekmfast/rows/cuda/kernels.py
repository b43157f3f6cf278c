"""The CUDA kernels: Eq. 38, Eq. 39 and the objective of arXiv 2402.14490, and what seeding needs.

Each factory makes a kernel for one dtype and one shape, so that loops over K and D unroll and small
arrays become registers. The algebra is that of the CPU's kernels (``csrc/kernels/weigh.inl``): with
``y = x - reference`` and ``q = alpha log2(e)`` centroids arrive as ``q c`` and ``bias = -q/2
||c||^2``, so ``t_k = bias_k + y . (q c_k)`` is the exponent, base 2, of a membership up to a term
that a row shares.

Two ways through the rows:

- *fused*, for few small centroids: a thread holds a row, the centroids and all of its sums in
  registers; the rows are read once and nothing of size N x K exists;
- *chunks*, for all others: `prepare` centres a chunk of rows, a matrix product gives the scores,
  `weigh_rows` finds what the columns of a row share, `weigh_columns` turns scores into weights in
  place, and a second product sums ``w x``.

Sums of float32 are kept in float32 over `ROWS_A_THREAD` rows (`TILE` in chunks) at most, then in
float64, always in the same order: there are no atomic operations. In the simulator a tile is short,
so that few rows have several.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from ekmfast.rows.cuda.layer import (
    LANES,
    SEGMENTS,
    SIMULATED,
    THREADS,
    Kernel,
    exp2_32,
    exp2_64,
    kernel,
    lanes_max,
    lanes_sum,
    log2_32,
    log2_64,
    sync_warp,
)

EQUILIBRIUM, MAXIMUM_ENTROPY, HARD, FUZZY = range(4)
# Rows of a chunk whose scores one block weighs.
TILE = 8 if SIMULATED else 64
# Rows that one thread of the fused kernel sums at most.
ROWS_A_THREAD = 4 if SIMULATED else 64
# Sums and features up to which the fused kernel spills no register (tests/test_cuda_ptx.py), and up
# to which a block's fit its shared memory.
FUSED_SUMS = {np.float32: 84, np.float64: 34}
FUSED_FEATURES = {np.float32: 16, np.float64: 8}

LN2 = math.log(2)
# As the CPU's kernels have them (kernels.h).
FLOOR = {np.float32: -100.0, np.float64: -900.0}
# Where a squared distance is a smaller share than this of what it is the difference of, it is
# summed from differences: a quarter of the digits. The CPU's kernels wait for a half of them, since
# their norms and scores round alike; a library's product shares no rounding with the norms.
CANCELLED = {np.float32: 2.0**-6, np.float64: 2.0**-13}
MIN_NORMAL = {np.float32: 2.0**-126, np.float64: 2.0**-1022}

Real = Any  # np.float32 or np.float64, the class


def fits_fused(dtype: Real, k: int, d: int) -> bool:
    """Whether a thread's registers hold K centroids of D features and the sums."""
    crowded = max(2 * d - 16, 0)  # a row and the next one want registers too
    return d <= FUSED_FEATURES[dtype] and fused_width(k, d) + crowded <= FUSED_SUMS[dtype]


def _exp2(dtype: Real) -> Any:
    return exp2_32 if dtype is np.float32 else exp2_64


def _log2(dtype: Real) -> Any:
    return log2_32 if dtype is np.float32 else log2_64


@lru_cache(None)
def fused(dtype: Real, k: int, d: int, weighting: int, weighted: bool) -> Kernel:
    """Sums of all rows for several problems, each a block's: see `fused_width` for what they are.

    IN X (n * d,), s (n,) or one number, reference (d,), centroids (S, k, d) times q
    (as they are for FUZZY), bias (S, k), power; grid: row blocks times S, the problem fastest
    OUT partial (row blocks, S, fused_width)
    """
    T, exp2, log2 = dtype, _exp2(dtype), _log2(dtype)
    KD, SUMS = k * d, fused_width(k, d)
    WARP = min(32, THREADS)
    PAD = d + 1 - d % 2  # an odd distance between rows: no two of a warp in one bank
    TOGETHER = THREADS // SEGMENTS
    SPAN = THREADS + SEGMENTS
    SHOWN = max(THREADS * PAD, SUMS * SPAN)
    zero, one, ln2 = T(0), T(1), T(LN2)
    floor, tiny = T(FLOOR[dtype]), T(MIN_NORMAL[dtype])

    def statistics(
        X: Any, s: Any, n: Any, n_problems: Any, per_thread: Any, reference: Any, centroids: Any,
        bias: Any, power: Any, partial: Any,
    ) -> None:  # fmt: skip
        shown = cuda.shared.array(SHOWN, T)  # rows, and in the end sums
        parts = cuda.shared.array(THREADS, np.float64)
        sums = cuda.local.array(SUMS, T)
        c = cuda.local.array(KD, T)
        b = cuda.local.array(k, T)
        ref = cuda.local.array(d, T)
        y = cuda.local.array(d, T)
        t = cuda.local.array(k, T)
        u = cuda.local.array(k, T)
        ahead = cuda.local.array(d, T)
        tid = cuda.threadIdx.x
        lane, warp = tid % WARP, tid // WARP
        block, problem = cuda.blockIdx.x // n_problems, cuda.blockIdx.x % n_problems
        for i in range(SUMS):
            sums[i] = zero
        for i in range(KD):
            c[i] = centroids[problem, i // d, i % d]
        for i in range(k):
            b[i] = bias[problem, i]
        for j in range(d):
            ref[j] = reference[j]
        # This warp's first row; each turn the block goes THREADS rows on.
        first = np.int64(block) * (THREADS * per_thread) + warp * WARP
        mine = warp * WARP * PAD
        left = min(max((n - first) * d, np.int64(0)), np.int64(WARP * d))
        for m in range(d):
            if m * WARP + lane < left:
                ahead[m] = X[first * d + (m * WARP + lane)]
            else:
                ahead[m] = zero
        for turn in range(per_thread):
            sync_warp()
            for m in range(d):
                at = m * WARP + lane
                shown[mine + at // d * PAD + at % d] = ahead[m]
            sync_warp()
            row = first + lane
            first += THREADS
            if turn + 1 < per_thread:
                left = min(max((n - first) * d, np.int64(0)), np.int64(WARP * d))
                for m in range(d):
                    if m * WARP + lane < left:
                        ahead[m] = X[first * d + (m * WARP + lane)]
                    else:
                        ahead[m] = zero
            weight, norm = zero, zero
            if row < n:
                weight = T(s[row]) if weighted else one
                for j in range(d):
                    y[j] = shown[mine + lane * PAD + j] - ref[j]
                    norm += y[j] * y[j]
            else:
                for j in range(d):
                    y[j] = zero
            cost = zero
            if weighting == FUZZY:
                least = T(np.inf)
                for i in range(k):
                    t[i] = zero
                    for j in range(d):
                        t[i] += (y[j] - c[i * d + j]) * (y[j] - c[i * d + j])
                    if t[i] < least:
                        least = t[i]
                total = zero
                for i in range(k):
                    t[i] = least / t[i] if t[i] > zero else one
                    u[i] = t[i]
                    if power != one:
                        x = log2(t[i]) * power if t[i] > tiny else floor
                        u[i] = exp2(x) if x > floor else zero
                    total += u[i]
                shrunk = one / total
                share = weight * shrunk
                if power != one:
                    x = -log2(total) / power
                    shrunk = exp2(x if x > floor else floor)
                cost = weight * least * shrunk
                for i in range(k):
                    sums[KD + k + i] += u[i] * share
                    t[i] = u[i] * t[i] * share * shrunk
                    sums[KD + i] += t[i]
                # A row that is not finite makes none of these sums so.
                cost += norm * zero
            else:
                best = T(-np.inf)
                for i in range(k):
                    t[i] = b[i]
                    for j in range(d):
                        t[i] += y[j] * c[i * d + j]
                    if t[i] > best:
                        best = t[i]
                if weighting == HARD:
                    rest = weight
                    for i in range(k):
                        t[i] = zero if best > t[i] else rest
                        rest -= t[i]
                        sums[KD + i] += t[i]
                        sums[KD + k + i] += t[i]
                    cost = weight * best
                else:
                    total, moment = zero, zero
                    for i in range(k):
                        t[i] = t[i] - best
                        if not t[i] > floor:
                            t[i] = floor
                        u[i] = exp2(t[i])
                        total += u[i]
                        moment += u[i] * t[i]
                    inverse = one / total
                    share = weight * inverse
                    if weighting == EQUILIBRIUM:
                        mean = moment * inverse
                        slope = share * ln2
                        level = share - slope * mean
                        for i in range(k):
                            sums[KD + k + i] += u[i] * share
                            t[i] = u[i] * (level + slope * t[i])
                            sums[KD + i] += t[i]
                        cost = weight * (best + mean)
                    else:
                        for i in range(k):
                            t[i] = u[i] * share
                            sums[KD + i] += t[i]
                            sums[KD + k + i] += t[i]
                        cost = weight * (best + log2(total))
            for i in range(k):
                for j in range(d):
                    sums[i * d + j] += t[i] * y[j]
            sums[SUMS - 2] += weight * norm
            sums[SUMS - 1] += cost
        # The block's sums: each thread shows its own, SEGMENTS threads add those of one number.
        cuda.syncthreads()
        for i in range(SUMS):
            shown[i * SPAN + tid] = sums[i]
        cuda.syncthreads()
        segment = tid % SEGMENTS
        for start in range(0, SUMS, TOGETHER):
            which = start + tid // SEGMENTS
            part = 0.0
            if which < SUMS:
                for i in range(TOGETHER):
                    part += np.float64(shown[which * SPAN + segment + i * SEGMENTS])
            parts[tid] = part
            cuda.syncthreads()
            if segment == 0 and which < SUMS:
                whole = 0.0
                for i in range(SEGMENTS):
                    whole += parts[tid + i]
                partial[block, problem, which] = whole
            cuda.syncthreads()

    return kernel(statistics)


def fused_width(k: int, d: int) -> int:
    """Numbers a problem: sum_wx (k, d), sum_w (k,), sum_p (k,), sum s ||y||^2, sum s e."""
    return k * d + 2 * k + 2


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


@lru_cache(None)
def add_chunk() -> Kernel:
    """`add_onto` for what a chunk leaves, in one launch.

    IN products (batches, S k d), sums (tiles, 2 S k), costs (tiles, 2 S)
    IN/OUT totals: those of the three, one after the other; grid: all of them
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
    """A chunk of rows about the reference; rows past the last are zero.

    IN X (n, d), first, n (rows that X has), reference (d,); grid: chunk rows / rows a block
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
    """What the columns of a row share, and the row's part of the objective.

    IN scores (chunk, S k) without bias, bias (S, k), half_norm, Y, centroids (S k, d) (FUZZY
    alone), s, first, n, power; grid: chunk / TILE times S, the problem fastest
    OUT shared (chunk, S, 4): EQUILIBRIUM best, level, slope, share; MAXIMUM_ENTROPY best and
    share; HARD index and weight; FUZZY least, scale, share, and scores become squared distances
    OUT costs (chunk / TILE, 2 S): sum s 1/2 ||y||^2, sum s e of the tile
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
                    # By q = 2 a score is 2 y . c - ||c||^2. Where digits cancel: by differences.
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
    """Scores become s w in place; sums of s w and s p over each tile of rows.

    ``columns`` threads stand side by side, the others of a block below them.
    IN scores (chunk, S k) from `weigh_rows`, bias (S, k), shared, power; grid: chunk / TILE times
    ceil(S k / columns), the columns fastest
    OUT scores = s w; sums (chunk / TILE, 2 S k): all sums of s w, then all of s p
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
    """Threads side by side over so many columns: a power of two."""
    most = min(THREADS, 8 if SIMULATED else 128)
    return max(min(most, 1 << math.ceil(math.log2(max(width, 1)))), THREADS // TILE)


@lru_cache(None)
def column_sums(dtype: Real, columns: int) -> Kernel:
    """Sums of each tile's rows; IN values (chunk, width), OUT sums (chunk / TILE, width)."""
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


@lru_cache(None)
def nearest(dtype: Real, lanes: int) -> Kernel:
    """The first of the highest scores, and the squared distance to it from differences.

    IN scores (chunk, k) without bias, bias (1, k), X (n, d), first, n, centroids (k, d) float64;
    grid: chunk / rows a block
    OUT labels (n,), distances (n,), sums (chunk / rows a block, 1) of the latter
    """
    T = dtype
    ROWS = THREADS // lanes

    def find(
        scores: Any, bias: Any, X: Any, first: Any, n: Any, centroids: Any, labels: Any,
        distances: Any, sums: Any,
    ) -> None:  # fmt: skip
        scratch = cuda.shared.array(THREADS, T)
        scratch64 = cuda.shared.array(THREADS, np.float64)
        parts = cuda.shared.array(THREADS, np.float64)
        tid = cuda.threadIdx.x
        lane = tid % lanes
        k = bias.shape[1]
        row = cuda.blockIdx.x * ROWS + tid // lanes
        best = T(-np.inf)
        for i in range(lane, k, lanes):
            t = scores[row, i] + bias[0, i]
            if t > best:
                best = t
        best = lanes_max(best, lanes, scratch)
        found = T(-k)
        for i in range(lane, k, lanes):
            if not best > scores[row, i] + bias[0, i]:
                found = max(found, T(-i))
        label = min(np.int64(-lanes_max(found, lanes, scratch)), np.int64(k - 1))
        d2 = 0.0
        if first + row < n:
            for j in range(lane, X.shape[1], lanes):
                y = np.float64(X[first + row, j]) - centroids[label, j]
                d2 += y * y
        d2 = lanes_sum(d2, lanes, scratch64)
        parts[tid] = np.float64(T(d2))
        if lane == 0 and first + row < n:
            labels[first + row] = label
            distances[first + row] = T(d2)
        cuda.syncthreads()
        if tid == 0:
            total = 0.0
            for i in range(0, THREADS, lanes):
                total += parts[i]
            sums[cuda.blockIdx.x, 0] = total

    return kernel(find)


@lru_cache(None)
def closest(dtype: Real, columns: int, weighted: bool, update: bool) -> Kernel:
    """How far rows are from the seeds of several seedings, were a candidate added to each.

    IN scores (chunk, S L) by q = 2 without bias, bias (S, L), half_norm, Y, candidates (S L, d),
    s, first, n; grid: chunk / TILE times ceil(S L / columns), the columns fastest
    IN/OUT distances (S, n): minima replace them if ``update``, which asks for L = 1
    OUT sums (chunk / TILE, S L) = sum s min(distance, ||y - candidate||^2)
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
                    # 0 times what is not finite is NaN: such a row spoils the sum.
                    total += (weight + zero * norm) * d2
        parts[tid] = np.float64(total)
        cuda.syncthreads()
        if tid < columns and column < width:
            whole = 0.0
            for slot in range(SLOTS):
                whole += parts[slot * columns + tid]
            sums[tile, column] = whole

    return kernel(measure)


@lru_cache(None)
def row_masses(weighted: bool, measured: bool, farthest: bool) -> Kernel:
    """Of each stretch of ``size`` rows: the sum of s times distance, or where the farthest row is.

    IN distances (S, n) (if ``measured``), s, n, size; grid: stretches times S, the seeding fastest
    OUT masses (S, stretches); for ``farthest`` the largest distance of a row with s > 0, else -1,
    and rows (S, stretches), its first index
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
    """Least and greatest of each feature over stretches of rows; NaN where a row has one.

    IN X (n, d), n, size; grid: stretches times ceil(d / THREADS), the features fastest
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
                if not x >= least:
                    least = x
                if not x <= greatest:
                    greatest = x
            low[stretch, j] = least
            high[stretch, j] = greatest

    return kernel(find)


@lru_cache(None)
def gather(dtype: Real) -> Kernel:
    """IN X (n, d), rows (m,); OUT out (m, d) float64 = X[rows]; grid: all m d."""

    def copy(X: Any, rows: Any, out: Any) -> None:
        at = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        row, j = at // X.shape[1], at % X.shape[1]
        if row < rows.shape[0]:
            out[row, j] = np.float64(X[rows[row], j])

    return kernel(copy)


@lru_cache(None)
def depths(equilibrium: bool, weighted: bool) -> Kernel:
    """Unclamped memberships of some columns, in float64 from differences (rescue.cpp).

    IN X (n, d), s, first, n, centroids (k, d), q = alpha log2(e), columns (m,); grid: chunk rows
    OUT log_p (chunk, m) = log2 p, -inf past the last row and where s is 0
    OUT tilt (chunk, m) = s times the factor of Eq. 38 (1 without equilibrium)
    """

    def measure(
        X: Any, s: Any, first: Any, n: Any, centroids: Any, q: Any, columns: Any, log_p: Any,
        tilt: Any,
    ) -> None:  # fmt: skip
        row = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        weight = 0.0
        if first + row < n:
            weight = np.float64(s[first + row]) if weighted else 1.0
        best, total, moment = -np.inf, 0.0, 0.0
        if weight > 0:
            # Sums relative to the largest exponent so far.
            for i in range(centroids.shape[0]):
                r = 0.0
                for j in range(centroids.shape[1]):
                    y = np.float64(X[first + row, j]) - centroids[i, j]
                    r += y * y
                r *= -0.5 * q
                if r > best:
                    shrink = exp2_64(best - r)
                    moment = (moment + total * (best - r)) * shrink if shrink > 0 else 0.0
                    total *= shrink
                    best = r
                u = exp2_64(r - best)
                total += u
                if u > 0:
                    moment += u * (r - best)
        for m in range(columns.shape[0]):
            if weight > 0:
                r = 0.0
                for j in range(centroids.shape[1]):
                    y = np.float64(X[first + row, j]) - centroids[columns[m], j]
                    r += y * y
                r = -0.5 * q * r - best
                log_p[row, m] = r - log2_64(total)
                tilt[row, m] = weight * (1.0 + LN2 * (r - moment / total) if equilibrium else 1.0)
            else:
                log_p[row, m] = -np.inf
                tilt[row, m] = 0.0

    return kernel(measure)


@lru_cache(None)
def largest_depths() -> Kernel:
    """IN log_p (chunk, m); OUT the largest finite (chunk / TILE, m) of tiles; grid: all these."""

    def find(log_p: Any, largest: Any) -> None:
        at = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        tile, m = at // largest.shape[1], at % largest.shape[1]
        if tile < largest.shape[0]:
            most = -np.inf
            for row in range(tile * TILE, (tile + 1) * TILE):
                if log_p[row, m] > most and log_p[row, m] < np.inf:
                    most = log_p[row, m]
            largest[tile, m] = most

    return kernel(find)


@lru_cache(None)
def raise_depths() -> Kernel:
    """Weights 2^(log2 p - exponent) times tilt and times s; grid: chunk rows times m.

    IN log_p, tilt (chunk, m), s by `depths` in tilt, exponent (m,)
    OUT log_p = weights; tilt = the same without the factor of Eq. 38
    """

    def scale(log_p: Any, tilt: Any, s: Any, first: Any, n: Any, exponent: Any) -> None:
        at = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        row, m = at // log_p.shape[1], at % log_p.shape[1]
        if row < log_p.shape[0]:
            p, w = 0.0, 0.0
            if first + row < n and log_p[row, m] > -np.inf:
                p = exp2_64(log_p[row, m] - exponent[m])
                w = p * tilt[row, m]
                p *= np.float64(s[first + row]) if s.shape[0] > 1 else np.float64(s[0])
            log_p[row, m] = w
            tilt[row, m] = p

    return kernel(scale)


@lru_cache(None)
def product(dtype: Real, transposed: bool) -> Kernel:
    """A matrix product without a library.

    IN A (M, L), B (N, L): OUT out (1, M, N) = A B^T; or, ``transposed``, A (rows, M), B (rows, N):
    OUT out (batches, M, N) = A^T B over each ``depth`` rows; grid: batches times tiles
    """
    T = dtype
    WIDE = 4 if SIMULATED else 8  # threads side by side
    HIGH = THREADS // WIDE
    EACH = 2 if SIMULATED else 4  # rows and columns that a thread sums
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
    """Blocks that `product` takes for (batches, m, n)."""
    rows = THREADS // (4 if SIMULATED else 8) * (2 if SIMULATED else 4)
    columns = (4 if SIMULATED else 8) * (2 if SIMULATED else 4)
    return -(-m // rows) * -(-n // columns) * batches
