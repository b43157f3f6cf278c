"""Passes until convergence of the plain, safeguarded and accelerated iterations.

    python bench/convergence.py [--starts 10] [--multiples 1 2] [--out FILE]

All three use the same starts and the same stopping rule: the step, root mean square over the
centroids, is at most tol times the root mean square distance of a sample from the mean. The plain
iteration is C <- A / B, exactly Eq. 38 and 39. A pass is one evaluation of the statistics A, B, P,
J; evaluations of rejected proposals of the accelerated iteration count too.

Means of passes are taken over the starts from which all three converge to that tolerance, and then
over the sets. The tables also show how often each method converges.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from problems import Problem, families, make_problem, named_sets
from records import RESULTS, markdown, objective, write
from sklearn.cluster import kmeans_plusplus
from threadpoolctl import threadpool_limits

from ekmfast.fit.problem import Problem as FitProblem
from ekmfast.fit.solver import OBJECTIVE_RESOLUTION, WINDOW, solve
from ekmfast.rows.array import ArrayRows

Float64 = NDArray[np.float64]

TOLERANCES = (1e-4, 1e-6, 1e-8)
MAX_PASSES = 1000
SEEDS = range(3)  # random problems of each family
# Tolerance relative to the lowest J that any method reaches from the same start.
SAME_OBJECTIVE = 1e-6


class Result(NamedTuple):
    centroids: Float64
    n_passes: int
    converged: bool


Method = Callable[[FitProblem, Float64, float, float], Result]


def plain(problem: FitProblem, start: Float64, alpha: float, tol: float) -> Result:
    centroids = start
    rows, threshold = problem.rows, tol * np.sqrt(len(start)) * problem.radius
    for n_passes in range(1, MAX_PASSES + 1):
        following = rows.statistics(centroids[None], np.array([alpha])).ratio(centroids[None])[0]
        length = np.linalg.norm(following - centroids)
        if not np.isfinite(length):
            return Result(centroids, n_passes, False)
        if length <= threshold:
            return Result(centroids, n_passes, True)
        centroids = following
    return Result(centroids, MAX_PASSES, False)


def solver(window: int) -> Method:
    def method(problem: FitProblem, start: Float64, alpha: float, tol: float) -> Result:
        (run,) = solve(
            problem.rows,
            start[None],
            alpha,
            tol=tol,
            radius=problem.radius,
            resolution=OBJECTIVE_RESOLUTION[problem.dtype.itemsize],
            max_iter=MAX_PASSES,
            window=window,
            bounds=problem.bounds,
        )
        return Result(run.centroids, run.n_iter, run.converged)

    return method


METHODS: dict[str, Method] = {
    "plain": plain,
    "safeguarded": solver(0),
    "accelerated": solver(WINDOW),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--starts", type=int, default=10, help="of each set and alpha")
    parser.add_argument(
        "--multiples", type=float, nargs="+", default=[1.0, 2.0], help="of the dvariance alpha"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "convergence")
    args = parser.parse_args()
    rows = []
    with threadpool_limits(args.threads):
        for problem in sets():
            for multiple in args.multiples:
                rows += compare(problem, multiple, args.starts, args.threads)
            print(problem.name, flush=True)
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    settings |= {"max_passes": MAX_PASSES, "window": WINDOW}
    write(args.out, settings, rows, report(rows))


def sets() -> list[Problem]:
    return named_sets() + [make_problem(family, s) for family in families() for s in SEEDS]


def compare(problem: Problem, multiple: float, n_starts: int, n_threads: int) -> list[Any]:
    """One row for each start and tolerance, with the passes, convergence and J of each method."""
    rows_of_problem = ArrayRows(problem.X, None, n_threads)
    fitted = FitProblem(rows_of_problem, 1, tol=0.0, max_iter=MAX_PASSES)
    alpha, radius = multiple * 2 / fitted.dispersion, fitted.radius
    rows = []
    for i in range(n_starts):
        start = make_start(problem, i)
        for tol in TOLERANCES:
            row: dict[str, Any] = {"set": problem.name, "multiple": multiple, "start": i}
            row |= {"tol": tol, "results": {}}
            for name, method in METHODS.items():
                result = method(fitted, start, alpha, tol)
                J = objective(problem.X, result.centroids, alpha)
                if result.converged:
                    check(problem.X, result.centroids, alpha, 1.01 * tol * radius)
                row["results"][name] = {
                    "passes": result.n_passes,
                    "converged": result.converged,
                    "J": J if np.isfinite(J) else None,
                }
            rows.append(row)
    return rows


def make_start(problem: Problem, i: int) -> Float64:
    """Start number i: by k-means++ if i is even, otherwise random rows."""
    if i % 2 == 0:
        return np.asarray(kmeans_plusplus(problem.X, problem.k, random_state=i)[0], np.float64)
    rows = np.random.default_rng(i).choice(len(problem.X), problem.k, replace=False)
    return problem.X[rows].copy()


def check(X: Float64, centroids: Float64, alpha: float, tolerance: float) -> None:
    """Raise if the exact step from ``centroids``, by the formula, is longer than the tolerance.

    Centroids with B < theta P, whose steps the solver damps, are not checked.
    """
    d = 0.5 * ((X[:, None, :] - centroids[None]) ** 2).sum(axis=2)
    p = np.exp(-alpha * (d - d.min(axis=1, keepdims=True)))
    p /= p.sum(axis=1, keepdims=True)
    w = p * (1 - alpha * (d - (p * d).sum(axis=1, keepdims=True)))
    B = w.sum(axis=0)
    sound = 0.1 * p.sum(axis=0) <= B  # elsewhere the formula itself underflows or is damped
    step = (w.T @ X)[sound] / B[sound, None] - centroids[sound]
    length = np.sqrt((step**2).sum() / len(centroids))
    assert length <= tolerance + 1e-10, (length, tolerance)


def report(rows: list[dict[str, Any]]) -> str:
    """A table over all sets, by tolerance and method; and a table by set, at tol = 1e-6."""
    names = list(dict.fromkeys(row["set"] for row in rows))
    table = []
    for tol in TOLERANCES:
        at = [row for row in rows if row["tol"] == tol]
        means: dict[str, list[float]] = {m: [] for m in METHODS}
        for name in names:
            if passes := paired_passes([row for row in at if row["set"] == name]):
                for method in METHODS:
                    means[method].append(passes[method])
        for method in METHODS:
            fewer = np.array(means["plain"]) / means[method]
            counted = [row["results"][method]["passes"] for row in at]
            table.append(
                [
                    f"{tol:.0e}",
                    method,
                    f"{np.mean(means[method]):.1f}",
                    f"{np.mean(means['plain']) / np.mean(means[method]):.2f}",
                    f"{np.exp(np.log(fewer).mean()):.2f}",
                    f"{np.mean(counted):.1f}",
                    percent([row["results"][method]["converged"] for row in at]),
                    percent([reaches_best(row, method) for row in at]),
                ]
            )
    header = ["tol", "iteration", "passes", "fewer by", "mean of ratios", "all runs"]
    header += ["converged", "best J"]
    text = (
        f"{len(names)} sets, {len(rows) // len(TOLERANCES)} starts. *passes*: mean over the sets "
        "of the mean over the starts from which all three converge; *fewer by*: plain / this; "
        "*mean of ratios*: geometric mean over the sets of this ratio; *all runs*: mean passes, "
        f"also of runs that did not converge (at most {MAX_PASSES}); *best J*: share of starts "
        f"whose J is within {SAME_OBJECTIVE:.0e} of the lowest of the three.\n\n"
    )
    text += markdown(header, table)

    table = []
    for name in names:
        at = [row for row in rows if row["tol"] == 1e-6 and row["set"] == name]
        passes = paired_passes(at)
        cells = [f"{passes[m]:.1f}" if passes else "-" for m in METHODS]
        cells += [percent([row["results"][m]["converged"] for row in at]) for m in METHODS]
        table.append([name, *cells])
    header = ["set", *METHODS, *(f"{m} converged" for m in METHODS)]
    return text + "\n\nAt tol 1e-6, passes and share converged:\n\n" + markdown(header, table)


def paired_passes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean passes of each method over the starts from which all converge; {} if there is none."""
    common = [row for row in rows if all(r["converged"] for r in row["results"].values())]
    if not common:
        return {}
    return {m: float(np.mean([row["results"][m]["passes"] for row in common])) for m in METHODS}


def reaches_best(row: dict[str, Any], method: str) -> bool:
    J = {m: np.inf if r["J"] is None else r["J"] for m, r in row["results"].items()}
    return bool(J[method] <= (1 + SAME_OBJECTIVE) * min(J.values()))


def percent(values: list[bool]) -> str:
    return f"{100 * np.mean(values):.1f} %"


if __name__ == "__main__":
    main()
