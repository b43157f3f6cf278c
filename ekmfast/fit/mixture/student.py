"""`StudentMixture`: the parameters of one mixture, or of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from ekmfast import _core
from ekmfast.fit.mixture.background import Box
from ekmfast.fit.mixture.kinds import LEAST_VARIANCE, MATRICES, VARIANCE_PRIOR

Float64 = NDArray[np.float64]

# How much each parameter lowers the criterion, as a share of BIC's 1/2 ln N / N.
PENALTY = 0.3

# What the compiled code returns of mixtures.
PARAMETERS = ("weights", "background", "means", "scatters", "scales")


@dataclass(frozen=True)
class StudentMixture:
    """The parameters of a mixture of K components in D dimensions, or of several mixtures.

    The arrays of several mixtures, all of one kind, have a leading axis (S,).

    Attributes
    ----------
    weights : ndarray of shape (K,)
    means : ndarray of shape (K, D)
    scatters : ndarray of shape (K, D, D), or (K, D) for the kinds 'spherical' and 'diag'
    kind : {'spherical', 'diag', 'tied', 'full'}
    degrees : float > 0, or ndarray of shape (S,)
        Degrees of freedom; infinite for Gaussians.
    scales : ndarray of shape (K,)
        The scales t_k towards which the next iteration shrinks.
    background : float, or ndarray of shape (S,)
        The share of the background; ``weights`` add up to 1 minus this.
    log_volume : float
        -log f_0 of the background; infinite if there is none.
    """

    weights: Float64
    means: Float64
    scatters: Float64
    kind: str
    degrees: float | Float64
    scales: Float64
    background: float | Float64 = 0.0
    log_volume: float = math.inf

    def updated(self, found: tuple[Float64, ...]) -> StudentMixture:
        """Mixtures with the parameters that the compiled code returns."""
        parameters: dict[str, Any] = dict(zip(PARAMETERS, found, strict=True))
        return replace(self, **parameters)

    @property
    def full(self) -> bool:
        return self.scatters.ndim > self.means.ndim

    def __getitem__(self, which: Any) -> StudentMixture:
        """One of several mixtures, or some of them."""
        degrees = np.asarray(self.degrees, np.float64)[which]
        background = np.asarray(self.background, np.float64)[which]
        alone = np.ndim(degrees) == 0
        return StudentMixture(
            self.weights[which],
            self.means[which],
            self.scatters[which],
            self.kind,
            float(degrees) if alone else degrees,
            self.scales[which],
            float(background) if alone else background,
            self.log_volume,
        )

    @cached_property
    def whiteners(self) -> Float64:
        """Matrices (K, D, D), upper triangular, or factors (K, D).

        They make rows minus a mean uncorrelated, with variances of 1.
        """
        if not self.full:
            factors: Float64 = 1 / np.sqrt(self.scatters)
            return factors
        found = _core.whiteners(np.ascontiguousarray(self.scatters))
        if found is None:
            raise np.linalg.LinAlgError("a scatter matrix is not positive definite")
        return found

    @cached_property
    def offsets(self) -> Float64:
        """log pi_k and the terms of log f_k (K,) that do not depend on the row."""
        with np.errstate(divide="ignore"):  # a component without weight
            offsets: Float64 = self.constants[..., None] + np.log(self.weights) - self.log_sizes
        return offsets

    @property
    def constants(self) -> Float64:
        """The terms of log f_k () that depend only on degrees of freedom and features."""
        d, v = self.means.shape[-1], np.asarray(self.degrees, np.float64)
        return np.array([_constant(one, d) for one in v.flat]).reshape(v.shape)

    @property
    def log_sizes(self) -> Float64:
        """Half the logarithms of the determinants of the scatter matrices (K,)."""
        factors = self.whiteners
        if self.full:
            factors = np.diagonal(factors, axis1=-2, axis2=-1)
        sizes: Float64 = -np.log(factors).sum(axis=-1)
        return sizes

    @property
    def log_background(self) -> Float64:
        """log pi_0 f_0 of the background (); -inf if there is none."""
        share = np.asarray(self.background, np.float64)
        if not self.has_background:
            return np.full(share.shape, -np.inf)
        with np.errstate(divide="ignore"):
            found: Float64 = np.log(share) - self.log_volume
        return found

    @property
    def has_background(self) -> bool:
        return math.isfinite(self.log_volume)

    def with_background(self, share: float, box: Box, n_rows: float) -> StudentMixture:
        """A mixture of the same components and a background, which takes its share from all."""
        weights = (1 - share) * self.weights
        return replace(self, weights=weights, background=share).in_box(box, n_rows)

    def in_box(self, box: Box, n_rows: float) -> StudentMixture:
        """The same mixture with the background of a box and of so many rows."""
        k = self.means.shape[-2]
        return replace(self, log_volume=_log_volume(box, self.kind, n_rows / k))

    @property
    def covariances(self) -> Float64:
        """Covariances of one mixture, in the form of ``scatters``: v / (v - 2) times these."""
        v = self.degrees
        covariances: Float64 = self.scatters * (1.0 if np.isinf(v) else v / (v - 2))
        return covariances

    @property
    def n_parameters(self) -> float:
        """The number of free parameters of a mixture, without the degrees of freedom."""
        k, d = map(float, self.means.shape[-2:])
        return k - 1 + k * d + self.n_shape_parameters + self.has_background

    def penalty(self, n_rows: float) -> float:
        """By how much the parameters lower the criterion (`Fitted.criterion`) for so many rows."""
        return PENALTY * self.n_parameters * math.log(n_rows) / (2 * n_rows)

    @property
    def n_shape_parameters(self) -> float:
        """How many of them are those of scatter matrices."""
        k, d = map(float, self.means.shape[-2:])
        matrix = d * (d + 1) / 2
        shapes = {"spherical": k, "diag": k * d, "tied": matrix, "full": k * matrix}
        return shapes[self.kind]


@cache
def _constant(v: float, d: int) -> float:
    """The part of log f_k that depends only on the degrees of freedom and number of features."""
    if math.isinf(v):
        return -0.5 * d * math.log(2 * math.pi)
    return float(gammaln((v + d) / 2) - gammaln(v / 2) - 0.5 * d * math.log(v * math.pi))


def _log_volume(box: Box, kind: str, n_rows: float) -> float:
    """The logarithm of the volume of the background beside components of so many rows."""
    least = LEAST_VARIANCE[kind]
    if kind not in MATRICES:  # the variance of a component without variance, by `maximization`
        least *= VARIANCE_PRIOR / (n_rows + VARIANCE_PRIOR)
    return box.log_volume(least, round_=kind == "spherical")


def stacked(mixtures: Sequence[StudentMixture]) -> StudentMixture:
    """Several mixtures of one kind and as many components each, as one with a leading axis."""
    return StudentMixture(
        np.stack([m.weights for m in mixtures]),
        np.stack([m.means for m in mixtures]),
        np.stack([m.scatters for m in mixtures]),
        mixtures[0].kind,
        np.array([m.degrees for m in mixtures], np.float64),
        np.stack([m.scales for m in mixtures]),
        np.array([m.background for m in mixtures], np.float64),
        mixtures[0].log_volume,
    )


def for_kernels(
    mixtures: StudentMixture,
) -> tuple[Float64, Float64, Float64, Float64, Float64]:
    """Means, whiteners, offsets, degrees and backgrounds of several mixtures, for the kernels."""
    whiteners = np.ascontiguousarray(mixtures.whiteners)
    degrees = np.asarray(mixtures.degrees, np.float64)
    means = np.ascontiguousarray(mixtures.means)
    return means, whiteners, mixtures.offsets, degrees, mixtures.log_background
