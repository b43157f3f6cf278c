"""The safeguarded fixed-point iteration, for all restarts in shared passes over the data.

The steps, their safeguards and Anderson acceleration are in ``csrc/solver.cpp``, which does not
read rows. This module computes the sums for the centroids that it proposes, wherever the rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast import _core
from ekmfast.rows.protocol import Sums, as_iterated

Float64 = NDArray[np.float64]

# A column is weak if B_k < THETA * P_k. Both constants are those of csrc/solver.h.
THETA = _core.theta
MAX_HALVINGS = _core.max_halvings
# Number of earlier steps that Anderson acceleration uses.
WINDOW = 5
# Relative rounding error of J, by the number of bytes of the dtype. A smaller rise of J is ignored.
OBJECTIVE_RESOLUTION = {4: 1e-6, 8: 1e-13}
# A step may be rounding error if its root mean square over the centroids is at most this times the
# rounding error of J times the radius of the data.
NOISE = 4.0
# Centroids of length 1 are rounded to about this, however near the rows are to each other.
UNIT_ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass
class Run:
    """What one restart has found, copied from the compiled solver."""

    centroids: Float64  # (K, D), the last accepted ones
    alpha: float
    objective: float = np.inf
    size: float = 1.0  # the share of the step that is tried
    n_halvings: int = 0
    n_jumps: int = 0
    jumping: bool = False  # a weak column takes its exact ratio, so J may rise
    held: bool = False  # the step was shortened at the bounds
    least: float = np.inf  # the length of the shortest step so far
    n_still: int = 0  # the number of steps since the shortest one
    n_iter: int = 0
    converged: bool = False
    given_up: bool = False
    done: bool = False
    history: list[float] = field(default_factory=list)  # J after each accepted step

    @property
    def stalled(self) -> bool:
        """Whether the run ended because no share of its step decreased J."""
        return self.n_halvings > MAX_HALVINGS


@dataclass
class WholeRun(Run):
    """The whole state of one restart, from which it can be continued."""

    step: Float64 | None = None  # (K, D), the step from the centroids
    leap: Float64 | None = None  # (K, D), the proposal, tried before the step
    # Pairs (centroids, step). If K D > 2^17, pairs of their changes instead: of centroids + step,
    # and of the step; then the last pair may be the centroids and step of this run.
    past: list[tuple[Float64, Float64]] = field(default_factory=list)


class Runs(Sequence[Run]):
    """All restarts of one fit. An item is a copy of what one restart has found."""

    def __init__(self, solver: _core.Solver) -> None:
        self._solver = solver

    def __len__(self) -> int:
        return len(self._solver)

    def __getitem__(self, index: int) -> Run:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return Run(**self._solver.result(index % len(self)))

    def whole(self, index: int) -> WholeRun:
        """A copy of the whole state of one restart."""
        return WholeRun(**self._solver.get_run(index))

    def wholes(self) -> Iterator[WholeRun]:
        return map(self.whole, range(len(self)))

    def __iter__(self) -> Iterator[Run]:
        return map(self.__getitem__, range(len(self)))

    @property
    def objectives(self) -> Float64:
        """J of each run, infinite before its first pass."""
        return self._solver.objectives

    @property
    def n_going(self) -> int:
        """The number of runs that are not done."""
        return self._solver.n_going

    def position(self, index: int) -> tuple[Float64, float]:
        """Centroids (K, D) and alpha of one run."""
        return self._solver.position(index)

    @property
    def positions(self) -> Float64:
        """Centroids (S, K, D) of all runs."""
        return self._solver.positions

    @property
    def best(self) -> Run:
        """The run with the lowest objective; the first one if several have it."""
        return self[int(self.objectives.argmin())]


def solve(
    rows: Sums,
    starts: Float64,
    alpha: ArrayLike,
    *,
    tol: float,
    radius: float,
    resolution: float,
    max_iter: int,
    window: int = WINDOW,
    bounds: tuple[Float64, Float64] | None = None,
    space: str = "free",
    compete: bool = False,
    report: Callable[[Runs], bool] | None = None,
    runs: Sequence[WholeRun] | None = None,
    n_threads: int = 1,
) -> Runs:
    """Iterate from every start (S, K, D) until its step is <= tol * sqrt(K) * radius.

    If ``tol`` is so small that rounding errors prevent this, a run ends when its step is no longer
    than these errors and does not get shorter. One pass over the data serves all runs that are not
    done.

    Parameters
    ----------
    rows : Sums
    starts : ndarray of shape (S, K, D)
    alpha : float or ndarray of shape (S,)
    tol : float
    radius : float
        The root mean square distance of a row from the mean. It makes ``tol`` independent of the
        units and the origin of the data.
    resolution : float
        The relative rounding error of J.
    max_iter : int
        The largest number of passes.
    window : int
        How many earlier steps Anderson acceleration uses; 0 for none.
    bounds : pair of ndarray of shape (D,), default=None
        The smallest and the largest value of each feature that a centroid may have.
    space : {'free', 'unit', 'features'}
        What centroids may be: see ``csrc/solver.h``.
    compete : bool
        Whether to give up runs that will not reach the best run of the same alpha.
    report : callable, default=None
        Called after each pass. If it returns True, the iteration stops. Without it the passes over
        rows in memory are made by compiled code, and the runs end with the same bits.
    runs : sequence of WholeRun, default=None
        The runs of an interrupted iteration, which is continued.
    n_threads : int
        The number of threads for the steps of the runs.
    """
    unit = float(np.sqrt(starts.shape[1]) * radius)
    low, high = bounds or (None, None)
    solver = _core.Solver(
        np.ascontiguousarray(starts),
        np.full(len(starts), alpha, np.float64),
        max(float(tol) * unit, UNIT_ROUNDING * len(starts[0]) ** 0.5 if space == "unit" else 0.0),
        NOISE * resolution * unit,
        resolution,
        window,
        compete,
        low,
        high,
        space,
    )
    n_passes = 0
    if runs is not None:
        n_passes = max(run.n_iter for run in runs)
        for i, run in enumerate(runs):
            solver.set_run(i, asdict(run))
    found = Runs(solver)
    iterated = as_iterated(rows)
    if report is None and iterated is not None:
        iterated.iterate(solver, max_iter - n_passes)
        return found
    for _ in range(n_passes, max_iter):
        if not found.n_going:
            break
        sums = rows.statistics(*solver.candidates())
        solver.advance(
            sums.sum_wx, sums.sum_w, sums.sum_p, sums.objective, sums.reference, n_threads
        )
        if report is not None and report(found):
            break
    return found
