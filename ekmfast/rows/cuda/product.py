"""Matrix products on the GPU, by cuBLAS where it is installed, else by a kernel of our own.

cuBLAS is called by its C interface: a product then runs on the stream of our kernels, can be
recorded with them, and needs no other library of Python.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import lru_cache
from typing import Any, Protocol
from weakref import finalize

import numpy as np

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import SIMULATED, address, empty, stream_handle

# With fewer centroids, the product of parts is no faster than that in float32. On an H200, 65,536
# rows took 43 and 41 microseconds for 64 centroids of 128 features, and 45 and 90 for 256 of 64.
SPLIT_CENTROIDS = 8 if SIMULATED else 256
# Bytes of memory for cuBLAS, as its manual recommends for GPUs of compute capability 9.0.
WORKSPACE = 32 << 20

PRODUCTS = ("cublas", "own")


class Product(Protocol):
    """The two matrix products for a chunk of rows; all arrays are C-contiguous and on the GPU."""

    name: str

    def splits(self, dtype: Any, width: int) -> bool:
        """Whether scores of so many centroids should be computed by `scores_of_parts`."""

    def scores_of_parts(self, parts: Any, centroids: Any, out: Any) -> None:
        """`scores` of rows (rows, 3 D) and centroids (K, 3 D) that hold parts of their numbers."""

    def scores(self, Y: Any, centroids: Any, out: Any) -> None:
        """``out (rows, K) = Y (rows, D) @ centroids (K, D).T``"""

    def sums(self, weights: Any, Y: Any, depth: int, out: Any) -> None:
        """``out (batches, K, D)``: ``weights.T @ Y``, one batch for each ``depth`` rows."""


class OwnProduct:
    """A tiled kernel, slower than that of a library but always available."""

    name = "own"

    def splits(self, dtype: Any, width: int) -> bool:
        return False

    def scores_of_parts(self, parts: Any, centroids: Any, out: Any) -> None:
        self.scores(parts, centroids, out)

    def scores(self, Y: Any, centroids: Any, out: Any) -> None:
        m, n = out.shape
        blocks = kernels.product_blocks(m, n, 1)
        multiply = kernels.product(np.dtype(Y.dtype).type, False)
        launch(multiply, blocks, Y, centroids, Y.shape[1], out.reshape(1, m, n))

    def sums(self, weights: Any, Y: Any, depth: int, out: Any) -> None:
        batches, m, n = out.shape
        blocks = kernels.product_blocks(m, n, batches)
        launch(kernels.product(np.dtype(Y.dtype).type, True), blocks, weights, Y, depth, out)


# From the headers cublas_api.h and library_types.h.
PLAIN, TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
REAL = {np.float32: 0, np.float64: 1}  # CUDA_R_32F, CUDA_R_64F
IN_FLOAT32, IN_TF32, IN_FLOAT64 = 68, 77, 70  # CUBLAS_COMPUTE_32F, _32F_FAST_TF32, _64F
ANY_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT


class CublasProduct:
    """cuBLAS.

    A GPU multiplies float32 numbers some seven times faster if they are rounded to the 10 bits of
    mantissa of TensorFloat-32. A number is the sum of its first 10 bits and a rest, y = a + b and
    c = e + f, so y c = a e + a f + b e + b f. The last term is 2^-20 of the product or less, and is
    left out. The others are one product of (a, a, b) with (e, f, e), which takes a third of the
    time of the product in float32 and rounds about four times as much. It is used for scores of
    SPLIT_CENTROIDS or more, below which memory limits either. The sums of Eq. 39, whose terms
    cancel, are always computed in float32.

    ``EKMFAST_CUDA_TF32=0`` switches it off. With ``EKMFAST_CUDA_TF32=1`` all products use rounded
    numbers: the error of scores is then 3e-4 of the largest score, and the error of weights alpha
    times as large.
    """

    name = "cublas"

    def __init__(self, library: Any = None) -> None:
        setting = os.environ.get("EKMFAST_CUDA_TF32")
        if setting not in (None, "0", "1"):
            raise ValueError(f"EKMFAST_CUDA_TF32 must be 0 or 1, or not be set, got {setting!r}")
        self.tf32 = setting == "1"
        self.parts = setting is None
        self.library = library or cublas()
        self._own = threading.local()

    def splits(self, dtype: Any, width: int) -> bool:
        return self.parts and dtype is np.float32 and width >= SPLIT_CENTROIDS

    def scores_of_parts(self, parts: Any, centroids: Any, out: Any) -> None:
        self._scores(parts, centroids, out, IN_TF32)

    def scores(self, Y: Any, centroids: Any, out: Any) -> None:
        self._scores(Y, centroids, out, self._precision(out))

    # cuBLAS stores matrices by columns, so to it each of our matrices is transposed.

    def _scores(self, Y: Any, centroids: Any, out: Any, precision: int) -> None:
        m, k = out.shape
        d = Y.shape[1]
        self._multiply(TRANSPOSED, PLAIN, k, m, d, (centroids, d, 0), (Y, d, 0), (out, k, 0), 1,
                       precision)  # fmt: skip

    def sums(self, weights: Any, Y: Any, depth: int, out: Any) -> None:
        batches, k, d = out.shape
        self._multiply(PLAIN, TRANSPOSED, d, k, depth, (Y, d, depth * d),
                       (weights, k, depth * k), (out, d, k * d), batches,
                       self._precision(out))  # fmt: skip

    def _precision(self, out: Any) -> int:
        if out.dtype == np.float64:
            return IN_FLOAT64
        return IN_TF32 if self.tf32 else IN_FLOAT32

    def _multiply(
        self,
        left: int,
        right: int,
        rows: int,
        columns: int,
        depth: int,
        A: tuple[Any, int, int],
        B: tuple[Any, int, int],
        out: tuple[Any, int, int],
        batches: int,
        precision: int,
    ) -> None:
        """``out = op(A) op(B)`` for each batch.

        Matrices are given as array, distance of their columns, and distance of their batches.
        """
        T = np.dtype(out[0].dtype).type
        real = REAL[T]
        number = ctypes.c_double if T is np.float64 else ctypes.c_float
        one, zero = number(1), number(0)
        _check(
            self.library.cublasGemmStridedBatchedEx(
                self._handle(), left, right, rows, columns, depth, ctypes.byref(one),
                address(A[0]), real, A[1], A[2], address(B[0]), real, B[1], B[2],
                ctypes.byref(zero), address(out[0]), real, out[1], out[2], batches, precision,
                ANY_ALGORITHM,
            )
        )  # fmt: skip

    def _handle(self) -> Any:
        """This thread's handle of the library, which works on the current stream."""
        if not hasattr(self._own, "handle"):
            self._own.handle = Handle(self.library)
        return self._own.handle.on(stream_handle())


