"""The search of ``alpha='auto'`` in wide sparse rows: in their leading directions.

Of texts, most of the dispersion in all features is that of single words, and the alphas of the
grid, which are multiples of its inverse, are too small to tell topics apart. In the leading
directions (`fit.directions`) the rows are dense and short, and the search is that of
`fit.likeliest`. The centroids that it finds are then iterated over all rows in all features.

1. The rows that are searched are the rows in these directions, and divided by their lengths there
   if the metric is the cosine or if all rows have the same length, as those of TF-IDF have. Rows of
   one length are told apart by their angles, and long documents would otherwise lie farther out.
2. A squared distance in all features differs from one in the directions by a number that hardly
   depends on the centroid, so that memberships in both are nearly the same. Alpha times the
   dispersion of the rows in the directions is what stays the same where these are divided by their
   lengths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.directions import leading_directions, n_directions
from ekmfast.fit.likeliest import find_likeliest, search_rows
from ekmfast.fit.moved import moved
from ekmfast.fit.problem import Problem
from ekmfast.fit.seeding import initial_centroids, resolve_n_init
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.threads import one_blas_thread
from ekmfast.rows.unit import ZeroOrUnitRows

Float64 = NDArray[np.float64]

# Rows have one length if their squared lengths differ by no more than this share.
SAME_LENGTH = 1e-3
# Rows whose length in the directions is a smaller share of the largest one have no angle there.
LEAST_LENGTH = 1e-6
FLAT = 16.0


def find_in_directions(
    problem: Problem,
    init: Any,
    n_init: int | str,
    random_state: np.random.RandomState,
    scale: float,
) -> tuple[Float64, float] | None:
    """Centroids (K, D) in all features from which a fit can begin, and alpha.

    None if the rows do not differ in their leading directions. ``init``, ``n_init`` and ``scale``
    are those of `EKMeans`.
    """
    rows, k = problem.survey.sample.on_host(), problem.n_clusters
    with one_blas_thread(n_directions(k)):
        directions = leading_directions(rows, n_directions(k))
        features: Float64 = rows.X @ directions
        weight = rows.likelihood_weight(slice(None))
        if weight is not None:
            weight = weight.astype(np.float64)
        by_angle = rows.space == "unit" or has_one_length(rows)
        within = rows_in_directions(features, weight, rows.n_threads, by_angle=by_angle)
        report = moved(problem.report, lambda centroids: centroids @ directions.T)
        reduced = problem.of(within, report)
        if reduced.dispersion == 0:
            return None
        dvariance = resolve_alpha("dvariance", scale, reduced.dispersion)
        if not isinstance(init, str):
            n_init = resolve_n_init(n_init, init)
            starts = initial_centroids(rows, k, init, n_init, random_state) @ directions
            if by_angle:
                starts /= np.maximum(np.linalg.norm(starts, axis=2, keepdims=True), LEAST_LENGTH)
            given = iter(starts)
            init = lambda *_: next(given)  # noqa: E731
        sketch = reduced.sketch(search_rows(k), random_state)
        centroids, alpha = find_likeliest(sketch, init, n_init, random_state, dvariance)
        alpha *= reduced.dispersion / _dispersion(features, weight)
        if by_angle and rows.space != "unit":
            centroids = _means(within.nearest(centroids)[0], features, weight, centroids)
            alpha *= FLAT
        return centroids @ directions.T, alpha


def has_one_length(rows: ArrayRows) -> bool:
    """Whether all rows of a CSR matrix have the same length."""
    X: Any = rows.X
    squares = np.asarray(X.multiply(X).sum(axis=1), np.float64).ravel()
    return bool(squares.min() >= (1 - SAME_LENGTH) * squares.max())


def rows_in_directions(
    features: Float64, weight: NDArray[Any] | None, n_threads: int, *, by_angle: bool
) -> ArrayRows:
    """Rows (N, R) as those of a fit, divided by their lengths if these do not matter."""
    if not by_angle:
        return ArrayRows(features, weight, n_threads)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    there = lengths > LEAST_LENGTH * lengths.max()
    unit = np.divide(features, lengths, where=there, out=np.zeros_like(features))
    if weight is not None:
        weight = (weight / weight.max()).astype(np.float32)
    return ZeroOrUnitRows(unit.astype(np.float32), weight, n_threads)


def _dispersion(features: Float64, weight: NDArray[Any] | None) -> float:
    mean = np.average(features, axis=0, weights=weight)
    squares = ((features - mean) ** 2).sum(axis=1)
    return 0.5 * float(np.average(squares, weights=weight))


def _means(
    labels: NDArray[np.int32], features: Float64, weight: NDArray[Any] | None, centroids: Float64
) -> Float64:
    """The mean (K, R) of the rows of each label; a centroid without rows stays where it is."""
    s = np.ones(len(features)) if weight is None else weight
    mass = np.bincount(labels, s, len(centroids))
    sums = np.stack(
        [np.bincount(labels, s * column, len(centroids)) for column in features.T], axis=1
    )
    found = mass > 0
    means = centroids.copy()
    means[found] = sums[found] / mass[found, None]
    return means
