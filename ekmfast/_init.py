"""Seeding: the first centroids of each restart, found for all restarts in shared passes.

Where a run ends depends on where it starts, and no one rule finds the small clusters of every data
set. ``'auto'`` therefore mixes three over the restarts: greedy k-means++ (drawn with chances
proportional to the squared distance from the seeds so far), farthest-first (the point farthest from
the seeds so far, which small distant clusters cannot escape but outliers attract), and the
centroids of hard k-means, which lie amid the mass of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ._backends.cpu import CpuBackend
from ._solver import OBJECTIVE_RESOLUTION, solve

Float64 = NDArray[np.float64]
INITS = ("auto", "k-means++", "farthest", "k-means", "random")
# The rules that 'auto' goes round.
MIXTURE = ("farthest", "k-means++", "farthest", "k-means")
AUTO_RESTARTS = 16
# Lloyd's iterations for the seeds of 'k-means': nearer the end they move little.
LLOYD_PASSES = 20


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
    """``'auto'`` is 16 random restarts, or 1 where the start is given."""
    if n_init == "auto":
        return AUTO_RESTARTS if isinstance(init, str) or callable(init) else 1
    return int(n_init)


def initial_centroids(
    X: NDArray[Any],
    n_clusters: int,
    init: str | NDArray[Any] | Callable[..., Any],
    n_init: int,
    sample_weight: NDArray[Any] | None,
    random_state: np.random.RandomState,
    n_threads: int = 1,
) -> Float64:
    """Starting centroids (n_init, K, D) in float64."""
    if not isinstance(init, str):
        starts = [_given(X, n_clusters, init, random_state) for _ in range(n_init)]
        return np.stack(starts)
    if init == "random":
        return np.stack(
            [_random(X, n_clusters, sample_weight, random_state) for _ in range(n_init)]
        )
    rules = [MIXTURE[i % len(MIXTURE)] if init == "auto" else init for i in range(n_init)]
    seeds = np.empty((n_init, n_clusters, X.shape[1]))
    for rule in dict.fromkeys(rules):
        chosen = [i for i, r in enumerate(rules) if r == rule]
        seeds[chosen] = _seeds(
            X, n_clusters, rule, len(chosen), sample_weight, random_state, n_threads
        )
    return seeds


def _seeds(
    X: NDArray[Any],
    n_clusters: int,
    rule: str,
    n_init: int,
    sample_weight: NDArray[Any] | None,
    random_state: np.random.RandomState,
    n_threads: int,
) -> Float64:
    backend = CpuBackend(X, sample_weight, n_threads)
    # A distance a row and restart is kept: no more of them at a time than X has numbers.
    together = X.shape[1]
    rows = [
        _grow(backend, n_clusters, rule == "farthest", min(together, n_init - i), random_state)
        for i in range(0, n_init, together)
    ]
    seeds = X[np.concatenate(rows)].astype(np.float64)
    if rule == "k-means":
        hard = CpuBackend(X, sample_weight, n_threads, weighting="hard")
        runs = solve(
            hard,
            seeds,
            1.0,
            tol=0.0,
            radius=1.0,
            resolution=OBJECTIVE_RESOLUTION[X.itemsize],
            max_iter=LLOYD_PASSES,
            window=0,
        )
        seeds = np.stack([run.centroids for run in runs])
    return seeds


def _grow(
    backend: CpuBackend,
    n_clusters: int,
    farthest: bool,
    n_init: int,
    random_state: np.random.RandomState,
) -> NDArray[np.intp]:
    """Rows (n_init, K) that farthest-first or greedy k-means++ picks as seeds."""
    X, s = backend.X, backend.sample_weight
    n_candidates = 1 if farthest else 2 + int(np.log(n_clusters))
    mass = np.ones(len(X)) if s is None else s.astype(np.float64)
    rows = np.empty((n_init, n_clusters), np.intp)
    rows[:, 0] = _draw(mass, random_state.uniform(size=n_init))
    closest = np.full((n_init, len(X)), np.inf, X.dtype)
    candidates = np.empty((n_init, n_candidates), np.intp)
    for k in range(1, n_clusters):
        backend.closest(_points(X, rows[:, k - 1 : k]), closest, update=True)
        uniform = random_state.uniform(size=(n_init, n_candidates))
        if farthest:
            rows[:, k] = (closest if s is None else np.where(s > 0, closest, -1)).argmax(axis=1)
            continue
        for i in range(n_init):
            candidates[i] = _draw(mass * closest[i], uniform[i])
        potentials = backend.closest(_points(X, candidates), closest)
        rows[:, k] = candidates[np.arange(n_init), potentials.argmin(axis=1)]
    return rows


def _points(X: NDArray[Any], rows: NDArray[np.intp]) -> Float64:
    return X[rows].astype(np.float64)


def _draw(mass: Float64, uniform: Float64) -> NDArray[np.intp]:
    """Indices with chances proportional to ``mass``; any index where all of it is zero."""
    total = np.cumsum(mass)
    if not total[-1] > 0:
        return (uniform * len(mass)).astype(np.intp)
    found = np.searchsorted(total, uniform * total[-1], side="right")
    return cast(NDArray[np.intp], np.minimum(found, len(mass) - 1))


def _random(
    X: NDArray[Any],
    n_clusters: int,
    sample_weight: NDArray[Any] | None,
    random_state: np.random.RandomState,
) -> Float64:
    p = None if sample_weight is None else sample_weight / sample_weight.sum()
    if p is not None and np.count_nonzero(p) < n_clusters:
        p = None
    return np.asarray(X[random_state.choice(len(X), n_clusters, replace=False, p=p)], np.float64)


def _given(
    X: NDArray[Any], n_clusters: int, init: Any, random_state: np.random.RandomState
) -> Float64:
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
