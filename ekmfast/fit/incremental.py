"""Centroids that move after every batch of rows: sums of batches, replaced and forgotten.

Every variant averages *sums*, never centroids: the ratio A / B of Eq. 39 for the whole data is not
the mean of the batches' ratios, least of all with weights of both signs. A, B and P of each batch
are taken about one reference point and packed side by side in an array (K, D + 2), so that adding,
forgetting and replacing them is plain arithmetic.

`epochs` sees every batch again, so it forgets exactly: a batch's new sums replace those of its last
visit. When the centroids no longer move, all the sums were taken at the same centroids, and
A / B = C is the fixed point of the full data, with no noise left and no schedule to choose.

Source: R. Neal, G. Hinton, "A view of the EM algorithm that justifies incremental, sparse, and
other variants", Learning in Graphical Models, 1998.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.solver import THETA
from ekmfast.rows.protocol import Batches, Sums
from ekmfast.rows.statistics import CentredStatistics

Float64 = NDArray[np.float64]

# Batches give way to the solver when an epoch moves more than this share of the one before it.
STALL = 0.5


def pack(sums: CentredStatistics, reference: Float64) -> Float64:
    """The sums of one problem about ``reference``: A in D columns, then B, then P.

    sum w (x - reference) = sum w (x - own) + (own - reference) sum w.
    """
    # A column that underflows in this batch adds nothing to those of the others.
    unscale = np.exp2(np.minimum(sums.exponent[0], 0))
    wx = sums.sum_wx[0] + (sums.reference - reference) * sums.sum_w[0][:, None]
    packed = np.column_stack([wx, sums.sum_w[0], sums.sum_p[0]])
    return np.asarray(packed * unscale[:, None], np.float64)


def damped_step(packed: Float64, centroids: Float64, reference: Float64, radius: float) -> Float64:
    """The step of each column, no longer than ``radius``.

    (A - B C) / max(B, theta P), the solver's damped step, where B > 0. A centroid that all rows
    repel has B < 0, but then A / B is a mean of those rows and leads back to them: that exact step
    is taken where B <= -theta P. In between, where weights of both signs cancel, the column waits.
    """
    wx, w, p = packed[:, :-2], packed[:, -2:-1], packed[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (wx - w * (centroids - reference)) / np.where(w > 0, np.maximum(w, THETA * p), w)
        step = np.where(((w > 0) | (w <= -THETA * p)) & np.isfinite(step), step, 0.0)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        return step * np.where(length > radius, radius / length, 1.0)


class LastSums:
    """The sums of some rows; those of the last pass are kept."""

    def __init__(self, rows: Sums) -> None:
        self.rows = rows
        self.centroids = np.empty((0, 0, 0))
        self.sums: CentredStatistics | None = None

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass for centroids (S, K, D) and alpha (S,)."""
        self.centroids, self.sums = centroids, self.rows.statistics(centroids, alpha)
        return self.sums

    def at(self, centroids: Float64, alpha: float) -> CentredStatistics:
        """The sums of one problem, by one more pass where they are not those of the last one."""
        for i, last in enumerate(self.centroids):
            if self.sums is not None and np.array_equal(last, centroids):
                return self.sums.problem(i)
        return self.rows.statistics(centroids[None], np.array([alpha]))


@dataclass
class Epochs:
    """Where the epochs have led."""

    centroids: Float64  # (K, D)
    history: list[float]  # of each epoch the sum of its batches' J at the centroids that they met


def epochs(
    batches: Batches,
    centroids: Float64,
    alpha: float,
    sample: CentredStatistics,
    sampled: float,
    random_state: np.random.RandomState,
    *,
    most: int,
    threshold: float,
    radius: float,
    report: Callable[[int, float, float, Float64], bool],
) -> Epochs:
    """Batch after batch, while an epoch moves the centroids much less than the one before it.

    Until its first visit a sample, whose sums at ``centroids`` are ``sample`` and whose weight is
    ``sampled``, stands in for a batch. ``report`` gets the number of the epoch, the objective, how
    far the centroids moved, and where they are; True stops.
    """
    reference, alphas = sample.reference, np.array([alpha])
    mass = batches.masses / sampled
    kept = mass[:, None, None] * pack(sample, reference)
    objectives = np.empty(len(mass))
    history: list[float] = []
    moved_before = np.inf
    for epoch in range(1, most + 1):
        before = centroids
        total = kept.sum(axis=0)  # anew each epoch, lest differences' rounding pile up
        with closing(batches.visit(random_state)) as visits:
            for b, batch in visits:
                sums = batch.statistics(centroids[None], alphas)
                fresh = pack(sums, reference)
                total += fresh - kept[b]
                kept[b] = fresh
                objectives[b] = sums.objective[0]
                centroids = centroids + damped_step(total, centroids, reference, radius)
        history.append(float(objectives.sum()))
        moved = float(np.linalg.norm(centroids - before))
        stop = report(epoch, history[-1], moved, centroids)
        if stop or moved <= threshold or not moved < STALL * moved_before:
            break
        moved_before = moved
    if len(history) > 1 and history[-1] > history[-2]:
        centroids = before
    return Epochs(centroids, history)
