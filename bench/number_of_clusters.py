"""How often what people look at to choose the number of clusters finds the true one.

    python bench/number_of_clusters.py                # four families of 20 random problems
    python bench/number_of_clusters.py --family gaussian --count 5
    python bench/number_of_clusters.py --rules auto   # what the package chooses by itself
    python bench/number_of_clusters.py --rules codes  # the same on codes of an autoencoder

Every rule gets the rows and chooses a number from 1 (silhouette: 2) to 15; the truth is 2 to 10.
The script writes FILE.json with every single result, and FILE.md with the tables.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from codes import draws, make_codes
from numpy.typing import NDArray
from problems import Problem, families, make_problem
from records import RESULTS, markdown, write
from sklearn.cluster import HDBSCAN
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import ekmfast

MOST = 15
TRUE = "the true number, EquilibriumMixture"
RULES = (
    "EquilibriumMixture, least ICL",
    "EquilibriumMixture, least BIC",
    "GaussianMixture, least BIC",
    "EKMeans, largest silhouette",
    f"EKMeans({MOST}), distinct centroids",
    TRUE,
)
TRUE_EKMEANS = "the true number, EKMeans"
AUTO_RULES = (
    'EquilibriumMixture("auto")',
    'EKMeans("auto")',
    "HDBSCAN",
    TRUE,
    TRUE_EKMEANS,
)
# Neighbouring clusters are this many standard deviations apart in the problems of the second table.
APART = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", nargs="+", choices=families(), default=families())
    parser.add_argument("--count", type=int, default=20, help="problems of each family")
    parser.add_argument("--rules", choices=["people", "auto", "codes"], default="people")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    choose = {"people": choices, "auto": automatic, "codes": of_codes}[args.rules]
    with threadpool_limits(args.threads):
        if args.rules == "codes":
            problems: Iterable[Problem] = draws(*make_codes())
        else:
            problems = (make_problem(f, seed) for f in args.family for seed in range(args.count))
        rows = list(run(problems, choose))
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    name = "number-of-clusters" + {"people": ""}.get(args.rules, f"-{args.rules}")
    write(args.out or RESULTS / name, settings, rows, report(rows))


def run(
    problems: Iterable[Problem], choose: Callable[[Problem], dict[str, NDArray[Any]]]
) -> Iterator[dict[str, Any]]:
    """Yield one row for each problem, with the number and the ARI of each rule."""
    for problem in problems:
        family, _, seed = problem.name.rpartition("-")
        with warnings.catch_warnings():  # coincident centroids, and runs that did not converge
            warnings.simplefilter("ignore")
            chosen = choose(problem)
        results = {
            # HDBSCAN gives rows of no cluster the label -1.
            rule: {"k": len(np.unique(labels[labels >= 0])), "ARI": problem.ari(labels)}
            for rule, labels in chosen.items()
        }
        print(problem.name, problem.k, [result["k"] for result in results.values()], flush=True)
        facts = {"family": family, "seed": int(seed), "k": problem.k} | problem.facts
        yield facts | {"results": results}


def choices(problem: Problem) -> dict[str, NDArray[Any]]:
    """The labels that each rule chooses."""
    X = problem.X
    mixtures = [ekmfast.EquilibriumMixture(k, random_state=0).fit(X) for k in range(1, MOST + 1)]
    gaussians = [GaussianMixture(k, n_init=3, random_state=0).fit(X) for k in range(1, MOST + 1)]
    means = [ekmfast.EKMeans(k, random_state=0).fit(X) for k in range(2, MOST + 1)]
    silhouettes = [
        silhouette_score(X, model.labels_) if np.ptp(model.labels_) else -1.0 for model in means
    ]
    return dict(
        zip(
            RULES,
            (
                min(mixtures, key=lambda model: model.icl(X)).labels_,
                min(mixtures, key=lambda model: model.bic(X)).labels_,
                min(gaussians, key=lambda model: model.bic(X)).predict(X),
                means[int(np.argmax(silhouettes))].labels_,
                means[-1].labels_,
                mixtures[problem.k - 1].labels_,
            ),
            strict=True,
        )
    )


def automatic(problem: Problem) -> dict[str, NDArray[Any]]:
    """The labels of what needs no number, and of fits with the true one."""
    X = problem.X
    return dict(
        zip(
            AUTO_RULES,
            (
                ekmfast.EquilibriumMixture("auto", random_state=0).fit(X).labels_,
                ekmfast.EKMeans("auto", random_state=0).fit(X).labels_,
                HDBSCAN(copy=True).fit(X).labels_,
                ekmfast.EquilibriumMixture(problem.k, random_state=0).fit(X).labels_,
                ekmfast.EKMeans(problem.k, random_state=0).fit(X).labels_,
            ),
            strict=True,
        )
    )


def of_codes(problem: Problem) -> dict[str, NDArray[Any]]:
    """The same without mixtures, which are slow with 128 features and few rows."""
    X = problem.X
    fits = {
        'EKMeans("auto")': ekmfast.EKMeans("auto", random_state=0),
        "HDBSCAN": HDBSCAN(copy=True),
        TRUE_EKMEANS: ekmfast.EKMeans(problem.k, random_state=0),
    }
    return {rule: model.fit(X).labels_ for rule, model in fits.items()}


def report(rows: list[dict[str, Any]]) -> str:
    text = f"All {len(rows)} problems:\n\n" + table(rows)
    apart = [row for row in rows if row.get("separation", 0.0) >= APART]
    if apart:
        text += (
            f"\n\nThe {len(apart)} problems with a separation of at least {APART:g}:\n\n"
            + table(apart)
        )
    for family in dict.fromkeys(row["family"] for row in rows):
        some = [row for row in rows if row["family"] == family]
        text += f"\n\n{family}, {len(some)} problems:\n\n" + table(some)
    return text


def table(rows: list[dict[str, Any]]) -> str:
    lines = []
    for rule in rows[0]["results"]:
        off = np.array([row["results"][rule]["k"] - row["k"] for row in rows])
        ari = np.array([row["results"][rule]["ARI"] for row in rows])
        lines.append(
            [
                rule,
                f"{np.mean(off == 0):.0%}",
                f"{np.mean(abs(off) <= 1):.0%}",
                f"{off.mean():+.1f}",
                f"{abs(off).mean():.2f}",
                f"{ari.mean():.3f} ± {ari.std(ddof=1) / np.sqrt(len(ari)):.3f}",
            ]
        )
    header = [
        "rule",
        "right",
        "at most 1 off",
        "mean of chosen - true",
        "mean of its size",
        "mean ARI",
    ]
    return markdown(header, lines)


if __name__ == "__main__":
    main()
