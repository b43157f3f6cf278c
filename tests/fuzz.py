"""Calls every compiled function, and those of `ekmfast.kernels`, with arguments of all kinds.

    python tests/fuzz.py --calls 20000 --seed 0
    python tests/fuzz.py --seed 0 --only 4711     # one of these calls again

The arguments of a call fit each other at first. In most calls some of them are then replaced: by
arrays of other shapes, strides, dtypes, byte orders and alignments, or arrays that share memory, by
numbers that are huge, tiny or not numbers, and by things of the wrong type. The call must raise one
of the documented exceptions or return what the formulas give in NumPy, where the numbers are of
ordinary size. It must change nothing but its outputs.

Some arrays begin or end at a page of memory that cannot be read, so that a kernel that reads
outside of them ends the program, with or without a sanitizer. ``--log`` names a file that holds the
number of the call in progress.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ekmfast import _core, kernels

WEIGHTINGS = ("equilibrium", "maximum-entropy", "hard", "fuzzy")
# Around the sizes of vectors and of register tiles.
ROWS = (0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 47, 48, 49, 97, 200)
FEATURES = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 29, 30, 33, 64, 65, 130, 257)
CLUSTERS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 70)
NUMBERS = (np.nan, np.inf, -np.inf, 1e308, -1e308, 3e38, 1e200, 1e-310, 5e-324, 1e-45, 0.0, -0.0)
INTEGERS = (0, -1, 2, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30)
OTHERS = (None, object(), "two", b"12", 1.5, True, [], {}, np.float32(2), np.int64(2), 2 + 1j)
DTYPES = (
    "f2",
    "f4",
    "f8",
    "g",
    "i4",
    "i8",
    "u1",
    "?",
    "c16",
    "O",
    "S3",
    "U3",
    "M8[s]",
    ">f4",
    ">f8",
)
# Errors of results, relative to the sum of the absolute values of their terms.
TOLERANCE = {"f": 2e-5, "d": 1e-12}


class FaultError(AssertionError):
    """What no call may do."""


# --------------------------------------------------------------------------------------------------
# Memory


class Memory:
    """The arrays of one call, each within bytes that are compared after the call."""

    PAGES = 1 << 16

    def __init__(self) -> None:
        self.guarded = [self.between_pages() for _ in range(8 if sys.platform == "linux" else 0)]
        self.begin()

    def between_pages(self) -> np.ndarray:
        """Bytes between two pages that can neither be read nor written."""
        page = mmap.PAGESIZE
        whole = np.frombuffer(mmap.mmap(-1, self.PAGES + 2 * page), np.uint8)
        for at in (0, page + self.PAGES):
            address = ctypes.c_void_p(whole.ctypes.data + at)
            if ctypes.CDLL(None).mprotect(address, ctypes.c_size_t(page), 0):
                raise OSError("mprotect failed")
        return whole[page : page + self.PAGES]

    def begin(self) -> None:
        self.rooms: list[np.ndarray] = []
        self.before: list[np.ndarray] = []

    def place(self, rng: np.random.Generator, array: np.ndarray, shift: int = 0) -> np.ndarray:
        """A copy of an array in watched memory, ``shift`` bytes off its alignment."""
        size = array.nbytes
        free = len(self.rooms) < len(self.guarded) and size + shift <= self.PAGES
        if free and rng.random() < 0.5:
            room = self.guarded[len(self.rooms)]
            start = shift if rng.random() < 0.3 else room.size - size - shift
        elif rng.random() < 0.5:
            room, start = np.empty(size + 256, np.uint8), 128 + shift
        else:
            room, start = np.empty(size + shift, np.uint8), shift  # bounds that a sanitizer knows
        room[:] = 0xA5
        copy = np.ndarray(array.shape, array.dtype, room, start)
        copy[...] = array
        self.rooms.append(room)
        self.before.append(room.copy())
        return copy

    def room_of(self, array: np.ndarray) -> np.ndarray | None:
        return next((room for room in self.rooms if np.may_share_memory(room, array)), None)

    def check(self, outputs: list[np.ndarray]) -> None:
        """Raise a FaultError if a byte outside of the outputs has changed."""
        for room, before in zip(self.rooms, self.before, strict=True):
            changed = room != before
            if not changed.any():
                continue
            for out in outputs:
                if out.size and np.may_share_memory(room, out):
                    start = out.ctypes.data - room.ctypes.data
                    own = np.ndarray(
                        (*out.shape, out.itemsize), "?", changed, start, (*out.strides, 1)
                    )
                    own[...] = False
            if changed.any():
                raise FaultError(f"byte {changed.argmax()} of {room.size} was changed")


# --------------------------------------------------------------------------------------------------
# Arguments


@dataclass
class Call:
    """A call: what it gets, which arguments it writes to, and what it must return."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    check: Callable[[Any, dict[str, Any]], None] = lambda result, arguments: None
    outputs: tuple[str, ...] = ()
    # Exceptions that arguments of the wrong kind may raise.
    refusals: tuple[type[BaseException], ...] = (ValueError, TypeError)
    replaced: list[str] = field(default_factory=list)

    def written(self) -> list[np.ndarray]:
        values = [self.arguments[name] for name in self.outputs]
        return [value for value in values if isinstance(value, np.ndarray)]


