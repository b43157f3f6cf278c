"""Mixtures of Student distributions, and their expectation maximization by sums that add.

A component k has a weight pi_k, a mean m_k, a scatter matrix S_k, and v degrees of freedom, which
all components share. With D features and the squared distance

    q_nk = (x_n - m_k)^T S_k^-1 (x_n - m_k)

its density at x_n is (Eq. 22, eq-student; these numbers are those of docs/mathematics.md)

    log f_k(x_n) = log G((v + D)/2) - log G(v/2) - D/2 log(v pi) - 1/2 log |S_k|
                   - (v + D)/2 log(1 + q_nk / v),

G being the gamma function; it is a Gaussian if v is infinite. One iteration of expectation
maximization (Peel and McLachlan 2000) computes (Eq. 23, eq-responsibility)

    r_nk = pi_k f_k(x_n) / sum_i pi_i f_i(x_n)         (responsibilities)
    u_nk = (v + D) / (v + q_nk)                        (small for far rows)

and from them

    pi_k = sum_n r_nk / N
    m_k  = sum_n r_nk u_nk x_n / sum_n r_nk u_nk
    S_k  = sum_n r_nk u_nk (x_n - m_k)(x_n - m_k)^T / sum_n r_nk

Here (Eq. 24, eq-em) each scatter matrix is shrunk towards the common one, C = sum_k pi_k S_k / t_k,
times the scale t_k of the component: as if some further rows with that scatter belonged to it. So a
component of a few rows has a scatter matrix that can be inverted, and the likelihood has no
infinite maxima.

A mixture may have a background, one more component of constant density f_0 (Eq. 25, eq-background).
It takes part in the sums over i, and pi_0 = sum_n r_n0 / N is its share.

The sums over rows are computed by the compiled kernels, for several mixtures in one reading of the
rows, and of rows in memory all iterations are (csrc/maximization.h). `ekmfast._reference` has both
in plain NumPy. Where a matrix is not positive definite, or the common one has too small a variance
in some direction, LAPACK computes the step by eigenvectors.

References
----------
D. Peel and G. J. McLachlan, "Robust mixture modelling using the t distribution", Statistics and
Computing 10, 339 (2000).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any, ClassVar, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from ekmfast import _core
from ekmfast.fit.background import FIRST_BACKGROUND, MOST_BACKGROUND, Box

Float64 = NDArray[np.float64]

KINDS = ("spherical", "diag", "tied", "full")
MATRICES = KINDS[2:]  # whose scatters are matrices

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

# What the compiled code returns of mixtures, and the sums from which it computes them.
PARAMETERS = ("weights", "background", "means", "scatters", "scales")
MOMENTS = ("mass", "weight", "first", "second", "background")

TINY = float(np.finfo(np.float64).tiny)
# Rows may be read in float32 where its rounding errors are at most this share of the standard
# deviation of the narrowest component, in its narrowest direction, and the tolerance is so large.
ROUNDING, QUICK_TOL = 1e-3, 1e-5
# The least variance at all, for rows in units of their root mean square distance from the mean.
LEAST_SCATTER = 1e-18
# The rounding of a scatter matrix, as a share of its largest variance.
SCATTER_ROUNDING = 1e-13
# What scikit-learn's ``GaussianMixture`` adds to the mass of a component.
LEAST_MASS = 10 * float(np.finfo(np.float64).eps)
# Passes of one call of the compiled code, which allows no more.
MOST_PASSES = 1000


@dataclass(frozen=True)
class ScaledRows:
    """Rows minus a centre, in units: (X - centre) / unit, which kernels compute as they read X.

    Attributes
    ----------
    X : ndarray of shape (N, D), float32 or float64, C-contiguous
    sample_weight : ndarray of shape (N,) and the dtype of X, or None for ones
    centre : ndarray of shape (D,)
    unit : float > 0
    n_threads : int
    narrowed : bool
        Whether passes over float64 compute in float32, from rows that are centred and then rounded.
    """

    # Whether all passes of a run are one call of compiled code.
    compiled: ClassVar[bool] = True

    X: Any
    sample_weight: NDArray[Any] | None
    centre: Float64
    unit: float
    n_threads: int
    narrowed: bool = False

    @property
    def n_rows(self) -> int:
        return int(self.X.shape[0])

    @cached_property
    def total(self) -> float:
        """The sum of the weights."""
        s = self.sample_weight
        return float(self.n_rows if s is None else s.sum(dtype=np.float64))

    @cached_property
    def weights(self) -> Float64:
        """The weights (N,), ones if there are none."""
        s = self.sample_weight
        return np.ones(self.n_rows) if s is None else s.astype(np.float64, copy=False)

    @cached_property
    def rounded(self) -> ScaledRows:
        """The rows in float32."""
        s = self.sample_weight
        return replace(
            self,
            X=self.X.astype(np.float32),
            sample_weight=None if s is None else s.astype(np.float32),
        )

    @cached_property
    def rounding_error(self) -> float:
        """That of a value in float32, at most; infinite if float32 cannot hold the weights."""
        return self.rounding_error_of(float(np.abs(self.X).max()))

    def rounding_error_of(self, largest: float) -> float:
        """The same where the largest value is known."""
        float32, s = np.finfo(np.float32), self.sample_weight
        # Their sum must not overflow either.
        if s is not None and (
            s[s > 0].min() < float(float32.tiny) or self.total > float(float32.max)
        ):
            return math.inf
        return float(float32.eps) * largest

    def expectation(self, mixtures: StudentMixture) -> Sums:
        """The sums of one pass over the rows for several mixtures."""
        return Sums(
            *_core.expectation(
                self.X,
                self.sample_weight,
                self.centre,
                self.unit,
                *for_kernels(mixtures),
                self.n_threads,
            )
        )

    def iterate(self, mixtures: StudentMixture, step: Step, **settings: Any) -> Any:
        """What the compiled code returns for some passes, with the other arguments it needs."""
        arguments: dict[str, Any] = {
            name: np.ascontiguousarray(getattr(mixtures, name), np.float64)
            for name in (*PARAMETERS, "whiteners", "degrees", "constants")
        }
        arguments |= settings | step.settings(mixtures.kind, mixtures.means.shape[-1])
        return _core.expectation_maximization(
            X=self.X,
            sample_weight=self.sample_weight,
            centre=self.centre,
            unit=self.unit,
            log_volume=mixtures.log_volume,
            rounded=self.narrowed,
            n_threads=self.n_threads,
            **arguments,
        )

    def densities(self, mixture: StudentMixture, out: Sequence[Any]) -> None:
        """Write log densities to the arrays ``joint``, ``labels``, ... of `densities`."""
        joint, labels, largest, density = out
        one = for_kernels(mixture[None])
        threads = self.n_threads
        _core.densities(
            self.X, self.centre, self.unit, *one, joint, labels, largest, density, threads
        )

    def moments(self, labels: NDArray[Any], k: int, *, full: bool) -> tuple[Float64, Sums]:
        """`moments_of_labels` of rows that are not scaled any more."""
        s, threads = self.weights, self.n_threads
        return moments_of_labels(self.X, s, labels, k, full=full, n_threads=threads)


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


def _prior(kind: str, d: int) -> float:
    """The number of rows as if by which scatter matrices are shrunk."""
    return MATRIX_PRIOR * (d + 1) if kind == "full" else VARIANCE_PRIOR


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


@dataclass(frozen=True)
class Sums:
    """What one pass over rows gives for the next mixture; sums of disjoint rows add.

    ``mass`` (K,) = sum r, ``weight`` (K,) = sum r u, ``first`` (K, D) = sum r u (x - m) about the
    means of the mixture, ``second`` (K, D, D) or (K, D) = sum r u (x - m)(x - m)^T, ``background``
    () = sum r of the background, ``likelihood`` () = sum log sum_k pi_k f_k and ``classified`` () =
    sum max_k log pi_k f_k. All are weighted by s; those of several mixtures have a leading axis.
    """

    mass: Float64
    weight: Float64
    first: Float64
    second: Float64
    background: Float64
    likelihood: Float64
    classified: Float64

    def __getitem__(self, which: Any) -> Sums:
        """Those of one of several mixtures, or of some of them."""
        return Sums(*(getattr(self, part.name)[which] for part in fields(self)))

    @staticmethod
    def stacked(several: Sequence[Sums]) -> Sums:
        """Those of several mixtures, with a leading axis."""
        return Sums(
            *(np.stack([getattr(one, part.name) for one in several]) for part in fields(Sums))
        )

    def __add__(self, other: Sums) -> Sums:
        """Those of the rows of both."""
        return Sums(
            *(getattr(self, part.name) + getattr(other, part.name) for part in fields(self))
        )


class RowsOfMixtures(Protocol):
    """What expectation maximization asks of rows."""

    @property
    def total(self) -> float: ...
    def expectation(self, mixtures: StudentMixture) -> Sums: ...


def densities(
    mixture: StudentMixture,
    rows: ScaledRows,
    *,
    joint: NDArray[Any] | None = None,
    labels: NDArray[np.int32] | None = None,
    largest: NDArray[Any] | None = None,
    density: NDArray[Any] | None = None,
) -> None:
    """Write log densities of rows under one mixture to the arrays that are given.

    ``joint`` (N, K) gets log pi_k f_k, ``labels`` (N,) the component with the largest of these, the
    first of equals, or -1 if the background's is larger, ``largest`` (N,) that number, and
    ``density`` (N,) log sum_k pi_k f_k. They have the dtype of X, except for ``labels``.
    """
    rows.densities(mixture, (joint, labels, largest, density))


def label(mixture: StudentMixture, rows: ScaledRows) -> NDArray[np.int32]:
    """The most likely component of each row (N,), -1 for the background."""
    labels = np.empty(rows.n_rows, np.int32)
    densities(mixture, rows, labels=labels)
    return labels


@dataclass(frozen=True)
class Step:
    """How sums become the next mixtures.

    Attributes
    ----------
    prior_share : float
        Scatter matrices are shrunk as if by this share of `VARIANCE_PRIOR` or `MATRIX_PRIOR`.
    regularization : float or None
        If given, nothing is shrunk, but this is added to variances (`fit.gaussian`).
    """

    prior_share: float = 1.0
    regularization: float | None = None

    def __call__(self, before: StudentMixture, sums: Sums) -> StudentMixture:
        """The mixtures, or the one, that the sums give."""
        if before.means.ndim == 2:
            return self(before[None], sums[None])[0]
        parameters = {name: getattr(before, name) for name in ("means", "scales")}
        parameters |= {name: getattr(sums, name) for name in MOMENTS}
        arguments: dict[str, Any] = {
            name: np.ascontiguousarray(value) for name, value in parameters.items()
        }
        arguments |= self.settings(before.kind, before.means.shape[-1])
        found = _core.maximization(**arguments, n_threads=1)
        if found is None:
            return self.by_eigenvectors(before, sums)
        return before.updated(found)

    def settings(self, kind: str, d: int) -> dict[str, Any]:
        """Those of the compiled step."""
        return {
            "kind": kind,
            "prior": self.prior_share * _prior(kind, d),
            "scale_prior": SCALE_PRIOR,
            "least_share": LEAST_VARIANCE[kind],
            "least_scatter": LEAST_SCATTER,
            "most_background": MOST_BACKGROUND,
            "regularization": self.regularization,
        }

    def by_eigenvectors(self, before: StudentMixture, sums: Sums) -> StudentMixture:
        """The same where the compiled step cannot be made."""
        kind, d, full = before.kind, before.means.shape[-1], before.full
        shift, second = _centred_moments(sums, full=full)
        after = replace(before, means=before.means + shift)
        if self.regularization is not None:
            mass = sums.mass + LEAST_MASS
            added = self.regularization * (np.eye(d) if full else np.ones(d))
            scatters = second / _widened(mass, second) + added
            weights = mass / mass.sum(axis=-1, keepdims=True)
            return _invertible(replace(after, weights=weights, scatters=scatters))
        total = np.maximum(sums.mass.sum(axis=-1), TINY)
        background = np.minimum(sums.background / (total + sums.background), MOST_BACKGROUND)
        pooled = (second / _widened(before.scales, second)).sum(axis=-3 if full else -2)
        own = pooled / _widened(total, pooled)
        common, inverse, held = _floored(own, LEAST_VARIANCE[kind], full=full)
        of_all = (..., None, slice(None), slice(None)) if full else (..., None, slice(None))
        raised = (common - own)[of_all]
        common, inverse = common[of_all], inverse[of_all]
        relative = (second * inverse).sum(axis=(-2, -1) if full else -1)
        held = held[..., None]  # see `scale` of csrc/maximization.cpp
        scales = (relative + SCALE_PRIOR * held) / (held * (sums.mass + SCALE_PRIOR))
        if kind == "tied":
            scales = np.ones_like(scales)
            scatters = np.repeat(common, second.shape[-3], axis=-3)
        else:
            prior = self.prior_share * _prior(kind, d)
            target = _widened(scales, second) * common
            scatters = (second + prior * target) / _widened(sums.mass + prior, second)
            if full:
                # The prior raises the matrices of small components most. With that alone large ones
                # would be narrower in these directions, and take over the rows of small ones. So
                # all are raised as much as the smallest one, in units of their scales.
                shares = prior / (sums.mass + prior)
                missing = scales * (shares.max(axis=-1, keepdims=True) - shares)
                scatters += _widened(missing, second) * raised
            if kind == "spherical":
                scatters = np.repeat(scatters.mean(axis=-1, keepdims=True), d, axis=-1)
        return _invertible(
            replace(
                after,
                weights=sums.mass / total[..., None] * (1 - background)[..., None],
                background=background,
                scatters=scatters,
                scales=scales,
            )
        )


SHRUNK = Step()


def maximization(before: StudentMixture, sums: Sums, prior_share: float = 1.0) -> StudentMixture:
    """The mixtures that the sums give, with scatter matrices that are shrunk as if by so many rows.

    The numbers of rows are the share of `VARIANCE_PRIOR` and `MATRIX_PRIOR`.
    """
    return Step(prior_share)(before, sums)


def _invertible(mixtures: StudentMixture) -> StudentMixture:
    """The mixtures, of which every scatter matrix is made positive definite if it is not."""
    try:
        mixtures.whiteners  # noqa: B018  kept for the next pass
    except np.linalg.LinAlgError:
        return replace(mixtures, scatters=_positive(mixtures.scatters))
    return mixtures


def _positive(scatters: Float64) -> Float64:
    """The matrices, with variances of at least the rounding where they are not positive definite.

    The weights of the rows may be so large that those by which a matrix is shrunk vanish beside
    them. If a component has one row only, the rest is rounding.
    """
    variances, directions = np.linalg.eigh(scatters)
    least = np.maximum(SCATTER_ROUNDING * variances[..., -1:], LEAST_SCATTER)
    raised = np.maximum(variances, least)[..., None, :]
    positive = (directions * raised) @ np.swapaxes(directions, -1, -2)
    few: Any = (variances < least).any(axis=-1)
    return np.where(few[..., None, None], positive, scatters)


def _centred_moments(sums: Sums, *, full: bool) -> tuple[Float64, Float64]:
    """By how much the means (K, D) move, and sum r u (x - m)(x - m)^T about the new ones."""
    weight = np.maximum(sums.weight, TINY)
    shift = sums.first / weight[..., None]
    if full:
        outer = shift[..., :, None] * shift[..., None, :]
        return shift, sums.second - weight[..., None, None] * outer
    return shift, np.maximum(sums.second - weight[..., None] * shift**2, 0.0)


def _widened(values: Float64, to: Float64) -> Float64:
    """Values with as many axes as ``to``, so that they multiply along its first axes."""
    widened: Float64 = values.reshape(values.shape + (1,) * (to.ndim - values.ndim))
    return widened


def _floored(common: Float64, share: float, *, full: bool) -> tuple[Float64, Float64, Float64]:
    """The common scatter with a least variance in every direction, and its inverse.

    And how much of it the common scatter holds itself: one for each direction, less for one whose
    variance was below the share of the mean variance.
    """
    d = common.shape[-1]
    if not full:
        least = share * common.mean(axis=-1, keepdims=True)
        floored = np.maximum(common, np.maximum(least, LEAST_SCATTER))
        return floored, 1 / floored, _held(common, least)
    least = share * np.trace(common, axis1=-2, axis2=-1)[..., None] / d
    raised = np.maximum(least, LEAST_SCATTER)
    try:  # mostly all variances are above the least one, which takes less time to find out
        np.linalg.cholesky(common - raised[..., None] * np.eye(d))
        inverse = np.linalg.inv(common).astype(np.float64, copy=False)
        return common, inverse, np.full(common.shape[:-2], float(d))
    except np.linalg.LinAlgError:
        own, directions = np.linalg.eigh(common)
    variances = np.maximum(own, raised)[..., None, :]
    back = np.swapaxes(directions, -1, -2)
    floored = (directions * variances) @ back
    return floored, (directions / variances) @ back, _held(own, least)


def _held(own: Float64, least: Float64) -> Float64:
    """The sum over directions of the variance relative to the least one, where it is below.

    It is at least 1, that of the largest variance, but for rounding where there is no variance.
    """
    below = (own < least) & (least > 0)
    relative: Float64 = np.divide(np.maximum(own, 0.0), least, out=np.ones_like(own), where=below)
    held: Float64 = np.maximum(relative.sum(axis=-1), 1.0)
    return held


def moments_of_labels(
    X: Float64, s: Float64, labels: NDArray[Any], k: int, *, full: bool, n_threads: int = 1
) -> tuple[Float64, Sums]:
    """The means (k, D) of the rows with each label from 0 on, and their sums about these.

    Labels (L, N) are several labellings, whose means and sums have a leading axis.
    """
    alone = labels.ndim == 1
    means, mass, second = _core.moments_of_labels(
        np.ascontiguousarray(X),
        np.ascontiguousarray(s),
        np.ascontiguousarray(np.atleast_2d(labels), np.int32),
        k,
        full,
        n_threads,
    )
    zero = np.zeros(len(means))
    sums = Sums(mass, mass, np.zeros_like(means), second, zero, zero, zero)
    return (means[0], sums[0]) if alone else (means, sums)


def from_labels(
    rows: ScaledRows,
    labels: NDArray[Any],
    kind: str,
    degrees: float,
    box: Box | None = None,
) -> StudentMixture:
    """The mixture of one component for each label from 0 on, each of which some row must have.

    The rows must not be scaled any more. With a box there is a background, and its rows have the
    label -1.
    """
    k = int(labels.max()) + 1
    means, sums = rows.moments(labels, k, full=kind in MATRICES)
    if box is None:
        return from_moments(means, sums, kind, degrees)
    least = FIRST_BACKGROUND / (1 - FIRST_BACKGROUND) * sums.mass.sum()
    sums = replace(sums, background=np.maximum(rows.weights[labels < 0].sum(), least))
    return from_moments(means, sums, kind, degrees).in_box(box, rows.total)


def from_moments(means: Float64, sums: Sums, kind: str, degrees: float | Float64) -> StudentMixture:
    """The mixture, or several, of what `moments_of_labels` returns.

    The moments may be matrices although the kind has only variances.
    """
    if sums.second.ndim > means.ndim and kind not in MATRICES:
        sums = replace(sums, second=np.diagonal(sums.second, axis1=-2, axis2=-1))
    ones = np.ones(means.shape[:-1])
    empty = StudentMixture(ones, means, sums.second, kind, degrees, ones)
    return maximization(empty, sums)


@dataclass(frozen=True)
class Fitted:
    """A mixture, and how it fits the rows from which it was computed.

    ``likelihood`` is the mean log density of a row (Eq. 26, eq-log-likelihood), and ``classified``
    the mean over rows of log pi_k f_k of its most likely component, the classification likelihood
    (Eq. 27, eq-classified; Biernacki, Celeux and Govaert 2000).
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
        return self.classified - self.mixture.penalty(self.n_rows)

    @property
    def mixture_criterion(self) -> float:
        """The likelihood minus the same penalty."""
        return self.likelihood - self.mixture.penalty(self.n_rows)


