"""What the commands write: looked at before their work, whole after it."""

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

STDOUT = Path("/dev/stdout")


def text_path(text: str) -> Path:
    """The path of a text that may be written to stdout: ``-`` is that."""
    return STDOUT if text == "-" else Path(text)


def check_outputs(
    *outputs: Path | None,
    texts: Sequence[Path | None] = (),
    plot: Path | None = None,
    inputs: Iterable[Path] = (),
) -> None:
    """Refuse before the work what could not be written after it.

    Parameters
    ----------
    *outputs : Path or None
        Files to be written; None for one that was not asked for.
    texts : sequence of Path or None
        Further ones that may be pipes and devices.
    plot : Path or None
        A picture to be drawn.
    inputs : iterable of Path
        What is read, and must not be written over.

    Raises
    ------
    OSError
        If a file cannot be written.
    ValueError
        If a file is asked for twice, or is an input; if a picture's suffix is of no known format.
    ImportError
        If there is a plot and matplotlib is missing.
    """
    read = {_place(path): path for path in inputs}
    asked: set[str] = set()
    for path in (*outputs, *texts, plot):
        if path is None:
            continue
        check_output(path, streams=path in texts)
        if is_stream(path):
            continue
        if _place(path) in read:
            raise ValueError(f"{path}: is an input, and would be written over")
        if _place(path) in asked:
            raise ValueError(f"{path}: is asked for twice")
        asked.add(_place(path))
    if plot is not None:
        from ekmfast.plotting import new_figure

        # LaTeX, which pgf needs, may be missing, and is called after the work.
        known = set(new_figure(1, 1)[0].canvas.get_supported_filetypes()) - {"pgf"}
        if plot.suffix[1:].lower() not in known:
            raise ValueError(f"{plot}: the name must end in one of {', '.join(sorted(known))}")


def _place(path: Path) -> str:
    return os.path.realpath(path)


def check_suffix(path: Path, suffixes: Sequence[str]) -> str:
    """The suffix in small letters, ``.csv`` for a pipe; an error if it is none of ``suffixes``."""
    suffix = path.suffix.lower()
    if not suffix and is_stream(path):
        suffix = ".csv"
    if suffix not in suffixes:
        raise ValueError(f"{path}: the name must end in one of {', '.join(suffixes)}")
    return suffix


def check_names(names: Iterable[str], out: Path) -> None:
    """Refuse before the work file names that text in UTF-8 cannot hold."""
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
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    replace_file(path, lambda file: file.write(picture.getbuffer()))


def map_rows(file: IO[bytes], path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Float32 rows of an ``.npy`` that is being written, in memory as they are used.

    The disk gives their place at once: a mapped file for which it has none would end the process.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    file.flush()
    try:
        os.posix_fallocate(file.fileno(), start, 4 * shape[0] * shape[1])
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise OSError(error.errno, error.strerror, str(path)) from None
    return np.memmap(file, np.dtype("<f4"), "r+", start, shape)
