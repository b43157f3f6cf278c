"""Matrix products on the GPU, by torch or CuPy if one is installed, else by a kernel of our own.

float32 numbers are multiplied in float32, or by torch as parts: see `TorchProduct`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import SIMULATED, stream_handle

# TorchProduct keeps so many tensors: enough for those of a chunk and of a shorter last chunk.
KEPT_VIEWS = 16

# With fewer centroids, the product of parts is no faster than that in float32 (docs/cuda.md).
SPLIT_CENTROIDS = 8 if SIMULATED else 256

PRODUCTS = ("torch", "cupy", "own")


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


class WholeProduct:
    """What multiplies numbers whole."""

    def splits(self, dtype: Any, width: int) -> bool:
        return False

    def scores_of_parts(self, parts: Any, centroids: Any, out: Any) -> None:
        raise NotImplementedError


class OwnProduct(WholeProduct):
    """A tiled kernel, slower than that of a library but always available."""

    name = "own"

    def scores(self, Y: Any, centroids: Any, out: Any) -> None:
        m, n = out.shape
        blocks = kernels.product_blocks(m, n, 1)
        multiply = kernels.product(np.dtype(Y.dtype).type, False)
        launch(multiply, blocks, Y, centroids, Y.shape[1], out.reshape(1, m, n))

    def sums(self, weights: Any, Y: Any, depth: int, out: Any) -> None:
        batches, m, n = out.shape
        blocks = kernels.product_blocks(m, n, batches)
        launch(kernels.product(np.dtype(Y.dtype).type, True), blocks, weights, Y, depth, out)


class TorchProduct:
    """cuBLAS by torch, on the same memory.

    A GPU multiplies float32 numbers eight times faster if they are rounded to the 10 bits of
    mantissa of TensorFloat-32. A number is the sum of its first 10 bits and a rest, y = a + b and
    c = e + f, so y c = a e + a f + b e + b f. The last term is 2^-22 of the product or less, and is
    left out. The others are one product of (a, a, b) with (e, f, e), which takes a third of the
    time of the product in float32 and rounds about four times as much. It is used for scores of
    SPLIT_CENTROIDS or more, below which memory limits either. The sums of Eq. 39, whose terms
    cancel, are always computed in float32.

    ``EKMFAST_CUDA_TF32=0`` switches it off. With ``EKMFAST_CUDA_TF32=1`` all products use rounded
    numbers: the error of scores is then 3e-4 of the largest score, and the error of weights alpha
    times as large.
    """

    name = "torch"

    def __init__(self, view: Callable[[Any], Any] | None = None) -> None:
        import torch

        self.torch = torch
        setting = os.environ.get("EKMFAST_CUDA_TF32")
        if setting not in (None, "0", "1"):
            raise ValueError(f"EKMFAST_CUDA_TF32 must be 0 or 1, or not be set, got {setting!r}")
        self.tf32 = setting == "1"
        self.parts = setting is None
        self._make = view or (lambda array: torch.as_tensor(array, device="cuda"))
        self._views: dict[int, tuple[Any, Any]] = {}

    def view(self, array: Any) -> Any:
        """The array as a tensor. Tensors are kept, since making one takes as long as a launch.

        The arrays are kept with them, so that no other array can get the same id.
        """
        if id(array) not in self._views:
            if len(self._views) >= KEPT_VIEWS:
                self._views.clear()
            self._views[id(array)] = array, self._make(array)
        return self._views[id(array)][1]

    @contextmanager
    def _precision(self, tf32: bool) -> Iterator[None]:
        # Sets the precision and the stream of torch for the time of our products, and then restores
        # what the user's program had set.
        matmul = self.torch.backends.cuda.matmul
        wanted: str | bool
        if hasattr(matmul, "fp32_precision"):
            switch, wanted = "fp32_precision", "tf32" if tf32 else "ieee"
        else:  # torch before 2.9
            switch, wanted = "allow_tf32", tf32
        before = getattr(matmul, switch)
        setattr(matmul, switch, wanted)
        try:
            if SIMULATED:
                yield
            else:
                with self.torch.cuda.stream(self._stream()):
                    yield
        finally:
            setattr(matmul, switch, before)

    def _stream(self) -> Any:
        """The stream of our kernels, on which products must run to be in order with them."""
        stream = stream_handle()
        # For handle 0 torch would make a new stream, which does not wait for the default stream.
        return (
            self.torch.cuda.ExternalStream(stream) if stream else self.torch.cuda.default_stream()
        )

    def splits(self, dtype: Any, width: int) -> bool:
        return self.parts and dtype is np.float32 and width >= SPLIT_CENTROIDS

    def scores_of_parts(self, parts: Any, centroids: Any, out: Any) -> None:
        with self._precision(tf32=True):
            self.torch.mm(self.view(parts), self.view(centroids).T, out=self.view(out))

    def scores(self, Y: Any, centroids: Any, out: Any) -> None:
        with self._precision(self.tf32):
            self.torch.mm(self.view(Y), self.view(centroids).T, out=self.view(out))

    def sums(self, weights: Any, Y: Any, depth: int, out: Any) -> None:
        w, y = (self.view(a).view(-1, depth, a.shape[1]) for a in (weights, Y))
        with self._precision(self.tf32):
            self.torch.bmm(w.transpose(1, 2), y, out=self.view(out))


class CupyProduct(WholeProduct):
    """cuBLAS by CuPy, on the same memory."""

    name = "cupy"

    def __init__(self, library: Any = None) -> None:
        self.library = library or importlib.import_module("cupy")

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if SIMULATED:
            yield
        else:
            with self.library.cuda.ExternalStream(stream_handle()):
                yield

    def scores(self, Y: Any, centroids: Any, out: Any) -> None:
        view = self.library.asarray
        with self._stream():
            self.library.matmul(view(Y), view(centroids).T, out=view(out))

    def sums(self, weights: Any, Y: Any, depth: int, out: Any) -> None:
        w, y = (self.library.asarray(a).reshape(-1, depth, a.shape[1]) for a in (weights, Y))
        with self._stream():
            self.library.matmul(w.transpose(0, 2, 1), y, out=self.library.asarray(out))


def _torch_has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _cupy_is_installed() -> bool:
    return importlib.util.find_spec("cupy") is not None


def choose_product(name: str | None = None) -> Product:
    """The product that ``EKMFAST_CUDA_PRODUCT`` names, else the first available one of PRODUCTS.

    If the program has imported CuPy but not torch, CuPy is preferred.
    """
    name = name or os.environ.get("EKMFAST_CUDA_PRODUCT")
    if name is not None and name not in PRODUCTS:
        raise ValueError(f"EKMFAST_CUDA_PRODUCT must be one of {PRODUCTS}, got {name!r}")
    if name == "own" or (name is None and SIMULATED):
        return OwnProduct()
    if name == "torch":
        return TorchProduct()
    if name == "cupy" or (name is None and "cupy" in sys.modules and "torch" not in sys.modules):
        return CupyProduct()
    if _torch_has_cuda():
        return TorchProduct()
    return CupyProduct() if _cupy_is_installed() else OwnProduct()
