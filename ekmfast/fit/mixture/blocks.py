"""The rows of one mixture wherever they are: in memory, or in blocks whose sums are added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from ekmfast.fit.mixture.rows import ScaledRows
from ekmfast.fit.mixture.sparse import ScaledSparseRows
from ekmfast.fit.mixture.student import StudentMixture
from ekmfast.fit.mixture.sums import Sums
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.blocks import Block
from ekmfast.rows.blockwise import BlockRows, aligned

Float64 = NDArray[np.float64]
# What is computed of some rows: labels, densities or probabilities.
OfRows = Callable[[ScaledRows], NDArray[Any]]


@dataclass(frozen=True)
class ScaledBlocks:
    """Rows in blocks, minus a centre and in units: for `expectation` as `ScaledRows`.

    Attributes
    ----------
    rows : BlockRows
    total : float
        The sum of the weights of all rows.
    centre : ndarray of shape (D,)
    unit : float > 0
    """

    rows: BlockRows
    total: float
    centre: Float64
    unit: float

    def expectation(self, mixtures: StudentMixture) -> Sums:
        """The sums of one pass over the blocks for several mixtures."""
        one_pass = partial(_sums_of_block, mixtures, self.centre, self.unit, self.rows.n_threads)
        sums: Sums = self.rows.source.sum(one_pass)
        return sums


def _scaled(
    X: Any, s: NDArray[Any] | None, centre: Float64, unit: float, n_threads: int
) -> ScaledRows:
    kind = ScaledSparseRows if issparse(X) else ScaledRows
    return kind(X, s, aligned(centre), unit, n_threads)


def _sums_of_block(
    mixtures: StudentMixture, centre: Float64, unit: float, n_threads: int, block: Block, index: int
) -> Sums:
    return _scaled(block.X, block.sample_weight, centre, unit, n_threads).expectation(mixtures)


def _of_block(
    function: OfRows, centre: Float64, unit: float, n_threads: int, X: NDArray[Any]
) -> NDArray[Any]:
    return function(_scaled(X, None, centre, unit, n_threads))


def scaled(
    rows: ArrayRows | BlockRows, total: float, centre: Float64, unit: float
) -> ScaledRows | ScaledBlocks:
    """Rows minus a centre, in units; ``total`` is the sum of their weights."""
    if isinstance(rows, BlockRows):
        return ScaledBlocks(rows, total, centre, unit)
    return _scaled(rows.X, rows.sample_weight, centre, unit, rows.n_threads)


def map_rows(
    rows: ArrayRows | BlockRows,
    function: OfRows,
    centre: Float64,
    unit: float,
    n_columns: int | None,
    dtype: Any,
) -> Any:
    """A function of all rows, as the same kind of array as X.

    It returns (n, n_columns), or (n,) if ``n_columns`` is None, of this dtype; None is the dtype of
    the rows.
    """
    of_block = partial(_of_block, function, centre, unit, rows.n_threads)
    if isinstance(rows, BlockRows):
        return rows.source.map(of_block, n_columns, dtype)
    return of_block(rows.X)
