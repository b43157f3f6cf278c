"""Files that are whole or not there: written beside their place, then put into it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import IO


def replace_file(path: str | os.PathLike[str], fill: Callable[[IO[bytes]], None]) -> None:
    """Let ``fill`` write a file that takes the place of ``path`` only once it is on the disk.

    Whatever goes wrong, a full disk included, ``path`` holds what it held before.
    """
    # A link is followed, not replaced.
    target = os.path.realpath(os.fsdecode(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(f"path {target!r} is not a regular file")
    # A plain open, unlike tempfile's, gives the permissions that the user's other files have.
    temporary = os.path.join(os.path.dirname(target), f".ekmfast-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
