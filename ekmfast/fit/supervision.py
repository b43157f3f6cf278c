"""Semi-supervised fits: the sums of the solver and the starts, if some rows have known clusters.

With f_kn the prior of row n for cluster k and b_n = sum_k f_kn (1 for a labelled row, 0 for an
unlabelled one) the objective is

    J + theta sum_n s_n (sum_k f_kn d_kn - b_n E_n).

The second term penalises a labelled row by theta times the difference between the distance to its
own centroid and its mean distance E_n under the memberships. A row whose membership in its own
cluster is 1 adds nothing, so that a centroid is not pulled towards those of its rows that happen to
be labelled. The gradient with respect to c_k is B_k c_k - A_k, where A_k and B_k are sums with

    w'_kn = w_kn + theta (f_kn - b_n w_kn)

instead of w_kn. These sums are those over all rows, minus theta times those over the labelled rows,
plus theta times sums of f. The last ones do not depend on the centroids: they are the masses and
the means of the classes. With m_k the mean of class k, n_k its mass and S_k the scatter about m_k,
sum_n s_n f_kn d_kn = 1/2 (S_k + n_k ||c_k - m_k||^2). The solver uses these sums in place of those
of EKM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from ekmfast.fit.problem import Problem
from ekmfast.fit.seeding import LLOYD_PASSES
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.protocol import Rows, Sums
from ekmfast.rows.statistics import CentredStatistics

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Supervision:
    """Sums over the labelled rows, for labels and for priors alike."""

    rows: NDArray[np.intp]  # (M,), the numbers of the rows with b > 0
    trust: Float64  # (M,), b of these rows
    labelled: ArrayRows  # these rows, weighted by s b
    mass: Float64  # (K,), sum_n s_n f_kn
    means: Float64  # (K, D), of the classes; arbitrary if the mass is 0
    scatter: Float64  # (K,), sum_n s_n f_kn ||x_n - mean_k||^2
    start: Float64  # (K, D), first centroids; NaN for a cluster without labelled rows


def supervise(rows: Rows, prior: csr_matrix) -> Supervision:
    """Sums over the rows for which ``prior`` (N, K) is not zero. These rows are held in memory."""
    trust = np.asarray(prior.sum(axis=1), np.float64).ravel()
    numbers = np.flatnonzero(trust)
    trust, prior = trust[numbers], prior[numbers]
    some = rows.fetch(numbers)
    part = some.part(slice(None))
    data: Any = part.astype(np.float64, copy=not issparse(part))
    weight = some.sample_weight
    origin = np.zeros(some.n_features)
    if not issparse(data):  # to subtract a point from sparse rows would fill them
        origin = data.mean(axis=0) if len(numbers) else origin
        data -= origin
    counts = np.repeat(np.arange(len(numbers)), np.diff(prior.indptr))
    scale = np.ones(len(numbers)) if weight is None else weight.astype(np.float64)

    weighted = prior.copy()
    weighted.data = prior.data * scale[counts]
    mass, means = _class_means(weighted, data)
    means = np.where(np.isnan(means), 0.0, means)
    squares = data.multiply(data) if issparse(data) else np.square(data)
    scatter = weighted.T @ np.asarray(squares.sum(axis=1)).ravel()
    scatter -= mass * np.square(means).sum(axis=1)

    # A prior that is equal for all clusters does not say where to start. The first centroids are
    # therefore weighted by the excess of a prior over its mean.
    excess = prior.copy()
    excess.data = scale[counts] * np.maximum(prior.data - trust[counts] / prior.shape[1], 0.0)
    _, start = _class_means(excess, data)
    own = trust if weight is None else trust * weight
    return Supervision(
        numbers,
        trust,
        some.reweighted(own.astype(some.dtype)),
        mass,
        means + origin,
        np.maximum(scatter, 0.0),
        start + origin,
    )


def _class_means(prior: csr_matrix, data: Any) -> tuple[Float64, Float64]:
    mass = np.asarray(prior.sum(axis=0), np.float64).ravel()
    sums = prior.T @ data
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (sums.toarray() if issparse(sums) else sums) / mass[:, None]
    return mass, np.where(mass[:, None] > 0, means, np.nan)


class SupervisedSums:
    """The sums of Eq. 39 with the weights w' of this module, for the solver."""

    def __init__(self, rows: Sums, supervision: Supervision, theta: float) -> None:
        self.rows = rows
        self.supervision = supervision
        self.theta = theta

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """Compute the sums by one pass over all rows and one over the labelled ones."""
        everything = self.rows.statistics(centroids, alpha)
        labelled = self.supervision.labelled.statistics(centroids, alpha)
        theta, given, reference = self.theta, self.supervision, everything.reference
        # The mass of a class does not underflow, even if the memberships do.
        exponent = np.where(given.mass > 0, 0.0, np.maximum(everything.exponent, labelled.exponent))
        own = np.exp2(np.minimum(everything.exponent - exponent, 0.0))
        less = np.exp2(np.minimum(labelled.exponent - exponent, 0.0))
        p, p_labelled = own * everything.sum_p, less * labelled.sum_p
        w_labelled = less * labelled.sum_w
        # sum w (x - reference) = sum w (x - other) + (other - reference) sum w
        wx_labelled = (
            less[..., None] * labelled.sum_wx
            + (labelled.reference - reference) * w_labelled[..., None]
        )
        distance = given.scatter + given.mass * np.square(centroids - given.means).sum(axis=-1)
        return CentredStatistics(
            sum_wx=own[..., None] * everything.sum_wx
            - theta * wx_labelled
            + theta * given.mass[:, None] * (given.means - reference),
            sum_w=own * everything.sum_w - theta * w_labelled + theta * given.mass,
            # The solver compares B with P to find weak columns. Here P sums the memberships times
            # the absolute values of their factors.
            sum_p=p - p_labelled + abs(1 - theta) * p_labelled + theta * given.mass,
            exponent=exponent,
            objective=everything.objective
            - theta * labelled.objective
            + 0.5 * theta * distance.sum(axis=-1),
            reference=reference,
        )


