"""Sums over chunks of rows: those of Eq. 39 for given centroids, or for given weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.division import DEPTH, whole_depths
from ekmfast.rows.cuda.kernels import TILE
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import THREADS, ceil_div, upload
from ekmfast.rows.cuda.passes.base import Passes
from ekmfast.rows.cuda.passes.centroids import Centroids
from ekmfast.rows.cuda.passes.chunks import buffers_for, weighed

Float64 = NDArray[np.float64]


def add_partial(values: Any, count: int, totals: Any) -> None:
    """Add the first ``count`` numbers of each row of values to the total of the row."""
    launch(kernels.add_partial(), totals.shape[0], values, count, totals)


def add_products(values: Any, count: int, totals: Any) -> None:
    """Add the first ``count`` rows of values to the totals."""
    slices = kernels.slices_for(totals.shape[0])
    blocks = ceil_div(totals.shape[0] * slices, THREADS)
    launch(kernels.add_onto(slices), blocks, values, count, totals)


def sum_chunks(passes: Passes, dtype: Any, c: Centroids, k: int) -> dict[str, Float64]:
    """The sums of S problems: ``wx`` (S K D,), and ``sums``, whose rows are those of `Buffers`."""
    S, d = len(c.q), passes.held.d
    width = S * k
    totals = passes.kept.mirror(
        "chunks",
        S,
        k,
        wx=((width * d,), np.float64),
        sums=((2 * (width + S),), np.float64),
    )

    def work() -> None:
        totals.clear()
        for at in weighed(passes, dtype, c, k):
            b, m = at.buffers, at.rows
            Y, scores, _, products = b.cut(m)
            passes.product.sums(scores, Y, DEPTH, products)
            add_products(b.flat_products, m // DEPTH, totals.card["wx"])
            add_partial(b.sums, m // TILE, totals.card["sums"])

    passes.kept.run(("chunks", dtype, S, k), work)
    totals.fetch()
    return totals.host


def accumulate(passes: Passes, weights: Any) -> tuple[Float64, Float64]:
    """sum_wx (K, D) about the reference and sum_w (K,) for weights (N, K) on the GPU."""
    k, d, T = weights.shape[1], passes.held.d, passes.held.dtype
    b = buffers_for(passes, T, k, 1, split=False)
    columns = kernels.columns_for(k)
    reference, nothing = upload(passes.reference), upload(np.zeros(k, T))
    totals = passes.kept.mirror("update", k, wx=((k * d,), np.float64), w=((k,), np.float64))
    totals.clear()
    for start, X, _s in passes.held.segments():
        n = X.shape[0]
        mine = weights[start : start + n]
        for at in range(0, n, b.rows):
            m = whole_depths(min(b.rows, n - at))
            for values, origin, out in ((X, reference, b.Y), (mine, nothing, b.scores)):
                launch(kernels.prepare(T), m // kernels.PREPARED, values, at, n, origin, out,
                       b.half_norm, b.Y)  # fmt: skip
            Y, scores, _, products = b.cut(m)
            passes.product.sums(scores, Y, DEPTH, products)
            launch(kernels.column_sums(T, columns), m // TILE * ceil_div(k, columns), b.scores,
                   b.sums)  # fmt: skip
            add_products(b.flat_products, m // DEPTH, totals.card["wx"])
            add_partial(b.sums, m // TILE, totals.card["w"])
    totals.fetch()
    return totals.host["wx"].reshape(k, d).copy(), totals.host["w"].copy()
