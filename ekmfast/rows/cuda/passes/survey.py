"""What is found of the rows before a fit: a reference point, and their bounding box."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import SIMULATED, THREADS, ceil_div, empty, host
from ekmfast.rows.cuda.memory import Held

Float64 = NDArray[np.float64]

REFERENCE_ROWS = 15
# A thread looks at so many rows or more, and there are at most so many stretches of rows.
BOX_ROWS = 2 if SIMULATED else 512
MOST_STRETCHES = 1024


def find_reference(held: Held) -> NDArray[Any]:
    """The median of a few rows, feature by feature, as the CPU's kernels find it."""
    m = min(REFERENCE_ROWS, held.n)
    reference = np.zeros(held.d, held.dtype)
    if m:
        some = held.take(np.arange(m) * held.n // m)
        for j in range(held.d):
            values = np.sort(some[np.isfinite(some[:, j]), j])
            if len(values):
                reference[j] = values[len(values) // 2]
    return reference


def box(held: Held) -> tuple[Float64, Float64]:
    """The smallest and the largest value of each feature."""
    d, T = held.d, held.dtype
    lows, highs = [], []
    for _, X, _s in held.segments():
        n = X.shape[0]
        size = max(BOX_ROWS, ceil_div(n, MOST_STRETCHES))
        stretches = ceil_div(n, size)
        low, high = (empty((stretches, d), T) for _ in range(2))
        launch(kernels.box(T), stretches * ceil_div(d, THREADS), X, n, size, low, high)
        lows.append(host(low).min(axis=0))
        highs.append(host(high).max(axis=0))
    return np.min(lows, axis=0).astype(np.float64), np.max(highs, axis=0).astype(np.float64)
