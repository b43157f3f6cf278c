"""Rows that are read in blocks: what blocks are, and the sources that they come from."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ekmfast.rows.frames import column_names, matrix, numbers

__all__ = [
    "Block",
    "Blocks",
    "from_arrays",
    "from_factory",
    "from_npy",
    "from_parquet",
    "from_zarr",
]

# Large enough for threads and disks to run at speed, small enough for several to lie in memory.
BLOCK_BYTES = 16 << 20
NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
# A memory map of a file at least so large is read in blocks where X is expected.
LARGE_MEMMAP = 1 << 30


class Block(NamedTuple):
    """Some rows, their weights, and what errors call them."""

    X: NDArray[Any]  # (n, D), float32 or float64, C-contiguous
    sample_weight: NDArray[Any] | None  # (n,), dtype of X
    name: str


class Kind(NamedTuple):
    """What all blocks of one data set have in common."""

    n_features: int
    dtype: np.dtype[Any]
    weighted: bool

    @classmethod
    def of(cls, block: Block) -> Kind:
        return cls(block.X.shape[1], block.X.dtype, block.sample_weight is not None)

    def check(self, block: Block) -> None:
        """Refuse a block that is not of this kind, the first one's."""
        found, name = Kind.of(block), block.name
        if found.n_features != self.n_features:
            raise ValueError(
                f"{name}: has {found.n_features} features, the first block {self.n_features}"
            )
        if found.dtype != self.dtype:
            raise TypeError(f"{name}: has dtype {found.dtype}, the first block {self.dtype}")
        if found.weighted != self.weighted:
            have, lack = ("the first block", "it") if self.weighted else ("it", "the first block")
            raise ValueError(f"{name}: {have} has sample_weight, {lack} has none")


# Gives a buffer of a shape and dtype to read into. One that is given may be used again once the
# block after next has been asked for.
Allocate = Callable[[tuple[int, int], DTypeLike], NDArray[Any]]
Read = Callable[[Allocate], Iterable[Any]]


class Blocks:
    """Rows in blocks that can be read again and again.

    Made by the functions of this module. Iterating yields :class:`Block` after block, checked:
    2-dimensional, of one width and dtype, not complex or objects, weights finite and not negative,
    and where they are frames, of the same columns in the same order. Blocks without rows are left
    out.

    Attributes
    ----------
    name : str
        What errors call it.
    feature_names : list of str or None
        Names of the columns, where they have any. Of blocks that a function makes, those of the
        first, which is read for it unless there was a pass. May be set, as for a ``.npy`` file.
    """

    def __init__(
        self,
        read: Read,
        name: str,
        *,
        feature_names: Sequence[str] | None = None,
        refilled: bool = False,
    ) -> None:
        self._read = read
        # Blocks are read ahead, so an array that its maker fills again and again would change
        # under the arithmetic: such are copied before the next is asked for.
        self._refilled = refilled
        self.name = name
        self.feature_names = feature_names
        self._named = not refilled or feature_names is not None
        self._n_rows: int | None = None  # of a whole pass, once there was one

    def __repr__(self) -> str:
        return f"Blocks({self.name!r})"

    @property
    def feature_names(self) -> list[str] | None:
        if not self._named:
            next(iter(self))
        return self._feature_names

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        self._feature_names, self._named = None if names is None else list(names), True

    def __iter__(self) -> Iterator[Block]:
        return self.read(np.empty)

    def read(self, allocate: Allocate) -> Iterator[Block]:
        """Yield the blocks, where possible in buffers that ``allocate`` gives."""
        kind: Kind | None = None
        n_rows = 0
        for index, given in enumerate(self._read(allocate)):
            name = f"block {index} of {self.name} (from row {n_rows:,} on)"
            if isinstance(given, tuple) and len(given) != 2:
                raise ValueError(f"{name}: expected (array, sample_weight), got {len(given)} items")
            X, weight = given if isinstance(given, tuple) else (given, None)
            block = checked(X, weight, name)
            n_rows += len(block.X)
            if not len(block.X):
                continue
            if not self._named:
                self._feature_names, self._named = column_names(X), True
            kind = kind or Kind.of(block)
            kind.check(block)
            names, expected = column_names(X), self._feature_names
            if names is not None and expected is not None and names != expected:
                raise ValueError(f"{name}: has columns {names}, the first block {expected}")
            yield _copied(block, allocate) if self._refilled else block
        if kind is None:
            raise ValueError(f"{self.name} has no rows")
        if self._n_rows not in (None, n_rows):
            raise ValueError(
                f"{self.name} gave {n_rows:,} rows, in an earlier pass {self._n_rows:,}: must give "
                "the same blocks each time"
            )
        self._n_rows = n_rows


