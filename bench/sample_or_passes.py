"""Compare full passes, a single reading, and a sample, for a small cluster of decreasing size.

    python bench/sample_or_passes.py [--rows 20000000] [--rounds 3] [--threads 2]

A file holds float32 rows in 8 dimensions. Four round clusters are 8 standard deviations apart. A
fifth cluster has a hundredth, a ten-thousandth or a millionth of the rows, and is sqrt(1 / share)
standard deviations away, so that J is always lower if this cluster is found. Three fits take turns:
`EKMeans` on the file in blocks (several full passes); `MiniBatchEKMeans.partial_fit` on each block
(one reading); `EKMeans` on a uniform sample of 50,000 rows, which is drawn before. All use the same
alpha, and each round has another random state. Results are evaluated on all rows: J relative to the
least of the round, and the F1 score of the smallest cluster, 2 |found and true| / (|found| +
|true|), for the best found cluster.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from records import RESULTS, markdown, write
from sklearn.exceptions import ConvergenceWarning

from ekmfast import EKMeans, MiniBatchEKMeans, blocks

D, K = 8, 5
SEPARATION = 8.0
SMALLEST = [1e-2, 1e-4, 1e-6]
SAMPLE = 50_000
# Suited to clusters whose features have variance 1.
ALPHA = 1.0
PASSES, STREAM, ON_SAMPLE = "full passes", "each block once", "sample"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="of the file: which disk")
    parser.add_argument("--out", type=Path, default=RESULTS / "sample-or-passes")
    args = parser.parse_args()
    rows = []
    warnings.simplefilter("ignore", ConvergenceWarning)
    for smallest in SMALLEST:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = Path(folder) / "X.npy"
            labels = make(path, args.rows, smallest)
            for seed in range(args.rounds):
                rows += one_round(path, labels, smallest, seed, args.threads)
                for row in rows[-3:]:
                    print(row, flush=True)
    settings = {n: v for n, v in vars(args).items() if n not in ("out", "folder")}
    write(args.out, settings, rows, report(rows))
    return 0


def make(path: Path, n_rows: int, smallest: float) -> NDArray[np.int8]:
    rng = np.random.default_rng(0)
    centres = SEPARATION * np.eye(K, D, dtype=np.float32) / np.sqrt(np.float32(2))
    centres[-1, -1] = np.float32(smallest**-0.5)
    share = np.array([0.7, 0.2, 0.07, 0.03 - smallest, smallest])
    X = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, D))
    labels = rng.choice(K, n_rows, p=share).astype(np.int8)
    for start in range(0, n_rows, 1_000_000):
        part = labels[start : start + 1_000_000]
        X[start : start + len(part)] = centres[part]
        X[start : start + len(part)] += rng.standard_normal((len(part), D), np.float32)
    X.flush()
    return labels


def one_round(
    path: Path, labels: NDArray[np.int8], smallest: float, seed: int, threads: int
) -> list[dict[str, Any]]:
    data = blocks.from_npy(path)
    rng = np.random.default_rng(seed)
    X = np.load(path, mmap_mode="r")
    sample = np.array(X[np.sort(rng.choice(len(X), SAMPLE, replace=False))])
    common: dict[str, Any] = {"alpha": ALPHA, "random_state": seed, "n_threads": threads}

    def full() -> Any:
        return EKMeans(K, **common).fit(data)

    def stream() -> Any:
        estimator = MiniBatchEKMeans(K, **common)
        for block in data:
            estimator.partial_fit(block.X)
        return estimator

    def on_sample() -> Any:
        return EKMeans(K, **common).fit(sample)

    done: list[dict[str, Any]] = []
    for name, fit in ((PASSES, full), (STREAM, stream), (ON_SAMPLE, on_sample)):
        start = time.perf_counter()
        fitted = fit()
        seconds = time.perf_counter() - start
        # All results are scored by the same class, so that sums are computed in the same way.
        judge = EKMeans(K, init=fitted.cluster_centers_, n_init=1, max_iter=1, **common).fit(sample)
        judge.cluster_centers_ = fitted.cluster_centers_
        done.append(
            {
                "smallest": smallest,
                "seed": seed,
                "method": name,
                "seconds": seconds,
                "objective": -float(judge.score(data)),
                "f1": f1(labels == K - 1, judge.predict(data)),
                "passes": getattr(fitted, "n_iter_", None) if name == PASSES else None,
            }
        )
    least = min(row["objective"] for row in done)
    return [row | {"excess": row["objective"] / least - 1} for row in done]


def f1(rare: NDArray[np.bool_], labels: NDArray[Any]) -> float:
    both = np.bincount(labels[rare], minlength=K)
    return float((2 * both / (rare.sum() + np.bincount(labels, minlength=K))).max())


def report(rows: list[dict[str, Any]]) -> str:
    table = []
    for smallest in SMALLEST:
        for name in (PASSES, STREAM, ON_SAMPLE):
            some = [r for r in rows if r["smallest"] == smallest and r["method"] == name]
            values = [[r[key] for r in some] for key in ("seconds", "excess", "f1")]
            seconds, excess, found = values
            table.append(
                [
                    f"{smallest:.0e}",
                    name,
                    f"{median(seconds):.2f} ({min(seconds):.2f} .. {max(seconds):.2f})",
                    f"{median(excess):.1e} ({min(excess):.1e} .. {max(excess):.1e})",
                    ", ".join(f"{value:.2f}" for value in found),
                ]
            )
    head = ["smallest cluster", "method", "s", "J above the least, relative"]
    head.append("F1 of the smallest, each round")
    return markdown(head, table)


if __name__ == "__main__":
    sys.exit(main())
