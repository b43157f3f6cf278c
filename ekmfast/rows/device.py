"""Where sums over samples are computed; the solver asks a backend for nothing else."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from ekmfast._parameters import OneOf

DEVICE = OneOf("cpu", "cuda", "auto")
# Multiply-adds of a pass below which starting kernels costs more than a processor's work.
WORTH_A_CARD = 1 << 28

logger = logging.getLogger("ekmfast")


def is_cuda_array(X: Any) -> bool:
    """Whether X lies on a card, by what it offers; nothing is imported or touched."""
    if hasattr(X, "__cuda_array_interface__") or hasattr(X, "__cuda_ndarray__"):
        return True
    device = getattr(X, "__dlpack_device__", None)
    return device is not None and int(device()[0]) in (2, 13)  # CUDA, CUDA managed


def to_host(X: Any) -> Any:
    """A copy on the host of an array on a card."""
    from ekmfast.rows.cuda.layer import host, view

    return host(view(X))


@lru_cache(1)
def cuda_status() -> str | None:
    """Why no card can be used here, or None if one can."""
    for package in ("numba", "numba_cuda"):
        if find_spec(package) is None:
            return f'{package} is not installed: pip install "ekmfast[cuda]"'
    from numba import cuda
    from numba.cuda.core import config

    if config.ENABLE_CUDASIM:
        return None
    from numba.cuda.cudadrv.error import CudaSupportError

    try:
        if len(cuda.gpus) == 0:
            return "the driver finds no card"
        cuda.current_context()
    except CudaSupportError as error:
        return " ".join(str(error).split()).rstrip(". ")
    except Exception as error:  # of the driver, which has its own classes of them
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def describe_card() -> str:
    """The card that ``device='cuda'`` takes, or why there is none."""
    missing = cuda_status()
    if missing is not None:
        return f"none: {missing}"
    from numba import cuda
    from numba.cuda.core import config

    if config.ENABLE_CUDASIM:
        return "none: Numba simulates one"
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return "{} (compute capability {}.{})".format(name, *device.compute_capability)


def choose(device: str, X: Any = None, work: float = 0.0) -> tuple[str, str]:
    """``'cpu'`` or ``'cuda'``, and why.

    ``work`` is the multiply-adds of a pass over X. ``'auto'`` takes the card for arrays that lie
    there, and for others where there is a card and a pass is worth it.
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
        choice = "cuda", "X lies on the card"
    elif work < WORTH_A_CARD:
        choice = "cpu", f"{work:.2g} multiply-adds a pass are too few for the card"
    else:
        choice = "cuda", f"a card is there and a pass takes {work:.2g} multiply-adds"
    logger.info("device='auto' is %s: %s", *choice)
    return choice
