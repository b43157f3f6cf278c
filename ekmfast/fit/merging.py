"""Centroids that coincide are one cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

# Below this alpha * d two centroids are one cluster: rounding alone tells them apart.
COINCIDENT = 5e-3

# Nor are they told apart below this share of the width of all, the rounding of sums of many rows.
# No more than that: where one row lies far from all others, clusters amid these are as near.
ROUNDING = 1e-14

# Distances between centroids that are looked at together.
MERGE_ENTRIES = 1 << 19


def merge_coincident(centroids: NDArray[np.float64], alpha: float) -> NDArray[np.intp]:
    """For each centroid, the first of those that coincide with it.

    Neighbours are looked for in the order of the widest coordinate, in which those that coincide
    lie side by side: memory is in proportion to K, and so is the work where few do.
    """
    n_clusters = len(centroids)
    centred = centroids - centroids.mean(axis=0)
    width = np.ptp(centred, axis=0)
    order = np.argsort(centred[:, width.argmax()], kind="stable")
    centred = centred[order]
    along = centred[:, width.argmax()]
    apart = max(2 * COINCIDENT / alpha, (ROUNDING * float(width.max())) ** 2)
    reach = np.searchsorted(along, along + np.sqrt(apart) * (1 + ROUNDING), side="right")
    group = np.arange(n_clusters)
    step = max(1, MERGE_ENTRIES // n_clusters)
    for start in range(0, n_clusters, step):
        stop = min(start + step, n_clusters)
        last = reach[stop - 1]
        if (group[start:last] == group[start]).all():
            continue
        d2 = cdist(centred[start:stop], centred[start:last], "sqeuclidean")
        here, there = (group[start + found] for found in np.nonzero(d2 <= apart))
        new = here != there
        if new.any():
            edges = np.ones(np.count_nonzero(new), bool), (here[new], there[new])
            graph = coo_matrix(edges, shape=(n_clusters, n_clusters))
            group = connected_components(graph, directed=False)[1][group]
    first = np.full(n_clusters, n_clusters)
    np.minimum.at(first, group, order)
    merged = np.empty(n_clusters, np.intp)
    merged[order] = first[group]
    return merged


def count_distinct(merged: NDArray[np.intp]) -> int:
    """How many centroids `merge_coincident` leaves: those that are the first of their kind.

    Not by ``np.unique``, which aborts the process where a daemon thread is in it at the exit.
    """
    return int(np.count_nonzero(merged == np.arange(len(merged))))
