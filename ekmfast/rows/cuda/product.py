"""Matrix products on the card: by torch or CuPy where one is loaded or installed, else by our own.

float32 is multiplied as float32. TensorFloat-32, which rounds the factors to 10 bits of mantissa,
is used only where ``EKMFAST_CUDA_TF32=1`` asks for it and torch is there: scores are then off by
3e-4 of the largest, and weights by alpha times as much.
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
from ekmfast.rows.cuda.layer import SIMULATED, current_stream, launch

# Tensors that TorchProduct keeps: those of a chunk and of a last, shorter one, with some room.
KEPT_VIEWS = 16

PRODUCTS = ("torch", "cupy", "own")


class Product(Protocol):
    """Two products of chunks of rows; all arrays are C-contiguous and on the card."""

    name: str

    def scores(self, Y: Any, centroids: Any, out: Any) -> None:
        """``out (rows, K) = Y (rows, D) @ centroids (K, D).T``"""

    def sums(self, weights: Any, Y: Any, depth: int, out: Any) -> None:
        """``out (batches, K, D)``: ``weights.T @ Y`` of each ``depth`` rows."""


class OwnProduct:
    """A plain tiled kernel: slower than a library's, but always there."""

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


def _handle(stream: Any) -> int:
    return int(stream.handle) if stream else 0


class TorchProduct:
    """cuBLAS through torch, which sees the same memory."""

    name = "torch"

    def __init__(self, view: Callable[[Any], Any] | None = None) -> None:
        import torch

        self.torch = torch
        self.tf32 = os.environ.get("EKMFAST_CUDA_TF32") == "1"
        self._make = view or (lambda array: torch.as_tensor(array, device="cuda"))
        self._views: dict[int, tuple[Any, Any]] = {}

    def view(self, array: Any) -> Any:
        """The array as a tensor; the last ones are kept, for making one takes as long as a launch.

        An array that is kept cannot hand its id to another.
        """
        if id(array) not in self._views:
            if len(self._views) >= KEPT_VIEWS:
                self._views.clear()
            self._views[id(array)] = array, self._make(array)
        return self._views[id(array)][1]

    @contextmanager
    def _precision(self) -> Iterator[None]:
        # Whatever the user's program has set, for the time of our products, which run where our
        # kernels do.
        matmul = self.torch.backends.cuda.matmul
        wanted: str | bool
        if hasattr(matmul, "fp32_precision"):
            switch, wanted = "fp32_precision", "tf32" if self.tf32 else "ieee"
        else:  # torch before 2.9
            switch, wanted = "allow_tf32", self.tf32
        before = getattr(matmul, switch)
        setattr(matmul, switch, wanted)
        try:
            if SIMULATED:
                yield
            else:
                here = self.torch.cuda.ExternalStream(_handle(current_stream()))
                with self.torch.cuda.stream(here):
                    yield
        finally:
            setattr(matmul, switch, before)

    def scores(self, Y: Any, centroids: Any, out: Any) -> None:
        with self._precision():
            self.torch.mm(self.view(Y), self.view(centroids).T, out=self.view(out))

    def sums(self, weights: Any, Y: Any, depth: int, out: Any) -> None:
        w, y = (self.view(a).view(-1, depth, a.shape[1]) for a in (weights, Y))
        with self._precision():
            self.torch.bmm(w.transpose(1, 2), y, out=self.view(out))


class CupyProduct:
    """cuBLAS through CuPy, which sees the same memory."""

    name = "cupy"

    def __init__(self, library: Any = None) -> None:
        self.library = library or importlib.import_module("cupy")

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if SIMULATED:
            yield
        else:
            with self.library.cuda.ExternalStream(_handle(current_stream())):
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


def _cupy_is_there() -> bool:
    return importlib.util.find_spec("cupy") is not None


def choose_product(name: str | None = None) -> Product:
    """The product that ``EKMFAST_CUDA_PRODUCT`` names, else the first there is of PRODUCTS.

    A library that the program has loaded already goes before one that it has not.
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
    return CupyProduct() if _cupy_is_there() else OwnProduct()
