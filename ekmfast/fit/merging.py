"""Merging of coincident centroids, which count as one cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from ekmfast import _core

# Two centroids coincide if alpha times the distance d between them is at most this. They stand for
# one cluster then: which of the two is nearer to a row would depend on rounding errors.
COINCIDENT = 5e-3

# Two centroids also coincide if they are closer than this share of the range of all centroids,
# which is the rounding error of sums over many rows. A larger share would merge distinct clusters
# of data in which one row lies far from all others, since that row makes the range large.
ROUNDING = 1e-14

# Number of distances between centroids that are computed at a time. If all of them, times the
# features, are no more, all pairs are compared.
MERGE_ENTRIES = 1 << 19


def merge_coincident(centroids: NDArray[np.float64], alpha: float) -> NDArray[np.intp]:
    """For each centroid, the index of the first centroid that coincides with it.

    Many centroids are sorted by the coordinate of the largest range, so that coincident ones are
    close to each other in the order. The memory is therefore proportional to K, and so is the work
    if few centroids coincide.
    """
    n_clusters = len(centroids)
    if centroids.size * n_clusters <= MERGE_ENTRIES:
        only: NDArray[np.intp] = _merged(centroids[None], np.array([alpha]))[0]
        return only
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


def merge_all(centroids: NDArray[np.float64], alphas: NDArray[np.float64]) -> NDArray[np.intp]:
    """`merge_coincident` of several results (R, K, D) at alphas (R,), which gives (R, K).

    All results are compared by one call if they are small.
    """
    if centroids.size * centroids.shape[1] > MERGE_ENTRIES:
        return np.stack([merge_coincident(*one) for one in zip(centroids, alphas, strict=True)])
    return _merged(centroids, alphas)


def _merged(centroids: NDArray[np.float64], alphas: NDArray[np.float64]) -> NDArray[np.intp]:
    places, own = np.ascontiguousarray(centroids), np.asarray(alphas, np.float64)
    return _core.merge_close(places, own, 2 * COINCIDENT, ROUNDING).astype(np.intp)


def count_distinct(merged: NDArray[np.intp]) -> int:
    """The number of distinct centroids: those that `merge_coincident` maps to themselves.

    This does not call ``np.unique``, which aborts the process if a daemon thread is inside it when
    the interpreter exits.
    """
    return int(np.count_nonzero(merged == np.arange(len(merged))))
