"""The background of a mixture: one more component, of constant density, for rows of no cluster.

Its density is that of a uniform distribution over the box of the rows (Eq. 25, eq-background, of
docs/mathematics.md),

    f_0 = 1 / (h_1 h_2 ... h_D),

where h_j are the sides of the box. Expectation maximization estimates its share pi_0 as it
estimates the others: pi_0 = sum_n r_n0 / N. Its density stays as it is.

A side of the box is 0 where a feature is constant, and then f_0 would be infinite. Such a feature
does not tell a background from components, so their densities along it should be alike. The
variances of the common scatter have a least value c, a share of the mean variance
(`kinds.LEAST_VARIANCE`), to which those of a component are shrunk as if by a rows
(`step.maximization`). Along a constant feature a component of N / K rows has the variance
c a / (N / K + a) then, or c if it is of the kind 'tied'. At its mean a Gaussian of this variance v
has the density (2 pi v)^(-1/2) along the feature, so each side is at least (2 pi v)^(1/2). Rows are
in units of their root mean square deviation, so that the mean variance of all rows is 1. That
within clusters, on which c depends, is less; so this is an upper bound of the side, and the
background is rather too weak than too strong. Components of the kind 'spherical' have the mean
variance in all features, and their background has sides of the root mean square length.

The share is at most 1/2. Rows that fill their box evenly are best described by a background alone,
and then no components would be left. With this limit the components keep half of the weight, and
expectation maximization still raises the likelihood: of all shares that are allowed, the limit is
the most likely one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.array import ArrayRows
from ekmfast.rows.blockwise import BlockRows
from ekmfast.rows.survey import Survey

Float64 = NDArray[np.float64]

MOST_BACKGROUND = 0.5
# The share from which expectation maximization begins, at least: a share of 0 would stay 0.
FIRST_BACKGROUND = 0.05


@dataclass(frozen=True)
class Box:
    """The smallest and the largest value of each feature, (D,), of rows in units (see above)."""

    low: Float64
    high: Float64

    def log_volume(self, least: float, *, round_: bool) -> float:
        """The logarithm of the volume, with sides as the module says.

        Parameters
        ----------
        least : float
            The variance of a component along a feature without variance.
        round_ : bool
            Whether all sides are of the root mean square length.
        """
        squares = (self.high - self.low) ** 2
        if round_:
            squares = np.full_like(squares, squares.mean())
        return float(0.5 * np.log(np.maximum(squares, 2 * math.pi * least)).sum())

    def draw(self, n: int, random_state: np.random.RandomState) -> Float64:
        """Rows (n, D) that are uniform in the box."""
        drawn: Float64 = random_state.uniform(self.low, self.high, (n, len(self.low)))
        return drawn


def box_of(rows: ArrayRows | BlockRows, survey: Survey, centre: Float64, unit: float) -> Box:
    """The box of the rows minus a centre, in units.

    Rows in memory count if they have weight. Those of blocks all count, as the pass over blocks
    that knows their box was made without regard to weights.
    """
    low, high = survey.low, survey.high
    if isinstance(rows, ArrayRows) and rows.sample_weight is not None:
        weighted = rows.sample_weight > 0
        if not weighted.all():
            own = rows.subset(np.flatnonzero(weighted)).survey()
            low, high = own.low, own.high
    return Box((low - centre) / unit, (high - centre) / unit)
