"""Arguments of functions, checked: what is wrong is told by the argument's name and its value."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any

# What PyTorch and NumPy count with.
MOST = 2**31 - 1


def shown(value: Any) -> str:
    """``repr(value)`` on one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes out no integer of more than 4,300 digits
        if isinstance(value, int):
            text = f"(an integer of {value.bit_length()} bits)"
        else:
            text = f"(a {type(value).__name__} that holds an integer too large to write out)"
    return text if len(text) <= 60 else f"{text[:60]}..."


def integer(name: str, value: Any, least: int, most: int = MOST, *, also: str = "") -> int:
    """The integer, at least ``least``; a ValueError, which says what is ``also`` allowed, else."""
    try:
        number = index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number <= most:
        above = f" and at most {most}" if number > most else ""
        allowed = f"{also}an integer of at least {least}{above}"
        raise ValueError(f"{name}={shown(value)}: must be {allowed}")
    return number


def number(
    name: str,
    value: Any,
    least: float,
    most: float = math.inf,
    *,
    without_least: bool = False,
    without_most: bool = False,
    also: str = "",
) -> float:
    """The number as a float, finite and from ``least`` to ``most``; a ValueError else."""
    try:
        real = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        real = math.nan
    too_low = not (real > least if without_least else real >= least)
    too_high = not (real < most if without_most else real <= most)
    if isinstance(value, bool) or too_low or too_high or math.isinf(real):
        if most < math.inf:
            ends = "(["[not without_least], ")]"[not without_most]
            allowed = f"a number in {ends[0]}{least:g}, {most:g}{ends[1]}"
        else:
            allowed = f"a finite number {'above' if without_least else 'of at least'} {least:g}"
        raise ValueError(f"{name}={shown(value)}: must be {also}{allowed}")
    return real


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise a ValueError unless it is one of those."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={shown(value)}: must be one of {', '.join(allowed)}")


def seed(value: Any) -> int | None:
    """``random_state`` of NumPy's generators: None, or an integer of at least 0."""
    if value is None:
        return None
    try:
        number = index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or number < 0:
        raise ValueError(f"random_state={shown(value)}: must be None or an integer of at least 0")
    return number


def path(name: str, value: Any) -> Path:
    """The path; a TypeError if it is none."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}={shown(value)}: must be a str or a path")
    return Path(value)
