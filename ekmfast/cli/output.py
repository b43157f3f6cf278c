"""The files that commands write.

Outputs are checked before the work, so that a command does not fail at its end, and files are
written completely or not at all.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import check_output, is_stream, replace_file
from ekmfast._optional import require
from ekmfast.cli.errors import warnings_in_one_line

STDOUT = Path("/dev/stdout")


def text_path(text: str) -> Path:
    """The path of an output that may be stdout, for which ``-`` stands."""
    return STDOUT if text == "-" else Path(text)


def check_outputs(
    *outputs: Path | None,
    texts: Sequence[Path | None] = (),
    plot: Path | None = None,
    inputs: Iterable[Path] = (),
) -> None:
    """Refuse outputs that cannot be written, before the work that produces them.

    Parameters
    ----------
    *outputs : Path or None
        Files that will be written; None for a file that was not requested.
    texts : sequence of Path or None
        Further outputs, which may be pipes and devices.
    plot : Path or None
        A picture that will be drawn.
    inputs : iterable of Path
        Files that are read, and must not be overwritten.

    Raises
    ------
    OSError
        If a file cannot be written.
    ValueError
        If a file is requested twice, or is an input; or if the suffix of a picture is unknown.
    ImportError
        If there is a plot and matplotlib is missing.
    """
    read = {os.path.realpath(path) for path in inputs}
    requested: set[str] = set()
    for path in (*outputs, *texts, plot):
        if path is None:
            continue
        check_output(path, streams=path in texts)
        if is_stream(path):
            continue
        place = os.path.realpath(path)
        if place in read:
            raise ValueError(f"{path}: is an input, and would be overwritten")
        if place in requested:
            raise ValueError(f"{path}: is asked for twice")
        requested.add(place)
    if plot is not None:
        from ekmfast.plotting import new_figure

        # The format pgf is refused: it needs LaTeX, whose absence would show only at the end.
        known = set(new_figure(1, 1)[0].canvas.get_supported_filetypes()) - {"pgf"}
        if plot.suffix[1:].lower() not in known:
            raise ValueError(f"{plot}: the name must end in one of {', '.join(sorted(known))}")


def check_suffix(path: Path, suffixes: Sequence[str]) -> str:
    """The suffix in lower case, or ``.csv`` for a pipe; raise an error if it is not allowed."""
    suffix = path.suffix.lower()
    if not suffix and is_stream(path):
        suffix = ".csv"
    if suffix not in suffixes:
        raise ValueError(f"{path}: the name must end in one of {', '.join(suffixes)}")
    return suffix


def asks_for_onnx(path: Path) -> bool:
    """Whether the name ends in ``.onnx``; raise ImportError if the package onnx is missing."""
    if path.suffix.lower() != ".onnx":
        return False
    require("onnx", "onnx")
    return True


def check_names(names: Iterable[str], out: Path) -> None:
    """Refuse file names that are not valid UTF-8, before the work whose text output lists them."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{name.encode(errors='backslashreplace').decode()}: the name is not in UTF-8 and "
                f"cannot be written to {out}: rename the file, or write .npz"
            ) from None


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON."""

    def fill(file: IO[bytes]) -> None:
        file.write((json.dumps(value, indent=1) + "\n").encode())

    replace_file(path, fill, streams=True)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to an ``.npz``."""
    replace_file(path, lambda file: np.savez(file, **arrays))


def write_figure(path: Path, figure: Any) -> None:
    """Draw a figure of matplotlib into a file of the format that its suffix names."""
    picture = io.BytesIO()
    with warnings_in_one_line():  # such as of letters that no font has
        figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    replace_file(path, lambda file: file.write(picture.getbuffer()))


def map_rows(file: IO[bytes], path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """A memory map of the float32 rows of an ``.npy`` file that is being written.

    The space on the disk is allocated at once where the system can. Without this, writing to the
    map on a full disk would end the process.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    file.flush()
    try:
        if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
            os.posix_fallocate(file.fileno(), start, 4 * shape[0] * shape[1])
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise OSError(error.errno, error.strerror, str(path)) from None
    return np.memmap(file, np.dtype("<f4"), "r+", start, shape)
