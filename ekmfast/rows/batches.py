"""Batches of rows that are at hand, drawn from all over them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ekmfast.rows.protocol import RowsAtHand

Float64 = NDArray[np.float64]

# Least number of stretches of consecutive rows that a batch of many rows is made of.
STRETCHES = 1024


class ShuffledBatches:
    """Rows cut at random into batches that stay the same from visit to visit.

    Rows may come sorted, so a batch is drawn from all over; in stretches of a few rows where it is
    long enough for that, which keeps the index short and the copies quick.
    """

    def __init__(
        self, rows: RowsAtHand, batch_size: int, random_state: np.random.RandomState
    ) -> None:
        self.rows = rows
        self.length = max(1, batch_size // STRETCHES)
        stretches = random_state.permutation(rows.n_rows // self.length)
        self.stretches = np.array_split(stretches, -(-rows.n_rows // batch_size))
        self.masses = np.array([self._mass(b) for b in range(len(self))])

    def __len__(self) -> int:
        return len(self.stretches)

    def __getitem__(self, b: int) -> RowsAtHand:
        # The first batch takes the rows that are left over.
        return self.rows.stretches(self.stretches[b], self.length, rest=b == 0)

    def _mass(self, b: int) -> float:
        s, whole = self.rows.sample_weight, self.rows.n_rows // self.length * self.length
        if s is None:
            over = self.rows.n_rows - whole
            return float(len(self.stretches[b]) * self.length + (0 if b else over))
        # In the order of the rows of the batch, as their sums are.
        some = s[:whole].reshape(-1, self.length)[self.stretches[b]].ravel()
        some = some if b else np.concatenate([some, s[whole:]])
        return float(some.sum(dtype=np.float64))

    def visit(
        self, random_state: np.random.RandomState
    ) -> Generator[tuple[int, RowsAtHand], None, None]:
        """Yield the number of each batch and its rows, in an order drawn anew."""
        for b in random_state.permutation(len(self)):
            yield int(b), self[b]
