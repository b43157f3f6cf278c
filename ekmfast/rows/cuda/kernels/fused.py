"""The kernel for few centroids of few features: each thread keeps all sums in registers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.kernels.common import (
    EQUILIBRIUM,
    FLOOR,
    FUZZY,
    HARD,
    LN2,
    MIN_NORMAL,
    Real,
    _exp2,
    _log2,
    _reciprocal,
)
from ekmfast.rows.cuda.layer import (
    SEGMENTS,
    THREADS,
    Kernel,
    kernel,
    larger,
    load_2,
    load_4,
)

# With at most so many sums, and registers for rows and memberships, the fused kernel spills no
# registers to memory (tests/test_cuda_ptx.py), and the shared memory suffices for a thread block.
FUSED_SUMS = {np.float32: 84, np.float64: 34}
FUSED_NUMBERS = {np.float32: 170, np.float64: 70}
# For more centroids the compiler does not unroll the loops of FUZZY, whose body is the longest.
FUZZY_CENTROIDS = {np.float32: 10, np.float64: 4}


def rows_at_once(dtype: Real, k: int, d: int) -> int:
    """How many consecutive rows a thread reads at once, so that their numbers fill wide loads."""
    return 4 if dtype is np.float32 and d <= 2 and k <= 8 else 2


def numbers_a_load(dtype: Real, k: int, d: int) -> int:
    """How many numbers one load reads: 16 bytes where the rows of a thread are a multiple of it."""
    return 4 if dtype is np.float32 and rows_at_once(dtype, k, d) * d % 4 == 0 else 2


def fits_fused(dtype: Real, k: int, d: int, weighting: int = EQUILIBRIUM) -> bool:
    """Whether a thread's registers hold all sums, its rows and their memberships."""
    sums = fused_width(k, d)
    numbers = sums + rows_at_once(dtype, k, d) * (2 * d + 2 * k)
    most = FUZZY_CENTROIDS[dtype] if weighting == FUZZY else k
    return k <= most and sums <= FUSED_SUMS[dtype] and numbers <= FUSED_NUMBERS[dtype]


