"""How rows are divided into segments that are sent, chunks that are computed at once, stretches.

A segment holds whole chunks, so that sums over rows that are sent in segments have the bits of sums
over rows in one piece.
"""

from __future__ import annotations

from ekmfast.rows.cuda.layer import SIMULATED, ceil_div, power_of_two

# Rows over which a matrix product sums in the dtype of the rows; sums of these are float64. A chunk
# holds a multiple of it.
DEPTH = 16 if SIMULATED else 1024
# Numbers of the largest matrix of a chunk. On an H200, chunks whose scores fit into the cache were
# slower than larger ones, since matrix products of few rows are slow (docs/cuda.md).
CHUNK_NUMBERS = 256 if SIMULATED else 1 << 25
CHUNK_ROWS = 32 if SIMULATED else 1 << 18
# To draw a row, the GPU sums the probabilities of stretches of so many rows, and the host looks for
# the row in one stretch.
STRETCH = 16 if SIMULATED else 4096
# The number of rows of a segment is a multiple of this, of STRETCH, and of the rows that a thread
# block of the fused kernel sums.
SEGMENT_UNIT = 32 if SIMULATED else 8192
SEGMENT_BYTES = 1 << 10 if SIMULATED else 128 << 20


def whole_depths(rows: int) -> int:
    """The number of rows of a chunk that holds ``rows`` rows, and zeros after them."""
    return ceil_div(rows, DEPTH) * DEPTH


def _most_rows(columns: int) -> int:
    """How many rows a chunk holds whose widest matrix has so many columns: a power of two."""
    return power_of_two(CHUNK_NUMBERS / columns, DEPTH, CHUNK_ROWS)


def chunk_rows(n: int, columns: int) -> int:
    """How many of n rows a chunk holds whose widest matrix has so many columns."""
    return min(_most_rows(columns), whole_depths(n))


def segment_rows(n: int, d: int, itemsize: int) -> int:
    """How many of n rows of D numbers of ``itemsize`` bytes a segment holds."""
    unit = max(SEGMENT_UNIT, _most_rows(d))  # no matrix of a chunk has fewer columns
    most = max(SEGMENT_BYTES // (unit * d * itemsize), 1) * unit
    return min(most, ceil_div(n, unit) * unit)
