"""Functions of Numba that the CUDA kernels use and that its simulator lacks or has otherwise.

The same kernels run on a GPU and, with ``NUMBA_ENABLE_CUDASIM=1``, in Numba's simulator, which
starts a Python thread for each thread of a thread block. Therefore thread blocks are small in the
simulator, and the threads of a warp exchange numbers by shared memory.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ekmfast.rows.cuda import compiler
from ekmfast.rows.cuda.compiler import cuda, intrinsic, ir, libdevice, make_array, types

SIMULATED = compiler.SIMULATED
if not SIMULATED:
    from cuda.bindings import driver
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


def stream_handle() -> int:
    """The driver's handle of `current_stream`."""
    stream = current_stream()
    return int(stream.handle) if stream and not SIMULATED else 0


def run_on(stream: Any) -> None:
    _thread.stream = stream


if ir is None:  # in the simulator and with numba-cuda-mlir

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def larger(x: Any, y: Any) -> Any:
        # `y != y` is false for NaN in numba-cuda-mlir 0.6.0, unlike in Python.
        return x if x > y or np.isnan(y) else y

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def load_2(array: Any, at: Any) -> Any:
        return array[at], array[at + 1]

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def load_4(array: Any, at: Any) -> Any:
        return array[at], array[at + 1], array[at + 2], array[at + 3]


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
    def reciprocal_32(x: Any) -> Any:
        return np.float32(1) / x

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def reciprocal_64(x: Any) -> Any:
        return 1.0 / x

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def leading_bits(x: Any) -> Any:
        return (np.float32(x).view(np.int32) & np.int32(-(1 << 13))).view(np.float32)

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

elif ir is None:
    from ekmfast.rows.cuda.mlir import exp2_32, leading_bits, reciprocal_32
else:
    FLOAT, DOUBLE, LONG = ir.FloatType(), ir.DoubleType(), ir.IntType(64)

    def _assembly(builder: Any, result: Any, text: str, constraints: str, arguments: Any) -> Any:
        kinds = [argument.type for argument in arguments]
        instruction = ir.InlineAsm(ir.FunctionType(result, kinds), text, constraints)
        return builder.call(instruction, arguments)

    @intrinsic  # type: ignore[untyped-decorator]
    def exp2_32(typing_context: Any, x: Any) -> Any:
        """2^x in one instruction, to 2 units in the last place; denormal results are 0."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _assembly(builder, FLOAT, "ex2.approx.ftz.f32 $0, $1;", "=f,f", arguments)

        return types.float32(types.float32), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def larger(typing_context: Any, x: Any, y: Any) -> Any:
        """The larger of two numbers, or the other one if one is NaN."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if x == types.float32:
                return _assembly(builder, FLOAT, "max.f32 $0, $1, $2;", "=f,f,f", arguments)
            return _assembly(builder, DOUBLE, "max.f64 $0, $1, $2;", "=d,d,d", arguments)

        return x(x, x), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def reciprocal_32(typing_context: Any, x: Any) -> Any:
        """1 / x in one instruction, to 1 unit in the last place."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _assembly(builder, FLOAT, "rcp.approx.ftz.f32 $0, $1;", "=f,f", arguments)

        return types.float32(types.float32), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def leading_bits(typing_context: Any, x: Any) -> Any:
        """x with the first 10 bits of its mantissa, which TensorFloat-32 keeps, and zeros."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            bits = builder.bitcast(arguments[0], ir.IntType(32))
            kept = builder.and_(bits, ir.Constant(ir.IntType(32), -(1 << 13)))
            return builder.bitcast(kept, FLOAT)

        return types.float32(types.float32), generate

    def _load(count: int) -> Any:
        @intrinsic  # type: ignore[untyped-decorator]
        def load(typing_context: Any, array: Any, at: Any) -> Any:
            """Consecutive numbers of an array that no kernel writes, in one instruction.

            Their address must be a multiple of their size together.
            """
            returns = types.UniTuple(array.dtype, count)

            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                data = make_array(signature.args[0])(context, builder, arguments[0]).data
                address = builder.ptrtoint(builder.gep(data, [arguments[1]]), LONG)
                real, name, letter = (
                    (FLOAT, "f32", "f") if array.dtype == types.float32 else (DOUBLE, "f64", "d")
                )
                results = ", ".join(f"${i}" for i in range(count))
                constraints = ",".join([f"={letter}"] * count + ["l"])
                instruction = ir.InlineAsm(
                    ir.FunctionType(ir.LiteralStructType([real] * count), [LONG]),
                    f"ld.global.nc.v{count}.{name} {{{results}}}, [${count}];",
                    constraints,
                    side_effect=True,  # so that the compiler leaves the load ahead of its use
                )
                got = builder.call(instruction, [address])
                numbers = [builder.extract_value(got, i) for i in range(count)]
                return context.make_tuple(builder, signature.return_type, numbers)

            return returns(array, types.int64), generate

        return load

    load_2, load_4 = _load(2), _load(4)


