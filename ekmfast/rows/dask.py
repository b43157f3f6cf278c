"""Blocks of dask arrays and dataframes: more data than one machine holds.

Each pass is one graph: a task for each block computes that block's statistics where the block is,
and one tree adds them. Everything else, the seeds and the choice of alpha included, is done where
``fit`` is called, from a sample of the rows.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import dask
import dask.array as da
import numpy as np
from dask._task_spec import DataNode, Task, TaskRef
from dask.delayed import Delayed
from dask.optimization import cull
from numpy.typing import NDArray

from ekmfast.rows.blocks import Block, checked
from ekmfast.rows.frames import matrix, numbers
from ekmfast.rows.source import Apply, finite
from ekmfast.rows.tree import Summable, tree_sum

S = TypeVar("S", bound=Summable)
R = TypeVar("R")

# Parts that one task of the tree adds. A power of 2, so that the order of the sum is tree_sum's.
ARITY = 16
# Up to which a graph holds a pass's function for each of its blocks.
INLINE_BYTES = 1 << 20
# How often a task that fails is tried again: reading may fail for a moment. (A task whose worker
# dies is always done again elsewhere, as long as the scheduler's `allowed-failures` permits.)
RETRIES = 2


class DaskSource:
    """The blocks of a dask collection, each with a task of its own."""

    def __init__(self, X: Any, sample_weight: Any, n_threads: int) -> None:
        array = _array(X)
        self.name = "the dask dataframe" if hasattr(X, "columns") else "the dask array"
        self.n_threads = n_threads
        self.feature_names = _column_names(X)
        sizes = array.chunks[0]
        self.n_rows = None if np.isnan(sizes).any() else int(sum(sizes))
        self.n_features: int | None = int(array.shape[1])
        self._array = array
        self._sample_weight = sample_weight
        self._graph: dict[Any, Any] = {}
        where = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._names = [
            f"block {i} of {self.name}" + ("" if np.isnan(row) else f" (from row {int(row):,} on)")
            for i, row in enumerate(where)
        ]

    def _prepare(self) -> None:
        """Do once what can be done once for all passes: columns are rechunked, tasks fused."""
        if self._graph:
            return
        (self._X,) = dask.optimize(self._array)
        self._weight: Any = None
        if self._sample_weight is not None:
            weight = _weights(self._sample_weight, self._array.chunks[0])
            (self._weight,) = dask.optimize(weight)
        for collection in (self._X, self._weight):
            if collection is not None:
                self._graph.update(collection.__dask_graph__())

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

    def map(
        self, function: Callable[[NDArray[Any]], NDArray[Any]], n_columns: int | None, dtype: Any
    ) -> Any:
        """A lazy dask array."""
        if dtype is None:
            dtype = np.float32 if self._array.dtype == np.float32 else np.float64
        dtype = np.dtype(dtype)
        chunks = self._array.chunks[0]
        shape: Any = {"drop_axis": 1} if n_columns is None else {"chunks": (chunks, (n_columns,))}
        empty = np.empty(0 if n_columns is None else (0, n_columns), dtype)
        return self._array.map_blocks(
            _map, function, empty, self.name, dtype=dtype, meta=empty, **shape
        )

    def each(self, indices: Sequence[int] | None = None) -> Generator[Apply, None, None]:
        for i in range(len(self._names)) if indices is None else indices:
            yield partial(self._total, blocks=[i])

    def _graph_of(self, blocks: Sequence[int]) -> dict[Any, Any]:
        """What it takes to make some blocks: of one, a graph of all would be sent in vain."""
        if len(blocks) == len(self._names):
            return self._graph.copy()
        keys: list[Any] = [(self._X.name, i, 0) for i in blocks]
        if self._weight is not None:
            keys += [(self._weight.name, i) for i in blocks]
        try:
            return dict(cull(self._graph, keys)[0])
        except KeyError:  # the cluster holds what the graph does not make
            return self._graph.copy()

    def _total(self, function: Callable[[Block, int], Any], blocks: Sequence[int]) -> Any:
        """The sum of ``function`` over some blocks; None where these have no rows."""
        self._prepare()
        name = f"ekmfast-{uuid.uuid4().hex}"
        # Tasks as dask keeps them: its delayed() would make them a third slower, and the graph that
        # it took to write by hand, tuples, it does not read everywhere any more.
        graph = self._graph_of(blocks)
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


def _map(
    X: NDArray[Any],
    function: Callable[[NDArray[Any]], NDArray[Any]],
    empty: NDArray[Any],
    name: str,
    block_info: Any = None,
) -> NDArray[Any]:
    """``function`` of a block's rows; ``empty`` where it has none. dask gives ``block_info``."""
    if not len(X):
        return empty
    if block_info:
        name = f"block {block_info[0]['chunk-location'][0]} of {name}"
    return function(finite(checked(X, None, name)).X)


def _array(X: Any) -> Any:
    """X as a dask array of whole rows."""
    if hasattr(type(X), "to_dask_array"):  # any attribute is one of a Delayed
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
