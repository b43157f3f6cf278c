"""Expectation maximization of several mixtures, and which of their runs end early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture.rows import RowsOfMixtures, ScaledRows
from ekmfast.fit.mixture.step import SHRUNK, Step
from ekmfast.fit.mixture.student import StudentMixture
from ekmfast.fit.mixture.sums import MOMENTS, Sums

Float64 = NDArray[np.float64]

# Rows may be read in float32 where its rounding errors are at most this share of the standard
# deviation of the narrowest component, in its narrowest direction, and the tolerance is so large.
ROUNDING, QUICK_TOL = 1e-3, 1e-5
# Passes of one call of the compiled code, which allows no more.
MOST_PASSES = 1000


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