@dataclass(frozen=True)
class Race:
    """Which runs end early since they are far behind the best one.

    From the pass ``first`` on, those end of which both the likelihood and the classification
    likelihood (see `Fitted`) are lower by more than ``margin`` than the largest of the runs that go
    on, or than these limits if they are larger. Those also end of which both differ by less than
    ``same`` from those of a run before them: with the same degrees of freedom the two go to the
    same maximum.
    """

    first: int
    margin: float
    likelihood: float
    classified: float
    same: float = 0.0

    def __call__(
        self, iteration: int, likelihood: Float64, classified: Float64
    ) -> NDArray[np.bool_]:
        """Which of the runs that go on end after so many passes."""
        if iteration < self.first:
            return np.zeros(len(likelihood), bool)
        far = likelihood < max(self.likelihood, float(likelihood.max())) - self.margin
        far &= classified < max(self.classified, float(classified.max())) - self.margin
        distinct: list[int] = []
        for i in range(len(likelihood)):
            if any(
                abs(likelihood[i] - likelihood[j]) < self.same
                and abs(classified[i] - classified[j]) < self.same
                for j in distinct
            ):
                far[i] = True
            else:
                distinct.append(i)
        return far


def expectation_maximization(
    mixtures: StudentMixture,
    rows: RowsOfMixtures,
    *,
    max_iter: int,
    tol: float,
    step: Callable[[StudentMixture, Sums], StudentMixture] = SHRUNK,
    behind: Race | None = None,
    likelihood_before: float = -np.inf,
) -> list[Fitted]:
    """Iterate each of several mixtures until its mean log density rises by less than ``tol``.

    One pass over the rows serves all that still go on. A result is the mixture of which the
    likelihoods are known, that is the last but one. With ``behind``, runs also end that are far
    behind others. ``likelihood_before`` is the mean log density of an earlier pass.
    """
    before = np.full(len(mixtures.weights), likelihood_before)
    if isinstance(rows, ScaledRows) and rows.compiled and isinstance(step, Step):
        return _compiled(mixtures, rows, max_iter, tol, step, behind, before)
    going = np.arange(len(mixtures.weights))
    found: list[Fitted | None] = [None] * len(going)
    for i in range(1, max_iter + 1):
        sums = rows.expectation(mixtures)
        likelihood, classified = sums.likelihood / rows.total, sums.classified / rows.total
        converged = np.abs(likelihood - before) < tol
        ends = converged if i < max_iter else np.ones(len(going), bool)
        if behind is not None:
            ends = ends | behind(i, likelihood, classified)
        for j in np.flatnonzero(ends):
            found[going[j]] = Fitted(
                mixtures[j],
                float(likelihood[j]),
                float(classified[j]),
                rows.total,
                i,
                bool(converged[j]),
            )
        if ends.all():
            break
        if ends.any():
            going, before, likelihood = going[~ends], before[~ends], likelihood[~ends]
            mixtures, sums = mixtures[~ends], sums[~ends]
        before = likelihood
        mixtures = step(mixtures, sums)
    return [fitted for fitted in found if fitted is not None]


