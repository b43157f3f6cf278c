"""`Source`: blocks to which functions are applied; `LocalSource` reads them in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ekmfast.rows.ahead import AHEAD, ahead
from ekmfast.rows.blocks import Block, Blocks
from ekmfast.rows.limits import not_finite
from ekmfast.rows.tree import Summable, tree_sum

S = TypeVar("S", bound=Summable)
R = TypeVar("R")


# Returns the block that it is given, or raises an error.
Check = Callable[[Block], Block]
# Applies a function of (block, index) to one block, in this process or on a cluster.
Apply = Callable[[Callable[[Block, int], Any]], Any]


class Source(Protocol):
    """Blocks to which functions are applied, in this process or on a cluster."""

    name: str
    n_threads: int  # that one call of a function should use
    n_rows: int | None  # None if it is not known before the first pass
    n_features: int | None

    @property
    def feature_names(self) -> list[str] | None:
        """Names of the columns, known once a block has been read."""
        ...

    def first(self, function: Callable[[Block, int], R]) -> R:
        """``function(block, 0)`` of the first block."""
        ...

    def sum(self, function: Callable[[Block, int], S]) -> S:
        """The sum of ``function(block, index)`` over all blocks, in the order of `tree_sum`."""
        ...

    def map(
        self,
        function: Callable[[NDArray[Any]], NDArray[Any]],
        n_columns: int | None,
        dtype: Any,
        check: Check = ...,
    ) -> Any:
        """``function(X)`` of the rows of every block, concatenated, after a ``check`` of the block.

        ``function`` returns (n, n_columns), or (n,) if ``n_columns`` is None, of this ``dtype``;
        None is the dtype of the rows.
        """
        ...

    def each(self, indices: Sequence[int] | None = None) -> Generator[Apply, None, None]:
        """Yield, for each block, an `Apply` that applies a function to it.

        ``indices`` are those of the blocks with rows, if they are known.
        """
        ...


def finite(block: Block) -> Block:
    """The block itself; raises an error that names the first row with NaN or infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(block.X.sum()):
            return block
    if (found := not_finite(block.X)) is not None:
        row, column, value = found
        raise ValueError(f"{block.name}: its row {row} holds {value} in column {column}")
    return block


class LocalSource:
    """Blocks that this process reads: a thread reads the next one while one is computed."""

    n_rows: int | None
    n_features: int | None

    def __init__(self, blocks: Blocks, n_threads: int) -> None:
        self.blocks = blocks
        self.name = blocks.name
        self.n_threads = n_threads
        self.n_rows = self.n_features = None  # not known before the blocks are read

    @property
    def feature_names(self) -> list[str] | None:
        return self.blocks.feature_names

    def first(self, function: Callable[[Block, int], R]) -> R:
        return function(next(iter(self.blocks)), 0)

    def sum(self, function: Callable[[Block, int], S]) -> S:
        with closing(read_ahead(self.blocks)) as blocks:
            return tree_sum(function(block, i) for i, block in enumerate(blocks))

    def map(
        self,
        function: Callable[[NDArray[Any]], NDArray[Any]],
        n_columns: int | None,
        dtype: Any,
        check: Check = finite,
    ) -> NDArray[Any]:
        with closing(read_ahead(self.blocks)) as blocks:
            parts = (function(check(block).X) for block in blocks)
            if self.blocks.n_rows is None:  # there was no whole pass yet
                return np.concatenate(list(parts))
            found, end = None, 0
            for part in parts:
                if found is None:
                    found = np.empty((self.blocks.n_rows, *part.shape[1:]), part.dtype)
                begin, end = end, end + len(part)
                found[begin:end] = part
            assert found is not None  # Blocks without rows are refused
            return found

    def each(self, indices: Sequence[int] | None = None) -> Generator[Apply, None, None]:
        with closing(read_ahead(self.blocks)) as blocks:
            for i, block in enumerate(blocks):
                yield partial(_apply, block, i)


def _apply(block: Block, index: int, function: Callable[[Block, int], R]) -> R:
    return function(block, index)


def read_ahead(blocks: Blocks) -> Generator[Block, None, None]:
    """Yield the blocks; the memory of one may be overwritten after the next is asked for."""
    return ahead(blocks.read(BufferPool().allocate))


class BufferPool:
    """Buffers for blocks, used in turn.

    There are `AHEAD` + 3 of them: the caller computes with one, `AHEAD` wait, the reader fills one,
    and the caller may still hold the one before.
    """

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []
        self._next = 0

    def allocate(self, shape: tuple[int, int], dtype: DTypeLike) -> NDArray[Any]:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if len(self._buffers) < AHEAD + 3:
            self._buffers.append(np.empty(n_bytes, np.uint8))
            buffer = self._buffers[-1]
        else:
            buffer = self._buffers[self._next]
            if buffer.nbytes < n_bytes:
                buffer = self._buffers[self._next] = np.empty(n_bytes, np.uint8)
            self._next = (self._next + 1) % len(self._buffers)
        return buffer[:n_bytes].view(dtype).reshape(shape)
