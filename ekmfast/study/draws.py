"""Draw the images that are held out, and the images that are clustered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ekmfast.study.data import Labels, StudyData

VALIDATION_SHARE = 0.1
LARGEST = 400  # largest number of samples of the first class of a draw
MOST = 4000  # largest number of images without classes that are clustered

Rows = NDArray[np.intp]


def split(data: StudyData, seed: int) -> tuple[Rows, Rows]:
    """Rows for training, and held-out rows, which are a share of each class."""
    n = len(data.images)
    labels = np.zeros(n, np.int64) if data.labels is None else data.labels
    rng = np.random.default_rng([seed, 0])
    held = np.zeros(n, bool)
    # A detector needs images to fit a threshold, and others to be tested on.
    least = 1 if data.labels is not None else 4
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        held[rows[: max(least, round(VALIDATION_SHARE * len(rows)))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


@dataclass(frozen=True)
class Draw:
    """Rows to cluster, the class of each, which is 0, 1 or 2 (or None), and wanted shares."""

    rows: Rows
    classes: Labels | None
    shares: tuple[int, ...]

    @property
    def n_clusters(self) -> int:
        return len(self.shares)


def draws_of(
    data: StudyData, all_shares: tuple[tuple[int, ...], ...], seed: int
) -> dict[str, Draw]:
    """The draws of a study, by their shares as text."""
    if data.labels is None or data.triple is None:
        rng = np.random.default_rng([seed, 1])
        rows = np.sort(rng.permutation(len(data.images))[:MOST])
        return {as_text(all_shares[0]): Draw(rows, None, all_shares[0])}
    return {
        as_text(shares): draw_rows(data.labels, data.triple, shares, seed) for shares in all_shares
    }


def as_text(shares: tuple[int, ...]) -> str:
    return ":".join(map(str, shares))


def draw_rows(labels: Labels, triple: tuple[int, ...], ratio: tuple[int, ...], seed: int) -> Draw:
    """Draw samples of three classes in a ratio, as closely as the sizes of the classes allow."""
    counts = [int((labels == c).sum()) for c in triple]
    unit = min(c // r for c, r in zip(counts, ratio, strict=True))
    unit = max(1, min(unit, LARGEST // max(ratio)))
    sizes = [min(c, unit * r) for c, r in zip(counts, ratio, strict=True)]
    rng = np.random.default_rng([seed, 1])
    rows = [
        rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(triple, sizes, strict=True)
    ]
    return Draw(np.concatenate(rows), np.repeat(np.arange(3), sizes), ratio)
