"""Reading ahead: a thread makes the next item of an iterable while the caller uses this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

# How many items wait at most, made but not yet taken by the caller.
AHEAD = 1


def ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield the items, which a thread makes; an error of that thread is raised here.

    The thread ends, and ``items`` is closed, after the last item, after an error on either side,
    and when the caller closes this generator. A caller must close it: if an error merely leaves the
    caller's loop, its traceback keeps the generator and thereby the thread alive.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=AHEAD)
    stop = threading.Event()
    end = object()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:
            put((end, error))
        finally:
            # A generator that waits in its `yield` keeps files open and blocks in memory.
            if isinstance(items, Generator):
                items.close()

    reader = threading.Thread(target=work, name="ekmfast-reader", daemon=True)
    try:
        reader.start()  # inside the try, since Ctrl-C may interrupt this line already
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        if reader.is_alive():  # it is not if Ctrl-C came before its start
            reader.join(timeout=1)  # with a limit, as the thread may hang while it makes an item
