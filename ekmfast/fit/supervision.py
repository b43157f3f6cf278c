"""The clusters of some rows are known: their share in the sums, and where it lets a fit start.

With f_kn the prior of row n for cluster k and b_n = sum_k f_kn (1 for a labelled row, 0 for an
unlabelled one) the objective is

    J + theta sum_n s_n (sum_k f_kn d_kn - b_n E_n)

a labelled row pays, theta times over, for its distance to its own centroid beyond the distance E_n
that it would settle for by itself. A row in its place pays nothing, so labels do not draw their
centroid towards the rows that happen to be labelled. Its gradient in c_k is B_k c_k - A_k with

    w'_kn = w_kn + theta (f_kn - b_n w_kn)

so the sums of one pass are those over all rows, less theta times those over the labelled rows,
plus theta times sums of f, which depend on nothing: the class masses and means. With m_k the mean
of class k, n_k its mass and S_k the scatter about m_k, sum_n s_n f_kn d_kn is
1/2 (S_k + n_k ||c_k - m_k||^2). The solver iterates on these sums as it does on EKM's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ekmfast.fit.problem import Problem
from ekmfast.fit.seeding import LLOYD_PASSES
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.protocol import Rows, Sums
from ekmfast.rows.statistics import CentredStatistics

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Supervision:
    """What the labelled rows say, however they say it."""

    rows: NDArray[np.intp]  # (M,), the numbers of those with b > 0
    trust: Float64  # (M,), b of those rows
    labelled: ArrayRows  # those rows, weighted by s b
    mass: Float64  # (K,), sum_n s_n f_kn
    means: Float64  # (K, D), of the classes; any where the mass is 0
    scatter: Float64  # (K,), sum_n s_n f_kn ||x_n - mean_k||^2
    seeds: Float64  # (K, D), NaN for a cluster that no row speaks for


def supervise(rows: Rows, prior: csr_matrix) -> Supervision:
    """Sums over the rows for which ``prior`` (N, K) says something; these are held in memory."""
    trust = np.asarray(prior.sum(axis=1), np.float64).ravel()
    numbers = np.flatnonzero(trust)
    trust, prior = trust[numbers], prior[numbers]
    some = rows.fetch(numbers)
    data, weight = some.X.astype(np.float64), some.sample_weight
    origin = data.mean(axis=0) if len(numbers) else np.zeros(some.n_features)
    data -= origin
    counts = np.repeat(np.arange(len(numbers)), np.diff(prior.indptr))
    scale = np.ones(len(numbers)) if weight is None else weight.astype(np.float64)

    weighted = prior.copy()
    weighted.data = prior.data * scale[counts]
    mass, means = _class_means(weighted, data)
    means = np.where(np.isnan(means), 0.0, means)
    scatter = weighted.T @ np.square(data).sum(axis=1) - mass * np.square(means).sum(axis=1)

    # A prior that leans to no cluster says nothing of where to start: what counts is the excess.
    excess = prior.copy()
    excess.data = scale[counts] * np.maximum(prior.data - trust[counts] / prior.shape[1], 0.0)
    _, seeds = _class_means(excess, data)
    own = trust if weight is None else trust * weight
    return Supervision(
        numbers,
        trust,
        ArrayRows(some.X, own.astype(some.dtype), some.n_threads),
        mass,
        means + origin,
        np.maximum(scatter, 0.0),
        seeds + origin,
    )


def _class_means(prior: csr_matrix, data: Float64) -> tuple[Float64, Float64]:
    mass = np.asarray(prior.sum(axis=0), np.float64).ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (prior.T @ data) / mass[:, None]
    return mass, np.where(mass[:, None] > 0, means, np.nan)


class SupervisedSums:
    """The sums of Eq. 39 with the labels' share, for the solver."""

    def __init__(self, rows: Sums, supervision: Supervision, theta: float) -> None:
        self.rows = rows
        self.supervision = supervision
        self.theta = theta

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over all rows, and one over the labelled ones."""
        everything = self.rows.statistics(centroids, alpha)
        labelled = self.supervision.labelled.statistics(centroids, alpha)
        theta, given, reference = self.theta, self.supervision, everything.reference
        # A class's own mass does not underflow, whatever the memberships do.
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
            # The yardstick of weak columns: every membership, by the size of its factor.
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
    """First centroids (S, K, D): labelled clusters at their means, the others by the rule ``init``.

    Seeds of the others are drawn from the rows at hand, as far as these are not labelled.
    """
    free = np.isnan(given.seeds[:, 0])
    if not free.any():
        return given.seeds[None]
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
    starts = np.repeat(given.seeds[None], len(rules), axis=0)
    for start, rule in zip(starts, rules, strict=True):
        _fill(start, free, rows, mass, rule, random_state)
        if rule == "k-means":
            _lloyd(start, free, rows, mass)
    return starts


def _lloyd(start: Float64, free: NDArray[np.bool_], rows: ArrayRows, mass: Float64) -> None:
    """Move the free centroids of ``start`` as hard k-means does, in place."""
    hard = ArrayRows(rows.X, mass.astype(rows.dtype), rows.n_threads, weighting="hard")
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
    """Rows, of those with ``mass``, for the free centroids of ``start``, in place."""
    closest = _squared_distances(rows, start[~free])
    for k in np.flatnonzero(free):
        chances = mass * (closest > 0) if rule == "random" else mass * closest
        if not chances.sum() > 0:  # every row is a seed already
            chances = mass
        if rule == "farthest":
            row = int(np.where(mass > 0, closest, -1.0).argmax())
        else:
            total = np.cumsum(chances)
            drawn = random_state.uniform() * total[-1]
            row = min(int(np.searchsorted(total, drawn, side="right")), rows.n_rows - 1)
        start[k] = rows.X[row]
        closest = np.minimum(closest, _squared_distances(rows, start[k : k + 1]))


def _squared_distances(rows: ArrayRows, centroids: Float64) -> Float64:
    _, squared = rows.nearest(np.ascontiguousarray(centroids))
    return np.asarray(squared, np.float64)
