"""Rows from whatever a caller gives as X: the only code that asks what that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.array import ArrayRows
from ekmfast.rows.blocks import Blocks, from_memmap
from ekmfast.rows.blockwise import BlockRows
from ekmfast.rows.device import choose, is_cuda_array, to_host
from ekmfast.rows.protocol import Rows
from ekmfast.rows.source import LocalSource, Source
from ekmfast.rows.threads import check_n_threads

if TYPE_CHECKING:
    from ekmfast.rows.cuda.rows import CudaRows

# A memory map of a file at least so large is read in blocks.
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
) -> Rows:
    """Rows and their weights, wherever they are.

    Parameters
    ----------
    X : array-like, array on a card, memory map, `Blocks`, or dask collection
    sample_weight : array-like of shape (N,), default=None
        `Blocks` bring their own.
    check_array : callable
        Makes an array of an array-like X, as kernels take it, or refuses it.
    check_weight : callable
        Gets ``sample_weight`` and rows, and returns it in their dtype, or refuses it.
    device : {'cpu', 'cuda', 'auto'}, default=None
        Where passes over an array are computed; None: where it lies. Blocks are computed by
        processors.
    work : float, default=0.0
        Multiply-adds of a pass for each number of X, by which ``'auto'`` decides.
    n_threads : int, default=None
    weighting, fuzzifier
        As of `ArrayRows`.

    Raises
    ------
    ValueError, TypeError
        For what is none of these, for weights that do not fit, and for a device where the rows
        cannot be.
    RuntimeError
        If a card is asked for and there is none that can be used.
    """
    options: Any = (weighting, fuzzifier)
    if is_dask(X):
        source = _dask_source(X, sample_weight, device, n_threads)
        return BlockRows(source, check_n_threads(n_threads), *options)
    if is_dask(sample_weight):
        raise TypeError("sample_weight is a dask collection, X is none")
    if isinstance(X, Blocks):
        if sample_weight is not None:
            raise ValueError("sample_weight must be given to the blocks, not with them")
        blocks: Blocks | None = X
    else:
        blocks = _large_memmap(X, sample_weight, device, work, check_weight)
    if blocks is not None:
        _refuse_card(device, X)
        threads = check_n_threads(n_threads)
        return BlockRows(LocalSource(blocks, threads), threads, *options)
    if device is None:
        checks = check_array, check_weight
        return array_rows_of(X, sample_weight, n_threads, *checks, weighting, fuzzifier)
    if is_cuda_array(X):
        choose(device, X)
        return _rows_on_card(X, sample_weight, n_threads, check_weight, *options)
    X = check_array(X)
    s = check_weight(on_host(sample_weight), X)
    if choose(device, X, work * X.size)[0] == "cuda":
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
    """The rows of an array, where it lies; parameters are those of `rows_of`."""
    if not isinstance(X, np.ndarray) and is_cuda_array(X):
        return _rows_on_card(X, sample_weight, n_threads, check_weight, weighting, fuzzifier)
    X = check_array(X)
    s = None if sample_weight is None else check_weight(on_host(sample_weight), X)
    return ArrayRows(X, s, check_n_threads(n_threads), weighting, fuzzifier)


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
    """Rows of one number that weights are checked beside: of the right length and dtype."""
    return np.broadcast_to(np.zeros(1, dtype), (n_rows, 1))


def on_host(array: Any) -> Any:
    """A copy of what lies on a card; else the array as it is."""
    there = array is not None and not isinstance(array, np.ndarray) and is_cuda_array(array)
    return to_host(array) if there else array


def is_dask(X: Any) -> bool:
    """Whether X is a collection of dask's, which is imported only for what may be one."""
    if not hasattr(X, "__dask_graph__"):
        return False
    import dask

    return bool(dask.is_dask_collection(X))


def _dask_source(X: Any, sample_weight: Any, device: str | None, n_threads: int | None) -> Source:
    from ekmfast.rows.dask import DaskSource

    _refuse_card(device, X)
    # A cluster runs one task in each slot, so tasks have one thread unless more are asked for.
    return DaskSource(X, sample_weight, 1 if n_threads is None else check_n_threads(n_threads))


def _large_memmap(
    X: Any, sample_weight: Any, device: str | None, work: float, check_weight: CheckWeight
) -> Blocks | None:
    """A large memory map as blocks; None for one that a card reads in segments, and for others."""
    if not isinstance(X, np.memmap) or X.nbytes < LARGE_MEMMAP or X.ndim != 2:
        return None
    if device not in (None, "cpu") and choose(device, X, work * X.size)[0] == "cuda":
        return None
    dtype = np.float32 if X.dtype == np.float32 else np.float64
    return from_memmap(X, check_weight(on_host(sample_weight), rows_like(len(X), dtype)))


def _refuse_card(device: str | None, X: Any) -> None:
    if device == "cuda":
        raise ValueError(
            f"device='cuda' takes arrays, not {type(X).__name__}; use device='cpu' for blocks"
        )
