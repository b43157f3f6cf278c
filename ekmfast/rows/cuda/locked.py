"""Memory of the host that is locked, so that the GPU reads it at the full rate of the bus."""

from __future__ import annotations

from typing import Any
from weakref import finalize

from numpy.typing import NDArray

from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.layer import SIMULATED, upload

if not SIMULATED:
    from cuda.bindings import driver

READ_ONLY = 8  # CU_MEMHOSTREGISTER_READ_ONLY
# Smaller arrays are copied before they could be locked.
WORTH_LOCKING = 16 << 20


def lock(owner: Any, array: NDArray[Any]) -> bool:
    """Lock the memory of an array as long as ``owner`` lives; return whether that is possible.

    It takes a quarter of the time of a copy from memory that is not locked. It is impossible for
    arrays with gaps, for some files, and beyond the limit of locked memory.
    """
    if SIMULATED or not array.flags.c_contiguous or array.nbytes == 0:
        return False
    flags = 0 if array.flags.writeable else READ_ONLY
    (error,) = driver.cuMemHostRegister(array.ctypes.data, array.nbytes, flags)
    if error == driver.CUresult.CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED:
        return True
    if error:
        return False
    finalize(owner, _unlock, array)  # which keeps the array until then
    return True


class _Owner:
    """Owns a lock for the time of one copy."""


def send(array: NDArray[Any]) -> Any:
    """A copy of an array on the GPU."""
    owner = _Owner()
    if array.nbytes < WORTH_LOCKING or not lock(owner, array):
        return upload(array)
    there = upload(array)
    cuda.synchronize()
    del owner  # not before the copy has ended
    return there


def _unlock(array: NDArray[Any]) -> None:
    driver.cuMemHostUnregister(array.ctypes.data)