if not SIMULATED:

    @cuda.jit(device=True)  # type: ignore[untyped-decorator]
    def reciprocal_64(x: Any) -> Any:
        return 1.0 / x

    exp2_64 = libdevice.exp2
    log2_32 = libdevice.log2f
    log2_64 = libdevice.log2

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


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def power_of_two(x: float, least: int, most: int) -> int:
    """The largest power of two up to x, within bounds that are powers of two."""
    return int(min(max(1 << (max(int(x), 1).bit_length() - 1), least), most))


def lanes_for(columns: int) -> int:
    """How many threads share a row of so many columns: a power of two."""
    return min(LANES, 1 << math.ceil(math.log2(max(columns, 1))))


def flat(array: Any, rows: int | None = None) -> Any:
    """A C-contiguous array as one row of numbers, or as ``rows`` rows; kept with the array."""
    kept = array.__dict__.setdefault("_ekmfast_flat", {})
    if rows not in kept:
        shape = (array.size,) if rows is None else (rows, array.size // max(rows, 1))
        kept[rows] = array.reshape(*shape)
    return kept[rows]


def address(array: Any) -> int:
    """Where an array begins in the GPU's memory; kept with the array."""
    if SIMULATED:
        return int(array._ary.ctypes.data)
    known: int | None = array.__dict__.get("_ekmfast_address")
    if known is None:
        known = array._ekmfast_address = array.device_ctypes_pointer.value or 0
    return known


def is_aligned(array: Any) -> bool:
    """Whether an array begins at a multiple of 16 bytes, which the widest loads need."""
    return SIMULATED or address(array) % 16 == 0


def empty(shape: int | tuple[int, ...], dtype: Any) -> Any:
    return cuda.device_array(shape, dtype)


def finish() -> None:
    """Wait for what was started on the current stream.

    The driver refuses to wait for all streams while another thread records a pass.
    """
    if not SIMULATED:
        (error,) = driver.cuStreamSynchronize(stream_handle())
        if error:
            raise RuntimeError(f"what was started on the GPU failed: {error.name}")


def part_of(memory: Any, place: slice, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """The bytes ``place`` of an array of bytes, as a C-contiguous array.

    For arrays on the GPU the array is made at once: Numba takes three times as long to slice the
    bytes, to see them as numbers and to give them a shape.
    """
    if isinstance(memory, np.ndarray) or not hasattr(memory, "gpu_data"):
        return memory[place].view(dtype).reshape(*shape)
    strides = [dtype.itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    data = memory.gpu_data.view(place.start, place.stop)
    return type(memory)(shape, strides, dtype, gpu_data=data)


def upload(array: Any) -> Any:
    """A copy on the GPU, in the order of the current stream."""
    array = np.ascontiguousarray(array)
    stream = current_stream()
    if SIMULATED or stream or not array.size:
        return cuda.to_device(array, stream=stream)
    there = empty(array.shape, array.dtype)
    # Numba's own copy takes Python ten times as long as the driver takes for a small array.
    (error,) = driver.cuMemcpyHtoD(address(there), array.ctypes.data, array.nbytes)
    if error:
        raise RuntimeError(f"an array could not be copied to the GPU: {error.name}")
    return there


def host(array: Any) -> np.ndarray[Any, Any]:
    """Copy to the host after everything that was started before on this stream."""
    stream = current_stream()
    if stream:
        stream.synchronize()
    if SIMULATED or not array.size or not array.is_c_contiguous():
        return np.asarray(array.copy_to_host())
    cuda.current_context()  # a new thread has none
    here = np.empty(array.shape, array.dtype)
    (error,) = driver.cuMemcpyDtoH(here.ctypes.data, address(array), here.nbytes)
    if error:
        raise RuntimeError(f"an array could not be copied from the GPU: {error.name}")
    return here


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
