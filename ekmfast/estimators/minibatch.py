"""MiniBatchEKMeans: equilibrium k-means whose centroids move after every batch of rows.

`fit` reads every batch in each epoch: see `fit.incremental`. When the steps hardly shrink from one
epoch to the next, the solver continues: near the end its acceleration needs fewer passes, and only
with full passes is it certain that the objective falls.

`partial_fit` may see every batch only once, so old batches are forgotten gradually. After batch t

    sums <- (1 - eta_t) sums + eta_t sums_of_the_batch,    eta_t = t ** -forgetting

This is a Robbins-Monro recursion: for 1/2 < forgetting <= 1 the sums converge to their expectation,
and the centroids to a fixed point for the distribution from which the batches are drawn.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from ekmfast._parameters import COUNT, DVARIANCE_OR_NUMBER, MISSING, POSITIVE, Number
from ekmfast.estimators.base import CentroidEstimator
from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.incremental import LastSums, epochs, for_each_feature, moved, on_sphere, pack
from ekmfast.fit.merging import count_distinct, merge_coincident
from ekmfast.fit.problem import Problem
from ekmfast.fit.progress import Progress, with_callbacks
from ekmfast.fit.solver import Run
from ekmfast.fit.spread import check_spread
from ekmfast.rows.blocks import Blocks
from ekmfast.rows.partial import PartialRows
from ekmfast.rows.protocol import Rows
from ekmfast.rows.survey import Survey
from ekmfast.rows.unit import ZERO_LABEL, ZeroOrUnit

Float64 = NDArray[np.float64]

# The restarts are solved on a sample of so many batches, but of at least so many rows that small
# clusters are among them.
INIT_BATCHES = 3
LEAST_INIT_ROWS = 4096


class _Moments(NamedTuple):
    """The weight of some rows, their mean, and their scatter around the mean."""

    weight: float
    mean: Float64  # (D,)
    scatter: float  # sum_n s_n ||x_n - mean||^2
    mass: Float64 | None = None  # (D,), that of `Survey`, if numbers are missing

    @classmethod
    def of(cls, survey: Survey) -> _Moments:
        weight = survey.total_weight
        return cls(weight, survey.mean, 2 * survey.dispersion * weight, survey.mass)

    def joined(self, other: _Moments) -> _Moments:
        """The moments of both sets of rows together, by Chan, Golub, LeVeque (1979)."""
        weight = self.weight + other.weight
        apart = other.mean - self.mean
        if self.mass is None and other.mass is None:
            mass = None
            with np.errstate(over="ignore"):
                between = float(apart @ apart) * self.weight * other.weight / weight
            mean = self.mean + apart * (other.weight / weight)
        else:
            own, new = self._mass_of_each(), other._mass_of_each()
            mass = own + new
            share = new / np.maximum(mass, np.finfo(np.float64).tiny)
            with np.errstate(over="ignore"):
                between = float((own * share) @ np.square(apart))
            mean = self.mean + apart * share
        return _Moments(weight, mean, self.scatter + other.scatter + between, mass)

    def _mass_of_each(self) -> Float64:
        return np.full_like(self.mean, self.weight) if self.mass is None else self.mass

    @property
    def dispersion(self) -> float:
        return 0.5 * self.scatter / self.weight if np.isfinite(self.weight) else np.inf


@dataclass
class _Stream:
    """What `partial_fit` remembers of the rows so far."""

    centroids: Float64  # (K, D), not rounded to the dtype of X
    packed: Float64  # the sums as `fit.incremental.pack` returns them
    reference: Float64  # (D,), which was subtracted from the rows of these sums
    weight: float  # the `_Moments` of all rows so far: weight, mean and scatter
    mean: Float64  # (D,)
    scatter: float
    mass: Float64 | None = None  # (D,), if numbers were missing

    @classmethod
    def of(cls, problem: Problem, run: Run, last: LastSums) -> _Stream:
        """The state at the end of a fit, from which `partial_fit` continues."""
        sums = last.at(run.centroids, run.alpha)
        moments = _Moments.of(problem.survey)
        return cls(run.centroids, pack(sums, sums.reference), sums.reference, *moments)

    @property
    def moments(self) -> _Moments:
        return _Moments(self.weight, self.mean, self.scatter, self.mass)


class MiniBatchEKMeans(CentroidEstimator):
    """Equilibrium k-means in batches, for large data and for data that arrive as a stream.

    The restarts are solved on a sample of three batches, and the best one continues on all data.
    Its centroids move after every batch, and near the end after every pass. ``fit`` converges to a
    fixed point of all data, as `EKMeans` does and by the same criterion; with ``batch_size >= N``
    the two are the same. ``partial_fit`` takes one batch at a time and does not store it.

    Parameters
    ----------
    n_clusters : int, default=8
    alpha : 'dvariance' or float, default='dvariance'
        Sharpness of the memberships, > 0, as in `EKMeans`. In ``partial_fit``, ``'dvariance'``
        depends on all rows so far, so that ``alpha_`` changes less and less. ``GridSearchCV``
        cannot choose alpha, since ``score`` rises with it, however good the clusters are: see
        `alpha_path`.
    scale : float, default=2.0
        Factor of the ``'dvariance'`` rule.
    metric : {'euclidean', 'cosine'}, default='euclidean'
        As in `EKMeans`.
    zero_rows : {'error', 'label'}, default='error'
    missing : {'error', 'partial'}, default='error'
        As in `EKMeans`.
    init : str, array of shape (K, D) or callable, default='auto'
        First centroids, as in `EKMeans`; they are chosen from the sample, or in ``partial_fit``
        from the first batch.
    n_init : int or 'auto', default='auto'
        Restarts, as in `EKMeans`, which run on the sample, or in ``partial_fit`` on the first
        batch, only.
    batch_size : int, default=4096
        Rows of a batch in ``fit``. A cluster without rows in the sample (three batches, at least
        4096 rows) may be missed. ``fit`` stores K * (D + 2) float64 numbers for each batch.
    max_iter : int, default=300
        Largest number of passes over the data in ``fit``, and of passes over the sample.
    tol : float, default=1e-4
        ``fit`` ends when the step of a pass, as root mean square over the centroids, is at most
        ``tol`` times the root mean square distance of the samples from their mean.
    forgetting : float, default=0.7
        In ``partial_fit``, batch t replaces the share ``t ** -forgetting`` of the sums so far.
        With values above 1/2 the centroids converge. Larger values average over more batches,
        smaller values follow data that drift, and with 0 only the last batch counts.
    random_state : int, RandomState instance or None, default=None
        Seed; the same seed gives the same bits for any number of threads.
    device : {'cpu', 'cuda', 'auto'}, default='cpu'
        As in `EKMeans`.
    n_threads : int, default=None
        None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's limits.
    verbose : int, default=0
        1 prints a line for each epoch and each pass.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (K, D), dtype of X
    labels_ : ndarray of shape (N,), int32
        Nearest centroid of each row; after ``partial_fit``, of each row of the last batch.
    objective_ : float
        J of all rows at ``cluster_centers_``; after ``partial_fit``, J of the last batch at the
        centroids before its step.
    objective_history_ : ndarray
        Set by ``fit``. For each epoch the sum of J of its batches, each at the centroids before its
        step; then J of all rows after each step that the solver accepted.
    n_iter_ : int
        Set by ``fit``: the number of passes over the data.
    n_steps_ : int
        Number of steps of the centroids: one for each batch, then one for each pass.
    converged_ : bool
        Set by ``fit``.
    alpha_ : float
    n_clusters_effective_ : int
        Distinct centroids; fewer than ``n_clusters`` when some coincide.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (D,)
        Only where X has string column names.

    Warns
    -----
    ConvergenceWarning
        From ``fit``, if it did not converge or if centroids coincide.

    References
    ----------
    Y. He, "Imbalanced Data Clustering using Equilibrium K-Means", arXiv 2402.14490, Eqs. 38, 39.
    R. Neal, G. Hinton, "A view of the EM algorithm that justifies incremental, sparse, and other
    variants", Learning in Graphical Models, 1998: sums replaced batch by batch.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import MiniBatchEKMeans
    >>> g = np.random.default_rng(0)
    >>> X = np.vstack([g.normal(0, 1, (9500, 2)), g.normal(6, 1, (500, 2))])
    >>> model = MiniBatchEKMeans(2, batch_size=1000, random_state=0).fit(X)
    >>> sorted(np.bincount(model.labels_).tolist())
    [500, 9500]
    >>> stream = MiniBatchEKMeans(2, random_state=0)
    >>> for batch in np.split(g.permutation(X), 10):
    ...     stream = stream.partial_fit(batch)
    >>> sorted(np.bincount(stream.predict(X)).tolist())
    [500, 9500]
    """

    _constraints = CentroidEstimator._constraints | {
        "alpha": DVARIANCE_OR_NUMBER,
        "scale": POSITIVE,
        "missing": MISSING,
        "batch_size": COUNT,
        "forgetting": Number(0, 1),
    }
    n_steps_: int
    _stream_: _Stream

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        alpha: str | float = "dvariance",
        scale: float = 2.0,
        metric: str = "euclidean",
        zero_rows: str = "error",
        missing: str = "error",
        init: str | ArrayLike | Callable[..., Any] = "auto",
        n_init: int | str = "auto",
        batch_size: int = 4096,
        max_iter: int = 300,
        tol: float = 1e-4,
        forgetting: float = 0.7,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        n_threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.alpha = alpha
        self.scale = scale
        self.metric = metric
        self.zero_rows = zero_rows
        self.missing = missing
        self.init = init
        self.n_init = n_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.forgetting = forgetting
        self.random_state = random_state
        self.device = device
        self.n_threads = n_threads
        self.verbose = verbose

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: ArrayLike | Blocks,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 10,
    ) -> MiniBatchEKMeans:
        """Find the centroids from new starts.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), array on a GPU, Blocks or Dask collection
            float32 and float64 are kept (C-contiguous arrays are not copied); other dtypes become
            float64. For Blocks, Dask collections and memory maps of 1 GiB or more, each block is a
            batch, in order, unless ``batch_size`` is at least the number of all rows, and
            ``labels_`` is not set.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice. Must be None for Blocks, which contain weights.
        checkpoint : path, default=None
        checkpoint_every : int, default=10
            As in `EKMeans`. The file holds the passes of the solver; the epochs before them are
            computed again, with the same result. Therefore ``max_iter`` may be raised only if the
            epochs did not reach it.

        Returns
        -------
        self : MiniBatchEKMeans

        Raises
        ------
        ValueError, TypeError
            If a parameter, X or ``sample_weight`` is not as described.

        Examples
        --------
        >>> from ekmfast import MiniBatchEKMeans
        >>> X = [[0.0], [1.0], [9.0], [10.0]]
        >>> MiniBatchEKMeans(2, init=[[0.0], [9.0]], batch_size=2).fit(X).labels_
        array([0, 0, 1, 1], dtype=int32)
        """
        self._check_parameters()
        problem, progress = self._problem(X, sample_weight, checkpoint, checkpoint_every)
        problem.sums = last = LastSums(problem.rows)
        alpha = resolve_alpha(self.alpha, self.scale, problem.dispersion)
        random_state = check_random_state(self.random_state)
        if self.batch_size >= problem.survey.n_rows:
            (run,) = problem.best(self._starts(problem, random_state), np.array([alpha]))
            self.n_steps_ = run.n_iter
        else:
            run = self._by_batches(problem, progress, alpha, random_state)
        self._stream_ = _Stream.of(problem, run, last)
        self._end(problem, progress, run, alpha)
        return self

    def _by_batches(
        self,
        problem: Problem,
        progress: Progress,
        alpha: float,
        random_state: np.random.RandomState,
    ) -> Run:
        """Epochs of batches as long as they make progress, then the solver on all rows."""
        sample = problem.survey.sample
        sample = sample.subset(self._sample_rows(sample.n_rows, sample.sample_weight, random_state))
        centroids = self._best_start(problem.of(sample), alpha, problem.radius, random_state)
        sums = sample.statistics(centroids[None], np.array([alpha]))
        batches = problem.rows.batches(int(self.batch_size), random_state)
        weight = sample.sample_weight
        sampled = float(sample.n_rows if weight is None else weight.sum(dtype=np.float64))
        begun = epochs(
            batches,
            centroids,
            alpha,
            sums,
            sampled,
            random_state,
            most=int(self.max_iter),
            threshold=float(self.tol) * float(np.sqrt(self.n_clusters) * problem.radius),
            radius=problem.radius,
            space=problem.rows.space,
            report=partial(progress.epoch, alpha=alpha),
        )
        n_epochs = len(begun.history)
        # The solver first evaluates the centroids of the last epoch, which is not a further step.
        (run,) = problem.solve(
            begun.centroids[None], alpha, max_iter=int(self.max_iter) - n_epochs + 1
        )
        self.n_steps_ = n_epochs * len(batches.masses) + run.n_iter - 1
        run.n_iter += n_epochs - 1
        run.history[:0] = begun.history
        return run

    def _sample_rows(
        self, n: int, weight: NDArray[Any] | None, random_state: np.random.RandomState
    ) -> NDArray[np.intp]:
        wanted = INIT_BATCHES * int(self.batch_size), 10 * int(self.n_clusters)  # int8 overflows
        size = max(*wanted, LEAST_INIT_ROWS)
        rows = np.arange(n) if weight is None else np.flatnonzero(weight)
        if len(rows) < self.n_clusters:  # all rows with weight, and some without
            others = np.flatnonzero(weight == 0)
            size = min(size, n) - len(rows)
            rows = np.concatenate([rows, random_state.choice(others, size, replace=False)])
        elif size < len(rows):
            rows = random_state.choice(rows, size, replace=False)
        return np.sort(rows)

    def _best_start(
        self,
        problem: Problem,
        alpha: float,
        radius: float,
        random_state: np.random.RandomState,
    ) -> Float64:
        """Solve every restart on the rows of ``problem`` and return the best centroids.

        ``radius``, that of all rows, determines when a run has converged. A single start is
        returned unchanged, since a fit to the sample alone might make it worse.
        """
        starts = self._starts(problem, random_state)
        if len(starts) == 1:
            return on_sphere(starts[0]) if problem.rows.space == "unit" else starts[0]
        runs = problem.solve(starts, alpha, radius=radius)
        return runs.best.centroids

    def partial_fit(
        self, X: ArrayLike | Blocks, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> MiniBatchEKMeans:
        """Move the centroids by one step for one batch; the first batch also gives the starts.

        After ``fit`` it continues from the result of the fit. All batches should have the same
        distribution: shuffle sorted data. With ``zero_rows="label"`` a later batch of zeros alone
        is no step: it only sets ``labels_``.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (N, D), array on a GPU, Blocks or Dask collection
            One batch of any size, which is held in memory. The first batch has at least
            ``n_clusters`` rows; it should have many, since the restarts on it decide which clusters
            are found.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice.

        Returns
        -------
        self : MiniBatchEKMeans

        Raises
        ------
        ValueError, TypeError
            If a parameter, X or ``sample_weight`` is not as described. The estimator is then
            unchanged.

        Examples
        --------
        >>> import numpy as np
        >>> from ekmfast import MiniBatchEKMeans
        >>> g = np.random.default_rng(0)
        >>> model = MiniBatchEKMeans(2, init=[[0.0], [1.0]])
        >>> for _ in range(20):
        ...     batch = np.concatenate([g.normal(0, 0.1, 90), g.normal(1, 0.1, 10)])[:, None]
        ...     model = model.partial_fit(batch)
        >>> model.n_steps_
        20
        >>> bool(np.abs(model.cluster_centers_ - [[0], [1]]).max() < 0.05)
        True
        """
        self._check_parameters()
        before = dict(vars(self))
        try:
            self._move(X, sample_weight)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _move(self, X: Any, sample_weight: Any) -> None:
        """One step for the batch X."""
        first = not hasattr(self, "_stream_")
        rows = self._rows(X, sample_weight, fit=first, device=self.device)
        if not rows.at_hand:
            rows = rows.on_host()  # one batch fits into memory
        if isinstance(rows, PartialRows) and not first:
            rows = rows.among(self._stream_.mean)
        if isinstance(rows, ZeroOrUnit) and not first and rows.zero.all():
            self.labels_ = np.full(rows.n_rows, ZERO_LABEL, np.int32)
            return
        survey = rows.survey()
        batch = _Moments.of(survey)
        if first:
            problem = Problem(
                rows, self.n_clusters, tol=self.tol, max_iter=self.max_iter, survey=survey
            )
            moments = batch
        else:
            moments = self._stream_.moments.joined(batch)
            self._check_spread(moments.dispersion, rows, survey)
        dispersion = moments.dispersion
        radius = float(np.sqrt(2 * dispersion))
        alpha = resolve_alpha(self.alpha, self.scale, dispersion)
        alphas = np.array([alpha])
        if first:
            random_state = check_random_state(self.random_state)
            centroids = self._best_start(problem, alpha, radius, random_state)
            sums = rows.statistics(centroids[None], alphas)
            reference = sums.reference
            packed = pack(sums, reference)
            # A centroid so far away that its memberships underflow moves to its exact ratio.
            dead = (sums.exponent[0] < 0)[:, None]
            there = moved(packed, centroids, reference, radius, rows.space)
            centroids = np.where(dead, sums.ratio(centroids[None])[0], there)
            centroids = on_sphere(centroids) if rows.space == "unit" else centroids
            n_steps = 1
        else:
            stream = self._stream_
            reference = stream.reference
            sums = rows.statistics(stream.centroids[None], alphas)
            n_steps = self.n_steps_ + 1
            eta = n_steps**-self.forgetting
            before, new = stream.packed, pack(sums, reference)
            if before.shape != new.shape:  # numbers are missing in some batches only
                before, new = (for_each_feature(one, rows.n_features) for one in (before, new))
            packed = (1 - eta) * before + eta * new
            centroids = moved(packed, stream.centroids, reference, radius, rows.space)
        if not np.isfinite(sums.objective[0]):
            self._check_spread(np.inf, rows, survey)
        centres = centroids.astype(rows.dtype)
        merged = merge_coincident(centroids, alpha)
        labels = rows.label(centres.astype(np.float64), merged)

        self._stream_ = _Stream(centroids, packed, reference, *moments)
        self.n_steps_ = n_steps
        self.alpha_ = alpha
        self.cluster_centers_ = centres
        self.objective_ = float(sums.objective[0])
        self._merged_ = merged
        self.n_clusters_effective_ = count_distinct(merged)
        self.labels_ = labels

    def _check_spread(self, dispersion: float, rows: Rows, batch: Survey) -> None:
        """Raise an error if the batch overflows, alone or with the rows so far, or underflows."""
        low, high = batch.low, batch.high
        if hasattr(self, "_stream_") and not np.isfinite(dispersion):
            centres = self._stream_.centroids
            low = np.minimum(low, centres.min(axis=0))
            high = np.maximum(high, centres.max(axis=0))
        check_spread(dispersion, low, high, rows.dtype, weighted=rows.weighted)
