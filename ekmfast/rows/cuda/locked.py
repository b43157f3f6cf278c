"""Memory of the host that is locked, so that the GPU reads it at the full rate of the bus."""

from __future__ import annotations

from typing import Any
from weakref import finalize

from numpy.typing import NDArray

from ekmfast.rows.cuda.compiler import SIMULATED, cuda

if not SIMULATED:
    from cuda.bindings import driver

READ_ONLY = 8  # CU_MEMHOSTREGISTER_READ_ONLY


def lock(owner: Any, array: NDArray[Any]) -> bool:
    """Lock the memory of an array as long as ``owner`` lives; return whether that is possible.

    It is impossible for arrays with gaps, for some files, and beyond the limit of locked memory.
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


def _unlock(array: NDArray[Any]) -> None:
    # The thread that drops the owner may not have used the GPU. Memory that stayed locked would be
    # read by the GPU where it was, also after the host has other memory at its address.
    cuda.current_context()
    driver.cuMemHostUnregister(array.ctypes.data)
