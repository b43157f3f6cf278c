"""Parameters of estimators, checked as scikit-learn's are: wrong kinds are TypeErrors."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, cast

import numpy as np
from sklearn.utils import check_random_state

from ekmfast._arguments import MOST, shown


def as_float(value: Real) -> float:
    """``float(value)``, infinite where that overflows; what underflows is 0."""
    try:
        return float(value)
    except OverflowError:
        return np.inf


def check_integer(name: str, value: Any, least: int, most: int = MOST) -> None:
    """Raise unless ``value`` is an integer from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer >= {least}, got {shown(value)}")
    if not least <= int(value) <= most:
        above = f" and <= {most}" if int(value) > most else ""
        raise ValueError(f"{name} must be an integer >= {least}{above}, got {shown(value)}")


def check_number(name: str, value: Any, *, positive: bool) -> None:
    """Raise unless ``value`` is a real number > 0 (or >= 0) that a float can hold."""
    allowed = "a finite number " + ("> 0" if positive else ">= 0")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {allowed}, got {shown(value)}")
    number = as_float(value)
    if not np.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")


def check_seed(random_state: Any) -> np.random.RandomState:
    """The generator that ``random_state`` stands for."""
    try:
        return cast(np.random.RandomState, check_random_state(random_state))
    except (TypeError, ValueError):
        raise ValueError(
            "random_state must be None, an integer from 0 to 2**32 - 1 or a "
            f"numpy.random.RandomState, got {shown(random_state)}"
        ) from None
