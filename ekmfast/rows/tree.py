"""Sums of many parts in an order that depends on nothing but their number.

Floating-point sums depend on their order. Here parts are added in pairs, pairs in fours and so on,
and what is left over from the right; so a run of 2^i parts that begins at a multiple of 2^i is a
subtree, and may be summed by itself, elsewhere, before: the total has the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar


class Summable(Protocol):
    """What adds up."""

    def __add__(self, other: Any, /) -> Any: ...


T = TypeVar("T", bound=Summable)


def tree_sum(parts: Iterable[T]) -> T:
    """The sum of one part or more, holding at most about log2 of their number at a time."""
    waiting: list[tuple[int, T]] = []  # how many parts each is the sum of: falling powers of 2
    for part in parts:
        total, size = part, 1
        while waiting and waiting[-1][0] == size:
            total, size = waiting.pop()[1] + total, 2 * size
        waiting.append((size, total))
    if not waiting:
        raise ValueError("there is nothing to add")
    _, total = waiting.pop()
    while waiting:
        total = waiting.pop()[1] + total
    return total
