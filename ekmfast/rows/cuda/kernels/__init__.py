"""The CUDA kernels for Eq. 38, Eq. 39 and the objective of arXiv 2402.14490, and for the starts.

Each function makes a kernel for one dtype and one shape, so that loops over K and D unroll and
small arrays become registers. The formulas are those of the CPU's kernels
(``csrc/kernels/weigh.inl``): with ``y = x - reference`` and ``q = alpha log2(e)``, centroids are
given as ``q c`` and ``bias = -q/2 ||c||^2``. Then the score ``t_k = bias_k + y . (q c_k)`` is the
exponent, in base 2, of a membership, up to a term that is the same for all centroids.

There are two methods:

- *fused*, for few centroids of few features: a thread holds two or four rows and all of its sums in
  registers, and the centroids lie in shared memory. The rows are read once, and no (N, K) matrix
  exists.
- *chunks*, for all others: `prepare` subtracts the reference from a chunk of rows, a matrix product
  gives the scores, `weigh` replaces them by weights, and a second product sums ``w x``. For many
  centroids and for fuzzy c-means `weigh_rows` computes what depends on the row alone, such as the
  sum of its exponentials, and `weigh_columns` replaces the scores.

Sums of float32 numbers are kept in float32 over at most `ROWS_A_THREAD` rows (`TILE` rows in
chunks) and then added in float64, always in the same order: there are no atomic operations. In the
simulator a tile has few rows, so that small tests use several tiles.

``IN`` and ``OUT`` in the docstrings are the kernel's arguments; ``grid`` is the number of thread
blocks, or of threads where it counts elements. A chunk is padded to whole tiles.
"""

from ekmfast.rows.cuda.kernels.assign import nearest
from ekmfast.rows.cuda.kernels.centroids import CENTROIDS_A_BLOCK, scale_centroids
from ekmfast.rows.cuda.kernels.chunks import (
    PREPARED,
    WEIGHED_COLUMNS,
    column_sums,
    columns_for,
    prepare,
    weigh,
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
    add_onto,
    add_partial,
    lanes_in_tile,
    slices_for,
)
from ekmfast.rows.cuda.kernels.fused import (
    FUSED_SUMS,
    fits_fused,
    fused,
    fused_width,
    numbers_a_load,
    rows_at_once,
)
from ekmfast.rows.cuda.kernels.multiply import product, product_blocks
from ekmfast.rows.cuda.kernels.rescue import exact_memberships, largest_exponents, raise_exponents
from ekmfast.rows.cuda.kernels.seeding import box, closest, fill, gather, row_masses

__all__ = [
    "CANCELLED",
    "CENTROIDS_A_BLOCK",
    "EQUILIBRIUM",
    "FLOOR",
    "FUSED_SUMS",
    "FUZZY",
    "HARD",
    "LN2",
    "MAXIMUM_ENTROPY",
    "MIN_NORMAL",
    "PREPARED",
    "ROWS_A_THREAD",
    "TILE",
    "WEIGHED_COLUMNS",
    "add_onto",
    "add_partial",
    "box",
    "closest",
    "column_sums",
    "columns_for",
    "exact_memberships",
    "fill",
    "fits_fused",
    "fused",
    "fused_width",
    "gather",
    "lanes_in_tile",
    "largest_exponents",
    "nearest",
    "numbers_a_load",
    "prepare",
    "product",
    "product_blocks",
    "raise_exponents",
    "row_masses",
    "rows_at_once",
    "scale_centroids",
    "slices_for",
    "weigh",
    "weigh_columns",
    "weigh_rows",
]
