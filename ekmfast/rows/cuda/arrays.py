"""The public functions on arrays that lie on a card; results stay there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast.rows import limits as _limits
from ekmfast.rows.array import CentredStatistics
from ekmfast.rows.device import cuda_status, is_cuda_array, to_host

Float64 = NDArray[np.float64]


def as_device(X: Any, name: str = "X") -> Any:
    """Numba's view of an array on a card, without a copy; checked like a NumPy array."""
    missing = cuda_status()
    if missing is not None:
        raise RuntimeError(f"{name} lies on a CUDA device that cannot be used: {missing}")
    from ekmfast.rows.cuda.layer import view

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(X, torch.Tensor):
        X = X.detach()
        if torch.cuda.is_available():  # not so in the simulator
            torch.cuda.current_stream(X.device).synchronize()
    elif not hasattr(X, "__cuda_array_interface__") and not hasattr(X, "__cuda_ndarray__"):
        X = _by_dlpack(X, name)
    array = view(X)
    if array.dtype != np.float32 and array.dtype != np.float64:
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions (rows, columns), got {array.ndim}")
    if array.shape[1] == 0:
        raise ValueError(f"{name} must have at least one column, got shape {array.shape}")
    return array


def _by_dlpack(X: Any, name: str) -> Any:
    for library in ("torch", "cupy"):
        try:
            return __import__(library).from_dlpack(X)
        except ImportError:
            continue
    raise TypeError(
        f"{name} offers DLPack alone, for which torch or CuPy is needed: "
        'pip install "ekmfast[torch]"'
    )


def alike(array: Any, X: Any) -> Any:
    """An array of Numba as an array of the library of X, without a copy."""
    library = type(X).__module__.partition(".")[0]
    if library == "torch":
        return sys.modules["torch"].as_tensor(array, device=X.device)
    if library == "cupy":
        return sys.modules["cupy"].asarray(array)
    return array


def backend_of(
    X: Any,
    sample_weight: NDArray[Any] | None,
    weighting: str = "equilibrium",
    fuzzifier: float = 2.0,
) -> Any:
    """The backend of rows on a card, or of rows on the host: sent there once, or in each pass."""
    from ekmfast.rows.cuda.layer import free_memory, upload
    from ekmfast.rows.cuda.memory import ResidentRows, StreamedRows
    from ekmfast.rows.cuda.rows import CudaBackend

    if is_cuda_array(X):
        s = None if sample_weight is None else upload(sample_weight)
        return CudaBackend(ResidentRows(as_device(X), s), weighting, fuzzifier)
    # Half of what is free, since seeding and chunks take some.
    if X.nbytes <= free_memory() // 2:
        s = None if sample_weight is None else upload(sample_weight)
        return CudaBackend(ResidentRows(upload(X), s), weighting, fuzzifier)
    return CudaBackend(StreamedRows(X, sample_weight), weighting, fuzzifier)


def weight_on_host(sample_weight: Any) -> Any:
    """A weight that lies on a card, copied; others as they are."""
    on_card = sample_weight is not None and is_cuda_array(sample_weight)
    return to_host(sample_weight) if on_card else sample_weight


def blocks(X: Any) -> Iterator[NDArray[Any]]:
    """The rows on the host, some at a time."""
    array = as_device(X)
    for first in range(0, array.shape[0], 1 << 20):
        yield array[first : first + (1 << 20)].copy_to_host()


def explain_not_finite(X: Any, centroids: Float64 | None = None, alpha: float = 0.0) -> None:
    """Raise for what made a sum overflow or turn NaN."""
    _limits.explain_not_finite(blocks(X), np.dtype(as_device(X).dtype), centroids, alpha)


def statistics(
    X: Any, centroids: Float64, alpha: Float64, sample_weight: NDArray[Any] | None
) -> CentredStatistics:
    """Centroids are (S, K, D), alpha (S,)."""
    return cast(CentredStatistics, backend_of(X, sample_weight).statistics(centroids, alpha))


def step(X: Any, new: Float64) -> Any:
    """Centroids where X lies, in its dtype."""
    from ekmfast.rows.cuda.layer import upload

    return alike(upload(new.astype(as_device(X).dtype)), X)


def compute_weights(X: Any, centroids: Float64, alpha: float, out: Any) -> Any:
    from ekmfast.rows.cuda.layer import empty

    backend = backend_of(X, None)
    shape, dtype = (backend.rows.n, len(centroids)), np.dtype(backend.rows.dtype)
    if out is None:
        found = empty(shape, dtype)
        out = alike(found, X)
    else:
        if not is_cuda_array(out):
            raise TypeError(f"out must lie on the card as X does, got {type(out).__name__}")
        found = as_device(out, "out")
        if found.shape != shape or found.dtype != dtype or not found.is_c_contiguous():
            raise ValueError(
                f"out must be a C-contiguous {dtype} array of shape {shape}, "
                f"got {found.dtype} of shape {tuple(found.shape)}"
            )
    if not np.isfinite(backend.weights(centroids, alpha, found)):
        explain_not_finite(X, centroids, alpha)
    return out


def accumulate(X: Any, weights: ArrayLike) -> tuple[Float64, Float64, Float64, Any]:
    """sum_wx (K, D) about the reference, sum_w (K,), the reference, and the weights checked."""
    if not is_cuda_array(weights):
        raise TypeError(f"weights must lie on the card as X does, got {type(weights).__name__}")
    w, backend = as_device(weights, "weights"), backend_of(X, None)
    if w.dtype != backend.rows.dtype:
        raise TypeError(
            f"weights must have the dtype of X, {np.dtype(backend.rows.dtype)}, got {w.dtype}"
        )
    if w.shape[0] != backend.rows.n:
        raise ValueError(
            f"weights must have one row a sample: {w.shape[0]} rows, X has {backend.rows.n}"
        )
    sum_wx, sum_w = backend.accumulate(w)
    return sum_wx, sum_w, backend.reference.astype(np.float64), w


def assign(X: Any, centroids: Float64) -> tuple[Any, Any]:
    from ekmfast.rows.cuda.layer import empty

    backend = backend_of(X, None)
    most = 1 << (
        np.finfo(backend.rows.dtype).nmant + 1
    )  # a label is found as a number of the dtype
    if len(centroids) > most:
        raise ValueError(
            f"centroids must be at most {most} for {np.dtype(backend.rows.dtype)} on a card, "
            f"got {len(centroids)}"
        )
    labels = empty(backend.rows.n, np.int32)
    distances = empty(backend.rows.n, backend.rows.dtype)
    total = backend.assign(centroids, labels, distances)
    if not np.isfinite(total):
        explain_not_finite(X, centroids)
    dtype = np.dtype(backend.rows.dtype)
    if backend.rows.n and not total > backend.rows.n * _limits.smallest_mean(dtype):
        _limits.check_nearest(blocks(X), dtype, centroids)
    return alike(labels, X), alike(distances, X)


def merged(labels: Any, merged: NDArray[np.intp], X: Any) -> Any:
    """Labels of coincident centroids become the first one's."""
    if np.array_equal(merged, np.arange(len(merged))):
        return labels
    from ekmfast.rows.cuda.layer import host, upload, view

    return alike(upload(merged.astype(np.int32)[host(view(labels))]), X)
