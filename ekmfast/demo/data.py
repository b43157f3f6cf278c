"""Load the images of the demo: digits and faces, or the images of two folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 32
DIGITS = (2, 7, 1)
# The first class of each triple is the large one. The triples were not selected by their results:
# on some, equilibrium k-means is needed, on some it is not, and on some it fails.
OTHER_DIGITS = ((5, 7, 9), (0, 1, 9), (8, 7, 1), (5, 8, 9), (0, 1, 3), (0, 2, 8), (4, 9, 7))

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class DemoData:
    """Normal images with their classes, and anomalous ones.

    Attributes
    ----------
    images : ndarray of shape (N, C, 32, 32), float32
    labels : ndarray of shape (N,), int64
    class_names : list of str
    anomalies : ndarray of shape (M, C, 32, 32), float32
    triple : tuple of three int
        Classes to cluster, beginning with the large class.
    other_triples : tuple of tuples of three int
        Further triples of classes to cluster, for comparison.
    source : str
        Description of the images, for the report.
    """

    images: NDArray[np.float32]
    labels: Labels
    class_names: list[str]
    anomalies: NDArray[np.float32]
    triple: tuple[int, int, int]
    other_triples: tuple[tuple[int, int, int], ...]
    source: str


def load_data(
    images: str | os.PathLike[str] | None = None,
    anomalies: str | os.PathLike[str] | None = None,
    *,
    quick: bool = False,
) -> DemoData:
    """Load digits and faces, or the images of two folders.

    Parameters
    ----------
    images : path-like, default=None
        Folder of normal images, with a sub-folder for each of at least three classes; None for
        5,000 handwritten digits.
    anomalies : path-like, default=None
        Folder of anomalous images; None for 100 faces. It must be given if ``images`` is given.
    quick : bool, default=False
        Keep 40 images of each class and 20 anomalies.

    Returns
    -------
    DemoData

    Raises
    ------
    ImportError
        If a package is missing.
    OSError, ValueError
        If a folder cannot be used.

    Examples
    --------
    >>> from ekmfast.demo import load_data
    >>> load_data(quick=True).images.shape
    (400, 1, 32, 32)
    """
    from ekmfast.datasets import load_digits_and_faces, load_image_folder

    if (images is None) != (anomalies is None):
        raise ValueError("images and anomalies must be given together")
    if images is None or anomalies is None:
        digits = load_digits_and_faces(IMAGE_SIZE)
        data = DemoData(
            digits.digits,
            digits.labels,
            [str(digit) for digit in range(10)],
            digits.faces,
            DIGITS,
            OTHER_DIGITS,
            f"{len(digits.digits):,} handwritten digits (MNIST), {len(digits.faces)} faces (LFW)",
        )
    else:
        folder = load_image_folder(images, IMAGE_SIZE)
        anomalous = load_image_folder(anomalies, IMAGE_SIZE)
        if folder.labels is None or len(folder.class_names) < 3:
            raise ValueError(
                f"{images}: must have images in at least three sub-folders, one for each class"
            )
        counts = np.bincount(folder.labels)
        if counts.min() < 2:
            name = folder.class_names[int(counts.argmin())]
            raise ValueError(f"{images}: class {name!r} has one image, at least 2 are needed")
        first, second, third = (int(c) for c in np.argsort(-counts, kind="stable")[:3])
        data = DemoData(
            folder.images,
            folder.labels,
            folder.class_names,
            anomalous.images,
            (first, second, third),
            (),
            f"{len(folder.images):,} images in {len(folder.class_names)} classes of "
            f"{Path(images).name}, {len(anomalous.images):,} anomalies of {Path(anomalies).name}",
        )
    return _smaller(data) if quick else data


def _smaller(data: DemoData) -> DemoData:
    rows = np.sort(
        np.concatenate([np.flatnonzero(data.labels == c)[:40] for c in np.unique(data.labels)])
    )
    return DemoData(
        data.images[rows],
        data.labels[rows],
        data.class_names,
        data.anomalies[:20],
        data.triple,
        data.other_triples[:1],
        data.source + ", of which a few (quick)",
    )
