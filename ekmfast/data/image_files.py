"""Images of a folder, which are read from their files when they are needed."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from operator import index
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np

from ekmfast._optional import require
from ekmfast.data.image_metadata import transposition_of, without_metadata

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
# Types of files by their suffix. A separate object does not read the machine's tables, so that the
# types are the same everywhere.
KINDS = mimetypes.MimeTypes()
# Tags of TIFF.
BITS, PHOTOMETRIC = 0x0102, 0x0106
WHITE_IS_ZERO = 0
# More threads than this read and decode no faster, but hold more whole images in memory.
MOST_THREADS = 16

R = TypeVar("R")


class ImageFiles:
    """Images of a folder, which are read from their files when they are needed.

    `ekmfast.datasets.open_image_folder` makes it. It is a sequence of arrays (C, S, S), float32 in
    [0, 1], which the functions of `ekmfast.autoencoder` take, and also a dataset for
    `torch.utils.data.DataLoader`. Images are not kept in memory.

    Attributes
    ----------
    image_size, channels : int
        S and C.
    labels : ndarray of shape (N,), int64, or None
        Position of the image's sub-folder in ``class_names``; None for a flat folder.
    class_names : list of str
        The sub-folders, sorted; empty for a flat folder.
    paths : list of Path
        File of each image.
    skipped : list of Path
        Files that could not be read and were left out.
    """

    def __init__(
        self,
        paths: list[Path],
        labels: np.ndarray | None,
        class_names: list[str],
        image_size: int,
        channels: int,
        skipped: Sequence[Path] = (),
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.class_names = class_names
        self.image_size = image_size
        self.channels = channels
        self.skipped = list(skipped)

    def __repr__(self) -> str:
        classes = f" in {len(self.class_names)} classes" if self.class_names else ""
        return f"<ImageFiles: {len(self)} images{classes}, {self.channels} x {self.image_size}^2>"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        """Read one image.

        Parameters
        ----------
        i : int
            Index of the image.

        Returns
        -------
        ndarray of shape (C, S, S), float32, in [0, 1]

        Raises
        ------
        IndexError
            If there is no such image.
        ValueError
            If the file cannot be read; the message names it.
        """
        return self._read(self.paths[index(i)])

    def __getitems__(self, rows: Iterable[int]) -> np.ndarray:
        """Read several images, with several threads.

        Parameters
        ----------
        rows : iterable of int
            Indices of the images.

        Returns
        -------
        ndarray of shape (n, C, S, S), float32, in [0, 1]

        Raises
        ------
        IndexError, ValueError
            As for one image.
        """
        paths = [self.paths[index(i)] for i in rows]
        images = np.empty((len(paths), self.channels, self.image_size, self.image_size), np.float32)
        for image, read in zip(images, in_threads(self._read, paths), strict=True):
            image[:] = read
        return images

    def digest(self) -> str:
        """Digest of the bytes of all files and of the size of the images; it ignores the names.

        Returns
        -------
        str

        Raises
        ------
        OSError, ValueError
            If a file cannot be read.
        """
        whole = hashlib.sha256(f"{len(self)} files {self.channels} {self.image_size}".encode())
        for part in in_threads(_digest_of_file, self.paths):
            whole.update(part)
        return whole.hexdigest()

    def _read(self, path: Path) -> np.ndarray:
        image = try_to_read(path, self.image_size, self.channels)
        if isinstance(image, str):
            raise ValueError(f"cannot read the image {image}")
        return image


def in_threads(function: Callable[[Path], R], paths: Sequence[Path]) -> Iterable[R]:
    """Yield ``function(path)`` for each path, in order, computed by several threads.

    Threads help, since Pillow releases the GIL while it decodes.
    """
    n_threads = min(len(paths), joblib.cpu_count(), MOST_THREADS)
    if n_threads < 2:
        yield from map(function, paths)
        return
    with ThreadPoolExecutor(n_threads, thread_name_prefix="ekmfast-images") as pool:
        # A few paths at a time, since `map` keeps all results that are not yet consumed.
        step = 4 * n_threads
        for start in range(0, len(paths), step):
            yield from pool.map(function, paths[start : start + step])


def try_to_read(path: Path, size: int, channels: int) -> np.ndarray | str:
    """The image, (C, S, S) float32 in [0, 1]; or a message with the name of the file."""
    try:
        return _read_image(path, size, channels)
    except Exception as error:  # Pillow raises different types for different damages
        return f"{path} ({error or type(error).__name__})"


def _digest_of_file(path: Path) -> bytes:
    _check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))


def _images_in(folder: Path, others: list[Path]) -> list[Path]:
    """Files in a folder that can be read as images; other images are appended to ``others``."""
    files = [p for p in sorted(folder.iterdir()) if not (p.name.startswith(".") or p.is_dir())]
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    for path in files:
        kind, _ = KINDS.guess_type(path.name.lower())
        is_image = kind is not None and kind.startswith("image/")
        if is_image and path.suffix.lower() not in IMAGE_SUFFIXES:
            others.append(path)
    return images


def image_files(folder: Path, stacklevel: int) -> tuple[list[Path], list[int], list[str]]:
    """Image files, the class of each, and the names of the classes.

    Warnings name files and folders that are ignored, but that the user may have expected to count.
    """
    others: list[Path] = []
    flat = _images_in(folder, others)
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    inside = {p: _images_in(p, others) for p in entries if p.is_dir()}
    by_class = {sub.name: images for sub, images in inside.items() if images}
    if flat and by_class:
        raise ValueError(
            f"path={str(folder)!r}: has images in sub-folders and {len(flat)} beside them, first "
            f"{flat[0].name}; a folder must have one or the other"
        )
    broken = [p for p in entries if not p.exists() and p not in flat and p not in others]
    # Sub-folders without images are only worth a warning if other sub-folders are classes.
    empty = [p for p, images in inside.items() if not images] if by_class else []
    for what, ignored in (
        ("images of a kind that is not read", others),
        ("folders without images, which are no classes", empty),
        ("broken links", broken),
    ):
        if ignored:
            names = ", ".join(str(p.relative_to(folder)) for p in ignored)
            message = f"path={str(folder)!r}: passed over {what}: {names}"
            warnings.warn(message, stacklevel=stacklevel)
    if not by_class:
        return flat, [], []
    files = [file for images in by_class.values() for file in images]
    classes = [i for i, images in enumerate(by_class.values()) for _ in images]
    return files, classes, list(by_class)


def _check_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        # Reading from, for instance, a pipe would block.
        raise ValueError(f"{path} is not a regular file")


def _read_image(file: Path, size: int, channels: int) -> np.ndarray:
    pil: Any = require("PIL.Image", "torch")
    _check_file(file)
    try:
        with pil.open(file) as opened:
            return _pixels(opened, size, channels)
    except Exception as error:
        # Try again without the metadata, which may be the reason that Pillow fails.
        content = b"" if isinstance(error, FileNotFoundError) else file.read_bytes()
        bare = without_metadata(content)
        if bare is None or bare == content:
            raise
        with suppress(Exception), pil.open(io.BytesIO(bare)) as opened:
            return _pixels(opened, size, channels)
        raise


def _pixels(opened: Any, size: int, channels: int) -> np.ndarray:
    pil: Any = require("PIL.Image", "torch")
    # load_end reads the metadata that follow the pixels: texts and times, or all of a TIFF's.
    opened.load_end = partial(_load_end_if_possible, opened.load_end, opened.format)
    opened.load()
    transposition = transposition_of(opened)
    image = opened if transposition is None else opened.transpose(transposition)
    if image.mode.startswith("I") and (brightest := _brightest(opened)) is not None:
        # Pillow's own conversion to 8 bits would clip these values at 255.
        grey = np.asarray(image).astype(np.float32) / np.float32(brightest)
        if opened.format == "TIFF" and opened.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            grey = 1 - grey
        return np.repeat(resized(grey[None], size)[0], channels, axis=0)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(
        image.resize((size, size), pil.Resampling.LANCZOS), dtype=np.float32
    ) / np.float32(255)
    return pixels.reshape(size, size, channels).transpose(2, 0, 1)


def _load_end_if_possible(load_end: Callable[[], None], format: str) -> None:
    # For a TIFF, load_end would also rotate the image, and only partly if its metadata are
    # malformed.
    if format != "TIFF":
        with suppress(Exception):
            load_end()


def _brightest(opened: Any) -> int | None:
    """The largest possible value of grey pixels with more than 8 bits; None if it is unknown."""
    if opened.mode.startswith("I;16"):
        bits = opened.tag_v2[BITS][0] if opened.format == "TIFF" else 16
        return int(2**bits - 1)
    # Pillow scales the pixels of PGM files to 16 bits; so do older versions with those of PNG.
    return 65535 if opened.format in ("PPM", "PNG") and opened.mode == "I" else None


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Resize (N, H, W) float32 in [0, 1] to (N, 1, size, size), without rounding to 8 bits."""
    pil: Any = require("PIL.Image", "torch")
    resized = np.empty((len(images), 1, size, size), np.float32)
    for image, out in zip(images, resized, strict=True):
        out[0] = pil.fromarray(image).resize((size, size), pil.Resampling.LANCZOS)
    return np.clip(resized, 0, 1, out=resized)
