"""MiniBatchEKMeans: equilibrium k-means whose centroids move after every batch of rows.

Every variant averages *sums*, never centroids: the ratio A / B of Eq. 39 for the whole data is not
the mean of the batches' ratios, least of all with weights of both signs. A, B and P of each batch
are taken about one reference point and packed side by side in an array (K, D + 2), so that adding,
forgetting and replacing them is plain arithmetic.

`fit` sees every batch again, so it forgets exactly: a batch's new sums replace those of its last
visit. When the centroids no longer move, all the sums were taken at the same centroids, and
A / B = C is the fixed point of the full data, with no noise left and no schedule to choose. Once
an epoch gains little on the one before it the solver takes over: near the end its acceleration
needs fewer passes, and only full passes can promise that the objective falls.

`partial_fit` may see every batch once, so it forgets by decay: after batch t

    sums <- (1 - eta_t) sums + eta_t sums_of_the_batch,    eta_t = t ** -forgetting

which is a Robbins-Monro recursion: for 1/2 < forgetting <= 1 the sums settle at their expectation
at the centroids where they settle, the fixed point of the data that the stream is drawn from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from ekmfast import kernels
from ekmfast._parameters import COUNT, DVARIANCE_OR_NUMBER, POSITIVE, Number, OneOf
from ekmfast.estimators.base import CentroidEstimator
from ekmfast.estimators.ekmeans import EKMeans
from ekmfast.fit.alpha import resolve_alpha
from ekmfast.fit.merging import count_distinct, merge_coincident
from ekmfast.fit.problem import bounds_of
from ekmfast.fit.seeding import initial_centroids, resolve_n_init
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, THETA, Run, solve
from ekmfast.fit.spread import check_spread
from ekmfast.rows.array import CentredStatistics, CpuBackend
from ekmfast.rows.threads import check_n_threads

Float64 = NDArray[np.float64]

# Rows that the restarts are solved on: this many batches, and no fewer than show small clusters.
INIT_BATCHES = 3
LEAST_INIT_ROWS = 4096
# Least number of runs of consecutive rows that a batch of many rows is made of.
RUNS = 1024
# Numbers of X that moments are computed from at a time, in float64.
MOMENT_NUMBERS = 1 << 20
# Batches give way to the solver when an epoch moves more than this share of the one before it.
STALL = 0.5
SHARED_PARAMETERS = (
    "n_clusters",
    "alpha",
    "scale",
    "init",
    "n_init",
    "max_iter",
    "tol",
    "random_state",
    "device",
    "n_threads",
    "verbose",
)


def _pack(sums: CentredStatistics, reference: Float64) -> Float64:
    """The sums of one problem about ``reference``: A in D columns, then B, then P.

    sum w (x - reference) = sum w (x - own) + (own - reference) sum w.
    """
    # A column that underflows in this batch adds nothing to those of the others.
    unscale = np.exp2(np.minimum(sums.exponent[0], 0))
    wx = sums.sum_wx[0] + (sums.reference - reference) * sums.sum_w[0][:, None]
    packed = np.column_stack([wx, sums.sum_w[0], sums.sum_p[0]])
    return np.asarray(packed * unscale[:, None], np.float64)


def _step(packed: Float64, centroids: Float64, reference: Float64, radius: float) -> Float64:
    """The step of each column, no longer than ``radius``.

    (A - B C) / max(B, theta P), the solver's damped step, where B > 0. A centroid that all rows
    repel has B < 0, but then A / B is a mean of those rows and leads back to them: that exact step
    is taken where B <= -theta P. In between, where weights of both signs cancel, the column waits.
    """
    wx, w, p = packed[:, :-2], packed[:, -2:-1], packed[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (wx - w * (centroids - reference)) / np.where(w > 0, np.maximum(w, THETA * p), w)
        step = np.where(((w > 0) | (w <= -THETA * p)) & np.isfinite(step), step, 0.0)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        return step * np.where(length > radius, radius / length, 1.0)


@dataclass
class _Stream:
    """What `partial_fit` remembers of the rows so far."""

    centroids: Float64  # (K, D), not rounded to the dtype of X
    packed: Float64  # (K, D + 2), about the reference
    reference: Float64  # (D,)
    weight: float  # of all rows
    mean: Float64  # (D,)
    scatter: float  # sum_n s_n ||x_n - mean||^2

    @property
    def dispersion(self) -> float:
        return 0.5 * self.scatter / self.weight


class _Batches:
    """The data cut at random into batches that stay the same from epoch to epoch.

    Rows may come sorted, so a batch is drawn from all over; in runs of a few rows where it is
    long enough for that, which keeps the index short and the copies quick.
    """

    def __init__(
        self,
        X: NDArray[Any],
        weight: NDArray[Any] | None,
        batch_size: int,
        n_threads: int,
        random_state: np.random.RandomState,
    ) -> None:
        self.X, self.weight, self.n_threads = X, weight, n_threads
        self.length = max(1, batch_size // RUNS)
        runs = random_state.permutation(len(X) // self.length)
        self.runs = np.array_split(runs, -(-len(X) // batch_size))

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, b: int) -> CpuBackend:
        weight = None if self.weight is None else self._rows(self.weight[:, None], b)[:, 0]
        return CpuBackend(self._rows(self.X, b), weight, self.n_threads)

    def mass(self, b: int) -> float:
        """The weight of a batch."""
        if self.weight is None:
            over = len(self.X) % self.length
            return float(len(self.runs[b]) * self.length + (0 if b else over))
        return float(self._rows(self.weight[:, None], b).sum(dtype=np.float64))

    def _rows(self, values: NDArray[Any], b: int) -> NDArray[Any]:
        whole = len(values) // self.length
        cut = values[: whole * self.length].reshape(whole, -1).take(self.runs[b], axis=0)
        rows = cut.reshape(-1, values.shape[1])
        # The first batch takes the rows that are left over.
        return rows if b else np.concatenate([rows, values[whole * self.length :]])


class MiniBatchEKMeans(CentroidEstimator):
    """Equilibrium k-means in batches: for data that are many, or come as a stream.

    The restarts are solved on a sample (three batches) and the best goes on over all the data,
    moving after every batch, then, near the end, after every pass. ``fit`` converges to a fixed
    point of the full data, as `EKMeans` does and by the same criterion; with ``batch_size >= N``
    it is `EKMeans`. ``partial_fit`` takes one batch at a time and keeps none.

    Parameters
    ----------
    n_clusters : int, default=8
    alpha : 'dvariance' or float, default='dvariance'
        Sharpness of the memberships, > 0, as in `EKMeans`. In ``partial_fit`` ``'dvariance'`` is
        that of all rows so far, so ``alpha_`` settles as data come. ``GridSearchCV`` cannot choose
        it, as ``score`` rises with alpha whatever the clusters: see `alpha_path`.
    scale : float, default=2.0
        Factor of the ``'dvariance'`` rule.
    init : str, array of shape (K, D) or callable, default='auto'
        First centroids, as in `EKMeans`; rules draw from the sample, or from the first batch.
    n_init : int or 'auto', default='auto'
        Restarts, as in `EKMeans`. They run on the sample, or on the first batch, alone.
    batch_size : int, default=4096
        Rows a batch in ``fit``. A cluster that the sample (three batches, at least 4096 rows)
        does not hold can be missed. ``fit`` keeps K * (D + 2) float64 numbers a batch.
    max_iter : int, default=300
        Most passes over the data in ``fit``, and as many again over the sample.
    tol : float, default=1e-4
        ``fit`` ends when a step over all the data, root mean square over the centroids, is at most
        ``tol`` times the root mean square distance of the samples from their mean.
    forgetting : float, default=0.7
        In ``partial_fit`` batch t replaces the share ``t ** -forgetting`` of the sums so far.
        Between 1/2 and 1 the centroids settle; larger averages more, smaller follows data that
        drift, 0 remembers the last batch alone.
    random_state : int, RandomState instance or None, default=None
        Seed; the same seed gives the same bits for any number of threads.
    device : {'cpu'}, default='cpu'
    n_threads : int, default=None
        None: ``OMP_NUM_THREADS``, else all processors, within threadpoolctl's limits.
    verbose : int, default=0
        1 prints a line each epoch.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (K, D), dtype of X
    labels_ : ndarray of shape (N,), int32
        Nearest centroid of each row; after ``partial_fit``, of each row of the last batch.
    objective_ : float
        J of all rows at ``cluster_centers_``; after ``partial_fit``, of the last batch at the
        centroids that it met.
    objective_history_ : ndarray
        By ``fit``: for each epoch the sum of its batches' J at the centroids that they met, then J
        of all rows at every centroids that the solver accepted.
    n_iter_ : int
        Passes over the data; by ``fit``.
    n_steps_ : int
        How often the centroids moved, or could have: once a batch, then once a pass.
    converged_ : bool
        By ``fit``.
    alpha_ : float
    n_clusters_effective_ : int
        Distinct centroids; fewer than ``n_clusters`` when some coincide.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (D,)
        Only where X has string column names.

    Warns
    -----
    ConvergenceWarning
        By ``fit``, when it did not converge or when centroids coincide.

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
        "batch_size": COUNT,
        "forgetting": Number(0, 1),
        "device": OneOf("cpu"),
    }
    n_steps_: int
    _stream_: _Stream

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        alpha: str | float = "dvariance",
        scale: float = 2.0,
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

    def _check_length(self, X: NDArray[Any]) -> None:
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}")

    def fit(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> MiniBatchEKMeans:
        """Find the centroids, from a new start.

        Parameters
        ----------
        X : array-like of shape (N, D)
            float32 and float64 are kept (C-contiguous ones are not copied); others become float64.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice.

        Returns
        -------
        self : MiniBatchEKMeans

        Raises
        ------
        ValueError, TypeError
            A parameter, X or ``sample_weight`` is not what is said above.

        Examples
        --------
        >>> from ekmfast import MiniBatchEKMeans
        >>> X = [[0.0], [1.0], [9.0], [10.0]]
        >>> MiniBatchEKMeans(2, init=[[0.0], [9.0]], batch_size=2).fit(X).labels_
        array([0, 0, 1, 1], dtype=int32)
        """
        self._check_parameters()
        X = self._check_data(X, reset=True)
        weight = self._check_weight(sample_weight, X)
        self._check_length(X)
        backend = CpuBackend(X, weight, check_n_threads(self.n_threads))
        if self.batch_size >= len(X):
            whole = EKMeans(**{name: getattr(self, name) for name in SHARED_PARAMETERS})
            whole.fit(X, sample_weight=weight)
            for name, value in vars(whole).items():
                if name.endswith("_"):
                    setattr(self, name, value)
            self.n_steps_ = self.n_iter_
            centroids = self.cluster_centers_.astype(np.float64)
        else:
            run = self._epochs(X, weight, backend)
            self._keep(run, X.dtype, run.alpha)
            self._label(X)
            self._warn_of_the_fit()
            centroids = run.centroids
        sums = backend.statistics(centroids[None], np.array([self.alpha_]))
        self._stream_ = _Stream(
            centroids, _pack(sums, sums.reference), sums.reference, *_moments(X, weight)
        )
        return self

    def _epochs(self, X: NDArray[Any], weight: NDArray[Any] | None, backend: CpuBackend) -> Run:
        """Batch after batch while that gains, then the solver over all rows."""
        dispersion = backend.dispersion()
        check_spread(dispersion, *backend.box(), X.dtype, weighted=weight is not None)
        alpha = resolve_alpha(self.alpha, self.scale, dispersion)
        radius = float(np.sqrt(2 * dispersion))
        threshold = float(self.tol) * float(np.sqrt(self.n_clusters) * radius)
        random_state = check_random_state(self.random_state)
        alphas = np.array([alpha])

        rows = self._sample_rows(len(X), weight, random_state)
        sample_weight = None if weight is None else weight[rows]
        sample = CpuBackend(X[rows], sample_weight, backend.n_threads)
        centroids = self._best_start(sample, alpha, dispersion, random_state)
        sums = sample.statistics(centroids[None], alphas)
        reference = sums.reference

        batches = _Batches(X, weight, int(self.batch_size), backend.n_threads, random_state)
        # Until its first visit the sample stands in for a batch, by weight.
        sampled = float(len(rows) if weight is None else weight[rows].sum(dtype=np.float64))
        mass = np.array([batches.mass(b) for b in range(len(batches))]) / sampled
        kept = mass[:, None, None] * _pack(sums, reference)
        objectives = np.empty(len(batches))
        history: list[float] = []
        moved_before = np.inf
        for epoch in range(1, int(self.max_iter) + 1):
            before = centroids
            total = kept.sum(axis=0)  # anew each epoch, lest differences' rounding pile up
            for b in random_state.permutation(len(batches)):
                sums = batches[b].statistics(centroids[None], alphas)
                fresh = _pack(sums, reference)
                total += fresh - kept[b]
                kept[b] = fresh
                objectives[b] = sums.objective[0]
                centroids = centroids + _step(total, centroids, reference, radius)
            history.append(float(objectives.sum()))
            moved = float(np.linalg.norm(centroids - before))
            if self.verbose:
                print(f"epoch {epoch}: objective about {history[-1]:.8g}, moved by {moved:.3g}")
            if moved <= threshold or not moved < STALL * moved_before:
                break
            moved_before = moved
        if epoch > 1 and history[-1] > history[-2]:
            centroids = before

        # The last evaluation of the epochs' centroids is the first of the solver.
        run = solve(
            backend,
            centroids[None],
            alpha,
            tol=self.tol,
            radius=radius,
            resolution=OBJECTIVE_RESOLUTION[X.itemsize],
            max_iter=self.max_iter - epoch + 1,
            bounds=bounds_of(X),
        )[0]
        self.n_steps_ = epoch * len(batches) + run.n_iter - 1
        run.n_iter += epoch - 1
        run.history[:0] = history
        return run

    def _sample_rows(
        self, n: int, weight: NDArray[Any] | None, random_state: np.random.RandomState
    ) -> NDArray[np.intp]:
        wanted = INIT_BATCHES * int(self.batch_size), 10 * int(self.n_clusters)  # int8 overflows
        size = max(*wanted, LEAST_INIT_ROWS)
        rows = np.arange(n) if weight is None else np.flatnonzero(weight)
        if len(rows) < self.n_clusters:  # all of these, and some that weigh nothing
            others = np.setdiff1d(np.arange(n), rows)
            size = min(size, n) - len(rows)
            rows = np.concatenate([rows, random_state.choice(others, size, replace=False)])
        elif size < len(rows):
            rows = random_state.choice(rows, size, replace=False)
        return np.sort(rows)

    def _best_start(
        self,
        backend: CpuBackend,
        alpha: float,
        dispersion: float,
        random_state: np.random.RandomState,
    ) -> Float64:
        """Solve every restart on the rows of ``backend`` and return the best centroids.

        A single start is returned as it is: some rows alone could lead it astray.
        """
        starts = initial_centroids(
            backend.X,
            self.n_clusters,
            self.init,  # type: ignore[arg-type]
            resolve_n_init(self.n_init, self.init),
            backend.sample_weight,
            random_state,
            backend.n_threads,
        )
        if len(starts) == 1:
            return starts.reshape(starts.shape[1:])
        runs = solve(
            backend,
            starts,
            alpha,
            tol=self.tol,
            radius=float(np.sqrt(2 * dispersion)),
            resolution=OBJECTIVE_RESOLUTION[backend.X.itemsize],
            max_iter=self.max_iter,
            bounds=bounds_of(backend.X),
            compete=True,
        )
        return min(runs, key=lambda run: run.objective).centroids

    def partial_fit(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> MiniBatchEKMeans:
        """Move the centroids by one batch; the first batch also chooses where they start.

        After ``fit`` it goes on from there. Batches should be drawn alike: shuffle sorted data.

        Parameters
        ----------
        X : array-like of shape (N, D)
            One batch, of any size; the first holds at least ``n_clusters`` rows, better many, as
            its restarts decide which clusters are found.
        y : ignored
        sample_weight : array-like of shape (N,), default=None
            Non-negative; 2 counts a row twice.

        Returns
        -------
        self : MiniBatchEKMeans

        Raises
        ------
        ValueError, TypeError
            A parameter, X or ``sample_weight`` is not what is said above. The estimator is then
            as it was before the call.

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
        first = not hasattr(self, "_stream_")
        X = self._check_data(X, reset=first)
        weight = self._check_weight(sample_weight, X)
        if first:
            self._check_length(X)
        backend = CpuBackend(X, weight, check_n_threads(self.n_threads))

        moments = _moments(X, weight)
        if not first:
            moments = _join(self._stream_, *moments)
        total, mean, scatter = moments
        dispersion = 0.5 * scatter / total if np.isfinite(total) else np.inf
        self._check_spread(dispersion, backend)
        radius = float(np.sqrt(2 * dispersion))
        alpha = resolve_alpha(self.alpha, self.scale, dispersion)
        alphas = np.array([alpha])
        if first:
            random_state = check_random_state(self.random_state)
            centroids = self._best_start(backend, alpha, dispersion, random_state)
            sums = backend.statistics(centroids[None], alphas)
            reference = sums.reference
            packed = _pack(sums, reference)
            # A start too far for any membership comes to where its ratio, which is exact, says.
            dead = (sums.exponent[0] < 0)[:, None]
            step = _step(packed, centroids, reference, radius)
            centroids = np.where(dead, sums.ratio(centroids[None])[0], centroids + step)
            n_steps = 1
        else:
            stream = self._stream_
            reference = stream.reference
            sums = backend.statistics(stream.centroids[None], alphas)
            n_steps = self.n_steps_ + 1
            eta = n_steps**-self.forgetting
            packed = (1 - eta) * stream.packed + eta * _pack(sums, reference)
            centroids = stream.centroids + _step(packed, stream.centroids, reference, radius)
        if not np.isfinite(sums.objective[0]):
            self._check_spread(np.inf, backend)
        centers = centroids.astype(X.dtype)
        labels, _ = kernels.assign(X, centers, n_threads=self.n_threads)

        self._stream_ = _Stream(centroids, packed, reference, total, mean, scatter)
        self.n_steps_ = n_steps
        self.alpha_ = alpha
        self.cluster_centers_ = centers
        self.objective_ = float(sums.objective[0])
        self._merged_ = merge_coincident(centroids, alpha)
        self.n_clusters_effective_ = count_distinct(self._merged_)
        self.labels_ = self._merged_[labels].astype(np.int32)
        return self

    def _check_spread(self, dispersion: float, batch: CpuBackend) -> None:
        """Refuse a batch that overflows, by itself or with the stream so far, or underflows."""
        low, high = batch.box()
        if hasattr(self, "_stream_") and not np.isfinite(dispersion):
            met = self._stream_.centroids
            low, high = np.minimum(low, met.min(axis=0)), np.maximum(high, met.max(axis=0))
        weighted = batch.sample_weight is not None
        check_spread(dispersion, low, high, batch.X.dtype, weighted=weighted)


def _moments(X: NDArray[Any], weight: NDArray[Any] | None) -> tuple[float, Float64, float]:
    """Total weight, mean and scatter of the rows, in float64, some rows at a time."""
    step = max(1, MOMENT_NUMBERS // X.shape[1])
    parts = [slice(start, start + step) for start in range(0, len(X), step)]
    mean, scatter = np.zeros(X.shape[1]), 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(len(X) if weight is None else weight.sum(dtype=np.float64))
        for part in parts:
            rows = X[part].astype(np.float64, copy=False)
            mean += (rows if weight is None else rows * weight[part, None]).sum(axis=0)
        mean /= total
        for part in parts:
            squares = np.square(X[part] - mean).sum(axis=1)
            scatter += float(squares.sum() if weight is None else squares @ weight[part])
    return total, mean, scatter


def _join(
    old: _Stream, weight: float, mean: Float64, scatter: float
) -> tuple[float, Float64, float]:
    """Moments of two sets of rows from those of each (Chan, Golub, LeVeque 1979)."""
    total = old.weight + weight
    apart = mean - old.mean
    with np.errstate(over="ignore"):
        between = float(apart @ apart) * old.weight * weight / total
    return total, old.mean + apart * (weight / total), old.scatter + scatter + between
