"""Seeding: the first centroids of each restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

Float64 = NDArray[np.float64]
INITS = ("auto", "k-means++", "random")


def check_init(init: Any) -> None:
    """Refuse what ``EKMeans(init=...)`` does not understand."""
    if isinstance(init, str):
        if init not in INITS:
            raise ValueError(f"init must be one of {INITS}, an array or a callable, got {init!r}")
    elif not callable(init) and np.ndim(init) != 2:
        raise ValueError(
            f"init must be one of {INITS}, an array of shape (n_clusters, n_features) or a "
            f"callable, got {init!r}"
        )


def resolve_n_init(n_init: int | str, init: Any) -> int:
    """``'auto'`` is 10 random restarts, or 1 where the start is given."""
    if n_init == "auto":
        return 10 if isinstance(init, str) or callable(init) else 1
    return int(n_init)


def initial_centroids(
    X: NDArray[Any],
    n_clusters: int,
    init: str | NDArray[Any] | Callable[..., Any],
    n_init: int,
    sample_weight: NDArray[Any] | None,
    random_state: np.random.RandomState,
) -> Float64:
    """Starting centroids (n_init, K, D) in float64."""
    starts = [_one_start(X, n_clusters, init, sample_weight, random_state) for _ in range(n_init)]
    return np.stack(starts)


def _one_start(
    X: NDArray[Any],
    n_clusters: int,
    init: Any,
    sample_weight: NDArray[Any] | None,
    random_state: np.random.RandomState,
) -> Float64:
    if isinstance(init, str):
        if init == "random":
            p = None if sample_weight is None else sample_weight / sample_weight.sum()
            if p is not None and np.count_nonzero(p) < n_clusters:
                p = None
            return np.asarray(
                X[random_state.choice(len(X), n_clusters, replace=False, p=p)], np.float64
            )
        centroids, _ = kmeans_plusplus(
            X, n_clusters, sample_weight=sample_weight, random_state=random_state
        )
        return np.asarray(centroids, np.float64)
    start = init(X, n_clusters, random_state) if callable(init) else init
    start = np.array(start, dtype=np.float64)
    if start.shape != (n_clusters, X.shape[1]):
        raise ValueError(
            f"init must have shape (n_clusters, n_features) = ({n_clusters}, {X.shape[1]}), "
            f"got {start.shape}"
        )
    if not np.isfinite(start).all():
        raise ValueError("init must be finite, got NaN or infinity")
    return start
