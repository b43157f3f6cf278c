"""Rows with missing numbers, in blocks: the sums for each feature add as those of complete rows do.

The survey takes two passes, one for the mean of each feature and one for the distances from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ekmfast.rows.array import checksum_of
from ekmfast.rows.blocks import Block, Kind
from ekmfast.rows.blockwise import BlockRows, Pass, RowSample, aligned
from ekmfast.rows.partial import FeatureSums, PartialRows
from ekmfast.rows.protocol import Float64
from ekmfast.rows.statistics import CentredStatistics
from ekmfast.rows.survey import Survey


@dataclass(frozen=True)
class PartialPass(Pass):
    """What one pass computes for a block of rows with missing numbers; see `PartialRows`."""

    def __call__(
        self,
        block: Block,
        index: int,
        *,
        centroids: Float64,
        alpha: Float64,
        rescue: bool = True,
    ) -> CentredStatistics:
        # The kernel subtracts distances before it exponentiates them, and rescues no column.
        rows = PartialRows(
            block.X,
            block.sample_weight,
            self.n_threads,
            self.weighting,
            self.fuzzifier,
            name=block.name,
            means=aligned(self.reference),
        )
        return rows.statistics(aligned(centroids), aligned(alpha))


@dataclass(frozen=True)
class PartialSurvey:
    """The result of the survey's first pass for some blocks."""

    features: FeatureSums
    sample: RowSample
    blocks: Float64  # (B, 3): index, rows and weight of each
    checksum: int

    def __add__(self, other: PartialSurvey) -> PartialSurvey:
        return PartialSurvey(
            self.features + other.features,
            self.sample + other.sample,
            np.concatenate([self.blocks, other.blocks]),
            self.checksum + other.checksum,
        )


def finite_or_missing(block: Block) -> Block:
    """The block itself; raises an error for infinity, and for a row without numbers."""
    PartialRows(block.X, name=block.name)
    return block


class PartialBlockRows(BlockRows):
    """Rows with missing numbers that a source reads block by block in every pass."""

    space = "features"
    in_memory = PartialRows
    in_block = PartialRows
    check = staticmethod(finite_or_missing)
    # The means of all rows, once the survey has found them.
    _means: Float64 | None = None

    @property
    def _pass(self) -> Pass:
        means = self._kind_and_reference[1]
        return PartialPass(means, self.weighting, self.fuzzifier, self.n_threads)

    @property
    def _kind_and_reference(self) -> tuple[Kind, Float64]:
        """The kind of the blocks, and the means of the features once the survey has found them."""
        if self._first is None:
            kind = self.source.first(_kind)
            self._first = kind, np.zeros(kind.n_features)
        return self._first

    def survey(self, *, checksum: bool = False) -> Survey:
        """Two passes over the blocks, after reading the first one."""
        kind, _ = self._kind_and_reference
        first_pass = partial(
            _survey,
            kind=kind,
            n_sample=self._sample_size(kind),
            n_rows=self.source.n_rows,
            checksum=checksum,
        )
        found: PartialSurvey = self.source.sum(first_pass)
        features = found.features
        self._keep_blocks(found.blocks, features.weight)
        features.check(self.source.name)
        self._means = means = features.means_or(None)
        self._first = (kind, means)
        scatter = self.source.sum(partial(_scatter, means=means))
        sample, numbers = self._sampled(found.sample, features.n_rows)
        return features.survey(scatter, sample, means, numbers, found.checksum, self._far_rows)

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over the blocks for centroids (S, K, D) and alpha (S,)."""
        return self._sum(centroids, alpha, rescue=False)

    def _in_memory(self, *given: Any) -> PartialRows:
        # Some rows may lack a feature that others have.
        return PartialRows(*given, means_of_all=self._means)


def _kind(block: Block, index: int) -> Kind:
    return Kind.of(block)


def _survey(
    block: Block, index: int, *, kind: Kind, n_sample: int, n_rows: int | None, checksum: bool
) -> PartialSurvey:
    kind.check(block)
    sums = PartialRows(block.X, block.sample_weight, name=block.name).feature_sums()
    return PartialSurvey(
        sums,
        RowSample.of_survey(n_sample, block, index, n_rows),
        np.array([[index, len(block.X), sums.weight]]),
        checksum_of(block.X, block.sample_weight, index) if checksum else 0,
    )


def _scatter(block: Block, index: int, *, means: Float64) -> float:
    return PartialRows(block.X, block.sample_weight, name=block.name).scatter(aligned(means))
