"""Normal densities of one shape about clusters: scores of rows, of their own and of fresh ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

Float64 = NDArray[np.float64]

# Share of the covariance's diagonal in what it is shrunk to, as in the likelihood that chooses
# alpha; and of the mean variance, below which no direction counts as narrow.
SHRINK = 0.3
FLOOR = 1e-4
CHUNK = 1 << 22  # numbers at a time: rows times the larger of D and K
# Least share of the covariance that the other rows must leave in a row's direction.
LEAST_LEFT = 1e-12


@dataclass(frozen=True)
class Normals:
    """A mixture of normal densities about cluster centres, with one covariance for all.

    Rows are centred and divided by ``unit`` before anything is squared, so that neither a large
    offset nor tiny or huge units cost digits. ``whitener`` W has W W' = M^-1, M the shrunk pooled
    covariance in these units; ``means`` are the centres after both.
    """

    centre: Float64  # (D,), of all rows
    unit: float  # a power of two
    whitener: Float64  # (D, D)
    means: Float64  # (K, D)
    sizes: Float64  # (K,), rows of each cluster

    def scores(self, X: NDArray[Any]) -> NDArray[Any]:
        """``ln sum_k q_k exp(-1/2 (x - c_k)' M^-1 (x - c_k))`` of each row, in the dtype of X."""
        scores = np.empty(len(X), X.dtype)
        log_share = np.log(self.sizes / self.sizes.sum())
        for rows in _chunks(X, len(self.means)):
            # Rows that are too far for their distance to be a number get the lowest score.
            with np.errstate(over="ignore", invalid="ignore"):
                z = self._centred(X[rows]) @ self.whitener
                d = np.nan_to_num(cdist(z, self.means, "sqeuclidean"), nan=np.inf, posinf=np.inf)
                scores[rows] = _finite(logsumexp(log_share - 0.5 * d, axis=1), X.dtype)
        return scores

    def held_out_scores(
        self, X: NDArray[Any], members: NDArray[np.intp], fitted: NDArray[Any]
    ) -> NDArray[Any]:
        """Score of each row of the fit had it not been there, the other rows' clusters held.

        Without row x of cluster k, r = x - c_k, its cluster's centre moves away from it by
        r / (n_k - 1), and the sum of squares S loses a r r', a = n_k / (n_k - 1); so the shrunk
        one, ``0.7 S + 0.3 diag S``, loses ``0.7 a r r' + 0.3 a diag(r^2)``. The inverse follows by
        Sherman and Morrison's formula: exactly for the first part, feature by feature for the
        other, which is a small part of a small change.

        ``members`` holds each row's cluster, negative for rows of none: their scores, ``fitted``,
        owe nothing to them.
        """
        n = self.sizes.sum()
        scores = fitted.copy()
        if n < 2:
            return scores
        inverse = np.linalg.inv(self.whitener)
        diagonal = (self.whitener**2).sum(axis=1)  # of M^-1
        shifts = self.means @ self.whitener.T  # M^-1 of the centres
        for rows in _chunks(X, len(self.means)):
            z = self._centred(X[rows]) @ self.whitener
            for k in range(len(self.means)):
                own = np.flatnonzero(members[rows] == k)
                r = z[own] - self.means[k]
                a = self.sizes[k] / max(self.sizes[k] - 1, 1)
                lost = SHRINK * a / n * (r @ inverse) ** 2
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
                        u, u_solved = z[own] - self.means[j], solved + shifts[k] - shifts[j]
                        d = (u**2).sum(axis=1) + (lost * u_solved**2).sum(axis=1)
                        along = (u * r).sum(axis=1) + (lost * u_solved * solved).sum(axis=1)
                        d, rest = d + gain * along**2 / left, self.sizes[j]
                    log_share = math.log(rest / (n - 1)) if rest > 0 else -math.inf
                    log_density[:, j] = log_share - 0.5 * (n - 1) / n * d
                scores[rows.start + own] = _finite(logsumexp(log_density, axis=1), X.dtype)
        return scores

    def _centred(self, X: NDArray[Any]) -> Float64:
        return np.asarray((X - self.centre) / self.unit, np.float64)


def fit_normals(X: NDArray[Any], members: NDArray[np.intp], centres: NDArray[Any]) -> Normals:
    """The normals about ``centres``, each with the rows whose number ``members`` holds."""
    n_features = X.shape[1]
    centre = X.mean(axis=0, dtype=np.float64)
    reach = float(np.maximum(X.max(axis=0) - centre, centre - X.min(axis=0)).max())
    unit = math.ldexp(1.0, math.frexp(reach)[1]) if reach > 0 else 1.0
    normals = Normals(centre, unit, np.eye(n_features), np.empty((0, n_features)), np.empty(0))
    means = normals._centred(np.asarray(centres, np.float64))
    scatter = np.zeros((n_features, n_features))
    for rows in _chunks(X, len(means)):
        which = members[rows]
        residuals = normals._centred(X[rows][which >= 0]) - means[which[which >= 0]]
        scatter += residuals.T @ residuals
    sizes = np.bincount(members[members >= 0], minlength=len(means)).astype(np.float64)
    whitener = _whitener(scatter / sizes.sum())
    return Normals(centre, unit, whitener, means @ whitener, sizes)


def _whitener(covariance: Float64) -> Float64:
    """W with W W' the inverse of the shrunk covariance."""
    variance = np.diag(covariance).copy()
    covariance = covariance * (1 - SHRINK)
    mean = variance.mean()
    floor = FLOOR * mean if mean > 0 else 1.0
    covariance[np.diag_indices(len(covariance))] = np.maximum(variance, floor)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors / np.sqrt(np.maximum(values, floor)), np.float64)


def _chunks(X: NDArray[Any], n_clusters: int) -> list[slice]:
    step = max(1, CHUNK // max(X.shape[1], n_clusters))
    return [slice(start, min(start + step, len(X))) for start in range(0, len(X), step)]


def _finite(scores: Float64, dtype: np.dtype[Any]) -> Float64:
    """Scores below what the dtype holds are its lowest number."""
    return np.maximum(scores, float(np.finfo(dtype).min))
