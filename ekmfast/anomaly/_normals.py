"""A mixture of normal densities, one for each cluster, which gives the scores of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import issparse
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from ekmfast.rows.sparse import SparseRows
from ekmfast.rows.threads import one_blas_thread

Float64 = NDArray[np.float64]

# Weight of the diagonal in the shrunk covariance, as in the likelihood that chooses alpha.
SHRINK = 0.3
# Least variance in any direction, as a share of the mean variance of the features.
FLOOR = 1e-4
CHUNK = 1 << 22  # rows times the larger of D and K that are processed at a time
# Least share of the variance in a row's direction that is left when the row is removed.
LEAST_LEFT = 1e-12
# An eigenvalue may be so much less than the floor, relatively, that it counts as no less.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Normals:
    """A mixture of normal densities about cluster centres, with one covariance for all.

    Rows are centred and divided by ``unit`` before anything is squared, so that neither a large
    offset nor tiny or huge units cost digits. With M the shrunk pooled covariance in these units,
    ``whitener`` is a matrix W with W W' = M^-1. ``means`` are the centres after centring, division
    and multiplication by W.

    Rows are an array or a CSR matrix, of which a few rows at a time become dense.
    """

    centre: Float64  # (D,), the mean of all rows
    unit: float  # a power of two
    whitener: Float64  # (D, D)
    means: Float64  # (K, D)
    sizes: Float64  # (K,), number of rows in each cluster

    @property
    def best(self) -> float:
        """The score at the centre of the largest cluster, if the others are far away."""
        return float(np.log(self.sizes.max() / self.sizes.sum()))

    def scores(self, X: Any) -> NDArray[Any]:
        """``ln sum_k q_k exp(-1/2 (x - c_k)' M^-1 (x - c_k))`` of each row, in the dtype of X."""
        scores = np.empty(X.shape[0], X.dtype)
        for rows in _chunks(X, len(self.means)):
            with np.errstate(over="ignore", invalid="ignore"):
                z = self._centred(X[rows]) @ self.whitener
            scores[rows] = self._scores_of(z, X.dtype)
        return scores

    def _scores_of(self, z: Float64, dtype: np.dtype[Any]) -> Float64:
        """Scores of rows that are centred, divided by the unit and multiplied by W."""
        log_share = np.log(self.sizes / self.sizes.sum())
        # Rows whose distance overflows get the lowest score.
        with np.errstate(over="ignore", invalid="ignore"):
            d = np.nan_to_num(cdist(z, self.means, "sqeuclidean"), nan=np.inf, posinf=np.inf)
            return _finite(logsumexp(log_share - 0.5 * d, axis=1), dtype)

    def held_out_scores(
        self, X: Any, members: NDArray[np.intp], centres: NDArray[Any]
    ) -> NDArray[Any]:
        """Leave-one-out score of each row of the fit, with the assignment to clusters unchanged.

        Let x be a row of cluster k and r = x - c_k. Without x, the centre of the cluster moves away
        from x by r / (n_k - 1), and the sum of squares S becomes S - a r r' with
        a = n_k / (n_k - 1). So ``0.7 S + 0.3 diag S`` becomes smaller by
        ``0.7 a r r' + 0.3 a diag(r^2)``. The inverse follows by the formula of Sherman and
        Morrison. It is exact for the first term. For the second it is applied to each feature
        separately, which is an approximation of a small change.

        ``members`` and ``centres`` are those of `fit_normals`. Rows in none of the clusters get
        their ``scores``, which are already independent of them.
        """
        n = self.sizes.sum()
        if n < 2:
            return self.scores(X)
        scores = np.empty(X.shape[0], X.dtype)
        centres = self._centred(np.asarray(centres, np.float64))
        diagonal = np.einsum("ij,ij->i", self.whitener, self.whitener)  # of M^-1
        shifts = self.means @ self.whitener.T  # M^-1 times the centres
        for rows in _chunks(X, len(self.means)):
            x = self._centred(X[rows])
            with np.errstate(over="ignore", invalid="ignore"):
                z = x @ self.whitener
            others = np.flatnonzero(members[rows] < 0)
            scores[rows.start + others] = self._scores_of(z[others], X.dtype)
            for k in range(len(self.means)):
                own = np.flatnonzero(members[rows] == k)
                r = z[own] - self.means[k]
                a = self.sizes[k] / max(self.sizes[k] - 1, 1)
                lost = SHRINK * a / n * (x[own] - centres[k]) ** 2
                lost /= np.maximum(1 - lost * diagonal, LEAST_LEFT)
                solved = r @ self.whitener.T
                length = (r**2).sum(axis=1) + (lost * solved**2).sum(axis=1)
                gain = (1 - SHRINK) * a / n
                left = np.maximum(1 - gain * length, LEAST_LEFT)
                log_density = np.empty((len(own), len(self.means)))
                for j in range(len(self.means)):
                    if j == k:
                        d, rest = a**2 * length / left, self.sizes[k] - 1
                    else:
                        # As in `scores`, a row whose distance overflows is infinitely far away.
                        with np.errstate(over="ignore", invalid="ignore"):
                            u, u_solved = z[own] - self.means[j], solved + shifts[k] - shifts[j]
                            d = (u**2).sum(axis=1) + (lost * u_solved**2).sum(axis=1)
                            along = (u * r).sum(axis=1) + (lost * u_solved * solved).sum(axis=1)
                            d, rest = d + gain * along**2 / left, self.sizes[j]
                        d = np.nan_to_num(d, nan=np.inf, posinf=np.inf)
                    log_share = math.log(rest / (n - 1)) if rest > 0 else -math.inf
                    log_density[:, j] = log_share - 0.5 * (n - 1) / n * d
                scores[rows.start + own] = _finite(logsumexp(log_density, axis=1), X.dtype)
        return scores

    def _centred(self, X: Any) -> Float64:
        dense = X.toarray() if issparse(X) else X
        return np.asarray((dense - self.centre) / self.unit, np.float64)


def fit_normals(X: Any, members: NDArray[np.intp], centres: NDArray[Any]) -> Normals:
    """Fit the mixture: ``members`` holds each row's index in ``centres``, or a negative number."""
    n_features = X.shape[1]
    centre, low, high = _mean_and_box(X)
    reach = float(np.maximum(high - centre, centre - low).max())
    unit = math.ldexp(1.0, math.frexp(reach)[1]) if reach > 0 else 1.0
    normals = Normals(centre, unit, np.empty((0, 0)), np.empty((0, n_features)), np.empty(0))
    means = normals._centred(np.asarray(centres, np.float64))
    scatter = np.zeros((n_features, n_features))
    for rows in _chunks(X, len(means)):
        which = members[rows]
        residuals = normals._centred(X[rows][which >= 0]) - means[which[which >= 0]]
        scatter += residuals.T @ residuals
    sizes = np.bincount(members[members >= 0], minlength=len(means)).astype(np.float64)
    scatter /= sizes.sum()
    whitener = _whitener(scatter)
    return Normals(centre, unit, whitener, means @ whitener, sizes)


def _mean_and_box(X: Any) -> tuple[Float64, NDArray[Any], NDArray[Any]]:
    """Mean, minimum and maximum of each feature."""
    if issparse(X):
        survey = SparseRows(X).survey()
        return survey.mean, survey.low, survey.high
    return X.mean(axis=0, dtype=np.float64), X.min(axis=0), X.max(axis=0)


def _whitener(covariance: Float64) -> Float64:
    """Matrix W such that W W' is the inverse of the shrunk covariance, which is overwritten.

    Eigenvalues below the floor are replaced by it. If there are none, W is computed from Cholesky's
    factor, in half of the memory. That takes an eighth of the time of the eigenvectors with 3,000
    features (one thread of a Zen 5).
    """
    variance = np.diag(covariance).copy()
    covariance *= 1 - SHRINK
    mean = variance.mean()
    floor = FLOOR * mean if mean > 0 else 1.0
    diagonal = np.diag_indices(len(covariance))
    covariance[diagonal] = np.maximum(variance, floor)
    above = covariance.copy()
    above[diagonal] -= (1 - ROUNDING) * floor
    # OpenBLAS 0.3.30 with two threads ends the interpreter in the factorization of 16,000 features.
    with one_blas_thread():
        # The matrices are symmetric: their transposes have the order that LAPACK can overwrite.
        if not lapack.dpotrf(above.T, overwrite_a=True)[1]:
            del above
            factor, _ = lapack.dpotrf(covariance.T, lower=True, clean=True, overwrite_a=True)
            inverse: Float64 = lapack.dtrtri(factor, lower=True, overwrite_c=True)[0]
            return inverse.T
    del above
    with one_blas_thread(len(covariance)):
        values, vectors = np.linalg.eigh(covariance)
    vectors /= np.sqrt(np.maximum(values, floor))
    return np.asarray(vectors, np.float64)


def _chunks(X: Any, n_clusters: int) -> list[slice]:
    n_rows, n_features = X.shape
    step = max(1, CHUNK // max(n_features, n_clusters))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def _finite(scores: Float64, dtype: np.dtype[Any]) -> Float64:
    """Replace scores below the lowest number of the dtype by that number."""
    return np.maximum(scores, float(np.finfo(dtype).min))
