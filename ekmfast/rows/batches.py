"""Random batches of rows that are at hand."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ekmfast.rows.protocol import RowsAtHand

Float64 = NDArray[np.float64]

# A batch of many rows consists of at least so many stretches of consecutive rows.
STRETCHES = 1024


class ShuffledBatches:
    """A random partition of the rows into batches, the same in every epoch.

    The rows may be sorted, so a batch is drawn at random from all of them. A long batch is drawn in
    stretches of a few consecutive rows, which keeps the index short and makes copying fast.
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
        # The first batch also takes the rows after the last whole stretch.
        return self.rows.stretches(self.stretches[b], self.length, rest=b == 0)

    def _mass(self, b: int) -> float:
        s, whole = self.rows.sample_weight, self.rows.n_rows // self.length * self.length
        if s is None:
            over = self.rows.n_rows - whole
            return float(len(self.stretches[b]) * self.length + (0 if b else over))
        # The weights are summed in the order of the batch's rows, as the kernels sum them.
        some = s[:whole].reshape(-1, self.length)[self.stretches[b]].ravel()
        some = some if b else np.concatenate([some, s[whole:]])
        return float(some.sum(dtype=np.float64))

    def visit(
        self, random_state: np.random.RandomState
    ) -> Generator[tuple[int, RowsAtHand], None, None]:
        """Yield the number of each batch and its rows, in a new random order."""
        for b in random_state.permutation(len(self)):
            yield int(b), self[b]
