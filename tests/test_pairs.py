"""Distances in pairs of float64 agree with rational arithmetic."""

from fractions import Fraction

import numpy as np
import pairs
import pytest


def exactly(X, C):
    X, C = ([[Fraction(v) for v in row] for row in A.tolist()] for A in (X, C))
    return [[sum((a - b) ** 2 for a, b in zip(x, c, strict=True)) for c in C] for x in X]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e8])
@pytest.mark.parametrize("d", [1, 33])
def test_pairs_hold_twice_the_digits(d, offset, dtype):
    rng = np.random.default_rng(d)
    X = (offset + rng.normal(size=(20, d))).astype(dtype)
    C = (offset + rng.normal(size=(3, d))).astype(dtype)
    high, low = pairs.squared_distances(X, C)
    gap, rest = pairs.minus_the_least(high, low)
    for n, exact in enumerate(exactly(X, C)):
        bound = 8 * d * 2.0**-105
        for k, distance in enumerate(exact):
            found = Fraction(high[n, k]) + Fraction(low[n, k])
            assert abs(found - distance) <= distance * bound
            found = Fraction(gap[n, k]) + Fraction(rest[n, k])
            room = (distance + min(exact)) * bound + (distance - min(exact)) * 2.0**-52
            assert abs(found - (distance - min(exact))) <= room
