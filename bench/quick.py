"""Measure the ten figures of the README on this machine, in less than three minutes.

    python bench/quick.py [--threads 2] [--only WORD ...]
    python bench/quick.py --readme                            # the table of the README

The published figures are read from the files in results/; this script measures each again, in the
same way but with fewer rounds, and prints both with their ratio. Figures of quality are computed on
some of the published problems only, and compared with the published results on just these. They
agree on every machine, up to what has changed in the code since. Figures of speed depend on the
processor, and on what else it does.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
KERNELS = "kernels-epyc-zen5-avx512"

Shape = tuple[int, int, int]  # (N, K, D)
MEDIUM: Shape = (1_000_000, 8, 8)
LARGE: Shape = (50_000, 512, 128)
FIT: Shape = (20_000, 8, 16)
# The size, channels, code and width of the demo's model, and a batch.
DEMO_MODEL, BATCH = (32, 1, 128, 0.25), 64

ROUNDS = 5
# So many problems of each family.
SEEDS = range(10)


@dataclass(frozen=True)
class Figure:
    """One figure: what it is, where it was published, and how it is measured again."""

    name: str
    published: Callable[[], float]
    measure: Callable[[int], float]  # n_threads -> the figure
    format: str = ".2f"

    def show(self, value: float) -> str:
        return format(value, self.format)


@cache
def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


# One iteration against peers


def published_ratio(group: str, peer: str, shape: Shape) -> float:
    wanted = (shape_id(shape), "float32")
    for row in results(KERNELS)["rows"]:
        if row["group"] == f"peers: {group}":
            for entry in row["ratios"]:
                if entry["peer"].startswith(peer) and (entry["shape"], entry["dtype"]) == wanted:
                    return float(entry["ratio_median"])
    raise LookupError((group, peer, shape))


def shape_id(shape: Shape) -> str:
    return "x".join(f"{n // 1000}k" if n >= 10_000 else str(n) for n in shape)


def hard_ratio(shape: Shape, n_threads: int) -> float:
    """The fastest hard k-means: the one whose median time is least."""
    import test_peers

    peers = test_peers.hard_peers(np.dtype(np.float32))
    times, ours = iteration_times(shape, peers, 2, 12, n_threads)
    fastest = min(times, key=lambda name: median(times[name]))
    return median(a / b for a, b in zip(times[fastest], ours, strict=True))


def author_ratio(shape: Shape, n_threads: int) -> float:
    """The package of the method's author, with its Numba kernel."""
    import test_peers

    peers = {"author": partial(test_peers.author_fit, use_numba=True)}
    times, ours = iteration_times(shape, peers, 1, 4, n_threads)
    return median(a / b for a, b in zip(times["author"], ours, strict=True))