class Arguments:
    """Random arguments."""

    def __init__(self, rng: np.random.Generator, memory: Memory) -> None:
        self.rng, self.memory = rng, memory
        if rng.random() < 0.01:  # so many numbers that several threads compute
            self.n, self.d, self.k, self.s = 30_000, 8, 9, 1
        else:
            self.n, self.d, self.k = (int(rng.choice(c)) for c in (ROWS, FEATURES, CLUSTERS))
            self.s = int(rng.integers(1, 4))
        self.dtype = np.dtype(rng.choice(["f4", "f8"]))
        self.threads = int(rng.integers(1, 4))

    def array(self, *shape: int, dtype: Any = np.float64) -> np.ndarray:
        return self.memory.place(self.rng, self.rng.normal(size=shape).astype(dtype))

    def full(self, shape: tuple[int, ...], value: float, dtype: Any = np.float64) -> np.ndarray:
        return self.memory.place(self.rng, np.full(shape, value, dtype))

    def rows(self) -> np.ndarray:
        return self.array(self.n, self.d, dtype=self.dtype)

    def alpha(self, *shape: int) -> np.ndarray:
        drawn = 10 ** self.rng.uniform(-2, 0.5, shape) / self.d
        return self.memory.place(self.rng, drawn)

    def maybe(self, array: np.ndarray) -> np.ndarray | None:
        return None if self.rng.random() < 0.5 else array

    def sample_weight(self) -> np.ndarray | None:
        drawn = self.rng.uniform(0.5, 2, self.n).astype(self.dtype)
        return self.maybe(self.memory.place(self.rng, drawn))

    # ----------------------------------------------------------------------------------------------
    # Others in their place

    def other(self, value: Any, call: Call) -> Any:
        rng = self.rng
        if not isinstance(value, np.ndarray) or rng.random() < 0.1:
            pools = [NUMBERS, INTEGERS, OTHERS, (self.array(2, 3), self.array(3))]
            pool = pools[rng.integers(len(pools))]
            return pool[rng.integers(len(pool))]
        kinds = (
            self.shape,
            self.shape,
            self.strides,
            self.strides,
            self.kind,
            self.unaligned,
            self.values,
            self.values,
            self.shared,
            self.wrapped,
        )
        if value.ndim == 0 or value.dtype.kind not in "fiu":
            return self.wrapped(value, call)
        return kinds[rng.integers(len(kinds))](value, call)

    def shape(self, a: np.ndarray, call: Call) -> Any:
        axis = int(self.rng.integers(a.ndim))
        index: list[Any] = [slice(None)] * a.ndim
        index[axis] = slice(0)
        more = np.concatenate([a, a.take([0], axis)], axis) if a.shape[axis] else a[None]
        made = [
            a[:-1],
            a[1:],
            a.ravel(),
            a[None],
            a[..., None],
            a.T,
            a[..., :-1],
            a[tuple(index)],
            more,
            a.reshape(-1)[:0],
            np.zeros(()),
            a[:0, ..., :0] if a.ndim > 1 else a[:0],
        ]
        return self.memory.place(self.rng, made[self.rng.integers(len(made))])

    def strides(self, a: np.ndarray, call: Call) -> Any:
        rng = self.rng
        axis = int(rng.integers(a.ndim))
        kind = rng.integers(6)
        if kind == 0:  # gaps
            view = self.memory.place(rng, np.repeat(a, 2, axis))
            return view[(slice(None),) * axis + (slice(None, None, 2),)]
        if kind == 1:
            return np.flip(self.memory.place(rng, np.flip(a, axis)), axis)
        if kind == 2 and a.shape[axis]:  # strides of zero
            return np.broadcast_to(self.memory.place(rng, a.take([0], axis)), a.shape)
        if kind == 3:
            return self.memory.place(rng, a.T).T
        if kind == 4:
            view = a.view()
            view.flags.writeable = False
            return view
        gap = np.full((*a.shape[:-1], 3), np.nan if a.dtype.kind == "f" else 7, a.dtype)
        wider = np.concatenate([a, gap], -1)
        return self.memory.place(rng, wider)[..., : a.shape[-1]]  # rows with gaps between them

    def kind(self, a: np.ndarray, call: Call) -> Any:
        dtype = np.dtype(DTYPES[self.rng.integers(len(DTYPES))])
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = a.astype("i8").astype(dtype) if dtype.kind == "M" else a.astype(dtype)
        return made if dtype.hasobject else self.memory.place(self.rng, made)

    def unaligned(self, a: np.ndarray, call: Call) -> Any:
        return self.memory.place(self.rng, a, shift=int(self.rng.choice([1, 2, 4])))

    def values(self, a: np.ndarray, call: Call) -> Any:
        rng, made = self.rng, a.copy()
        number = NUMBERS[rng.integers(len(NUMBERS))]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = rng.integers(5)
            if kind == 0:
                made[...] = np.asarray(number).astype(a.dtype)
            elif kind == 1 and a.size:
                made.flat[rng.integers(a.size, size=3)] = np.asarray(number).astype(a.dtype)
            elif kind == 2:
                made = (a * 10.0 ** rng.uniform(-320, 308)).astype(a.dtype)
            elif kind == 3:
                made = (a * 10.0 ** rng.uniform(-45, 38)).astype(a.dtype)
            else:
                made = np.round(a).astype(a.dtype)
        return self.memory.place(rng, made)

    def shared(self, a: np.ndarray, call: Call) -> Any:
        """Of the same shape, somewhere in the memory of another argument."""
        arrays = [v for v in call.arguments.values() if isinstance(v, np.ndarray)]
        other = arrays[self.rng.integers(len(arrays))]
        room = self.memory.room_of(other)
        if room is None or room.size < a.nbytes:
            return other
        start = int(self.rng.integers(room.size - a.nbytes + 1))
        near = other.ctypes.data - room.ctypes.data + int(self.rng.integers(-2, 3)) * a.itemsize
        if self.rng.random() < 0.7 and 0 <= near <= room.size - a.nbytes:
            start = near
        if self.rng.random() < 0.8:
            start -= (room.ctypes.data + start) % a.itemsize
        return np.ndarray(a.shape, a.dtype, room, max(start, 0))

    def wrapped(self, a: np.ndarray, call: Call) -> Any:
        kinds: list[Callable[[], Any]] = [
            a.tolist,
            lambda: np.ma.MaskedArray(a, np.ones(a.shape, bool)),
            lambda: np.ma.MaskedArray(a),
            lambda: a if a.dtype.kind in "Mm" else memoryview(a),  # buffers hold no dates
            lambda: a.astype(object),
            lambda: np.full(a.shape, None),
        ]
        return kinds[self.rng.integers(len(kinds))]()


# --------------------------------------------------------------------------------------------------
# What results must be


def ordinary(arguments: dict[str, Any], outputs: tuple[str, ...] = ()) -> bool:
    """Whether all inputs are numbers of ordinary size, which no output overlaps."""
    for name, value in arguments.items():
        if name in outputs or isinstance(value, str) or value is None:
            continue
        try:
            numbers = np.abs(np.asarray(value, np.float64))
        except (TypeError, ValueError, OverflowError):
            return False
        if np.ma.isMaskedArray(value) or not (numbers < 30).all():
            return False
        if ((numbers > 0) & (numbers < 1e-6)).any():
            return False
        for out in outputs:
            if isinstance(value, np.ndarray) and np.may_share_memory(value, arguments[out]):
                return False
    alpha = np.asarray(arguments.get("alpha", 0.0), np.float64)
    return bool(
        (alpha > 1e-4).all() and (alpha * np.shape(arguments["X"])[1] < 30).all()
        if "alpha" in arguments
        else True
    )


def near(got: Any, wanted: Any, scale: Any, X: Any, what: str) -> None:
    wanted, got = np.asarray(wanted), np.asarray(got)
    if got.shape != wanted.shape:
        raise FaultError(f"{what} has shape {got.shape}, not {wanted.shape}")
    dtype = "f" if np.asarray(X).dtype == np.float32 else "d"
    error = np.abs(got - wanted) / (np.asarray(scale) + 1e-3)
    if error.size and not error.max() <= TOLERANCE[dtype]:
        raise FaultError(f"{what} is wrong by {error.max():.1e}")


def distances_of(X: Any, C: np.ndarray) -> np.ndarray:
    """1/2 ||x - c||^2, (N, K)."""
    away = np.asarray(X, np.float64)[:, None] - C
    return 0.5 * np.einsum("nkd,nkd->nk", away, away)


