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
from ekmfast._parameters import COUNT, AnyOf, Constraint, Fault, OneOf
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


class _Init(Constraint):
    """The name of a rule, a matrix of centroids, or a callable that returns one."""

    def fault(self, value: Any) -> Fault | None:
        if isinstance(value, str):
            return None if value in INITS else ValueError
        return None if callable(value) else _fault_of_matrix(value)

    def alternatives(self, value: Any) -> list[str]:
        matrix = "an array of real numbers of shape (n_clusters, n_features)"
        return [*map(repr, INITS), matrix, "a callable that returns one"]

    def given(self, value: Any) -> str:
        matrix = None if isinstance(value, str) else _matrix(value)
        shape = "" if matrix is None else f"shape {matrix.shape}: "
        return f"{shape}{type(value).__name__} {shown(value)}"


INIT = _Init()
N_INIT = AnyOf(OneOf("auto"), COUNT)


def _matrix(init: Any) -> Float64 | None:
    """What holds numbers as an array in float64 and in the order of C; None for what holds none."""
    try:
        given = np.asarray(init)
        # Objects may be numbers; complex ones and dates would lose what makes them so.
        return np.array(given, np.float64, order="C") if given.dtype.kind in "biufO" else None
    except (TypeError, ValueError, OverflowError):
        return None


def _fault_of_matrix(init: Any) -> Fault | None:
    check_unmasked(init, "init")
    matrix = _matrix(init)
    if matrix is None or matrix.ndim == 0:
        return TypeError
    return None if matrix.ndim == 2 else ValueError


def _numbers(init: Any) -> Float64:
    """The matrix that ``init`` holds, or that its callable has returned."""
    fault, matrix = _fault_of_matrix(init), _matrix(init)
    if fault is not None or matrix is None:
        raise (fault or TypeError)(f"init must be {INIT.allowed()}, got {INIT.given(init)}")
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


def farthest_and_drawn(
    distances: NDArray[Any],
    sample_weight: NDArray[Any] | None,
    limit: int,
    random_state: np.random.RandomState,
) -> NDArray[np.intp]:
    """Numbers of about ``limit`` rows far from some centroids, given squared distances (N,).

    Half are the farthest, which small clusters far away cannot escape; half are drawn without
    replacement, with chances by weight and distance, as k-means|| (Bahmani et al., 2012) draws. A
    draw's ticket is an exponential time divided by the chance, and the earliest win.
    """
    limit = min(limit, len(distances))
    chance = distances.astype(np.float64)
    if sample_weight is not None:
        chance *= sample_weight
    farthest = np.argpartition(np.where(chance > 0, distances, -1), -limit // 2)[-limit // 2 :]
    times = random_state.standard_exponential(len(chance))
    with np.errstate(divide="ignore"):
        ticket = np.where(chance > 0, times / chance, np.inf)
    drawn = np.argpartition(ticket, limit // 2)[: limit // 2]
    return np.union1d(farthest, drawn)


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
