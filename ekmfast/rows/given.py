"""`rows_of` makes `Rows` of the X that a caller gives; no other code asks what X is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.array import ArrayRows
from ekmfast.rows.blocks import Blocks, from_memmap
from ekmfast.rows.blockwise import BlockRows
from ekmfast.rows.columns import is_sparse
from ekmfast.rows.device import choose, is_cuda_array, to_host
from ekmfast.rows.partial import PartialRows, has_missing
from ekmfast.rows.partial_blocks import PartialBlockRows
from ekmfast.rows.protocol import Rows
from ekmfast.rows.source import LocalSource, Source
from ekmfast.rows.sparse import SparseRows
from ekmfast.rows.threads import check_n_threads
from ekmfast.rows.unit import (
    UnitBlockRows,
    UnitRows,
    ZeroOrUnitBlockRows,
    ZeroOrUnitRows,
    unit_sparse_rows,
)

if TYPE_CHECKING:
    from ekmfast.rows.cuda.rows import CudaRows

# A memory map of at least so many bytes is read in blocks.
LARGE_MEMMAP = 1 << 30

CheckArray = Callable[[Any], NDArray[Any]]
CheckWeight = Callable[[Any, NDArray[Any]], "NDArray[Any] | None"]


def rows_of(
    X: Any,
    sample_weight: Any = None,
    *,
    check_array: CheckArray,
    check_weight: CheckWeight,
    device: str | None = None,
    work: float = 0.0,
    n_threads: int | None = None,
    weighting: str = "equilibrium",
    fuzzifier: float = 2.0,
    metric: str = "euclidean",
    missing: str = "error",
    zero_rows: str = "error",
) -> Rows:
    """Rows and their weights, wherever they are.

    Parameters
    ----------
    X : array-like, sparse matrix, array on a GPU, memory map, `Blocks`, or Dask collection
    sample_weight : array-like of shape (N,), default=None
        Must be None for `Blocks`, which contain their weights.
    check_array : callable
        Returns an array-like X as an array that the kernels can read, and a sparse matrix as a CSR
        matrix of float32 or float64, or raises an error.
    check_weight : callable
        Called with ``sample_weight`` and the rows; returns the weights in the dtype of the rows, or
        raises an error.
    device : {'cpu', 'cuda', 'auto'}, default=None
        Where passes over an array are computed. None computes where the array lies. Blocks and
        sparse matrices are always computed by the CPU.
    work : float, default=0.0
        Number of multiply-adds of a pass for each number of X, by which ``'auto'`` decides.
    n_threads : int, default=None
    weighting, fuzzifier
        See `ArrayRows`.
    metric : {'euclidean', 'cosine'}
        With ``'cosine'`` the rows count as if they were divided by their lengths.
    missing : {'error', 'partial'}
        With ``'partial'`` distances are over the numbers of a row that are not NaN. If no number of
        an array in memory is missing, the rows are those of ``'error'``. Blocks are not read for
        this.
    zero_rows : {'error', 'label'}
        What ``'cosine'`` does with rows of zeros: see `rows.unit`.

    Raises
    ------
    ValueError, TypeError
        If X is none of these, if the weights do not fit to X, or if rows of this kind cannot be
        computed on ``device``.
    RuntimeError
        If a GPU is asked for and none can be used.
    """
    options: Any = (weighting, fuzzifier)
    partial = missing == "partial"
    if partial:
        _refuse_partial(X, device, metric)
        device = "cpu"
    unit = metric == "cosine"
    zeros = zero_rows == "label"
    of_blocks: type[BlockRows] = PartialBlockRows if partial else BlockRows
    if unit:
        of_blocks = ZeroOrUnitBlockRows if zeros else UnitBlockRows
    if is_dask(X):
        source = _dask_source(X, sample_weight, device, n_threads)
        return of_blocks(source, check_n_threads(n_threads), *options)
    if is_dask(sample_weight):
        raise TypeError("sample_weight is a Dask collection, but X is not")
    if isinstance(X, Blocks):
        if sample_weight is not None:
            raise ValueError(
                "sample_weight must be None for Blocks: give it to the function that makes them"
            )
        blocks: Blocks | None = X
    else:
        blocks = _large_memmap(X, sample_weight, device, work, check_weight)
    if blocks is not None:
        _refuse_card(device, X)
        threads = check_n_threads(n_threads)
        return of_blocks(LocalSource(blocks, threads), threads, *options)
    if partial:
        X = check_array(X)
        _refuse_partial(X, device, metric)  # a frame of sparse columns
        s = check_weight(on_host(sample_weight), X)
        kind = PartialRows if has_missing(X) else ArrayRows
        return kind(X, s, check_n_threads(n_threads), *options)
    if is_sparse(X):
        _refuse_card(device, X)
        device = None
    if unit:
        if device == "cuda" or is_cuda_array(X):
            raise ValueError(
                "metric='cosine' is computed by the CPU: use device='cpu' and rows in the memory "
                "of the host"
            )
        X = check_array(X)
        s = check_weight(on_host(sample_weight), X)
        return unit_rows_in_memory(X, s, check_n_threads(n_threads), *options, zeros=zeros)
    if device is None:
        checks = check_array, check_weight
        return array_rows_of(X, sample_weight, n_threads, *checks, weighting, fuzzifier)
    if is_cuda_array(X):
        choose(device, X)
        return _rows_on_card(X, sample_weight, n_threads, check_weight, *options)
    X = check_array(X)
    s = check_weight(on_host(sample_weight), X)
    if is_sparse(X):  # it was a frame of sparse columns
        _refuse_card(device, X)
        return rows_in_memory(X, s, check_n_threads(n_threads), *options)
    if choose(device, X, work * X.size, check_n_threads(n_threads))[0] == "cuda":
        from ekmfast.rows.cuda.rows import CudaRows

        return CudaRows(X, s, check_n_threads(n_threads), *options)
    return ArrayRows(X, s, check_n_threads(n_threads), *options)


def array_rows_of(
    X: Any,
    sample_weight: Any,
    n_threads: int | None,
    check_array: CheckArray,
    check_weight: CheckWeight,
    weighting: str = "equilibrium",
    fuzzifier: float = 2.0,
) -> ArrayRows | CudaRows:
    """The rows of an array, computed where it lies; the parameters are those of `rows_of`."""
    if not isinstance(X, np.ndarray) and is_cuda_array(X):
        return _rows_on_card(X, sample_weight, n_threads, check_weight, weighting, fuzzifier)
    X = check_array(X)
    s = None if sample_weight is None else check_weight(on_host(sample_weight), X)
    return rows_in_memory(X, s, check_n_threads(n_threads), weighting, fuzzifier)


def rows_in_memory(X: Any, *options: Any) -> ArrayRows:
    """The rows of a checked array or CSR matrix; ``options`` are those of `ArrayRows`."""
    return (SparseRows if is_sparse(X) else ArrayRows)(X, *options)


def unit_rows_in_memory(X: Any, *options: Any, zeros: bool) -> ArrayRows:
    """The same rows divided by their lengths; ``zeros`` says whether some may be zero."""
    if is_sparse(X):
        return unit_sparse_rows(X, *options, zeros=zeros)
    return (ZeroOrUnitRows if zeros else UnitRows)(X, *options)


def _rows_on_card(
    X: Any,
    sample_weight: Any,
    n_threads: int | None,
    check_weight: CheckWeight,
    weighting: str,
    fuzzifier: float,
) -> CudaRows:
    from ekmfast.rows.cuda.arrays import as_device
    from ekmfast.rows.cuda.rows import CudaRows

    view = as_device(X)
    s = check_weight(on_host(sample_weight), rows_like(view.shape[0], view.dtype))
    return CudaRows(X, s, check_n_threads(n_threads), weighting, fuzzifier)


def rows_like(n_rows: int, dtype: Any) -> NDArray[Any]:
    """An array of the right length and dtype for ``check_weight``, which takes almost no memory."""
    return np.broadcast_to(np.zeros(1, dtype), (n_rows, 1))


def on_host(array: Any) -> Any:
    """A copy on the host of an array that lies on a GPU; any other array as it is."""
    there = array is not None and not isinstance(array, np.ndarray) and is_cuda_array(array)
    return to_host(array) if there else array


def is_dask(X: Any) -> bool:
    """Whether X is a Dask collection; Dask is imported only if it may be one."""
    if not hasattr(X, "__dask_graph__"):
        return False
    import dask

    return bool(dask.is_dask_collection(X))


def _dask_source(X: Any, sample_weight: Any, device: str | None, n_threads: int | None) -> Source:
    from ekmfast.rows.dask import DaskSource

    _refuse_card(device, X)
    # A cluster runs as many tasks at a time as it has threads, so that each task uses one thread
    # unless more are asked for.
    return DaskSource(X, sample_weight, 1 if n_threads is None else check_n_threads(n_threads))


def _large_memmap(
    X: Any, sample_weight: Any, device: str | None, work: float, check_weight: CheckWeight
) -> Blocks | None:
    """A large memory map as blocks; None for other X, and if a GPU reads the map in segments."""
    if not isinstance(X, np.memmap) or X.nbytes < LARGE_MEMMAP or X.ndim != 2:
        return None
    if device not in (None, "cpu") and choose(device, X, work * X.size)[0] == "cuda":
        return None
    dtype = np.float32 if X.dtype == np.float32 else np.float64
    return from_memmap(X, check_weight(on_host(sample_weight), rows_like(len(X), dtype)))


def _refuse_partial(X: Any, device: str | None, metric: str) -> None:
    """Refuse what ``missing='partial'`` does not go together with."""
    if metric != "euclidean":
        raise ValueError(f"missing='partial' needs metric='euclidean', got {metric!r}")
    if is_sparse(X):
        raise TypeError(
            "missing='partial' takes dense arrays, got a sparse matrix: give X.toarray(), or use "
            "missing='error', for which numbers that are not stored are zeros"
        )
    if device == "cuda" or is_cuda_array(X):
        raise ValueError(
            "missing='partial' is computed by the CPU: use device='cpu' and rows in the memory of "
            "the host"
        )


def _refuse_card(device: str | None, X: Any) -> None:
    if device == "cuda":
        kind = "sparse rows" if is_sparse(X) else "blocks"
        raise ValueError(
            f"device='cuda' takes arrays, not {type(X).__name__}; use device='cpu' for {kind}"
        )
