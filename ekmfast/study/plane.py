"""Embed codes and centroids in the plane by t-SNE."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.study.scores import Codes, radius


def in_plane(
    X: Codes, centroids: Codes, iterations: int, seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coordinates of the codes, (N, 2), and of the centroids of several fits, (fits, K, 2)."""
    from scipy.spatial.distance import cdist
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    together = np.concatenate(centroids)
    # t-SNE separates equal points, so it gets only one of coincident centroids.
    apart = cdist(together, together) / radius(X)
    first = (apart < 0.01).argmax(axis=1)
    distinct, inverse = np.unique(first, return_inverse=True)
    tsne = TSNE(
        init="pca",
        perplexity=min(30.0, (len(X) - 1) / 4),
        max_iter=iterations,
        random_state=seed,
    )
    # With more threads, an iteration on so few points mostly waits where another program uses a
    # core.
    with threadpool_limits(1):
        plane = tsne.fit_transform(np.concatenate([X, together[distinct]]).astype(np.float32))
    return plane[: len(X)], plane[len(X) :][inverse].reshape(*centroids.shape[:2], 2)
