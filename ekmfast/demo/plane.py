"""Embed codes and centroids in the plane by t-SNE."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.demo.scores import Codes, radius


def in_plane(
    X: Codes, centroids: Codes, iterations: int, seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coordinates of the codes, (N, 2), and of the centroids of several fits, (fits, 3, 2)."""
    from scipy.spatial.distance import cdist
    from sklearn.manifold import TSNE

    together = np.concatenate(centroids)
    # t-SNE separates equal points, so it gets only one of coincident centroids.
    apart = cdist(together, together) / radius(X)
    first = (apart < 0.01).argmax(axis=1)
    distinct, inverse = np.unique(first, return_inverse=True)
    plane = TSNE(
        init="pca",
        perplexity=min(30.0, (len(X) - 1) / 4),
        max_iter=iterations,
        random_state=seed,
    ).fit_transform(np.concatenate([X, together[distinct]]).astype(np.float32))
    return plane[: len(X)], plane[len(X) :][inverse].reshape(len(centroids), 3, 2)
