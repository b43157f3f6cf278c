"""Measure the limits of this machine: multiply-adds and bytes read in a second.

Two small kernels (limits.cpp) are compiled for each instruction set, and run on as many threads as
the benchmarks, so that a time can be given as a share of these limits.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FLAGS = {
    "base": (16, []),
    "avx2": (32, ["-mavx2", "-mfma"]),
    "avx512": (64, ["-mavx512f", "-mavx512dq", "-mprefer-vector-width=512"]),
    "neon": (16, []),
}
TYPES = {"float32": ("float", ctypes.c_float), "float64": ("double", ctypes.c_double)}
READ_BYTES = 256 << 20
REPEATS = 3


@cache
def _library(isa: str, dtype: str) -> ctypes.CDLL:
    width, flags = FLAGS[isa]
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "limits.so")
        subprocess.run(
            [
                compiler[0],
                *("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-shared"),
                *(f"-DTYPE={TYPES[dtype][0]}", f"-DBYTES={width}", *flags),
                *(Path(__file__).with_suffix(".cpp"), "-o", out),
            ],
            check=True,
        )
        library = ctypes.CDLL(str(out))
    pointer = ctypes.POINTER(TYPES[dtype][1])
    library.multiply_add.argtypes = [ctypes.c_int64, pointer]
    library.multiply_add.restype = ctypes.c_double
    library.read_all.argtypes = [ctypes.c_void_p, ctypes.c_int64, pointer]
    library.read_all.restype = None
    return library


def _best(task: Callable[[int], float], n_threads: int) -> float:
    """Work of all threads divided by the time until the last has finished; best of some rounds."""
    rates = []
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(task, range(n_threads)))  # also starts the threads
        for _ in range(REPEATS):
            start = time.perf_counter()
            done = sum(pool.map(task, range(n_threads)))
            rates.append(done / (time.perf_counter() - start))
    return max(rates)


def multiply_adds(isa: str, dtype: str, n_threads: int) -> float:
    """Floating point operations in a second, in registers; a multiply-add counts as two."""
    library = _library(isa, dtype)
    rounds = 2_000_000

    def task(_: int) -> float:
        sink = TYPES[dtype][1]()
        return float(library.multiply_add(rounds, ctypes.byref(sink)))

    return _best(task, n_threads)


@cache
def _numbers_to_read() -> np.ndarray[Any, np.dtype[np.float64]]:
    raw = np.ones(READ_BYTES // 8 + 8)
    skip = (-raw.ctypes.data % 64) // 8
    return raw[skip : skip + READ_BYTES // 8]


def reads(isa: str, n_threads: int) -> float:
    """Bytes in a second that all threads together read from memory; each reads its own part."""
    library, numbers = _library(isa, "float64"), _numbers_to_read()
    part = len(numbers) // n_threads // 128 * 128

    def task(thread: int) -> float:
        sink = ctypes.c_double()
        library.read_all(numbers.ctypes.data + 8 * part * thread, part, ctypes.byref(sink))
        return 8.0 * part

    return _best(task, n_threads)
