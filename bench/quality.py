"""How good the clusters are, against scikit-learn and against the neighbours of the method.

    python bench/quality.py                           # four families of 200 random problems
    python bench/quality.py --family gaussian --count 20
    python bench/quality.py --sets                    # named sets, with four scores

Every method gets the rows and K, and its defaults otherwise; what is said of a method is a mean
over problems none of which is left out. Each writes FILE.json, with every single result, and
FILE.md, with the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from problems import PUBLISHED, Problem, families, make_problem, named_sets
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import ekmfast
from ekmfast.metrics import class_recall, clustering_accuracy

RESULTS = Path(__file__).parent / "results"

Method = Callable[[int, int], Any]  # (n_clusters, random_state) -> estimator

EKM = "EKM"
DVARIANCE = "EKM, dvariance"
KMEANS = "KMeans"
MIXTURE = "GaussianMixture"

FAMILY_METHODS: dict[str, Method] = {
    EKM: lambda k, seed: ekmfast.EKMeans(k, random_state=seed),
    DVARIANCE: lambda k, seed: ekmfast.EKMeans(k, alpha="dvariance", random_state=seed),
    KMEANS: lambda k, seed: KMeans(k, n_init=10, random_state=seed),
    MIXTURE: lambda k, seed: GaussianMixture(k, n_init=3, random_state=seed),
}
SET_METHODS: dict[str, Method] = {
    EKM: FAMILY_METHODS[EKM],
    DVARIANCE: FAMILY_METHODS[DVARIANCE],
    "hard": lambda k, seed: ekmfast.HardKMeans(k, random_state=seed),
    "fuzzy, m = 2": lambda k, seed: ekmfast.FuzzyCMeans(k, fuzzifier=2.0, random_state=seed),
    "maximum entropy": lambda k, seed: ekmfast.MaximumEntropyKMeans(k, random_state=seed),
    "Gaussian mixture": FAMILY_METHODS[MIXTURE],
}
# By how much the default call should lead, in mean ARI on every family.
GOALS = {DVARIANCE: 0.10, KMEANS: 0.05, MIXTURE: 0.0}
TIE = 0.01  # ARIs this close are one result
SCORES = ("ARI", "NMI", "accuracy", "recall of the smallest")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", nargs="+", choices=families(), default=families())
    parser.add_argument("--count", type=int, default=PUBLISHED, help="problems of each family")
    parser.add_argument("--first-seed", type=int, default=0, help="10000 and on are for tuning")
    parser.add_argument("--sets", action="store_true", help="the named sets instead")
    parser.add_argument("--repeats", type=int, default=5, help="with --sets: random_state 0, 1, ..")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="results; .json and .md are appended")
    args = parser.parse_args()
    with threadpool_limits(args.threads):  # ours and the others'
        if args.sets:
            rows = list(run_sets(args.repeats))
            report = sets_report(rows)
        else:
            seeds = range(args.first_seed, args.first_seed + args.count)
            rows = list(run_families(args.family, seeds))
            report = families_report(rows)
    out = args.out or RESULTS / ("quality-sets" if args.sets else "quality-families")
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    write(out, settings, rows, report)


def run_families(names: Sequence[str], seeds: range) -> Iterable[dict[str, Any]]:
    """Yield one row a problem: facts, the attainable ARI, and each method's result."""
    for family in names:
        for done, seed in enumerate(seeds, 1):
            problem = make_problem(family, seed)
            results = {name: fitted(make, problem, 0) for name, make in FAMILY_METHODS.items()}
            yield {
                "family": family,
                "seed": seed,
                **problem.facts,
                "attainable": problem.attainable_ari(),
                "results": {
                    name: {"ARI": problem.ari(labels), **about}
                    for name, (labels, about) in results.items()
                },
            }
            print(f"\r{family}: {done} of {len(seeds)}", end="", flush=True)
        print()


def run_sets(repeats: int) -> Iterable[dict[str, Any]]:
    """Yield one row a set: each method's scores at each random_state."""
    for problem in named_sets():
        results: dict[str, list[dict[str, Any]]] = {}
        for name, make in SET_METHODS.items():
            results[name] = []
            for seed in range(repeats):
                labels, about = fitted(make, problem, seed)
                results[name].append(scores(problem, labels) | about)
        print(problem.name, flush=True)
        yield {"set": problem.name, **problem.facts, "results": results}


