"""The features from which the likelihood is computed: those of X, or their leading components.

The likelihood of `fit.likelihood` treats the features as independent. If many features carry the
same information, as in the codes of a neural network, it counts that information many times. A
clustering that splits the largest cluster may then have a larger likelihood than one that finds the
small classes. Where features are strongly correlated, the likelihood is therefore computed from the
principal components that hold most of the variance. Euclidean distances, and so the nearest
centroids, depend mainly on these.

The two constants were chosen by the mean ARI of ``EKMeans()``, first with the likelihood of the
features of X and then with this rule. It was .82 and .97 on 126 imbalanced draws of the codes of
each of three autoencoders, .44 and .53 on 112 draws of handwritten digits, and .499 and .490
(+- .015) on 28 draws of sentence embeddings. Of 240 random problems of `bench/problems.py`, with
seeds that no published figure uses, the rule applies to only one. These figures change by at most
.025 for shares of variance from .5 to .8, and by at most .012 for limits from .3 to .5. With a
limit of .25 the rule no longer applies to many of the digits, whose mean ARI then is .48.

Sparse rows follow the same rule. Correlations and components come from products of the rows, from
which the mean is subtracted afterwards, so that no row becomes dense. At most `MAX_SPARSE`
components are kept, even if they hold a smaller share of the variance: more of them would take more
memory than the sparse rows. That limit was not chosen by measured ARI.

Numbers that are missing (NaN) are left out of means and variances, and replaced by means in
components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import diags, issparse

from ekmfast import _core

Float64 = NDArray[np.float64]

# Products of more features are left to the BLAS, which is faster then.
KERNEL_FEATURES = 500
# The components are used if `independent_share` is below this limit.
INDEPENDENT_SHARE = 1 / 3
VARIANCE_SHARE = 0.7  # the share of the variance that the leading components hold
# The largest number of rows from which correlations and components are computed. It is smaller for
# many features, because the work grows with the cube of the smaller of the two numbers.
COMPONENT_ROWS = 5_000
COMPONENT_ROWS_WIDE = 2_000
ROUNDING = 1e-7  # of the standard deviation of a sparse feature, relative to its mean
MAX_SPARSE = 50  # the largest number of components of sparse rows
RESOLUTION = 1e-12  # a feature is constant if its standard deviation is below this times its mean


@dataclass(frozen=True)
class Components:
    """The principal components of some rows, those with the largest variances first.

    Attributes
    ----------
    mean : ndarray of shape (D,)
    directions : ndarray of shape (D, R)
        Orthonormal.
    held : ndarray of shape (R,)
        The share of the variance that the components up to each one hold.
    """

    mean: Float64
    directions: Float64
    held: Float64

    def first(self, part: float) -> Components:
        """The first components, which hold this share of the variance."""
        r = int(np.searchsorted(self.held, part)) + 1
        return Components(self.mean, self.directions[:, :r], self.held[:r])

    def of_rows(self, X: Any) -> Float64:
        """The rows (N, D) in these components (N, R); the mean stands for a missing number."""
        if issparse(X):
            product: Float64 = X @ self.directions
            return product - self.mean @ self.directions
        centred: Float64 = X.astype(np.float64) - self.mean
        if np.isnan(centred).any():
            centred[np.isnan(centred)] = 0
        return centred @ self.directions

    def rows_of(self, components: Float64) -> Float64:
        """The rows (N, D) that have these components (N, R), and no others."""
        rows: Float64 = components @ self.directions.T + self.mean
        return rows


def evidence_features(
    X: Any, sample_weight: NDArray[Any] | None = None, part: float = VARIANCE_SHARE
) -> Any:
    """The rows, in the features from which the likelihood is to be computed.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (N, D)
    sample_weight : ndarray of shape (N,), default=None
    part : float
        The share of the variance that the components hold.

    Returns
    -------
    ndarray or CSR matrix of shape (N, D), or ndarray of shape (N, R)
        ``X`` itself, or its R leading principal components if its features are strongly
        correlated.
    """
    components = components_of(X, sample_weight)
    return X if components is None else components.first(part).of_rows(X)


def components_of(X: Any, sample_weight: NDArray[Any] | None = None) -> Components | None:
    """The principal components of rows whose features are strongly correlated; None for others.

    Of sparse rows these are the first `MAX_SPARSE` only.
    """
    n_samples, n_features = X.shape
    limit = COMPONENT_ROWS if n_features <= COMPONENT_ROWS_WIDE else COMPONENT_ROWS_WIDE
    rows: Any = slice(None)
    if n_samples > limit:
        rows = np.sort(np.random.default_rng(0).choice(n_samples, limit, replace=False))
    some = X[rows].astype(np.float64)
    s = np.ones(some.shape[0]) if sample_weight is None else sample_weight[rows].astype(np.float64)
    # Scale the weights so that their squares neither overflow nor underflow. A power of two is
    # exact.
    s = np.ldexp(s, -np.frexp(s.max())[1])
    total = s.sum()
    if n_features < 2 or not total > 0:
        return None
    share, n_effective = s / total, total**2 / (s @ s)
    if issparse(X):
        return _sparse_components(some, share, n_effective)
    mean = share @ some
    if np.isnan(mean).any():  # rows without missing numbers are spared a pass
        missing = np.isnan(some)
        there = np.maximum(share @ ~missing, np.finfo(np.float64).tiny)
        mean = share @ np.where(missing, 0.0, some) / there
        # The means in place of missing numbers lower a variance by the share that is missing.
        some = np.where(missing, 0.0, some - mean) / np.sqrt(there)
    else:
        some -= mean
    some *= np.sqrt(share)[:, None]  # so that some.T @ some is the covariance
    varying = np.sqrt(_squares(some)) > RESOLUTION * np.abs(mean)
    if (
        independent_share(some if varying.all() else some[:, varying], n_effective)
        >= INDEPENDENT_SHARE
    ):
        return None
    return Components(mean, *_principal(some))


def independent_share(centred: Float64, n_samples: float) -> float:
    """The effective number of independent features, divided by the number D of features.

    With the correlations r_ij, the effective number is the participation ratio of their matrix,

        D^2 / sum_ij r_ij^2 = D / (1 + (D - 1) mean_{i != j} r_ij^2),

    which is D if all features are independent and 1 if all are equal. In a sample of N rows
    independent features have a mean r^2 of 1 / (N - 1), which is subtracted. The units of the
    features do not matter.

    Parameters
    ----------
    centred : ndarray of shape (N, D)
        Rows minus their mean, times the square root of their share of the total weight. No feature
        may be constant.
    n_samples : float
        The number of rows; for weighted rows (sum_n s_n)^2 / sum_n s_n^2.
    """
    if centred.shape[1] < 2 or n_samples <= 2:
        return 1.0
    unit = np.ascontiguousarray(centred / np.sqrt(_squares(centred)))
    # Both products have the same sum of squares; compute the smaller matrix.
    if unit.shape[1] <= min(len(unit), KERNEL_FEATURES):
        # The kernel gives sums of w (x - reference). The threads of a BLAS wait for each other: the
        # product of 5,000 rows and 20 features took 40 ms where other processes were running, and
        # .1 ms without them.
        sum_wx, sum_w, reference = _core.accumulate(unit, unit, 1)
        product = sum_wx + np.outer(sum_w, reference)
    else:
        product = unit.T @ unit if unit.shape[1] <= len(unit) else unit @ unit.T
    return _share_of(product, centred.shape[1], n_samples)


def _squares(centred: Float64) -> Float64:
    """The sum of squares (D,) of each feature."""
    squares: Float64 = np.einsum("ij,ij->j", centred, centred)
    return squares


def _share_of(product: Float64, n_features: int, n_samples: float) -> float:
    """`independent_share` from the products of centred columns of length 1, or of their rows."""
    if n_features < 2 or n_samples <= 2:
        return 1.0
    others = (float((product**2).sum()) - n_features) / (n_features * (n_features - 1))
    return float(1 / (1 + (n_features - 1) * max(others - 1 / (n_samples - 1), 0.0)))


def _principal(centred: Float64) -> tuple[Float64, Float64]:
    """Orthonormal directions (D, R) of centred rows, and the shares of the variance they hold."""
    n_samples, n_features = centred.shape
    # Scaled by a power of two, which is exact, so that squares do not underflow.
    centred = np.ldexp(centred, -np.frexp(np.abs(centred).max())[1])
    if n_features <= n_samples:
        variance, directions = np.linalg.eigh(centred.T @ centred)
    else:  # the smaller product has the same eigenvalues except zeros
        variance, left = np.linalg.eigh(centred @ centred.T)
        directions = centred.T @ left
    return _descending(variance, directions)


def _descending(variance: Float64, directions: Float64) -> tuple[Float64, Float64]:
    """Directions (D, R) of length 1 from ones with ascending variances, and the shares they hold.

    Those without variance are left out.
    """
    variance, directions = np.maximum(variance[::-1], 0.0), directions[:, ::-1]
    held = np.cumsum(variance) / variance.sum()
    r = int(np.searchsorted(held, held[-1])) + 1
    kept = directions[:, :r]
    unit: Float64 = kept / np.linalg.norm(kept, axis=0)
    return unit, held[:r]


def _sparse_components(some: Any, share: Float64, n_effective: float) -> Components | None:
    """`components_of` a CSR matrix, ``some`` of whose rows have these shares of the weight.

    With Z the rows times the square roots r of their shares, and m their mean, the centred rows are
    Z - r m^T. Their products are products of Z minus multiples of r and m.
    """
    mean = np.asarray(share @ some).ravel()
    squares = some.copy()
    squares.data **= 2
    variance = np.maximum(np.asarray(share @ squares).ravel() - mean**2, 0.0)
    # The difference above has lost digits if the variance is small beside the squared mean.
    varying = np.flatnonzero(np.sqrt(variance) > max(RESOLUTION, ROUNDING) * np.abs(mean))
    root = np.sqrt(share)
    weighted = diags(root) @ some
    wide = some.shape[1] > some.shape[0]
    scale = np.sqrt(variance[varying])
    unit = (weighted[:, varying] @ diags(1 / scale)).tocsr()
    product = _centred_product(unit, root, mean[varying] / scale, len(varying) > some.shape[0])
    if _share_of(product, len(varying), n_effective) >= INDEPENDENT_SHARE:
        return None
    weighted = weighted.tocsr()
    variances, vectors = np.linalg.eigh(_centred_product(weighted, root, mean, wide))
    held = np.cumsum(np.maximum(variances[::-1], 0.0))
    kept = vectors[:, ::-1][:, :MAX_SPARSE]
    if wide:
        kept = weighted.T @ kept - np.outer(mean, root @ kept)
    kept = kept / np.linalg.norm(kept, axis=0)
    return Components(mean, kept, held[:MAX_SPARSE] / held[-1])


def _centred_product(Z: Any, root: Float64, mean: Float64, of_rows: bool) -> Float64:
    """The products of the rows, or of the columns, of the centred rows Z - root mean^T."""
    if of_rows:
        product = (Z @ Z.T).toarray()
        along = np.outer(Z @ mean, root)
        found = product - along - along.T + (mean @ mean) * np.outer(root, root)
    else:
        found = (Z.T @ Z).toarray() - np.outer(mean, mean)  # as root^T Z = mean, root^T root = 1
    return np.asarray(found, np.float64)
