"""Reports of runs that iterate in other coordinates than those of the rows of the fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ekmfast.fit.solver import Runs

Float64 = NDArray[np.float64]


class _MovedRuns(Runs):
    def __init__(self, runs: Runs, move: Callable[[Float64], Float64]) -> None:
        super().__init__(runs._solver)
        self._runs, self._move = runs, move

    def position(self, index: int) -> tuple[Float64, float]:
        centroids, alpha = self._runs.position(index)
        return self._move(centroids), alpha


def moved(
    report: Callable[[Runs], bool] | None, move: Callable[[Float64], Float64]
) -> Callable[[Runs], bool] | None:
    """A report of runs whose centroids (K, D) ``move`` maps to those of the rows of the fit."""
    if report is None:
        return None
    return lambda runs: report(_MovedRuns(runs, move))
