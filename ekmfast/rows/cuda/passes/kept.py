"""What passes over the same rows use again: arrays on the GPU, their mirrors, and recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ekmfast.rows.cuda.mirror import MOST_KEPT, Mirror, Scratch, Specification
from ekmfast.rows.cuda.recording import POSSIBLE, Recording

Buffers = TypeVar("Buffers")


class Kept:
    """Arrays and recordings, made when they are first asked for.

    Parameters
    ----------
    steady : bool
        Whether each pass reads the same arrays on the GPU, so that it can be recorded.
    """

    def __init__(self, steady: bool) -> None:
        self._records = POSSIBLE and steady
        self._scratch = Scratch()
        self._buffers: dict[tuple[Any, ...], Any] = {}
        self._mirrors: dict[tuple[Any, ...], Mirror] = {}
        # None for work that ran once.
        self.recordings: dict[tuple[Any, ...], Recording | None] = {}

    def mirror(
        self,
        *key: Any,
        there: dict[str, Specification] | None = None,
        **arrays: Specification,
    ) -> Mirror:
        """The mirror that ``key`` names."""
        if key not in self._mirrors:
            if len(self._mirrors) >= MOST_KEPT:
                self._mirrors.clear()
                self.recordings.clear()
            self._mirrors[key] = Mirror(there, **arrays)
        return self._mirrors[key]

    def scratch(self, key: tuple[Any, ...], **arrays: Specification) -> dict[str, Any]:
        """See `Scratch.arrays`; what uses memory that a larger piece has replaced is forgotten."""
        generation = self._scratch.generation
        found = self._scratch.arrays(key, **arrays)
        if generation != self._scratch.generation:
            self._buffers.clear()
            self.recordings.clear()
        return found

    def buffers(self, key: tuple[Any, ...], make: Callable[[], Buffers]) -> Buffers:
        """What ``make`` made of scratch memory when ``key`` was first given."""
        if key not in self._buffers:
            if len(self._buffers) >= MOST_KEPT:
                self._buffers.clear()
            made = make()  # may forget all others
            self._buffers[key] = made
        found: Buffers = self._buffers[key]
        return found

    def run(self, key: tuple[Any, ...], work: Callable[[], None]) -> None:
        """Do what a pass does on the GPU; from the second time on as a recording."""
        if not self._records:
            work()
        elif key not in self.recordings:
            if len(self.recordings) >= MOST_KEPT:
                self.recordings.clear()
            work()
            self.recordings[key] = None
        else:
            recording = self.recordings[key] or Recording(work)
            self.recordings[key] = recording
            recording.repeat()
