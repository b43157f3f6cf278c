"""What a fit must know of data in blocks before it iterates, found in one pass over them."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.array import CentredStatistics, CpuBackend
from ekmfast.rows.blocks import Block, Kind
from ekmfast.rows.blockwise import Pass, aligned
from ekmfast.rows.nearest import nearest_centroids

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Lottery:
    """Rows that drew the smallest tickets, at most ``limit``: of any number of blocks together."""

    limit: int
    ticket: Float64  # (n,)
    place: NDArray[np.int64]  # (n, 2): block, and row of it
    X: NDArray[Any]  # (n, D)
    sample_weight: NDArray[Any] | None

    @classmethod
    def held(
        cls, limit: int, ticket: Float64, block: Block, index: int, most: float = np.inf
    ) -> Lottery:
        """Draw from one block; tickets of ``most`` or more never win."""
        rows = np.flatnonzero(ticket < most)
        if len(rows) > limit:
            rows = np.sort(rows[np.argpartition(ticket[rows], limit)[:limit]])
        place = np.column_stack([np.full(len(rows), index, np.int64), rows])
        s = block.sample_weight
        return cls(limit, ticket[rows], place, block.X[rows], None if s is None else s[rows])

    def __add__(self, other: Lottery) -> Lottery:
        """The winners of both."""
        ticket = np.concatenate([self.ticket, other.ticket])
        rows = np.arange(len(ticket))
        if len(rows) > self.limit:
            rows = np.sort(np.argpartition(ticket, self.limit)[: self.limit])
        s = None
        if self.sample_weight is not None and other.sample_weight is not None:
            s = np.concatenate([self.sample_weight, other.sample_weight])[rows]
        return Lottery(
            self.limit,
            ticket[rows],
            np.concatenate([self.place, other.place])[rows],
            np.concatenate([self.X, other.X])[rows],
            s,
        )


@dataclass(frozen=True)
class Survey:
    """Sums, bounds and a uniform sample of the rows; of a small data set, all of them in order."""

    n_rows: int
    about_reference: CentredStatistics  # of one centroid there
    low: NDArray[Any]  # (D,)
    high: NDArray[Any]
    sample: Lottery
    checksum: int = 0  # of all rows and weights, where asked for

    def __add__(self, other: Survey) -> Survey:
        return Survey(
            self.n_rows + other.n_rows,
            self.about_reference + other.about_reference,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.sample + other.sample,
            self.checksum + other.checksum,
        )

    @property
    def total_weight(self) -> float:
        return float(self.about_reference.sum_w[0, 0])

    @property
    def dispersion(self) -> float:
        """The weighted mean of 1/2 ||x - mean||^2.

        Of one centroid c, J / sum_w is the mean of 1/2 ||x - c||^2, and that is the dispersion and
        1/2 ||mean - c||^2; c lies amid the rows of the first block.
        """
        sums = self.about_reference
        offset = sums.sum_wx[0, 0] / self.total_weight
        about_c = float(sums.objective[0]) / self.total_weight
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks
            dispersion = about_c - 0.5 * float(offset @ offset)
        return 0.0 if dispersion < 0 else dispersion


def begin(block: Block, index: int) -> tuple[Kind, Float64]:
    """What kind of blocks these are, and a point amid the first one's rows."""
    finite(block)
    backend = CpuBackend(block.X, block.sample_weight, 1)
    zeros = np.zeros((1, 1, block.X.shape[1]))
    return Kind.of(block), backend.statistics(zeros, np.ones(1)).reference


def survey(
    block: Block,
    index: int,
    *,
    kind: Kind,
    settings: Pass,
    n_sample: int,
    n_rows: int | None = None,
    checksum: bool = False,
) -> Survey:
    """The survey of one block.

    Where the number of all rows is known, tickets that will not be among the ``n_sample`` smallest
    are dropped here, not sent: of n uniform ones the m-th smallest is m / n, give or take
    sqrt(m) / n.
    """
    most = np.inf
    if n_rows is not None and block.sample_weight is None:
        most = (n_sample + 10 * math.sqrt(n_sample) + 100) / n_rows
    kind.check(block)
    finite(block)
    ticket = np.random.default_rng([0, index]).random(len(block.X))
    if block.sample_weight is not None:
        ticket[block.sample_weight == 0] += 1  # only where there are no others
    one = settings.reference[None, None]
    return Survey(
        len(block.X),
        settings(block, index, centroids=one, alpha=np.ones(1)),
        block.X.min(axis=0),
        block.X.max(axis=0),
        Lottery.held(n_sample, ticket, block, index, most),
        _checksum(block, index) if checksum else 0,
    )


def _checksum(block: Block, index: int) -> int:
    """Of what the block holds and where it comes: their sum is that of the whole data set."""
    crc = zlib.crc32(block.X.data, index)
    return crc if block.sample_weight is None else zlib.crc32(block.sample_weight.data, crc)


def far_rows(
    block: Block, index: int, *, centroids: Float64, seed: int, limit: int, n_threads: int
) -> Lottery:
    """Rows drawn without replacement, with chances proportional to weighted squared distance.

    The k-means|| rule of Bahmani et al. (2012), with a fixed number of rows. A ticket is an
    exponential time divided by the chance; the earliest win.
    """
    _, d2 = nearest_centroids(block.X, aligned(centroids), n_threads)
    chance = d2.astype(np.float64)
    if block.sample_weight is not None:
        chance *= block.sample_weight
    times = np.random.default_rng([seed, index]).standard_exponential(len(chance))
    with np.errstate(divide="ignore"):
        ticket = np.where(chance > 0, times / chance, np.inf)
    return Lottery.held(limit, ticket, block, index)


def finite(block: Block) -> None:
    """Refuse NaN and infinity, naming the first row that has one."""
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(block.X.sum()):
            return
    bad = np.flatnonzero(~np.isfinite(block.X).all(axis=1))
    if len(bad):
        raise ValueError(f"{block.name}: row {bad[0]} of it holds NaN or infinity")
