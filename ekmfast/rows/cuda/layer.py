"""Functions of Numba that the CUDA kernels use and that its simulator lacks or has otherwise.

The same kernels run on a GPU and, with ``NUMBA_ENABLE_CUDASIM=1``, in Numba's simulator, which
starts a Python thread for each thread of a thread block. Therefore thread blocks are small in the
simulator, and the threads of a warp exchange numbers by shared memory.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ekmfast._optional import require

require("numba_cuda", "cuda")

from numba import cuda  # noqa: E402  (after the check, whose error says how to install it)
from numba.cuda.core import config  # noqa: E402

SIMULATED = bool(config.ENABLE_CUDASIM)
# Threads of a thread block, and how many of them share a row at most.
THREADS = 8 if SIMULATED else 128
LANES = 4 if SIMULATED else 32
# How many threads of the fused kernel add up one of the numbers that a thread block returns.
SEGMENTS = 4 if SIMULATED else 8

Kernel = Any


def kernel(function: Callable[..., None]) -> Kernel:
    """Compile at the first call, for the types of its arguments."""
    return cuda.jit(function)


_thread = threading.local()


def current_stream() -> Any:
    """The stream on which this thread starts kernels and products; 0 is the default stream."""
    return getattr(_thread, "stream", 0)


def run_on(stream: Any) -> None:
    _thread.stream = stream


def launch(compiled: Kernel, blocks: int, *arguments: Any) -> None:
    """Start ``blocks`` thread blocks of THREADS threads."""
    if blocks == 0:
        return
    if not SIMULATED:
        # Numba warns of small grids, which are normal for small data.
        before = config.CUDA_LOW_OCCUPANCY_WARNINGS
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
        try:
            configured = compiled[blocks, THREADS, current_stream()]
        finally:
            config.CUDA_LOW_OCCUPANCY_WARNINGS = before
        configured(*arguments)
        return
    with warnings.catch_warnings():  # a GPU does not warn of NaN, infinity and overflow either
        warnings.simplefilter("ignore", RuntimeWarning)
        compiled[blocks, THREADS](*arguments)


if SIMULATED:

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def exp2_32(x: Any) -> Any:
        return np.exp2(x)

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def exp2_64(x: Any) -> Any:
        return np.exp2(x)

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def log2_32(x: Any) -> Any:
        return np.log2(x)

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def log2_64(x: Any) -> Any:
        return np.log2(x)

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def sync_warp() -> None:
        cuda.syncthreads()

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def lanes_max(value: Any, lanes: int, scratch: Any) -> Any:
        t = cuda.threadIdx.x
        scratch[t] = value
        cuda.syncthreads()
        first = t - t % lanes
        for i in range(first, first + lanes):
            if scratch[i] > value:
                value = scratch[i]
        cuda.syncthreads()
        return value

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def lanes_sum(value: Any, lanes: int, scratch: Any) -> Any:
        t = cuda.threadIdx.x
        step = 1
        while step < lanes:  # in the order in which the shuffles of a GPU add
            scratch[t] = value
            cuda.syncthreads()
            value = value + scratch[t ^ step]
            cuda.syncthreads()
            step *= 2
        return value

else:
    from llvmlite import ir
    from numba.core import types
    from numba.cuda import libdevice
    from numba.cuda.extending import intrinsic

    @intrinsic  # type: ignore[untyped-decorator]
    def exp2_32(typing_context: Any, x: Any) -> Any:
        """2^x in one instruction, to 2 units in the last place; denormal results are 0."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            real = ir.FloatType()
            instruction = ir.InlineAsm(
                ir.FunctionType(real, [real]), "ex2.approx.ftz.f32 $0, $1;", "=f,f"
            )
            return builder.call(instruction, arguments)

        return types.float32(types.float32), generate

    exp2_64 = libdevice.exp2
    log2_32 = libdevice.log2f
    log2_64 = libdevice.log2

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def sync_warp() -> None:
        cuda.syncwarp()

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def lanes_max(value: Any, lanes: int, scratch: Any) -> Any:
        step = 1
        while step < lanes:
            other = cuda.shfl_xor_sync(0xFFFFFFFF, value, step)
            if other > value:
                value = other
            step *= 2
        return value

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def lanes_sum(value: Any, lanes: int, scratch: Any) -> Any:
        step = 1
        while step < lanes:
            value = value + cuda.shfl_xor_sync(0xFFFFFFFF, value, step)
            step *= 2
        return value


def lanes_for(columns: int) -> int:
    """How many threads share a row of so many columns: a power of two."""
    return min(LANES, 1 << math.ceil(math.log2(max(columns, 1))))


def empty(shape: int | tuple[int, ...], dtype: Any) -> Any:
    return cuda.device_array(shape, dtype)


def upload(array: Any) -> Any:
    return cuda.to_device(np.ascontiguousarray(array), stream=current_stream())


def host(array: Any) -> np.ndarray[Any, Any]:
    """Copy to the host after everything that was started before on this stream."""
    stream = current_stream()
    if stream:
        stream.synchronize()
    return np.asarray(array.copy_to_host())


def view(X: Any) -> Any:
    """Numba's view of an object with ``__cuda_array_interface__``, or a Numba array itself."""
    if hasattr(X, "__cuda_ndarray__"):
        return X
    if not SIMULATED:
        return cuda.as_cuda_array(X)
    holder = type("Holder", (), {"__array_interface__": X.__cuda_array_interface__, "X": X})()
    return cuda.to_device(np.asarray(holder), copy=False)


def free_memory() -> int:
    """Free bytes of the GPU's memory, but at most EKMFAST_CUDA_MEMORY if that is set."""
    limit = os.environ.get("EKMFAST_CUDA_MEMORY")
    free = 1 << 40 if SIMULATED else int(cuda.current_context().get_memory_info().free)
    return free if limit is None else min(free, int(limit))
