"""Files that are whole or not there: written out of sight, then put into their place."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

# Temporaries that have a name, where the file system cannot keep them without.
PREFIX, SUFFIX = ".ekmfast-", ".tmp"
# Names of files that this process has open already; opening them again would cut them short.
STREAMS = re.compile(r"/dev/(std(?:out|err))|/(?:dev|proc/self)/fd/(\d+)")


def replace_file(
    path: str | os.PathLike[str], fill: Callable[[IO[bytes]], Any], *, streams: bool = False
) -> None:
    """Let ``fill`` write a file that takes the place of ``path`` only once it is on the disk.

    Whatever goes wrong, a full disk, Ctrl-C or a killed process included, ``path`` holds what it
    held before and nothing is left beside it. A link is followed, and an older file's owner and
    permissions are kept.

    Parameters
    ----------
    path : str or os.PathLike
    fill : callable
        Is given a binary file, open for writing, that can be sought and mapped into memory. It
        must write through that object, whose errors name ``path``, and must not close it.
    streams : bool, default=False
        Whether ``path`` may be a pipe, a terminal or another device, such as ``/dev/stdout``. What
        ``fill`` writes goes there at once; such a file can neither be sought nor mapped.

    Raises
    ------
    OSError
        If the file cannot be written; its ``filename`` is ``path``.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from ekmfast._files import replace_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.txt")
    ...     replace_file(path, lambda file: file.write(b"whole"))
    ...     path.read_text()
    'whole'
    """
    shown = os.fsdecode(path)
    old = _look(shown, streams)
    if _is_stream(shown, old):
        _fill_stream(shown, fill)
        return
    target = os.path.realpath(shown)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    with _naming(shown):
        descriptor, hidden = _open_temporary(folder, temporary)
    try:
        with io.BufferedWriter(_NamedFile(descriptor, shown)) as file:
            if old is not None:
                # Root may write over a user's file, which stays the user's.
                with suppress(PermissionError):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                with _naming(shown):
                    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            fill(file)
            file.flush()
            with _naming(shown):
                os.fsync(descriptor)
                if hidden:
                    _give_name(descriptor, folder, temporary)
                os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def check_output(path: str | os.PathLike[str], *, streams: bool = False) -> os.stat_result | None:
    """Refuse before the work what `replace_file` could not write after it.

    Parameters
    ----------
    path : str or os.PathLike
    streams : bool, default=False
        Whether ``path`` may be a pipe, a terminal or another device.

    Returns
    -------
    os.stat_result or None
        What is there now; None for nothing.

    Raises
    ------
    OSError
        If ``path`` is a folder or, without ``streams``, a device; if its folder is not there; if
        the file or its folder must not be written, or takes no new file when that is tried.

    Examples
    --------
    >>> from ekmfast._files import check_output
    >>> check_output("no/such/folder/a.txt")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] no such folder 'no/such/folder': 'no/such/folder/a.txt'
    """
    path = os.fsdecode(path)
    found = _look(path, streams)
    if _is_stream(path, found):
        return found
    folder = os.path.dirname(os.path.realpath(path))
    trial = os.path.join(folder, f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    # Permissions say nothing of quotas, of file systems that are read alone, or of who asks.
    try:
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        with suppress(FileNotFoundError):  # taken for abandoned by another process
            os.remove(trial)
    except OSError as error:
        told = f"the folder {folder!r} takes no new files: {error.strerror}"
        raise OSError(error.errno, told, path) from None
    return found


def _look(path: str, streams: bool) -> os.stat_result | None:
    """What is at ``path`` now; refuses what by its kind and permissions cannot be written."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        found = None
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, "is a folder, which is not a regular file", path)
    if _is_stream(path, found):
        if not streams:
            raise OSError(errno.EINVAL, "is not a regular file", path)
        return found
    if found is not None and not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, "its permissions forbid writing", path)
    folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path) or "."
    if not os.path.isdir(folder):
        raise OSError(errno.ENOENT, f"no such folder {folder!r}", path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, f"the folder {folder!r} takes no new files", path)
    return found


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to a pipe, a terminal or another device, such as ``/dev/stdout``.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    bool

    Examples
    --------
    >>> from ekmfast._files import is_stream
    >>> is_stream("/dev/stdout"), is_stream("a.csv")
    (True, False)
    """
    shown = os.fsdecode(path)
    try:
        return _is_stream(shown, os.stat(shown))
    except OSError:
        return _is_stream(shown, None)


def _is_stream(path: str, found: os.stat_result | None) -> bool:
    return bool(STREAMS.fullmatch(path)) or (found is not None and not stat.S_ISREG(found.st_mode))


class _NamedFile(io.FileIO):
    """An open file whose errors say which it is: the system's say it of opening alone."""

    def __init__(self, descriptor: int, shown: str) -> None:
        super().__init__(descriptor, "r+b")
        self.shown = shown

    def write(self, content: Any) -> int:
        with _naming(self.shown):
            return super().write(content)


@contextmanager
def _naming(shown: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, shown) from None


def _fill_stream(path: str, fill: Callable[[IO[bytes]], Any]) -> None:
    match = STREAMS.fullmatch(path)
    with _naming(path):
        if match is None:
            descriptor = os.open(path, os.O_WRONLY)
        else:
            number = match[2] or {"stdout": 1, "stderr": 2}[match[1]]
            if sys.stdout is not None:
                sys.stdout.flush()
            descriptor = os.dup(int(number))
    with io.BufferedWriter(_NamedFile(descriptor, path)) as file:
        fill(file)


def _open_temporary(folder: str, named: str) -> tuple[int, bool]:
    """A file to write to, and whether it is hidden: gone with the process if that is killed."""
    # As a plain open, unlike tempfile's, this gives the permissions that the user's files have.
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):  # not on this file system
            return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), True
    _remove_abandoned(folder)
    while True:
        descriptor = os.open(named, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        # The lock tells other processes that this one is alive; it ends with the process.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor, False
        os.close(descriptor)  # taken for abandoned by another before it was locked


def _remove_abandoned(folder: str) -> None:
    """Remove the temporaries that killed processes have left in a folder."""
    for name in os.listdir(folder):
        if name.startswith(PREFIX) and name.endswith(SUFFIX):
            # One that is locked, another user's or gone meanwhile stays as it is.
            with suppress(OSError), open(os.path.join(folder, name), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.remove(os.path.join(folder, name))


def _give_name(descriptor: int, folder: str, name: str) -> None:
    # With a folder's descriptor os.link calls linkat, which alone follows the link in /proc; the
    # path is absolute, so the folder is not looked at.
    at = os.open(folder, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=at, follow_symlinks=True)
    finally:
        os.close(at)
