"""Rules that choose alpha."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np


def check_alpha_parameter(alpha: Any) -> None:
    """Refuse what ``EKMeans(alpha=...)`` does not understand."""
    if isinstance(alpha, str):
        if alpha != "dvariance":
            raise ValueError(f"alpha must be 'dvariance' or a number > 0, got {alpha!r}")
    elif isinstance(alpha, bool) or not isinstance(alpha, Real):
        raise TypeError(f"alpha must be 'dvariance' or a number > 0, got {alpha!r}")
    elif not (np.isfinite(float(alpha)) and float(alpha) > 0):
        raise ValueError(f"alpha must be 'dvariance' or a finite number > 0, got {alpha!r}")


def resolve_alpha(alpha: str | float, scale: float, dispersion: float) -> float:
    """The number that a rule stands for.

    ``'dvariance'`` is ``scale / mean_n(1/2 ||x_n - mean||^2)``, the paper's rule: it makes alpha
    times a distance free of the data's units. Where all rows are equal every alpha gives the same
    answer, and ``scale`` itself is used.
    """
    if isinstance(alpha, str):
        value = scale / dispersion if dispersion > 0 else scale
        # Rows that differ by rounding alone can ask for more than a float64 holds.
        return float(min(value, np.finfo(np.float64).max))
    return float(alpha)
