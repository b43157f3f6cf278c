"""alpha_path: one data set clustered at every alpha of a grid, with a score of each result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_array

from ekmfast._arguments import shown
from ekmfast._parameters import check_parameters, check_seed
from ekmfast.estimators.base import check_weight, readable
from ekmfast.estimators.fullbatch import FullBatchEstimator
from ekmfast.fit.alpha import MULTIPLES, resolve_alpha
from ekmfast.fit.directions import n_directions
from ekmfast.fit.problem import Problem
from ekmfast.fit.progress import Progress
from ekmfast.fit.search import (
    AlphaPath,
    Candidates,
    compare_alphas,
    compare_runs,
    path_of,
    with_target_sizes,
)
from ekmfast.fit.seeding import resolve_n_init
from ekmfast.fit.wide import Reduced, as_wide, given_for_array
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.columns import check_kind
from ekmfast.rows.given import rows_of
from ekmfast.rows.threads import one_blas_thread
from ekmfast.rows.unit import ZERO_LABEL, ZeroOrUnit

Float64 = NDArray[np.float64]


def alpha_path(
    X: ArrayLike | Blocks,
    n_clusters: int,
    alphas: ArrayLike | None = None,
    *,
    target_sizes: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    metric: str = "euclidean",
    zero_rows: str = "error",
    missing: str = "error",
    init: Any = "auto",
    n_init: int | str = "auto",
    max_iter: int = 300,
    tol: float = 1e-4,
    random_state: int | np.random.RandomState | None = None,
    device: str = "cpu",
    n_threads: int | None = None,
    verbose: int = 0,
) -> AlphaPath:
    """Cluster at every alpha of a grid, all alphas and restarts in shared passes over X.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (N, D), array on a GPU, Blocks or Dask collection
        float32 and float64 are kept; other dtypes become float64. For Blocks, Dask collections and
        memory maps of 1 GiB or more, ``labels`` and likelihoods are those of a sample.
    n_clusters : int
    alphas : array-like of shape (A,), default=None
        Positive numbers. None: 1/2 to 32 times the alpha of the rule ``'dvariance'``, each sqrt(2)
        times the last one up to 8, and twice the last one from there. For sparse rows with more
        than 500 features, also in an array, it is the alpha of the rows in their leading
        directions (see Notes).
    target_sizes : array-like of shape (K,), default=None
        Wanted proportions of the sizes of the clusters, in any order, such as (2, 1, 1). ``best``
        is then the alpha whose sizes are nearest to them; ``size_errors`` says how near they are.
    sample_weight : array-like of shape (N,), default=None
    metric, zero_rows, missing, init, n_init, max_iter, tol, random_state, device, n_threads, \
