"""Labels in which two components of a mixture are one: starts for one component less."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture.classified import Groups
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.student import StudentMixture


def joined_labels(mixture: StudentMixture, rows: ScaledRows, count: int) -> list[NDArray[np.intp]]:
    """Labels of the rows for each of the ``count`` pairs of components that are best joined.

    These are the pairs for which the classification likelihood of Gaussian components, with scatter
    matrices shrunk towards the common one, falls least. There are none if a component has no rows.
    """
    labels = label(mixture, rows).astype(np.intp)
    k = len(mixture.weights)
    own = labels >= 0  # the others are of the background, and stay so
    if k < 2 or len(np.unique(labels[own])) < k:
        return []
    groups = Groups.of(rows.X, rows.weights, labels, k, full=mixture.full)
    falls, pairs = groups.joined(groups.common)
    best = np.argsort(falls, kind="stable")[:count]
    return [np.where(labels == j, i, labels) for i, j in pairs[best]]
