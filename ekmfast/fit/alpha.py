"""Rules that choose alpha."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Multiples of the dvariance alpha that 'auto' tries. Below half of that alpha all centroids
# collapse to the mean; at 32 times it the result is nearly that of hard k-means. Data with heavy
# tails need the large multiples: a few far rows make the mean squared distance large, and so the
# dvariance alpha small.
MULTIPLES = 2.0 ** np.array([-1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5])


def resolve_alpha(alpha: str | float, scale: float, dispersion: float) -> float:
    """The value of alpha that a rule gives, or the number itself.

    ``'dvariance'`` is the rule of the paper, ``scale / mean_n(1/2 ||x_n - mean||^2)``. With it
    alpha times a distance does not depend on the units of the data. If all rows are equal, every
    alpha gives the same result, and ``scale`` itself is used.
    """
    if isinstance(alpha, str):
        value = scale / dispersion if dispersion > 0 else scale
        # If rows differ only by rounding errors, the quotient can exceed the range of float64.
        largest = np.finfo(np.float64).max / MULTIPLES[-1]
        return float(np.clip(value, np.finfo(np.float64).tiny, largest))
    return float(alpha)
