"""The CUDA kernels: Eq. 38, Eq. 39 and the objective of arXiv 2402.14490, and what seeding needs.

Each factory makes a kernel for one dtype and one shape, so that loops over K and D unroll and small
arrays become registers. The algebra is that of the CPU's kernels (``csrc/kernels/weigh.inl``): with
``y = x - reference`` and ``q = alpha log2(e)`` centroids arrive as ``q c`` and ``bias = -q/2
||c||^2``, so ``t_k = bias_k + y . (q c_k)`` is the exponent, base 2, of a membership up to a term
that a row shares.

Two ways through the rows:

- *fused*, for few small centroids: a thread holds a row, the centroids and all of its sums in
  registers; the rows are read once and nothing of size N x K exists;
- *chunks*, for all others: `prepare` centres a chunk of rows, a matrix product gives the scores,
  `weigh_rows` finds what the columns of a row share, `weigh_columns` turns scores into weights in
  place, and a second product sums ``w x``.

Sums of float32 are kept in float32 over `ROWS_A_THREAD` rows (`TILE` in chunks) at most, then in
float64, always in the same order: there are no atomic operations. In the simulator a tile is short,
so that few rows have several.
"""

from ekmfast.rows.cuda.kernels.assign import nearest
from ekmfast.rows.cuda.kernels.chunks import (
    add_chunk,
    column_sums,
    columns_for,
    prepare,
    weigh_columns,
    weigh_rows,
)
from ekmfast.rows.cuda.kernels.common import (
    CANCELLED,
    EQUILIBRIUM,
    FLOOR,
    FUZZY,
    HARD,
    LN2,
    MAXIMUM_ENTROPY,
    MIN_NORMAL,
    ROWS_A_THREAD,
    TILE,
    add_groups,
    add_onto,
)
from ekmfast.rows.cuda.kernels.fused import (
    FUSED_FEATURES,
    FUSED_SUMS,
    fits_fused,
    fused,
    fused_width,
)
from ekmfast.rows.cuda.kernels.multiply import product, product_blocks
from ekmfast.rows.cuda.kernels.rescue import exact_memberships, largest_exponents, raise_exponents
from ekmfast.rows.cuda.kernels.seeding import box, closest, gather, row_masses

__all__ = [
    "CANCELLED",
    "EQUILIBRIUM",
    "FLOOR",
    "FUSED_FEATURES",
    "FUSED_SUMS",
    "FUZZY",
    "HARD",
    "LN2",
    "MAXIMUM_ENTROPY",
    "MIN_NORMAL",
    "ROWS_A_THREAD",
    "TILE",
    "add_chunk",
    "add_groups",
    "add_onto",
    "box",
    "closest",
    "column_sums",
    "columns_for",
    "exact_memberships",
    "fits_fused",
    "fused",
    "fused_width",
    "gather",
    "largest_exponents",
    "nearest",
    "prepare",
    "product",
    "product_blocks",
    "raise_exponents",
    "row_masses",
    "weigh_columns",
    "weigh_rows",
]
