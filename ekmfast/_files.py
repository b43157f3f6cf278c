"""Write files completely or not at all: a temporary file is written, and then renamed.

Windows has no ``fcntl``, and neither needs nor allows what is done with it: there, a file that is
open can be neither removed nor renamed. Temporary files therefore need no lock, and are closed
before they are renamed.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

WINDOWS = os.name == "nt"
if not WINDOWS:
    import fcntl

# On Windows, os.open would else write b"\n" as b"\r\n".
BINARY = getattr(os, "O_BINARY", 0)

# Parts of the names of temporary files, which are needed where the file system does not support
# files without a name.
PREFIX, SUFFIX = ".ekmfast-", ".tmp"
# Names of files that this process has already opened. Opening them again would truncate them, or
# would read them from the beginning.
STREAMS = re.compile(r"/dev/(std(?:in|out|err))|/(?:dev|proc/self)/fd/(\d+)")


def replace_file(
    path: str | os.PathLike[str], fill: Callable[[IO[bytes]], Any], *, streams: bool = False
) -> None:
    """Let ``fill`` write a file that replaces ``path`` only when it is completely on the disk.

    If this fails, also by a full disk, Ctrl-C or a killed process, ``path`` is unchanged and no
    temporary file is left. A link is followed, and the owner and permissions of an older file are
    kept.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write.
    fill : callable
        A function that gets a binary file, open for writing, which supports ``seek`` and memory
        maps. It must write through that object, whose errors name ``path``, and must not close it.
    streams : bool, default=False
        Whether ``path`` may be a pipe, a terminal or another device, such as ``/dev/stdout``. Then
        ``fill`` writes to it directly; such a file supports neither ``seek`` nor memory maps.

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
    old = _status(shown, streams)
    if _is_stream(shown, old):
        _fill_stream(shown, fill)
        return
    target = os.path.realpath(shown)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    with _naming(shown):
        # Nobody else may read the new file until it has the permissions of the old one.
        mode = 0o666 if old is None else 0o600
        descriptor, hidden = _open_temporary(folder, temporary, mode)
    try:
        with io.BufferedWriter(_NamedFile(descriptor, shown)) as file:
            if old is not None and not WINDOWS:
                # If root replaces a user's file, it still belongs to the user.
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
                if not WINDOWS:  # while the lock is held
                    os.replace(temporary, target)
        if WINDOWS:
            with _naming(shown):
                os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def check_output(path: str | os.PathLike[str], *, streams: bool = False) -> os.stat_result | None:
    """Check before the work that `replace_file` will be able to write a file.

    Parameters
    ----------
    path : str or os.PathLike
        The file that will be written.
    streams : bool, default=False
        Whether ``path`` may be a pipe, a terminal or another device.

    Returns
    -------
    os.stat_result or None
        Status of the existing file; None if there is none.

    Raises
    ------
    OSError
        If ``path`` is a folder or, without ``streams``, a device; if its folder does not exist; if
        permissions forbid writing; or if creating a file in the folder fails.

    Examples
    --------
    >>> from ekmfast._files import check_output
    >>> check_output("no/such/folder/a.txt")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] no such folder 'no/such/folder': 'no/such/folder/a.txt'
    """
    path = os.fsdecode(path)
    status = _status(path, streams)
    if _is_stream(path, status):
        return status
    folder = os.path.dirname(os.path.realpath(path))
    trial = os.path.join(folder, f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    # Create a file, since permissions do not show quotas and read-only file systems.
    try:
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        with suppress(FileNotFoundError):  # another process may remove it as abandoned
            os.remove(trial)
    except OSError as error:
        message = f"the folder {folder!r} takes no new files: {error.strerror}"
        raise OSError(error.errno, message, path) from None
    return status


def _status(path: str, streams: bool) -> os.stat_result | None:
    """Status of the file at ``path``, or None; refuse folders and files that are not writable."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        status = None
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "is a folder, which is not a regular file", path)
    if _is_stream(path, status):
        if not streams:
            raise OSError(errno.EINVAL, "is not a regular file", path)
        return status
    if status is not None and not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, "its permissions forbid writing", path)
    folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path) or "."
    if not os.path.isdir(folder):
        raise OSError(errno.ENOENT, f"no such folder {folder!r}", path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, f"the folder {folder!r} takes no new files", path)
    return status


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a pipe, a terminal or another device, such as ``/dev/stdout``.

    Parameters
    ----------
    path : str or os.PathLike
        The path, which need not exist.

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


def _is_stream(path: str, status: os.stat_result | None) -> bool:
    if STREAMS.fullmatch(path):
        return True
    return status is not None and not stat.S_ISREG(status.st_mode)


def write_csv(
    path: str | os.PathLike[str],
    header: Sequence[str],
    rows: Iterable[Iterable[Any]],
    *,
    errors: str = "strict",
) -> None:
    """Write a CSV file by `replace_file`, as UTF-8 with lines that end with ``\\n``.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write, which may be a pipe or a device.
    header : sequence of str
        Names of the columns.
    rows : iterable of iterables
        The cells of each row, as `csv.writer` takes them.
    errors : str, default="strict"
        As in `str.encode`, for characters that UTF-8 cannot encode.

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
    """An open file whose errors contain its name; the system names files only in errors of open."""

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
            descriptor = _duplicate(match)
    with io.BufferedWriter(_NamedFile(descriptor, path)) as file:
        fill(file)


def _duplicate(match: re.Match[str]) -> int:
    """A duplicate of the descriptor of the open file that a match of `STREAMS` names."""
    return os.dup(int(match[2] or {"stdin": 0, "stdout": 1, "stderr": 2}[match[1]]))


def open_input(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file for reading; a file that is already open is read from its current position.

    Parameters
    ----------
    path : str or os.PathLike
        A file, or the name of an open file, such as ``/dev/stdin`` or ``/dev/fd/3``. The latter may
        be a socket, which cannot be opened by its name. It stays open when the returned file is
        closed.

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
        return open(shown if match is None else _duplicate(match), "rb")


def _open_temporary(folder: str, named: str, mode: int) -> tuple[int, bool]:
    """A temporary file, and whether it has no name, so that the end of the process removes it."""
    _remove_abandoned(folder)
    # os.open gives the permissions that other files of the user have; tempfile does not.
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):  # raised if the file system does not support this
            descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
            _lock(descriptor)  # it will have a temporary name for a moment before it is renamed
            return descriptor, True
    while True:
        descriptor = os.open(named, os.O_CREAT | os.O_EXCL | os.O_RDWR | BINARY, mode)
        _lock(descriptor)
        if WINDOWS or os.fstat(descriptor).st_nlink:
            return descriptor, False
        os.close(descriptor)  # another process has removed it as abandoned before it was locked


def _lock(descriptor: int) -> None:
    """Lock a file, to show other processes that it is in use; the lock ends with the process."""
    if WINDOWS:
        return
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(folder: str) -> None:
    """Remove the temporary files that killed processes have left in a folder."""
    with suppress(OSError):  # raised if the folder may be written but not listed
        for name in os.listdir(folder):
            if name.startswith(PREFIX) and name.endswith(SUFFIX):
                _remove_unlocked(os.path.join(folder, name))


def _remove_unlocked(path: str) -> None:
    # An OSError is raised if the file is locked, belongs to another user, or no longer exists.
    with suppress(OSError):
        if WINDOWS:
            os.remove(path)
            return
        # Other users of the folder may have put a pipe or a link there, which must not be followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.remove(path)
        finally:
            os.close(descriptor)


def _give_name(descriptor: int, folder: str, name: str) -> None:
    # os.link follows the link in /proc only if it calls linkat, and it does so only if src_dir_fd
    # is given. The path in /proc is absolute, so any folder will do.
    folder_descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.link(
            f"/proc/self/fd/{descriptor}",
            name,
            src_dir_fd=folder_descriptor,
            follow_symlinks=True,
        )
    finally:
        os.close(folder_descriptor)
