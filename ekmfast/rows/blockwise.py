"""The backend of blocks: the statistics of each by the CPU's kernels, added in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.array import CentredStatistics

if TYPE_CHECKING:
    from ekmfast.rows.blocks import Block
    from ekmfast.rows.source import Source

Float64 = NDArray[np.float64]


def aligned(array: Float64) -> Float64:
    """The array, or a copy where what came over a network begins between two numbers."""
    return np.require(array, requirements=["C", "A"])


@dataclass(frozen=True)
class Pass:
    """What one pass computes; small, for it is sent to wherever the blocks are."""

    reference: Float64  # (D,), the same for all blocks, for sums about it to add
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


class BlockwiseBackend:
    """Statistics of one data set in blocks; ``total_weight`` is that of all its rows."""

    def __init__(
        self, source: Source, settings: Pass, total_weight: float, dtype: np.dtype[Any]
    ) -> None:
        self.source = source
        self.settings = settings
        self.least_mass = _core.least_mass(dtype == np.float32) * total_weight

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over the blocks for centroids (S, K, D) and alpha (S,).

        Whether a column underflows is a matter of all blocks together: in a block without a row of
        some cluster all of that cluster's memberships may. So the blocks leave such columns be, and
        only problems with a column that underflows in the sum are done again, with the rescue.
        """
        sums = self._sum(centroids, alpha, rescue=False)
        if self.settings.weighting == "hard":
            return sums
        mass = sums.sum_w if self.settings.weighting == "fuzzy" else sums.sum_p
        again = ~(mass > self.least_mass).all(axis=1) & np.isfinite(sums.objective)
        if not again.any():
            return sums
        rescued = self._sum(centroids[again], alpha[again], rescue=True)
        both = {"reference": sums.reference}
        for name in ("sum_wx", "sum_w", "sum_p", "exponent", "objective"):
            both[name] = getattr(sums, name).copy()  # what another process sent may be read-only
            both[name][again] = getattr(rescued, name)
        return CentredStatistics(**both)

    def _sum(self, centroids: Float64, alpha: Float64, *, rescue: bool) -> CentredStatistics:
        return self.source.sum(
            partial(self.settings, centroids=centroids, alpha=alpha, rescue=rescue)
        )
