"""Rows in blocks: the CPU computes the statistics of each, which are added in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.array import ArrayRows, checksum_of
from ekmfast.rows.blocks import Block, Kind
from ekmfast.rows.source import Apply, Check, Source, finite
from ekmfast.rows.statistics import CentredStatistics
from ekmfast.rows.survey import SAMPLE_BYTES, SAMPLE_ROWS, Moments, Survey, reference_of

Float64 = NDArray[np.float64]


def aligned(array: Float64) -> Float64:
    """The array, or an aligned copy: an array received over a network may be unaligned."""
    return np.require(array, requirements=["C", "A"])


@dataclass(frozen=True)
class Pass:
    """What one pass computes for a block. It is small, since it is sent to where the blocks are."""

    reference: Float64  # (D,), the same for all blocks, so that their sums can be added
    weighting: str = "equilibrium"
    fuzzifier: float = 2.0
    n_threads: int = 1

    def __call__(
        self,
        block: Block,
        index: int,
        *,
        centroids: Float64,
        alpha: Float64,
        rescue: bool = True,
    ) -> CentredStatistics:
        return CentredStatistics(
            *_core.statistics(
                block.X,
                aligned(centroids),
                aligned(alpha),
                block.sample_weight,
                aligned(self.reference),
                self.n_threads,
                self.weighting,
                self.fuzzifier,
                rescue,
            )
        )


class BlockRows:
    """Rows that a source reads block by block in every pass.

    ``threads_here`` is the number of threads for computations with the sample in this process;
    ``n_threads``, of the source, is the number for computations with one block.
    """

    at_hand = False
    shares_passes = True
    space = "free"
    in_memory: type[ArrayRows] = ArrayRows  # the class of rows that were read into memory
    in_block: type[ArrayRows] = ArrayRows  # the class of the rows of one block
    check = staticmethod(finite)  # the check of a block whose rows are labelled or fetched
    without_weight = "sample_weight must have a positive sum, got 0"  # the error if it has not

    def __init__(
        self,
        source: Source,
        threads_here: int = 1,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
    ) -> None:
        self.source = source
        self.threads_here = threads_here
        self.weighting = weighting
        self.fuzzifier = fuzzifier
        self._first: tuple[Kind, Float64] | None = None
        self._total_weight: float | None = None
        # For each block with rows: index, number of rows and their weight. The survey fills it.
        self._blocks = np.empty((0, 3))

    @property
    def n_threads(self) -> int:
        return self.source.n_threads

    @property
    def n_features(self) -> int:
        return self.source.n_features or self._kind_and_reference[0].n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._kind_and_reference[0].dtype

    @property
    def weighted(self) -> bool:
        return self._kind_and_reference[0].weighted

    @property
    def feature_names(self) -> list[str] | None:
        return self.source.feature_names

    @property
    def _kind_and_reference(self) -> tuple[Kind, Float64]:
        """The kind of the blocks, and the median of some rows of the first one as reference."""
        if self._first is None:
            self._first = self.source.first(kind_and_reference)
        return self._first

    @property
    def _pass(self) -> Pass:
        return Pass(self._kind_and_reference[1], self.weighting, self.fuzzifier, self.n_threads)

    def survey(self, *, checksum: bool = False) -> Survey:
        """One pass over the blocks, after reading the first one."""
        kind, reference = self._kind_and_reference
        found = self.source.sum(
            partial(
                survey,
                kind=kind,
                reference=reference,
                n_threads=self.n_threads,
                n_sample=self._sample_size(kind),
                n_rows=self.source.n_rows,
                checksum=checksum,
            )
        )
        moments = found.moments
        self._keep_blocks(found.blocks, moments.weight)
        sample, numbers = self._sampled(found.sample, moments.n_rows)
        return Survey(
            moments.n_rows,
            moments.weight,
            moments.mean,
            self._dispersion(moments),
            moments.low,
            moments.high,
            sample,
            numbers,
            found.checksum,
            self._far_rows,
        )

    @staticmethod
    def _sample_size(kind: Kind) -> int:
        """The number of rows that the survey samples, if there are more."""
        row_bytes = kind.n_features * kind.dtype.itemsize
        return min(SAMPLE_ROWS, max(1, SAMPLE_BYTES // row_bytes))

    def _keep_blocks(self, blocks: Float64, weight: float) -> None:
        """Keep what the survey found of each block; check and keep the weight of all rows."""
        self._blocks = blocks
        if not weight > 0:
            raise ValueError(self.without_weight)
        self._total_weight = weight

    def _sampled(
        self, sampled: RowSample, n_rows: int
    ) -> tuple[ArrayRows, NDArray[np.intp] | None]:
        """The survey's sample in the order of the rows, and their numbers if it is not all rows."""
        order = np.lexsort(sampled.place.T[::-1])
        s = sampled.sample_weight
        rows = FetchedRows(sampled.X[order], None if s is None else s[order])
        numbers = None
        if len(order) < n_rows:
            block, row = sampled.place[order].T
            numbers = self._first_rows[np.searchsorted(self._blocks[:, 0], block)] + row
        return self._array_rows(rows), numbers

    def _dispersion(self, moments: Moments) -> float:
        if moments.cancelled:
            kind = self._kind_and_reference[0]
            self._first = (kind, moments.mean)
            again: BlockSurvey = self.source.sum(
                partial(
                    survey,
                    kind=kind,
                    reference=moments.mean,
                    n_threads=self.n_threads,
                    n_sample=0,
                )
            )
            moments = again.moments
        return moments.dispersion(self, self.dtype)

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over the blocks for centroids (S, K, D) and alpha (S,).

        In a block without rows of some cluster, all memberships of that cluster may underflow,
        although they do not in other blocks. Therefore the first pass does not rescue columns, and
        a second pass, with the rescue, is made only for problems in which the sum over all blocks
        has a column that underflowed.
        """
        if self._total_weight is None:  # before the survey it is not known how small is too small
            return self._sum(centroids, alpha, rescue=True)
        sums = self._sum(centroids, alpha, rescue=False)
        if self.weighting == "hard":
            return sums
        least = _core.least_mass(self.dtype == np.float32) * self._total_weight
        mass = sums.sum_w if self.weighting == "fuzzy" else sums.sum_p
        again = ~(mass > least).all(axis=1) & np.isfinite(sums.objective)
        if not again.any():
            return sums
        rescued = self._sum(centroids[again], alpha[again], rescue=True)
        both = {"reference": sums.reference}
        for name in ("sum_wx", "sum_w", "sum_p", "exponent", "objective"):
            # Copied, since an array that another process sent may be read-only.
            both[name] = getattr(sums, name).copy()
            both[name][again] = getattr(rescued, name)
        return CentredStatistics(**both)

    def _sum(self, centroids: Float64, alpha: Float64, *, rescue: bool) -> CentredStatistics:
        return self.source.sum(partial(self._pass, centroids=centroids, alpha=alpha, rescue=rescue))

    def with_weighting(self, weighting: str) -> BlockRows:
        other = copy(self)
        other.weighting = weighting
        return other

    def label(self, centroids: Float64, merged: NDArray[np.intp]) -> Any:
        names = merged.astype(np.int32)
        label = partial(label_of_block, centroids, names, self.n_threads, self.in_block)
        return self.source.map(label, None, np.int32, self.check)

    def weights(self, centroids: Float64, alpha: float) -> Any:
        return self.map(
            partial(weights_of_block, centroids, alpha, self.n_threads, self.in_block),
            len(centroids),
        )

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]], n_columns: int) -> Any:
        return self.source.map(function, n_columns, None, self.check)

    def parts(self) -> Generator[NDArray[Any], None, None]:
        with closing(self.source.each()) as blocks:
            for apply in blocks:
                part = apply(_rows_of)
                if part is not None:  # a Dask block may have no rows
                    yield part

    def on_host(self) -> ArrayRows:
        """All rows in memory, for data that are known to fit."""
        return self._array_rows(self.source.sum(partial(all_rows, check=self.check)))

    def _array_rows(self, rows: FetchedRows) -> ArrayRows:
        options = self.threads_here, self.weighting, self.fuzzifier
        return self._in_memory(rows.X, rows.sample_weight, *options)

    def _in_memory(self, *given: Any) -> ArrayRows:
        return self.in_memory(*given)

    def fetch(self, numbers: NDArray[np.intp]) -> ArrayRows:
        """One pass over the blocks. It needs the numbers of rows, which the survey counts."""
        assert len(self._blocks)
        if not len(numbers):
            return self._in_memory(np.empty((0, self.n_features), self.dtype))
        fetch_some = partial(fetch_rows, numbers=np.asarray(numbers, np.int64), places=self._places)
        return self._array_rows(self.source.sum(fetch_some))

    def batches(self, batch_size: int, random_state: np.random.RandomState) -> BlockBatches:
        assert len(self._blocks)  # the survey fills them
        return BlockBatches(self, self._blocks[:, 2])

    def _far_rows(self, centroids: Float64, seed: int, limit: int) -> ArrayRows:
        """Rows drawn in one pass, likely far from all centroids (K, D): see `far_rows`."""
        far: RowSample = self.source.sum(
            partial(
                far_rows,
                centroids=centroids,
                seed=seed,
                limit=limit,
                n_threads=self.n_threads,
                make=self.in_block,
            )
        )
        return self._in_memory(far.X, far.sample_weight)

    @property
    def _first_rows(self) -> NDArray[np.int64]:
        """The number of the first row of each block."""
        sizes = self._blocks[:, 1].astype(np.int64)
        return np.cumsum(sizes) - sizes

    @property
    def _places(self) -> dict[int, tuple[int, int]]:
        """By the index of each block, the number of its first row and how many rows it has."""
        indices, sizes = self._blocks[:, :2].astype(int).T.tolist()
        pairs = zip(self._first_rows.tolist(), sizes, strict=True)
        return dict(zip(indices, pairs, strict=True))


def _rows_of(block: Block, index: int) -> NDArray[Any]:
    return block.X


def label_of_block(
    centroids: Float64,
    names: NDArray[np.int32],
    n_threads: int,
    make: type[ArrayRows],
    X: NDArray[Any],
) -> NDArray[np.int32]:
    labels, _ = make(X, None, n_threads).nearest(aligned(centroids))
    return names[labels]


def weights_of_block(
    centroids: Float64, alpha: float, n_threads: int, make: type[ArrayRows], X: NDArray[Any]
) -> NDArray[Any]:
    return make(X, None, n_threads).weights(aligned(centroids), alpha)


class BlockBatches:
    """One batch for each block, in the order in which the blocks are read."""

    def __init__(self, rows: BlockRows, masses: Float64) -> None:
        self.rows = rows
        self.masses = masses

    def __len__(self) -> int:
        return len(self.masses)

    def visit(
        self, random_state: np.random.RandomState
    ) -> Generator[tuple[int, OneBlock], None, None]:
        """Yield the number of each block and its rows."""
        places = self.rows._places
        one_pass = partial(with_same_size, function=self.rows._pass, places=places)
        with closing(self.rows.source.each(list(places))) as blocks:
            for b, apply in enumerate(blocks):
                yield b, OneBlock(apply, one_pass)


class OneBlock:
    """One block as `Sums`, in this process or on a cluster."""

    def __init__(self, apply: Apply, one_pass: Callable[..., CentredStatistics]) -> None:
        self.apply, self.one_pass = apply, one_pass

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """The sums of the block's rows for centroids (S, K, D) and alpha (S,)."""
        sums: CentredStatistics = self.apply(
            partial(self.one_pass, centroids=centroids, alpha=alpha)
        )
        return sums


