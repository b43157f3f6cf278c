"""`Step`: how the sums of a pass become the next mixtures (Eq. 24, eq-em)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.fit.mixture.background import MOST_BACKGROUND
from ekmfast.fit.mixture.kinds import LEAST_VARIANCE, SCALE_PRIOR, prior_rows
from ekmfast.fit.mixture.student import StudentMixture
from ekmfast.fit.mixture.sums import MOMENTS, TINY, Sums

Float64 = NDArray[np.float64]

# The least variance at all, for rows in units of their root mean square distance from the mean.
LEAST_SCATTER = 1e-18
# The rounding of a scatter matrix, as a share of its largest variance.
SCATTER_ROUNDING = 1e-13
# What scikit-learn's ``GaussianMixture`` adds to the mass of a component.
LEAST_MASS = 10 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Step:
    """How sums become the next mixtures.

    Attributes
    ----------
    prior_share : float
        Scatter matrices are shrunk as if by this share of the prior of the kind (`kinds`).
    regularization : float or None
        If given, nothing is shrunk, but this is added to variances (`gaussian`).
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
            "prior": self.prior_share * prior_rows(kind, d),
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
        common, inverse, held = floored(own, LEAST_VARIANCE[kind], full=full)
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
            prior = self.prior_share * prior_rows(kind, d)
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


def floored(common: Float64, share: float, *, full: bool) -> tuple[Float64, Float64, Float64]:
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
