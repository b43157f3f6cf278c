"""`Sums`: what one pass over rows gives for the next mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core

Float64 = NDArray[np.float64]

# Those from which the compiled code computes mixtures.
MOMENTS = ("mass", "weight", "first", "second", "background")

TINY = float(np.finfo(np.float64).tiny)


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
