"""The safeguarded fixed-point iteration, for all restarts in shared passes over the data.

The steps, their safeguards and Anderson acceleration are in ``csrc/solver.cpp``. It does not read
rows: here the sums that it asks for are computed, wherever the rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast import _core
from ekmfast.rows.protocol import Sums

Float64 = NDArray[np.float64]

# Share of the memberships below which a column's weights count as weak: see csrc/solver.cpp.
THETA = 0.1
MAX_HALVINGS = 12
# Steps that Anderson acceleration looks back on.
WINDOW = 5
# J is a sum of rounded numbers: a rise below this share of it is not one.
OBJECTIVE_RESOLUTION = {4: 1e-6, 8: 1e-13}
# Steps of so many times that share of the data's radius are rounding.
NOISE = 4.0


@dataclass
class Run:
    """One restart: where it is, and where it would go next. A copy of what the solver holds."""

    centroids: Float64  # (K, D), the last accepted
    alpha: float
    objective: float = np.inf
    step: Float64 | None = None  # from centroids to the full proposal
    size: float = 1.0  # share of the step that is tried
    leap: Float64 | None = None  # Anderson's proposal, tried before the step
    past: list[tuple[Float64, Float64]] = field(default_factory=list)  # centroids and steps
    n_halvings: int = 0
    n_jumps: int = 0
    jumping: bool = False  # the step holds an exact ratio: a rise of J is allowed
    held: bool = False  # the step would leave the bounds and was cut
    least: float = np.inf  # length of the shortest step so far
    n_still: int = 0  # steps since
    n_iter: int = 0
    converged: bool = False
    given_up: bool = False
    done: bool = False
    history: list[float] = field(default_factory=list)  # J at every centroids that were accepted

    @property
    def stalled(self) -> bool:
        """Whether it ended because J fell along no share of its step."""
        return self.n_halvings > MAX_HALVINGS


class Runs(Sequence[Run]):
    """All restarts of one fit; an item is a copy of what the solver holds of it."""

    def __init__(self, solver: _core.Solver) -> None:
        self._solver = solver

    def __len__(self) -> int:
        return len(self._solver)

    def __getitem__(self, index: int) -> Run:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return Run(**self._solver.get_run(index % len(self)))

    def __iter__(self) -> Iterator[Run]:
        return map(self.__getitem__, range(len(self)))

    @property
    def objectives(self) -> Float64:
        """J of each run, infinite before its first pass."""
        return self._solver.objectives

    @property
    def n_going(self) -> int:
        """Runs that are not done."""
        return self._solver.n_going

    @property
    def best(self) -> Run:
        """The run with the lowest objective, the first of equals."""
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
    compete: bool = False,
    report: Callable[[Runs], bool] | None = None,
    runs: Sequence[Run] | None = None,
    n_threads: int = 1,
) -> Runs:
    """Iterate every start (S, K, D) until its step is <= tol * sqrt(K) * radius.

    Or until the step is rounding and gets no shorter, where ``tol`` asks for less than that.

    ``alpha`` is a number or (S,). ``radius`` is the root mean square distance of a sample from the
    mean, which makes ``tol`` free of units and of the origin; ``resolution`` the relative rounding
    of J; ``bounds`` the least and the greatest value of each feature that a centroid may have. One
    pass over the data evaluates all runs that are still going. ``max_iter`` bounds the
    passes. With ``compete``, runs of one alpha that will not reach the best of them are given up.
    ``report`` is called after each pass; True stops the iteration. ``runs`` are those of an
    iteration that was broken off between two passes, to go on from.
    """
    unit = float(np.sqrt(starts.shape[1]) * radius)
    low, high = bounds or (None, None)
    solver = _core.Solver(
        np.ascontiguousarray(starts),
        np.array(np.broadcast_to(np.asarray(alpha, np.float64), len(starts))),
        float(tol) * unit,
        NOISE * resolution * unit,
        resolution,
        window,
        compete,
        low,
        high,
    )
    n_passes = 0
    if runs is not None:
        n_passes = max(run.n_iter for run in runs)
        for i, run in enumerate(runs):
            solver.set_run(i, asdict(run))
    found = Runs(solver)
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
