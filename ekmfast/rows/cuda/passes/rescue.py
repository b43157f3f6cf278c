"""Columns whose memberships underflow in float64 too: their sums get a scale of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.division import DEPTH, chunk_rows
from ekmfast.rows.cuda.kernels import TILE
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import THREADS, ceil_div, empty, host, upload
from ekmfast.rows.cuda.passes.base import Passes
from ekmfast.rows.cuda.passes.centroids import LOG2E

Float64 = NDArray[np.float64]


def rescue(
    passes: Passes,
    centroids: Float64,
    alpha: float,
    columns: NDArray[np.intp],
    wx: Float64,
    w: Float64,
    p: Float64,
    exponent: Float64,
) -> None:
    """Replace the sums of some columns by sums relative to their largest membership."""
    m = len(columns)
    largest = np.full(m, -np.inf)
    for _, found in _depths(passes, centroids, alpha, columns, None):
        largest = np.maximum(largest, found)
    scale = np.where(np.isfinite(largest), largest, 0.0)
    sums = np.zeros((m, passes.held.d + 2))
    for part, _ in _depths(passes, centroids, alpha, columns, scale):
        sums += part
    wx[columns], w[columns], p[columns] = sums[:, :-2], sums[:, -2], sums[:, -1]
    exponent[columns] = scale


def _depths(
    passes: Passes,
    centroids: Float64,
    alpha: float,
    columns: NDArray[np.intp],
    scale: Float64 | None,
) -> Iterator[tuple[Float64, Float64]]:
    """Yield for each chunk the sums (m, D + 2) of m columns, multiplied by 2^-scale.

    If ``scale`` is None, yield the largest log2 p (m,) of each column instead.
    """
    held = passes.held
    d, m = held.d, len(columns)
    chunk = chunk_rows(held.n, max(d, m))
    log_p, tilt = (empty((chunk, m), np.float64) for _ in range(2))
    largest = empty((chunk // TILE, m), np.float64)
    Y, half_norm = empty((chunk, d), np.float64), empty(chunk, np.float64)
    products = empty((chunk // DEPTH, m, d), np.float64)
    tall = kernels.columns_for(m)
    parts = empty((m, chunk // TILE), np.float64)
    measure = kernels.exact_memberships(passes.weighting == "equilibrium", held.weighted)
    on_card = upload(centroids), upload(columns.astype(np.int64))
    exponent = upload(np.zeros(m) if scale is None else scale)
    reference = upload(passes.reference.astype(np.float64))
    for _, X, s in held.segments():
        n = X.shape[0]
        for first in range(0, n, chunk):
            launch(measure, ceil_div(chunk, THREADS), X, s, first, n, on_card[0], alpha * LOG2E,
                   on_card[1], log_p, tilt)  # fmt: skip
            if scale is None:
                blocks = ceil_div(largest.size, THREADS)
                launch(kernels.largest_exponents(), blocks, log_p, largest)
                yield np.empty(0), host(largest).max(axis=0)
                continue
            launch(kernels.raise_exponents(), ceil_div(chunk * m, THREADS), log_p, tilt, s, first,
                   n, exponent)  # fmt: skip
            launch(kernels.prepare(np.float64), chunk // kernels.PREPARED, X, first, n, reference,
                   Y, half_norm, Y)  # fmt: skip
            passes.product.sums(log_p, Y, DEPTH, products)
            sums = [host(products).sum(axis=0)]
            for values in (log_p, tilt):
                launch(kernels.column_sums(np.float64, tall), chunk // TILE * ceil_div(m, tall),
                       values, parts)  # fmt: skip
                sums.append(host(parts).sum(axis=1)[:, None])
            yield np.hstack(sums), np.empty(0)