def checked(X: Any, weight: Any, name: str) -> Block:
    """One block as it should be; errors name it."""
    X = matrix(X, name)
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"{name}: expected shape (rows, features), got {X.shape}")
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float64)
    X = np.require(X, requirements=["C", "A"])  # what came over a network may be unaligned
    if weight is None:
        return Block(X, None, name)
    weight = numbers(weight)
    if weight.shape != X.shape[:1]:
        raise ValueError(f"{name}: sample_weight has shape {weight.shape}, X {X.shape}")
    if weight.dtype.kind not in "biuf":
        raise TypeError(f"{name}: sample_weight must hold numbers, got dtype {weight.dtype}")
    with np.errstate(over="ignore"):
        cast = np.require(weight, X.dtype, ["C", "A"])
    bad = np.flatnonzero(~((cast >= 0) & (cast < np.inf)))
    if bad.size:
        row = bad[0]
        fits = weight[row] < 0 or not np.isfinite(weight[row])
        beyond = "" if fits else f", which {X.dtype} cannot hold"
        raise ValueError(
            f"{name}: sample_weight must be finite and >= 0, got {weight[row]} in row {row}{beyond}"
        )
    return Block(X, cast, name)


def _copied(block: Block, allocate: Allocate) -> Block:
    X = allocate(block.X.shape, block.X.dtype)
    X[...] = block.X
    s = block.sample_weight
    return block._replace(X=X, sample_weight=None if s is None else s.copy())


def from_factory(blocks: Callable[[], Iterable[Any]], name: str | None = None) -> Blocks:
    """Blocks that a function makes anew for every pass.

    Parameters
    ----------
    blocks : callable
        Called without arguments at the begin of each pass; returns an iterable of arrays (n, D),
        or of tuples (array, sample_weight). It must yield the same each time. An array may be
        refilled for the next block: each is copied before that is asked for.
    name : str, default=None
        For errors.

    Returns
    -------
    blocks : Blocks

    Raises
    ------
    TypeError
        If ``blocks`` is not callable; in a later pass, if it returns the same iterator again.
    ValueError
        In a later pass, if it has given another number of rows than in an earlier one.
    """
    if not callable(blocks):
        raise TypeError(
            "blocks must be callable, a function that returns an iterable of arrays: a generator "
            f"can be read only once; got {type(blocks).__name__}"
        )
    called = name or str(getattr(blocks, "__name__", "blocks"))
    last: list[Any] = [None]

    def read(_: Allocate) -> Iterator[Any]:
        given = blocks()
        if not (hasattr(given, "__iter__") or hasattr(given, "__getitem__")):
            raise TypeError(
                f"{called} must return an iterable of arrays, got {type(given).__name__}"
            )
        if given is last[0] and iter(given) is given:
            raise TypeError(
                f"{called} returned one and the same iterator twice, which can be read only once: "
                "must return a new one for each pass"
            )
        last[0] = given
        yield from given  # and if it is a generator, close it with this one

    return Blocks(read, called, refilled=True)


def from_arrays(
    arrays: Sequence[ArrayLike], sample_weight: Sequence[ArrayLike] | None = None
) -> Blocks:
    """Blocks that are arrays already: a list of them, such as memory maps of several files.

    Parameters
    ----------
    arrays : sequence of array-like of shape (n, D)
        Not copied where they are C-contiguous float32 or float64.
    sample_weight : sequence of array-like of shape (n,), default=None

    Returns
    -------
    blocks : Blocks
        With ``feature_names`` where the arrays are frames.
    """
    if not hasattr(arrays, "__len__") or getattr(arrays, "ndim", 3) != 3:
        raise TypeError(
            f"arrays must be a sequence of arrays, such as [X], got {type(arrays).__name__}"
        )
    weights = [None] * len(arrays) if sample_weight is None else sample_weight
    if len(weights) != len(arrays):
        raise ValueError(f"sample_weight has {len(weights)} blocks, X {len(arrays)}")
    pairs = list(zip(arrays, weights, strict=True))
    names = column_names(arrays[0]) if pairs else None
    return Blocks(lambda _: iter(pairs), "the list of arrays", feature_names=names)


