"""Start kernels with little work for Python.

Numba takes 80 microseconds to start a kernel with eight arrays, which is longer than many kernels
run. It does so once for each kernel and each kind of arguments, and compiles the kernel; after that
`launch` hands the arguments to the driver itself. A kernel takes an array as the eight-byte numbers
(0, 0, size, bytes of a number, address, shape, strides).
"""

from __future__ import annotations

import ctypes
import struct
import threading
import warnings
from typing import Any

import numpy as np

from ekmfast.rows.cuda.compiler import NAME, SIMULATED, config, cuda
from ekmfast.rows.cuda.layer import THREADS, Kernel, address, current_stream, stream_handle

if not SIMULATED:
    from cuda.bindings import driver

_thread = threading.local()
# One thread at a time changes the setting of Numba's in `_call`, which is of the whole process, and
# restores it. The same thread may come here again, from a signal handler.
_setting = threading.RLock()


class Started:
    """A compiled kernel, and memory for its arguments."""

    def __init__(self, function: Any, codes: tuple[str, ...]) -> None:
        self.function = function
        self.format = struct.Struct("<" + "".join(codes))
        slots = self.format.size // 8
        self.values = ctypes.create_string_buffer(self.format.size)
        first = ctypes.addressof(self.values)
        self.pointers = (ctypes.c_void_p * slots)(*(first + 8 * i for i in range(slots)))
        self.address = ctypes.addressof(self.pointers)

    def __call__(self, blocks: int, numbers: list[Any]) -> None:
        self.format.pack_into(self.values, 0, *numbers)
        (error,) = driver.cuLaunchKernel(
            self.function, blocks, 1, 1, THREADS, 1, 1, 0, stream_handle(), self.address, 0
        )
        if error:
            raise RuntimeError(f"a CUDA kernel could not be started: {error.name}")


def _described(array: Any) -> tuple[str, tuple[int, ...]]:
    """The kind of an array on the GPU, and the numbers by which a kernel takes it."""
    known = array.__dict__.get("_ekmfast")
    if known is None:
        begin = address(array)
        numbers = (0, 0, array.size, array.dtype.itemsize, begin, *array.shape, *array.strides)
        kind = f"{array.dtype.char}{array.ndim}{array._numba_type_.layout}"
        known = array._ekmfast = kind, tuple(map(int, numbers))
    result: tuple[str, tuple[int, ...]] = known
    return result


def _scalar_code(kind: type) -> str:
    if kind is np.float32:
        return "f4x"
    return "d" if issubclass(kind, float) else "q"


def launch(compiled: Kernel, blocks: int, *arguments: Any) -> None:
    """Start ``blocks`` thread blocks of THREADS threads.

    Arguments are arrays on the GPU, integers (64 bits), np.float32 and float (64 bits).
    """
    if blocks == 0:
        return
    if SIMULATED:
        with warnings.catch_warnings():  # a GPU does not warn of NaN, infinity and overflow either
            warnings.simplefilter("ignore", RuntimeWarning)
            compiled[blocks, THREADS](*arguments)
        return
    if NAME == "numba-cuda-mlir":  # it hands arguments to the driver in another form
        _call(compiled, blocks, arguments)
        return
    kinds: list[Any] = [compiled]
    numbers: list[Any] = []
    for argument in arguments:
        if hasattr(argument, "__cuda_ndarray__"):
            kind, values = _described(argument)
            kinds.append(kind)
            numbers += values
        else:
            kinds.append(type(argument))
            numbers.append(argument)
    started = _thread.__dict__.setdefault("started", {})
    key = tuple(kinds)
    if key not in started:
        started[key] = _first(compiled, blocks, arguments, kinds[1:])
        return
    started[key](blocks, numbers)


def _call(compiled: Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
    with _setting:
        before = config.CUDA_LOW_OCCUPANCY_WARNINGS
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small grids are normal for small data
        try:
            compiled[blocks, THREADS, current_stream()](*arguments)
        finally:
            config.CUDA_LOW_OCCUPANCY_WARNINGS = before


def _first(compiled: Kernel, blocks: int, arguments: tuple[Any, ...], kinds: list[Any]) -> Started:
    """Start a kernel by Numba, which compiles it and makes this thread's context."""
    _call(compiled, blocks, arguments)
    cuda.current_context()
    types = tuple(compiled.typeof_pyval(argument) for argument in arguments)
    handle = compiled.overloads[types]._codelibrary.get_cufunc().handle
    codes = tuple(
        f"{5 + 2 * argument.ndim}q" if isinstance(kind, str) else _scalar_code(kind)
        for kind, argument in zip(kinds, arguments, strict=True)
    )
    return Started(driver.CUfunction(int(handle)), codes)
