"""Work one item ahead: a thread makes the next item while the caller is busy with this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

# Items that are made but not yet taken.
AHEAD = 1


def ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield the items, made by a thread of their own; its errors are raised here.

    The thread ends, and with it ``items``, when the items do, by an error of either, and when the
    caller leaves its loop and closes this generator: an error's traceback would keep an iteration
    that is only left, and with it the thread, alive.
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
            # What waits in its `yield` holds files and blocks.
            if isinstance(items, Generator):
                items.close()

    reader = threading.Thread(target=work, name="ekmfast-reader", daemon=True)
    try:
        reader.start()  # here already Ctrl-C may come
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        if reader.is_alive():  # not where Ctrl-C was before its start
            reader.join(timeout=1)  # not for ever, should the making itself hang
