"""Labels in which two components of a mixture are one: starts for one component less."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture.kinds import MATRIX_PRIOR, VARIANCE_PRIOR
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.student import StudentMixture
from ekmfast.fit.mixture.sums import moments_of_labels

Float64 = NDArray[np.float64]


def joined_labels(mixture: StudentMixture, rows: ScaledRows, count: int) -> list[NDArray[np.intp]]:
    """Labels of the rows for each of the ``count`` pairs of components that are best joined.

    These are the pairs for which the classification likelihood of Gaussian components, with scatter
    matrices shrunk towards the common one, falls least. There are none if a component has no rows.
    """
    labels = label(mixture, rows)
    k, d = len(mixture.weights), rows.X.shape[1]
    own = labels >= 0  # the others are of the background, and stay so
    if len(np.unique(labels[own])) < k:
        return []
    s = np.ones(len(rows.X)) if rows.sample_weight is None else rows.sample_weight
    means, sums = moments_of_labels(rows.X, s, labels, k, full=mixture.full)
    prior = MATRIX_PRIOR * (d + 1) if mixture.full else VARIANCE_PRIOR
    target = prior * sums.second.sum(axis=0) / sums.mass.sum()

    def fit(mass: float, second: Float64) -> float:
        """Twice the classification likelihood of the rows of one component."""
        scatter = (second + target) / (mass + prior)
        size = np.linalg.slogdet(scatter)[1] if mixture.full else np.log(scatter).sum()
        return float(mass * (2 * np.log(mass) - size))

    with np.errstate(divide="ignore", invalid="ignore"):  # constant features
        alone = [fit(sums.mass[i], sums.second[i]) for i in range(k)]
        losses: list[tuple[float, int, int]] = []
        for i, j in combinations(range(k), 2):
            apart = means[i] - means[j]
            between = np.outer(apart, apart) if mixture.full else apart**2
            mass = sums.mass[i] + sums.mass[j]
            second = sums.second[i] + sums.second[j]
            second = second + sums.mass[i] * (sums.mass[j] / mass) * between
            losses.append((alone[i] + alone[j] - fit(mass, second), i, j))
    best = sorted(losses)[:count]
    return [np.where(labels == j, i, labels).astype(np.intp) for _, i, j in best]
