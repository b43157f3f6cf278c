"""How many threads a kernel uses: ours to count, threadpoolctl's to limit.

The default is what ``OMP_NUM_THREADS`` says, else the processors that this process may use. The
kernels' pool is not OpenMP, so threadpoolctl is told of it here; ``threadpool_limits`` and the
joblib workers that rely on it then hold for ekmfast too. The child of a fork makes a pool of its
own; one that a signal handler forked in the midst of a call, and lets return into it, does the
call anew.
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
    # OpenMP allows a list, one number a nesting level; the first is the outermost.
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    # A number allowed has ten digits at most, and of a larger one eleven tell that it is larger;
    # int() itself refuses some thousands of them.
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
    """Threads that a call uses when its ``n_threads`` is None."""
    return _core.num_threads()


def check_n_threads(n_threads: int | None) -> int:
    """Return ``n_threads``, or the default for None; refuse what is not such a number."""
    if n_threads is None:  # asked in every call of a kernel
        return _core.num_threads()
    return int(N_THREADS.check("n_threads", n_threads))


_core.set_num_threads(_initial_threads())
threadpoolctl.register(_EkmfastController)
