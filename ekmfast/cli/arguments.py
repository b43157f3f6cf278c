"""Parse the numbers in the arguments of several commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ekmfast._arguments import shown
from ekmfast._parameters import ALPHA, COUNT, POSITIVE, AnyOf, Constraint, Integer, Number, OneOf


def reader(read: Callable[[str], Any], constraint: Constraint) -> Callable[[str], Any]:
    """What argparse calls for an argument: reads its text as a number and checks it."""

    def argument(text: str) -> Any:
        try:
            value = read(text)
        except ValueError:  # the constraint says what would be a number
            value = text
        if constraint.fault(value) is not None:
            raise argparse.ArgumentTypeError(
                f"must be {constraint.allowed(value)}, got {shown(text)}"
            )
        return value

    return argument


def _integer(text: str) -> int:
    # int() takes more than digits: spaces, underscores and the digits of other scripts.
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _name_or_number(text: str) -> str | float:
    return text if ALPHA.fault(text) is None else float(text)


def _auto_or_integer(text: str) -> str | int:
    return text if text == "auto" else _integer(text)


count = reader(_integer, COUNT)
count_or_auto = reader(_auto_or_integer, AnyOf(OneOf("auto"), COUNT))
positive = reader(float, POSITIVE)
share = reader(float, Number(0, 0.5, open_low=True))
alpha = reader(_name_or_number, ALPHA)
# Some commands draw from the seeds that follow the one given.
seed = reader(_integer, Integer(0, 2**32 - 1001))
