"""Blocks from a list of arrays, or from a function that yields arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from numpy.typing import ArrayLike

from ekmfast.rows.blocks.block import Allocate, Blocks
from ekmfast.rows.columns import column_names


def from_factory(blocks: Callable[[], Iterable[Any]], name: str | None = None) -> Blocks:
    """Blocks that a function makes again for every pass.

    Parameters
    ----------
    blocks : callable
        Called without arguments at the start of each pass; returns an iterable of arrays (n, D),
        or of tuples (array, sample_weight). It must yield the same blocks each time. The same array
        may be refilled for each block, since every block is copied before the next is asked for.
    name : str, default=None
        The name in error messages; None for the name of the function.

    Returns
    -------
    blocks : Blocks

    Raises
    ------
    TypeError
        If ``blocks`` is not callable, or if it returns the same iterator in a later pass.
    ValueError
        If it gives another number of rows in a later pass.
    """
    if not callable(blocks):
        raise TypeError(
            "blocks must be callable, a function that returns an iterable of arrays: a generator "
            f"can be read only once; got {type(blocks).__name__}"
        )
    called = name or str(getattr(blocks, "__name__", "blocks"))
    last: list[Any] = [None]

    def read(_: Allocate) -> Iterator[Any]:
        given = blocks()
        if not (hasattr(given, "__iter__") or hasattr(given, "__getitem__")):
            raise TypeError(
                f"{called} must return an iterable of arrays, got {type(given).__name__}"
            )
        if given is last[0] and iter(given) is given:
            raise TypeError(
                f"{called} returned the same iterator twice, which can be read only once: it "
                "must return a new one for each pass"
            )
        last[0] = given
        yield from given  # which also closes a generator when this one is closed

    return Blocks(read, called, refilled=True)


def from_arrays(
    arrays: Sequence[ArrayLike], sample_weight: Sequence[ArrayLike] | None = None
) -> Blocks:
    """Blocks from a list of arrays, such as memory maps of several files.

    Parameters
    ----------
    arrays : sequence of array-like of shape (n, D)
        C-contiguous float32 and float64 arrays are not copied.
    sample_weight : sequence of array-like of shape (n,), default=None

    Returns
    -------
    blocks : Blocks
        With ``feature_names`` if the arrays are frames.
    """
    if not hasattr(arrays, "__len__") or getattr(arrays, "ndim", 3) != 3:
        raise TypeError(
            f"arrays must be a sequence of arrays, such as [X], got {type(arrays).__name__}"
        )
    weights = [None] * len(arrays) if sample_weight is None else sample_weight
    if len(weights) != len(arrays):
        raise ValueError(f"sample_weight has {len(weights)} blocks, but X has {len(arrays)}")
    pairs = list(zip(arrays, weights, strict=True))
    names = column_names(arrays[0]) if pairs else None
    return Blocks(lambda _: iter(pairs), "the list of arrays", feature_names=names)
