"""Squared distances in pairs of float64, about twice its digits, with float64 arithmetic alone.

So they are as exact on platforms whose long double is float64: Windows, and macOS on Apple's
processors. The sums and products without error are those of Knuth and Dekker, as in Ogita, Rump
and Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26 (2005).
"""

import numpy as np


def two_sum(a, b):
    """The rounded sum, and its error."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def two_square(a):
    """The rounded square, and its error."""
    carry = (2.0**27 + 1) * a
    high = carry - (carry - a)
    low = a - high
    square = a * a
    return square, ((high * high - square) + 2 * high * low) + low * low


def squared_distances(X, C):
    """The squared distances of rows to centroids as the sum of two arrays, the second small."""
    high, low = np.zeros((2, len(X), len(C)))
    for x, c in zip(X.T.astype(float), C.T.astype(float), strict=True):
        difference, rest = two_sum(x[:, None], -c)
        square, error = two_square(difference)
        high, lost = two_sum(high, square)
        low += lost + error + 2 * difference * rest
    return high, low


def minus_the_least(high, low):
    """Each row of pairs less its least pair, again in pairs."""
    least = (high + low).argmin(1)[:, None]
    difference, error = two_sum(high, -np.take_along_axis(high, least, 1))
    return difference, error + (low - np.take_along_axis(low, least, 1))
