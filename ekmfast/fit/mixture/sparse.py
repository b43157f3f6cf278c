"""The rows of a mixture that are sparse: sums and densities without a dense copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ekmfast.fit.mixture.rows import ScaledRows
from ekmfast.fit.mixture.student import StudentMixture, for_kernels
from ekmfast.fit.mixture.sums import TINY, Sums
from ekmfast.rows.sparse import SparseRows

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class ScaledSparseRows(ScaledRows):
    """Sparse rows minus a centre, in units, for mixtures with variances.

    The centre is not subtracted from the rows, which would fill them, but added to the means. All
    sums are those of float64, whatever the dtype of X is. Where a component's standard deviation
    along a feature is a share F of its mean there, relative to the origin, its variance has a
    relative error of about the rounding error of float64 divided by F squared.

    Attributes
    ----------
    X : csr_matrix or csr_array of shape (N, D), float32 or float64
    """

    compiled: ClassVar[bool] = False

    @cached_property
    def _rows(self) -> SparseRows:
        return SparseRows(self.X, self.sample_weight, self.n_threads)

    @property
    def rounding_error(self) -> float:
        """Infinite: passes over float32 would take as long."""
        return np.inf

    def expectation(self, mixtures: StudentMixture) -> Sums:
        """The sums for several mixtures, one pass over the rows for each."""
        return Sums(*self._rows.expectation(self.centre, self.unit, for_kernels(mixtures)))

    def densities(self, mixture: StudentMixture, out: Sequence[Any]) -> None:
        one = for_kernels(mixture[None])
        self._rows.log_densities(self.centre, self.unit, one, out)

    def moments(self, labels: NDArray[Any], k: int, *, full: bool) -> tuple[Float64, Sums]:
        """The means (k, D) of the rows with each label from 0 on, and their sums about these."""
        if full:
            raise ValueError("sparse rows have no scatter matrices")
        own = np.flatnonzero(labels >= 0)
        s, of = self.weights[own], labels[own]
        mass = np.bincount(of, s, k).astype(np.float64)
        of_label = csr_matrix((s, (of, own)), (k, self.n_rows))
        X = self._rows.X
        y = csr_matrix((X.data / np.float64(self.unit), X.indices, X.indptr), X.shape)
        means = (of_label @ y).toarray() / np.maximum(mass, TINY)[:, None]
        np.square(y.data, out=y.data)
        second = np.maximum((of_label @ y).toarray() - mass[:, None] * means**2, 0.0)
        means -= self.centre / self.unit
        means[mass == 0] = 0
        zero = np.zeros(())
        return means, Sums(mass, mass, np.zeros_like(means), second, zero, zero, zero)
