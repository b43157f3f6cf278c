"""Chunks of rows whose scores are matrices in the GPU's memory, for any number of centroids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.division import DEPTH, chunk_rows, whole_depths
from ekmfast.rows.cuda.kernels import FUZZY, TILE
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import ceil_div, flat
from ekmfast.rows.cuda.passes.base import Passes
from ekmfast.rows.cuda.passes.centroids import Centroids


class Buffers:
    """The arrays on the GPU for one chunk of rows."""

    def __init__(self, passes: Passes, dtype: Any, k: int, n_problems: int, split: bool) -> None:
        d, width = passes.held.d, k * n_problems
        self.rows = chunk_rows(passes.held.n, max(width, d))
        arrays = passes.kept.scratch(
            (dtype, d, k, n_problems, split),
            Y=((self.rows, d), dtype),
            half_norm=((self.rows,), dtype),
            scores=((self.rows, width), dtype),
            shared=((self.rows, n_problems, 4), dtype),
            sums=((2 * (width + n_problems), self.rows // TILE), np.float64),
            products=((self.rows // DEPTH, width, d), dtype),
            parts=((self.rows if split else 1, 3 * d), dtype),
        )
        self.half_norm, self.shared = arrays["half_norm"], arrays["shared"]
        self.sums = arrays["sums"]
        self.Y, self.scores, self.parts = arrays["Y"], arrays["scores"], arrays["parts"]
        self.products = arrays["products"]
        self.flat_scores = flat(self.scores)
        self.flat_products = self.products.reshape(self.products.shape[0], width * d)
        self._cuts: dict[int, tuple[Any, Any, Any, Any]] = {}

    def cut(self, rows: int) -> tuple[Any, Any, Any, Any]:
        """The first rows of Y, scores and parts, and their products; kept, since it takes time."""
        if rows not in self._cuts:
            self._cuts[rows] = (
                self.Y[:rows],
                self.scores[:rows],
                self.parts[:rows],
                self.products[: rows // DEPTH],
            )
        return self._cuts[rows]


def buffers_for(passes: Passes, dtype: Any, k: int, n_problems: int, split: bool) -> Buffers:
    """The buffers for chunks of so many centroids, made at the first call."""
    shape = dtype, k, n_problems, split
    return passes.kept.buffers(shape, lambda: Buffers(passes, *shape))


@dataclass
class Chunk:
    """A chunk of rows in `Buffers`, whose first ``rows`` rows hold it, padded with zeros."""

    buffers: Buffers
    rows: int
    start: int  # the segment's first row
    first: int  # the chunk's first row in the segment
    X: Any
    s: Any


def scored(passes: Passes, dtype: Any, c: Centroids, k: int, split: bool) -> Iterator[Chunk]:
    """Yield every chunk of rows with its scores, to which the bias is not yet added.

    With ``split`` the scores may be computed from parts of the factors: see `CublasProduct`.
    """
    c.make_ready()
    S, product = len(c.q), passes.product
    split = split and product.splits(dtype, S * k)
    b = buffers_for(passes, dtype, k, S, split)
    centroids = flat(c.scaled, S * k)
    for start, X, s in passes.held.segments():
        n = X.shape[0]
        for at in range(0, n, b.rows):
            m = whole_depths(min(b.rows, n - at))
            launch(kernels.prepare(dtype, split), m // kernels.PREPARED, X, at, n, c.reference,
                   b.Y, b.half_norm, b.parts)  # fmt: skip
            Y, scores, parts, _ = b.cut(m)
            if split:
                product.scores_of_parts(parts, c.parts, scores)
            else:
                product.scores(Y, centroids, scores)
            yield Chunk(b, m, start, at, X, s)


def weighed(passes: Passes, dtype: Any, c: Centroids, k: int) -> Iterator[Chunk]:
    """Yield every chunk of rows with its weights in place of its scores, and their sums."""
    S = len(c.q)
    kind, weighted, power = passes.kind, passes.held.weighted, passes.power(dtype)
    together = kind != FUZZY and k <= kernels.WEIGHED_COLUMNS[dtype]
    lanes, columns = kernels.lanes_in_tile(k), kernels.columns_for(S * k)
    for at in scored(passes, dtype, c, k, split=kind != FUZZY):
        b, tiles, first, n = at.buffers, at.rows // TILE, at.first, at.X.shape[0]
        if together:
            launch(kernels.weigh(dtype, kind, k, weighted), tiles * S, b.flat_scores, c.bias,
                   b.half_norm, at.s, first, n, b.sums)  # fmt: skip
        else:
            launch(kernels.weigh_rows(dtype, kind, lanes, weighted), tiles * S, b.scores, c.bias,
                   b.half_norm, b.Y, flat(c.plain, S * k), at.s, first, n, power, b.shared,
                   b.sums)  # fmt: skip
            launch(kernels.weigh_columns(dtype, kind, columns), tiles * ceil_div(S * k, columns),
                   b.scores, c.bias, b.shared, power, b.sums)  # fmt: skip
        yield at
