"""EKMeans on dask arrays and dataframes: more data than one machine holds.

Each pass of a fit is one graph: a task for each block computes that block's statistics where the
block is, and one tree adds them. Everything else, the seeds and the choice of alpha included, is
done where ``fit`` is called, from a sample of the rows.

>>> import dask.array as da
>>> import numpy as np
>>> from ekmfast.dask import EKMeans
>>> rng = np.random.default_rng(0)
>>> X = np.vstack([rng.normal(0, 1, (2000, 2)), rng.normal(7, 1, (40, 2))])
>>> model = EKMeans(2, random_state=0).fit(da.from_array(X, chunks=(500, 2)))
>>> sorted(np.bincount(model.predict(X)).tolist())
[40, 2000]
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ekmfast.estimators.ekmeans import EKMeans as LocalEKMeans
from ekmfast.rows.blocks import Block, checked
from ekmfast.rows.frames import matrix, numbers
from ekmfast.rows.source import Source
from ekmfast.rows.threads import check_n_threads
from ekmfast.rows.tree import Summable, tree_sum

try:
    import dask
    import dask.array as da
    from dask._task_spec import DataNode, Task, TaskRef
    from dask.delayed import Delayed
except ImportError:
    raise ImportError('ekmfast.dask needs dask: pip install "ekmfast[dask]"') from None

__all__ = ["EKMeans"]

S = TypeVar("S", bound=Summable)
R = TypeVar("R")

# Parts that one task of the tree adds. A power of 2, so that the order of the sum is tree_sum's.
ARITY = 16
# Up to which a graph holds a pass's function for each of its blocks.
INLINE_BYTES = 1 << 20
# How often a task that fails is tried again: reading may fail for a moment. (A task whose worker
# dies is always done again elsewhere, as long as the scheduler's `allowed-failures` permits.)
RETRIES = 2


class EKMeans(LocalEKMeans):
    """EKMeans that also takes dask arrays and dataframes.

    Parameters, attributes and defaults are those of :class:`ekmfast.EKMeans`, and so is the result:
    equal to rounding to that of the same rows in memory, given the same ``init`` and ``alpha``; the
    same bits as those of :func:`ekmfast.blocks.from_arrays` with the same chunks. It depends on the
    chunks, not on the workers. Arrays that are not dask's are treated as by ``ekmfast.EKMeans``.

    Where a distributed client is active its cluster computes; else dask's own threads do.

    - ``X`` is read once a pass: ``X.persist()`` it where the cluster's memory suffices. Else its
      blocks should come from files, not from an array of the client's, which would be sent anew
      each pass. A hundred passes are usual, chunks of 16 to 256 MB fitting.
    - A worker that dies costs time: its blocks are loaded again elsewhere. For a client that dies
      there is ``fit(..., checkpoint=path)``.
    - ``n_threads`` is that of each task, 1 by default: the cluster runs one in each slot.
    - ``predict``, ``transform``, ``membership`` and ``weights`` of dask collections are lazy dask
      arrays; ``fit`` keeps no ``labels_`` of them; ``score`` computes.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from ekmfast.dask import EKMeans
    >>> X = da.random.default_rng(0).normal(size=(4000, 3), chunks=(1000, 3))
    >>> EKMeans(2, random_state=0, alpha="dvariance").fit(X).predict(X)
    dask.array<_apply, shape=(4000,), dtype=int32, chunksize=(1000,), chunktype=numpy.ndarray>
    """

    def _source_of(self, X: Any, sample_weight: Any) -> Source | None:
        if not is_dask(X):
            if is_dask(sample_weight):
                raise TypeError("sample_weight is a dask collection, X is none")
            return super()._source_of(X, sample_weight)
        return DaskSource(X, sample_weight, self._task_threads())

    def _task_threads(self) -> int:
        return 1 if self.n_threads is None else check_n_threads(self.n_threads)

    def predict(self, X: Any) -> Any:
        """Index of the nearest centroid; coincident centroids share the first one's.

        Parameters
        ----------
        X : dask array or dataframe of N rows, or array-like of shape (N, D)

        Returns
        -------
        labels : dask array (lazy) or ndarray of shape (N,), int32
        """
        return self._lazily("predict", X, np.dtype(np.int32), columns=False)

    def transform(self, X: Any) -> Any:
        """Euclidean distance of each row to each centroid.

        Parameters
        ----------
        X : dask array or dataframe of N rows, or array-like of shape (N, D)

        Returns
        -------
        distances : dask array (lazy) or ndarray of shape (N, K), dtype of X
        """
        return self._lazily("transform", X, None, columns=True)

    def membership(self, X: Any) -> Any:
        """Boltzmann memberships ``p_kn = softmax_k(-alpha d_kn)``; rows sum to 1.

        Parameters
        ----------
        X : dask array or dataframe of N rows, or array-like of shape (N, D)

        Returns
        -------
        p : dask array (lazy) or ndarray of shape (N, K), dtype of X
        """
        return self._lazily("membership", X, None, columns=True)

    def weights(self, X: Any) -> Any:
        """Weights of Eq. 38; rows sum to 1, and negative entries repel.

        Parameters
        ----------
        X : dask array or dataframe of N rows, or array-like of shape (N, D)

        Returns
        -------
        w : dask array (lazy) or ndarray of shape (N, K), dtype of X
        """
        return self._lazily("weights", X, None, columns=True)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Minus the objective of the rows: higher is better, at one alpha and ``n_clusters``.

        Not a score to choose these by, as for :class:`ekmfast.EKMeans`.

        Parameters
        ----------
        X : dask array or dataframe of N rows, or array-like of shape (N, D)
        y : ignored
        sample_weight : of shape (N,), default=None

        Returns
        -------
        score : float
        """
        if not is_dask(X):
            return super().score(X, y, sample_weight)
        model = self._for_tasks()
        self._check_names(_column_names(X))
        return DaskSource(X, sample_weight, self._task_threads()).sum(model._score_block)

    def _lazily(self, method: str, X: Any, dtype: np.dtype[Any] | None, *, columns: bool) -> Any:
        if not is_dask(X):
            return getattr(super(), method)(X)
        model = self._for_tasks()
        self._check_names(_column_names(X))
        array = _array(X)
        if array.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {array.shape[1]} features, but EKMeans is expecting "
                f"{self.n_features_in_} features as input"
            )
        if dtype is None:
            single = array.dtype == np.float32
            dtype = np.dtype(np.float32 if single else np.float64)
        shape = {"chunks": (array.chunks[0], (self.n_clusters,))} if columns else {"drop_axis": 1}
        empty = np.empty((0, self.n_clusters) if columns else 0, dtype)
        return array.map_blocks(_apply, model, method, dtype=dtype, meta=empty, **shape)

    def to_local(self) -> LocalEKMeans:
        """The fitted model as :class:`ekmfast.EKMeans`, which needs no dask: for ``save``.

        Returns
        -------
        model : ekmfast.EKMeans
        """
        check_is_fitted(self)
        model = LocalEKMeans(**self.get_params(deep=False))
        for name, value in vars(self).items():
            if name.endswith("_"):
                setattr(model, name, value)
        return model

    def _for_tasks(self) -> LocalEKMeans:
        model = self.to_local()
        model.n_threads = self._task_threads()
        for name in ("labels_", "feature_names_in_"):
            model.__dict__.pop(name, None)
        return model


