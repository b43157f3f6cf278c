"""cluster_path: mixtures of 1, 2, 3 ... components of one data set, and a score of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ekmfast._parameters import (
    BOOLEAN,
    COUNT,
    N_THREADS,
    SEED,
    VERBOSE,
    Constraint,
    Number,
    check_parameters,
    check_seed,
)
from ekmfast.estimators.alpha_path import check_array_of_rows
from ekmfast.estimators.base import check_weight
from ekmfast.estimators.mixture import COVARIANCE_TYPE, DEGREES_OF_FREEDOM, report_mixture
from ekmfast.fit.cluster_path import MAX_CLUSTERS, ClusterPath, NumberSearch, n_init_of_path
from ekmfast.fit.problem import Problem
from ekmfast.fit.seeding import N_INIT
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.given import rows_of
from ekmfast.rows.threads import check_n_threads, one_blas_thread

CONSTRAINTS: dict[str, Constraint] = {
    "max_clusters": COUNT,
    "covariance_type": COVARIANCE_TYPE,
    "degrees_of_freedom": DEGREES_OF_FREEDOM,
    "background": BOOLEAN,
    "n_init": N_INIT,
    "max_iter": COUNT,
    "tol": Number(0),
    "random_state": SEED,
    "n_threads": N_THREADS,
    "verbose": VERBOSE,
}


def cluster_path(
    X: ArrayLike | Blocks,
    max_clusters: int = MAX_CLUSTERS,
    *,
    covariance_type: str = "auto",
    degrees_of_freedom: str | float = "auto",
    background: bool = False,
    sample_weight: ArrayLike | None = None,
    n_init: int | str = "auto",
    max_iter: int = 100,
    tol: float = 1e-4,
    random_state: int | np.random.RandomState | None = None,
    n_threads: int | None = None,
    verbose: int = 0,
) -> ClusterPath:
    """Describe rows by mixtures of 1, 2, 3 ... components, to choose the number of clusters.

    The mixtures are those of :class:`EquilibriumMixture`, searched for in a sample of the rows with
    fewer runs that go on to their end. Each has a shape for each cluster, so a long cluster is not
    counted as several.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (N, D), array on a GPU, Blocks or Dask collection
        Rows with more than 500 features, sparse ones or those of an array with at most a tenth of
        numbers that are not zero, are searched in their 20 leading directions (singular vectors).
    max_clusters : int, default=15
        The largest number to try. Numbers above the square root of the number of sampled rows, or
        above the number of different rows, are not tried.
    covariance_type, degrees_of_freedom, max_iter, tol
        As in :class:`EquilibriumMixture`. With more than 100 features, and for
        sparse rows, ``'auto'`` means ``'diag'``. If features are strongly correlated, it means
        ``'full'`` (``'diag'`` with more than 100 principal components) and 4 degrees of freedom.
    background : bool, default=False
        Whether each mixture has one more component, for rows that belong to no cluster, as in
        :class:`EquilibriumMixture`. It is not counted by ``n_clusters``, and its rows have the
        label -1.
    sample_weight : array-like of shape (N,), default=None
        2 counts a row twice: criteria and the largest number depend on the sum of the weights.
    n_init : int or 'auto', default='auto'
        The number of restarts of equilibrium k-means at each of six alphas; ``'auto'`` means 4. If
        features are strongly correlated, there are twice as many at each of four alphas.
    random_state, n_threads
        As in :class:`EKMeans`.
    verbose : int, default=0
        1 prints a line for each run.

    Returns
    -------
    path : ClusterPath

    Raises
    ------
    ValueError, TypeError
        For parameters or data that are not as described.

    See Also
    --------
    ekmfast.plotting.plot_cluster_path : plots the path.

    Notes
    -----
    ``best`` is the number with the lowest ``criterion``, a Bayesian information criterion with a
    smaller penalty. If features are strongly correlated, it is ICL, and clusters that stand apart
    are preferred (``distances``); the mixtures then begin from the clusters of :class:`EKMeans`
    alone. Where no clusters stand apart, no criterion can find their number: look at ``stability``.

    References
    ----------
    C. Biernacki, G. Celeux and G. Govaert, "Assessing a mixture model for clustering with the
    integrated completed likelihood", IEEE Transactions on Pattern Analysis and Machine Intelligence
    22, 719 (2000).

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import cluster_path
    >>> rng = np.random.default_rng(0)
    >>> long = rng.normal(size=(900, 2)) * [5, 0.5]
    >>> X = np.vstack([long, rng.normal(size=(60, 2)) * 0.5 + [0, 5]])
    >>> path = cluster_path(X, random_state=0)
    >>> int(path.n_clusters[path.best])
    2
    """
    check_parameters(locals(), CONSTRAINTS)
    rows = rows_of(
        X,
        sample_weight,
        check_array=check_array_of_rows,
        check_weight=check_weight,
        n_threads=n_threads,
    )
    seed = check_seed(random_state)
    with one_blas_thread(rows.n_features):
        search = NumberSearch(
            Problem(rows, 1, tol=1e-4, max_iter=300),
            COUNT.check("max_clusters", max_clusters),
            seed,
            n_threads=check_n_threads(n_threads),
            covariance_type=covariance_type,
            degrees_of_freedom=degrees_of_freedom,
            background=background,
            n_init=n_init_of_path(n_init),
            max_iter=max_iter,
            tol=tol,
            report=report_mixture if verbose else None,
        )
        return search.path(seed)
