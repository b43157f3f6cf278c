"""How far clusters stand apart, where their number is to be chosen by that.

The distance of two clusters is the Mahalanobis distance of their means m,

    D^2 = (m_i - m_j)^T ((S_i + S_j) / 2)^-1 (m_i - m_j)

(Eq. 32, eq-apart, of docs/mathematics.md), with their scatter matrices S, shrunk towards the common
one as those of mixtures are. It does not ask for a distribution: the two halves of a normal cluster
have the distance 2.65, those of a uniform one 3.46, and those of a cluster with heavier tails less.
So clusters whose distance is larger than `APART` are hardly parts of one, whatever its shape is.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture.labelled import from_labels
from ekmfast.fit.mixture.rows import ScaledRows

Float64 = NDArray[np.float64]

# The distance of clusters that stand apart.
APART = 5.0
# The largest distance of clusters that may be parts of one.
PARTS = math.sqrt(12)
# By how much the criterion of another number must be lower, for each row.
OVERLAP_GAIN = 0.75
# Fewer rows are outliers rather than a cluster.
LEAST_ROWS = 5


def least_distance(rows: ScaledRows, labels: NDArray[np.intp], kind: str) -> float:
    """The smallest distance of two of the clusters, whose labels are 0, 1, 2 ...

    It is 0 for one cluster, and if one has rows of a weight below `LEAST_ROWS`. The rows must not
    be scaled any more. The kind of the scatter matrices is 'full' or 'diag'.
    """
    sizes = np.bincount(labels, rows.weights)
    if len(sizes) < 2 or sizes.min() < LEAST_ROWS:
        return 0.0
    shapes = from_labels(rows, labels, kind, np.inf)
    i, j = np.array(list(combinations(range(len(sizes)), 2))).T
    between = shapes.means[i] - shapes.means[j]
    scatters = (shapes.scatters[i] + shapes.scatters[j]) / 2
    if shapes.full:
        along = np.linalg.solve(scatters, between[..., None])[..., 0]
    else:
        along = between / scatters
    return float(np.sqrt((between * along).sum(axis=1).min()))


def preferring_apart(criteria: Float64, distances: Float64, n_rows: float) -> Float64:
    """Criteria (P,) of 1, 2, 3 ... clusters, raised where more or fewer of them stand apart.

    The largest number whose clusters all stand apart keeps its criterion. A larger number is only
    chosen if none of its clusters may be parts of one, and its own criterion is lower by
    `OVERLAP_GAIN` for each row. A smaller one is not chosen. If clusters of no number stand apart,
    those that may be parts of one are only chosen if their criterion is lower by as much.
    """
    gain = OVERLAP_GAIN * n_rows
    parts = distances <= PARTS
    parts[0] = False
    apart = np.flatnonzero(distances > APART)
    if len(apart) == 0:
        return criteria + gain * parts
    most = int(apart[-1])
    raised = criteria + gain
    refused = parts | (np.arange(len(parts)) < most)
    raised[refused] = np.maximum(raised[refused], raised[most])
    raised[most] = criteria[most]
    return raised