class DaskSource:
    """The blocks of a dask collection, each with a task of its own."""

    def __init__(self, X: Any, sample_weight: Any, n_threads: int) -> None:
        array = _array(X)
        self.name = "the dask dataframe" if hasattr(X, "columns") else "the dask array"
        self.n_threads = n_threads
        self.feature_names = _column_names(X)
        sizes = array.chunks[0]
        self.n_rows = None if np.isnan(sizes).any() else int(sum(sizes))
        # What can be done once for all passes: columns are rechunked, tasks fused.
        (self._X,) = dask.optimize(array)
        self._weight = None
        if sample_weight is not None:
            (self._weight,) = dask.optimize(_weights(sample_weight, sizes))
        self._graph: dict[Any, Any] = {}
        for collection in (self._X, self._weight):
            if collection is not None:
                self._graph.update(collection.__dask_graph__())
        where = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._names = [
            f"block {i} of {self.name}" + ("" if np.isnan(row) else f" (from row {int(row):,} on)")
            for i, row in enumerate(where)
        ]

    def first(self, function: Callable[[Block, int], R]) -> R:
        for i in range(len(self._names)):
            if (result := self._total(function, [i])) is not None:
                return cast(R, result)
        raise ValueError(f"{self.name} has no rows")

    def sum(self, function: Callable[[Block, int], S]) -> S:
        total = self._total(function, range(len(self._names)))
        if total is None:
            raise ValueError(f"{self.name} has no rows")
        return cast(S, total)

    def _total(self, function: Callable[[Block, int], Any], blocks: Sequence[int]) -> Any:
        """The sum of ``function`` over some blocks; None where these have no rows."""
        name = f"ekmfast-{uuid.uuid4().hex}"
        # Tasks as dask keeps them: its delayed() would make them a third slower, and the graph that
        # it took to write by hand, tuples, it does not read everywhere any more.
        graph = self._graph.copy()
        # The function holds the centroids. It goes with each task, or where that would be much,
        # once into the graph. Unlike data scattered to workers neither dies with a worker.
        shared: Any = function
        if len(pickle.dumps(function)) * len(blocks) > INLINE_BYTES:
            shared = TaskRef(f"{name}-function")
            graph[shared.key] = DataNode(shared.key, function)
        keys = [f"{name}-{i}" for i in blocks]
        for key, i in zip(keys, blocks, strict=True):
            X = TaskRef((self._X.name, i, 0))
            weight = None if self._weight is None else TaskRef((self._weight.name, i))
            graph[key] = Task(key, _leaf, shared, i, self._names[i], X, weight)
        while len(keys) > 1:
            groups = [keys[i : i + ARITY] for i in range(0, len(keys), ARITY)]
            keys = [f"{name}-sum-{len(keys)}-{i}" for i in range(len(groups))]
            for key, group in zip(keys, groups, strict=True):
                graph[key] = Task(key, _add, *map(TaskRef, group))
        return _compute(Delayed(keys[0], graph))


