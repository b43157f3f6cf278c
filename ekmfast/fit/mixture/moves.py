"""Moves: two components of a mixture become one, and another one becomes two.

Expectation maximization cannot make such a change step by step, since the likelihood would first
fall. So a search may end with one component for two clusters, and with two components for a cluster
elsewhere. A move (Ueda, Nakano, Ghahramani and Hinton 2000) joins the two, or gives a small
component up, whose rows go to the others, and splits the first. By how much the likelihood will
rise is estimated for all moves at once, before any further iteration. To split a group of rows A
into B and B' adds L(B) + L(B') - L(A), with L of `classified`, and to join A and B takes L(A) +
L(B) - L(A and B). To give A up takes the sum over its rows of how much less likely their second
component is.

A component is split across the longest axis of its rows, at the threshold where two Gaussians
describe the rows along it best, and a few iterations of hard k-means follow. Features are in units
of their standard deviation within components. Far rows would decide all of this, so they are drawn
towards the mean of their component first.

References
----------
N. Ueda, R. Nakano, Z. Ghahramani and G. E. Hinton, "SMEM algorithm for mixture models", Neural
Computation 12, 2109 (2000).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.fit.mixture.classified import Groups
from ekmfast.fit.mixture.rows import ScaledRows, densities
from ekmfast.fit.mixture.student import StudentMixture

Float64 = NDArray[np.float64]

# The least number of rows of a half.
LEAST_HALF = 3
# The variances of halves are shrunk towards that within both as if by so many rows.
HALF_PRIOR = 20.0
# Iterations of hard k-means after a split, at most.
REFINED = 5
# Rows are drawn to so many times the median distance from their mean, at most.
FARTHEST = 1.5
# The least variance of a feature within components, as a share of the largest one.
LEAST_WITHIN = 1e-3
# What takes the rows of a component that is given up.
SEVERAL = -1
# By so much the estimated likelihood of a row may fall.
SLACK = 0.02


def moved_labels(mixture: StudentMixture, rows: ScaledRows, count: int) -> list[NDArray[np.intp]]:
    """Labels of the rows after each of the best moves, ``count`` of them at most.

    There are none if a component has no rows.
    """
    k = len(mixture.weights)
    joint = np.empty((rows.n_rows, k), rows.X.dtype)
    densities(mixture, rows, joint=joint)
    labels = joint.argmax(axis=1)
    members = [np.flatnonzero(labels == i) for i in range(k)]
    if k < 2 or not all(map(len, members)):
        return []
    s = rows.weights * (rows.n_rows / rows.total)
    X, half = _halved(mixture, rows, labels, s)
    halves = Groups.of(X, s, 2 * labels + half, 2 * k, full=mixture.full, n_threads=rows.n_threads)
    gains, falls, pairs = _estimates(halves)

    # What has one component less: all joined pairs, and all that are given up. Each component takes
    # part in K of these, so that the first ones without it are among the least K + count.
    losses = np.concatenate([falls, _losses(joint, s, members)])
    least = np.argsort(losses, kind="stable")[: k + count]
    ending = np.concatenate([pairs[:, 1], np.arange(k)])[least]
    taking = np.concatenate([pairs[:, 0], np.full(k, SEVERAL)])[least]
    rises = gains[:, None] - losses[least]
    split = np.arange(k)[:, None]
    rises[(split == ending) | (split == taking)] = -np.inf
    found = []
    for move in np.argsort(-rises, axis=None, kind="stable")[:count]:
        i, j = np.unravel_index(move, rises.shape)
        if not rises[i, j] >= -SLACK * rows.n_rows:
            break
        after, end, own = labels.copy(), int(ending[j]), members[ending[j]]
        several = taking[j] == SEVERAL
        after[own] = _others(joint[own], end).argmax(axis=1) if several else taking[j]
        after[members[i][half[members[i]]]] = end
        found.append(after)
    return found


def _halved(
    mixture: StudentMixture, rows: ScaledRows, labels: NDArray[np.intp], s: Float64
) -> tuple[Float64, NDArray[np.bool_]]:
    """The rows with far ones drawn towards the mean of their component, and which half they are of.

    Features are in units of their standard deviation within components.
    """
    scatters = mixture.scatters
    variances = np.diagonal(scatters, axis1=1, axis2=2) if mixture.full else scatters
    within = mixture.weights @ variances / mixture.weights.sum()
    return _core.halves_of_labels(
        rows.X,
        s,
        labels.astype(np.int32),
        1 / np.sqrt(np.maximum(within, LEAST_WITHIN * within.max())),
        n_clusters=len(mixture.weights),
        farthest=FARTHEST,
        least=LEAST_HALF,
        prior=HALF_PRIOR,
        refined=REFINED,
        n_threads=rows.n_threads,
    )


def _estimates(halves: Groups) -> tuple[Float64, Float64, NDArray[np.intp]]:
    """By how much the likelihood rises if a component is split into its halves (K,).

    And by how much it falls if two components become one (P,), and which two (P, 2).
    """
    first = np.arange(0, len(halves.mass), 2)
    components = halves.united(first, first + 1)
    common = components.common
    of_halves = halves.likelihoods(common)
    gains = of_halves[first] + of_halves[first + 1] - components.likelihoods(common)
    whole = halves.mass[first + 1] == 0
    return np.where(whole, -np.inf, gains), *components.joined(common)


def _losses(joint: Float64, s: Float64, members: list[NDArray[np.intp]]) -> Float64:
    """By how much the likelihood falls if a component is given up (K,)."""
    found = []
    for i, own in enumerate(members):
        largest = joint[own, i]
        found.append(s[own] @ (largest - _others(joint[own], i).max(axis=1)))
    return np.array(found)


def _others(joint: Float64, i: int) -> Float64:
    """Log densities of rows without those of one component; the array given is changed."""
    joint[:, i] = -np.inf
    return joint
