"""Patch Numba's CUDA simulator for the tests: make it faster, and remove a race condition."""

import sys
import threading

import numpy as np
from numba.cuda.np import numpy_support
from numba.cuda.simulator import kernelapi


def _shared_array(self, shape, dtype, alignment=None):
    # Numba's version is not atomic: two threads may both find no shared array, and each make one.
    if not isinstance(dtype, type):
        dtype = numpy_support.as_dtype(dtype)
    caller = sys._getframe().f_back
    with _lock:
        return self._allocations.setdefault(
            (caller.f_code.co_filename, caller.f_lineno), np.empty(shape, dtype)
        )


_lock = threading.Lock()


def patch():
    kernelapi.FakeCUDAShared.array = _shared_array
    # A thread polls until all others wait at a barrier. Let it yield to them at once.
    sys.setswitchinterval(1e-5)
