"""The safeguarded fixed-point iteration, for all restarts in shared passes over the data.

The plain iteration c <- A / B (Eq. 39) is not monotone: weights may be negative, so B may come
near zero and throw a centroid far away. With P the sum of memberships:

- where every B_k >= theta P_k the step is C + (A - B C) / max(B, theta P), which is the plain
  step, and is halved while the objective J rises;
- a *weak* column, B_k < theta P_k, takes its exact ratio A_k / B_k without descent being asked
  (that is how a dead centroid comes back), but only where that is amid the data, and only so often,
  since it can loop; else it takes the damped step like the others.

A centroid without members would drift away without end, so no centroid leaves the box of the data
by more than the box's width; a run that ends on that edge has not converged.

Away from weak columns Anderson acceleration proposes where to go: the last few steps say how the
step changes with the centroids, and the proposal is where that linear model has it vanish. It is
taken only if J does not rise; otherwise the run falls back to the damped step.

Where a step turns back on the one before it, the map overshoots (its slope along the step is below
-1, or not far above): the next step is cut to what the secant through both says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast.rows.protocol import Sums
from ekmfast.rows.statistics import CentredStatistics

Float64 = NDArray[np.float64]

THETA = 0.1
MAX_WEAK_JUMPS = 20
MAX_HALVINGS = 12
WINDOW = 5
# J is a sum of rounded numbers: a rise below this share of it is not one.
OBJECTIVE_RESOLUTION = {4: 1e-6, 8: 1e-13}
# Steps of so many times that share of the data's radius are rounding; where so many passes bring
# none that is shorter, a run is as near to its fixed point as it can come.
NOISE = 4.0
STILL_PASSES = 16
# A run is given up when its last fall of J, repeated this often, would not reach the best run.
FALLS_TO_REACH_BEST = 50


@dataclass
class Run:
    """One restart: where it is, and where it would go next."""

    centroids: Float64  # (K, D), the last accepted
    alpha: float
    objective: float = np.inf
    step: Float64 | None = None  # from centroids to the full proposal
    size: float = 1.0  # share of the step that is tried
    leap: Float64 | None = None  # Anderson's proposal, tried before the step
    past: deque[tuple[Float64, Float64]] = field(default_factory=deque)  # centroids and steps
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
    history: list[float] = field(default_factory=list)

    @property
    def stalled(self) -> bool:
        """Whether it ended because J fell along no share of its step."""
        return self.n_halvings > MAX_HALVINGS

    def candidate(self) -> Float64:
        if self.leap is not None:
            return self.leap
        if self.step is None:
            return self.centroids
        return self.centroids + self.size * self.step


@dataclass(frozen=True)
class Rules:
    """When a run is done."""

    threshold: float  # length of a step, in units of the data
    noise: float  # length of a step that may be rounding
    resolution: float  # relative rounding of J
    window: int  # steps that Anderson's proposal looks back on; 0 for none
    bounds: tuple[Float64, Float64] | None  # (D,) each: where centroids may be


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
    report: Callable[[list[Run]], bool] | None = None,
    runs: list[Run] | None = None,
) -> list[Run]:
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
    alphas = np.broadcast_to(np.asarray(alpha, np.float64), len(starts))
    if runs is None:
        runs = [Run(start, float(a)) for start, a in zip(starts, alphas, strict=True)]
    n_passes = max(run.n_iter for run in runs)
    unit = float(np.sqrt(starts.shape[1]) * radius)
    rules = Rules(float(tol) * unit, NOISE * resolution * unit, resolution, window, bounds)
    for _ in range(n_passes, max_iter):
        going = [run for run in runs if not run.done]
        if not going:
            break
        candidates = np.stack([run.candidate() for run in going])
        sums = rows.statistics(candidates, np.array([run.alpha for run in going]))
        ratios = sums.ratio(candidates)
        for i, run in enumerate(going):
            run.n_iter += 1
            _advance(run, candidates[i], sums, ratios[i], i, rules)
        if compete:
            _give_up_losing_runs(runs)
        if report is not None and report(runs):
            break
    return runs


def _advance(
    run: Run,
    candidate: Float64,
    sums: CentredStatistics,
    ratio: Float64,
    i: int,
    rules: Rules,
) -> None:
    objective = float(sums.objective[i])
    if not np.isfinite(objective):  # ran off to where distances overflow: step back
        objective = np.inf
    rises = objective > run.objective + rules.resolution * abs(run.objective)
    if rises and run.leap is not None:
        run.leap = None
        run.past.clear()
        return
    if rises and run.step is not None and not run.jumping:
        run.size /= 2
        run.n_halvings += 1
        if run.n_halvings > MAX_HALVINGS:
            # No descent along the step at the resolution of J: this is as low as it gets here.
            length = float(np.linalg.norm(run.step))
            run.done = True
            run.converged = length * run.size <= rules.threshold or length <= rules.noise
        return
    moved, last_step, leapt = candidate - run.centroids, run.step, run.leap is not None
    run.centroids, run.objective, run.leap = candidate, objective, None
    run.history.append(objective)
    run.n_halvings = 0

    weak = sums.sum_w[i] < THETA * sums.sum_p[i]
    if run.n_jumps >= MAX_WEAK_JUMPS:
        weak[:] = False
    elif rules.bounds is not None:
        # B near zero throws the ratio to either side; the damped step knows which way J falls.
        low, high = rules.bounds
        weak &= ((ratio >= low) & (ratio <= high)).all(axis=1)
    run.jumping = bool(weak.any())
    run.n_jumps += run.jumping
    # Where B >= theta P the damped step is A / B - C, the exact one; sums are about `reference`.
    with np.errstate(divide="ignore", invalid="ignore"):
        share = sums.sum_w[i] / np.maximum(sums.sum_w[i], THETA * sums.sum_p[i])
    share = np.where(weak | ~np.isfinite(share), 1.0, share)
    run.step = share[:, None] * (ratio - candidate)
    run.held = False
    if rules.bounds is not None:
        inside = np.clip(candidate + run.step, *rules.bounds)
        run.held = bool((inside != candidate + run.step).any())
        if run.held:
            run.step = inside - candidate
    run.size = 1.0
    if last_step is not None and not leapt:
        run.size = _secant_size(moved, last_step, run.step)
    length = float(np.linalg.norm(run.step))
    run.n_still = 0 if length < run.least else run.n_still + 1
    run.least = min(length, run.least)
    still = run.n_still >= STILL_PASSES and length <= rules.noise
    if not np.isfinite(length):
        run.done = True
    elif length <= rules.threshold or still:
        run.done = True
        run.converged = not run.held
    elif run.jumping or run.held:
        run.past.clear()
    elif rules.window:
        run.leap = _anderson(run, rules.window)
        if run.leap is not None and rules.bounds is not None:
            run.leap = np.clip(run.leap, *rules.bounds)


def _secant_size(moved: Float64, last_step: Float64, step: Float64) -> float:
    """Share of ``step`` to take, 1 unless it turns back on the move that led to it.

    Along one direction the step is g(c) = s (c* - c); two values of g give s, and the share that
    lands on c* is 1 / s = <moved, moved> / <moved, g_last - g>.
    """
    if not np.vdot(step, moved) < 0:
        return 1.0
    share = np.vdot(moved, moved) / np.vdot(moved, last_step - step)
    return float(np.clip(share, 2.0**-6, 1.0))


def _anderson(run: Run, window: int) -> Float64 | None:
    """Where the last steps, taken as linear in the centroids, would vanish; None for no idea.

    With dC_j = C - C_j and dG_j = g - g_j against the last points: gamma minimises
    ||g - sum gamma_j dG_j||, and the proposal is C + g - sum gamma_j (dC_j + dG_j).
    """
    assert run.step is not None
    centroids, step = run.centroids, run.step
    proposal = None
    if run.past:
        moves = np.stack([(centroids - c).ravel() for c, _ in run.past], axis=1)
        turns = np.stack([(step - g).ravel() for _, g in run.past], axis=1)
        scale = np.linalg.norm(turns, axis=0)
        if (scale > 0).all():
            gamma = np.linalg.lstsq(turns / scale, step.ravel(), rcond=1e-6)[0] / scale
            leap = centroids + step - ((moves + turns) @ gamma).reshape(step.shape)
            proposal = leap if np.isfinite(leap).all() else None
    run.past.append((centroids, step))
    while len(run.past) > window:
        run.past.popleft()
    return proposal


def _give_up_losing_runs(runs: list[Run]) -> None:
    # Only runs that Anderson's proposals lead, which fall ever less: Lloyd's iteration, which has
    # none, may fall by much after it hardly fell, and lost its best run in 4 of 125 fits (by up to
    # 0.9 % of J) where it was given up by the same rule, for a quarter of the passes.
    best: dict[float, float] = {}
    for run in runs:
        if run.converged:
            best[run.alpha] = min(run.objective, best.get(run.alpha, np.inf))
    for run in runs:
        if run.done or run.jumping or run.leap is None or len(run.history) < 4:
            continue
        fall = max(run.history[-3] - run.history[-2], run.history[-2] - run.history[-1])
        if run.objective - FALLS_TO_REACH_BEST * fall > best.get(run.alpha, np.inf):
            run.done = run.given_up = True
