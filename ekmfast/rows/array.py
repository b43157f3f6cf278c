"""The backend of this machine's processors: an adapter to the compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CentredStatistics:
    """Sums of one pass for S problems, taken about ``reference`` and scaled by column.

    ``sum_wx[s, k] * 2**exponent[s, k]`` is ``sum_n s_n w_kn (x_n - reference)``; ``sum_w`` and
    ``sum_p`` likewise. The exponent is 0 but for a column whose memberships underflow, and
    cancels in every ratio. An empty column of ``'hard'`` or ``'fuzzy'`` sums to 0.
    """

    sum_wx: Float64  # (S, K, D)
    sum_w: Float64  # (S, K)
    sum_p: Float64  # (S, K)
    exponent: Float64  # (S, K)
    objective: Float64  # (S,)
    reference: Float64  # (D,)

    def ratio(self, centroids: Float64) -> Float64:
        """Eq. 39, (S, K, D); a column that sums to exactly zero keeps its centroid."""
        if self.sum_w.all():
            return self.reference + self.sum_wx / self.sum_w[..., None]
        empty = self.sum_w[..., None] == 0
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(empty, centroids, self.reference + self.sum_wx / self.sum_w[..., None])

    def __add__(self, other: CentredStatistics) -> CentredStatistics:
        """The sums over both sets of rows; both are about the same reference."""
        if not np.array_equal(self.reference, other.reference):
            raise ValueError("sums about different references do not add")
        # A column of nothing has no scale to speak of. Both come to the larger exponent; what is
        # beyond a double's range below it is beyond its digits too.
        here = np.where(self.sum_p == 0, -np.inf, self.exponent)
        there = np.where(other.sum_p == 0, -np.inf, other.exponent)
        exponent = np.maximum(here, there)
        exponent = np.where(np.isfinite(exponent), exponent, 0.0)

        def scaled(sums: CentredStatistics) -> tuple[Float64, Float64, Float64]:
            shift = np.clip(sums.exponent - exponent, -3000, 0).astype(np.int32)
            if not shift.any():
                return sums.sum_wx, sums.sum_w, sums.sum_p
            wx = np.ldexp(sums.sum_wx, shift[..., None])
            return wx, np.ldexp(sums.sum_w, shift), np.ldexp(sums.sum_p, shift)

        (wx, w, p), (more_wx, more_w, more_p) = scaled(self), scaled(other)
        objective = self.objective + other.objective
        return CentredStatistics(
            wx + more_wx, w + more_w, p + more_p, exponent, objective, self.reference
        )


class CpuBackend:
    """Statistics of one data set on the processor.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64, rows contiguous
        Not copied; must outlive the backend.
    sample_weight : ndarray of shape (N,) and the dtype of X, or None
    n_threads : int
    weighting : {'equilibrium', 'maximum-entropy', 'fuzzy', 'hard'}
        What the weights w_kn of the sums are: see ``csrc/weighting.h``.
    fuzzifier : float > 1
        The exponent m of ``'fuzzy'``.
    """

    def __init__(
        self,
        X: NDArray[Any],
        sample_weight: NDArray[Any] | None,
        n_threads: int,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
    ) -> None:
        self.X = X
        self.sample_weight = sample_weight
        self.n_threads = n_threads
        self.weighting = weighting
        self.fuzzifier = fuzzifier
        self._reference: Float64 | None = None

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over X for centroids (S, K, D) and alpha (S,)."""
        sums = CentredStatistics(
            *_core.statistics(
                self.X,
                centroids,
                alpha,
                self.sample_weight,
                self._reference,
                self.n_threads,
                self.weighting,
                self.fuzzifier,
            )
        )
        self._reference = sums.reference
        return sums

    def closest(self, candidates: Float64, closest: NDArray[Any], update: bool = False) -> Float64:
        """One pass over X for S seedings at once: potentials (S, L) of candidates (S, L, D).

        ``closest`` (S, N), dtype of X, holds squared distances to the nearest seed so far, ``inf``
        at first. A potential is ``sum_n s_n min(closest[s, n], ||x_n - candidates[s, l]||^2)``.
        With ``update`` (L = 1) the minima replace ``closest``.
        """
        return _core.closest(
            self.X,
            candidates,
            closest,
            self.sample_weight,
            self._reference,
            self.n_threads,
            update,
        )

    def with_weighting(self, weighting: str) -> CpuBackend:
        return CpuBackend(self.X, self.sample_weight, self.n_threads, weighting, self.fuzzifier)

    def distances(self, n_seedings: int) -> NDArray[Any]:
        """Squared distances (S, N) to no seed yet, for `closest`."""
        return np.full((n_seedings, len(self.X)), np.inf, self.X.dtype)

    def take(self, rows: NDArray[np.intp]) -> Float64:
        """Rows, in float64."""
        return self.X[rows].astype(np.float64)

    def farthest(self, closest: NDArray[Any]) -> NDArray[np.intp]:
        """For each seeding the first row farthest from its seeds."""
        s = self.sample_weight
        rows = (closest if s is None else np.where(s > 0, closest, -1)).argmax(axis=1)
        return cast(NDArray[np.intp], rows)

    def draw(self, closest: NDArray[Any] | None, uniform: Float64) -> NDArray[np.intp]:
        """Rows with chances by weight and distance; ``uniform`` (S, L), or (S,) without distances.

        Any row where all chances are zero.
        """
        s = self.sample_weight
        mass = np.ones(len(self.X)) if s is None else s.astype(np.float64)
        if closest is None:
            return _draw(mass, uniform.ravel())[None]
        return np.stack([_draw(mass * c, u) for c, u in zip(closest, uniform, strict=True)])

    def box(self) -> tuple[Float64, Float64]:
        """Least and greatest value of each feature."""
        return self.X.min(axis=0).astype(np.float64), self.X.max(axis=0).astype(np.float64)

    def dispersion(self) -> float:
        """The weighted mean of 1/2 ||x - mean||^2, in two passes.

        With one centroid the weights are 1, so J is the dispersion about that centroid whatever
        alpha and the weighting are. The second pass, about the mean itself, does not cancel.
        """
        one = np.ones(1)
        start = self._reference if self._reference is not None else np.zeros(self.X.shape[1])
        first = self.statistics(start[None, None, :].copy(), one)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the result
            mean = first.ratio(start[None, None, :])
        second = self.statistics(mean, one)
        return float(second.objective[0] / first.sum_w[0, 0])


def _draw(mass: Float64, uniform: Float64) -> NDArray[np.intp]:
    """Indices with chances proportional to ``mass``; any index where all of it is zero."""
    total = np.cumsum(mass)
    if not total[-1] > 0:
        return (uniform * len(mass)).astype(np.intp)
    found = np.searchsorted(total, uniform * total[-1], side="right")
    return cast(NDArray[np.intp], np.minimum(found, len(mass) - 1))
