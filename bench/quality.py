"""Quality of the clusters, compared with scikit-learn and with related methods.

    python bench/quality.py                           # four families of 200 random problems
    python bench/quality.py --family gaussian --count 20
    python bench/quality.py --sets                    # named sets, with four scores
    python bench/quality.py --codes                   # 84 draws of an autoencoder's codes
    python bench/quality.py --shapes [--codes]        # EquilibriumMixture on the same problems

Every method gets the rows and K, and has its default parameters otherwise. Means are taken over all
problems. Each call writes FILE.json with every single result, and FILE.md with the tables.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from codes import draws, make_codes
from numpy.typing import NDArray
from problems import PUBLISHED, Problem, families, make_problem, named_sets
from records import RESULTS, markdown, objective, write
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import ekmfast
from ekmfast.metrics import class_recall, clustering_accuracy

Method = Callable[[int, int], Any]  # (n_clusters, random_state) -> estimator

EKM = "EKM"
DVARIANCE = "EKM, dvariance"
KMEANS = "KMeans"
MIXTURE = "GaussianMixture"
BEST = "EKM, best alpha"
SHAPES = "EquilibriumMixture"

FAMILY_METHODS: dict[str, Method] = {
    EKM: lambda k, seed: ekmfast.EKMeans(k, random_state=seed),
    DVARIANCE: lambda k, seed: ekmfast.EKMeans(k, alpha="dvariance", random_state=seed),
    KMEANS: lambda k, seed: KMeans(k, n_init=10, random_state=seed),
    MIXTURE: lambda k, seed: GaussianMixture(k, n_init=3, random_state=seed),
}
# With --shapes. It is a table of its own, since the other is older and takes less time.
SHAPE_METHODS: dict[str, Method] = {
    SHAPES: lambda k, seed: ekmfast.EquilibriumMixture(k, random_state=seed),
    EKM: FAMILY_METHODS[EKM],
    KMEANS: FAMILY_METHODS[KMEANS],
    MIXTURE: FAMILY_METHODS[MIXTURE],
}
SET_METHODS: dict[str, Method] = {
    EKM: FAMILY_METHODS[EKM],
    DVARIANCE: FAMILY_METHODS[DVARIANCE],
    "hard": lambda k, seed: ekmfast.HardKMeans(k, random_state=seed),
    "fuzzy, m = 2": lambda k, seed: ekmfast.FuzzyCMeans(k, fuzzifier=2.0, random_state=seed),
    "maximum entropy": lambda k, seed: ekmfast.MaximumEntropyKMeans(k, random_state=seed),
    "Gaussian mixture": FAMILY_METHODS[MIXTURE],
}
# Differences in mean ARI that the default call should reach on every family.
GOALS = {DVARIANCE: 0.10, KMEANS: 0.05, MIXTURE: 0.0}
SHAPE_GOALS = {EKM: 0.05, KMEANS: 0.05, MIXTURE: 0.08}
TIE = 0.01  # ARIs this close are one result
SCORES = ("ARI", "NMI", "accuracy", "recall of the smallest")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", nargs="+", choices=families(), default=families())
    parser.add_argument("--count", type=int, default=PUBLISHED, help="problems of each family")
    parser.add_argument("--first-seed", type=int, default=0, help="10000 and on are for tuning")
    parser.add_argument("--sets", action="store_true", help="the named sets instead")
    parser.add_argument("--codes", action="store_true", help="draws of an autoencoder's codes")
    parser.add_argument("--shapes", action="store_true", help="EquilibriumMixture and others")
    parser.add_argument("--repeats", type=int, default=5, help="with --sets: random_state 0, 1, ..")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="results; .json and .md are appended")
    args = parser.parse_args()
    methods, goals = (SHAPE_METHODS, SHAPE_GOALS) if args.shapes else (FAMILY_METHODS, GOALS)
    with threadpool_limits(args.threads):  # ours and the others'
        if args.sets:
            rows = list(run_sets(args.repeats))
            report = sets_report(rows)
        elif args.codes:
            rows = list(run_codes(methods))
            report = codes_report(rows)
        else:
            seeds = range(args.first_seed, args.first_seed + args.count)
            rows = list(run_families(args.family, seeds, methods))
            report = families_report(rows, methods, goals)
    kind = "sets" if args.sets else "codes" if args.codes else "families"
    out = args.out or RESULTS / f"quality-{'shapes-' if args.shapes else ''}{kind}"
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    write(out, settings, rows, report)


def run_families(
    names: Sequence[str], seeds: range, methods: dict[str, Method]
) -> Iterable[dict[str, Any]]:
    """Yield one row for each problem: facts, the attainable ARI, and each method's result."""
    for family in names:
        for done, seed in enumerate(seeds, 1):
            problem = make_problem(family, seed)
            results = {name: fitted(make, problem, 0) for name, make in methods.items()}
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
    """Yield one row for each set, with each method's scores for each random_state."""
    for problem in named_sets():
        results: dict[str, list[dict[str, Any]]] = {}
        for name, make in SET_METHODS.items():
            results[name] = []
            for seed in range(repeats):
                labels, about = fitted(make, problem, seed)
                results[name].append(scores(problem, labels) | about)
        print(problem.name, flush=True)
        yield {"set": problem.name, **problem.facts, "results": results}


def run_codes(methods: dict[str, Method]) -> Iterable[dict[str, Any]]:
    """Yield one row for each draw: facts, each method's ARI, and the best ARI of the path."""
    for problem in draws(*make_codes()):
        results = {name: fitted(make, problem, 0) for name, make in methods.items()}
        row = {
            name: {"ARI": problem.ari(labels), **about} for name, (labels, about) in results.items()
        }
        path = ekmfast.alpha_path(problem.X, problem.k, random_state=0)
        row[BEST] = {"ARI": max(map(problem.ari, path.labels)), "components": path.n_components}
        print(
            problem.name,
            {name: round(result["ARI"], 2) for name, result in row.items()},
            flush=True,
        )
        yield {"problem": problem.name, **problem.facts, "results": row}


