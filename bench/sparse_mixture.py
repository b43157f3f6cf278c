"""Clusters of generated texts by EKMeans and by mixtures of sparse rows: ARI and seconds.

Each topic has its own order of the words, whose shares follow Zipf's law. A word of a text is drawn
from the order of its topic or from one that all topics share. Topics are imbalanced, the largest
ten times as large as the smallest. Rows are TF-IDF of length 1.

    python bench/sparse_mixture.py                        18,000 texts, which takes minutes
    python bench/sparse_mixture.py --rows 4000 --features 5000 --words 200000 --clusters 6
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

from ekmfast import EKMeans, EquilibriumMixture


def topics(
    n_rows: int, n_features: int, n_words: int, k: int, own_share: float, seed: int
) -> tuple[csr_matrix, NDArray[np.intp]]:
    """TF-IDF of texts, a share of whose words is drawn as their topic does, and their topics."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(1, 0.1, k)
    y = rng.choice(k, n_rows, p=sizes / sizes.sum())
    return words_of(y, n_features, n_words, own_share, rng), y


def words_of(
    y: NDArray[np.intp], n_features: int, n_words: int, own_share: float, rng: np.random.Generator
) -> csr_matrix:
    """TF-IDF of texts of the topics y, a share of whose words is drawn as their topic does."""
    n_rows, k = len(y), int(y.max()) + 1
    zipf = 1 / np.arange(1, n_features + 1)
    orders = np.stack([rng.permutation(n_features) for _ in range(k)])
    common = rng.permutation(n_features)
    rows = rng.integers(0, n_rows, n_words)
    rank = rng.choice(n_features, n_words, p=zipf / zipf.sum())
    own = rng.random(n_words) < own_share
    words = np.where(own, orders[y[rows], rank], common[rank])
    X = csr_matrix((np.ones(n_words), (rows, words)), (n_rows, n_features))
    X.sum_duplicates()
    texts = np.bincount(X.indices, minlength=n_features)
    X.data = (1 + np.log(X.data)) * (np.log((1 + n_rows) / (1 + texts)) + 1)[X.indices]
    return csr_matrix(normalize(X))


def main() -> None:
    """Print one line for each method, seed and share of own words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=18_000)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=1_920_000)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--own-shares", type=float, nargs="+", default=[0.3, 0.6])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10_000, 10_001])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    same: dict[str, Any] = {"random_state": 0, "n_threads": given.threads}
    k = given.clusters
    for seed in given.seeds:
        for share in given.own_shares:
            X, y = topics(given.rows, given.features, given.words, k, share, seed)
            for model in (
                EKMeans(k, **same),
                EquilibriumMixture(k, covariance_type="spherical", **same),
                EquilibriumMixture(k, covariance_type="diag", **same),
            ):
                start = time.perf_counter()
                ari = adjusted_rand_score(y, model.fit(X).labels_)
                seconds = time.perf_counter() - start
                kind = getattr(model, "covariance_type_", "")
                name = f"{type(model).__name__} {kind}"
                print(
                    f"{seed} {share} {X.nnz} {name:30} ARI {ari:.3f} {seconds:6.1f} s", flush=True
                )


if __name__ == "__main__":
    main()