# --------------------------------------------------------------------------------------------------
# Functions of one block, which run in this process or on the cluster that holds the block


@dataclass(frozen=True)
class RowSample:
    """A random sample of the rows of any number of blocks.

    Every row gets a random number, its key. The sample consists of the ``limit`` rows with the
    smallest keys, or of all rows if there are fewer. Therefore the samples of two sets of blocks
    determine the sample of their union.
    """

    limit: int
    key: Float64  # (n,)
    place: NDArray[np.int64]  # (n, 2): index of the block, and row in it
    X: NDArray[Any]  # (n, D)
    sample_weight: NDArray[Any] | None

    @classmethod
    def of_block(
        cls, limit: int, key: Float64, block: Block, index: int, bound: float = np.inf
    ) -> RowSample:
        """The sample of one block, without rows whose key is ``bound`` or more."""
        rows = np.flatnonzero(key < bound)
        if len(rows) > limit:
            rows = np.sort(rows[np.argpartition(key[rows], limit)[:limit]])
        place = np.column_stack([np.full(len(rows), index, np.int64), rows])
        s = block.sample_weight
        return cls(limit, key[rows], place, block.X[rows], None if s is None else s[rows])

    @classmethod
    def of_survey(cls, limit: int, block: Block, index: int, n_rows: int | None) -> RowSample:
        """The uniform sample of one block.

        If the number of all rows, n, is known, rows whose key cannot be among the m = ``limit``
        smallest are dropped here, so that they need not be sent: the m-th smallest of n uniform
        numbers has the mean m / n and a standard deviation of about sqrt(m) / n.
        """
        bound = np.inf
        if n_rows is not None and block.sample_weight is None:
            bound = (limit + 10 * math.sqrt(limit) + 100) / n_rows
        key = np.random.default_rng([0, index]).random(len(block.X))
        if block.sample_weight is not None:
            key[block.sample_weight == 0] += 1  # sampled only if there are too few other rows
        return cls.of_block(limit, key, block, index, bound)

    def __add__(self, other: RowSample) -> RowSample:
        """The sample of the rows of both."""
        key = np.concatenate([self.key, other.key])
        rows = np.arange(len(key))
        if len(rows) > self.limit:
            rows = np.sort(np.argpartition(key, self.limit)[: self.limit])
        s = None
        if self.sample_weight is not None and other.sample_weight is not None:
            s = np.concatenate([self.sample_weight, other.sample_weight])[rows]
        return RowSample(
            self.limit,
            key[rows],
            np.concatenate([self.place, other.place])[rows],
            np.concatenate([self.X, other.X])[rows],
            s,
        )


