"""Passes over rows on a GPU: which kernels are started for which rows, and in which order.

Kernels are in the files of `ekmfast.rows.cuda.kernels`, many of which have the name of the file
here that starts them. The functions here take a `Passes` as their first argument; `CudaPasses` has
them as methods.
"""

from ekmfast.rows.cuda.division import DEPTH
from ekmfast.rows.cuda.passes.statistics import CudaPasses

__all__ = ["DEPTH", "CudaPasses"]
