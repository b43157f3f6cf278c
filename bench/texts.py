"""Whole fits to texts: EKMeans beside KMeans and TruncatedSVD with KMeans.

Three kinds of texts. `sparse_mixture.topics` makes rows of 20 topics with 100,000 words. In 5,000
rows with 20,000 words a sixth topic is rare beside five others of equal size. The others are the
docstrings of packages that are installed beside this one; their classes are the parts of
the package, such as ``scipy.stats``, in which they stand. Such classes are hard to find by words
alone. The constants of the search were chosen on docstrings of other packages, and on other seeds.

F1 is that of the smallest class: of the precision and recall of the cluster that fits it best.
Methods are measured in turns on the same rows; a ratio is that of one round.

    python bench/texts.py                       writes bench/results/texts.json and .md
    python bench/texts.py --rounds 1 --out FILE
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import records
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sparse_mixture import topics, words_of
from threadpoolctl import threadpool_limits

from ekmfast import EKMeans

PACKAGES = "scipy", "torch", "sklearn", "numpy"
LEAST_WORDS, LEAST_ROWS = 15, 15  # of a docstring, and of a class
DIRECTIONS = 100  # as scikit-learn recommends for latent semantic analysis


def docstrings(package: str) -> tuple[csr_matrix, NDArray[np.intp]]:
    """TF-IDF of the docstrings of a package, and the parts of it in which they stand."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    texts, parts = [], []
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).parts
        if {"tests", "_vendor", "externals"} & set(place):
            continue
        with warnings.catch_warnings():
            for kind in (SyntaxWarning, DeprecationWarning):  # escapes in strings of that file
                warnings.simplefilter("ignore", kind)
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except SyntaxError:  # a file for another version of Python
                continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or ""
                if len(text.split()) >= LEAST_WORDS:
                    texts.append(text)
                    parts.append(place[0].removesuffix(".py"))
    _, of, counts = np.unique(parts, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts[of] >= LEAST_ROWS)
    words = TfidfVectorizer(stop_words="english", sublinear_tf=True, min_df=2)
    X = csr_matrix(words.fit_transform([texts[i] for i in kept]))
    return X, np.unique(of[kept], return_inverse=True)[1]


def collections() -> Iterator[tuple[str, csr_matrix, NDArray[np.intp]]]:
    for share in (0.3, 0.15):
        name = f"20 topics, {share:.0%} of the words a topic's own"
        yield name, *topics(18_000, 100_000, 1_920_000, 20, share, seed=0)
    for n_rare in (20, 50):
        rng = np.random.default_rng(n_rare)
        y = np.r_[rng.integers(0, 5, 5_000 - n_rare), np.full(n_rare, 5)]
        yield f"one of six topics has {n_rare} texts", words_of(y, 20_000, 400_000, 0.3, rng), y
    for package in PACKAGES:
        yield f"docstrings of {package}", *docstrings(package)


def best_f1(members: NDArray[np.bool_], labels: NDArray[np.int32]) -> float:
    """The F1 score of the cluster that fits a class best."""
    inside, sizes = np.bincount(labels, members), np.bincount(labels)
    return float((2 * inside / (sizes + members.sum())).max())


def methods(k: int, seed: int, threads: int) -> dict[str, Any]:
    own: dict[str, Any] = {"random_state": seed, "n_threads": threads}
    svd = TruncatedSVD(DIRECTIONS, random_state=seed)
    return {
        "EKMeans, cosine": EKMeans(k, metric="cosine", **own),
        "EKMeans": EKMeans(k, **own),
        "KMeans()": KMeans(k, random_state=seed),
        "KMeans(n_init=10)": KMeans(k, n_init=10, random_state=seed),
        "SVD, KMeans(n_init=10)": make_pipeline(
            svd, Normalizer(), KMeans(k, n_init=10, random_state=seed)
        ),
    }


def measure(rounds: int, threads: int) -> list[dict[str, Any]]:
    rows = []
    for name, X, y in collections():
        k = int(y.max()) + 1
        found: dict[str, list[tuple[float, ...]]] = {}
        rarest = y == np.bincount(y).argmin()
        for seed in range(rounds):
            for method, model in methods(k, seed, threads).items():
                start = time.perf_counter()
                labels = model.fit_predict(X)
                seconds = time.perf_counter() - start
                scores = (
                    adjusted_rand_score(y, labels),
                    adjusted_mutual_info_score(y, labels),
                    best_f1(rarest, labels),
                )
                found.setdefault(method, []).append((seconds, *scores))
        one_start = np.array([seconds for seconds, *_ in found["KMeans()"]])
        for method, values in found.items():
            table = np.array(values)
            rows.append(
                {
                    "texts": name,
                    "rows": X.shape[0],
                    "features": X.shape[1],
                    "clusters": k,
                    "method": method,
                    "seconds": float(np.median(table[:, 0])),
                    "ratio": float(np.median(table[:, 0] / one_start)),
                    "ari": float(table[:, 1].mean()),
                    "ami": float(table[:, 2].mean()),
                    "f1": float(table[:, 3].mean()),
                }
            )
            print(rows[-1], flush=True)
    return rows


HEADER = "texts", "N", "D", "K", "method", "seconds", "/ KMeans()", "ARI", "AMI", "F1"


def main() -> None:
    """Measure all texts, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=records.RESULTS / "texts")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpool_limits(given.threads):
        rows = measure(given.rounds, given.threads)
    table = [
        (
            row["texts"],
            f"{row['rows']:,}",
            f"{row['features']:,}",
            row["clusters"],
            row["method"],
            f"{row['seconds']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['ari']:.3f}",
            f"{row['ami']:.3f}",
            f"{row['f1']:.2f}",
        )
        for row in rows
    ]
    report = (
        f"# Whole fits to texts\n\n{given.rounds} rounds, each with a seed of its own: medians of "
        "seconds and of the time divided by that of `KMeans()`, means of ARI, AMI and of the F1 "
        "score of the smallest class.\n\n" + records.markdown(HEADER, table)
    )
    settings = {name: value for name, value in vars(given).items() if name != "out"}
    records.write(given.out, settings, rows, report)


if __name__ == "__main__":
    main()
