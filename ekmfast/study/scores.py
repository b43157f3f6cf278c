"""Compare clusters with the true classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.study.data import Labels
from ekmfast.study.draws import Draw

Codes = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """A clustering of a draw. Each cluster has the number of the class that is matched to it.

    Without classes, clusters are numbered from the largest to the smallest.
    """

    labels: Labels
    centroids: Codes
    scores: dict[str, Any]


def radius(X: Codes) -> float:
    """Root mean square distance from the mean, which is the unit of distances in the report."""
    return float(np.sqrt(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean()))


def scored(X: Codes, draw: Draw, labels: Labels, centroids: Codes, **facts: Any) -> Fit:
    """Give clusters the numbers of their matched classes, and compare them with the classes."""
    from scipy.spatial.distance import cdist, pdist
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    from ekmfast.metrics import cluster_sizes, clustering_accuracy

    k = draw.n_clusters
    rank = ranks(labels, draw)
    labels, centroids = rank[labels], centroids[np.argsort(rank)]
    unit = radius(X)
    # In units of the codes' root mean square distance from their mean.
    places = {
        "to_origin": (np.linalg.norm(centroids, axis=1) / unit).tolist(),
        "to_each_other": (pdist(centroids) / unit).tolist(),
    }
    scores = facts | {"sizes": cluster_sizes(labels, k).tolist(), "centroids": places}
    if draw.classes is not None:
        means = np.stack([X[draw.classes == c].mean(axis=0) for c in range(k)])
        places["to_class_means"] = np.diag(cdist(centroids, means) / unit).tolist()
        scores |= {
            "ari": float(adjusted_rand_score(draw.classes, labels)),
            "nmi": float(normalized_mutual_info_score(draw.classes, labels)),
            "accuracy": clustering_accuracy(draw.classes, labels),
            "true_sizes": cluster_sizes(draw.classes, k).tolist(),
        }
    return Fit(labels, centroids, scores)


def ranks(labels: Labels, draw: Draw) -> Labels:
    """The new number of each cluster. This affects only colours and tables."""
    from scipy.optimize import linear_sum_assignment

    k = draw.n_clusters
    rank = np.empty(k, np.int64)
    if draw.classes is None:
        rank[np.argsort(-np.bincount(labels, minlength=k), kind="stable")] = np.arange(k)
        return rank
    # Match clusters and classes so that they share the most samples.
    table = np.zeros((k, k), np.int64)
    np.add.at(table, (labels, draw.classes), 1)
    clusters, classes = linear_sum_assignment(table, maximize=True)
    rank[clusters] = classes
    return rank