def starts_with_labels(
    problem: Problem,
    given: Supervision,
    init: str,
    n_init: int,
    random_state: np.random.RandomState,
) -> Float64:
    """The starts (S, K, D): means for labelled clusters, the rule ``init`` for the others.

    The first centroids of the other clusters are chosen from the unlabelled rows of the survey's
    sample.
    """
    free = np.isnan(given.start[:, 0])
    if not free.any():
        return given.start[None]
    survey = problem.survey
    rows = survey.sample.on_host()
    s = rows.sample_weight
    mass = np.ones(rows.n_rows) if s is None else s.astype(np.float64)
    at, trust = given.rows, given.trust
    if survey.numbers is not None:
        _, at, own = np.intersect1d(survey.numbers, given.rows, True, return_indices=True)
        trust = trust[own]
    unknown = mass.copy()
    unknown[at] *= np.maximum(1 - trust, 0.0)
    if unknown.sum() > 0:
        mass = unknown
    rules = ["farthest"] if init in ("auto", "farthest") else []
    if init != "farthest":
        rules += [init] * (n_init - len(rules))
    starts = np.repeat(given.start[None], len(rules), axis=0)
    for start, rule in zip(starts, rules, strict=True):
        _fill(start, free, rows, mass, rule, random_state)
        if rule == "k-means":
            _lloyd(start, free, rows, mass)
    return starts


def _lloyd(start: Float64, free: NDArray[np.bool_], rows: ArrayRows, mass: Float64) -> None:
    """Move the free centroids of ``start`` in place by iterations of hard k-means."""
    hard = rows.reweighted(mass.astype(rows.dtype)).with_weighting("hard")
    for _ in range(LLOYD_PASSES):
        moved = hard.statistics(start[None], np.ones(1)).ratio(start[None])[0][free]
        if np.array_equal(moved, start[free]):
            break
        start[free] = moved


def _fill(
    start: Float64,
    free: NDArray[np.bool_],
    rows: ArrayRows,
    mass: Float64,
    rule: str,
    random_state: np.random.RandomState,
) -> None:
    """Set the free centroids of ``start`` in place to rows that have a positive ``mass``."""
    closest = _squared_distances(rows, start[~free])
    for k in np.flatnonzero(free):
        probability = mass * (closest > 0) if rule == "random" else mass * closest
        if not probability.sum() > 0:  # every row equals one of the centroids
            probability = mass
        if rule == "farthest":
            row = int(np.where(mass > 0, closest, -1.0).argmax())
        else:
            total = np.cumsum(probability)
            drawn = random_state.uniform() * total[-1]
            row = min(int(np.searchsorted(total, drawn, side="right")), rows.n_rows - 1)
        start[k] = rows.take(np.array(row))
        closest = np.minimum(closest, _squared_distances(rows, start[k : k + 1]))


def _squared_distances(rows: ArrayRows, centroids: Float64) -> Float64:
    _, squared = rows.nearest(np.ascontiguousarray(centroids))
    return np.asarray(squared, np.float64)
