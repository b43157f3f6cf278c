"""The search for a mixture: components are found by equilibrium k-means, then get their shapes.

Expectation maximization ends in a local maximum, which its start decides. Good starts are the
labels of equilibrium k-means at a grid of alphas, since it finds small clusters beside large ones,
and those of a Gaussian mixture, which finds long ones. From all of them short runs with 8 degrees
of freedom are made. From the best few, runs with several degrees of freedom go on to their end, and
the one with the largest criterion (`mixture.Fitted.criterion`) is kept. Then moves are tried: two
components that overlap become one, and another is split in two. A move is kept if it raises the
criterion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture import (
    TINY,
    Fitted,
    StudentMixture,
    expectation_maximization,
    from_labels,
)

Float64 = NDArray[np.float64]

SHORT = 12  # iterations of a short run
SHORT_DEGREES = 8.0
KEPT = 4  # how many short runs go on
DEGREES = (4.0, 8.0, 30.0, np.inf)
# Moves are tried for so many pairs and so many components to split, at most so many times.
PAIRS, SPLITS, MOST_MOVES = 3, 3, 5
# A move must raise the criterion by more than this.
MARGIN = 0.0


def search(
    X: Float64,
    s: Float64,
    labellings: Iterable[NDArray[Any]],
    kinds: Sequence[str],
    degrees: Sequence[float],
    *,
    max_iter: int,
    tol: float,
    report: Callable[[Fitted], None] | None = None,
) -> Fitted:
    """The mixture with the largest criterion.

    Parameters
    ----------
    X : ndarray of shape (N, D)
    s : ndarray of shape (N,)
        Weights of the rows, all of them positive.
    labellings : iterable of ndarray of shape (N,)
        Labels from which runs begin; equal ones count once.
    kinds, degrees
        The kinds of scatter matrices and the degrees of freedom to choose from.
    report : callable, default=None
        Called after every run.
    """

    def run(labels: NDArray[Any], kind: str, v: float, iterations: int) -> Fitted:
        start = from_labels(X, s, labels, kind, v)
        fitted = expectation_maximization(X, s, start, max_iter=iterations, tol=tol)
        if report is not None:
            report(fitted)
        return fitted

    short_degrees = SHORT_DEGREES if len(degrees) > 1 else degrees[0]
    distinct = {labels.tobytes(): labels for labels in map(_compact, labellings)}
    short = [
        run(labels, kind, short_degrees, min(SHORT, max_iter))
        for labels in distinct.values()
        for kind in kinds
    ]
    short.sort(key=lambda fitted: -fitted.criterion)
    runs: dict[tuple[str, bytes], NDArray[Any]] = {}
    for fitted in short:
        labels = _compact(fitted.mixture.log_joint(X).argmax(axis=1))
        runs.setdefault((fitted.mixture.kind, labels.tobytes()), labels)
        if len(runs) == KEPT:
            break
    ends = [run(labels, kind, v, max_iter) for (kind, _), labels in runs.items() for v in degrees]
    best = max(ends, key=lambda fitted: fitted.criterion)
    for _ in range(MOST_MOVES):
        kind, v = best.mixture.kind, best.mixture.degrees
        tries = [run(labels, kind, v, min(SHORT, max_iter)) for labels in moves(best.mixture, X, s)]
        if not tries:
            break
        found = max(tries, key=lambda fitted: fitted.criterion)
        if not found.criterion > best.criterion + MARGIN:
            break
        found = expectation_maximization(X, s, found.mixture, max_iter=max_iter, tol=tol)
        best = max(best, found, key=lambda fitted: fitted.criterion)
    return best


def moves(mixture: StudentMixture, X: Float64, s: Float64) -> Iterator[NDArray[np.intp]]:
    """Yield labels with two components merged and another one split.

    The pairs that overlap most are merged, and the components of the largest weight are split,
    along their main axis and off their farthest row.
    """
    k = len(mixture.weights)
    if k < 2:
        return
    q = mixture.distances(X)
    joint = mixture.joint(q)
    labels = joint.argmax(axis=1)
    r = np.exp(joint - joint.max(axis=1, keepdims=True))
    r /= r.sum(axis=1, keepdims=True)
    common = (r * s[:, None]).T @ r
    own = np.sqrt(np.maximum(common.diagonal(), TINY))
    overlap = np.triu(common / own / own[:, None], 1)
    pairs = np.argsort(-overlap, axis=None)[: min(PAIRS, k * (k - 1) // 2)]
    for i, j in zip(*np.unravel_index(pairs, overlap.shape), strict=True):
        merged = np.where(labels == j, i, labels)
        sizes = np.bincount(merged, s, k)
        for split in np.argsort(-sizes)[:SPLITS]:
            rows = np.flatnonzero(merged == split)
            if len(rows) < 2 or sizes[split] == 0:
                continue
            for part in _halves(X[rows]):
                if part.any() and not part.all():
                    moved = merged.copy()
                    moved[rows[part]] = j
                    yield _compact(moved)


def _halves(X: Float64) -> Iterator[NDArray[np.bool_]]:
    """Yield parts of rows: one side along the main axis, and the rows near the farthest one."""
    y = X - X.mean(axis=0)
    axis = np.linalg.eigh(y.T @ y)[1][:, -1]
    yield y @ axis > 0
    distances = np.einsum("nd,nd->n", y / y.std(axis=0).clip(TINY), y / y.std(axis=0).clip(TINY))
    far = y - y[distances.argmax()]
    yield np.einsum("nd,nd->n", far, far) < np.einsum("nd,nd->n", y, y)


def _compact(labels: NDArray[Any]) -> NDArray[np.intp]:
    """The labels, numbered from 0 on without gaps in the order of their first rows."""
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    compact: NDArray[np.intp] = rank[numbers].astype(np.intp)
    return compact
