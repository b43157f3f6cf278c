"""The safeguarded fixed-point iteration, for all restarts in shared passes over the data.

The plain iteration c <- A / B (Eq. 39) is not monotone: weights may be negative, so B may come
near zero and throw a centroid far away. With P the sum of memberships:

- where every B_k >= theta P_k the step is C + (A - B C) / max(B, theta P), which is the plain
  step, and is halved while the objective J rises;
- a *weak* column, B_k < theta P_k, takes its exact ratio A_k / B_k without descent being asked
  (that is how a dead centroid comes back), but only so often, since it can loop; from then on it
  takes the damped step like the others.

Where a step turns back on the one before it, the map overshoots (its slope along the step is below
-1, or not far above): the next step is cut to what the secant through both says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ._backends.cpu import CentredStatistics

Float64 = NDArray[np.float64]

THETA = 0.1
MAX_WEAK_JUMPS = 20
MAX_HALVINGS = 12
# J is a sum of rounded numbers: a rise below this share of it is not one.
OBJECTIVE_RESOLUTION = {4: 1e-6, 8: 1e-13}


class Backend(Protocol):
    """All that the solver asks of whoever holds the data."""

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics: ...


@dataclass
class Run:
    """One restart: where it is, and where it would go next."""

    centroids: Float64  # (K, D), the last accepted
    objective: float = np.inf
    step: Float64 | None = None  # from centroids to the full proposal
    size: float = 1.0  # share of the step that is tried
    n_halvings: int = 0
    n_jumps: int = 0
    jumping: bool = False  # the step holds an exact ratio: a rise of J is allowed
    n_iter: int = 0
    converged: bool = False
    done: bool = False
    history: list[float] = field(default_factory=list)

    def candidate(self) -> Float64:
        if self.step is None:
            return self.centroids
        return self.centroids + self.size * self.step


def solve(
    backend: Backend,
    starts: Float64,
    alpha: float,
    *,
    tol: float,
    radius: float,
    resolution: float,
    max_iter: int,
    report: Callable[[int, list[Run]], None] | None = None,
) -> list[Run]:
    """Iterate every start (S, K, D) until its step is <= tol * sqrt(K) * radius.

    ``radius`` is the root mean square distance of a sample from the mean, which makes ``tol`` free
    of units and of the origin; ``resolution`` the relative rounding of J. One pass over the data
    evaluates all runs that are still going. ``max_iter`` bounds the passes.
    """
    runs = [Run(start) for start in starts]
    threshold = tol * np.sqrt(starts.shape[1]) * radius
    for iteration in range(max_iter):
        going = [run for run in runs if not run.done]
        if not going:
            break
        candidates = np.stack([run.candidate() for run in going])
        sums = backend.statistics(candidates, np.full(len(going), alpha))
        ratios = sums.ratio(candidates)
        for i, run in enumerate(going):
            run.n_iter += 1
            _advance(run, candidates[i], sums, ratios[i], i, threshold, resolution)
        if report is not None:
            report(iteration + 1, runs)
    return runs


def _advance(
    run: Run,
    candidate: Float64,
    sums: CentredStatistics,
    ratio: Float64,
    i: int,
    threshold: float,
    resolution: float,
) -> None:
    objective = float(sums.objective[i])
    if not np.isfinite(objective):  # ran off to where distances overflow: step back
        objective = np.inf
    rises = objective > run.objective + resolution * abs(run.objective)
    if rises and run.step is not None and not run.jumping:
        run.size /= 2
        run.n_halvings += 1
        if run.n_halvings > MAX_HALVINGS:
            # No descent along the step at the resolution of J: this is as low as it gets here.
            run.done = True
            run.converged = bool(np.linalg.norm(run.step) * run.size <= threshold)
        return
    moved, last_step = candidate - run.centroids, run.step
    run.centroids, run.objective = candidate, objective
    run.history.append(objective)
    run.n_halvings = 0

    weak = sums.sum_w[i] < THETA * sums.sum_p[i]
    if run.n_jumps >= MAX_WEAK_JUMPS:
        weak[:] = False
    run.jumping = bool(weak.any())
    run.n_jumps += run.jumping
    # Where B >= theta P the damped step is A / B - C, the exact one; sums are about `reference`.
    with np.errstate(divide="ignore", invalid="ignore"):
        share = sums.sum_w[i] / np.maximum(sums.sum_w[i], THETA * sums.sum_p[i])
    share = np.where(weak | ~np.isfinite(share), 1.0, share)
    run.step = share[:, None] * (ratio - candidate)
    run.size = 1.0 if last_step is None else _secant_size(moved, last_step, run.step)
    length = float(np.linalg.norm(run.step))
    if not np.isfinite(length):
        run.done = True
    elif length <= threshold:
        run.done = run.converged = True


def _secant_size(moved: Float64, last_step: Float64, step: Float64) -> float:
    """Share of ``step`` to take, 1 unless it turns back on the move that led to it.

    Along one direction the step is g(c) = s (c* - c); two values of g give s, and the share that
    lands on c* is 1 / s = <moved, moved> / <moved, g_last - g>.
    """
    if not np.vdot(step, moved) < 0:
        return 1.0
    share = np.vdot(moved, moved) / np.vdot(moved, last_step - step)
    return float(np.clip(share, 2.0**-6, 1.0))
