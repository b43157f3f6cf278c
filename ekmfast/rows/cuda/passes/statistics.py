"""The statistics of one pass: the sums of Eq. 39, also of columns that underflow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.cuda.passes import rowwise, seeding, sums
from ekmfast.rows.cuda.passes.base import Passes
from ekmfast.rows.cuda.passes.centroids import for_weights
from ekmfast.rows.cuda.passes.fused import is_fused, sum_fused
from ekmfast.rows.cuda.passes.rescue import rescue
from ekmfast.rows.statistics import CentredStatistics

Float64 = NDArray[np.float64]


def statistics(passes: Passes, centroids: Float64, alpha: Float64) -> CentredStatistics:
    """One pass over the rows for centroids (S, K, D) and alpha (S,)."""
    S, k, _ = centroids.shape
    T = passes.held.dtype
    wx, w, p, objective = _sum(passes, T, centroids, alpha)
    exponent = np.zeros((S, k))
    if passes.held.n and passes.weighting != "hard":
        fuzzy = passes.weighting == "fuzzy"
        for i in range(S):
            weak = np.flatnonzero(_underflowed(passes, w[i] if fuzzy else p[i], T))
            if len(weak) == 0 or not np.isfinite(objective[i]):
                continue
            if T is np.float32:  # memberships may be 2^800 times smaller in float64
                deep = _sum(passes, np.float64, centroids[i : i + 1], alpha[i : i + 1])
                wx[i, weak], w[i, weak], p[i, weak] = (sums[0][weak] for sums in deep[:3])
                if fuzzy:
                    objective[i] = deep[3][0]
                weak = weak[_underflowed(passes, deep[2][0][weak], np.float64)]
            if len(weak) and not fuzzy:
                rescue(passes, centroids[i], float(alpha[i]), weak, wx[i], w[i], p[i], exponent[i])
    return CentredStatistics(wx, w, p, exponent, objective, passes.reference.astype(np.float64))


def _underflowed(passes: Passes, mass: Float64, dtype: Any) -> NDArray[np.bool_]:
    return ~(mass > passes.total_weight * _core.least_mass(dtype is np.float32))


def _sum(
    passes: Passes, dtype: Any, centroids: Float64, alpha: Float64
) -> tuple[Float64, Float64, Float64, Float64]:
    """sum_wx (S, K, D), sum_w, sum_p (S, K) and J (S,), computed in ``dtype``."""
    S, k, d = centroids.shape
    if passes.held.n == 0:
        return np.zeros((S, k, d)), np.zeros((S, k)), np.zeros((S, k)), np.zeros(S)
    c = for_weights(passes, dtype, centroids, alpha)
    if is_fused(passes, dtype, k):
        found = sum_fused(passes, dtype, c, k)
        wx, w = found[:, : k * d], found[:, k * d : k * d + k]
        p, norm, cost = found[:, k * d + k : -2], found[:, -2], found[:, -1]
        norm = norm / 2
    else:
        totals = sums.sum_chunks(passes, dtype, c, k)
        wx, w, p = totals["wx"], totals["sums"][: S * k], totals["sums"][S * k : 2 * S * k]
        norm, cost = totals["sums"][2 * S * k :].reshape(S, 2).T
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the result
        objective = cost / c.q if passes.weighting == "fuzzy" else norm - cost / c.q
    objective[~c.finite] = np.nan
    return (
        wx.reshape(S, k, d).copy(),
        w.reshape(S, k).copy(),
        p.reshape(S, k).copy(),
        objective,
    )


class CudaPasses(Passes):
    """Statistics of one data set, and what else is found by passes over it, on a GPU.

    See `Passes` for the parameters. Each method is the function of the file that is about it.
    """

    statistics = statistics
    accumulate = sums.accumulate
    assign = rowwise.assign
    weights = rowwise.weights
    distances = seeding.distances
    closest = seeding.closest
    farthest = seeding.farthest
    draw = seeding.draw
