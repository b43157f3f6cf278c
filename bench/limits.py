"""What this machine allows, measured: multiply-adds a second, bytes read a second.

Two small kernels of our own (limits.cpp), compiled for each instruction set and run on as many
threads as the benchmarks, so that each time can be given as a share of the limit that holds for it.
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
    """Sum of what the threads report over the time until the last is done; the best of some."""
    rates = []
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(task, range(n_threads)))  # starts the threads, too
        for _ in range(REPEATS):
            start = time.perf_counter()
            done = sum(pool.map(task, range(n_threads)))
            rates.append(done / (time.perf_counter() - start))
    return max(rates)


def multiply_adds(isa: str, dtype: str, n_threads: int) -> float:
    """Floating point operations a second, two to a multiply-add, all in registers."""
    library = _library(isa, dtype)
    rounds = 2_000_000

    def task(_: int) -> float:
        sink = TYPES[dtype][1]()
        return float(library.multiply_add(rounds, ctypes.byref(sink)))

    return _best(task, n_threads)


@cache
def _ground() -> np.ndarray[Any, np.dtype[np.float64]]:
    raw = np.ones(READ_BYTES // 8 + 8)
    skip = (-raw.ctypes.data % 64) // 8
    return raw[skip : skip + READ_BYTES // 8]


def reads(isa: str, n_threads: int) -> float:
    """Bytes a second that the threads read together from memory, each its part, in order."""
    library, ground = _library(isa, "float64"), _ground()
    part = len(ground) // n_threads // 128 * 128

    def task(thread: int) -> float:
        sink = ctypes.c_double()
        library.read_all(ground.ctypes.data + 8 * part * thread, part, ctypes.byref(sink))
        return 8.0 * part

    return _best(task, n_threads)
