"""Draw the images that are held out, and the images that are clustered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ekmfast.demo.data import Labels

VALIDATION_SHARE = 0.1
RATIOS = {"2:1:1": (2, 1, 1), "20:1:1": (20, 1, 1)}
LARGEST = 400  # largest number of samples of the first class of a draw

Rows = NDArray[np.intp]


def split(labels: Labels, seed: int) -> tuple[Rows, Rows]:
    """Rows for training, and held-out rows, which are a share of each class."""
    rng = np.random.default_rng([seed, 0])
    held = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        held[rows[: max(1, round(VALIDATION_SHARE * len(rows)))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


@dataclass(frozen=True)
class Draw:
    """Rows of three classes, and the class of each row, which is 0, 1 or 2."""

    rows: Rows
    classes: Labels


def draw_rows(labels: Labels, triple: tuple[int, ...], ratio: tuple[int, ...], seed: int) -> Draw:
    """Draw samples of three classes in a ratio, as closely as the sizes of the classes allow."""
    counts = [int((labels == c).sum()) for c in triple]
    unit = min(c // r for c, r in zip(counts, ratio, strict=True))
    unit = max(1, min(unit, LARGEST // ratio[0]))
    sizes = [min(c, unit * r) for c, r in zip(counts, ratio, strict=True)]
    rng = np.random.default_rng([seed, 1])
    rows = [
        rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(triple, sizes, strict=True)
    ]
    return Draw(np.concatenate(rows), np.repeat(np.arange(3), sizes))