def _compiled(
    mixtures: StudentMixture,
    rows: ScaledRows,
    max_iter: int,
    tol: float,
    step: Step,
    behind: Race | None,
    before: Float64,
) -> list[Fitted]:
    """`expectation_maximization` of rows in memory, whose iterations are compiled."""
    race = behind or Race(max_iter + 1, 0.0, 0.0, 0.0)
    going = np.arange(len(mixtures.weights))
    found: list[Fitted | None] = [None] * len(going)
    n_passes = 0
    while len(going):
        new, likelihood, classified, outcome, n_iter, n_passes, left = rows.iterate(
            mixtures,
            step,
            likelihood=before,
            first=n_passes + 1,
            last=min(max_iter, n_passes + MOST_PASSES),
            max_iter=max_iter,
            total=rows.total,
            tol=tol,
            race=race.first,
            margin=race.margin,
            least_likelihood=race.likelihood,
            least_classified=race.classified,
            same=race.same,
        )
        mixtures = mixtures.updated(new)
        numbers = zip(
            going, likelihood.tolist(), classified.tolist(), n_iter.tolist(), outcome, strict=True
        )
        for j, (i, likely, own, passes, end) in enumerate(numbers):
            if end:
                found[i] = Fitted(mixtures[j], likely, own, rows.total, passes, bool(end > 1))
        goes_on = outcome == 0
        going, before = going[goes_on], likelihood[goes_on]
        if len(going):
            mixtures = mixtures[goes_on]
            if left is not None:
                moments = {name: part[goes_on] for name, part in zip(MOMENTS, left, strict=True)}
                zero = np.zeros(len(going))
                sums = Sums(**moments, likelihood=zero, classified=zero)
                mixtures = step.by_eigenvectors(mixtures, sums)
    return [fitted for fitted in found if fitted is not None]