class Refusal(NamedTuple):
    """Stands for a block that is not as it should be. An error would be tried again, in vain."""

    error: Exception


def _leaf(
    function: Callable[[Block, int], R], index: int, name: str, X: Any, weight: Any
) -> R | Refusal | None:
    """``function`` of a block; None where that has no rows."""
    try:
        block = checked(X, weight, name)
        return function(block, index) if len(block.X) else None
    except (ValueError, TypeError) as error:
        return Refusal(error)


def _add(*parts: S | Refusal | None) -> S | Refusal | None:
    some: list[Any] = []
    for part in parts:
        if isinstance(part, Refusal):
            return part
        if part is not None:
            some.append(part)
    return tree_sum(some) if some else None


def _apply(X: NDArray[Any], model: LocalEKMeans, method: str) -> NDArray[Any]:
    if len(X):
        return cast(NDArray[Any], getattr(model, method)(X))
    dtype = X.dtype if X.dtype == np.float32 else np.dtype(np.float64)
    return np.empty(0, np.int32) if method == "predict" else np.empty((0, model.n_clusters), dtype)


def is_dask(X: Any) -> bool:
    """Whether X is a collection of dask's."""
    return bool(dask.is_dask_collection(X))


def _array(X: Any) -> Any:
    """X as a dask array of whole rows."""
    if hasattr(X, "to_dask_array"):
        X = _of_numbers(X, "the dask dataframe").to_dask_array()
    if not isinstance(X, da.Array):
        raise TypeError(f"X must be a dask array or dataframe, got {type(X).__name__}")
    if X.ndim != 2:
        raise ValueError(f"X must have shape (rows, features), got {X.shape}")
    return X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X


def _of_numbers(frame: Any, name: str) -> Any:
    """A dataframe or series of numbers as NumPy knows them; errors name the column of others."""
    like = frame._meta  # of the columns and dtypes of its partitions, without rows
    if like.ndim == 2:
        matrix(like, name)
    elif numbers(like).dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, it holds {like.dtype}")
    # Pandas' own dtypes and booleans beside numbers would become objects.
    dtypes = list(like.dtypes) if like.ndim == 2 else [like.dtype]
    plain = all(isinstance(dtype, np.dtype) for dtype in dtypes)
    return frame if plain and np.asarray(like).dtype.kind != "O" else frame.astype(np.float64)


def _weights(sample_weight: Any, sizes: tuple[int, ...]) -> Any:
    """The weights as a dask array, in blocks as the rows are."""
    if hasattr(sample_weight, "to_dask_array"):
        sample_weight = _of_numbers(sample_weight, "sample_weight").to_dask_array()
    known = not np.isnan(sizes).any()
    if not isinstance(sample_weight, da.Array):
        sample_weight = np.asarray(sample_weight)
        if not known:
            raise TypeError("sample_weight must be a dask collection, as X's chunks have no sizes")
        sample_weight = da.from_array(sample_weight, chunks=-1)
    if sample_weight.ndim != 1:
        raise ValueError(f"sample_weight must have shape (rows,), got {sample_weight.shape}")
    if known and not np.isnan(sample_weight.shape[0]):
        if sample_weight.shape[0] != sum(sizes):
            raise ValueError(f"sample_weight has {sample_weight.shape[0]} rows, X {sum(sizes)}")
        sample_weight = sample_weight.rechunk((sizes,))
    if sample_weight.numblocks[0] != len(sizes):
        raise ValueError(f"sample_weight has {sample_weight.numblocks[0]} blocks, X {len(sizes)}")
    return sample_weight


def _column_names(X: Any) -> list[str] | None:
    if not hasattr(X, "columns"):
        return None
    names = list(X.columns)
    return names if all(isinstance(name, str) for name in names) else None


def _compute(task: Any) -> Any:
    """The result, from the active client's cluster or else dask's own threads."""
    client = _client()
    if client is None:
        result = task.compute()
    else:
        future = client.compute(task, retries=RETRIES, optimize_graph=False)
        try:
            result = future.result()
        except BaseException:
            future.cancel()
            raise
    if isinstance(result, Refusal):
        raise result.error
    return result


def _client() -> Any:
    try:
        from distributed import default_client

        return default_client()
    except (ImportError, ValueError):
        return None
