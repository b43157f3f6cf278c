"""The likelihood of rows and labels, by which results at different alphas are compared."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Float64 = NDArray[np.float64]

# Degrees of freedom of the Student distribution of a cluster. Its tails are so heavy that a few
# outliers lower the likelihood only a little.
TAIL = 8.0

# Number of iterations in which rows far from the centre of their cluster get smaller weights.
REWEIGHTINGS = 4

# The estimates are shrunk. The scale of a cluster is shrunk towards 1 as if by this many more rows,
# and its variances towards the common variances times its scale.
SCALE_PRIOR = 10.0
VARIANCE_PRIOR = 300.0

# The smallest variance of a feature within a cluster, as a share of the mean over the features.
LEAST_VARIANCE = 0.05


def classification_likelihood(
    X: NDArray[Any], labels: NDArray[Any], sample_weight: NDArray[Any] | None = None
) -> float:
    """The mean log likelihood of rows and labels; -inf if there is only one cluster.

    Each cluster k has a Student distribution with 8 degrees of freedom, its own centre and its own
    variance V_kj of each feature. With q_k the share of the rows in cluster k, the result is

        mean_n  ln q_k - 1/2 sum_j ln V_kj - (8 + D)/2 ln(1 + m_n / 8),   k the label of n,
        m_n = sum_j (x_nj - centre_kj)^2 / V_kj,

    up to a constant. V_kj is shrunk towards t_k v_j, where v_j is common to all clusters and t_k is
    a scale of the cluster; only clusters of some hundred rows depart much from it. Centres,
    variances and scales are computed by a few iterations of reweighted means. Owing to the heavy
    tails a few outliers do not decide the comparison. Correlations of features are left out,
    because labels by the nearest centroid cannot reflect them either.
    """
    if sample_weight is not None and not sample_weight.all():
        weighted = sample_weight > 0  # other rows count as if they were not there
        X, labels, sample_weight = X[weighted], labels[weighted], sample_weight[weighted]
    names, index = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        return -np.inf
    X = np.asarray(X, np.float64)
    n_features = X.shape[1]
    s = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    s = s / s.mean()
    order = np.argsort(index, kind="stable")
    X, s, index = X[order], s[order], index[order]
    first = np.searchsorted(index, np.arange(len(names)))

    def sums(values: Float64) -> Float64:  # of the rows of each cluster
        return cast(Float64, np.add.reduceat(values, first))

    tiny = np.finfo(np.float64).tiny
    size = sums(s)
    weight, scale = s, np.ones(len(names))
    for _ in range(REWEIGHTINGS):
        centres = sums(weight[:, None] * X) / np.maximum(sums(weight), tiny)[:, None]
        squares = (X - centres[index]) ** 2
        common = (weight / scale[index]) @ squares / s.sum()
        floor = max(LEAST_VARIANCE * np.average(common), tiny)
        common = np.maximum(common, floor)
        scale = sums(weight * (squares @ (1 / common))) + SCALE_PRIOR * n_features
        scale /= n_features * (size + SCALE_PRIOR)
        own = sums(weight[:, None] * squares) + VARIANCE_PRIOR * scale[:, None] * common
        own = np.maximum(own / (size + VARIANCE_PRIOR)[:, None], floor)
        distance = (squares / own[index]).sum(axis=1)
        weight = s * (TAIL + n_features) / (TAIL + distance)
    of_cluster = np.log(np.maximum(size, tiny) / s.sum()) - 0.5 * np.log(own).sum(axis=1)
    of_row = of_cluster[index] - 0.5 * (TAIL + n_features) * np.log1p(distance / TAIL)
    constant = (
        gammaln((TAIL + n_features) / 2)
        - gammaln(TAIL / 2)
        - 0.5 * n_features * np.log(TAIL * np.pi)
    )
    return float(np.average(of_row, weights=s) + constant)
