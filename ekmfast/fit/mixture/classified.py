"""The classification likelihood of groups of rows, each with a Gaussian of its own.

For a group A of n_A rows it is, without terms that any grouping of the same rows has,

    L(A) = n_A log n_A - n_A/2 log |S_A| - 1/2 tr(S_A^-1 T_A).

T_A is the sum of the squared deviations from the mean of A, and S_A its scatter matrix, which is
shrunk towards the common one as in expectation maximization (Eq. 24, eq-em).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from ekmfast.fit.mixture.kinds import LEAST_VARIANCE, MATRIX_PRIOR, VARIANCE_PRIOR
from ekmfast.fit.mixture.step import floored
from ekmfast.fit.mixture.sums import TINY, moments_of_labels

Float64 = NDArray[np.float64]

# What is added to the variances of a scatter matrix, as a share of the largest one, so that it can
# be inverted.
ROUNDING = 1e-12
# Of unions of groups so many numbers are held at once, since there are many pairs.
MOST_NUMBERS = 1 << 21


@dataclass(frozen=True)
class Groups:
    """What is known of the rows of G groups; a group without rows has zeros.

    Attributes
    ----------
    mass : ndarray of shape (G,)
        The sums of their weights.
    means : ndarray of shape (G, D)
    second : ndarray of shape (G, D), or (G, D, D)
        The weighted sums of squared deviations from the means, or of their products.
    """

    mass: Float64
    means: Float64
    second: Float64

    @staticmethod
    def of(
        X: Float64,
        s: Float64,
        labels: NDArray[np.intp],
        count: int,
        *,
        full: bool,
        n_threads: int = 1,
    ) -> Groups:
        """The rows (N, D) with each label from 0 to ``count`` - 1, of weights (N,)."""
        means, sums = moments_of_labels(X, s, labels, count, full=full, n_threads=n_threads)
        return Groups(sums.mass, means, sums.second)

    @property
    def common(self) -> Float64:
        """The scatter within groups, over all rows: (D,), or a matrix (D, D).

        It has a least variance in every direction, as in expectation maximization.
        """
        within = self.second.sum(axis=0) / self.mass.sum()
        return floored(within, LEAST_VARIANCE["full" if self.full else "diag"], full=self.full)[0]

    @property
    def full(self) -> bool:
        return self.second.ndim > self.means.ndim

    def __getitem__(self, which: Any) -> Groups:
        """Some of the groups."""
        return Groups(self.mass[which], self.means[which], self.second[which])

    def united(self, i: Any, j: Any) -> Groups:
        """The unions of groups ``i`` with groups ``j``."""
        one, other = self[i], self[j]
        mass = one.mass + other.mass
        share = other.mass / np.maximum(mass, TINY)
        apart = other.means - one.means
        means = one.means + share[:, None] * apart
        between = one.mass * share
        if self.full:
            products = apart[:, :, None] * apart[:, None, :]
            return Groups(
                mass, means, one.second + other.second + between[:, None, None] * products
            )
        return Groups(mass, means, one.second + other.second + between[:, None] * apart**2)

    def joined(self, common: Float64) -> tuple[Float64, NDArray[np.intp]]:
        """By how much L falls if two groups become one (P,), and which two (P, 2)."""
        i, j = np.triu_indices(len(self.mass), 1)
        alone, together = self.likelihoods(common), np.empty(len(i))
        count = max(1, MOST_NUMBERS // self.second[0].size)
        for some in (slice(first, first + count) for first in range(0, len(i), count)):
            together[some] = self.united(i[some], j[some]).likelihoods(common)
        return alone[i] + alone[j] - together, np.stack([i, j], axis=1)

    def likelihoods(self, common: Float64) -> Float64:
        """L (G,) of each group; 0 if it has no rows. ``common`` is the common scatter."""
        prior = MATRIX_PRIOR * (self.means.shape[1] + 1) if self.full else VARIANCE_PRIOR
        shape = (-1,) + (1,) * (self.second.ndim - 1)
        scatters = (self.second + prior * common) / (self.mass + prior).reshape(shape)
        if self.full:
            variances = np.einsum("gii->gi", scatters)  # a view
            variances += ROUNDING * variances.max(axis=1, keepdims=True)
            sizes = np.linalg.slogdet(scatters)[1]
            squares = np.linalg.solve(scatters, self.second).trace(axis1=1, axis2=2)
        else:
            sizes = np.log(scatters).sum(axis=1)
            squares = (self.second / scatters).sum(axis=1)
        found: Float64 = xlogy(self.mass, self.mass) - (self.mass * sizes + squares) / 2
        return found
