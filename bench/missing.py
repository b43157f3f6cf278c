"""Clusters of rows with missing numbers, beside filled ones.

Numbers are taken away at random from complete data sets, so that it is known what the labels of the
complete rows are worth. `EKMeans(missing="partial")` gets the rows as they are; `EKMeans` gets rows
that scikit-learn's `SimpleImputer` (means) or `KNNImputer` (5 neighbours) has filled. Features are
standardised before numbers are taken away.

    python bench/missing.py                    writes bench/results/missing.json and .md
    python bench/missing.py --draws 2 --out FILE
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import records
from numpy.typing import NDArray
from problems import named_sets
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans

METHODS = ('missing="partial"', "filled with means", "filled by 5 neighbours")


def without_some(X: NDArray[Any], share: float, rng: np.random.Generator) -> NDArray[Any]:
    """X without a random share of its numbers; each row keeps one."""
    missing = rng.random(X.shape) < share
    missing[np.arange(len(X)), rng.integers(0, X.shape[1], len(X))] = False
    return np.where(missing, np.nan, X)


def labels_of(method: str, X: NDArray[Any], k: int, seed: int) -> NDArray[Any]:
    if method == METHODS[0]:
        return EKMeans(k, missing="partial", random_state=seed).fit_predict(X)
    imputer = SimpleImputer() if method == METHODS[1] else KNNImputer(n_neighbors=5)
    return EKMeans(k, random_state=seed).fit_predict(imputer.fit_transform(X))


def table_of(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """A row for each set and share, and means over the sets."""
    table = []
    shares = sorted({line["share"] for line in lines})
    for share in shares:
        some = [line for line in lines if line["share"] == share]
        for name in [*dict.fromkeys(line["set"] for line in some), "mean"]:
            own = [line for line in some if name in (line["set"], "mean")]
            features = "" if name == "mean" else own[0]["features"]
            scores = [np.mean([line[key] for line in own]) for key in ("complete", *METHODS)]
            table.append((name, features, f"{share:.0%}", *(f"{score:.3f}" for score in scores)))
    return table


def main() -> None:
    """Cluster all draws by all methods, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--out", type=Path, default=records.RESULTS / "missing")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    lines = []
    for problem in named_sets():
        whole = EKMeans(problem.k, random_state=0).fit_predict(problem.X)
        complete = float(adjusted_rand_score(problem.y, whole))
        for share in given.shares:
            for draw in range(given.draws):
                X = without_some(problem.X, share, np.random.default_rng([draw, int(1e6 * share)]))
                found = {
                    method: round(
                        float(
                            adjusted_rand_score(problem.y, labels_of(method, X, problem.k, draw))
                        ),
                        4,
                    )
                    for method in METHODS
                }
                lines.append(
                    {
                        "set": problem.name,
                        "features": problem.X.shape[1],
                        "share": share,
                        "draw": draw,
                        "complete": round(complete, 4),
                        **found,
                    }
                )
    report = (
        "# Missing values\n\nARI, mean over the draws; numbers are missing at random.\n\n"
        + records.markdown(("set", "features", "missing", "complete", *METHODS), table_of(lines))
    )
    settings = {name: value for name, value in vars(given).items() if name != "out"}
    records.write(given.out, settings, lines, report)


if __name__ == "__main__":
    main()
