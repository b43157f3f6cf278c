"""Rows as the GPU reads them: all in its memory, or copied to it in segments in each pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.compiler import cuda
from ekmfast.rows.cuda.division import segment_rows
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import THREADS, empty, host, is_aligned, run_on, upload
from ekmfast.rows.cuda.locked import lock
from ekmfast.rows.cuda.mirror import MOST_KEPT, Mirror

Float64 = NDArray[np.float64]

# `take` keeps memory for so many numbers of rows or fewer.
FEW_NUMBERS = 1 << 15


class Held(Protocol):
    """N rows of D features and their weights."""

    n: int
    d: int
    dtype: Any  # np.float32 or np.float64, the class
    weighted: bool
    dense: bool  # whether the rows are C-contiguous
    aligned: bool  # whether they begin where the widest loads may
    steady: bool  # whether each pass reads the same arrays on the GPU

    def segments(self) -> Iterator[tuple[int, Any, Any]]:
        """Yield (first row, rows (m, D), weights (m,) or a single 1) on the GPU, in order."""

    def take(self, index: NDArray[np.intp]) -> Float64:
        """The rows with these numbers, on the host."""

    def subset(self, index: NDArray[np.intp]) -> ResidentRows:
        """The rows with these numbers, all in the GPU's memory."""

    def weights(self, begin: int, end: int) -> Float64:
        """The weights of some rows, on the host; only for rows with weights."""

    def total_weight(self) -> float: ...


