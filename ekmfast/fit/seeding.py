"""Seeding: the first centroids of each restart, found for all restarts in shared passes.

Where a run ends depends on where it starts, and no one rule finds the small clusters of every data
set. ``'auto'`` therefore mixes three over the restarts: greedy k-means++ (drawn with chances
proportional to the squared distance from the seeds so far), farthest-first (the point farthest from
the seeds so far, which small distant clusters cannot escape but outliers attract), and the
centroids of hard k-means, which lie amid the mass of the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._arguments import shown
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, solve
from ekmfast.rows.columns import check_unmasked
from ekmfast.rows.protocol import RowsAtHand

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
    elif not callable(init):
        _numbers(init)


def _numbers(init: Any) -> Float64:
    """A matrix from whatever holds one, in float64 and in the order of C."""
    allowed = (
        f"init must be one of {INITS}, an array of real numbers of shape (n_clusters, n_features) "
        "or a callable that returns one"
    )
    check_unmasked(init, "init")
    try:
        given = np.asarray(init)
        # Objects may be numbers; complex ones and dates would lose what makes them so.
        matrix = np.array(given, np.float64, order="C") if given.dtype.kind in "biufO" else None
    except (TypeError, ValueError, OverflowError):
        matrix = None
    if matrix is None:
        raise TypeError(f"{allowed}, got {type(init).__name__} {shown(init)}")
    if matrix.ndim != 2:
        got = f"shape {matrix.shape}: {type(init).__name__} {shown(init)}"
        raise ValueError(f"{allowed}, got {got}")
    return matrix


def resolve_n_init(n_init: int | str, init: Any) -> int:
    """``'auto'`` is 16 random restarts, or 1 where the start is given."""
    if n_init == "auto":
        return AUTO_RESTARTS if isinstance(init, str) or callable(init) else 1
    return int(n_init)


def initial_centroids(
    rows: RowsAtHand,
    n_clusters: int,
    init: Any,
    n_init: int,
    random_state: np.random.RandomState,
) -> Float64:
    """Starting centroids (n_init, K, D) in float64: ``init`` is a rule, an array or a callable."""
    if not isinstance(init, str):
        return np.stack([_given(rows.X, n_clusters, init, random_state) for _ in range(n_init)])
    if init == "random":
        return rows.take(np.stack([_random(rows, n_clusters, random_state) for _ in range(n_init)]))
    rules = [MIXTURE[i % len(MIXTURE)] if init == "auto" else init for i in range(n_init)]
    seeds = np.empty((n_init, n_clusters, rows.n_features))
    for rule in dict.fromkeys(rules):
        chosen = [i for i, r in enumerate(rules) if r == rule]
        seeds[chosen] = _seeds(rows, n_clusters, rule, len(chosen), random_state)
    return seeds


def _seeds(
    rows: RowsAtHand,
    n_clusters: int,
    rule: str,
    n_init: int,
    random_state: np.random.RandomState,
) -> Float64:
    # A distance a row and restart is kept: no more of them at a time than X has numbers.
    together = rows.n_features
    numbers = [
        _grow(rows, n_clusters, rule == "farthest", min(together, n_init - i), random_state)
        for i in range(0, n_init, together)
    ]
    seeds = rows.take(np.concatenate(numbers))
    return lloyd(rows, seeds) if rule == "k-means" else seeds


def lloyd(rows: RowsAtHand, seeds: Float64) -> Float64:
    """Where some iterations of hard k-means take seeds (S, K, D)."""
    runs = solve(
        rows.with_weighting("hard"),
        seeds,
        1.0,
        tol=0.0,
        radius=0.0,
        resolution=OBJECTIVE_RESOLUTION[rows.dtype.itemsize],
        max_iter=LLOYD_PASSES,
        window=0,
    )
    return np.stack([run.centroids for run in runs])


def _grow(
    rows: RowsAtHand,
    n_clusters: int,
    farthest: bool,
    n_init: int,
    random_state: np.random.RandomState,
) -> NDArray[np.intp]:
    """Rows (n_init, K) that farthest-first or greedy k-means++ picks as seeds."""
    n_candidates = 1 if farthest else 2 + int(np.log(n_clusters))
    seeds = np.empty((n_init, n_clusters), np.intp)
    seeds[:, 0] = rows.draw(None, random_state.uniform(size=n_init))[0]
    closest = rows.distances(n_init)
    for k in range(1, n_clusters):
        rows.closest(rows.take(seeds[:, k - 1 : k]), closest, update=True)
        uniform = random_state.uniform(size=(n_init, n_candidates))
        if farthest:
            seeds[:, k] = rows.farthest(closest)
            continue
        candidates = rows.draw(closest, uniform)
        potentials = rows.closest(rows.take(candidates), closest)
        seeds[:, k] = candidates[np.arange(n_init), potentials.argmin(axis=1)]
    return seeds


def _random(
    rows: RowsAtHand, n_clusters: int, random_state: np.random.RandomState
) -> NDArray[np.intp]:
    s = rows.sample_weight
    p = None if s is None else s / s.sum()
    if p is not None and np.count_nonzero(p) < n_clusters:
        p = None
    return random_state.choice(rows.n_rows, n_clusters, replace=False, p=p)


def _given(
    X: NDArray[Any], n_clusters: int, init: Any, random_state: np.random.RandomState
) -> Float64:
    start = _numbers(init(X, n_clusters, random_state) if callable(init) else init)
    if start.shape != (n_clusters, X.shape[1]):
        raise ValueError(
            f"init must have shape (n_clusters, n_features) = ({n_clusters}, {X.shape[1]}), "
            f"got {start.shape}"
        )
    if not np.isfinite(start).all():
        raise ValueError("init must be finite, got NaN or infinity")
    return start
