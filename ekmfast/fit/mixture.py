"""Mixtures of Student distributions, and their expectation maximization by sums that add.

A component k has a weight pi_k, a mean m_k, a scatter matrix S_k, and v degrees of freedom, which
all components share. With D features and the squared distance

    q_nk = (x_n - m_k)^T S_k^-1 (x_n - m_k)

its density at x_n is

    log f_k(x_n) = log G((v + D)/2) - log G(v/2) - D/2 log(v pi) - 1/2 log |S_k|
                   - (v + D)/2 log(1 + q_nk / v),

G being the gamma function; it is a Gaussian if v is infinite. One iteration of expectation
maximization (Peel and McLachlan 2000) computes

    r_nk = pi_k f_k(x_n) / sum_i pi_i f_i(x_n)         (responsibilities)
    u_nk = (v + D) / (v + q_nk)                        (small for far rows)
    pi_k = sum_n r_nk / N
    m_k  = sum_n r_nk u_nk x_n / sum_n r_nk u_nk
    S_k  = sum_n r_nk u_nk (x_n - m_k)(x_n - m_k)^T / sum_n r_nk

Here each scatter matrix is shrunk towards the common one, C = sum_k pi_k S_k / t_k, times the scale
t_k of the component: as if some further rows with that scatter belonged to it. So a component of a
few rows has a scatter matrix that can be inverted, and the likelihood has no infinite maxima.

References
----------
D. Peel and G. J. McLachlan, "Robust mixture modelling using the t distribution", Statistics and
Computing 10, 339 (2000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Float64 = NDArray[np.float64]

KINDS = ("spherical", "diag", "tied", "full")

# VARIANCE_PRIOR, MATRIX_PRIOR and PENALTY were chosen on problems of `bench/problems.py` with seeds
# that no published figure uses; the others are those of `fit.likelihood`, or hardly matter.
# A component's scale is shrunk towards 1 as if by so many rows.
SCALE_PRIOR = 10.0
# Its variances are shrunk as if by so many rows, its scatter matrix as if by so many for each
# feature and one more.
VARIANCE_PRIOR = 100.0
MATRIX_PRIOR = 2.0
# The least variance of the common scatter, in any direction, as a share of the mean over features.
LEAST_VARIANCE = {"spherical": 0.01, "diag": 0.05, "tied": 0.01, "full": 0.01}
# How much each parameter lowers the criterion, as a share of BIC's 1/2 ln N / N.
PENALTY = 0.3

# A chunk of rows whose responsibilities are computed at once.
CHUNK_ROWS = 1 << 14
TINY = float(np.finfo(np.float64).tiny)
# The least variance at all, for rows in units of their root mean square distance from the mean.
LEAST_SCATTER = 1e-18


@dataclass(frozen=True)
class StudentMixture:
    """The parameters of a mixture of K components in D dimensions.

    Attributes
    ----------
    weights : ndarray of shape (K,)
    means : ndarray of shape (K, D)
    scatters : ndarray of shape (K, D, D), or (K, D) for the kinds 'spherical' and 'diag'
    kind : {'spherical', 'diag', 'tied', 'full'}
    degrees : float > 0
        Degrees of freedom; infinite for Gaussians.
    scales : ndarray of shape (K,)
        The scales t_k towards which the next iteration shrinks.
    """

    weights: Float64
    means: Float64
    scatters: Float64
    kind: str
    degrees: float
    scales: Float64

    @property
    def full(self) -> bool:
        return self.scatters.ndim == 3

    @cached_property
    def whiteners(self) -> Float64:
        """Matrices (K, D, D), or factors (K, D), that make rows minus a mean uncorrelated."""
        if not self.full:
            factors: Float64 = 1 / np.sqrt(self.scatters)
            return factors
        halves = np.linalg.cholesky(self.scatters)
        return np.swapaxes(np.linalg.inv(halves), 1, 2)

    @cached_property
    def offsets(self) -> Float64:
        """log pi_k and the terms of log f_k (K,) that do not depend on the row."""
        d, v = self.means.shape[1], self.degrees
        factors = np.diagonal(self.whiteners, axis1=1, axis2=2) if self.full else self.whiteners
        constant = -0.5 * d * np.log(2 * np.pi)
        if np.isfinite(v):
            constant = gammaln((v + d) / 2) - gammaln(v / 2) - 0.5 * d * np.log(v * np.pi)
        with np.errstate(divide="ignore"):  # a component without weight
            offsets: Float64 = constant + np.log(self.weights) + np.log(factors).sum(axis=1)
        return offsets

    def distances(self, X: Float64) -> Float64:
        """The squared distances q_nk (N, K)."""
        result = np.empty((len(X), len(self.weights)))
        for k, (mean, whitener) in enumerate(zip(self.means, self.whiteners, strict=True)):
            y = X - mean
            y = y @ whitener if self.full else y * whitener
            result[:, k] = np.einsum("nd,nd->n", y, y)
        return result

    def joint(self, distances: Float64) -> Float64:
        """log pi_k + log f_k(x_n) (N, K) of rows with these squared distances."""
        d, v = self.means.shape[1], self.degrees
        joint: Float64 = self.offsets - (
            0.5 * distances if np.isinf(v) else 0.5 * (v + d) * np.log1p(distances / v)
        )
        return joint

    def log_joint(self, X: Float64) -> Float64:
        """log pi_k + log f_k(x_n) (N, K)."""
        return self.joint(self.distances(X))

    @property
    def covariances(self) -> Float64:
        """Covariances, in the form of ``scatters``: v / (v - 2) times these."""
        v = self.degrees
        covariances: Float64 = self.scatters * (1.0 if np.isinf(v) else v / (v - 2))
        return covariances

    @property
    def n_parameters(self) -> float:
        """The number of free parameters, without the degrees of freedom."""
        k, d = map(float, self.means.shape)
        matrix = d * (d + 1) / 2
        shapes = {"spherical": k, "diag": k * d, "tied": matrix, "full": k * matrix}
        return k - 1 + k * d + shapes[self.kind]


@dataclass(frozen=True)
class Sums:
    """What one pass over rows gives for the next mixture; sums of disjoint rows add.

    ``mass`` (K,) = sum r, ``weight`` (K,) = sum r u, ``first`` (K, D) = sum r u (x - m) about the
    means of the mixture, ``second`` (K, D, D) or (K, D) = sum r u (x - m)(x - m)^T, ``likelihood``
    = sum log sum_k pi_k f_k and ``classified`` = sum max_k log pi_k f_k. All are weighted by s.
    """

    mass: Float64
    weight: Float64
    first: Float64
    second: Float64
    likelihood: float
    classified: float

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.mass + other.mass,
            self.weight + other.weight,
            self.first + other.first,
            self.second + other.second,
            self.likelihood + other.likelihood,
            self.classified + other.classified,
        )


def expectation(mixture: StudentMixture, X: Float64, s: Float64) -> Sums:
    """The sums of one pass over the rows X (N, D) with weights s (N,), some rows at a time."""
    starts = range(0, len(X), CHUNK_ROWS)
    chunks = (slice(i, i + CHUNK_ROWS) for i in starts)
    return reduce(add, (_expectation(mixture, X[rows], s[rows]) for rows in chunks))


def _expectation(mixture: StudentMixture, X: Float64, s: Float64) -> Sums:
    q = mixture.distances(X)
    joint = mixture.joint(q)
    largest = joint.max(axis=1)
    r = np.exp(joint - largest[:, None])
    total = r.sum(axis=1)
    r *= (s / total)[:, None]
    v, d = mixture.degrees, X.shape[1]
    weighted = r if np.isinf(v) else r * ((v + d) / (v + q))
    return Sums(
        r.sum(axis=0),
        *_moments(mixture.means, X, weighted, full=mixture.full),
        float(s @ (largest + np.log(total))),
        float(s @ largest),
    )


def _moments(
    means: Float64, X: Float64, weighted: Float64, *, full: bool
) -> tuple[Float64, Float64, Float64]:
    """``weight``, ``first`` and ``second`` of `Sums` for the weights r u (N, K) of rows."""
    k, d = means.shape
    first, second = np.empty((k, d)), np.empty((k, d, d) if full else (k, d))
    for i, mean in enumerate(means):
        y = X - mean
        scaled = weighted[:, i, None] * y
        first[i] = scaled.sum(axis=0)
        second[i] = scaled.T @ y if full else np.einsum("nd,nd->d", scaled, y)
    return weighted.sum(axis=0), first, second


def maximization(before: StudentMixture, sums: Sums) -> StudentMixture:
    """The mixture that the sums give, with shrunk scatter matrices."""
    kind, d = before.kind, before.means.shape[1]
    weight = np.maximum(sums.weight, TINY)
    shift = sums.first / weight[:, None]
    # sum r u (x - m)(x - m)^T about the new mean.
    if before.full:
        second = sums.second - np.einsum("k,ki,kj->kij", weight, shift, shift)
    else:
        second = np.maximum(sums.second - weight[:, None] * shift**2, 0.0)
    total = sums.mass.sum()
    common = np.tensordot(1 / before.scales, second, axes=1) / total
    common, inverse = _floored(common, LEAST_VARIANCE[kind])
    relative = (second * inverse).reshape(len(second), -1).sum(axis=1)
    scales = (relative + SCALE_PRIOR * d) / (d * (sums.mass + SCALE_PRIOR))
    axes = (1,) * (second.ndim - 1)
    if kind == "tied":
        scales = np.ones_like(scales)
        scatters = np.repeat(common[None], len(second), axis=0)
    else:
        prior = MATRIX_PRIOR * (d + 1) if kind == "full" else VARIANCE_PRIOR
        target = scales.reshape(-1, *axes) * common
        scatters = (second + prior * target) / (sums.mass + prior).reshape(-1, *axes)
        if kind == "spherical":
            scatters = np.repeat(scatters.mean(axis=1, keepdims=True), d, axis=1)
    return replace(
        before,
        weights=sums.mass / total,
        means=before.means + shift,
        scatters=scatters,
        scales=scales,
    )


def _floored(common: Float64, share: float) -> tuple[Float64, Float64]:
    """The common scatter with a least variance in every direction, and its inverse."""
    if common.ndim == 1:
        floored = np.maximum(common, max(share * common.mean(), LEAST_SCATTER))
        return floored, 1 / floored
    variances, directions = np.linalg.eigh(common)
    variances = np.maximum(variances, max(share * variances.mean(), LEAST_SCATTER))
    return (directions * variances) @ directions.T, (directions / variances) @ directions.T


def from_labels(
    X: Float64, s: Float64, labels: NDArray[Any], kind: str, degrees: float
) -> StudentMixture:
    """The mixture of one component for each label from 0 on, each of which some row must have."""
    k, d = int(labels.max()) + 1, X.shape[1]
    full = kind in ("tied", "full")
    mass = np.bincount(labels, s, k).astype(np.float64)
    means = np.empty((k, d))
    second = np.empty((k, d, d) if full else (k, d))
    for i in range(k):
        rows, own = X[labels == i], s[labels == i]
        means[i] = own @ rows / mass[i]
        y = rows - means[i]
        second[i] = (own[:, None] * y).T @ y if full else own @ y**2
    empty = StudentMixture(np.ones(k), means, second, kind, degrees, np.ones(k))
    return maximization(empty, Sums(mass, mass, np.zeros((k, d)), second, 0.0, 0.0))


@dataclass(frozen=True)
class Fitted:
    """A mixture, and how it fits the rows from which it was computed.

    ``likelihood`` is the mean log density of a row, and ``classified`` the mean over rows of
    log pi_k f_k of its most likely component, the classification likelihood (Biernacki, Celeux and
    Govaert 2000).
    """

    mixture: StudentMixture
    likelihood: float
    classified: float
    n_rows: float
    n_iter: int
    converged: bool

    @property
    def criterion(self) -> float:
        """The classification likelihood minus a penalty for parameters; larger is better."""
        parameters = self.mixture.n_parameters
        penalty = PENALTY * parameters * math.log(self.n_rows) / (2 * self.n_rows)
        return self.classified - penalty


def expectation_maximization(
    X: Float64, s: Float64, mixture: StudentMixture, *, max_iter: int, tol: float
) -> Fitted:
    """Iterate until the mean log density rises by less than ``tol``.

    The result is the mixture of which the likelihoods are known, that is the last but one.
    """
    total = float(s.sum())
    before = -np.inf
    for i in range(1, max_iter + 1):
        sums = expectation(mixture, X, s)
        likelihood = sums.likelihood / total
        converged = abs(likelihood - before) < tol
        if converged or i == max_iter:
            break
        before = likelihood
        mixture = maximization(mixture, sums)
    return Fitted(mixture, likelihood, sums.classified / total, total, i, converged)
