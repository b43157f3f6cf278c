"""Sums of many parts in an order that depends only on the number of parts.

The rounding of a floating-point sum depends on the order of its terms. Here parts are added as a
binary tree: neighbours in pairs, the sums of pairs in pairs, and so on; the sums that are left over
are added from right to left. Therefore 2^i consecutive parts that begin at a multiple of 2^i form a
subtree, which another process may sum first without changing a bit of the total.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar


class Summable(Protocol):
    """Objects that can be added."""

    def __add__(self, other: Any, /) -> Any: ...


T = TypeVar("T", bound=Summable)


def tree_sum(parts: Iterable[T]) -> T:
    """The sum of one or more parts; at most about log2 of their number are in memory at a time."""
    # Pairs of a number of parts and their sum; the numbers are falling powers of 2.
    waiting: list[tuple[int, T]] = []
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
