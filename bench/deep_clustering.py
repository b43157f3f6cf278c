"""Compare DeepEKM, deep hard k-means, and clusters of codes trained without a clustering loss.

    python bench/deep_clustering.py [--seeds 5] [--jobs 2]

The images are draws of the 5,000 handwritten digits: one class of 500 and nine of 50; one of 500
and two of 25; ten classes from 500 down to 25 by a constant factor; ten of 100. The seed determines
which digit has which size. The encoder is trained only on the images of the draw, at 16 x 16
pixels, and without labels.

All methods continue from the same warm-up (reconstruction and contrast) of a draw, with the same
number of epochs and the same seed. These epochs use the loss of DeepEKM, that of deep hard k-means,
or no clustering loss, whose codes are then clustered. Every method is given K.

The tables show means of scores over seeds, and the mean and standard deviation over seeds of the
differences between two methods on the same draw.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from records import RESULTS, markdown, write
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from threadpoolctl import threadpool_limits
from torch.nn.functional import avg_pool2d

import ekmfast
from ekmfast.autoencoder import DeepEKM
from ekmfast.datasets import load_digits_and_faces
from ekmfast.metrics import class_recall, clustering_accuracy

DRAWS = {
    "500 : 9 x 50": [500] + [50] * 9,
    "500 : 25 : 25": [500, 25, 25],
    "500 ... 25": [round(500 * 20 ** (-i / 9)) for i in range(10)],
    "10 x 100": [100] * 10,
}
WARMUP, EPOCHS = 60, 20
ONE = "one cluster"
EKM, SHARP, HARD = "DeepEKM", "DeepEKM, 2 x dvariance", "deep hard k-means"
SCORES = ("accuracy", "ARI", "NMI", "macro recall", "recall of the smallest")
PAIRS = ((EKM, HARD), (SHARP, HARD), (EKM, "codes, EKMeans"), ("codes, EKMeans", "codes, hard"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--draws", nargs="+", choices=DRAWS, default=list(DRAWS))
    parser.add_argument("--jobs", type=int, default=1, help="draws at a time, one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS / "deep-clustering")
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    draws = [(draw, seed) for seed in seeds for draw in args.draws]
    done = Parallel(n_jobs=args.jobs, verbose=10)(delayed(run)(*draw) for draw in draws)
    rows = [row for some in done for row in some]
    settings = {"seeds": list(seeds), "warmup": WARMUP, "epochs": EPOCHS, "threads": 1}
    write(args.out, settings, rows, report(rows, args.draws))


def run(draw: str, seed: int) -> list[dict[str, Any]]:
    """Evaluate every method on one draw."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        images, classes = digits(DRAWS[draw], seed)
        k = len(DRAWS[draw])
        deep: dict[str, Any] = {"image_size": 16, "random_state": seed}
        warm = DeepEKM(k, warmup_epochs=WARMUP, epochs=0, **deep).fit(images)
        deep |= {"model": warm.autoencoder_, "learning_rate": 1e-3}
        continued = DeepEKM(k, warmup_epochs=EPOCHS, epochs=0, **deep).fit(images)
        deep |= {"warmup_epochs": 0, "epochs": EPOCHS}
        pixels = images.reshape(len(images), -1)
        codes = continued.encode(images)
        fitted: dict[str, Any] = {
            "pixels, hard": ekmfast.HardKMeans(k, random_state=seed).fit(pixels),
            "pixels, EKMeans": ekmfast.EKMeans(k, random_state=seed).fit(pixels),
            "codes, hard": ekmfast.HardKMeans(k, random_state=seed).fit(codes),
            "codes, EKMeans": ekmfast.EKMeans(k, random_state=seed).fit(codes),
            HARD: DeepEKM(k, clustering="hard", **copy.copy(deep)).fit(images),
            EKM: DeepEKM(k, **copy.copy(deep)).fit(images),
            SHARP: DeepEKM(k, alpha="dvariance", scale=4.0, **copy.copy(deep)).fit(images),
        }
    labels = {ONE: np.zeros(len(images), np.int64)}
    labels |= {name: fit.labels_ for name, fit in fitted.items()}
    rows = []
    for name, found in labels.items():
        row = {"draw": draw, "seed": seed, "method": name} | scores(classes, found)
        fit = fitted.get(name)
        row["distinct centroids"] = 1 if fit is None else int(fit.n_clusters_effective_)
        row["alpha x dispersion"] = multiple(fit, images) if fit is not None else None
        rows.append(row)
    return rows


def digits(sizes: list[int], seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (N, 1, 16, 16) with one class for each of ``sizes``, and their classes."""
    data = load_digits_and_faces()
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.flatnonzero(data.labels == digit), size, replace=False)
        for digit, size in zip(rng.permutation(10), sizes, strict=False)
    ]
    chosen = rng.permutation(np.concatenate(rows))
    small = avg_pool2d(torch.from_numpy(data.digits[chosen]), 2)
    return small.numpy(), data.labels[chosen].astype(np.int64)


def scores(classes: NDArray[np.int64], labels: NDArray[Any]) -> dict[str, float]:
    recall = class_recall(classes, labels)
    sizes = np.unique(classes, return_counts=True)[1]
    return {
        "accuracy": float(clustering_accuracy(classes, labels)),
        "ARI": float(adjusted_rand_score(classes, labels)),
        "NMI": float(normalized_mutual_info_score(classes, labels)),
        "macro recall": float(recall.mean()),
        "recall of the smallest": float(recall[sizes == sizes.min()].mean()),
    }


def multiple(fit: Any, images: NDArray[np.float32]) -> float | None:
    """alpha times the dispersion of a DeepEKM's codes, which is ``scale`` for "dvariance"."""
    if not isinstance(fit, DeepEKM) or not np.isfinite(fit.alpha_):
        return None
    return round(fit.alpha_ * 0.5 * float(fit.encode(images).var(axis=0).sum()), 2)


def report(rows: list[dict[str, Any]], draws: list[str]) -> str:
    parts = []
    for draw in draws:
        here = [row for row in rows if row["draw"] == draw]
        lines = []
        for name in dict.fromkeys(row["method"] for row in here):
            own = [row for row in here if row["method"] == name]
            line = [name]
            for score in SCORES:
                values = [row[score] for row in own]
                line.append(f"{np.mean(values):.3f} ({min(values):.2f} .. {max(values):.2f})")
            found = [row["distinct centroids"] for row in own]
            lines.append([*line, f"{np.mean(found):.1f}"])
        header = ["method", *SCORES, "distinct centroids"]
        parts.append(f"### {draw}\n\n" + markdown(header, lines))
    lines = []
    for left, right in PAIRS:
        for draw in draws:
            by_seed = {(row["method"], row["seed"]): row for row in rows if row["draw"] == draw}
            line = [f"{left} - {right}", draw]
            for score in ("ARI", "macro recall", "recall of the smallest"):
                seeds = sorted({seed for _, seed in by_seed})
                gains = [by_seed[left, s][score] - by_seed[right, s][score] for s in seeds]
                spread = np.std(gains, ddof=1) if len(gains) > 1 else np.nan
                won = sum(gain > 0 for gain in gains)
                lost = sum(gain < 0 for gain in gains)
                line.append(f"{np.mean(gains):+.3f} +- {spread:.3f} ({won} : {lost})")
            lines.append(line)
    header = ["difference", "draw", "ARI", "macro recall", "recall of the smallest"]
    parts.append(
        "### On the same draw\n\nMean, standard deviation, won : lost.\n\n"
        + markdown(header, lines)
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
