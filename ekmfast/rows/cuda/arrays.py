"""Arrays of any library on a GPU: Numba's view of them, and results of the same kind."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ekmfast.rows.device import cuda_status


def as_device(X: Any, name: str = "X") -> Any:
    """Numba's view of an array on a GPU, without a copy; checked like a NumPy array."""
    missing = cuda_status()
    if missing is not None:
        raise RuntimeError(f"{name} lies on a CUDA device that cannot be used: {missing}")
    from ekmfast.rows.cuda.layer import view

    # A tensor that needs gradients has an interface that raises an error.
    interfaces = "__cuda_array_interface__", "__cuda_ndarray__"
    if not _is_tensor(X) and not any(hasattr(X, interface) for interface in interfaces):
        X = _by_dlpack(X, name)
    if _is_tensor(X):  # torch waits on its own stream for what computes the tensor, ours need not
        torch = sys.modules["torch"]
        X = X.detach()
        if torch.cuda.is_available():  # it is not in the simulator
            torch.cuda.current_stream(X.device).synchronize()
    array = view(X)
    if array.dtype != np.float32 and array.dtype != np.float64:
        raise TypeError(f"{name} must be float32 or float64, got {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions (rows, columns), got {array.ndim}")
    if array.shape[1] == 0:
        raise ValueError(f"{name} must have at least one column, got shape {array.shape}")
    return array


def _is_tensor(X: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(X, torch.Tensor)


def _by_dlpack(X: Any, name: str) -> Any:
    for library in ("torch", "cupy"):
        try:
            return __import__(library).from_dlpack(X)
        except ImportError:
            continue
    raise TypeError(
        f"{name} can be read by DLPack only, for which torch or CuPy is needed: "
        'pip install "ekmfast[torch]"'
    )


def alike(array: Any, X: Any) -> Any:
    """A Numba array as an array of the library of X, without a copy."""
    from ekmfast.rows.cuda.layer import finish

    library = type(X).__module__.partition(".")[0]
    if library in ("torch", "cupy"):  # whose streams need not wait for copies to the GPU
        finish()
    if library == "torch":
        return sys.modules["torch"].as_tensor(array, device=X.device)
    if library == "cupy":
        return sys.modules["cupy"].asarray(array)
    return array
