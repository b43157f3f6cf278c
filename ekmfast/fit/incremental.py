"""Mini-batch iterations: the centroids take a step after every batch of rows.

The step is computed from sums A, B and P over batches. Averaging the centroids of batches instead
would be wrong, because the ratio A / B of Eq. 39 for all rows is not the mean of the ratios of the
batches, above all since weights may be negative. The sums of each batch are taken about one
reference point and stored side by side in an array (K, D + 2), so that those of several batches can
be added, replaced or multiplied by a factor. If numbers are missing, B and P have a sum for each
feature, and the array is (K, 3 D).

`epochs` reads every batch once in each epoch and replaces the sums of a batch by those at the
current centroids. When the centroids no longer move, the sums of all batches belong to the same
centroids C, so A / B = C is a fixed point of the iteration over all rows. There is no noise from
the choice of batches, and no learning rate to choose.

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

# The epochs end, and the solver takes over, when an epoch moves the centroids by at least this
# share of the distance that the epoch before it moved them.
STALL = 0.5


def pack(sums: CentredStatistics, reference: Float64) -> Float64:
    """The sums of one problem about ``reference``: A in D columns, then B, then P.

    B and P are one column each, so that the array is (K, D + 2), or D columns if numbers are
    missing.

    They follow from sum w (x - reference) = sum w (x - own) + (own - reference) sum w, where `own`
    is the reference of ``sums``.
    """
    # Undo the scaling of columns that underflow: the sums of all batches need one common scale.
    unscale = np.exp2(np.minimum(sums.exponent[0], 0))
    w, p = (sum_[0].reshape(len(sum_[0]), -1) for sum_ in (sums.sum_w, sums.sum_p))
    wx = sums.sum_wx[0] + (sums.reference - reference) * w
    return np.asarray(np.hstack([wx, w, p]) * unscale[:, None], np.float64)


def unpack(packed: Float64, n_features: int) -> tuple[Float64, Float64, Float64]:
    """A, B and P of packed sums."""
    middle = (n_features + packed.shape[1]) // 2
    return packed[:, :n_features], packed[:, n_features:middle], packed[:, middle:]


def for_each_feature(packed: Float64, n_features: int) -> Float64:
    """Packed sums with B and P for each feature; those of complete rows are the same for all."""
    if packed.shape[1] == 3 * n_features:
        return packed
    wx, w, p = unpack(packed, n_features)
    return np.hstack([wx, *(np.repeat(one, n_features, axis=1) for one in (w, p))])


def damped_step(packed: Float64, centroids: Float64, reference: Float64, radius: float) -> Float64:
    """The step of each centroid, no longer than ``radius``.

    If B > 0, it is the damped step of the solver, (A - B C) / max(B, theta P). If B <= -theta P, it
    is the exact step A / B - C. This is the case for a centroid that all rows repel: all weights of
    its column are negative, so that A / B is a weighted mean of these rows, and the step leads back
    to them. Between these bounds positive and negative weights cancel, and the centroid does not
    move.
    """
    wx, w, p = unpack(packed, centroids.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (wx - w * (centroids - reference)) / np.where(w > 0, np.maximum(w, THETA * p), w)
        step = np.where(((w > 0) | (w <= -THETA * p)) & np.isfinite(step), step, 0.0)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        return step * np.where(length > radius, radius / length, 1.0)


def on_sphere(centroids: Float64) -> Float64:
    """Centroids (..., D) divided by their lengths."""
    return np.asarray(centroids / np.linalg.norm(centroids, axis=-1, keepdims=True))


def moved(
    packed: Float64, centroids: Float64, reference: Float64, radius: float, space: str
) -> Float64:
    """The centroids after a step; those of length 1 take the step of `unit_step`."""
    if space != "unit":
        return centroids + damped_step(packed, centroids, reference, radius)
    return on_sphere(centroids + unit_step(packed, centroids, reference, radius))


def unit_step(packed: Float64, centroids: Float64, reference: Float64, radius: float) -> Float64:
    """`damped_step` for centroids of length 1.

    With L = A . C it is (A - L C) / max(L, theta P) if B > 0, as in the solver. If B <= -theta P,
    it leads to the direction of A / B.
    """
    wx, w, p = unpack(packed, centroids.shape[1])
    wx = wx + w * reference
    along = (wx * centroids).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (wx - along * centroids) / np.maximum(along, THETA * p)
        back = -wx / np.linalg.norm(wx, axis=1, keepdims=True) - centroids
        step = np.where(w > 0, step, np.where(w <= -THETA * p, back, 0.0))
        step = np.where(np.isfinite(step), step, 0.0)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        return step * np.where(length > radius, radius / length, 1.0)


class LastSums:
    """The sums of some rows. Those of the last pass are kept, so that `at` can return them."""

    def __init__(self, rows: Sums) -> None:
        self.rows = rows
        self.centroids = np.empty((0, 0, 0))
        self.sums: CentredStatistics | None = None

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass for centroids (S, K, D) and alpha (S,)."""
        self.centroids, self.sums = centroids, self.rows.statistics(centroids, alpha)
        return self.sums

    def at(self, centroids: Float64, alpha: float) -> CentredStatistics:
        """The sums of one problem. A new pass is made if the last one had other centroids."""
        for i, last in enumerate(self.centroids):
            if self.sums is not None and np.array_equal(last, centroids):
                return self.sums.problem(i)
        return self.rows.statistics(centroids[None], np.array([alpha]))


@dataclass
class Epochs:
    """The result of `epochs`."""

    centroids: Float64  # (K, D)
    history: list[float]  # for each epoch, J summed over batches, each at the centroids of its turn


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
    space: str,
    report: Callable[[int, float, float, Float64], bool],
) -> Epochs:
    """Take steps after each batch, while an epoch moves the centroids much less than the last one.

    Until a batch is read for the first time, its sums are estimated from those of a sample:
    ``sample`` holds the sums of that sample at ``centroids``, and ``sampled`` is its total weight.
    There are at most ``most`` epochs, and none follows one that moves the centroids by at most
    ``threshold``. ``report`` is called after each epoch with its number, the objective, the
    distance that the centroids moved, and the centroids. If it returns True, the iteration stops.
    """
    reference, alphas = sample.reference, np.array([alpha])
    mass = batches.masses / sampled
    kept = mass[:, None, None] * pack(sample, reference)
    objectives = np.empty(len(mass))
    history: list[float] = []
    way_before = np.inf
    for epoch in range(1, most + 1):
        before = centroids
        # The total is summed again in each epoch, so that rounding errors do not accumulate.
        total = kept.sum(axis=0)
        with closing(batches.visit(random_state)) as visits:
            for b, batch in visits:
                sums = batch.statistics(centroids[None], alphas)
                fresh = pack(sums, reference)
                total += fresh - kept[b]
                kept[b] = fresh
                objectives[b] = sums.objective[0]
                centroids = moved(total, centroids, reference, radius, space)
        history.append(float(objectives.sum()))
        way = float(np.linalg.norm(centroids - before))
        stop = report(epoch, history[-1], way, centroids)
        if stop or way <= threshold or not way < STALL * way_before:
            break
        way_before = way
    if len(history) > 1 and history[-1] > history[-2]:
        centroids = before
    return Epochs(centroids, history)
