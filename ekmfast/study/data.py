"""Load the images of a study: digits and faces, or photos of folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ekmfast._optional import require
from ekmfast._parameters import IMAGE_SIZE

DIGITS_SIZE = 32
DIGITS = (2, 7, 1)
# The first class of each triple is the large one. The triples were not selected by their results:
# on some, equilibrium k-means is needed, on some it is not, and on some it fails.
OTHER_DIGITS = ((5, 7, 9), (0, 1, 9), (8, 7, 1), (5, 8, 9), (0, 1, 3), (0, 2, 8), (4, 9, 7))
# The least number of images of a study.
FEWEST = 10
# Photos whose shorter side is usually less than this are studied in 32 x 32 pixels, others in 64.
SMALL_SIDE = 48
# Number of files that are opened to see how large the photos are, and whether they have colours.
LOOKED_AT = 200
GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class StudyData:
    """Normal images with their classes, and anomalous ones.

    Attributes
    ----------
    images : ndarray of shape (N, C, S, S), float32
    labels : ndarray of shape (N,), int64, or None
        None if there are no classes.
    class_names : list of str
        Empty if there are no classes.
    anomalies : ndarray of shape (M, C, S, S), float32, or None
    triple : tuple of three int, or None
        Classes to cluster, beginning with the large class.
    other_triples : tuple of tuples of three int
        Further triples of classes to cluster, for comparison.
    source : str
        Description of the images, for the report.
    files : list of str
        File of each image; empty if the images are in no files.
    """

    images: NDArray[np.float32]
    labels: Labels | None
    class_names: list[str]
    anomalies: NDArray[np.float32] | None
    triple: tuple[int, int, int] | None
    other_triples: tuple[tuple[int, int, int], ...]
    source: str
    files: list[str] = field(default_factory=list)


def load_digits(*, quick: bool = False) -> StudyData:
    """Load handwritten digits, and faces as anomalies, which installed packages contain.

    Parameters
    ----------
    quick : bool, default=False
        Keep 40 images of each class and 20 anomalies.

    Returns
    -------
    StudyData

    Raises
    ------
    ImportError
        If a package is missing.

    Examples
    --------
    >>> from ekmfast.study import load_digits
    >>> load_digits(quick=True).images.shape
    (400, 1, 32, 32)
    """
    from ekmfast.datasets import load_digits_and_faces

    digits = load_digits_and_faces(DIGITS_SIZE)
    data = StudyData(
        digits.digits,
        digits.labels,
        [str(digit) for digit in range(10)],
        digits.faces,
        DIGITS,
        OTHER_DIGITS,
        f"{len(digits.digits):,} handwritten digits (MNIST), {len(digits.faces)} faces (LFW)",
    )
    return _smaller(data) if quick else data


def load_photos(
    photos: str | os.PathLike[str],
    anomalies: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    grey: bool | None = None,
    classes: Sequence[str] | None = None,
    skip_unreadable: bool = False,
    quick: bool = False,
) -> StudyData:
    """Load the photos of a folder, and anomalous ones of another folder.

    Parameters
    ----------
    photos : path-like
        Folder of normal photos, either with a sub-folder for each of at least three classes, or
        without sub-folders.
    anomalies : path-like, default=None
        Folder of anomalous photos.
    image_size : int, default=None
        Height and width, a multiple of 16. None: 32 if the photos are small, else 64.
    grey : bool, default=None
        Whether the images shall have one channel instead of three. None: if all photos have.
    classes : sequence of three str, default=None
        Classes to cluster, beginning with the one that shall be large; None for the three with the
        most photos.
    skip_unreadable : bool, default=False
        Whether to leave out photos that cannot be read, with a warning, instead of raising an
        error.
    quick : bool, default=False
        Keep 40 images of each class and 20 anomalies.

    Returns
    -------
    StudyData

    Raises
    ------
    ImportError
        If a package is missing.
    OSError, ValueError
        If a folder cannot be used, or has no classes of these names.

    Examples
    --------
    >>> from ekmfast.study import load_photos
    >>> data = load_photos("photos", "faces", classes=("cat", "dog", "owl"))  # doctest: +SKIP
    """
    from ekmfast.datasets import load_image_folder, open_image_folder

    if image_size is not None:
        image_size = IMAGE_SIZE.check("image_size", image_size)
    # The files are not yet read, so that faults of the folders are named first.
    folders = [open_image_folder(path, 16) for path in (photos, anomalies) if path is not None]
    files = folders[0]
    _check_folder(photos, files)
    if anomalies is not None:
        _check_apart(photos, files.paths, anomalies, folders[1].paths)
    triple = _triple(photos, files, classes)
    if image_size is None or grey is None:
        small, all_grey = _looks_of(files.paths)
        image_size = (32 if small else 64) if image_size is None else image_size
        grey = all_grey if grey is None else grey
    on_error: Literal["skip", "raise"] = "skip" if skip_unreadable else "raise"
    read = [
        load_image_folder(path, image_size, channels=1 if grey else 3, on_error=on_error)
        for path in (photos, anomalies)
        if path is not None
    ]
    normal, strange = read[0], read[1] if len(read) > 1 else None
    if normal.skipped:  # a class may have lost its images, and then the others other numbers
        _check_folder(photos, normal)
        triple = _triple(photos, normal, classes)
    _check_images(photos, normal, triple)
    name = Path(photos).resolve().name
    in_classes = f" in {len(normal.class_names)} classes" if normal.class_names else ""
    source = f"{len(normal.images):,} images{in_classes} of {name}"
    if strange is not None:
        source += f", {len(strange.images):,} anomalies of {Path(str(anomalies)).resolve().name}"
    data = StudyData(
        normal.images,
        normal.labels,
        normal.class_names,
        None if strange is None else strange.images,
        triple,
        (),
        source,
        [str(path) for path in normal.paths],
    )
    return _smaller(data) if quick else data


def _check_folder(folder: Any, files: Any) -> None:
    """Raise ValueError if a folder has too few images or classes."""
    names = files.class_names
    if files.labels is not None:
        if len(names) < 3:
            raise ValueError(
                f"{folder}: has images in {len(names)} sub-folder{'s' * (len(names) > 1)} "
                f"({', '.join(names)}): must have at least three, one for each class, or all "
                "images in the folder itself, if there are no classes"
            )
        counts = np.bincount(files.labels, minlength=len(names))
        if counts.min() < 2:
            raise ValueError(
                f"{folder}: class {names[int(counts.argmin())]!r} has {_images(counts.min())}: "
                "must have at least 2"
            )
    n = len(files.paths)
    if n < FEWEST:
        raise ValueError(f"{folder}: has {_images(n)}: must have at least {FEWEST}")


def _check_apart(
    photos: Any, normal: Sequence[Path], anomalies: Any, strange: Sequence[Path]
) -> None:
    """Raise ValueError if files are among the normal images and among the anomalies."""
    both = {os.path.realpath(path) for path in normal} & {os.path.realpath(p) for p in strange}
    if both:
        raise ValueError(
            f"{anomalies}: {len(both)} of its {_images(len(strange))} also lie in {photos}: "
            "anomalies must be other images"
        )


def _check_images(folder: Any, files: Any, triple: tuple[int, int, int] | None) -> None:
    """Raise ValueError if all images that will be clustered are equal."""
    chosen = files.images if triple is None else files.images[np.isin(files.labels, triple)]
    if (chosen == chosen[0]).all():
        names = "" if triple is None else f" of {', '.join(files.class_names[c] for c in triple)}"
        raise ValueError(f"{folder}: all {_images(len(chosen))}{names} are equal: must differ")


def _images(n: int) -> str:
    return "one image" if n == 1 else f"{n} images"


def _triple(folder: Any, files: Any, classes: Sequence[str] | None) -> tuple[int, int, int] | None:
    names = files.class_names
    if classes is None:
        if files.labels is None:
            return None
        first, second, third = (
            int(c) for c in np.argsort(-np.bincount(files.labels), kind="stable")[:3]
        )
        return first, second, third
    if files.labels is None:
        raise ValueError(f"{folder}: has no sub-folders, so that no classes can be chosen")
    if len(classes) != 3 or len(set(classes)) != 3:
        raise ValueError(f"classes must be three different names, got {', '.join(classes)}")
    for name in classes:
        if name not in names:
            raise ValueError(f"classes: {name!r} is not one of {', '.join(names)}")
    first, second, third = (names.index(name) for name in classes)
    return first, second, third


def _looks_of(paths: Sequence[Path]) -> tuple[bool, bool]:
    """Whether photos are small, and whether all are grey, as far as some of their files say."""
    pil: Any = require("PIL.Image", "torch")
    sides, all_grey = [], True
    for path in paths[:: max(1, len(paths) // LOOKED_AT)]:
        try:
            with pil.open(path) as image:
                sides.append(min(image.size))
                all_grey = all_grey and image.mode in GREY_MODES
        except Exception:  # Pillow raises different types; reading all files will name this one
            continue
    return bool(sides) and float(np.median(sides)) < SMALL_SIDE, bool(sides) and all_grey


def _smaller(data: StudyData) -> StudyData:
    labels = np.zeros(len(data.images), np.int64) if data.labels is None else data.labels
    rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:40] for c in np.unique(labels)]))
    return StudyData(
        data.images[rows],
        None if data.labels is None else data.labels[rows],
        data.class_names,
        None if data.anomalies is None else data.anomalies[:20],
        data.triple,
        data.other_triples[:1],
        data.source + ", of which a few (quick)",
        [data.files[row] for row in rows] if data.files else [],
    )
