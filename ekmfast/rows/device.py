"""The choice between CPU and GPU for the passes over an array."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ekmfast._parameters import OneOf
from ekmfast.rows.threads import get_num_threads

DEVICE = OneOf("cpu", "cuda", "auto")
# What `choose` takes the GPU's gain from: times of passes by 16 threads of a Xeon and by an H200
# (bench/device_table.py, bench/results/gpu-nvidia-h200.md). One thread computes so many
# multiply-adds a second, for D features; K matters less.
THREAD_RATE = {2: 3.1e9, 8: 13e9, 32: 24e9, 128: 39e9}
# A pass by the GPU takes about this long, in seconds, even if it has little to do. Where the CPU's
# estimate is larger, at most 20 passes repaid the sending of the rows.
GPU_LATENCY = 1.5e-4

logger = logging.getLogger("ekmfast")


def is_cuda_array(X: Any) -> bool:
    """Whether X lies on a GPU, by the attributes of X alone, without importing a package."""
    if hasattr(X, "__cuda_array_interface__") or hasattr(X, "__cuda_ndarray__"):
        return True
    device = getattr(X, "__dlpack_device__", None)
    if device is None:
        return False
    try:
        return int(device()[0]) in (2, 13)  # CUDA, CUDA managed
    except (BufferError, TypeError, ValueError):  # Arrow, of an array with missing entries
        return False


def to_host(X: Any) -> Any:
    """A copy in memory of the host of an array on a GPU."""
    from ekmfast.rows.cuda.layer import host, view

    return host(view(X))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def import_failure(package: str, error: Exception) -> str:
    """Why an installed compiler of CUDA kernels cannot be imported, in one line."""
    numpy = _version("numpy")
    why = f"{package} {_version(package)} cannot be imported with numpy {numpy}"
    if "module 'numpy' has no attribute" in str(error):
        why += ', which is too new for it: pip install "numpy<2.5"'
    return f"{why} ({type(error).__name__}: {' '.join(str(error).split())})"


@lru_cache(1)
def cuda_status() -> str | None:
    """Why no GPU can be used here, or None if one can."""
    try:
        from ekmfast.rows.cuda.compiler import SIMULATED, CudaSupportError, cuda
    except ImportError as error:
        return str(error)
    if SIMULATED:
        return None
    try:
        if len(cuda.gpus) == 0:
            return "the driver finds no GPU"
        cuda.current_context()
    except CudaSupportError as error:
        return " ".join(str(error).split()).rstrip(". ")
    except Exception as error:  # the driver has error classes of its own
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def describe_card() -> str:
    """The GPU that ``device='cuda'`` uses, or why there is none."""
    missing = cuda_status()
    if missing is not None:
        return f"none: {missing}"
    from ekmfast.rows.cuda.compiler import SIMULATED, cuda

    if SIMULATED:
        return "none: Numba simulates one"
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return "{} (compute capability {}.{})".format(name, *device.compute_capability)


def cpu_seconds(work: float, n_features: int, n_threads: int | None = None) -> float:
    """About how long ``n_threads`` threads, by default all, take for ``work`` multiply-adds."""
    sizes, rates = np.log(list(THREAD_RATE)), list(THREAD_RATE.values())
    rate = np.interp(np.log(n_features), sizes, rates) * (n_threads or get_num_threads())
    return float(work / rate)


def choose(
    device: str, X: Any = None, work: float = 0.0, n_threads: int | None = None
) -> tuple[str, str]:
    """``'cpu'`` or ``'cuda'``, and the reason for the choice.

    ``work`` is the number of multiply-adds of a pass over X. ``'auto'`` chooses the GPU for arrays
    that lie on it, and for other arrays if there is a GPU and the CPU would take longer than the
    latency of the GPU, by times that were measured once.
    """
    DEVICE.check("device", device)
    there = is_cuda_array(X)
    if device == "cpu":
        if there:
            raise ValueError(
                "X lies on a CUDA device but device='cpu': copy X to the host, or use "
                "device='cuda' or device='auto'"
            )
        return "cpu", "device='cpu'"
    missing = cuda_status()
    if device == "cuda":
        if missing is not None:
            raise RuntimeError(f"device='cuda' needs a usable GPU: {missing}")
        return "cuda", "device='cuda'"
    if missing is not None:
        if there:
            raise RuntimeError(f"X lies on a CUDA device that cannot be used: {missing}")
        choice = "cpu", missing
    elif there:
        choice = "cuda", "X lies on the GPU"
    else:
        seconds = cpu_seconds(work, X.shape[1], n_threads)
        name = "cuda" if seconds > GPU_LATENCY else "cpu"
        choice = name, f"a pass should take the CPU {1e3 * seconds:.2g} ms"
    logger.info("device='auto' is %s: %s", *choice)
    return choice