def fitted(make: Method, problem: Problem, seed: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """Labels of all rows, and the method's warnings and other facts."""
    estimator = make(problem.k, seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        labels = estimator.fit_predict(problem.X)
    assert labels.shape == (len(problem.X),)
    assert labels.min() >= 0
    assert labels.max() < problem.k
    if isinstance(estimator, ekmfast.EKMeans):
        J = objective(problem.X, estimator.cluster_centers_, estimator.alpha_)
        assert abs(J - estimator.objective_) <= 1e-9 * J, (J, estimator.objective_)
    about: dict[str, Any] = {
        "warnings": sorted({warning.category.__name__ for warning in caught}),
        "clusters": len(np.unique(labels)),
    }
    if hasattr(estimator, "alpha_") and np.isfinite(estimator.alpha_):
        about["alpha"] = float(estimator.alpha_)
    return labels, about


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


def families_report(
    rows: list[dict[str, Any]], methods: dict[str, Method], goals: dict[str, float]
) -> str:
    """Tables of mean ARI, of paired differences of the first method to others, and of warnings."""
    first = next(iter(methods))
    names = list(dict.fromkeys(row["family"] for row in rows))
    of = {family: [row for row in rows if row["family"] == family] for family in names}

    def ari(family: str, method: str) -> NDArray[np.float64]:
        return np.array([row["results"][method]["ARI"] for row in of[family]])

    means = []
    for family in names:
        attainable = np.mean([row["attainable"] for row in of[family]])
        cells = [mean_and_error(ari(family, method)) for method in methods]
        means.append([family, len(of[family]), f"{attainable:.3f}", *cells])
    header = ["family", "problems", "true densities", *methods]
    text = "Mean ARI, with its standard error:\n\n" + markdown(header, means)

    paired = []
    for family in names:
        for method, goal in goals.items():
            gain = ari(family, first) - ari(family, method)
            won, lost = int((gain > TIE).sum()), int((gain < -TIE).sum())
            counts = f"{won} / {len(gain) - won - lost} / {lost}"
            held = "yes" if gain.mean() >= goal else "**no**"
            paired.append(
                [family, method, mean_and_error(gain, sign=True), counts, f"{goal:+.2f}", held]
            )
    header = ["family", f"{first} minus", "mean", "won / tied / lost", "goal", "reached"]
    text += f"\n\nProblem by problem (ARIs within {TIE} are a tie):\n\n" + markdown(header, paired)

    separations = np.array([row["separation"] for row in rows])
    edges = np.quantile(separations, (0, 1 / 3, 2 / 3, 1))
    thirds = []
    for low, high in itertools.pairwise(edges):
        inside = [row for row in rows if low <= row["separation"] <= high]
        cells = [np.mean([r["results"][m]["ARI"] for r in inside]) for m in methods]
        attainable = np.mean([row["attainable"] for row in inside])
        line = [f"{low:.1f} to {high:.1f}", len(inside), attainable, *cells]
        thirds.append([f"{v:.3f}" if isinstance(v, float) else v for v in line])
    header = ["separation", "problems", "true densities", *methods]
    text += "\n\nMean ARI by separation, all families:\n\n" + markdown(header, thirds)

    warned_fits = []
    for method in methods:
        results = [row["results"][method] for row in rows]
        warned = [sum(r["warnings"] == [ConvergenceWarning.__name__] for r in results)]
        warned.append(sum(bool(r["warnings"]) for r in results) - warned[0])
        warned_fits.append([method, len(results), *warned])
    header = ["method", "fits", "with ConvergenceWarning", "with others"]
    return text + "\n\nWarnings:\n\n" + markdown(header, warned_fits)


def codes_report(rows: list[dict[str, Any]]) -> str:
    """Tables of mean ARI by sizes of the classes, and of paired differences on each draw."""
    methods = list(rows[0]["results"])
    reference = methods[0]

    def ari(method: str, sizes: Any = None) -> NDArray[np.float64]:
        inside = [row for row in rows if sizes is None or row["sizes"] == sizes]
        return np.array([row["results"][method]["ARI"] for row in inside])

    table = []
    for sizes in [list(s) for s in dict.fromkeys(tuple(row["sizes"]) for row in rows)]:
        cells = [f"{ari(method, sizes).mean():.3f}" for method in methods]
        table.append([", ".join(map(str, sizes)), len(ari(reference, sizes)), *cells])
    table.append(["all", len(rows), *(mean_and_error(ari(method)) for method in methods)])
    text = "Mean ARI, for all draws with its standard error. To find the best alpha, one must know "
    text += "the classes:\n\n"
    text += markdown(["rows of each class", "draws", *methods], table)
    paired = []
    for method in methods[1:]:
        gain = ari(reference) - ari(method)
        won, lost = int((gain > TIE).sum()), int((gain < -TIE).sum())
        counts = f"{won} / {len(gain) - won - lost} / {lost}"
        paired.append([method, mean_and_error(gain, sign=True), counts])
    text += f"\n\nDraw by draw (ARIs within {TIE} are a tie):\n\n"
    return text + markdown([f"{reference} minus", "mean", "won / tied / lost"], paired)


def sets_report(rows: list[dict[str, Any]]) -> str:
    """A table for each score, with means over the random states; the best of a set is bold."""
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


if __name__ == "__main__":
    main()
