"""`Block`, some rows that are read together, and `Blocks`, a data set of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ekmfast.rows.columns import column_names
from ekmfast.rows.frames import matrix, numbers

# Large enough that threads and disks reach their full speed, and small enough that several blocks
# fit into memory.
BLOCK_BYTES = 16 << 20


class Block(NamedTuple):
    """Some rows, their weights, and the name of the block in error messages."""

    X: NDArray[Any]  # (n, D), float32 or float64, C-contiguous
    sample_weight: NDArray[Any] | None  # (n,), dtype of X
    name: str


class Kind(NamedTuple):
    """What all blocks of one data set have in common."""

    n_features: int
    dtype: np.dtype[Any]
    weighted: bool

    @classmethod
    def of(cls, block: Block) -> Kind:
        return cls(block.X.shape[1], block.X.dtype, block.sample_weight is not None)

    def check(self, block: Block) -> None:
        """Raise an error if a block is not of this kind, which is that of the first block."""
        found, name = Kind.of(block), block.name
        if found.n_features != self.n_features:
            raise ValueError(
                f"{name}: has {found.n_features} features, but the first block has "
                f"{self.n_features}"
            )
        if found.dtype != self.dtype:
            raise TypeError(
                f"{name}: has dtype {found.dtype}, but the first block has {self.dtype}"
            )
        if found.weighted != self.weighted:
            have, lack = ("the first block", "it") if self.weighted else ("it", "the first block")
            raise ValueError(f"{name}: {have} has sample_weight, but {lack} has none")


# Returns a buffer of this shape and dtype. The same buffer may be returned again once the block
# after the next one has been asked for.
Allocate = Callable[[tuple[int, int], DTypeLike], NDArray[Any]]

Read = Callable[[Allocate], Iterable[Any]]


class Blocks:
    """Rows in blocks that can be read again and again.

    The ``from_...`` functions of this module make them. Iterating yields :class:`Block` after
    block. Each is checked: it is 2-dimensional and holds real numbers, all blocks have the same
    number of features and the same dtype, weights are finite and not negative, and blocks that are
    frames have the same columns in the same order. Blocks without rows are left out.

    Attributes
    ----------
    name : str
        The name in error messages.
    feature_names : list of str or None
        Names of the columns, if there are any. If a function makes the blocks, these are the names
        of the first block, which is read for them unless there was a pass before. They can be set,
        for example for a ``.npy`` file.
    """

    def __init__(
        self,
        read: Read,
        name: str,
        *,
        feature_names: Sequence[str] | None = None,
        refilled: bool = False,
    ) -> None:
        self._read = read
        # Blocks are read ahead, so an array that the caller's function refills for each block could
        # change while it is used. Such blocks are copied before the next one is asked for.
        self._refilled = refilled
        self.name = name
        self.feature_names = feature_names
        self._named = not refilled or feature_names is not None
        self._n_rows: int | None = None  # known after a whole pass

    @property
    def n_rows(self) -> int | None:
        """Number of rows of all blocks; None before the first whole pass over them."""
        return self._n_rows

    def __repr__(self) -> str:
        return f"Blocks({self.name!r})"

    @property
    def feature_names(self) -> list[str] | None:
        if not self._named:
            next(iter(self))
        return self._feature_names

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        self._feature_names, self._named = None if names is None else list(names), True

    def __iter__(self) -> Iterator[Block]:
        return self.read(np.empty)

    def read(self, allocate: Allocate) -> Iterator[Block]:
        """Yield the blocks, if possible in buffers from ``allocate``."""
        kind: Kind | None = None
        n_rows = 0
        for index, given in enumerate(self._read(allocate)):
            name = f"block {index} of {self.name} (from row {n_rows:,} on)"
            if isinstance(given, tuple) and len(given) != 2:
                raise ValueError(f"{name}: expected (array, sample_weight), got {len(given)} items")
            X, weight = given if isinstance(given, tuple) else (given, None)
            block = checked(X, weight, name)
            n_rows += len(block.X)
            if not len(block.X):
                continue
            if not self._named:
                self._feature_names, self._named = column_names(X), True
            kind = kind or Kind.of(block)
            kind.check(block)
            names, expected = column_names(X), self._feature_names
            if names is not None and expected is not None and names != expected:
                raise ValueError(f"{name}: has columns {names}, but the first block has {expected}")
            yield _copied(block, allocate) if self._refilled else block
        if kind is None:
            raise ValueError(f"{self.name} has no rows")
        if self._n_rows not in (None, n_rows):
            raise ValueError(
                f"{self.name} gave {n_rows:,} rows, but {self._n_rows:,} in an earlier pass; it "
                "must give the same blocks each time"
            )
        self._n_rows = n_rows


def checked(X: Any, weight: Any, name: str) -> Block:
    """A checked block; error messages contain ``name``."""
    X = matrix(X, name)
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"{name}: expected shape (rows, features), got {X.shape}")
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float64)
    X = np.require(X, requirements=["C", "A"])  # arrays received over a network may be unaligned
    if weight is None:
        return Block(X, None, name)
    weight = numbers(weight)
    if weight.shape != X.shape[:1]:
        raise ValueError(f"{name}: sample_weight has shape {weight.shape}, but X has {X.shape}")
    if weight.dtype.kind not in "biuf":
        raise TypeError(f"{name}: sample_weight must hold numbers, got dtype {weight.dtype}")
    with np.errstate(over="ignore"):
        cast = np.require(weight, X.dtype, ["C", "A"])
    bad = np.flatnonzero(~((cast >= 0) & (cast < np.inf)))
    if bad.size:
        row = bad[0]
        fits = weight[row] < 0 or not np.isfinite(weight[row])
        beyond = "" if fits else f", which {X.dtype} cannot hold"
        raise ValueError(
            f"{name}: sample_weight must be finite and >= 0, got {weight[row]} in row {row}{beyond}"
        )
    return Block(X, cast, name)


def _copied(block: Block, allocate: Allocate) -> Block:
    X = allocate(block.X.shape, block.X.dtype)
    X[...] = block.X
    s = block.sample_weight
    return block._replace(X=X, sample_weight=None if s is None else s.copy())


def _block_rows(block_rows: int | None, row_bytes: int) -> int:
    if block_rows is None:
        return max(1, math.ceil(BLOCK_BYTES / max(1, row_bytes)))
    if isinstance(block_rows, bool) or not isinstance(block_rows, (int, np.integer)):
        raise TypeError(f"block_rows must be an integer >= 1, got {block_rows!r}")
    if block_rows < 1:
        raise ValueError(f"block_rows must be an integer >= 1, got {block_rows!r}")
    return int(block_rows)