def from_npy(
    path: str | os.PathLike[str],
    *,
    sample_weight: ArrayLike | None = None,
    block_rows: int | None = None,
) -> Blocks:
    """Blocks of a ``.npy`` file of shape (N, D), read with ordinary reads, not mapped.

    Parameters
    ----------
    path : path
    sample_weight : array-like of shape (N,), default=None
        In memory, or a memory map.
    block_rows : int, default=None
        Rows of a block; None for about 16 MiB.

    Returns
    -------
    blocks : Blocks

    Raises
    ------
    ValueError
        If the file is not a whole ``.npy`` of a C-ordered matrix of numbers, or holds more than
        that.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = NPY_HEADERS[version](file)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: not a .npy file: {error}") from None
        offset = file.tell()
    if fortran and len(shape) == 2 and 1 not in shape:
        raise ValueError(f"{path}: rows are not contiguous (Fortran order); save it in C order")
    more = size - offset - math.prod(shape) * dtype.itemsize
    if more > 0 and not dtype.hasobject:
        raise ValueError(
            f"{path}: {more:,} bytes follow the {shape} that its header promises: several arrays "
            "in one file, or one that is being written?"
        )
    return _of_file(path, shape, dtype, offset, sample_weight, block_rows)


def _of_file(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    offset: int,
    sample_weight: ArrayLike | None = None,
    block_rows: int | None = None,
) -> Blocks:
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"{path}: expected shape (rows, features), got {shape}")
    if dtype.kind not in "biuf" or dtype.hasobject:
        raise TypeError(f"{path}: expected numbers, got dtype {dtype}")
    n_rows, n_features = shape
    row_bytes = n_features * dtype.itemsize
    step = _block_rows(block_rows, row_bytes)
    weight = None if sample_weight is None else numbers(sample_weight)
    if weight is not None and weight.shape != (n_rows,):
        raise ValueError(f"sample_weight has shape {weight.shape}, {path} {n_rows} rows")

    def read(allocate: Allocate) -> Iterator[Any]:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size < offset + n_rows * row_bytes:
                raise ValueError(
                    f"{path}: truncated: {size:,} bytes, its header promises "
                    f"{offset + n_rows * row_bytes:,}"
                )
            file.seek(offset)
            for start in range(0, n_rows, step):
                rows = min(step, n_rows - start)
                block = allocate((rows, n_features), dtype)
                _fill(file, memoryview(block.data).cast("B"), f"{path}: row {start:,}")
                yield block, None if weight is None else weight[start : start + rows]

    return Blocks(read, str(path))


def _fill(file: Any, buffer: memoryview, where: str) -> None:
    """Read until the buffer is full: one read may return less."""
    done = 0
    while done < len(buffer):
        count = file.readinto(buffer[done:])
        if not count:
            raise ValueError(f"{where}: the file ended while it was read")
        done += count


def from_memmap(X: np.memmap[Any, Any], sample_weight: ArrayLike | None = None) -> Blocks | None:
    """The file under a memory map, or None where its bytes are not simply those of X."""
    if X.mode == "c" or X.filename is None or X.ndim != 2 or not X.flags.c_contiguous:
        return None
    mapped = np.frombuffer(X._mmap, np.uint8)  # type: ignore[attr-defined]
    into = X.ctypes.data - mapped.ctypes.data
    # numpy maps from the last multiple of the granularity before `offset`, which views inherit.
    import mmap

    start = X.offset - X.offset % mmap.ALLOCATIONGRANULARITY
    if not 0 <= into <= mapped.nbytes - X.nbytes:
        return None
    if X.mode != "r":
        X.flush()
    if np.isscalar(sample_weight):  # as arrays take it: that of every row
        sample_weight = np.broadcast_to(np.asarray(sample_weight), len(X))
    return _of_file(Path(str(X.filename)), X.shape, X.dtype, start + into, sample_weight)


def from_zarr(array: Any, *, sample_weight: Any = None, block_rows: int | None = None) -> Blocks:
    """Blocks of a Zarr array of shape (N, D), or of a path to one.

    Parameters
    ----------
    array : zarr.Array or path
        Anything else with ``shape``, ``dtype``, ``chunks`` and slicing works too: HDF5 data sets.
    sample_weight : array of shape (N,), default=None
        NumPy or Zarr.
    block_rows : int, default=None
        Rows of a block; None for about 16 MiB, in whole chunks.

    Returns
    -------
    blocks : Blocks
    """
    name = "the Zarr array"
    if isinstance(array, (str, os.PathLike)):
        name = str(array)
        try:
            import zarr
        except ImportError:
            raise ImportError('reading Zarr needs zarr: pip install "ekmfast[zarr]"') from None
        try:
            array = zarr.open_array(name, mode="r")
        except ValueError as error:  # a group, or what is damaged
            raise ValueError(f"{name}: not a Zarr array: {error}") from None
    if len(array.shape) != 2:
        raise ValueError(f"{name}: expected shape (rows, features), got {array.shape}")
    n_rows, n_features = array.shape
    step = _block_rows(block_rows, n_features * np.dtype(array.dtype).itemsize)
    if block_rows is None and getattr(array, "chunks", None):
        step = max(1, round(step / array.chunks[0])) * array.chunks[0]
    if sample_weight is not None and not hasattr(sample_weight, "shape"):
        sample_weight = np.asarray(sample_weight)
    if sample_weight is not None and tuple(sample_weight.shape) != (n_rows,):
        raise ValueError(f"sample_weight has shape {sample_weight.shape}, {name} {n_rows} rows")

    def read(_: Allocate) -> Iterator[Any]:
        for start in range(0, n_rows, step):
            rows = slice(start, min(start + step, n_rows))
            yield array[rows], None if sample_weight is None else sample_weight[rows]

    return Blocks(read, name)


def _parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder; none is left out without a word."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in PARQUET_SUFFIXES]
    files = sorted(path for path in found if path.parent == folder and not path.is_dir())
    below = sorted(path for path in found if path.parent != folder and not path.is_dir())
    if below:
        raise ValueError(
            f"{folder}: {below[0]} and others in folders of it ({len(below):,} files) would be "
            "left out: name one folder of files"
        )
    if not files:
        raise ValueError(f"{folder}: holds no .parquet file")
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: a link that leads nowhere")
    return files


def from_parquet(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    sample_weight: str | None = None,
    block_rows: int | None = None,
) -> Blocks:
    """Blocks of a Parquet file, or of a folder of them, of which only these columns are read.

    Parameters
    ----------
    path : path
        Of a folder all files that end in .parquet, .parq or .pq, in upper case or lower, are read,
        in the order of their names.
    columns : sequence of str, default=None
        The features; None for all of the first file but ``sample_weight`` and an index of pandas'.
        float32 if all of them are, in every file. Each file may have them in an order of its own.
    sample_weight : str, default=None
        The column that holds the rows' weights.
    block_rows : int, default=None
        Rows of a block; None for about 16 MiB.

    Returns
    -------
    blocks : Blocks
        With ``feature_names``.

    Raises
    ------
    ValueError, TypeError
        If a file is no Parquet file, lacks a column or holds something else than numbers in it, or
        if files in folders of the folder would be left out.
    FileNotFoundError
        If there is no such file, or a link in the folder leads nowhere.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ImportError('reading Parquet needs pyarrow: pip install "ekmfast[parquet]"') from None
    path = Path(path)
    files = _parquet_files(path) if path.is_dir() else [path]
    names: list[str] = [] if columns is None else list(columns)
    kinds = set()
    for file in files:
        try:
            schema = pq.read_schema(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{file}: not a Parquet file: {error}") from None
        if not names and columns is None:
            index = (schema.pandas_metadata or {}).get("index_columns", [])
            names = [c for c in schema.names if c != sample_weight and c not in index]
        for name in [*names, *([] if sample_weight is None else [sample_weight])]:
            if name not in schema.names:
                raise ValueError(f"{file}: has no column {name!r}, but {', '.join(schema.names)}")
            kind = schema.field(name).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise TypeError(f"{file}: column {name!r} must hold numbers, it holds {kind}")
        kinds |= {schema.field(name).type for name in names}
    dtype = np.dtype(np.float32 if kinds == {pa.float32()} else np.float64)
    step = min(_block_rows(block_rows, len(names) * dtype.itemsize), np.iinfo(np.int32).max)
    wanted = names if sample_weight is None else [*names, sample_weight]

    def read(allocate: Allocate) -> Iterator[Any]:
        for file in files:
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(step, columns=wanted):
                    block = allocate((batch.num_rows, len(names)), dtype)
                    for j, name in enumerate(names):
                        # A null becomes NaN, which is refused as such.
                        block[:, j] = batch.column(name).to_numpy(zero_copy_only=False)
                    weight = None
                    if sample_weight is not None:
                        weight = batch.column(sample_weight).to_numpy(zero_copy_only=False)
                    yield block, weight

    return Blocks(read, str(path), feature_names=names)


def as_blocks(X: Any, sample_weight: ArrayLike | None = None) -> Blocks | None:
    """X where it is blocks, or a large memory map as such; None where it is another array.

    ``sample_weight`` is that of the rows of a memory map; blocks bring their own.
    """
    if isinstance(X, Blocks):
        return X
    if isinstance(X, np.memmap) and X.nbytes >= LARGE_MEMMAP:
        return from_memmap(X, sample_weight)
    return None


def _block_rows(block_rows: int | None, row_bytes: int) -> int:
    if block_rows is None:
        return max(1, math.ceil(BLOCK_BYTES / max(1, row_bytes)))
    if isinstance(block_rows, bool) or not isinstance(block_rows, (int, np.integer)):
        raise TypeError(f"block_rows must be an integer >= 1, got {block_rows!r}")
    if block_rows < 1:
        raise ValueError(f"block_rows must be an integer >= 1, got {block_rows!r}")
    return int(block_rows)
