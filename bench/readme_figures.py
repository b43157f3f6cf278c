"""Draw the pictures of the README: ``python bench/readme_figures.py [FOLDER]``."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans, alpha_path
from ekmfast.anomaly import AutoencoderDetector
from ekmfast.datasets import load_digits_and_faces, make_imbalanced_blobs
from ekmfast.metrics import cluster_sizes
from ekmfast.plotting import new_figure, plot_alpha_path, plot_anomaly_map, plot_clusters

SIZES = (2000, 50, 200)
DOCS = Path(__file__).parent.parent / "docs"


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    X, y = make_imbalanced_blobs(SIZES)
    figures = {
        "kmeans_vs_ekm": compare(X, y),
        "alpha_path": draw_path(X),
        "anomaly_map": draw_anomalies(),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})


def draw_path(X: Any) -> Any:
    axes = plot_alpha_path(alpha_path(X, len(SIZES), random_state=0))
    figure = axes[0].figure
    figure.set_size_inches(7.5, 6)
    return figure


def draw_anomalies() -> Any:
    data = load_digits_and_faces()
    detector = AutoencoderDetector(epochs=15, random_state=0).fit(data.digits)
    images = np.concatenate([data.digits[[5, 1200, 2100, 4000, 4600]], data.faces[:5]])
    with torch.inference_mode():
        back = detector.autoencoder_(torch.from_numpy(images))[0].numpy()
    axes = plot_anomaly_map(images, back)
    figure = axes[0, 0].figure
    figure.set_size_inches(9.6, 3.4)
    return figure


def compare(X: Any, y: Any) -> Any:
    figure, axes = new_figure(9.6, 3.5, columns=3, sharex=True, sharey=True)
    plot_clusters(X, y, ax=axes[0, 0])
    panels = [(f"truth: {', '.join(map(str, SIZES))}", axes[0, 0])]
    estimators = {
        "k-means": KMeans(3, n_init=10, random_state=0),
        "equilibrium k-means": EKMeans(3, n_init=10, random_state=0),
    }
    for (name, estimator), ax in zip(estimators.items(), axes[0, 1:], strict=True):
        labels = estimator.fit_predict(X)
        # Clusters are renumbered by their positions, so that colours agree between panels.
        centroids = estimator.cluster_centers_
        order = [int((-centroids.sum(axis=1)).argmax())]
        rest = [k for k in range(3) if k not in order]
        order += sorted(rest, key=lambda k: -centroids[k, 0])
        rank = {k: i for i, k in enumerate(order)}
        labels = [rank[k] for k in labels]
        plot_clusters(X, labels, centroids, ax)
        sizes = ", ".join(map(str, cluster_sizes(labels, 3)))
        panels.append((f"{name}: {sizes}\nARI {adjusted_rand_score(y, labels):.2f}", ax))
    for title, ax in panels:
        ax.set_title(title, fontsize=11)
        ax.set_aspect("equal")
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
