"""Blocks of Dask arrays and dataframes, for data that do not fit on one machine.

Each pass is one task graph: one task for each block computes the statistics of the block, on the
worker that holds it, and further tasks add them as a tree. Everything else, such as the starts and
the choice of alpha, is computed in the process that calls ``fit``, from a sample of the rows.
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
from ekmfast.rows.columns import check_columns, column_names
from ekmfast.rows.frames import numbers
from ekmfast.rows.source import Apply, Check, finite
from ekmfast.rows.tree import Summable, tree_sum

S = TypeVar("S", bound=Summable)
R = TypeVar("R")

# Number of parts that one task of the tree adds. It is a power of 2, so that the order of summation
# is that of tree_sum.
ARITY = 16
# If the copies of a pass's function, one for each block, are larger, the graph holds it only once.
INLINE_BYTES = 1 << 20
# How often a failed task is tried again, since reading may fail temporarily. (If a worker dies, its
# tasks are repeated elsewhere, as often as the scheduler's `allowed-failures` permits.)
RETRIES = 2


class DaskSource:
    """The blocks of a Dask collection, with one task for each."""

    def __init__(self, X: Any, sample_weight: Any, n_threads: int) -> None:
        array = _array(X)
        self.name = "the dask dataframe" if hasattr(X, "columns") else "the dask array"
        self.n_threads = n_threads
        self.feature_names = column_names(X)
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
        """Rechunk columns and fuse tasks, once for all passes."""
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
        self,
        function: Callable[[NDArray[Any]], NDArray[Any]],
        n_columns: int | None,
        dtype: Any,
        check: Check = finite,
    ) -> Any:
        """A lazy Dask array."""
        if dtype is None:
            dtype = np.float32 if self._array.dtype == np.float32 else np.float64
        dtype = np.dtype(dtype)
        chunks = self._array.chunks[0]
        shape: Any = {"drop_axis": 1} if n_columns is None else {"chunks": (chunks, (n_columns,))}
        empty = np.empty(0 if n_columns is None else (0, n_columns), dtype)
        return self._array.map_blocks(
            _map, function, empty, self.name, check, dtype=dtype, meta=empty, **shape
        )

    def each(self, indices: Sequence[int] | None = None) -> Generator[Apply, None, None]:
        for i in range(len(self._names)) if indices is None else indices:
            yield partial(self._total, blocks=[i])

    def _graph_of(self, blocks: Sequence[int]) -> dict[Any, Any]:
        """The part of the graph that makes these blocks, since sending all of it takes time."""
        if len(blocks) == len(self._names):
            return self._graph.copy()
        keys: list[Any] = [(self._X.name, i, 0) for i in blocks]
        if self._weight is not None:
            keys += [(self._weight.name, i) for i in blocks]
        try:
            return dict(cull(self._graph, keys)[0])
        except KeyError:  # the graph depends on results that the cluster holds already
            return self._graph.copy()

    def _total(self, function: Callable[[Block, int], Any], blocks: Sequence[int]) -> Any:
        """The sum of ``function`` over some blocks; None if they have no rows."""
        self._prepare()
        name = f"ekmfast-{uuid.uuid4().hex}"
        # Task objects are used because dask.delayed() takes a third more time, and because newer
        # versions of Dask do not read the older graphs of tuples everywhere.
        graph = self._graph_of(blocks)
        # The function holds the centroids. Each task gets a copy, or, if the copies are large, the
        # graph holds one. Data scattered to the workers would be lost when a worker dies.
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


class BlockError(NamedTuple):
    """The error of an invalid block, as a result: Dask would repeat a task that raises it."""

    error: Exception


def _leaf(
    function: Callable[[Block, int], R], index: int, name: str, X: Any, weight: Any
) -> R | BlockError | None:
    """``function`` of a block; None if it has no rows, a `BlockError` if it is invalid."""
    try:
        block = checked(X, weight, name)
        return function(block, index) if len(block.X) else None
    except (ValueError, TypeError) as error:
        return BlockError(error)


def _add(*parts: S | BlockError | None) -> S | BlockError | None:
    some: list[Any] = []
    for part in parts:
        if isinstance(part, BlockError):
            return part
        if part is not None:
            some.append(part)
    return tree_sum(some) if some else None


def _map(
    X: NDArray[Any],
    function: Callable[[NDArray[Any]], NDArray[Any]],
    empty: NDArray[Any],
    name: str,
    check: Check,
    block_info: Any = None,
) -> NDArray[Any]:
    """``function`` of a block's rows; ``empty`` if it has none. Dask passes ``block_info``."""
    if not len(X):
        return empty
    if block_info:
        name = f"block {block_info[0]['chunk-location'][0]} of {name}"
    return function(check(checked(X, None, name)).X)


def _array(X: Any) -> Any:
    """X as a Dask array in which no block splits a row."""
    if hasattr(type(X), "to_dask_array"):  # asked of the type: a Delayed has every attribute
        X = _of_numbers(X, "the dask dataframe").to_dask_array()
    if not isinstance(X, da.Array):
        raise TypeError(f"X must be a dask array or dataframe, got {type(X).__name__}")
    if X.ndim != 2:
        raise ValueError(f"X must have shape (rows, features), got {X.shape}")
    return X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X


def _of_numbers(frame: Any, name: str) -> Any:
    """A dataframe or series with NumPy dtypes; an error names a column that holds no numbers."""
    like = frame._meta  # an empty frame with the same columns and dtypes
    if like.ndim == 2:
        check_columns(like, name)
        for label, dtype in like.dtypes.items():
            if str(dtype) == "object":
                raise TypeError(
                    f"{name}: column {label!r} must hold numbers, it holds objects: convert them "
                    "with astype"
                )
    elif numbers(like).dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, it holds {like.dtype}")
    # Extension dtypes of pandas, and booleans beside numbers, would become arrays of objects.
    dtypes = list(like.dtypes) if like.ndim == 2 else [like.dtype]
    plain = all(isinstance(dtype, np.dtype) for dtype in dtypes)
    return frame if plain and np.asarray(like).dtype.kind != "O" else frame.astype(np.float64)


def _weights(sample_weight: Any, sizes: tuple[int, ...]) -> Any:
    """The weights as a Dask array with the same blocks as the rows."""
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
            raise ValueError(
                f"sample_weight has {sample_weight.shape[0]} rows, but X has {sum(sizes)}"
            )
        sample_weight = sample_weight.rechunk((sizes,))
    if sample_weight.numblocks[0] != len(sizes):
        raise ValueError(
            f"sample_weight has {sample_weight.numblocks[0]} blocks, but X has {len(sizes)}"
        )
    return sample_weight


def _compute(task: Any) -> Any:
    """The result of a task, from the cluster of the active client, or else from Dask's threads."""
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
    if isinstance(result, BlockError):
        raise result.error
    return result


def _client() -> Any:
    try:
        from distributed import default_client

        return default_client()
    except (ImportError, ValueError):
        return None