@dataclass(frozen=True)
class BlockSurvey:
    """The result of the survey for some blocks."""

    moments: Moments
    sample: RowSample
    blocks: Float64  # (B, 3): index, rows and weight of each
    checksum: int

    def __add__(self, other: BlockSurvey) -> BlockSurvey:
        return BlockSurvey(
            self.moments + other.moments,
            self.sample + other.sample,
            np.concatenate([self.blocks, other.blocks]),
            self.checksum + other.checksum,
        )


@dataclass(frozen=True)
class FetchedRows:
    """The requested rows of some blocks, in order."""

    X: NDArray[Any]
    sample_weight: NDArray[Any] | None

    def __add__(self, other: FetchedRows) -> FetchedRows:
        s = None
        if self.sample_weight is not None and other.sample_weight is not None:
            s = np.concatenate([self.sample_weight, other.sample_weight])
        return FetchedRows(np.concatenate([self.X, other.X]), s)


def kind_and_reference(block: Block, index: int) -> tuple[Kind, Float64]:
    """The kind of the blocks, and the median of some rows of this first one."""
    return Kind.of(block), reference_of(block.X)


def survey(
    block: Block,
    index: int,
    *,
    kind: Kind,
    reference: Float64,
    n_threads: int,
    n_sample: int,
    n_rows: int | None = None,
    checksum: bool = False,
) -> BlockSurvey:
    """The survey of one block; ``n_rows`` is the number of all rows, if it is known."""
    kind.check(block)
    moments = Moments.of(block.X, block.sample_weight, aligned(reference), n_threads)
    if not moments.finite:
        finite(block)
    return BlockSurvey(
        moments,
        RowSample.of_survey(n_sample, block, index, n_rows),
        np.array([[index, len(block.X), moments.weight]]),
        checksum_of(block.X, block.sample_weight, index) if checksum else 0,
    )


