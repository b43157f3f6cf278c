"""The nearest centroid of each row."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.kernels.common import Real
from ekmfast.rows.cuda.layer import (
    THREADS,
    Kernel,
    kernel,
    lanes_max,
    lanes_sum,
)


@lru_cache(None)
def nearest(dtype: Real, lanes: int) -> Kernel:
    """The first of the largest scores, and the squared distance to its centroid by differences.

    IN scores (chunk * k,) without bias, bias (1, k), X (n, d), first, n, centroids (k, d) float64;
    grid: chunk / rows of a thread block
    OUT labels (n,), distances (n,), sums (1, chunk / rows of a thread block) of the distances
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
        row = np.int64(cuda.blockIdx.x) * ROWS + tid // lanes
        # Unsigned, because Numba adds the length of the array to indices that may be negative.
        at = np.uint64(row * k)
        best = T(-np.inf)
        own: Any = np.int64(0)
        for i in range(lane, k, lanes):
            t = scores[at + np.uint64(i)] + bias[0, i]
            if t > best:
                best = t
                own = i
        largest = lanes_max(best, lanes, scratch)
        found = T(-k) if largest > best else T(-own)
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
            sums[0, cuda.blockIdx.x] = total

    return kernel(find)
