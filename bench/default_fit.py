"""Time and quality of the calls that people make, each with its default parameters.

    python bench/default_fit.py [--problems 5] [--threads 2] [--only 300x3x4 ...] [--out FILE]

For each shape the random problems have seeds 0, 1, .. of the family 'gaussian' (problems.py). Their
largest cluster is 20 times as large as the smallest. The features of the shape `CODES` are mixtures
of eight, cut off at 0, as those of the codes of a neural network. Every method is fitted to each
problem, all in turns in one process with the same number of threads, and the ratio to
scikit-learn's KMeans() is taken within the problem. A method that has taken --budget seconds skips
further problems.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from problems import Problem, make_problem
from records import RESULTS, markdown, write
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import ekmfast
from ekmfast.plotting import new_figure

# (N, K, D)
SHAPES = [
    (300, 3, 4),
    (2_000, 5, 10),
    (20_000, 8, 16),
    (100_000, 5, 2),
    (100_000, 10, 20),
    (50_000, 20, 64),
    (30_000, 4, 32),
    (200_000, 15, 10),
    (1_000_000, 8, 4),
    CODES := (20_000, 10, 128),
]
N_MIXED = 8  # features of which those of CODES are mixtures, with some noise
IMBALANCE = 20.0
# A fit that takes less time is repeated, since its time varies more; its time is the median.
LEAST_SECONDS = 0.3
MOST_REPEATS = 20
# One that takes less time is not timed the first time, when its memory is new.
NOT_SHORT = 1.0

Fit = Callable[[NDArray[Any], int, int], NDArray[Any]]  # (X, n_clusters, seed) -> labels

REFERENCE = "KMeans"


def sklearn_like(make: Callable[[int, int], Any]) -> Fit:
    def fit(X: NDArray[Any], k: int, seed: int) -> NDArray[Any]:
        labels: NDArray[Any] = make(k, seed).fit_predict(X)
        return labels

    return fit


METHODS: dict[str, Fit] = {
    REFERENCE: sklearn_like(lambda k, seed: KMeans(k, random_state=seed)),
    "KMeans, n_init=10": sklearn_like(lambda k, seed: KMeans(k, n_init=10, random_state=seed)),
    "MiniBatchKMeans": sklearn_like(lambda k, seed: MiniBatchKMeans(k, random_state=seed)),
    "GaussianMixture": sklearn_like(lambda k, seed: GaussianMixture(k, random_state=seed)),
    "EKMeans, dvariance": sklearn_like(
        lambda k, seed: ekmfast.EKMeans(k, alpha="dvariance", random_state=seed)
    ),
    "EKMeans": sklearn_like(lambda k, seed: ekmfast.EKMeans(k, random_state=seed)),
    "EquilibriumMixture": sklearn_like(
        lambda k, seed: ekmfast.EquilibriumMixture(k, random_state=seed)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--problems", type=int, default=5, help="problems of each shape")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=60, help="seconds a method and shape")
    parser.add_argument("--only", nargs="+", metavar="NxKxD", help="some of the shapes")
    parser.add_argument("--out", type=Path, default=RESULTS / "default-fit")
    args = parser.parse_args()
    shapes = [s for s in SHAPES if args.only is None or shape_id(s) in args.only]
    with threadpool_limits(args.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [compare(shape, args.problems, args.budget) for shape in shapes]
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    write(args.out, settings, rows, report(rows))
    draw(rows).savefig(args.out.with_suffix(".png"), dpi=110, metadata={"Software": None})


def shape_id(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def problem_of(shape: tuple[int, int, int], seed: int) -> Problem:
    n, k, d = shape
    width = N_MIXED if shape == CODES else d
    problem = make_problem(
        "gaussian", seed, n_samples=n, n_clusters=k, n_features=width, imbalance=IMBALANCE
    )
    if shape != CODES:
        return problem
    rng = np.random.default_rng(seed)
    X = problem.X @ rng.normal(size=(width, d))
    X += 0.3 * X.std() * rng.normal(size=X.shape)
    return replace(problem, X=np.maximum(X, 0))


def compare(
    shape: tuple[int, int, int],
    n_problems: int,
    budget: float,
    methods: Iterable[str] = tuple(METHODS),
    progress: bool = True,
) -> dict[str, Any]:
    """Seconds, ratios and ARI of each method on the problems of a shape; the reference is first."""
    results: dict[str, dict[str, list[float]]] = {
        name: {"seconds": [], "ratio": [], "ARI": []} for name in methods
    }
    for seed in range(n_problems):
        problem = problem_of(shape, seed)
        reference = np.nan
        for name, of in results.items():
            fit = METHODS[name]
            if sum(of["seconds"]) > budget:
                continue
            if seed == 0:  # so that imports and the start of threads are not timed
                fit(problem.X[:200], problem.k, 0)
            time.sleep(0.2)  # until the threads of the previous fit sleep
            seconds, labels = timed(fit, problem, seed)
            reference = seconds if name == REFERENCE else reference
            of["seconds"].append(seconds)
            of["ratio"].append(seconds / reference)
            of["ARI"].append(problem.ari(labels))
        if progress:
            print(f"{shape_id(shape)}: {seed + 1} of {n_problems}", flush=True)
    return {"shape": list(shape), "results": results}


def timed(fit: Fit, problem: Problem, seed: int) -> tuple[float, NDArray[Any]]:
    """Seconds of one fit, and its labels."""

    def once() -> tuple[float, NDArray[Any]]:
        start = time.perf_counter()
        labels = fit(problem.X, problem.k, seed)
        return time.perf_counter() - start, labels

    first, labels = once()
    if first >= NOT_SHORT:
        return first, labels
    seconds: list[float] = []
    while not seconds or (len(seconds) < MOST_REPEATS and sum(seconds) < LEAST_SECONDS):
        seconds.append(once()[0])
    return median(seconds), labels


def title_of(shape: Iterable[int]) -> str:
    """The name of a shape in the report and the picture."""
    found = tuple(shape)
    return " x ".join(f"{n:,}" for n in found) + (", codes" if found == CODES else "")


def report(rows: list[dict[str, Any]]) -> str:
    table = []
    for row in rows:
        for name, of in row["results"].items():
            seconds, ratios = of["seconds"], of["ratio"]
            table.append(
                [
                    title_of(row["shape"]),
                    name,
                    f"{median(seconds):.3g} ({min(seconds):.3g} .. {max(seconds):.3g})",
                    f"{median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})",
                    f"{mean(of['ARI']):.3f} ({min(of['ARI']):.2f} .. {max(of['ARI']):.2f})",
                    len(seconds),
                ]
            )
    header = ["N x K x D", "fit", "seconds", f"time / that of {REFERENCE}()", "ARI", "problems"]
    return (
        f"Random problems of the family 'gaussian', with a largest cluster {IMBALANCE:g} times as "
        "large as the smallest. Medians of seconds and ratios, and the mean ARI, with the least "
        "and the greatest. The ARI varies much between so few problems; quality.py has 800. "
        f"'codes': features are mixtures of {N_MIXED}, with noise, cut off at 0.\n\n"
    ) + markdown(header, table)


def draw(rows: list[dict[str, Any]]) -> Any:
    """Draw seconds against ARI, a panel for each shape and a point for each method."""
    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    figure, grid = new_figure(9.6, 3.2 * lines + 0.6, rows=lines, columns=columns, sharey=True)
    marks = dict(zip(METHODS, "oPXDsv^", strict=True))
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    for axes, row in zip(grid.flat, rows, strict=False):
        for name, of in row["results"].items():
            ours = name.startswith("E")
            axes.plot(
                median(of["seconds"]),
                mean(of["ARI"]),
                marks[name],
                color="tab:red" if ours else "tab:blue",
                markersize=8,
                label=name,
            )
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")  # its labels would overlap
        axes.set_title(title_of(row["shape"]), fontsize=9)
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(rows) - columns : len(rows)]:  # the lowest of each column
        axes.set_xlabel("seconds of one fit")
    for axes in grid[:, 0]:
        axes.set_ylabel("mean ARI")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=4)
    return figure


if __name__ == "__main__":
    main()
