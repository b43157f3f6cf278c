"""The search for the number of clusters: mixtures of 1, 2, 3 ... components of one sample.

Of each number the best mixture is kept that `mixture.search` finds, where fewer runs go on than in
a fit. Of N rows the number with the lowest

    -2 sum_n log f(x_n) + (p + SHAPE q) log N

(Eq. 31, eq-number, of docs/mathematics.md) is chosen, where q counts the entries of scatter
matrices and p all other parameters, and f is the density after one more iteration in which scatter
matrices are shrunk as if by a tenth of the rows (`PRIOR_SHARE`). The Bayesian information criterion
(BIC) has SHAPE = 1. It counts every entry of a scatter matrix as a free parameter, although each
matrix is shrunk towards the common one, so it prefers too few clusters. With the density before
that iteration very long clusters, whose matrices are far from the common one, are counted as
several: their parts are shrunk into a shape that parts of a long cluster do have.

The constants were chosen on problems of `bench/problems.py` with seeds that no published figure
uses, and on sets of one to four clusters that are 20 times as long as wide. On 74 of these sets the
mean of |chosen - true number| is 1.6 and the mean ARI .87; they were 3.6 and .75 without the
iteration and with .85 in place of 1. On 64 problems of the families the same change raised the mean
ARI by .012 (standard error .006) and left the mean of |chosen - true number| at .91. A hundredth of
the rows gives 0.7 and .92 on the long sets and the same on the families, but counted one normal
cluster of 134 rows with 38 features as five; a tenth counted all of 38 such sets as one. BIC, on 64
other problems, had a mean ARI of .776 where .819 was reached with SHAPE = .3 and the density before
the iteration; the classification likelihood in place of the likelihood (ICL, Biernacki, Celeux and
Govaert 2000) had .773.

Where features are strongly correlated, as the codes of neural networks are, the mixtures are those
of the leading principal components (`evidence`), as for the choice of alpha, and the criterion is
ICL, which charges components for their overlap. So it is where rows are sparse and wide, in their
leading directions (`directions`).

Classes of codes are no Student distributions, so that a search for the likeliest mixtures goes
astray: the mixture of the true number of components often has parts of the large class in place of
small classes, and ICL, too, often prefers two parts of a class to one. So mixtures of correlated
features begin from the clusters of `EKMeans` alone (`clusterings`), all have the same degrees of
freedom, and clusters that stand far apart (`apart`) raise the criteria of other numbers.

The constants of that were chosen on draws of classes from codes of several models, of 8 x 8 digits
and of codes that were learned without labels, and on generated problems, mixtures of 2 to 8
dimensions in 40 to 128 features. On 252 further draws of codes of 2 to 5 classes the mean ARI of
``EKMeans("auto")`` is .986, and that of HDBSCAN .977; one class alone is counted as one in 67 of 72
draws. It was .969 where clusters that may be parts of one were not refused (`apart`), and the same
on 93 draws of digits (.537) and on 180 generated problems (.550, +.003 +- .013).

With the search, and the least ICL as the only rule, the mean ARI was lower on 288 draws of codes
(-.083 +- .014), 66 of digits (.344 for .607) and 48 of codes without labels (.203 for .225), but
higher on 144 generated problems (+.026 +- .008), whose overlapping clusters are joined too often
now. A limit `APART` of 5.5 halves that, but costs .07 on digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from ekmfast.fit.apart import least_distance, preferring_apart
from ekmfast.fit.clusterings import Clusterings
from ekmfast.fit.directions import InDirections
from ekmfast.fit.evidence import components_of
from ekmfast.fit.likeliest import dense_rows
from ekmfast.fit.mixture.background import Box
from ekmfast.fit.mixture.iteration import Fitted
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.search import (
    MixtureSearch,
    centre_and_unit,
    kinds_of,
)
from ekmfast.fit.mixture.step import maximization
from ekmfast.fit.mixture.student import StudentMixture
from ekmfast.fit.problem import Problem
from ekmfast.fit.rand import adjusted_rand
from ekmfast.fit.wide import as_wide
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.protocol import RowsAtHand

Float64 = NDArray[np.float64]

PRIOR_SHARE, SHAPE = 0.1, 0.35
# Rows of which mixtures are compared, at most.
SEARCH_ROWS = 10_000
# The largest number of clusters that is tried by default.
MAX_CLUSTERS = 15
# Each search takes less time than that of a fit: it has so many restarts, and so many runs go on,
# with these degrees of freedom.
N_INIT = 4
KEPT = 2
DEGREES = (3.0, 8.0, math.inf)
# By how much joining two components must raise the criterion of a mixture, for each row. If less is
# enough, clusters with heavy tails are joined while far rows keep components of their own: on 56
# problems the mean ARI was .803 for 0, .805 for .02 and .813 for .06.
JOIN_GAIN = 0.06
# The share of the variance that principal components hold, where features are strongly correlated.
VARIANCE_SHARE = 0.9
# Clusters there are found with so many times the restarts of other searches, at four alphas.
RESTARTS = 2
# The degrees of freedom of mixtures there, the same for every number: else two halves of a cluster
# with light tails are often preferred to a whole one with heavy tails.
CLUSTERED_DEGREES = 4.0
# The directions of wide sparse rows. On 27 draws of docstrings and 8 generated texts the mean ARI
# was .31 and .75 in 10, .32 and .87 in 20, and .27 and .73 in 35 directions.
DIRECTIONS = 20
# An iteration of expectation maximization takes N D^2 operations for each component. With many
# features there are fewer rows, and no full matrices.
OPERATIONS = 2e7
LEAST_ROWS = 1000
MATRIX_FEATURES = 100


@dataclass(frozen=True)
class ClusterPath:
    """The result of :func:`cluster_path`; entry i of every array belongs to ``n_clusters[i]``.

    All numbers are those of mixtures of a sample of at most 10,000 rows, M of them. Where X has
    more than 44 features, the sample is smaller, but not below 1,000 rows.

    Attributes
    ----------
    n_clusters : ndarray of shape (P,)
        1, 2, 3 and so on, at most ``max_clusters``, the square root of the number of sampled rows
        (the sum of their ``sample_weight``) and the number of different rows.
    likelihood : ndarray of shape (P,)
        The mean log density of a row. It grows with the number, so it cannot be used to choose one.
    bic, icl : ndarray of shape (P,)
        The Bayesian information criterion, and the integrated completed likelihood criterion;
        lower is better.
    criterion : ndarray of shape (P,)
        As ``bic``, with .35 of its penalty for the entries of covariance matrices, and of the
        density after one iteration with covariance matrices that are less alike; or ``icl`` if
        ``n_components`` is not None, raised as ``distances`` says. Lower is better.
    distances : ndarray of shape (P,) or None
        Where features are strongly correlated, the smallest Mahalanobis distance of two of the
        clusters from which the mixtures began; 0 for one cluster, and where one has fewer than five
        rows. The largest number with more than 5 is chosen, unless a larger number has more than
        3.46, the distance of the halves of a uniform cluster, and its ``icl`` is lower by more than
        .75 for each row. If no number has more than 5, those with at most 3.46 are charged as much.
    stability : ndarray of shape (P,)
        The adjusted Rand index of the labels that two mixtures give to the rows, each found in one
        half of these. It is near 1 if other rows of the same kind would give the same clusters,
        and it is 1 for one cluster. The rows of the background count as one cluster more.
    sizes : ndarray of shape (P, P)
        The number of sampled rows in each cluster, or the sum of their ``sample_weight``; zeros
        follow where there are fewer clusters.
    labels : ndarray of shape (P, M), int32
        The most likely component of each sampled row, -1 for the background.
    rows : ndarray of shape (M,) or None
        The numbers of the sampled rows. None if these are all rows, in order.
    covariance_types : list of str
        The types of the mixtures' covariance matrices.
    degrees_of_freedom : ndarray of shape (P,)
    converged : ndarray of shape (P,), bool
    background_weights : ndarray of shape (P,)
        The shares of the backgrounds, zeros if there are none.
    background_sizes : ndarray of shape (P,)
        The number of sampled rows with the label -1, or the sum of their ``sample_weight``.
    best : int
        The entry with the lowest ``criterion``, the first of several that are equal, of those whose
        components are each the most likely one of some row. This is the number that
        ``n_clusters="auto"`` uses.
    n_components : int or None
        The number of principal components, if the mixtures are those of principal components; None
        if they are those of the features of X.
    """

    n_clusters: NDArray[np.intp]
    likelihood: Float64
    bic: Float64
    icl: Float64
    criterion: Float64
    stability: Float64
    sizes: Float64
    labels: NDArray[np.int32]
    covariance_types: list[str]
    degrees_of_freedom: Float64
    converged: NDArray[np.bool_]
    background_weights: Float64
    background_sizes: Float64
    best: int
    n_components: int | None = None
    rows: NDArray[np.intp] | None = None
    distances: Float64 | None = None


class NumberSearch:
    """The search for the number of clusters, in a sample of the rows of a problem.

    Parameters
    ----------
    problem : Problem
        Its own number of clusters does not matter.
    max_clusters : int
    random_state : RandomState
    n_threads : int
    covariance_type, degrees_of_freedom, background, max_iter, tol
        As for `EquilibriumMixture`.
    n_init : int
        The restarts of equilibrium k-means at each alpha.
    report : callable, default=None
        Called for every run of expectation maximization.

    Attributes
    ----------
    fits : list of Fitted
        The best mixture of 1, 2, 3 ... components that was found.
    criterion : ndarray of shape (P,)
        As for `ClusterPath`.
    distances : ndarray of shape (P,) or None
        As for `ClusterPath`.
    best : int
        The index of the lowest criterion.
    """

    def __init__(
        self,
        problem: Problem,
        max_clusters: int,
        random_state: np.random.RandomState,
        *,
        n_threads: int,
        covariance_type: str = "auto",
        degrees_of_freedom: str | float = "auto",
        background: bool = False,
        n_init: int = N_INIT,
        max_iter: int = 100,
        tol: float = 1e-4,
        report: Callable[[Fitted], None] | None = None,
    ) -> None:
        sparse = issparse(problem.survey.sample.on_host().X)
        same = as_wide(problem)
        wide = same is not None
        if same is not None:
            problem = problem.of(InDirections.of(same.survey.sample.on_host(), DIRECTIONS).rows)
        rows, self._numbers = _sample(problem, random_state)
        if sparse and not wide:
            rows = dense_rows(rows)
        features = rows.part(slice(None))
        components = None if wide else components_of(features, rows.sample_weight)
        if components is not None:
            features = components.first(VARIANCE_SHARE).of_rows(features)
        n_features = int(features.shape[1])
        reduced = wide or components is not None
        self._n_components = n_features if reduced else None
        self._problem, self._n_threads = problem, n_threads
        s = rows.sample_weight
        # Principal components have another dtype than rows in float32.
        within = problem.of(ArrayRows(features, None if s is None else s.astype(features.dtype)))
        self._centre, self._unit = centre_and_unit(within)
        self._log_unit = n_features * math.log(self._unit)
        self._X = (features.astype(np.float64) - self._centre) / self._unit
        self._weight = None if s is None else s.astype(np.float64)
        self._weighted = np.arange(len(self._X)) if s is None else np.flatnonzero(s)
        self._background = background
        self._free_degrees = degrees_of_freedom == "auto"
        kinds = kinds_of(covariance_type, sparse=sparse and not wide)
        degrees = DEGREES if self._free_degrees else (float(degrees_of_freedom),)
        # The rows and components in which clusters are found that are the only starts.
        self._clustered = None if components is None else (rows, components)
        self._shape = "full" if n_features <= MATRIX_FEATURES else "diag"
        if covariance_type == "auto" and (self._shape == "diag" or components is not None):
            kinds = (self._shape,)
        if self._free_degrees and components is not None:
            degrees = (CLUSTERED_DEGREES,)
        self._settings: dict[str, Any] = {
            "random_state": random_state,
            "kinds": kinds,
            "degrees": degrees,
            "n_init": n_init,
            "tails": False,
            "kept": KEPT,
            "max_iter": max_iter,
            "tol": tol,
            "report": report,
        }
        own = self._rows(self._weighted)
        self._total = own.total
        if problem.dispersion == 0:  # the cosine: rows differ by rounding errors alone
            max_clusters = 1
        most = min(max_clusters, math.isqrt(int(self._total)), len(np.unique(own.X, axis=0)))
        self.fits, self.distances = self._found(self._weighted, max(most, 1))
        if reduced:
            self.criterion = self._criteria([fitted.classified for fitted in self.fits])
        else:
            likelihoods = [relaxed(fitted.mixture, own) for fitted in self.fits]
            self.criterion = self._criteria(likelihoods, SHAPE)
        if self.distances is not None:
            self.criterion = preferring_apart(self.criterion, self.distances, self._total)
        # A component that is the most likely one of no row is no cluster.
        numbers = [_clusters(fitted.mixture, own) for fitted in self.fits]
        fewer = np.array(numbers) < np.arange(1, len(numbers) + 1)
        self.best = int(np.where(fewer, np.inf, self.criterion).argmin())

    def labels_of(self, X: Float64) -> NDArray[np.int32] | None:
        """The labels of rows by the chosen mixture; None if it is one of principal components."""
        if self._n_components is not None:
            return None
        rows = ScaledRows(X, None, self._centre, self._unit, self._n_threads)
        return label(self.fits[self.best].mixture, rows)

    def _rows(self, which: NDArray[np.intp] | slice) -> ScaledRows:
        own = None if self._weight is None else self._weight[which]
        X = np.ascontiguousarray(self._X[which])
        return ScaledRows(X, own, np.zeros(X.shape[1]), 1.0, self._n_threads)

    def _found(self, which: NDArray[np.intp], most: int) -> tuple[list[Fitted], Float64 | None]:
        """Mixtures of 1, 2, 3 ... components of some of the sampled rows.

        Where they begin from clusters, also how far these stand apart.
        """
        search = self._search(which)
        if self._clustered is None:
            return _fits(search, most), None
        rows, components = self._clustered
        problem = self._problem.of(rows.subset(which))
        n_init = RESTARTS * search.n_init
        clusterings = Clusterings(problem, components, search.random_state, n_init)
        fits, distances = [], np.zeros(most)
        for k in range(1, most + 1):
            labels = clusterings.labels(k)
            fits.append(search.from_clusters(labels))
            if labels.max() + 1 == k:  # else these are fewer clusters
                distances[k - 1] = least_distance(search.rows, labels, self._shape)
        return fits, distances

    def _search(self, which: NDArray[np.intp]) -> MixtureSearch:
        """The search for mixtures of some of the sampled rows."""
        rows = self._rows(which)
        sample = self._problem.of(ArrayRows(rows.X, rows.sample_weight, self._n_threads))
        box = Box(rows.X.min(axis=0), rows.X.max(axis=0)) if self._background else None
        return MixtureSearch(sample, rows, slice(None), box=box, **self._settings)

    def _criteria(self, means: list[float], shape: float = 1) -> Float64:
        """-2 times the log likelihood, of which the means over rows are given, plus a penalty.

        It is that of BIC, with a share of it for the entries of scatter matrices.
        """
        found = []
        for fitted, mean in zip(self.fits, means, strict=True):
            shapes = fitted.mixture.n_shape_parameters
            others = fitted.mixture.n_parameters - shapes + self._free_degrees
            penalty = (others + shape * shapes) * math.log(self._total)
            found.append(-2 * self._total * (mean - self._log_unit) + penalty)
        return np.array(found)

    def _stability(self, random_state: np.random.RandomState) -> Float64:
        """For each number, how far mixtures of two halves of the rows agree."""
        if len(self.fits) == 1:
            return np.ones(1)
        order = random_state.permutation(self._weighted)
        found = []
        every = self._rows(slice(None))
        fits = [self._found(np.sort(order[i::2]), len(self.fits))[0] for i in (0, 1)]
        for pair in zip(*fits, strict=True):
            one, other = (label(fitted.mixture, every) for fitted in pair)
            found.append(adjusted_rand(one + 1, other + 1))  # -1 is the label of the background
        return np.array(found)

    def path(self, random_state: np.random.RandomState) -> ClusterPath:
        """Everything that `cluster_path` returns."""
        every = self._rows(slice(None))
        labels = np.stack([label(fitted.mixture, every) for fitted in self.fits])
        # The first count is that of the label -1.
        sizes = [np.bincount(own + 1, self._weight, len(self.fits) + 1) for own in labels]
        counts = np.stack(sizes).astype(np.float64)
        mixtures = [fitted.mixture for fitted in self.fits]
        return ClusterPath(
            n_clusters=np.arange(1, len(self.fits) + 1),
            likelihood=np.array([fitted.likelihood - self._log_unit for fitted in self.fits]),
            bic=self._criteria([fitted.likelihood for fitted in self.fits]),
            icl=self._criteria([fitted.classified for fitted in self.fits]),
            criterion=self.criterion,
            stability=self._stability(random_state),
            sizes=counts[:, 1:],
            labels=labels,
            rows=self._numbers,
            covariance_types=[mixture.kind for mixture in mixtures],
            degrees_of_freedom=np.array([mixture.degrees for mixture in mixtures]),
            converged=np.array([fitted.converged for fitted in self.fits]),
            background_weights=np.array([mixture.background for mixture in mixtures]),
            background_sizes=counts[:, 0],
            best=self.best,
            n_components=self._n_components,
            distances=self.distances,
        )


def _clusters(mixture: StudentMixture, rows: ScaledRows) -> int:
    """How many components are the most likely one of some row."""
    labels = label(mixture, rows)
    return len(np.unique(labels[labels >= 0]))


def relaxed(mixture: StudentMixture, rows: ScaledRows) -> float:
    """The mean log density of the rows after one iteration with scatters that are shrunk less."""
    one = mixture[None]
    after = maximization(one, rows.expectation(one), PRIOR_SHARE)
    return float(rows.expectation(after).likelihood[0]) / rows.total


def _fits(search: MixtureSearch, most: int) -> list[Fitted]:
    """The best mixtures of 1, 2, 3 ... ``most`` components.

    A search from labels may miss a cluster that the search for one component more finds. Therefore
    each mixture is compared with those in which two components of the next one are joined.
    """
    fits = [search.best(k) for k in range(1, most + 1)]
    for i in range(most - 2, 0, -1):
        joined = [fits[i], *search.from_more(fits[i + 1])]
        best = max(joined, key=lambda fitted: fitted.criterion)
        if best.criterion > fits[i].criterion + JOIN_GAIN:
            fits[i] = best
    return fits


def _sample(
    problem: Problem, random_state: np.random.RandomState
) -> tuple[ArrayRows, NDArray[np.intp] | None]:
    """The rows of the search in memory, and their numbers, or None if they are all rows."""
    rows: RowsAtHand = problem.survey.sample
    numbers = problem.survey.numbers
    most = int(np.clip(OPERATIONS / rows.n_features**2, LEAST_ROWS, SEARCH_ROWS))
    if rows.n_rows <= most:
        return rows.on_host(), numbers
    s = rows.sample_weight
    weighted = np.arange(rows.n_rows) if s is None else np.flatnonzero(s)
    chosen = np.sort(random_state.permutation(weighted)[:most])
    return rows.subset(chosen).on_host(), chosen if numbers is None else numbers[chosen]


def n_init_of_path(n_init: int | str) -> int:
    """The number of restarts that the parameter of an estimator means for the search."""
    return N_INIT if isinstance(n_init, str) else n_init