class ResidentRows:
    """Rows in the GPU's memory."""

    steady = True

    def __init__(self, X: Any, sample_weight: Any = None) -> None:
        self.X = X
        self.n, self.d = X.shape
        self.dtype = np.dtype(X.dtype).type
        self.weighted = sample_weight is not None
        self.dense = bool(X.is_c_contiguous())
        self.aligned = is_aligned(X)
        self.s = upload(np.ones(1, self.dtype)) if sample_weight is None else sample_weight
        self._taken: dict[int, Mirror] = {}

    def segments(self) -> Iterator[tuple[int, Any, Any]]:
        yield 0, self.X, self.s

    def take(self, index: NDArray[np.intp]) -> Float64:
        shape, blocks = (index.size, self.d), -(-index.size * self.d // THREADS)
        if 0 < index.size * self.d <= FEW_NUMBERS:
            few = self._few(index.size)
            few.host["numbers"][:] = index.ravel()
            few.send()
            launch(kernels.gather(self.dtype), blocks, self.X, few.card["numbers"],
                   few.card["rows"])  # fmt: skip
            few.fetch()
            return few.host["rows"].reshape(*index.shape, self.d).copy()
        out = empty(shape, np.float64)
        launch(kernels.gather(self.dtype), blocks, self.X, upload(index.ravel()), out)
        return host(out).reshape(*index.shape, self.d)

    def _few(self, count: int) -> Mirror:
        """Memory for the numbers of a few rows and for these rows, kept for the next call."""
        if count not in self._taken:
            if len(self._taken) >= MOST_KEPT:
                self._taken.clear()
            self._taken[count] = Mirror(
                numbers=((count,), np.int64), rows=((count, self.d), np.float64)
            )
        return self._taken[count]

    def subset(self, index: NDArray[np.intp]) -> ResidentRows:
        out = empty((index.size, self.d), self.dtype)
        blocks = -(-index.size * self.d // THREADS)
        launch(kernels.gather(self.dtype), blocks, self.X, upload(index), out)
        s = None
        if self.weighted:
            column = self.s.reshape(self.s.shape[0], 1)
            s = empty((index.size, 1), self.dtype)
            launch(kernels.gather(self.dtype), -(-index.size // THREADS), column, upload(index), s)
            s = s.reshape(index.size)
        return ResidentRows(out, s)

    def weights(self, begin: int, end: int) -> Float64:
        return host(self.s[begin:end]).astype(np.float64)

    def total_weight(self) -> float:
        return float(host(self.s).astype(np.float64).sum()) if self.weighted else float(self.n)


class Buffer:
    """Memory on the GPU for one array of a segment, and pinned memory of the host if needed."""

    def __init__(self, shape: int | tuple[int, ...], dtype: Any) -> None:
        self.card = empty(shape, dtype)
        self._shape, self._dtype = shape, dtype
        self._pinned: Any = None

    def send(self, values: NDArray[Any], locked: bool, stream: Any) -> Any:
        """Copy to the GPU, directly if the memory of ``values`` is locked; return the copy."""
        if not locked:
            if self._pinned is None:
                self._pinned = cuda.pinned_array(self._shape, self._dtype)
            stream.synchronize()  # until the previous contents of the pinned memory are copied
            self._pinned[: len(values)] = values
            values = self._pinned[: len(values)]
        there = self.card[: len(values)]
        there.copy_to_device(values, stream=stream)
        return there


@dataclass
class Slot:
    """The buffers of a segment, and the stream on which they are filled."""

    X: Buffer
    s: Buffer
    stream: Any = field(default_factory=cuda.stream)
    sent: Any = field(default_factory=cuda.event)
    used: Any = field(default_factory=cuda.event)


class StreamedRows:
    """Rows on the host that are copied to the GPU in segments.

    There are buffers for two segments. While kernels read one segment, the next is copied on a
    stream of its own. Kernels run on a third stream, because the default stream waits for all
    others, and copies would then wait for kernels. The memory of the rows is locked; where that is
    impossible, rows are copied through pinned memory, which is four times slower.
    """

    dense = aligned = True
    steady = False

    def __init__(self, X: NDArray[Any], sample_weight: NDArray[Any] | None) -> None:
        self.X, self.sample_weight = X, sample_weight
        self.n, self.d = X.shape
        self.dtype = X.dtype.type
        self.weighted = sample_weight is not None
        self.rows = segment_rows(self.n, self.d, X.itemsize)
        self._one = upload(np.ones(1, self.dtype))
        self._slots: list[Slot] = []
        self._stream: Any = None
        self._locked = lock(self, X) and (sample_weight is None or lock(self, sample_weight))

    def _slot(self) -> Slot:
        s = self.rows if self.weighted else 1
        return Slot(Buffer((self.rows, self.d), self.dtype), Buffer(s, self.dtype))

    def _send(self, first: int, slot: Slot) -> tuple[int, Any, Any]:
        here = slice(first, min(first + self.rows, self.n))
        slot.used.wait(slot.stream)
        X, s = slot.X.send(self.X[here], self._locked, slot.stream), self._one
        if self.sample_weight is not None:
            s = slot.s.send(self.sample_weight[here], self._locked, slot.stream)
        slot.sent.record(slot.stream)
        return first, X, s

    def segments(self) -> Iterator[tuple[int, Any, Any]]:
        starts = range(0, self.n, max(self.rows, 1))
        if not self._slots:
            self._slots = [self._slot() for _ in range(min(2, len(starts)))]
            self._stream = cuda.stream()
        run_on(self._stream)
        try:
            sent: Any = None
            for i in range(len(starts) + 1):
                here, before = sent, self._slots[(i - 1) % len(self._slots)]
                if here is not None:
                    before.sent.wait(self._stream)
                    yield here  # the caller starts kernels; while they run, the next rows are sent
                    before.used.record(self._stream)
                if i < len(starts):
                    sent = self._send(starts[i], self._slots[i % len(self._slots)])
        finally:
            self._stream.synchronize()
            run_on(0)

    def take(self, index: NDArray[np.intp]) -> Float64:
        return self.X[index].astype(np.float64)

    def subset(self, index: NDArray[np.intp]) -> ResidentRows:
        s = self.sample_weight
        return ResidentRows(upload(self.X[index]), None if s is None else upload(s[index]))

    def weights(self, begin: int, end: int) -> Float64:
        assert self.sample_weight is not None
        return self.sample_weight[begin:end].astype(np.float64)

    def total_weight(self) -> float:
        if self.sample_weight is None:
            return float(self.n)
        return float(self.sample_weight.sum(dtype=np.float64))