def iteration_times(
    shape: Shape, peers: dict[str, Callable[..., Any]], few: int, many: int, n_threads: int
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of one iteration of each peer and of ours, in turns: see test_peers.py."""
    import ekmfast

    problem = problem_of(shape)

    def seconds(function: Callable[..., Any], *args: Any) -> float:
        start = time.perf_counter()
        function(*args)
        return time.perf_counter() - start

    def our_steps() -> None:
        for _ in range(10):
            ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=n_threads)

    for fit in peers.values():
        fit(problem, few)  # also compiles
    times: dict[str, list[float]] = {name: [] for name in peers}
    ours = []
    for _ in range(ROUNDS):
        for name, fit in peers.items():
            short = seconds(fit, problem, few)
            times[name].append((seconds(fit, problem, many) - short) / (many - few))
            time.sleep(0.1)  # until the peer's threads sleep
        seconds(our_steps)
        ours.append(seconds(our_steps) / 10)
    return times, ours


@cache
def problem_of(shape: Shape) -> Any:
    from conftest import Problem

    return Problem(shape, np.float32)


# The share of the processor's multiply-adds


def published_share(shape: Shape) -> float:
    rows = [r for r in results(KERNELS)["rows"] if r["name"].startswith("test_ekm_step[avx512-")]
    name = f"test_ekm_step[avx512-{shape_id(shape)}-float32]"
    return next(float(r["share_of_gflops"]) for r in rows if r["name"] == name)


def measured_share(shape: Shape, n_threads: int) -> float:
    import limits

    import ekmfast
    from ekmfast import _core

    problem = problem_of(shape)
    shares = []
    for _ in range(ROUNDS):
        peak = limits.multiply_adds(_core.isa(), "float32", n_threads)
        start = time.perf_counter()
        for _ in range(3):
            ekmfast.ekm_step(problem.X, problem.centroids, problem.alpha, n_threads=n_threads)
        shares.append(4.0 * np.prod(shape) * 3 / (time.perf_counter() - start) / peak)
    return median(shares)


# A whole fit


def fit_ratio(rows: Iterable[dict[str, Any]]) -> float:
    row = next(row for row in rows if tuple(row["shape"]) == FIT)
    peer, ours = (row["results"][name]["seconds"] for name in ("KMeans, n_init=10", "EKMeans"))
    return median(a / b for a, b in zip(peer, ours, strict=True))


def measured_fit_ratio(n_threads: int) -> float:
    import default_fit

    methods = ("KMeans", "KMeans, n_init=10", "EKMeans")
    return fit_ratio([default_fit.compare(FIT, ROUNDS, 60, methods, progress=False)])


# Quality


def published_ari(name: str, method: str) -> float:
    rows = [row for row in results(name)["rows"] if row["seed"] in SEEDS]
    return mean(row["results"][method]["ARI"] for row in rows)


def measured_ari(method: str, n_threads: int) -> float:
    import quality

    make = quality.SHAPE_METHODS[method]
    problems = (quality.make_problem(f, seed) for f in quality.families() for seed in SEEDS)
    return mean(p.ari(quality.fitted(make, p, 0)[0]) for p in problems)


def published_auc() -> float:
    rows = results("anomaly-features")["rows"]
    wanted = ("scikit-learn", "EKMeansDetector")
    return mean(row["auc"] for row in rows if (row["group"], row["method"]) == wanted)


def measured_auc(n_threads: int) -> float:
    import anomaly

    problems = [p for p in anomaly.feature_problems() if p[0] == "scikit-learn"]
    make = anomaly.feature_detectors(0)["EKMeansDetector"]
    return mean(anomaly.judge(make, X, X, y)["auc"] for _, _, X, y in problems)


# Encoding of images


def encoding_ratio(rows: Iterable[dict[str, Any]]) -> float:
    wanted = (list(DEMO_MODEL), BATCH, "encode", "TorchScript")
    keys = ("batch_size", "task", "kind")
    for row in rows:
        if "model" in row and (list(row["model"]), *(row[key] for key in keys)) == wanted:
            return median(row["ratio"])
    raise LookupError(wanted)


def measured_encoding(n_threads: int) -> float:
    import autoencoder_speed

    return encoding_ratio(autoencoder_speed.compare(DEMO_MODEL, BATCH, 1024, ROUNDS, half=False))


FIGURES = (
    *(
        Figure(
            f"One iteration of the fastest hard k-means / of EKM, {size}",
            partial(published_ratio, "hard k-means", "fastest", shape),
            partial(hard_ratio, shape),
        )
        for size, shape in (
            ("1M x 3 x 2", (1_000_000, 3, 2)),
            ("1M x 8 x 8", MEDIUM),
            ("50k x 512 x 128", LARGE),
        )
    ),
    Figure(
        "One iteration of the author's package (Numba) / of EKM, 1M x 8 x 8",
        partial(published_ratio, "equilibrium k-means", "sklekmeans, Numba", MEDIUM),
        partial(author_ratio, MEDIUM),
        ".0f",
    ),
    Figure(
        "Share of the processor's multiply-adds, 50k x 512 x 128",
        partial(published_share, LARGE),
        partial(measured_share, LARGE),
        ".0%",
    ),
    Figure(
        "Time of `KMeans(n_init=10)` / of `EKMeans()`, 20k x 8 x 16",
        lambda: fit_ratio(results("default-fit")["rows"]),
        measured_fit_ratio,
    ),
    Figure(
        "Mean ARI of `EKMeans`, 40 random problems",
        partial(published_ari, "quality-families", "EKM"),
        partial(measured_ari, "EKM"),
        ".3f",
    ),
    Figure(
        "Mean ARI of `EquilibriumMixture`, the same problems",
        partial(published_ari, "quality-shapes-families", "EquilibriumMixture"),
        partial(measured_ari, "EquilibriumMixture"),
        ".3f",
    ),
    Figure(
        "AUC of `EKMeansDetector`, ten problems",
        published_auc,
        measured_auc,
        ".3f",
    ),
    Figure(
        "Time of the eager encoder / of TorchScript, batches of 64 images",
        lambda: encoding_ratio(results("autoencoder-speed")["rows"]),
        measured_encoding,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="figures with one of these words")
    parser.add_argument("--readme", action="store_true", help="print the published figures only")
    args = parser.parse_args()
    if args.readme:
        print(as_markdown())
        return
    chosen = [f for f in FIGURES if not args.only or any(word in f.name for word in args.only)]

    from records import machine_facts
    from threadpoolctl import threadpool_limits

    machine = machine_facts()
    line = "{:70} {:>9} {:>9} {:>7} {:>6}"
    print(
        f"{machine['cpu']}, {machine['ekmfast']['isa']}, {machine['ekmfast']['compiler']}, ", end=""
    )
    print(f"{args.threads} thread(s), commit {machine['commit']}\n")
    print(line.format("figure (sizes are N x K x D)", "published", "here", "ratio", "s"))
    begun = time.perf_counter()
    with threadpool_limits(args.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for figure in chosen:
            start = time.perf_counter()
            published, here = figure.published(), figure.measure(args.threads)
            spent = time.perf_counter() - start
            cells = (figure.name, figure.show(published), figure.show(here))
            print(line.format(*cells, f"{here / published:.2f}", f"{spent:.0f}"), flush=True)
    print(f"\n{time.perf_counter() - begun:.0f} seconds. Published on {published_on()}.")


def as_markdown() -> str:
    """The published figures as the table of the README."""
    rows = [f"| {figure.name} | {figure.show(figure.published())} |" for figure in FIGURES]
    return "\n".join(["| figure (sizes are N x K x D) | |", "|---|---|", *rows])


def published_on() -> str:
    machine = results(KERNELS)["machine"]
    cores = f"{machine['cpu_count']} cores"
    return f"{machine['cpu']} (Zen 5, {cores}), {machine['ekmfast']['compiler']}: bench/README.md"


if __name__ == "__main__":
    main()
