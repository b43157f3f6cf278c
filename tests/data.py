"""The imbalanced sets that several test files share, each with its number of clusters."""

import numpy as np


def standardised(X):
    return (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)


CORNERS = ((2000, (-2, 2)), (50, (2, -2)), (200, (4, 4)))


def set_a():
    g = np.random.default_rng(0)
    X = np.vstack([g.standard_normal((q, 2)) + c for q, c in CORNERS])
    return standardised(X), np.repeat([0, 1, 2], [2000, 50, 200])


def set_b():
    g = np.random.default_rng(0)
    X = np.vstack([3.5 * g.random((q, 2)) + c for q, c in CORNERS])
    return standardised(X), np.repeat([0, 1, 2], [2000, 50, 200])


def set_c():
    g = np.random.default_rng(0)
    X = np.vstack(
        [
            g.standard_normal((5000, 2)),
            np.column_stack([3 + 5 * g.random(200), g.random(200)]),
        ]
    )
    return standardised(X), np.repeat([0, 1], [5000, 200])


def set_d():
    g = np.random.default_rng(0)
    corners = ((5, 5), (-5, 5), (-5, -5), (5, -5), (10, 0), (-10, 0), (0, 10), (0, -10))
    X = np.vstack(
        [3 * (g.random((5000, 2)) - 0.5), *(g.standard_normal((50, 2)) + c for c in corners)]
    )
    return standardised(X), np.repeat(np.arange(9), [5000] + [50] * 8)
