"""`ScaledRows`: the rows of a mixture in memory, minus a centre and in units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.fit.mixture.student import PARAMETERS, StudentMixture, for_kernels
from ekmfast.fit.mixture.sums import Sums, moments_of_labels

if TYPE_CHECKING:
    from ekmfast.fit.mixture.step import Step

Float64 = NDArray[np.float64]


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