def weights_of(
    d: np.ndarray, alpha: float, weighting: str, m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """w, p, the scale of their errors, all (N, K), and the objective of each row."""
    least = d.min(axis=1, keepdims=True)
    if weighting == "hard":
        p = np.zeros(d.shape)
        p[np.arange(len(d)), d.argmin(axis=1)] = 1
        return p, p, p, least[:, 0]
    if weighting == "fuzzy":
        p = (least / d) ** (1 / (m - 1))
        p /= p.sum(axis=1, keepdims=True)
        return p**m, p, p, (p**m * d).sum(axis=1)
    u = np.exp(-alpha * (d - least))
    p = u / u.sum(axis=1, keepdims=True)
    if weighting == "maximum-entropy":
        return p, p, p, least[:, 0] - np.log(u.sum(axis=1)) / alpha
    mean = (p * d).sum(axis=1)
    tilt = alpha * (d - mean[:, None])
    return p * (1 - tilt), p, p * (1 + np.abs(tilt)), mean


def check_sums(
    sums: Any, X: Any, C: Any, alpha: Any, s: Any, about: np.ndarray, weighting: str, m: float
) -> None:
    """Sums of w (x - about), of w and of p, and the objective, of every problem."""
    X, C = np.asarray(X), np.asarray(C, np.float64)
    s = np.ones(len(X)) if s is None else np.asarray(s, np.float64)
    if (s < 0).any():
        return  # callers refuse such weights, and sums of them may be 0 by chance
    away = np.asarray(X, np.float64) - about
    for i, (centroids, sharpness) in enumerate(zip(C, np.asarray(alpha, np.float64), strict=True)):
        d = distances_of(X, centroids)
        if weighting == "fuzzy" and (d < 1e-4).any():
            return  # memberships depend on the last digits of such distances
        w, p, scale, cost = weights_of(d, sharpness, weighting, m)
        w, p, scale = (s[:, None] * v for v in (w, p, scale))
        sum_wx, sum_w, sum_p, objective = (part[i] for part in sums)
        # Distances cancel against each other to about the rounding of the largest.
        largest = s.sum() * (1 + (d.max() if d.size else 0))
        near(objective, (s * cost).sum(), largest, X, "objective")
        if weighting == "hard":  # a row between two centroids may go to either
            near(sum_w.sum(), s.sum(), s.sum(), X, "sum_w")
            continue
        loose = 1 + 10 * (m > 1)
        near(sum_w, w.sum(axis=0), loose * scale.sum(axis=0), X, "sum_w")
        near(sum_p, p.sum(axis=0), loose * p.sum(axis=0), X, "sum_p")
        near(sum_wx, w.T @ away, loose * (scale.T @ (np.abs(away) + 1)), X, "sum_wx")


def check_nearest(labels: Any, squares: Any, X: Any, C: np.ndarray) -> None:
    d = 2 * distances_of(X, C)
    if labels.shape != (len(d),) or squares.shape != (len(d),):
        raise FaultError("labels or distances have a wrong shape")
    chosen = d[np.arange(len(d)), labels]
    near(squares, chosen, chosen, X, "squared distances")
    near(chosen, d.min(axis=1), 1 + d.max(axis=1, initial=0), X, "the nearest centroid")


def finite(*arrays: Any) -> None:
    for array in arrays:
        if not np.isfinite(array).all():
            raise FaultError("a result is not finite")


# --------------------------------------------------------------------------------------------------
# Calls of the compiled module


def seen(given: dict[str, Any]) -> Any:
    """The rows as the kernels see them: multiplied by ``factor``."""
    factor = given["factor"]
    return given["X"] if factor is None else np.asarray(given["X"]) * np.asarray(factor)[:, None]


def core_statistics(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        sum_wx, sum_w, sum_p, exponent, objective, reference = result
        if ordinary(given) and given["rounded"] is False:
            unit = np.exp2(exponent)
            sums = sum_wx * unit[..., None], sum_w * unit, sum_p * unit, objective
            check_sums(
                sums,
                seen(given),
                given["centroids"],
                given["alpha"],
                given["sample_weight"],
                reference,
                given["weighting"],
                given["fuzzifier"],
            )

    arguments = {
        "X": a.rows(),
        "centroids": a.array(a.s, a.k, a.d),
        "alpha": a.alpha(a.s),
        "sample_weight": a.sample_weight(),
        "reference": a.maybe(a.array(a.d)),
        "n_threads": a.threads,
        "weighting": str(a.rng.choice(WEIGHTINGS)),
        "fuzzifier": float(a.rng.uniform(1.5, 3)),
        "rescue": bool(a.rng.random() < 0.8),
        "factor": a.sample_weight(),
        "rounded": bool(a.dtype == np.float64 and a.rng.random() < 0.3),
    }
    return Call(_core.statistics, arguments, check)


def core_weights(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if ordinary(given, ("out",)):
            w, _, scale, _ = weights_of(
                distances_of(seen(given), given["centroids"]), given["alpha"], "equilibrium", 2
            )
            near(given["out"], w, 1 + scale, given["X"], "weights")

    arguments = {
        "X": a.rows(),
        "centroids": a.array(a.k, a.d),
        "alpha": float(a.alpha(1)[0]),
        "out": a.full((a.n, a.k), np.nan, a.dtype),
        "n_threads": a.threads,
        "factor": a.sample_weight(),
    }
    return Call(_core.weights, arguments, check, ("out",))


def core_assign(a: Arguments) -> Call:
    outputs = ("labels", "squared_distances")

    def check(result: Any, given: dict[str, Any]) -> None:
        labels = given["labels"]
        shared = np.may_share_memory(labels, given["squared_distances"])
        if not shared and ((labels < 0) | (labels >= len(given["centroids"]))).any():
            raise FaultError("a label is no centroid's")
        if ordinary(given, outputs) and not shared:
            check_nearest(labels, given["squared_distances"], seen(given), given["centroids"])

    arguments = {
        "X": a.rows(),
        "centroids": a.array(a.k, a.d),
        "labels": a.full((a.n,), -1, np.int32),
        "squared_distances": a.full((a.n,), np.nan, a.dtype),
        "n_threads": a.threads,
        "factor": a.sample_weight(),
    }
    return Call(_core.assign, arguments, check, outputs)


def core_closest(a: Arguments) -> Call:
    update = bool(a.rng.random() < 0.5)
    each = 1 if update else int(a.rng.integers(1, 4))

    def check(result: Any, given: dict[str, Any]) -> None:
        C = given["candidates"]
        if given["closest"] is not infinite or not ordinary(given, ("closest",)):
            return
        squares = 2 * distances_of(seen(given), C.reshape(-1, C.shape[-1])).T
        s = given["sample_weight"]
        s = np.ones(len(given["X"])) if s is None else np.asarray(s, np.float64)
        # Distances are differences of squares about the reference.
        about = 0.0 if given["reference"] is None else given["reference"]
        away = ((np.asarray(seen(given), np.float64) - about) ** 2).sum(axis=1)
        largest = 1 + squares.max(initial=0) + away.max(initial=0)
        near(
            result,
            (squares @ s).reshape(C.shape[:2]),
            np.abs(s).sum() * largest,
            given["X"],
            "potentials",
        )
        if given["update"] is True:
            near(given["closest"], squares, largest, given["X"], "closest")

    infinite = a.full((a.s, a.n), np.inf, a.dtype)
    arguments = {
        "X": a.rows(),
        "candidates": a.array(a.s, each, a.d),
        "closest": infinite,
        "sample_weight": a.sample_weight(),
        "reference": a.maybe(a.array(a.d)),
        "n_threads": a.threads,
        "update": update,
        "factor": a.sample_weight(),
    }
    return Call(_core.closest, arguments, check, ("closest",))


def core_label_each(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if not np.isin(result, given["names"]).all():
            raise FaultError("a label is no name")
        if call.replaced or not ordinary(given):
            return
        for own, places in zip(result, given["centroids"], strict=True):
            squared = 2 * distances_of(seen(given), places)
            check_nearest(own, squared[np.arange(len(own)), own], seen(given), places)

    names = np.broadcast_to(np.arange(a.k, dtype=np.int32), (a.s, a.k))
    arguments = {
        "X": a.rows(),
        "centroids": a.array(a.s, a.k, a.d),
        "names": a.memory.place(a.rng, names),
        "n_threads": a.threads,
        "factor": a.sample_weight(),
    }
    call = Call(_core.label_each, arguments, check)
    return call


def core_draw_rows(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        closest, uniform = given["closest"], given["uniform"]
        if result.size and not (result.min() >= 0 and result.max() < closest.shape[1]):
            raise FaultError("a row that there is not")
        if call.replaced or not ordinary({"X": closest}):
            return
        s = given["sample_weight"]
        mass = closest.astype(np.float64) * (1 if s is None else s)
        for own, total, u in zip(result, mass.cumsum(axis=1), uniform, strict=True):
            if total[-1] > 0 and not (own == np.searchsorted(total, u * total[-1], "right")).all():
                raise FaultError("a row is not drawn by its share of the sum")

    draws = int(a.rng.integers(1, 4))
    arguments = {
        "closest": a.memory.place(a.rng, a.rng.uniform(0, 1, (a.s, max(a.n, 1))).astype(a.dtype)),
        "sample_weight": a.maybe(a.memory.place(a.rng, a.rng.uniform(0, 1, max(a.n, 1)))),
        "uniform": a.memory.place(a.rng, a.rng.uniform(0, 1, (a.s, draws))),
        "n_threads": a.threads,
    }
    call = Call(_core.draw_rows, arguments, check)
    return call


def core_choose_rows(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        n, shape = len(given["X"]), given["uniform"].shape
        if result.shape != (shape[1], shape[0] + 1):
            raise FaultError("as many rows as steps are not chosen")
        if not (result.min() >= 0 and result.max() < n):
            raise FaultError("a row that there is not")

    while a.n == 0:
        a = Arguments(a.rng, a.memory)
    draws, steps = int(a.rng.integers(0, 4)), min(a.k, 5) - 1
    arguments = {
        "X": a.rows(),
        "sample_weight": a.sample_weight(),
        "first": a.memory.place(a.rng, a.rng.uniform(0, 1, a.s)),
        "uniform": a.memory.place(a.rng, a.rng.uniform(0, 1, (steps, a.s, draws))),
        "reference": a.maybe(a.array(a.d)),
        "n_threads": a.threads,
        "factor": a.sample_weight(),
    }
    return Call(_core.choose_rows, arguments, check)


def core_accumulate(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        sum_wx, sum_w, reference = result
        if ordinary(given):
            w, X = (np.asarray(given[name], np.float64) for name in ("weights", "X"))
            near(sum_w, w.sum(axis=0), np.abs(w).sum(axis=0), given["X"], "sum_w")
            scale = np.abs(w).T @ (np.abs(X - reference) + 1)
            near(sum_wx, w.T @ (X - reference), scale, given["X"], "sum_wx")

    arguments = {"X": a.rows(), "weights": a.array(a.n, a.k, dtype=a.dtype), "n_threads": a.threads}
    return Call(_core.accumulate, arguments, check)


def core_survey(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        weight, squares, total, reference, low, high = result
        if not ordinary(given) or not len(given["X"]):
            return
        X, s = np.asarray(seen(given), np.float64), given["sample_weight"]
        s = np.ones(len(X)) if s is None else np.asarray(s, np.float64)
        away = X - reference
        near(weight, s.sum(), s.sum(), given["X"], "weight")
        near(squares, (s @ away**2).sum(), (s @ away**2).sum(), given["X"], "squares")
        near(total, s @ away, s @ np.abs(away), given["X"], "sum")
        near([low, high], [X.min(axis=0), X.max(axis=0)], 0, given["X"], "box")

    arguments = {
        "X": a.rows(),
        "sample_weight": a.sample_weight(),
        "reference": a.maybe(a.array(a.d)),
        "n_threads": a.threads,
        "factor": a.sample_weight(),
    }
    return Call(_core.survey, arguments, check)


def core_plausible_sums(a: Arguments) -> Call:
    arguments = {
        "n": a.n,
        "alpha": a.alpha(a.s),
        "sum_wx": a.array(a.s, a.k, a.d),
        "sum_w": a.array(a.s, a.k),
        "sum_p": a.array(a.s, a.k),
        "exponent": a.full((a.s, a.k), 0),
        "objective": a.full((a.s,), 9.0),
        "float32": bool(a.rng.random() < 0.5),
    }
    return Call(_core.plausible_sums, arguments)


def core_plausible_update(a: Arguments) -> Call:
    arguments = {"n": a.n, "sum_wx": a.array(a.k, a.d), "sum_w": a.array(a.k), "float32": True}
    return Call(_core.plausible_update, arguments)


def core_exp2(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        x = np.asarray(given["x"])
        if x.dtype.kind == "f" and ((x <= 0) & (x > -30)).all():
            ratio = result / np.exp2(x.astype(np.float64)).ravel()
            near(ratio, np.ones(x.size), 1, result, "2^x")

    x = a.memory.place(a.rng, -a.rng.uniform(0, 30, a.n).astype(a.dtype))
    return Call(_core.exp2_kernel, {"x": x}, check)


def mixture_arguments(a: Arguments, several: int, share: float = 0.5) -> dict[str, Any]:
    """A mixture as the kernels take it, and the units of its rows; a share of them is full."""
    full = bool(a.rng.random() < share)
    if full:
        a.d, a.k = min(a.d, 33), min(a.k, 9)
    whiteners = a.rng.uniform(0.3, 1, (several, a.k, a.d))
    if full:
        small = a.rng.uniform(0.1, 0.2, (several, a.k, a.d, a.d)) / a.d
        whiteners = np.triu(small, 1) + whiteners[..., None] * np.eye(a.d)
    degrees = a.rng.choice([3.0, 6.0, 20.0, np.inf], several)
    background = a.rng.choice([-np.inf, -0.5 * a.d, 3.0], several)
    return {
        "centre": a.array(a.d),
        "unit": float(a.rng.uniform(0.5, 2)),
        "means": a.array(several, a.k, a.d),
        "whiteners": a.memory.place(a.rng, whiteners),
        "offsets": a.array(several, a.k),
        "degrees": a.memory.place(a.rng, degrees),
        "background": a.memory.place(a.rng, background),
    }


def joint_of(given: dict[str, Any], i: int) -> np.ndarray:
    """offset_k minus what the distances of the rows (N, K) take away, of mixture i."""
    y = (np.asarray(given["X"], np.float64) - given["centre"]) / given["unit"]
    d, v = y.shape[1], float(given["degrees"][i])
    away = y[:, None] - given["means"][i]
    W = given["whiteners"][i]
    z = np.einsum("nki,kij->nkj", away, W) if W.ndim == 3 else away * W
    q = np.einsum("nkj,nkj->nk", z, z)
    lost = q / 2 if np.isinf(v) else (v + d) / 2 * np.log1p(q / v)
    joint: np.ndarray = given["offsets"][i] - lost
    return joint


def ordinary_mixture(given: dict[str, Any], outputs: tuple[str, ...] = ()) -> bool:
    degrees = np.asarray(given["degrees"], np.float64)
    if np.asarray(given["X"]).dtype not in (np.float32, np.float64) or (degrees < 2).any():
        return False
    infinite = ("degrees", "background")
    return ordinary({name: v for name, v in given.items() if name not in infinite}, outputs)


def with_missing(a: Arguments) -> np.ndarray:
    """Rows in which numbers are missing; a few rows have none."""
    rows = a.rng.normal(size=(a.n, a.d)).astype(a.dtype)
    rows[a.rng.random((a.n, a.d)) < a.rng.choice([0.0, 0.2, 0.9])] = np.nan
    return a.memory.place(a.rng, rows)


def partial_squares(X: Any, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (N, K) over the numbers there are, scaled to all, and the scales (N,)."""
    X = np.asarray(X, np.float64)
    there = ~np.isnan(X)
    scale = X.shape[1] / np.maximum(there.sum(axis=1), 1) * there.any(axis=1)
    away = np.where(there, X, 0.0)[:, None] - np.where(there[:, None], C, 0.0)
    return scale[:, None] * np.einsum("nkd,nkd->nk", away, away), scale


def core_partial_statistics(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        X, s, m = given["X"], given["sample_weight"], given["fuzzifier"]
        if not ordinary({**given, "X": np.nan_to_num(np.asarray(X))}):
            return
        s = np.ones(len(X)) if s is None else np.asarray(s, np.float64)
        if (s < 0).any():
            return
        there = ~np.isnan(np.asarray(X))
        away = np.where(there, X, 0.0) - np.where(there, given["reference"], 0.0)
        for i, alpha in enumerate(np.asarray(given["alpha"], np.float64)):
            squares, scale = partial_squares(X, np.asarray(given["centroids"], np.float64)[i])
            if given["weighting"] in ("fuzzy", "hard") and (squares < 1e-4).any():
                continue
            w, p, size, cost = weights_of(squares / 2, alpha, given["weighting"], m)
            factor = (s * scale)[:, None]
            size = (size * factor).T @ (np.abs(away) + there) + 1
            sums = [part[i] for part in result]
            near(sums[0], (w * factor).T @ away, size, X, "sum_wx")
            near(sums[1], (w * factor).T @ there, size, X, "sum_w")
            near(sums[2], (p * factor).T @ there, size, X, "sum_p")
            near(sums[3], s @ cost, s @ np.abs(cost) + 1, X, "objective")

    arguments = {
        "X": with_missing(a),
        "centroids": a.array(a.s, a.k, a.d),
        "alpha": a.alpha(a.s),
        "sample_weight": a.sample_weight(),
        "reference": a.array(a.d),
        "n_threads": a.threads,
        "weighting": str(a.rng.choice(WEIGHTINGS)),
        "fuzzifier": float(a.rng.uniform(1.5, 3)),
    }
    return Call(_core.partial_statistics, arguments, check)


def core_partial_distances(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        X = given["X"]
        if ordinary({**given, "X": np.nan_to_num(np.asarray(X))}):
            wanted, _ = partial_squares(X, np.asarray(given["centroids"], np.float64))
            near(result, wanted, wanted, X, "distances")

    arguments = {
        "X": with_missing(a),
        "centroids": a.array(a.k, a.d),
        "n_threads": a.threads,
    }
    return Call(_core.partial_distances, arguments, check)


def check_expectation(result: Any, given: dict[str, Any]) -> None:
    mass, _, _, _, background, likelihood, classified = result
    s = given["sample_weight"]
    s = np.ones(len(given["X"])) if s is None else np.asarray(s, np.float64)
    for i in range(len(given["means"])):
        joint = joint_of(given, i)
        constant = float(given["background"][i])
        most = np.maximum(joint.max(axis=1), constant)
        r = np.exp(joint - most[:, None])
        beside = np.exp(constant - most)
        total = r.sum(axis=1) + beside
        # Rounding of a log density is a share of what its distance takes away.
        scale = s.sum() * (1 + np.abs(joint).max(initial=0))
        near(classified[i], s @ most, scale, given["X"], "classified")
        near(likelihood[i], s @ (most + np.log(total)), scale, given["X"], "likelihood")
        near(mass[i], s @ (r / total[:, None]), scale, given["X"], "mass")
        near(background[i], s @ (beside / total), scale, given["X"], "background")


def core_expectation(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if not call.replaced and ordinary_mixture(given):
            check_expectation(result, given)

    mixture = mixture_arguments(a, a.s)
    arguments = {"X": a.rows(), "sample_weight": a.sample_weight(), **mixture}
    call = Call(_core.expectation, arguments | {"n_threads": a.threads}, check)
    return call


DENSITIES = ("joint", "labels", "largest", "density")


def density_outputs(a: Arguments) -> dict[str, Any]:
    return {
        "joint": a.maybe(a.full((a.n, a.k), np.nan, a.dtype)),
        "labels": a.maybe(a.full((a.n,), -1, np.int32)),
        "largest": a.maybe(a.full((a.n,), np.nan, a.dtype)),
        "density": a.maybe(a.full((a.n,), np.nan, a.dtype)),
    }


def check_densities(given: dict[str, Any]) -> None:
    joint = joint_of(given, 0)
    scale = 1 + np.abs(joint).max(initial=0)
    constant = float(given["background"][0])
    most = joint.max(axis=1, initial=constant)
    if given["joint"] is not None:
        near(given["joint"], joint, scale, given["X"], "joint")
    if given["largest"] is not None:
        near(given["largest"], most, scale, given["X"], "largest")
    if given["labels"] is not None:
        labels = given["labels"]
        chosen = np.where(labels < 0, constant, joint[np.arange(len(joint)), labels])
        near(chosen, most, scale, given["X"], "the largest")
    if given["density"] is not None:
        total = np.exp(joint - most[:, None]).sum(axis=1) + np.exp(constant - most)
        density = most + np.log(total)
        near(given["density"], density, scale, given["X"], "density")


def core_densities(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if not call.replaced and ordinary_mixture(given, DENSITIES):
            check_densities(given)

    mixture = mixture_arguments(a, 1)
    arguments = {"X": a.rows(), **mixture, **density_outputs(a)}
    call = Call(_core.densities, arguments | {"n_threads": a.threads}, check, DENSITIES)
    return call


def core_classification_likelihoods(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if call.replaced or not ordinary({"X": given["X"]}):
            return
        one_label = (labels == labels[:, :1]).all(axis=1)
        if not (np.isneginf(result) == one_label).all():
            raise FaultError("the likelihood is -inf if, and only if, there is one label")

    k = min(a.k, max(a.n, 1))
    labels = a.rng.integers(0, k, (a.s, a.n)).astype(np.int32)
    arguments = {
        "X": a.rows(),
        "sample_weight": a.sample_weight(),
        "labels": a.memory.place(a.rng, labels),
        "n_clusters": k,
        "tail": 8.0,
        "scale_prior": 10.0,
        "variance_prior": 300.0,
        "least_variance": 0.05,
        "reweightings": 4,
        "n_threads": a.threads,
    }
    call = Call(_core.classification_likelihoods, arguments, check)
    return call


def core_renumber(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if call.replaced:
            return
        for before, after, distinct in zip(labels, given["labels"], result, strict=True):
            names, first, index = np.unique(before, return_index=True, return_inverse=True)
            if not (after == np.argsort(np.argsort(first))[index]).all() or distinct != len(names):
                raise FaultError("clusters are not numbered in the order of their first rows")

    k = a.k
    labels = a.rng.integers(0, k, (a.s, a.n)).astype(np.int32)
    arguments = {"labels": a.memory.place(a.rng, labels), "n_clusters": k}
    call = Call(_core.renumber, arguments, check, ("labels",))
    return call


def core_distinct_labels(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if call.replaced:
            return
        known: dict[bytes, int] = {}
        if result.tolist() != [known.setdefault(own.tobytes(), len(known)) for own in labels]:
            raise FaultError("labellings are not numbered in the order of their first ones")

    some = a.rng.integers(0, a.k, (a.s, a.n)).astype(np.int32)
    labels = some[a.rng.integers(0, a.s, 2 * a.s)]
    call = Call(_core.distinct_labels, {"labels": a.memory.place(a.rng, labels)}, check)
    return call


def core_shared_labels(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if not call.replaced:
            table = np.zeros((k, k), np.int64)
            np.add.at(table, (first, second), 1)
            sums = [int((x**2).sum()) for x in (table, table.sum(axis=1), table.sum(axis=0))]
            if list(result) != sums:
                raise FaultError("rows that share labels are miscounted")

    k = a.k
    first, second = (a.rng.integers(0, k, a.n).astype(np.int32) for _ in range(2))
    arguments = {
        "first": a.memory.place(a.rng, first),
        "second": a.memory.place(a.rng, second),
    }
    call = Call(_core.shared_labels, arguments, check)
    return call


def core_merge_close(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if ((result < 0) | (result > np.arange(result.shape[1]))).any():
            raise FaultError("a centroid coincides with none before it")
        if not (np.take_along_axis(result, result.astype(np.intp), axis=1) == result).all():
            raise FaultError("the first of a group coincides with another one")

    arguments = {
        "centroids": a.array(a.s, a.k, a.d),
        "alphas": a.alpha(a.s),
        "coincident": 0.01,
        "rounding": 1e-14,
    }
    return Call(_core.merge_close, arguments, check)


def core_whiteners(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if not call.replaced:
            unit = np.swapaxes(result, -1, -2) @ given["scatters"] @ result
            near(unit, np.broadcast_to(np.eye(d), unit.shape), 1, result, "the whitened scatters")

    d = min(a.d, 33)
    halves = np.tril(a.rng.uniform(0.1, 0.2, (a.s, d, d)) / d, -1)
    halves += a.rng.uniform(0.5, 2, (a.s, d, 1)) * np.eye(d)
    scatters = halves @ np.swapaxes(halves, -1, -2)
    call = Call(_core.whiteners, {"scatters": a.memory.place(a.rng, scatters)}, check)
    return call


def step_arguments(a: Arguments) -> dict[str, Any]:
    """How sums become scatters of one of the kinds; the rows get a number of features for it."""
    kind = str(a.rng.choice(["spherical", "diag", "tied", "full"]))
    if kind in ("tied", "full"):
        a.d, a.k = min(a.d, 33), min(a.k, 9)
    return {
        "kind": kind,
        "prior": float(a.rng.uniform(1, 100)),
        "scale_prior": float(a.rng.uniform(1, 20)),
        "least_share": float(a.rng.uniform(0.01, 0.1)),
        "least_scatter": 1e-18,
        "most_background": 0.5,
        "regularization": None if a.rng.random() < 0.7 else 1e-3,
    }


def scatters_of(a: Arguments, kind: str) -> np.ndarray:
    """Scatters of the mixtures, of which every one has a whitener."""
    variances: np.ndarray = a.rng.uniform(0.5, 2, (a.s, a.k, a.d))
    return variances[..., None] * np.eye(a.d) if kind in ("tied", "full") else variances


def core_maximization(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if call.replaced:
            return
        if result is None:
            raise FaultError("a step could not be made")
        weights, background, means, scatters, scales = result
        near(weights.sum(axis=-1) + background, np.ones(a.s), 1, weights, "the sum of the shares")
        moved = given["first"] / given["weight"][..., None]
        near(means, given["means"] + moved, 1, means, "means")
        matrices = scatters if scatters.ndim == 4 else scatters[..., None] * np.eye(a.d)
        if _core.whiteners(matrices) is None or not (scales > 0).all():
            raise FaultError("a scatter matrix or a scale is not positive")

    model = step_arguments(a)
    mass = a.rng.uniform(5, 50, (a.s, a.k))
    scatters = scatters_of(a, model["kind"])
    arguments = {
        "mass": mass,
        "weight": mass * a.rng.uniform(0.5, 1, mass.shape),
        "first": a.rng.uniform(-0.1, 0.1, (a.s, a.k, a.d)),
        "second": mass.reshape(mass.shape + (1,) * (scatters.ndim - 2)) * scatters,
        "background": a.rng.uniform(0, 5, a.s),
        "means": a.rng.normal(size=(a.s, a.k, a.d)),
        "scales": a.rng.uniform(0.5, 2, (a.s, a.k)),
    }
    if model["regularization"] is not None:
        arguments["background"] *= 0
    placed = {name: a.memory.place(a.rng, value) for name, value in arguments.items()}
    call = Call(_core.maximization, placed | model | {"n_threads": a.threads}, check)
    return call


def core_expectation_maximization(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if call.replaced:
            return
        _, likelihood, classified, outcome, n_iter, n_passes, _ = result
        if not 1 <= n_passes <= given["last"] or (n_iter > n_passes).any():
            raise FaultError(f"{n_passes} passes, of which {n_iter} were used")
        if given["max_iter"] > 1:
            return
        if not outcome.all():
            raise FaultError("a run goes on after the last iteration")
        whiteners = given["whiteners"]
        sizes = whiteners if whiteners.ndim == 3 else np.diagonal(whiteners, axis1=-2, axis2=-1)
        offsets = np.log(given["weights"]) + np.log(sizes).sum(axis=-1)
        offsets += given["constants"][:, None]
        s = given["sample_weight"]
        s = np.ones(len(given["X"])) if s is None else np.asarray(s, np.float64)
        for i in range(a.s):
            joint = joint_of({**given, "offsets": offsets}, i)
            constant = np.log(given["background"][i]) - given["log_volume"]
            most = np.maximum(joint.max(axis=1), constant)
            total = np.exp(joint - most[:, None]).sum(axis=1) + np.exp(constant - most)
            scale = s.sum() * (1 + np.abs(joint).max(initial=0)) / given["total"]
            wanted = s @ most / given["total"], s @ (most + np.log(total)) / given["total"]
            digits = given["X"].astype(np.float32) if given["rounded"] else given["X"]
            near(classified[i], wanted[0], scale, digits, "classified")
            near(likelihood[i], wanted[1], scale, digits, "likelihood")

    model = step_arguments(a)
    scatters, weights = scatters_of(a, model["kind"]), a.rng.uniform(0.5, 1, (a.s, a.k))
    whiteners = 1 / np.sqrt(scatters) if scatters.ndim == 3 else _core.whiteners(scatters)
    weight, last = a.sample_weight(), int(a.rng.integers(1, 4))
    parameters = {
        "centre": a.rng.normal(size=a.d),
        "weights": weights,
        "background": a.rng.uniform(0.1, 0.5, a.s),
        "means": a.rng.normal(size=(a.s, a.k, a.d)),
        "scatters": scatters,
        "scales": a.rng.uniform(0.5, 2, (a.s, a.k)),
        "whiteners": whiteners,
        "degrees": a.rng.choice([3.0, 6.0, 20.0, np.inf], a.s),
        "constants": a.rng.normal(size=a.s),
        "likelihood": np.full(a.s, -np.inf),
    }
    arguments = {
        "X": a.rows(),
        "sample_weight": weight,
        "unit": float(a.rng.uniform(0.5, 2)),
        **{name: a.memory.place(a.rng, value) for name, value in parameters.items()},
        "log_volume": float(a.rng.uniform(1, 5)),
        "first": 1,
        "last": last,
        "max_iter": last + int(a.rng.integers(0, 2)),
        "total": float(a.n if weight is None else weight.sum()) or 1.0,
        "tol": 0.0,
        "race": int(a.rng.integers(1, 5)),
        "margin": 0.1,
        "least_likelihood": -1.0,
        "least_classified": -1.0,
        "same": float(a.rng.choice([0.0, 1e-3])),
    }
    rounded = arguments["X"].dtype == np.float64 and bool(a.rng.integers(0, 2))
    arguments |= model | {"rounded": rounded, "n_threads": a.threads}
    call = Call(_core.expectation_maximization, arguments, check)
    return call


def core_moments_of_labels(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if call.replaced:
            return
        means, mass, second = result
        X, s = given["X"], given["sample_weight"]
        for i, labels in enumerate(given["labels"]):
            member = labels == np.arange(given["n_clusters"])[:, None]
            near(mass[i], member @ s, s.sum(), X, "mass")
            sums = (member * s) @ X
            near(means[i] * mass[i][:, None], sums, 1 + (member * s) @ np.abs(X), X, "means")
            diagonal = second[i]
            if given["full"]:
                diagonal = np.diagonal(second[i], axis1=-2, axis2=-1)
            squares = (member * s) @ X**2
            wanted = squares - mass[i][:, None] * means[i] ** 2
            near(diagonal, wanted, 1 + squares, X, "second moments")

    full = bool(a.rng.random() < 0.5)
    if full:
        a.d, a.k = min(a.d, 33), min(a.k, 9)
    arguments = {
        "X": a.array(a.n, a.d),
        "sample_weight": a.memory.place(a.rng, a.rng.uniform(0.5, 2, a.n)),
        "labels": a.memory.place(a.rng, a.rng.integers(-1, a.k, (a.s, a.n)).astype(np.int32)),
        "n_clusters": a.k,
        "full": full,
        "n_threads": a.threads,
    }
    call = Call(_core.moments_of_labels, arguments, check)
    return call


def core_halves_of_labels(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        if call.replaced:
            return
        rows, half = result
        assert rows.shape == given["X"].shape
        # They are drawn towards a mean of rows, so that none is farther from 0 than the farthest.
        squares = ((given["X"] * given["factors"]) ** 2).sum(axis=1)
        assert ((rows**2).sum(axis=1) <= (1 + 1e-9) * squares.max(initial=0)).all()
        for label in range(given["n_clusters"]):
            own = half[given["labels"] == label]
            assert not own.any() or given["least"] <= own.sum() <= len(own) - given["least"]

    arguments = {
        "X": a.rng.normal(size=(a.n, a.d)),
        "sample_weight": a.rng.uniform(0, 2, a.n),
        "labels": a.rng.integers(0, a.k, a.n).astype(np.int32),
        "factors": a.rng.uniform(0.5, 2, a.d),
        "n_clusters": a.k,
        "farthest": 1.5,
        "least": int(a.rng.integers(1, 5)),
        "prior": 20.0,
        "refined": int(a.rng.integers(0, 5)),
        "n_threads": a.threads,
    }
    call = Call(_core.halves_of_labels, arguments, check)
    return call


def core_sparse(a: Arguments) -> Call:
    """Sparse rows of any kind, and one call of one of their methods."""
    rng = a.rng
    a.d, a.k = min(a.d, 65), min(a.k, 17)
    dense = rng.normal(size=(a.n, a.d)) * (rng.random((a.n, a.d)) < 0.3)
    dense = dense.astype(a.dtype)
    rows, columns = np.nonzero(dense)
    start = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=a.n))])
    weight = rng.uniform(0.5, 2, a.n)

    def check(result: Any, inner: dict[str, Any]) -> None:
        sum_wx, sum_w, sum_p, exponent, objective = result
        unit = np.exp2(exponent)
        found = sum_wx * unit[..., None], sum_w * unit, sum_p * unit, objective
        C, alpha, s = inner["centroids"], inner["alpha"], outer.arguments["sample_weight"]
        if inner_replaced or not ordinary({"X": dense, "alpha": alpha, "centroids": C}):
            return
        check_sums(found, dense, C, alpha, s, np.zeros(a.d), inner["weighting"], inner["fuzzifier"])

    def check_sums_of_mixture(result: Any, inner: dict[str, Any]) -> None:
        given = inner | {"X": dense, "sample_weight": outer.arguments["sample_weight"]}
        if not inner_replaced and ordinary_mixture(given):
            check_expectation(result, given)

    def check_log_densities(result: Any, inner: dict[str, Any]) -> None:
        given = inner | {"X": dense}
        if not inner_replaced and ordinary_mixture(given, DENSITIES):
            check_densities(given)

    inner_replaced: list[str] = []

    def passes(matrix: _core.Csr, starts: Any, alpha: Any, space: str, **given: Any) -> None:
        solver = _core.Solver(starts, alpha, 1e-6, 1e-9, 1e-12, 2, True, None, None, space)
        solver.iterate_sparse(matrix, int(rng.integers(-1, 5)), **given)

    def use(**given: Any) -> None:
        d = given["n_features"]
        if isinstance(d, int) and 10**6 < d < 2**40:
            return  # numbers of each feature would fill the memory
        matrix = _core.Csr(**given)
        threads = {"n_threads": a.threads}
        calls = [
            Call(
                partial(passes, matrix),
                {
                    "starts": a.array(a.s, a.k, a.d),
                    "alpha": a.alpha(a.s),
                    "space": str(rng.choice(["free", "unit"])),
                    "weighting": str(rng.choice(WEIGHTINGS)),
                    "fuzzifier": float(rng.uniform(1.5, 3)),
                    **threads,
                },
            ),
            Call(
                matrix.statistics,
                {
                    "centroids": a.array(a.s, a.k, a.d),
                    "alpha": a.alpha(a.s),
                    "weighting": str(rng.choice(WEIGHTINGS)),
                    "fuzzifier": float(rng.uniform(1.5, 3)),
                    **threads,
                },
                check,
            ),
            Call(
                matrix.weights,
                {
                    "centroids": a.array(a.k, a.d),
                    "alpha": float(a.alpha(1)[0]),
                    "out": a.full((a.n, a.k), np.nan, a.dtype),
                    **threads,
                },
                outputs=("out",),
            ),
            Call(
                matrix.assign,
                {
                    "centroids": a.array(a.k, a.d),
                    "labels": a.full((a.n,), -1, np.int32),
                    "squared_distances": a.full((a.n,), np.nan, a.dtype),
                    **threads,
                },
                outputs=("labels", "squared_distances"),
            ),
            Call(
                matrix.closest,
                {
                    "candidates": a.array(a.s, 1, a.d),
                    "closest": a.full((a.s, a.n), np.inf, a.dtype),
                    "update": bool(rng.random() < 0.5),
                    **threads,
                },
                outputs=("closest",),
            ),
            Call(matrix.accumulate, {"weights": a.array(a.n, a.k, dtype=a.dtype), **threads}),
            Call(
                matrix.distances,
                {"begin": 0, "end": a.n, "centroids": a.array(a.k, a.d), **threads},
            ),
            Call(matrix.survey, {}),
            Call(matrix.expectation, mixture_arguments(a, a.s, 0) | threads, check_sums_of_mixture),
            Call(
                matrix.densities,
                mixture_arguments(a, 1, 0) | density_outputs(a) | threads,
                check_log_densities,
                DENSITIES,
            ),
        ]
        call = calls[rng.integers(len(calls))]
        replace_some(a, call, 0.5)
        call.replaced += outer.replaced  # a matrix of another shape may refuse what fitted
        inner_replaced.extend(call.replaced)
        # The outputs of this call are not those of `use`, so they are checked here.
        a.memory.before = [room.copy() for room in a.memory.rooms]
        attempt(call)
        a.memory.check(call.written())
        a.memory.before = [room.copy() for room in a.memory.rooms]

    integers = np.dtype(rng.choice(["i4", "i8"]))
    outer = Call(
        use,
        {
            "values": a.memory.place(rng, dense[rows, columns]),
            "columns": a.memory.place(rng, columns.astype(integers)),
            "start": a.memory.place(rng, start.astype(integers)),
            "n_features": a.d,
            "sample_weight": a.maybe(a.memory.place(rng, weight)),
        },
    )
    return outer


def core_settings(a: Arguments) -> Call:
    """Functions with few arguments, or none."""
    before = _core.num_threads()

    def threads(n: Any) -> None:
        _core.set_num_threads(n)
        found = _core.num_threads()
        _core.set_num_threads(before)
        if found != max(int(n), 1):
            raise FaultError(f"{n} threads became {found}")

    calls = [
        Call(_core.least_mass, {"float32": True}),
        Call(_core.set_isa, {"arg0": _core.isa()}),
        Call(threads, {"n": 3}),
        Call(_core.available_isas, {}),
    ]
    call = calls[a.rng.integers(len(calls))]
    if call.function is _core.set_isa:
        call.function = lambda arg0: _core.set_isa(arg0)
    return call


def core_solver(a: Arguments) -> Call:
    """A solver, some steps of it with any sums, and its states with parts that were replaced."""
    rng, s, k, d = a.rng, a.s, min(a.k, 9), min(a.d, 17)
    if rng.random() < 0.03:  # long centroids, whose steps are computed by other code
        s, d = 1, 2**17 // k + int(rng.integers(1, 9))
    space = str(rng.choice(["free", "unit", "features"]))
    n_axes = 3 if space == "features" else 2

    def use(**given: Any) -> None:
        solver = _core.Solver(**given)
        if len(solver) != len(solver.objectives):
            raise FaultError("the solver has lost runs")
        for _ in range(rng.integers(1, 8)):
            centroids, alpha = solver.candidates()
            n = solver.n_going
            if len(centroids) != n or len(alpha) != n:
                raise FaultError("candidates are not those of the runs that go on")
            if rng.random() < 0.3:
                change_state(solver)
                continue
            if rng.random() < 0.4:
                passes(solver, given["starts"].shape[2], given["space"])
                continue
            call = Call(
                solver.advance,
                {
                    "sum_wx": a.array(*centroids.shape),
                    "sum_w": a.full(centroids.shape[:n_axes], 3.0),
                    "sum_p": a.full(centroids.shape[:n_axes], 4.0),
                    "objective": a.array(n),
                    "reference": a.array(centroids.shape[2]),
                    "n_threads": a.threads,
                },
            )
            replace_some(a, call, 0.4)
            attempt(call)

    def passes(solver: _core.Solver, n_features: int, space: str) -> None:
        n = int(rng.choice(ROWS))
        arguments = {
            "X": a.array(n, n_features, dtype=a.dtype),
            "sample_weight": a.maybe(a.array(n, dtype=a.dtype)),
            "reference": a.maybe(a.array(n_features)),
            "n_threads": a.threads,
            "weighting": str(rng.choice(WEIGHTINGS)),
            "fuzzifier": 1.5,
            "factor": a.maybe(a.array(n, dtype=a.dtype)),
            "rounded": bool(a.dtype == np.float64 and rng.random() < 0.5),
        }
        # Any other number of passes might be one that takes hours.
        call = Call(partial(solver.iterate, max_passes=int(rng.integers(-1, 5))), arguments)
        if space == "features":
            call.replaced.append("X")
        replace_some(a, call, 0.4)
        attempt(call)

    def change_state(solver: _core.Solver) -> None:
        index = int(rng.integers(len(solver)))
        state = solver.get_run(index)
        name = str(rng.choice(list(state)))
        kind = rng.integers(4)
        if name == "past" and kind:
            shape = state["centroids"].shape
            pair = tuple(
                a.other(a.array(*shape), Call(use, {"x": a.array(*shape)}))
                if rng.random() < 0.5
                else a.array(*shape)
                for _ in range(rng.integers(1, 4))
            )
            state["past"] = [pair] * int(rng.integers(1, 4))
        elif kind == 0:
            del state[name]
        else:
            value = state[name]
            if isinstance(value, np.ndarray):
                value = a.memory.place(rng, value)
            state[name] = a.other(value, Call(use, {"x": a.array(2)}))
        if attempt(
            Call(
                solver.set_run,
                {"index": index, "state": state},
                refusals=(ValueError, TypeError, KeyError),
            )
        ):
            solver.get_run(index)
            solver.result(index)
            solver.position(index)
            _ = solver.positions

    bounded = rng.random() < 0.5
    arguments = {
        "starts": a.array(s, k, d),
        "alpha": a.alpha(s),
        "threshold": 1e-6,
        "noise": 1e-9,
        "resolution": 1e-12,
        "window": int(rng.integers(0, 5)),
        "compete": bool(rng.random() < 0.5),
        "low": a.full((d,), -5.0) if bounded else None,
        "high": a.full((d,), 5.0) if bounded else None,
        "space": space,
    }
    return Call(use, arguments)


# --------------------------------------------------------------------------------------------------
# Calls of ekmfast.kernels


def public_arguments(a: Arguments) -> dict[str, Any]:
    a.n = max(a.n, 1)
    several = a.rng.random() < 0.4
    return {
        "X": a.rows(),
        "centroids": a.array(*([a.s] if several else []), a.k, a.d),
        "alpha": a.alpha(a.s) if several and a.rng.random() < 0.5 else float(a.alpha(1)[0]),
        "sample_weight": a.sample_weight(),
        "n_threads": a.threads if a.rng.random() < 0.8 else None,
    }


def check_public_sums(sums: Any, given: dict[str, Any]) -> None:
    C = np.asarray(given["centroids"], np.float64)
    alpha = np.broadcast_to(np.asarray(given["alpha"], np.float64), C.shape[:-2])
    if C.ndim == 2:
        C, alpha, sums = C[None], alpha[None], [np.asarray(part)[None] for part in sums]
    check_sums(
        sums, given["X"], C, alpha, given["sample_weight"], np.zeros(C.shape[-1]), "equilibrium", 1
    )


def public_statistics(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        sums = result.sum_wx, result.sum_w, result.sum_p, result.objective
        finite(*sums)
        if ordinary(given):
            check_public_sums(sums, given)

    return Call(kernels.ekm_statistics, public_arguments(a), check)


def public_step(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        finite(*result)
        if result[0].shape != np.shape(given["centroids"]):
            raise FaultError("the new centroids have another shape")

    return Call(kernels.ekm_step, public_arguments(a), check)


def public_weights(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        finite(result)
        if ordinary({**given, "out": None}):
            d = distances_of(given["X"], np.asarray(given["centroids"], np.float64))
            w, _, scale, _ = weights_of(d, float(np.asarray(given["alpha"])), "equilibrium", 2)
            near(result, w, 1 + scale, given["X"], "weights")

    given = public_arguments(a)
    out = a.maybe(a.full((a.n, a.k), np.nan, a.dtype))
    arguments = {
        "X": given["X"],
        "centroids": a.array(a.k, a.d),
        "alpha": float(a.alpha(1)[0]),
        "out": out,
        "n_threads": given["n_threads"],
    }
    return Call(kernels.compute_weights, arguments, check, ("out",))


def public_update(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        finite(result)
        w, X = (np.asarray(given[name], np.float64) for name in ("weights", "X"))
        if ordinary(given) and (w >= 0).all():
            near(
                result,
                w.T @ X / w.sum(axis=0)[:, None],
                1 + np.abs(X).max(),
                given["X"],
                "centroids",
            )

    given = public_arguments(a)
    drawn = a.rng.uniform(0.5, 2, (a.n, a.k)).astype(a.dtype)
    arguments = {"X": given["X"], "weights": a.memory.place(a.rng, drawn), "n_threads": a.threads}
    return Call(kernels.update_centroids, arguments, check)


def public_assign(a: Arguments) -> Call:
    def check(result: Any, given: dict[str, Any]) -> None:
        labels, squares = result
        C = np.asarray(given["centroids"], np.float64)
        finite(squares)
        if ((labels < 0) | (labels >= len(C))).any():
            raise FaultError("a label is no centroid's")
        if ordinary(given):
            check_nearest(labels, squares, given["X"], C)

    arguments = {"X": a.rows(), "centroids": a.array(a.k, a.d), "n_threads": a.threads}
    return Call(kernels.assign, arguments, check)


MAKERS: dict[str, Callable[[Arguments], Call]] = {
    "_core.statistics": core_statistics,
    "_core.weights": core_weights,
    "_core.assign": core_assign,
    "_core.closest": core_closest,
    "_core.label_each": core_label_each,
    "_core.draw_rows": core_draw_rows,
    "_core.choose_rows": core_choose_rows,
    "_core.accumulate": core_accumulate,
    "_core.survey": core_survey,
    "_core.plausible_sums": core_plausible_sums,
    "_core.plausible_update": core_plausible_update,
    "_core.exp2_kernel": core_exp2,
    "_core.partial_statistics": core_partial_statistics,
    "_core.partial_distances": core_partial_distances,
    "_core.expectation": core_expectation,
    "_core.densities": core_densities,
    "_core.classification_likelihoods": core_classification_likelihoods,
    "_core.renumber": core_renumber,
    "_core.distinct_labels": core_distinct_labels,
    "_core.shared_labels": core_shared_labels,
    "_core.merge_close": core_merge_close,
    "_core.whiteners": core_whiteners,
    "_core.maximization": core_maximization,
    "_core.expectation_maximization": core_expectation_maximization,
    "_core.moments_of_labels": core_moments_of_labels,
    "_core.halves_of_labels": core_halves_of_labels,
    "_core.Csr": core_sparse,
    "_core.settings": core_settings,
    "_core.Solver": core_solver,
    "kernels.ekm_statistics": public_statistics,
    "kernels.ekm_step": public_step,
    "kernels.compute_weights": public_weights,
    "kernels.update_centroids": public_update,
    "kernels.assign": public_assign,
}


# --------------------------------------------------------------------------------------------------
# Running them


def replace_some(a: Arguments, call: Call, chance: float) -> None:
    if not call.arguments or a.rng.random() >= chance:
        return
    for _ in range(a.rng.integers(1, 3)):
        name = str(a.rng.choice(list(call.arguments)))
        call.arguments[name] = a.other(call.arguments[name], call)
        call.replaced.append(name)


def attempt(call: Call) -> bool:
    """Call; whether it returned. An exception must be one that the call may raise."""
    try:
        result = call.function(**call.arguments)
    except FaultError:
        raise
    except call.refusals as error:
        if not call.replaced and getattr(call.function, "__name__", "") != "set_run":
            raise FaultError(f"good arguments were refused: {error}") from error
        return False
    call.check(result, call.arguments)
    return True


def run(seed: int, number: int, memory: Memory) -> str:
    """One call; a word for how it ended."""
    rng = np.random.default_rng([seed, number])
    memory.begin()
    isas = _core.available_isas()
    _core.set_isa(isas[number % len(isas)])
    name = list(MAKERS)[rng.integers(len(MAKERS))]
    a = Arguments(rng, memory)
    call = MAKERS[name](a)
    replace_some(a, call, 0.7)
    memory.before = [room.copy() for room in memory.rooms]
    try:
        returned = attempt(call)
        memory.check(call.written())
    except Exception as error:
        sizes = f"n={a.n} k={a.k} d={a.d} {a.dtype} {_core.isa()}"
        said = f"call {number} of seed {seed}, {name}({sizes}), replaced {call.replaced}: {error!r}"
        raise FaultError(said) from error
    return f"{name} {'returned' if returned else 'refused'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one call")
    parser.add_argument("--log", help="a file for the number of the call in progress")
    options = parser.parse_args()
    warnings.simplefilter("error")
    memory, ends = Memory(), Counter[str]()
    log = os.open(options.log, os.O_WRONLY | os.O_CREAT) if options.log else None
    numbers = range(options.calls) if options.only is None else [options.only]
    for number in numbers:
        if log is not None:
            os.pwrite(log, f"{number:<20}".encode(), 0)
        ends[run(options.seed, number, memory)] += 1
    for end, count in sorted(ends.items()):
        print(f"{end:<40} {count}")


if __name__ == "__main__":
    main()
