"""The kernel that brings centroids into the forms that the other kernels read."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.kernels.common import Real
from ekmfast.rows.cuda.layer import LANES, THREADS, Kernel, kernel, lanes_sum, leading_bits

# How many centroids a thread block prepares.
CENTROIDS_A_BLOCK = THREADS // LANES


@lru_cache(None)
def scale_centroids(dtype: Real, split: bool) -> Kernel:
    """Centroids times q, and their biases.

    LANES threads share a centroid.
    IN y (S k, d) float64, relative to the reference; q (S,) float64
    OUT scaled (S k, d) = q y, plain (S k, d) = y, bias (S, k) = -q/2 ||y||^2
    OUT parts (S k, 3 d), only with ``split``: the leading bits of q y, the rest, and the leading
    bits again, for which see `CublasProduct`
    grid: all centroids / CENTROIDS_A_BLOCK
    """
    T = dtype

    def scale(y: Any, q: Any, scaled: Any, plain: Any, bias: Any, parts: Any) -> None:
        scratch = cuda.shared.array(THREADS, np.float64)
        tid = cuda.threadIdx.x
        lane = tid % LANES
        n, d = y.shape
        k = bias.shape[1]
        row = cuda.blockIdx.x * CENTROIDS_A_BLOCK + tid // LANES
        factor, norm = 0.0, 0.0
        if row < n:
            factor = q[row // k]
            for j in range(lane, d, LANES):
                value = y[row, j]
                norm += value * value
                whole = T(factor * value)
                scaled[row, j] = whole
                plain[row, j] = T(value)
                if split:
                    leading = leading_bits(whole)
                    parts[row, j] = leading
                    parts[row, d + j] = whole - leading
                    parts[row, d + d + j] = leading
        norm = lanes_sum(norm, LANES, scratch)
        if lane == 0 and row < n:
            bias[row // k, row % k] = T(-0.5 * factor * norm)

    return kernel(scale)
