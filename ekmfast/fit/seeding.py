"""Seeding: the first centroids of each restart, found for all restarts in shared passes.

The result of a run depends on its start, and no single rule finds the small clusters of every data
set. The restarts of ``'auto'`` therefore use three rules in turn. Greedy k-means++ draws rows with
probabilities proportional to their squared distance from the rows chosen so far. Farthest-first
chooses the row that is farthest from those chosen so far: it finds small distant clusters, but it
also chooses outliers. The third rule takes the centroids of hard k-means, which lie where most of
the rows are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._arguments import shown
from ekmfast._parameters import COUNT, AnyOf, Constraint, Fault, OneOf
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, solve
from ekmfast.rows.columns import check_unmasked
from ekmfast.rows.protocol import RowsAtHand, as_compiled

Float64 = NDArray[np.float64]
INITS = ("auto", "k-means++", "farthest", "k-means", "random")
# The rules that the restarts of 'auto' use in turn.
AUTO_RULES = ("farthest", "k-means++", "farthest", "k-means")
AUTO_RESTARTS = 16
# Those of a search, which compares runs at several alphas and cannot afford as many starts. Several
# farthest-first starts are often alike.
SEARCH_RULES = ("farthest", "k-means++", "farthest", *("k-means", "k-means++") * 4, "k-means")
# Lloyd's iterations for the starts of 'k-means'. Further ones move the centroids little.
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
    """``init`` as a C-ordered float64 array, or None if it does not hold numbers."""
    try:
        given = np.asarray(init)
        # Objects may be numbers. Complex numbers and dates are refused, since the conversion would
        # drop the imaginary part or the unit.
        return np.asarray(given, np.float64, order="C") if given.dtype.kind in "biufO" else None
    except (TypeError, ValueError, OverflowError):
        return None


def _fault_of_matrix(init: Any) -> Fault | None:
    check_unmasked(init, "init")
    matrix = _matrix(init)
    if matrix is None or matrix.ndim == 0:
        return TypeError
    return None if matrix.ndim == 2 else ValueError


def _numbers(init: Any) -> Float64:
    """The matrix that was given as ``init`` or returned by its callable, once it is checked."""
    fault, matrix = _fault_of_matrix(init), _matrix(init)
    if fault is not None or matrix is None:
        raise (fault or TypeError)(f"init must be {INIT.allowed()}, got {INIT.given(init)}")
    return matrix


def resolve_n_init(n_init: int | str, init: Any, restarts: int = AUTO_RESTARTS) -> int:
    """The number of restarts. ``'auto'`` means ``restarts``, or 1 if ``init`` is an array."""
    if n_init == "auto":
        return restarts if isinstance(init, str) or callable(init) else 1
    return int(n_init)


def initial_centroids(
    rows: RowsAtHand,
    n_clusters: int,
    init: Any,
    n_init: int,
    random_state: np.random.RandomState,
    rules: Sequence[str] = AUTO_RULES,
) -> Float64:
    """The starts (n_init, K, D) in float64, by a rule, an array or a callable as ``init``.

    ``'auto'`` uses the ``rules`` in turn.
    """
    if not isinstance(init, str):
        return np.stack([_given(rows, n_clusters, init, random_state) for _ in range(n_init)])
    if init == "random":
        return rows.take(np.stack([_random(rows, n_clusters, random_state) for _ in range(n_init)]))
    used = [rules[i % len(rules)] if init == "auto" else init for i in range(n_init)]
    starts = np.empty((n_init, n_clusters, rows.n_features))
    for rule in dict.fromkeys(used):
        chosen = [i for i, r in enumerate(used) if r == rule]
        starts[chosen] = _starts(rows, n_clusters, rule, len(chosen), random_state)
    return starts


def _starts(
    rows: RowsAtHand,
    n_clusters: int,
    rule: str,
    n_init: int,
    random_state: np.random.RandomState,
) -> Float64:
    """The starts (n_init, K, D) that one rule finds."""
    # Each restart stores one distance for each row. At most D restarts are computed at a time, so
    # that the distances take no more memory than X.
    together = rows.n_features
    numbers = [
        _choose_rows(rows, n_clusters, rule == "farthest", min(together, n_init - i), random_state)
        for i in range(0, n_init, together)
    ]
    starts = rows.take(np.concatenate(numbers))
    return lloyd(rows, starts) if rule == "k-means" else starts


def lloyd(rows: RowsAtHand, starts: Float64) -> Float64:
    """The centroids (S, K, D) after some iterations of hard k-means from the starts (S, K, D)."""
    runs = solve(
        rows.with_weighting("hard"),
        starts,
        1.0,
        tol=0.0,
        radius=0.0,
        resolution=OBJECTIVE_RESOLUTION[rows.dtype.itemsize],
        max_iter=LLOYD_PASSES,
        window=0,
        space=rows.space,
        n_threads=rows.n_threads,
    )
    return np.stack([run.centroids for run in runs])


def _choose_rows(
    rows: RowsAtHand,
    n_clusters: int,
    farthest: bool,
    n_init: int,
    random_state: np.random.RandomState,
) -> NDArray[np.intp]:
    """Numbers (n_init, K) of the rows that farthest-first or greedy k-means++ chooses."""
    n_candidates = 1 if farthest else 2 + int(np.log(n_clusters))
    first = random_state.uniform(size=n_init)
    compiled = as_compiled(rows)
    if compiled is not None:
        # Farthest-first draws nothing, but takes as many random numbers as the loop below.
        uniform = random_state.uniform(size=(n_clusters - 1, n_init, n_candidates))
        return compiled.choose(first, uniform[..., :0] if farthest else uniform)
    chosen = np.empty((n_init, n_clusters), np.intp)
    chosen[:, 0] = rows.draw(None, first)[0]
    closest = rows.distances(n_init)
    for k in range(1, n_clusters):
        rows.closest(rows.take(chosen[:, k - 1 : k]), closest, update=True)
        uniform = random_state.uniform(size=(n_init, n_candidates))
        if farthest:
            chosen[:, k] = rows.farthest(closest)
            continue
        candidates = rows.draw(closest, uniform)
        potentials = rows.closest(rows.take(candidates), closest)
        chosen[:, k] = candidates[np.arange(n_init), potentials.argmin(axis=1)]
    return chosen


def _random(
    rows: RowsAtHand, n_clusters: int, random_state: np.random.RandomState
) -> NDArray[np.intp]:
    s = rows.sample_weight
    p = None if s is None else s / s.sum()
    if p is not None and np.count_nonzero(p) < n_clusters:
        p = None
    return random_state.choice(rows.n_rows, n_clusters, replace=False, p=p)


def _given(
    rows: RowsAtHand, n_clusters: int, init: Any, random_state: np.random.RandomState
) -> Float64:
    start = _numbers(init(rows.X, n_clusters, random_state) if callable(init) else init)
    if start.shape != (n_clusters, rows.n_features):
        raise ValueError(
            f"init must have shape (n_clusters, n_features) = ({n_clusters}, {rows.n_features}), "
            f"got {start.shape}"
        )
    if not np.isfinite(start).all():
        raise ValueError("init must be finite, got NaN or infinity")
    if rows.space == "unit" and not start.any(axis=1).all():
        zero = int(np.flatnonzero(~start.any(axis=1))[0])
        raise ValueError(f"init must not hold zeros alone with metric='cosine', got row {zero}")
    return start
