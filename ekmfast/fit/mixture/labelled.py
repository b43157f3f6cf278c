"""Mixtures of the rows that have each label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.mixture.background import FIRST_BACKGROUND, Box
from ekmfast.fit.mixture.kinds import MATRICES
from ekmfast.fit.mixture.rows import ScaledRows
from ekmfast.fit.mixture.step import maximization
from ekmfast.fit.mixture.student import StudentMixture
from ekmfast.fit.mixture.sums import Sums

Float64 = NDArray[np.float64]


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
