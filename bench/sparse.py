"""One iteration on sparse rows, beside scikit-learn's KMeans on the same CSR matrix.

The rows have the shape of 20 newsgroups: 18,000 rows, 100,000 columns, 1.5 million numbers, whose
columns are drawn with probabilities proportional to 1 / rank (Zipf's law), in random order. The
time of an iteration of a fit is the difference of a long and a short fit from the same centroids,
divided by the difference of their iterations. The times of a round are measured in turns, and each
ratio is that of one round.

    python bench/sparse.py                       writes bench/results/sparse.json and .md
    python bench/sparse.py --rounds 3 --out FILE
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import records
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from ekmfast import EKMeans, HardKMeans, ekm_step

FEW, MANY = 2, 12  # iterations of the two fits


def text_like(
    n_rows: int, n_features: int, n_stored: int, seed: int, dtype: Any = np.float64
) -> csr_matrix:
    """Rows of unit length with Zipf-distributed columns and about ``n_stored`` numbers."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, n_features + 1)
    columns = rng.permutation(n_features)
    rows = csr_matrix((n_rows, n_features))
    while rows.nnz < n_stored:  # a word may be drawn twice in a row, and then is stored once
        missing = n_stored - rows.nnz
        drawn = columns[rng.choice(n_features, missing, p=share / share.sum())]
        entries = np.ones(missing), (rng.integers(0, n_rows, missing), drawn)
        rows = rows + csr_matrix(entries, (n_rows, n_features))
        if missing < n_stored // 1000:
            break
    rows.data = 1 + np.log(rows.data)
    return normalize(rows).astype(dtype)


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def per_iteration(fit: Callable[[int], Any]) -> float:
    """Seconds of an iteration of a fit that is given its number of iterations."""
    short = seconds(lambda: fit(FEW))
    return (seconds(lambda: fit(MANY)) - short) / (MANY - FEW)


def measure(
    X: csr_matrix, centroids: NDArray[np.float64], alpha: float, threads: int
) -> dict[str, float]:
    """Seconds of an iteration by each method, once."""
    k = len(centroids)
    common = {"init": centroids, "n_init": 1, "tol": 0.0}

    def lloyd(max_iter: int) -> None:
        model = KMeans(k, max_iter=max_iter, algorithm="lloyd", **common).fit(X)
        assert model.n_iter_ == max_iter  # it would stop if no label changed

    def hard(max_iter: int) -> None:
        model = HardKMeans(k, max_iter=max_iter, n_threads=threads, **common).fit(X)
        assert model.n_iter_ == max_iter

    def equilibrium(max_iter: int) -> None:
        model = EKMeans(k, alpha=alpha, max_iter=max_iter, n_threads=threads, **common).fit(X)
        assert model.n_iter_ == max_iter

    def steps() -> None:
        for _ in range(MANY - FEW):
            ekm_step(X, centroids, alpha, n_threads=threads)

    return {
        "scikit-learn KMeans, Lloyd": per_iteration(lloyd),
        "EKMeans": per_iteration(equilibrium),
        "HardKMeans": per_iteration(hard),
        "ekm_step": seconds(steps) / (MANY - FEW),
    }


def main() -> None:
    """Measure all rounds, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=18_000)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--stored", type=int, default=1_500_000)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=records.RESULTS / "sparse")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    lines, table = [], []
    for dtype in ("float64", "float32"):
        X = text_like(given.rows, given.features, given.stored, 10_000, dtype)
        rng = np.random.default_rng(10_001)
        groups = rng.integers(0, given.clusters, given.rows)
        centroids = np.stack([X[groups == i].mean(axis=0).A1 for i in range(given.clusters)])
        alpha = 20.0  # memberships are neither equal nor hard
        with threadpool_limits(given.threads):
            measure(X, centroids, alpha, given.threads)
            rounds = [measure(X, centroids, alpha, given.threads) for _ in range(given.rounds)]
        for name in rounds[0]:
            times = np.array([times[name] for times in rounds])
            peer = np.array([times["scikit-learn KMeans, Lloyd"] for times in rounds])
            ratios = peer / times
            lines.append({"dtype": dtype, "name": name, "seconds": times.tolist()})
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            duration = f"{1e3 * np.median(times):.1f}"
            table.append((dtype, name, duration, f"{middle:.2f}", f"{low:.2f}-{high:.2f}"))
    header = ("dtype", "iteration of", "ms, median", "times as fast as KMeans", "quartiles")
    report = (
        f"# Sparse rows\n\n{given.rows:,} rows, {given.features:,} columns, "
        f"{X.nnz:,} numbers, K = {given.clusters}, {given.rounds} rounds. `ekm_step` also checks "
        "the matrix in each call.\n\n" + records.markdown(header, table)
    )
    settings = {name: value for name, value in vars(given).items() if name != "out"}
    records.write(given.out, settings, lines, report)


if __name__ == "__main__":
    main()
