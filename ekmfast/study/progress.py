"""Time the stages of a study, and estimate the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stages:
    """The stages of a study.

    Parameters
    ----------
    work : mapping of str to float
        The stages in their order, and the work of each in some unit. The time that is left is
        estimated as if each unit took as long as those that are done.
    quiet : bool
        Whether to print nothing.
    estimate : bool, default=True
        Whether to print the time that is left. If nearly all time is that of starting the stages,
        their work says nothing about it.
    """

    def __init__(self, work: Mapping[str, float], quiet: bool, estimate: bool = True) -> None:
        self.left = dict(work)
        self.quiet, self.estimate = quiet, estimate
        self.seconds: dict[str, float] = {}
        self._done = self._spent = self._skipped = 0.0
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str, *, resumed: bool = False) -> Iterator[None]:
        """Time a stage; when it ends, print a line.

        The time of a stage that is resumed is not that of its work, and says nothing about others.
        No time left is printed while the work of such stages is more than that which was timed.
        """
        started = time.perf_counter()
        yield
        seconds = self.seconds[name] = time.perf_counter() - started
        work = self.left.pop(name)
        if resumed:
            self._skipped += work
        else:
            self._done += work
            self._spent += seconds
        text = f"{seconds:6.1f} s  {name}"
        if self.left and self.estimate and self._done >= self._skipped:
            remaining = sum(self.left.values()) * self._spent / self._done
            text += f" (about {spoken(remaining)} left)"
        self.say(text)

    def total(self) -> float:
        """Seconds since the beginning, which are also recorded."""
        self.seconds["total"] = time.perf_counter() - self._started
        return self.seconds["total"]

    def say(self, line: str) -> None:
        """Print a line, unless the study is quiet."""
        if not self.quiet:
            # Names of folders may hold characters that the terminal does not.
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def spoken(seconds: float) -> str:
    """A duration in words."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
