"""Which features may decide between clusterings: those given, or their leading components.

The likelihood of `fit.likelihood` adds the evidence of every feature. Where features repeat each
other, as in the codes of a neural network, one cut through the largest cluster is then counted many
times over and wins against the small classes. So strongly correlated rows are judged in the
principal components that hold most of their variance: the directions that Euclidean distances, and
with them nearest centroids, follow.

How the two constants were chosen: by the mean ARI of ``EKMeans()``, in the features as given and by
this rule. It was .82 and .97 on 126 imbalanced draws of the codes of each of three autoencoders,
.44 and .53 on 112 of handwritten digits, .499 and .490 (+- .015) on 28 of sentence embeddings; of
240 random problems of `bench/problems.py` (seeds that publication never sees) one alone has so
correlated features. Shares of variance from .5 to .8 change these figures by at most .025, limits
from .3 to .5 by at most .012; a limit of .25 no longer acts on many of the digits (.48).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Correlated enough: as many independent features would be fewer than this share of those given.
INDEPENDENT_SHARE = 1 / 3
VARIANCE_SHARE = 0.7  # of the rows' variance, held by the leading components
# Rows that correlations and components are computed from, at most; fewer where features are many,
# because the work grows with the cube of the smaller number.
COMPONENT_ROWS = 5_000
COMPONENT_ROWS_WIDE = 2_000
RESOLUTION = 1e-12  # standard deviation of a feature that is not constant, in units of its mean


def evidence_features(X: NDArray[Any], sample_weight: NDArray[Any] | None = None) -> NDArray[Any]:
    """Rows in the features that a likelihood should be computed from.

    Parameters
    ----------
    X : ndarray of shape (N, D)
    sample_weight : ndarray of shape (N,), default=None

    Returns
    -------
    ndarray of shape (N, D) or (N, R)
        ``X`` itself, or its R leading principal components where its features are strongly
        correlated.
    """
    n_samples, n_features = X.shape
    limit = COMPONENT_ROWS if n_features <= COMPONENT_ROWS_WIDE else COMPONENT_ROWS_WIDE
    rows: Any = slice(None)
    if n_samples > limit:
        rows = np.sort(np.random.default_rng(0).choice(n_samples, limit, replace=False))
    some = X[rows].astype(np.float64)
    s = np.ones(len(some)) if sample_weight is None else sample_weight[rows].astype(np.float64)
    # By a power of two, which rounds nothing, so that no square of a weight leaves the range.
    s = np.ldexp(s, -np.frexp(s.max())[1])
    total = s.sum()
    if n_features < 2 or not total > 0:
        return X
    mean = s @ some / total
    some -= mean
    some *= np.sqrt(s / total)[:, None]  # so that some.T @ some is the covariance
    varying = np.sqrt((some**2).sum(axis=0)) > RESOLUTION * np.abs(mean)
    if independent_share(some[:, varying], total**2 / (s @ s)) >= INDEPENDENT_SHARE:
        return X
    components = _leading_components(some)
    evidence: Float64 = (X.astype(np.float64) - mean) @ components
    return evidence


def independent_share(centred: Float64, n_samples: float) -> float:
    """How many independent features would be as correlated as these D are, divided by D.

    With correlations r_ij that number is the participation ratio of their matrix,

        D^2 / sum_ij r_ij^2 = D / (1 + (D - 1) mean_{i != j} r_ij^2),

    from D, where all are independent, to 1, where all are one. Of independent features N rows show
    an r^2 of 1 / (N - 1) on average, which is subtracted. The units of the features do not matter.

    Parameters
    ----------
    centred : ndarray of shape (N, D)
        Rows minus their mean, times the root of their share of the weight; no feature is constant.
    n_samples : float
        Rows, or as many as they are worth by their weights.
    """
    n_features = centred.shape[1]
    if n_features < 2 or n_samples <= 2:
        return 1.0
    unit = centred / np.sqrt((centred**2).sum(axis=0))
    # The squares of unit.T @ unit add up to those of unit @ unit.T: take the smaller one.
    product = unit.T @ unit if n_features <= len(unit) else unit @ unit.T
    others = (float((product**2).sum()) - n_features) / (n_features * (n_features - 1))
    return float(1 / (1 + (n_features - 1) * max(others - 1 / (n_samples - 1), 0.0)))


def _leading_components(centred: Float64) -> Float64:
    """Orthonormal directions (D, R) that hold `VARIANCE_SHARE` of the variance."""
    n_samples, n_features = centred.shape
    if n_features <= n_samples:
        variance, directions = np.linalg.eigh(centred.T @ centred)
    else:  # the other product has the same eigenvalues but for zeros
        variance, left = np.linalg.eigh(centred @ centred.T)
        directions = centred.T @ left
    variance, directions = np.maximum(variance[::-1], 0.0), directions[:, ::-1]
    held = np.cumsum(variance) / variance.sum()
    kept = directions[:, : int(np.searchsorted(held, VARIANCE_SHARE)) + 1]
    unit: Float64 = kept / np.linalg.norm(kept, axis=0)
    return unit