class Handle:
    """A handle of the library with memory of its own, both of one thread, with which they end.

    With this memory, results do not depend on what else runs, and recordings of passes stay valid.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        self.value = ctypes.c_void_p()
        _check(library.cublasCreate_v2(ctypes.byref(self.value)))
        # The end of the process frees it without this call.
        finalize(self, library.cublasDestroy_v2, self.value).atexit = False
        self.workspace = empty(WORKSPACE, np.uint8)
        self.stream: int | None = None

    def on(self, stream: int) -> Any:
        """The handle, which works on a stream. A change of the stream takes its memory away."""
        if self.stream != stream:
            _check(self.library.cublasSetStream_v2(self.value, stream))
            place = address(self.workspace), self.workspace.size
            _check(self.library.cublasSetWorkspace_v2(self.value, *place))
            self.stream = stream
        return self.value


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS failed with status {status}")


@lru_cache(1)
def cublas() -> Any:
    """The library cuBLAS with the types of the functions that are called.

    Raises
    ------
    OSError
        If it is not installed.
    """
    from cuda import pathfinder

    try:
        path = pathfinder.load_nvidia_dynamic_lib("cublas").abs_path
    except RuntimeError as error:  # DynamicLibNotFoundError
        raise OSError("the library cuBLAS is not installed: pip install nvidia-cublas") from error
    library = ctypes.CDLL(path)
    pointer, whole, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
    matrix = [pointer, whole, whole, long]  # address, type, distance of columns and of batches
    for name, types in {
        "cublasCreate_v2": [pointer],
        "cublasDestroy_v2": [pointer],
        "cublasSetStream_v2": [pointer, pointer],
        "cublasSetWorkspace_v2": [pointer, pointer, ctypes.c_size_t],
        "cublasGemmStridedBatchedEx": [
            pointer, whole, whole, whole, whole, whole, pointer, *matrix, *matrix, pointer,
            *matrix, whole, whole, whole,
        ],
    }.items():  # fmt: skip
        function = getattr(library, name)
        function.argtypes, function.restype = types, whole
    return library


def choose_product(name: str | None = None) -> Product:
    """The product that ``EKMFAST_CUDA_PRODUCT`` names, else cuBLAS if it is installed."""
    name = name or os.environ.get("EKMFAST_CUDA_PRODUCT")
    if name is not None and name not in PRODUCTS:
        raise ValueError(f"EKMFAST_CUDA_PRODUCT must be one of {PRODUCTS}, got {name!r}")
    if name == "own" or (name is None and SIMULATED):
        return OwnProduct()
    if name == "cublas":
        return _cublas_product()
    try:
        return _cublas_product()
    except OSError:
        return OwnProduct()


@lru_cache
def _shared(setting: str | None) -> CublasProduct:
    return CublasProduct()


def _cublas_product() -> CublasProduct:
    """One product for all passes, since a handle of the library takes time and memory."""
    return _shared(os.environ.get("EKMFAST_CUDA_TF32"))