def fitted(make: Method, problem: Problem, seed: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """Labels of all rows, with the seconds they took and whether the method complained."""
    estimator = make(problem.k, seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        labels = estimator.fit_predict(problem.X)
        seconds = time.perf_counter() - start
    assert labels.shape == (len(problem.X),)
    assert labels.min() >= 0
    assert labels.max() < problem.k
    if isinstance(estimator, ekmfast.EKMeans):
        J = objective(problem.X, estimator.cluster_centers_, estimator.alpha_)
        assert abs(J - estimator.objective_) <= 1e-9 * J, (J, estimator.objective_)
    about: dict[str, Any] = {
        "seconds": seconds,
        "warnings": sorted({warning.category.__name__ for warning in caught}),
        "clusters": len(np.unique(labels)),
    }
    if hasattr(estimator, "alpha_") and np.isfinite(estimator.alpha_):
        about["alpha"] = float(estimator.alpha_)
    return labels, about


def objective(X: NDArray[Any], centroids: NDArray[Any], alpha: float) -> float:
    """J = sum_n sum_k p_kn d_kn in float64, straight from the formula."""
    total = 0.0
    rows = max(1, 2_000_000 // centroids.size)
    C = np.asarray(centroids, np.float64)
    for start in range(0, len(X), rows):
        block = X[start : start + rows].astype(np.float64)
        d = 0.5 * ((block[:, None, :] - C[None]) ** 2).sum(axis=2)
        p = np.exp(-alpha * (d - d.min(axis=1, keepdims=True)))
        p /= p.sum(axis=1, keepdims=True)
        total += float((p * d).sum())
    return total


def scores(problem: Problem, labels: NDArray[Any]) -> dict[str, float]:
    recall = class_recall(problem.y, labels)
    smallest = problem.sizes == problem.sizes.min()
    values = (
        problem.ari(labels),
        normalized_mutual_info_score(problem.y, labels),
        clustering_accuracy(problem.y, labels),
        recall[smallest].mean(),
    )
    return dict(zip(SCORES, map(float, values), strict=True))


def families_report(rows: list[dict[str, Any]]) -> str:
    """Tables of mean ARI, of EKM against each other method problem by problem, and of times."""
    names = list(dict.fromkeys(row["family"] for row in rows))
    of = {family: [row for row in rows if row["family"] == family] for family in names}

    def ari(family: str, method: str) -> NDArray[np.float64]:
        return np.array([row["results"][method]["ARI"] for row in of[family]])

    means = []
    for family in names:
        attainable = np.mean([row["attainable"] for row in of[family]])
        cells = [mean_and_error(ari(family, method)) for method in FAMILY_METHODS]
        means.append([family, len(of[family]), f"{attainable:.3f}", *cells])
    header = ["family", "problems", "true densities", *FAMILY_METHODS]
    text = "Mean ARI, with its standard error:\n\n" + markdown(header, means)

    paired = []
    for family in names:
        for method, goal in GOALS.items():
            gain = ari(family, EKM) - ari(family, method)
            won, lost = int((gain > TIE).sum()), int((gain < -TIE).sum())
            counts = f"{won} / {len(gain) - won - lost} / {lost}"
            held = "yes" if gain.mean() >= goal else "**no**"
            paired.append(
                [family, method, mean_and_error(gain, sign=True), counts, f"{goal:+.2f}", held]
            )
    header = ["family", f"{EKM} minus", "mean", "won / tied / lost", "goal", "reached"]
    text += f"\n\nProblem by problem (ARIs within {TIE} are a tie):\n\n" + markdown(header, paired)

    costs = []
    for method in FAMILY_METHODS:
        results = [row["results"][method] for row in rows]
        seconds = [r["seconds"] for r in results]
        warned = [sum(r["warnings"] == [ConvergenceWarning.__name__] for r in results)]
        warned.append(sum(bool(r["warnings"]) for r in results) - warned[0])
        mean, median = 1e3 * np.mean(seconds), 1e3 * np.median(seconds)
        costs.append([method, f"{mean:.0f}", f"{median:.0f}", *warned])
    header = ["method", "mean fit, ms", "median, ms", "fits with ConvergenceWarning", "with others"]
    return text + "\n\nOver all problems:\n\n" + markdown(header, costs)


def sets_report(rows: list[dict[str, Any]]) -> str:
    """One table a score, means over the random states; the best of each set in bold."""
    parts = []
    for score in SCORES:
        table = []
        for row in rows:
            means = [np.mean([r[score] for r in row["results"][name]]) for name in SET_METHODS]
            best = np.round(max(means), 3)
            cells = [f"**{m:.3f}**" if np.round(m, 3) == best else f"{m:.3f}" for m in means]
            table.append([row["set"], *cells])
        parts.append(f"{score}:\n\n" + markdown(["set", *SET_METHODS], table))
    return "\n\n".join(parts)


def mean_and_error(values: NDArray[np.float64], *, sign: bool = False) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():{'+' if sign else ''}.3f} ± {error:.3f}"


def markdown(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write(out: Path, settings: dict[str, Any], rows: list[Any], report: str) -> None:
    """Print the report; keep it as Markdown, and everything with the machine's facts as JSON."""
    machine = machine_facts()
    isa, threads = machine["ekmfast"]["isa"], settings.get("threads")
    report += (
        f"\n\n{machine['cpu']}, {machine['cpu_count']} processors, {isa}, {threads} thread(s), "
        f"commit {machine['commit']}{', with changes' if machine['uncommitted'] else ''}."
    )
    print("\n" + report)
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "settings": settings, "rows": rows}
    out.with_name(out.name + ".md").write_text(report + "\n")
    out.with_name(out.name + ".json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{out}.json, {out}.md")


def machine_facts() -> dict[str, Any]:
    """What explains a result and how long it took; not the host's name."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if models:
            cpu = models[0].partition(":")[2].strip()
    here = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True)
        return done.stdout.strip()

    return {
        "cpu": cpu,
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "commit": git("rev-parse", "--short", "HEAD"),
        "uncommitted": bool(git("status", "--porcelain", "--", "ekmfast", "csrc", "bench/*.py")),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "ekmfast": ekmfast.show_config("dict"),
    }


if __name__ == "__main__":
    main()
