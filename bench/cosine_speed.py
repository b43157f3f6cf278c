"""One iteration with the cosine, beside scikit-learn's KMeans on rows of length 1.

KMeans has no cosine, so that its rows are divided by their lengths before: the time of
`sklearn.preprocessing.normalize`, which makes a copy, is a row of its own. With `metric="cosine"`
EKMeans divides rows in each pass, and EKMeans on the copy shows what that costs. The time of an
iteration is the difference of a long and a short fit from the same centroids, divided by the
difference of their iterations. The times of a round are measured in turns, and each ratio is that
of one round.

    python bench/cosine_speed.py                 writes bench/results/cosine-speed.json and .md
    python bench/cosine_speed.py --rounds 3 --out FILE
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import records
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from sparse import per_iteration, seconds, text_like
from threadpoolctl import threadpool_limits

from ekmfast import EKMeans, HardKMeans

PEER = "KMeans, Lloyd, on the copy"
# Rows, features and clusters: embeddings of words, of sentences, and of a few kinds of images.
SIZES = ((200_000, 50, 8), (50_000, 384, 20), (20_000, 768, 100))
SPARSE = (18_000, 100_000, 1_500_000, 20)


def dense(n: int, d: int, dtype: str) -> NDArray[Any]:
    """Rows of any direction and length; without clusters, so that Lloyd takes many steps."""
    rng = np.random.default_rng(10_000)
    scaled: NDArray[Any] = rng.normal(size=(n, d)) * rng.lognormal(0, 1, (n, 1))
    return scaled.astype(dtype)


def measure(X: Any, k: int, threads: int) -> dict[str, float]:
    """Seconds of an iteration by each method, once, and of making the copy."""
    unit = normalize(X)
    first = unit[np.random.default_rng(0).choice(X.shape[0], k, replace=False)]
    centroids = np.asarray(first.toarray() if hasattr(first, "toarray") else first, np.float64)
    common: dict[str, Any] = {"init": centroids, "n_init": 1, "tol": 0.0}
    alpha = 20.0  # memberships are neither equal nor hard

    def lloyd(max_iter: int) -> None:
        start = {**common, "init": centroids.astype(X.dtype)}
        model = KMeans(k, max_iter=max_iter, algorithm="lloyd", **start).fit(unit)
        assert model.n_iter_ == max_iter  # it would stop if no label changed

    def hard(max_iter: int) -> None:
        model = HardKMeans(k, metric="cosine", max_iter=max_iter, n_threads=threads, **common)
        assert model.fit(X).n_iter_ == max_iter

    def cosine(max_iter: int) -> None:
        model = EKMeans(
            k, metric="cosine", alpha=alpha, max_iter=max_iter, n_threads=threads, **common
        )
        assert model.fit(X).n_iter_ == max_iter

    def on_copy(max_iter: int) -> None:
        model = EKMeans(k, alpha=alpha, max_iter=max_iter, n_threads=threads, **common)
        assert model.fit(unit).n_iter_ == max_iter

    return {
        PEER: per_iteration(lloyd),
        'EKMeans(metric="cosine")': per_iteration(cosine),
        'HardKMeans(metric="cosine")': per_iteration(hard),
        "EKMeans on the copy": per_iteration(on_copy),
        "normalize, once": seconds(lambda: normalize(X)),
    }


def main() -> None:
    """Measure all rounds, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=records.RESULTS / "cosine-speed")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    lines, table = [], []
    for dtype in ("float64", "float32"):
        problems = [(f"{n:,} x {d}", dense(n, d, dtype), k) for n, d, k in SIZES]
        n, d, stored, k = SPARSE
        problems.append((f"{n:,} x {d:,}, sparse", text_like(n, d, stored, 10_000, dtype), k))
        for name, X, k in problems:
            with threadpool_limits(given.threads):
                measure(X, k, given.threads)
                rounds = [measure(X, k, given.threads) for _ in range(given.rounds)]
            for method in rounds[0]:
                times = np.array([times[method] for times in rounds])
                peer = np.array([times[PEER] for times in rounds])
                low, middle, high = np.quantile(peer / times, [0.25, 0.5, 0.75])
                lines.append({"dtype": dtype, "rows": name, "k": k, "name": method})
                lines[-1]["seconds"] = times.tolist()
                table.append(
                    (
                        dtype,
                        name,
                        k,
                        method,
                        f"{1e3 * np.median(times):.1f}",
                        f"{middle:.2f}",
                        f"{low:.2f}-{high:.2f}",
                    )
                )
    header = ("dtype", "rows", "K", "iteration of", "ms, median", "times as fast", "quartiles")
    report = (
        f'# One iteration with the cosine\n\n{given.rounds} rounds. "Times as fast" compares with '
        f"{PEER}.\n\n" + records.markdown(header, table)
    )
    settings = {name: value for name, value in vars(given).items() if name != "out"}
    records.write(given.out, settings, lines, report)


if __name__ == "__main__":
    main()
