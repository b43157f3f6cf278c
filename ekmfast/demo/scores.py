"""Compare clusters with the true classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.demo.data import Labels
from ekmfast.demo.draws import Draw

Codes = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """A clustering of a draw. Each cluster has the number of the class that is matched to it."""

    labels: Labels
    centroids: Codes
    scores: dict[str, Any]


def radius(X: Codes) -> float:
    """Root mean square distance from the mean, which is the unit of distances in the report."""
    return float(np.sqrt(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean()))


def scored(X: Codes, draw: Draw, labels: Labels, centroids: Codes, **facts: Any) -> Fit:
    """Give clusters the numbers of their matched classes, and compare them with the classes."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist, pdist
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    from ekmfast.metrics import cluster_sizes, clustering_accuracy

    # Match clusters and classes so that they share the most samples. This affects only colours and
    # tables.
    table = np.zeros((3, 3), np.int64)
    np.add.at(table, (labels, draw.classes), 1)
    clusters, classes = linear_sum_assignment(table, maximize=True)
    rank = np.empty(3, np.int64)
    rank[clusters] = classes
    labels, centroids = rank[labels], centroids[np.argsort(rank)]

    means = np.stack([X[draw.classes == c].mean(axis=0) for c in range(3)])
    unit = radius(X)
    scores = facts | {
        "ari": float(adjusted_rand_score(draw.classes, labels)),
        "nmi": float(normalized_mutual_info_score(draw.classes, labels)),
        "accuracy": clustering_accuracy(draw.classes, labels),
        "sizes": cluster_sizes(labels, 3).tolist(),
        "true_sizes": cluster_sizes(draw.classes, 3).tolist(),
        # In units of the codes' root mean square distance from their mean.
        "centroids": {
            "to_origin": (np.linalg.norm(centroids, axis=1) / unit).tolist(),
            "to_each_other": (pdist(centroids) / unit).tolist(),
            "to_class_means": np.diag(cdist(centroids, means) / unit).tolist(),
        },
    }
    return Fit(labels, centroids, scores)
