"""The kernel for few centroids of few features: each thread keeps all sums in registers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

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
)
from ekmfast.rows.cuda.layer import (
    SEGMENTS,
    THREADS,
    Kernel,
    kernel,
    sync_warp,
)

# With at most so many sums and features the fused kernel spills no registers to memory
# (tests/test_cuda_ptx.py), and the shared memory suffices for a thread block.
FUSED_SUMS = {np.float32: 84, np.float64: 34}

FUSED_FEATURES = {np.float32: 16, np.float64: 8}


def fits_fused(dtype: Real, k: int, d: int) -> bool:
    """Whether a thread's registers hold K centroids of D features and the sums."""
    for_rows = max(2 * d - 16, 0)  # registers for a long row and for the next one
    return d <= FUSED_FEATURES[dtype] and fused_width(k, d) + for_rows <= FUSED_SUMS[dtype]


@lru_cache(None)
def fused(dtype: Real, k: int, d: int, weighting: int, weighted: bool) -> Kernel:
    """The sums of each thread block for several problems; `fused_width` lists the sums.

    A thread block reads THREADS * per_thread rows for one problem.
    IN X (n * d,), s (n,) or one number, reference (d,), centroids (S, k, d) times q (without q for
    FUZZY), bias (S, k), power; grid: ceil(n / (THREADS * per_thread)) times S, the problem varying
    fastest
    OUT partial (the same number, S, fused_width)
    """
    T, exp2, log2 = dtype, _exp2(dtype), _log2(dtype)
    KD, SUMS = k * d, fused_width(k, d)
    WARP = min(32, THREADS)
    PAD = d + 1 - d % 2  # an odd distance between rows avoids conflicts between memory banks
    TOGETHER = THREADS // SEGMENTS
    SPAN = THREADS + SEGMENTS
    SHOWN = max(THREADS * PAD, SUMS * SPAN)
    zero, one, ln2 = T(0), T(1), T(LN2)
    floor, tiny = T(FLOOR[dtype]), T(MIN_NORMAL[dtype])

    def statistics(
        X: Any, s: Any, n: Any, n_problems: Any, per_thread: Any, reference: Any, centroids: Any,
        bias: Any, power: Any, partial: Any,
    ) -> None:  # fmt: skip
        shown = cuda.shared.array(SHOWN, T)  # holds rows, and at the end sums
        parts = cuda.shared.array(THREADS, np.float64)
        sums = cuda.local.array(SUMS, T)
        c = cuda.local.array(KD, T)
        b = cuda.local.array(k, T)
        ref = cuda.local.array(d, T)
        y = cuda.local.array(d, T)
        t = cuda.local.array(k, T)
        u = cuda.local.array(k, T)
        next_row = cuda.local.array(d, T)
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
        # The first row of this warp; each turn the thread block moves on by THREADS rows.
        first = np.int64(block) * (THREADS * per_thread) + warp * WARP
        mine = warp * WARP * PAD
        left = min(max((n - first) * d, np.int64(0)), np.int64(WARP * d))
        for m in range(d):
            if m * WARP + lane < left:
                next_row[m] = X[first * d + (m * WARP + lane)]
            else:
                next_row[m] = zero
        for turn in range(per_thread):
            sync_warp()
            for m in range(d):
                at = m * WARP + lane
                shown[mine + at // d * PAD + at % d] = next_row[m]
            sync_warp()
            row = first + lane
            first += THREADS
            if turn + 1 < per_thread:
                left = min(max((n - first) * d, np.int64(0)), np.int64(WARP * d))
                for m in range(d):
                    if m * WARP + lane < left:
                        next_row[m] = X[first * d + (m * WARP + lane)]
                    else:
                        next_row[m] = zero
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
                # The other terms may be finite although the row is not; 0 times its norm is then
                # NaN.
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
        # The sums of the thread block: each thread writes its own to shared memory, and SEGMENTS
        # threads add those of one number.
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
    """How many sums a problem has: sum_wx (k, d), sum_w (k,), sum_p (k,), sum s ||y||^2, sum s e.

    e is the part of a row in the objective, in units of scores.
    """
    return k * d + 2 * k + 2