@lru_cache(None)
def fused(dtype: Real, k: int, d: int, weighting: int, weighted: bool) -> Kernel:
    """The sums of each thread block for several problems; `fused_width` lists the sums.

    A thread block reads THREADS * turns * `rows_at_once` rows for one problem.
    IN X (n * d,), which begins at a multiple of the bytes of a load, s (n,) or one number, first
    and n (rows to begin with and to end before), turns, reference (d,), centroids (S, k, d) times q
    (without q for FUZZY), bias (S, k), power; grid: thread blocks for all rows times S, the problem
    varying fastest
    OUT partial (S, fused_width, blocks), from ``place`` on, where the first block's sums are put
    """
    T, exp2, log2, reciprocal = dtype, _exp2(dtype), _log2(dtype), _reciprocal(dtype)
    KD, SUMS = k * d, fused_width(k, d)
    TOGETHER = THREADS // SEGMENTS
    SPAN = THREADS + SEGMENTS
    SHOWN = SUMS * SPAN
    ROWS, WIDE = rows_at_once(dtype, k, d), numbers_a_load(dtype, k, d)
    RD, RK, CENTROIDS = ROWS * d, ROWS * k, -(-(KD + k) // 4) * 4
    zero, one, ln2 = T(0), T(1), T(LN2)
    floor, tiny = T(FLOOR[dtype]), T(MIN_NORMAL[dtype])

    def statistics(
        X: Any, s: Any, first: Any, n: Any, n_problems: Any, turns: Any, reference: Any,
        centroids: Any, bias: Any, power: Any, partial: Any, place: Any,
    ) -> None:  # fmt: skip
        shown = cuda.shared.array(SHOWN, T)
        c = cuda.shared.array(CENTROIDS, T, alignment=16)  # centroids, then biases
        parts = cuda.shared.array(THREADS, np.float64)
        sums = cuda.local.array(SUMS, T)
        ref = cuda.local.array(d, T)
        y = cuda.local.array(RD, T)
        next_rows = cuda.local.array(RD, T)
        t = cuda.local.array(RK, T)
        u = cuda.local.array(RK, T)
        tid = cuda.threadIdx.x
        block, problem = cuda.blockIdx.x // n_problems, cuda.blockIdx.x % n_problems
        for i in range(SUMS):
            sums[i] = zero
        for i in range(tid, KD + k, THREADS):
            if i < KD:
                c[i] = centroids[problem, i // d, i % d]
            else:
                c[i] = bias[problem, i - KD]
        for j in range(d):
            ref[j] = reference[j]
        cuda.syncthreads()
        # The first of this thread's rows; each turn the block moves on by THREADS * ROWS rows. The
        # next rows are read while the present ones are computed.
        row = first + np.int64(block) * (THREADS * ROWS * turns) + tid * ROWS
        for turn in range(turns + 1):
            if turn > 0:
                for m in range(RD):
                    y[m] = next_rows[m] - ref[m % d]
            here = row - THREADS * ROWS
            if turn < turns:
                if row + ROWS <= n:
                    for m in range(0, RD, WIDE):
                        if WIDE == 4:
                            x0, x1, x2, x3 = load_4(X, row * d + m)
                            next_rows[m + 2] = x2
                            next_rows[m + 3] = x3
                        else:
                            x0, x1 = load_2(X, row * d + m)
                        next_rows[m] = x0
                        next_rows[m + 1] = x1
                else:
                    for m in range(RD):
                        next_rows[m] = X[row * d + m] if row * d + m < n * d else zero
                row += THREADS * ROWS
            if turn == 0:
                continue
            for i in range(k):
                for r in range(ROWS):
                    t[r * k + i] = zero if weighting == FUZZY else c[KD + i]
                for j in range(d):
                    at = c[i * d + j]
                    for r in range(ROWS):
                        if weighting == FUZZY:
                            t[r * k + i] += (y[r * d + j] - at) * (y[r * d + j] - at)
                        else:
                            t[r * k + i] += y[r * d + j] * at
            for r in range(ROWS):
                weight, norm = zero, zero
                if here + r < n:
                    weight = T(s[here + r]) if weighted else one
                    for j in range(d):
                        norm += y[r * d + j] * y[r * d + j]
                cost = zero
                if weighting == FUZZY:
                    least = T(np.inf)
                    for i in range(k):
                        if t[r * k + i] < least:
                            least = t[r * k + i]
                    total = zero
                    for i in range(k):
                        t[r * k + i] = least / t[r * k + i] if t[r * k + i] > zero else one
                        u[r * k + i] = t[r * k + i]
                        if power != one:
                            x = log2(t[r * k + i]) * power if t[r * k + i] > tiny else floor
                            u[r * k + i] = exp2(x) if x > floor else zero
                        total += u[r * k + i]
                    shrunk = one / total
                    share = weight * shrunk
                    if power != one:
                        x = -log2(total) / power
                        shrunk = exp2(x if x > floor else floor)
                    cost = weight * least * shrunk
                    for i in range(k):
                        sums[KD + k + i] += u[r * k + i] * share
                        t[r * k + i] = u[r * k + i] * t[r * k + i] * share * shrunk
                        sums[KD + i] += t[r * k + i]
                    # The other terms may be finite although the row is not; 0 times its norm is
                    # then NaN.
                    cost += norm * zero
                else:
                    best = T(-np.inf)
                    for i in range(k):
                        best = larger(best, t[r * k + i])
                    if weighting == HARD:
                        rest = weight
                        for i in range(k):
                            t[r * k + i] = zero if best > t[r * k + i] else rest
                            rest -= t[r * k + i]
                            sums[KD + i] += t[r * k + i]
                            sums[KD + k + i] += t[r * k + i]
                        cost = weight * best
                    else:
                        total, moment = zero, zero
                        for i in range(k):
                            t[r * k + i] = larger(t[r * k + i] - best, floor)
                            u[r * k + i] = exp2(t[r * k + i])
                            total += u[r * k + i]
                            moment += u[r * k + i] * t[r * k + i]
                        inverse = reciprocal(total)
                        share = weight * inverse
                        if weighting == EQUILIBRIUM:
                            mean = moment * inverse
                            slope = share * ln2
                            level = share - slope * mean
                            for i in range(k):
                                sums[KD + k + i] += u[r * k + i] * share
                                t[r * k + i] = u[r * k + i] * (level + slope * t[r * k + i])
                                sums[KD + i] += t[r * k + i]
                            cost = weight * (best + mean)
                        else:
                            for i in range(k):
                                t[r * k + i] = u[r * k + i] * share
                                sums[KD + i] += t[r * k + i]
                                sums[KD + k + i] += t[r * k + i]
                            cost = weight * (best + log2(total))
                sums[SUMS - 2] += weight * norm
                sums[SUMS - 1] += cost
            for i in range(k):
                for j in range(d):
                    for r in range(ROWS):
                        sums[i * d + j] += t[r * k + i] * y[r * d + j]
        # The sums of the thread block: each thread writes its own to shared memory, and SEGMENTS
        # threads add those of one number.
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
                partial[problem, which, place + block] = whole
            cuda.syncthreads()

    return kernel(statistics)


def fused_width(k: int, d: int) -> int:
    """How many sums a problem has: sum_wx (k, d), sum_w (k,), sum_p (k,), sum s ||y||^2, sum s e.

    e is the part of a row in the objective, in units of scores.
    """
    return k * d + 2 * k + 2
