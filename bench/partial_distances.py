"""How much of the scores of EKM partial distances could leave out, at best.

Hard k-means can leave out a centroid as soon as its distance in some of the features is larger than
that to the nearest centroid. EKM can leave out one whose membership is below the resolution of
float32, 2^-24 times the largest. Here the features are the principal components, those of the
largest variance first, and the distance to the nearest centroid is known from the beginning. This
is better than any method can do: the least share of the products that are left is a bound.

    python bench/partial_distances.py          writes bench/results/partial-distances.json and .md

"alpha" is in units of the dvariance alpha. "auto" is that of `EKMeans()`; other fits are single
runs. The second product of a pass, weights times rows, already leaves out small weights.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import records
from codes import make_codes
from numpy.typing import NDArray
from problems import TUNING_SEEDS, make_problem
from sklearn.datasets import load_digits

from ekmfast import EKMeans

LIMIT = 24 * np.log(2)  # alpha times the difference of two distances
PARTS = (8, 16, 32, 64)  # components after which centroids are left out
ALPHAS = ("auto", 1, 4, 8, 32)
ROWS = 1_000  # of which pairs with centroids are counted


def sets() -> Iterator[tuple[str, NDArray[Any], int]]:
    """Name, rows and number of clusters."""
    rng = np.random.default_rng(TUNING_SEEDS)
    size = {"n_samples": 20_000, "n_features": 128, "imbalance": 20.0}
    for k in (64, 512):
        yield (
            f"gaussian, {k} clusters",
            make_problem("gaussian", TUNING_SEEDS, n_clusters=k, **size).X,
            k,
        )
    centres = 3 * rng.normal(size=(512, 128))
    apart = centres[rng.integers(0, 512, 20_000)] + rng.normal(size=(20_000, 128))
    yield "clusters far apart", apart, 512
    yield "one cluster", rng.normal(size=(20_000, 128)) * np.linspace(3, 0.3, 128), 512
    yield "digits of 8 x 8 pixels", load_digits().data, 64
    yield "codes of an autoencoder", make_codes(TUNING_SEEDS)[0], 64


def shares(X: NDArray[Any], k: int, alpha: str | int) -> dict[str, Any]:
    """Shares of the pairs of rows and centroids of a fit, and of the products that are left."""
    X = np.ascontiguousarray(X, np.float32)
    centred = X - X.mean(axis=0)
    dvariance = 4 / float((centred**2).sum(axis=1).mean())
    settings = {} if alpha == "auto" else {"alpha": alpha * dvariance, "n_init": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = EKMeans(k, random_state=0, max_iter=60, **settings).fit(X)
    _, directions = np.linalg.eigh(np.cov(centred.T))
    directions = directions[:, ::-1]
    rows = np.random.default_rng(0).choice(len(X), min(ROWS, len(X)), replace=False)
    y = centred[rows] @ directions
    centroids = (fitted.cluster_centers_ - X.mean(axis=0)) @ directions
    terms = 0.5 * (y[:, None] - centroids) ** 2
    nearest = terms.sum(axis=-1).min(axis=1, keepdims=True)

    def out(part: int) -> float:
        away = fitted.alpha_ * (terms[..., :part].sum(axis=-1) - nearest)
        return float((away > LIMIT).mean())

    d = X.shape[1]
    after = {part: out(part) for part in PARTS if part < d}
    return {
        "alpha": float(fitted.alpha_) / dvariance,
        "below": out(d),
        "after": after,
        "left": min(1 - share * (1 - part / d) for part, share in after.items()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=records.RESULTS / "partial-distances")
    given = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for name, X, k in sets():
        for alpha in ALPHAS:
            found = shares(X, k, alpha)
            lines.append(
                {"set": name, "n": len(X), "d": X.shape[1], "k": k, "rule": alpha, **found}
            )
            print(lines[-1], flush=True)
    header = ["set", "N, D", "K", "alpha", "below 2^-24", *(f"after {p}" for p in PARTS), "left"]
    table = [
        [
            line["set"],
            f"{line['n']:,}, {line['d']}",
            line["k"],
            f"{line['alpha']:.2f}" + (" (auto)" if line["rule"] == "auto" else ""),
            f"{line['below']:.2f}",
            *(f"{line['after'][p]:.2f}" if p in line["after"] else "" for p in PARTS),
            f"{line['left']:.2f}",
        ]
        for line in lines
    ]
    report = (
        "Shares of the pairs of rows and centroids whose membership is below 2^-24 of the largest, "
        "and that are known to be so after 8 to 64 principal components; the least share of the "
        "products of the scores that is left.\n\n"
    ) + records.markdown(header, table)
    records.write(given.out, {}, lines, report)


if __name__ == "__main__":
    main()
