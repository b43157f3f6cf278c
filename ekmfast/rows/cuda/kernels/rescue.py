"""Kernels for columns whose memberships underflow: their sums get a scale of their own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.kernels.common import LN2, TILE
from ekmfast.rows.cuda.layer import (
    THREADS,
    Kernel,
    exp2_64,
    kernel,
    log2_64,
)


@lru_cache(None)
def exact_memberships(equilibrium: bool, weighted: bool) -> Kernel:
    """Memberships of some columns without a lower bound, in float64 by differences.

    The method is that of csrc/rescue.cpp.
    IN X (n, d), s, first, n, centroids (k, d), q = alpha log2(e), columns (m,); grid: chunk rows
    OUT log_p (chunk, m) = log2 p, -inf after the last row and if s is 0
    OUT tilt (chunk, m) = s times the factor 1 - alpha (d - E) of Eq. 38; s without ``equilibrium``
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
            # The sums are relative to the largest exponent so far and rescaled when it grows.
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
def largest_exponents() -> Kernel:
    """IN log_p (chunk, m); OUT largest (chunk / TILE, m), the maximum of each tile; grid: all."""

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
def raise_exponents() -> Kernel:
    """s w and s p of some columns, multiplied by 2^-exponent; grid: chunk rows times m.

    IN log_p, tilt (chunk, m) of `exact_memberships`, s, first, n, exponent (m,)
    OUT log_p = 2^-exponent s w, tilt = 2^-exponent s p
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