def far_rows(
    block: Block,
    index: int,
    *,
    centroids: Float64,
    seed: int,
    limit: int,
    n_threads: int,
    make: type[ArrayRows],
) -> RowSample:
    """Rows drawn without replacement, with probabilities proportional to s_n min_k ||x_n - c_k||^2.

    This is the rule of k-means|| (Bahmani et al., 2012), with a fixed number of rows. A key is
    an exponential random number divided by that product, so that the rows with the smallest keys
    are such a sample.
    """
    _, d2 = make(block.X, None, n_threads).nearest(aligned(centroids))
    probability = d2.astype(np.float64)
    if block.sample_weight is not None:
        probability *= block.sample_weight
    exponential = np.random.default_rng([seed, index]).standard_exponential(len(probability))
    with np.errstate(divide="ignore"):
        key = np.where(probability > 0, exponential / probability, np.inf)
    return RowSample.of_block(limit, key, block, index)


def with_same_size(
    block: Block,
    index: int,
    *,
    function: Callable[..., Any],
    places: dict[int, tuple[int, int]],
    **more: Any,
) -> Any:
    """``function`` of a block; refuses a block whose number of rows differs from the survey's."""
    _, n_rows = places.get(index, (0, 0))
    if n_rows != len(block.X):
        raise ValueError(
            f"{block.name}: has {len(block.X)} rows, but had {n_rows} in an earlier pass; the "
            "blocks must be the same each time"
        )
    return function(block, index, **more)


def all_rows(block: Block, index: int, *, check: Check) -> FetchedRows:
    """A copy of the block's rows, since the next block may overwrite their memory."""
    s = check(block).sample_weight
    return FetchedRows(block.X.copy(), None if s is None else s.copy())


def fetch_rows(
    block: Block,
    index: int,
    *,
    numbers: NDArray[np.int64],
    places: dict[int, tuple[int, int]],
) -> FetchedRows:
    """The rows of this block among ``numbers``, which count the rows of all blocks."""
    found: FetchedRows = with_same_size(
        block, index, function=_fetch_rows, places=places, numbers=numbers, at=places
    )
    return found


def _fetch_rows(
    block: Block, index: int, numbers: NDArray[np.int64], at: dict[int, tuple[int, int]]
) -> FetchedRows:
    begin, n_rows = at[index]
    a, b = np.searchsorted(numbers, [begin, begin + n_rows])
    rows, s = numbers[a:b] - begin, block.sample_weight
    return FetchedRows(block.X[rows], None if s is None else s[rows])
