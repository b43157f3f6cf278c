"""The package that compiles the CUDA kernels, and what the kernels use of it.

`numba-cuda` compiles them and has the simulator; the tests run with it. Its successor
`numba-cuda-mlir` compiles the kernels too, but they never ran on a GPU that way, and it has no
simulator. It is used where numba-cuda is not installed, or where ``EKMFAST_CUDA_COMPILER`` names
it.

numba-cuda-mlir takes no instructions of llvmlite: `intrinsic`, `ir` and `make_array` are None, and
`ekmfast.rows.cuda.mlir` has the device functions that need them. It also hands the arguments of a
kernel to the driver in another form, so kernels must be started by calling them.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from ekmfast._optional import require
from ekmfast.rows.device import import_failure

VARIABLE = "EKMFAST_CUDA_COMPILER"
MODULES = {"numba-cuda": "numba_cuda", "numba-cuda-mlir": "numba_cuda_mlir"}


def choose() -> str:
    """The package that ``EKMFAST_CUDA_COMPILER`` names, else the first installed one."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        installed = [name for name, module in MODULES.items() if find_spec(module) is not None]
        if not installed:
            require("numba_cuda", "cuda")
        return installed[0]
    if wanted not in MODULES:
        raise ValueError(f"{VARIABLE} must be one of {tuple(MODULES)}, got {wanted!r}")
    if find_spec(MODULES[wanted]) is None:
        how = '"ekmfast[cuda]"' if wanted == "numba-cuda" else '"numba-cuda-mlir[cu13]"'
        raise ImportError(f"{VARIABLE} is {wanted!r}, which is not installed: pip install {how}")
    return wanted


NAME = choose()
SIMULATED = False

try:
    if NAME == "numba-cuda":
        from numba import cuda, types
        from numba.cuda.core import config
        from numba.cuda.cudadrv.error import CudaSupportError

        SIMULATED = bool(config.ENABLE_CUDASIM)
        if not SIMULATED:
            from llvmlite import ir
            from numba.cuda import libdevice
            from numba.cuda.extending import intrinsic
            from numba.cuda.np.arrayobj import make_array
        else:
            libdevice = intrinsic = ir = make_array = None
    else:
        from numba_cuda_mlir import cuda, types
        from numba_cuda_mlir.cuda import libdevice
        from numba_cuda_mlir.numba_cuda.core import config
        from numba_cuda_mlir.numba_cuda.cudadrv.error import CudaSupportError

        intrinsic = ir = make_array = None
except Exception as error:  # such as AttributeError, for what newer versions of NumPy lack
    raise ImportError(import_failure(NAME, error)) from error

__all__ = [
    "NAME",
    "SIMULATED",
    "CudaSupportError",
    "config",
    "cuda",
    "intrinsic",
    "ir",
    "libdevice",
    "make_array",
    "types",
]