def quick_maximization(
    mixtures: StudentMixture, rows: ScaledRows, *, tol: float, **settings: Any
) -> list[Fitted]:
    """As `expectation_maximization`, for the search: from rows in float32 if these do.

    Passes over them take half the time, and likelihoods still have about six digits, since the sums
    are of float64. The rows given must not be scaled any more.
    """

    if tol >= QUICK_TOL and _survives(mixtures, rows.rounding_error):
        fits = expectation_maximization(mixtures, rows.rounded, tol=tol, **settings)
        # A component may have become so narrow that its matrix is lost in rounding errors.
        if all(_survives(fitted.mixture, rows.rounding_error) for fitted in fits):
            return fits
    return expectation_maximization(mixtures, rows, tol=tol, **settings)


def last_maximization(
    mixture: StudentMixture, rows: RowsOfMixtures, *, largest: float, max_iter: int, tol: float
) -> Fitted:
    """As `expectation_maximization` of one mixture over all rows, to the end of a fit.

    Passes over float64 compute in float32 until the iteration ends, in half of the time, and then
    in float64 until it ends again, mostly after one pass. No value of a row is larger than
    ``largest``, in units.
    """
    start, n_iter, before = mixture[None], 0, -np.inf
    if _can_narrow(rows) and tol >= QUICK_TOL and max_iter > 1:
        error = rows.rounding_error_of(largest)
        if _survives(start, error):
            narrowed = replace(rows, narrowed=True)
            (first,) = expectation_maximization(start, narrowed, max_iter=max_iter - 1, tol=tol)
            if _survives(first.mixture, error):
                start, n_iter, before = first.mixture[None], first.n_iter, first.likelihood
    (fitted,) = expectation_maximization(
        start, rows, max_iter=max_iter - n_iter, tol=tol, likelihood_before=before
    )
    return replace(fitted, n_iter=n_iter + fitted.n_iter)


def _can_narrow(rows: RowsOfMixtures) -> TypeGuard[ScaledRows]:
    return isinstance(rows, ScaledRows) and rows.compiled and rows.X.dtype == np.float64


def _survives(mixtures: StudentMixture, rounding_error: float) -> bool:
    """Whether no component is so narrow that this error of a value would change it."""
    narrowest = np.abs(mixtures.whiteners).max()  # one over a standard deviation
    return bool(rounding_error * narrowest <= ROUNDING)
