"""Files that are whole or not there: written out of sight, then put into their place."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

# Temporaries that have a name, where the file system cannot keep them without.
PREFIX, SUFFIX = ".ekmfast-", ".tmp"
# Names of files that this process has open already; opening them again would cut them short, or
# read them from the beginning.
STREAMS = re.compile(r"/dev/(std(?:in|out|err))|/(?:dev|proc/self)/fd/(\d+)")


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
        # Who may not read the old file may not read the new one meanwhile.
        mode = 0o666 if old is None else 0o600
        descriptor, hidden = _open_temporary(folder, temporary, mode)
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


def write_csv(
    path: str | os.PathLike[str],
    header: Sequence[str],
    rows: Iterable[Iterable[Any]],
    *,
    errors: str = "strict",
) -> None:
    """Write a table of text in UTF-8, its lines ended by ``\\n``, by `replace_file`.

    Parameters
    ----------
    path : str or os.PathLike
        May be a pipe or a device.
    header : sequence of str
        Names of the columns.
    rows : iterable of iterables
        Cells, as `csv.writer` takes them.
    errors : str, default="strict"
        As of `str.encode`, for what is no text in UTF-8.

    Raises
    ------
    OSError
        If the file cannot be written.
    UnicodeEncodeError
        If a cell cannot be encoded.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from ekmfast._files import write_csv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.csv")
    ...     write_csv(path, ["a", "b"], [[1, "x,y"]])
    ...     path.read_bytes()
    b'a,b\\n1,"x,y"\\n'
    """

    def fill(file: IO[bytes]) -> None:
        text = io.TextIOWrapper(file, "utf-8", errors, newline="")
        try:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
            text.flush()
        finally:
            text.detach()

    replace_file(path, fill, streams=True)


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
            if sys.stdout is not None:
                sys.stdout.flush()
            descriptor = _another(match)
    with io.BufferedWriter(_NamedFile(descriptor, path)) as file:
        fill(file)


def _another(match: re.Match[str]) -> int:
    """Another descriptor of the open file that a name of `STREAMS` stands for."""
    return os.dup(int(match[2] or {"stdin": 0, "stdout": 1, "stderr": 2}[match[1]]))


def open_input(path: str | os.PathLike[str]) -> io.BufferedReader:
    """A file to read; one that this process has open already from where it stands.

    Parameters
    ----------
    path : str or os.PathLike
        A file, or the name of what is open: ``/dev/stdin``, ``/dev/fd/3``. That may be a socket,
        which cannot be opened by its name, and stays open when the returned file is closed.

    Returns
    -------
    io.BufferedReader

    Raises
    ------
    OSError
        If the file cannot be read; its ``filename`` is ``path``.

    Examples
    --------
    >>> from ekmfast._files import open_input
    >>> with open_input("/dev/null") as file:
    ...     file.read()
    b''
    """
    shown = os.fsdecode(path)
    match = STREAMS.fullmatch(shown)
    with _naming(shown):
        return open(shown if match is None else _another(match), "rb")


def _open_temporary(folder: str, named: str, mode: int) -> tuple[int, bool]:
    """A file to write to, and whether it is hidden: gone with the process if that is killed."""
    _remove_abandoned(folder)
    # As a plain open, unlike tempfile's, this gives the permissions that the user's files have.
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):  # not on this file system
            descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
            _lock(descriptor)  # it has a name for a moment before it takes its place
            return descriptor, True
    while True:
        descriptor = os.open(named, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:
            return descriptor, False
        os.close(descriptor)  # taken for abandoned by another before it was locked


def _lock(descriptor: int) -> None:
    """Tell other processes that this one is alive; the lock ends with the process."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(folder: str) -> None:
    """Remove the temporaries that killed processes have left in a folder."""
    with suppress(OSError):  # a folder that takes files but must not be listed
        for name in os.listdir(folder):
            if name.startswith(PREFIX) and name.endswith(SUFFIX):
                _remove_unlocked(os.path.join(folder, name))


def _remove_unlocked(path: str) -> None:
    # One that is locked, another user's or gone meanwhile stays as it is.
    with suppress(OSError):
        # Whoever may write to the folder may have put a pipe or a link there.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.remove(path)
        finally:
            os.close(descriptor)


def _give_name(descriptor: int, folder: str, name: str) -> None:
    # With a folder's descriptor os.link calls linkat, which alone follows the link in /proc; the
    # path is absolute, so the folder is not looked at.
    at = os.open(folder, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=at, follow_symlinks=True)
    finally:
        os.close(at)
