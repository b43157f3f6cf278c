"""The likelihood of rows and labels, by which results at different alphas are compared."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse
from scipy.special import gammaln

from ekmfast import _core

Float64 = NDArray[np.float64]

# Degrees of freedom of the Student distribution of a cluster. Its tails are so heavy that a few
# outliers lower the likelihood only a little.
TAIL = 8.0

# Number of iterations in which rows far from the centre of their cluster get smaller weights.
REWEIGHTINGS = 4

# The smallest variance that sparse rows are given, relative to their mean square.
SPARSE_RESOLUTION = 1e-12
# Rows whose distances are computed at a time, if they are sparse.
ROWS_AT_ONCE = 1024

# The estimates are shrunk. The scale of a cluster is shrunk towards 1 as if by this many more rows,
# and its variances towards the common variances times its scale.
SCALE_PRIOR = 10.0
VARIANCE_PRIOR = 300.0

# The smallest variance of a feature within a cluster, as a share of the mean over the features.
LEAST_VARIANCE = 0.05


def classification_likelihood(
    X: Any, labels: NDArray[Any], sample_weight: NDArray[Any] | None = None
) -> float:
    """The mean log likelihood of rows and labels (N,); -inf if there is only one cluster.

    See `classification_likelihoods`. The labels may be any integers.
    """
    _, index = np.unique(labels, return_inverse=True)
    return float(classification_likelihoods(X, index[None], sample_weight)[0])


def likelihoods_of_labels(
    X: Any,
    labels: NDArray[Any],
    sample_weight: NDArray[Any] | None,
    n_threads: int,
    reweightings: int = REWEIGHTINGS,
) -> Float64:
    """`classification_likelihoods` of labellings (L, N), many of which may be equal."""
    numbers, first = distinct_labels(labels)
    distinct = labels[first]
    return classification_likelihoods(X, distinct, sample_weight, n_threads, reweightings)[numbers]


def distinct_labels(labels: NDArray[np.int32]) -> tuple[list[int], list[int]]:
    """For each of the labellings (L, N) the number of its labels, and where each number is first.

    Equal labels have the same number.
    """
    numbers = _core.distinct_labels(labels).tolist()
    first: list[int] = []
    for i, number in enumerate(numbers):
        if number == len(first):
            first.append(i)
    return numbers, first


def classification_likelihoods(
    X: Any,
    labels: NDArray[Any],
    sample_weight: NDArray[Any] | None = None,
    n_threads: int = 1,
    reweightings: int = REWEIGHTINGS,
) -> Float64:
    """The mean log likelihood of rows and labels, for each of L labellings (L, N) of the rows.

    It is -inf if there is only one cluster. Labels are integers from 0 on; those that no row has
    make no difference.

    Each cluster k has a Student distribution with 8 degrees of freedom, its own centre and its own
    variance V_kj of each feature. With q_k the share of the rows in cluster k, the result is

        mean_n  ln q_k - 1/2 sum_j ln V_kj - (8 + D)/2 ln(1 + m_n / 8),   k the label of n,
        m_n = sum_j (x_nj - centre_kj)^2 / V_kj,

    up to a constant. V_kj is shrunk towards t_k v_j, where v_j is common to all clusters and t_k is
    a scale of the cluster; only clusters of some hundred rows depart much from it. Centres,
    variances and scales are computed by a few iterations of reweighted means. Owing to the heavy
    tails a few outliers do not decide the comparison. Correlations of features are left out,
    because labels by the nearest centroid cannot reflect them either.

    A number that is NaN is missing. The sums over j, and D, are then over the features that a row
    has: these have a Student distribution with the same centre and variances. Means are over the
    rows that have a feature.

    Dense rows without missing numbers are read by the compiled kernels, which compare several
    labellings in parallel. `ekmfast._reference` has the same in plain NumPy.
    """
    if sample_weight is not None and not sample_weight.all():
        weighted = sample_weight > 0  # other rows count as if they were not there
        X, labels, sample_weight = X[weighted], labels[:, weighted], sample_weight[weighted]
    s = None if sample_weight is None else np.asarray(sample_weight, np.float64)
    if s is not None:
        s = s / s.mean()
    if issparse(X) or np.isnan(X).any():
        return np.array([_of_other_rows(X, own, s, reweightings) for own in labels], np.float64)
    n_clusters = int(labels.max()) + 1
    if n_clusters > X.shape[0]:  # most labels have no row
        labels = np.stack([np.unique(own, return_inverse=True)[1] for own in labels])
        n_clusters = int(labels.max()) + 1
    likelihoods = _core.classification_likelihoods(
        X,
        None if s is None else s.astype(X.dtype),
        np.ascontiguousarray(labels, np.int32),
        n_clusters,
        TAIL,
        SCALE_PRIOR,
        VARIANCE_PRIOR,
        LEAST_VARIANCE,
        reweightings,
        n_threads,
    )
    return likelihoods + float(_constant(X.shape[1]))


def _constant(n_present: Any) -> Any:
    """The part of the log density that depends only on the number of features."""
    return (
        gammaln((TAIL + n_present) / 2) - gammaln(TAIL / 2) - 0.5 * n_present * np.log(TAIL * np.pi)
    )


def _of_other_rows(
    X: Any, labels: NDArray[Any], sample_weight: Float64 | None, reweightings: int
) -> float:
    """The likelihood of one labelling (N,) of a CSR matrix, or of rows with missing numbers."""
    names, index = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        return -np.inf
    n_features, n_clusters = X.shape[1], len(names)
    s = np.ones(X.shape[0]) if sample_weight is None else sample_weight
    rows = (_SparseClusters if issparse(X) else _PartialClusters)(X, index, n_clusters)
    tiny = np.finfo(np.float64).tiny
    size = np.bincount(index, s, n_clusters)
    sizes = rows.masses(s)  # (K, 1), or (K, D) if numbers are missing
    weight, scale = s, np.ones(n_clusters)
    for _ in range(reweightings):
        mass = rows.masses(weight)
        centres = rows.sums(weight) / np.maximum(mass, tiny)
        scatter = rows.scatter(weight, mass, centres)
        common = (1 / scale) @ scatter / rows.total(s, sizes)
        floor = max(LEAST_VARIANCE * np.average(common), rows.resolution)
        common = np.maximum(common, floor)
        scale = scatter @ (1 / common) + SCALE_PRIOR * n_features
        scale /= n_features * (sizes.mean(axis=1) + SCALE_PRIOR)
        own = scatter + VARIANCE_PRIOR * scale[:, None] * common
        own = np.maximum(own / (sizes + VARIANCE_PRIOR), floor)
        distance = rows.distances(centres, own)
        weight = s * (TAIL + rows.n_present) / (TAIL + distance)
    of_row = rows.volumes(np.log(np.maximum(size, tiny) / s.sum()), own)
    of_row = of_row - 0.5 * (TAIL + rows.n_present) * np.log1p(distance / TAIL)
    return float(np.average(of_row + _constant(rows.n_present), weights=s))


class _PartialClusters:
    """Rows of which numbers are missing (NaN), and the numbers of their clusters."""

    def __init__(self, X: NDArray[Any], index: NDArray[np.intp], n_clusters: int) -> None:
        self.order = np.argsort(index, kind="stable")  # each cluster's rows one after another
        self.X, self.index = np.asarray(X[self.order], np.float64), index[self.order]
        self.first = np.searchsorted(self.index, np.arange(n_clusters))
        self.resolution = np.finfo(np.float64).tiny  # the smallest variance that can be computed
        self.there = ~np.isnan(self.X)
        self.X = np.where(self.there, self.X, 0.0)
        self.n_present = (~np.isnan(X)).sum(axis=1)  # (N,), how many numbers a row has

    def masses(self, weight: Float64) -> Float64:
        """The sum of the weights of the rows of each cluster that have a feature, (K, D)."""
        return cast(Float64, np.add.reduceat(weight[self.order, None] * self.there, self.first))

    def total(self, weight: Float64, masses: Float64) -> Any:
        """The sum of the weights of all rows that have a feature, (D,)."""
        return np.maximum(masses.sum(axis=0), np.finfo(np.float64).tiny)

    def sums(self, weight: Float64) -> Float64:
        """The weighted sum of the rows of each cluster, (K, D)."""
        return cast(Float64, np.add.reduceat(weight[self.order, None] * self.X, self.first))

    def scatter(self, weight: Float64, mass: NDArray[Any], centres: Float64) -> Float64:
        """The weighted sums of (x - centre)^2 of each cluster, (K, D); ``mass``: of the weights."""
        self._squares = np.where(self.there, (self.X - centres[self.index]) ** 2, 0.0)
        weighted = weight[self.order, None] * self._squares
        return cast(Float64, np.add.reduceat(weighted, self.first))

    def distances(self, centres: Float64, variances: Float64) -> Float64:
        """The sums of (x - centre)^2 / variance over the features, (N,), after `scatter`."""
        found = np.empty(len(self.X))
        found[self.order] = (self._squares / variances[self.index]).sum(axis=1)
        return found

    def volumes(self, share: Float64, variances: Float64) -> Float64:
        """``share - 1/2 sum_j ln V_j`` of the cluster of each row, over the features it has."""
        logarithms = np.where(self.there, np.log(variances)[self.index], 0.0)
        found = np.empty(len(self.X))
        found[self.order] = share[self.index] - 0.5 * logarithms.sum(axis=1)
        return found


class _SparseClusters:
    """The same for a CSR matrix, from sums of x and x^2, so that no row becomes dense."""

    def __init__(self, X: Any, index: NDArray[np.intp], n_clusters: int) -> None:
        self.of_rows, self.n_present = index, X.shape[1]
        self.X, self.index, self.n_clusters = X, index, n_clusters
        # Variances are differences of mean squares, of which a smaller one is rounding error.
        mean_square = np.square(X.data, dtype=np.float64).sum() / (X.shape[0] * X.shape[1])
        self.resolution = max(SPARSE_RESOLUTION * mean_square, np.finfo(np.float64).tiny)

    def masses(self, weight: Float64) -> Float64:
        """The sum of the weights of each cluster, (K, 1)."""
        return cast(Float64, np.bincount(self.index, weight, self.n_clusters)[:, None])

    def total(self, weight: Float64, masses: Float64) -> Any:
        """The sum of the weights of all rows."""
        return weight.sum()

    def volumes(self, share: Float64, variances: Float64) -> Float64:
        """``share - 1/2 sum_j ln V_j`` of the cluster of each row."""
        volumes: Float64 = share - 0.5 * np.log(variances).sum(axis=1)
        return volumes[self.index]

    def _sums(self, weight: Float64, X: Any) -> Float64:
        entries = weight, (self.index, np.arange(len(weight)))
        of_cluster = csr_matrix(entries, (self.n_clusters, len(weight)))
        return np.asarray((of_cluster @ X).toarray(), np.float64)

    def sums(self, weight: Float64) -> Float64:
        return self._sums(weight, self.X)

    def scatter(self, weight: Float64, mass: NDArray[Any], centres: Float64) -> Float64:
        # The sum of w (x - c)^2 about the weighted mean c is that of w x^2 minus c^2 sum w.
        squares = self.X.data.astype(np.float64) ** 2
        squared = csr_matrix((squares, self.X.indices, self.X.indptr), self.X.shape)
        return np.maximum(self._sums(weight, squared) - mass * centres**2, 0.0)

    def distances(self, centres: Float64, variances: Float64) -> Float64:
        # x (x - 2 c) / v at the numbers of a row, plus the sum of c^2 / v over all features.
        found = (centres**2 / variances).sum(axis=1)[self.index]
        start = self.X.indptr
        for first in range(0, len(found), ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, len(found))
            stored = slice(start[first], start[last])
            row = np.repeat(np.arange(last - first), np.diff(start[first : last + 1]))
            at = self.index[first + row], self.X.indices[stored]
            x = self.X.data[stored].astype(np.float64)
            terms = x * (x - 2 * centres[at]) / variances[at]
            found[first:last] += np.bincount(row, terms, last - first)
        return cast(Float64, np.maximum(found, 0.0))