verbose
        As in :class:`EKMeans`. All alphas have the same starts.

    Returns
    -------
    path : AlphaPath

    Raises
    ------
    ValueError, TypeError
        For parameters or data that are not as described.

    See Also
    --------
    ekmfast.plotting.plot_alpha_path : plots the path.

    Notes
    -----
    The objective is J of arXiv 2402.14490 (see :mod:`ekmfast.kernels`). The likelihood is computed
    from at most 50,000 rows.

    In sparse rows with more than 500 features, such as texts, most of the dispersion is that of
    single words, and at the multiples of its inverse all centroids coincide. All restarts then run
    in the leading directions of the rows (singular vectors), at alphas that correspond to those
    given, and the run that is best there at an alpha is continued in all features. The likelihood
    is that of the rows in these directions.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import alpha_path
    >>> rng = np.random.default_rng(0)
    >>> X = np.vstack([rng.normal(0, 1, (900, 2)), rng.normal(7, 1, (30, 2))])
    >>> path = alpha_path(X, 2, random_state=0)
    >>> sorted(path.sizes[path.best].tolist())
    [30.0, 900.0]
    """
    check_parameters(locals(), FullBatchEstimator._constraints)
    targets = None if target_sizes is None else _check_sizes(target_sizes, n_clusters)
    rows = rows_of(
        X,
        sample_weight,
        check_array=check_array_of_rows,
        check_weight=check_weight,
        device=device,
        work=2.0 * n_clusters * resolve_n_init(n_init, init),
        n_threads=n_threads,
        metric=metric,
        zero_rows=zero_rows,
        missing=missing,
    )
    report = Progress(None, X, rows.dtype, verbose).report
    problem = Problem(rows, n_clusters, tol=tol, max_iter=max_iter, report=report)
    found, dvariance = _compare(problem, alphas, init, n_init, check_seed(random_state))
    path = path_of(problem, found, dvariance)
    if isinstance(problem.survey.sample, ZeroOrUnit):
        path.labels[:, problem.survey.sample.zero] = ZERO_LABEL
    return path if targets is None else with_target_sizes(path, targets)


def _compare(
    problem: Problem,
    alphas: ArrayLike | None,
    init: Any,
    n_init: int | str,
    random_state: np.random.RandomState,
) -> tuple[Candidates, float]:
    """The best run at each alpha, compared, and the alpha of the rule ``'dvariance'``."""
    wide = as_wide(problem)
    if wide is not None:
        with one_blas_thread(n_directions(problem.n_clusters)):
            reduced = Reduced.of(wide)
            if reduced is not None:
                dvariance = reduced.factor * reduced.dvariance(2.0)
                compared = _check_alphas(alphas, dvariance)
                if wide is not problem:
                    init, n_init = given_for_array(problem, init, n_init, random_state)
                runs = reduced.best(init, n_init, random_state, compared)
                return compare_runs(wide, runs, compared, reduced.rows.rows), dvariance
    dvariance = resolve_alpha("dvariance", 2.0, problem.dispersion)
    compared = _check_alphas(alphas, dvariance)
    starts = problem.starts(init, resolve_n_init(n_init, init), random_state)
    with one_blas_thread(problem.rows.n_features):
        return compare_alphas(problem, starts, compared), dvariance


def check_array_of_rows(X: Any) -> NDArray[Any]:
    """X as an array or CSR matrix that the kernels can read."""
    check_kind(X)
    data = check_array(
        X,
        dtype=[np.float64, np.float32],
        order="C",
        input_name="X",
        ensure_all_finite=False,
        accept_sparse="csr",
    )
    return readable(data)


def _check_alphas(alphas: ArrayLike | None, dvariance: float) -> Float64:
    if alphas is None:
        return dvariance * MULTIPLES
    try:
        grid: Float64 = np.sort(np.asarray(alphas, np.float64), axis=None)
        grid = grid[np.diff(grid, prepend=np.nan) != 0]
    except OverflowError:
        raise ValueError(f"alphas must be finite and > 0, got {shown(alphas)}") from None
    except (TypeError, ValueError):
        raise TypeError(f"alphas must be numbers > 0, got {shown(alphas)}") from None
    if np.ndim(alphas) != 1 or not grid.size:
        raise ValueError(f"alphas must have shape (A,), A >= 1, got {np.shape(alphas)}")
    if not (np.isfinite(grid).all() and (grid > 0).all()):
        raise ValueError(f"alphas must be finite and > 0, got {shown(alphas)}")
    return grid


def _check_sizes(target_sizes: ArrayLike, n_clusters: int) -> Float64:
    words = f"target_sizes must be n_clusters={n_clusters} finite numbers > 0"
    try:
        sizes: Float64 = np.asarray(target_sizes, np.float64)
    except OverflowError:
        raise ValueError(f"{words}, got {shown(target_sizes)}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{words}, got {shown(target_sizes)}") from None
    if sizes.shape != (n_clusters,) or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError(f"{words}, got {shown(target_sizes)}")
    proportions: Float64 = sizes / sizes.max()
    return proportions
