"""How many threads a kernel uses, and how threadpoolctl limits them.

The default is ``OMP_NUM_THREADS``, else the number of processors that this process may use. The
kernels do not use OpenMP but a thread pool of their own. This module registers it with
threadpoolctl, so that ``threadpool_limits``, and joblib's workers, which use it, limit ekmfast too.
The child of a fork makes a new pool. If a signal handler forks during a call and the child returns
into that call, the child computes the call again.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import joblib
import threadpoolctl

from ekmfast import _core
from ekmfast._parameters import MOST, N_THREADS


def _initial_threads() -> int:
    # OpenMP allows a list with a number for each nesting level; the first is the outermost one.
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    # An allowed number has at most ten digits, so that eleven digits show that a number is too
    # large. int() would raise an error for thousands of digits.
    digits = first.lstrip("0")[:11] if first.isascii() and first.isdigit() else ""
    if digits and int(digits) <= MOST:
        return int(digits)
    return int(joblib.cpu_count())


class _EkmfastController(threadpoolctl.LibController):
    user_api = "ekmfast"
    internal_api = "ekmfast"
    filename_prefixes = ("_core",)
    check_symbols = ("ekmfast_get_num_threads", "ekmfast_set_num_threads")
    dynlib: ctypes.CDLL

    def get_num_threads(self) -> int:
        return int(self.dynlib.ekmfast_get_num_threads())

    def set_num_threads(self, num_threads: int) -> Any:
        return self.dynlib.ekmfast_set_num_threads(min(num_threads, MOST))

    def get_version(self) -> None:
        return None

    def set_additional_attributes(self) -> None:
        pass


def get_num_threads() -> int:
    """Number of threads that a call uses if its ``n_threads`` is None."""
    return _core.num_threads()


def check_n_threads(n_threads: int | None) -> int:
    """Return ``n_threads``, or the default for None; raise an error if it is not allowed."""
    if n_threads is None:  # first, since every call of a kernel comes here
        return _core.num_threads()
    return int(N_THREADS.check("n_threads", n_threads))


_core.set_num_threads(_initial_threads())
threadpoolctl.register(_EkmfastController)
