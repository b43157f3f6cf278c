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
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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


# Larger matrices are worth the threads of a BLAS.
SMALL = 1_000


class _BlasLimit:
    """The BLAS limited to one thread while some code is inside, however many threads run it."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.before: list[tuple[Any, int]] = []

    def enter(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = [(library, library.num_threads) for library in _blas_libraries()]
                for library, _ in self.before:
                    library.set_num_threads(1)
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                for library, n_threads in self.before:
                    library.set_num_threads(n_threads)


@cache
def _blas_libraries() -> list[Any]:
    found = threadpoolctl.ThreadpoolController().lib_controllers
    return [library for library in found if library.user_api == "blas"]


_limit = _BlasLimit()


@contextmanager
def one_blas_thread(n_features: int = 0) -> Iterator[None]:
    """Limit the BLAS to one thread, unless there are many features.

    The threads of a BLAS wait for each other. If another process uses a processor, this takes far
    longer than small matrices: `numpy.linalg.eigh` of 128 features took 340 ms beside such a
    process with two threads, and 1.1 ms with one (OpenBLAS, two processors).
    """
    if n_features > SMALL:
        yield
        return
    limit = _limit
    limit.enter()
    try:
        yield
    finally:
        limit.leave()


def _after_fork() -> None:
    # Another thread of the parent may have held the lock.
    global _limit
    _limit = _BlasLimit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
_core.set_num_threads(_initial_threads())
threadpoolctl.register(_EkmfastController)
