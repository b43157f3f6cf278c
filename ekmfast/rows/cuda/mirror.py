"""Arrays in one piece of the GPU's memory: some are copied to or from the host all at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.layer import SIMULATED, part_of, stream_handle

if not SIMULATED:
    from cuda.bindings import driver

ALIGNMENT = 256  # bytes, as the GPU aligns memory of its own
# So many sets of arrays are kept, such as those for one, two, ... problems in one pass.
MOST_KEPT = 64

Specification = tuple[tuple[int, ...], Any]  # the shape and the dtype of an array


def _places(arrays: dict[str, Specification]) -> tuple[dict[str, slice], int]:
    """Where each array lies in a piece of memory, and how many bytes that has."""
    places, end = {}, 0
    for name, (shape, dtype) in arrays.items():
        size = math.prod(shape) * np.dtype(dtype).itemsize
        places[name] = slice(end, end + size)
        end += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
    return places, end


def _views(memory: Any, arrays: dict[str, Specification]) -> dict[str, Any]:
    places, _ = _places(arrays)
    return {
        name: part_of(memory, places[name], shape, np.dtype(dtype))
        for name, (shape, dtype) in arrays.items()
    }


def _check(result: tuple[Any, ...]) -> None:
    if result[0]:
        raise RuntimeError(f"a copy between host and GPU failed: {result[0].name}")


class Scratch:
    """Memory of the GPU that several sets of arrays use in turn.

    Allocating memory takes longer than running many kernels, and making an array of a part of it
    as long as starting several. Therefore both are kept.
    """

    def __init__(self) -> None:
        self._memory: Any = None
        self._kept: dict[Any, dict[str, Any]] = {}
        self.generation = 0  # how often a larger piece has replaced the memory

    def arrays(self, key: Any, **arrays: Specification) -> dict[str, Any]:
        """The arrays of a set, which ``key`` names; their contents are undefined.

        If the memory is too small for them, a larger piece replaces it.
        """
        if key in self._kept:
            return self._kept[key]
        if SIMULATED:
            return {name: cuda.device_array(*given) for name, given in arrays.items()}
        _, size = _places(arrays)
        grows = self._memory is None or self._memory.size < size
        if grows or len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        if grows:
            self._memory = None
            self._memory = cuda.device_array(size, np.uint8)
            self.generation += 1
        self._kept[key] = _views(self._memory, arrays)
        return self._kept[key]


class Mirror:
    """Named arrays on the host (``host``) and their counterparts on the GPU (``card``).

    Numba takes 25 to 165 microseconds to copy one small array, so all are copied in one piece, and
    by the driver. The host's arrays lie in pinned memory and must not be changed between
    `send` and the next `fetch` of what the GPU computed from them.

    Parameters
    ----------
    there : dict of str to tuple of (shape, dtype), default=None
        Arrays that the GPU alone has: they are in ``card`` and are never copied.
    **arrays : tuple of (shape, dtype)
        The shape and the dtype of each array, under its name.
    """

    def __init__(
        self, there: dict[str, Specification] | None = None, **arrays: Specification
    ) -> None:
        _, self._bytes = _places(arrays)
        self._pinned = cuda.pinned_array(self._bytes, np.uint8)
        self.host: dict[str, NDArray[Any]] = _views(np.asarray(self._pinned), arrays)
        there = there or {}
        if SIMULATED:
            kind = type(cuda.device_array(1))  # wraps an array of the host, without a copy
            self.card = {name: kind(array) for name, array in self.host.items()}
            self.card |= {name: cuda.device_array(*given) for name, given in there.items()}
        else:
            whole = arrays | there
            memory = cuda.device_array(_places(whole)[1], np.uint8)
            self.card = _views(memory, whole)
            self._here = self._pinned.ctypes.data
            self._there = memory.device_ctypes_pointer.value

    def send(self) -> None:
        """Copy to the GPU, in the order of the current stream."""
        if not SIMULATED:
            stream = stream_handle()
            _check(driver.cuMemcpyHtoDAsync(self._there, self._here, self._bytes, stream))

    def fetch(self) -> None:
        """Copy from the GPU, after everything that was started before on the current stream."""
        if not SIMULATED:
            stream = stream_handle()
            _check(driver.cuMemcpyDtoHAsync(self._here, self._there, self._bytes, stream))
            _check(driver.cuStreamSynchronize(stream))

    def clear(self) -> None:
        """Set all numbers on the GPU to zero, in the order of the current stream."""
        if SIMULATED:
            self._pinned[:] = 0
        else:
            _check(driver.cuMemsetD8Async(self._there, 0, self._bytes, stream_handle()))
