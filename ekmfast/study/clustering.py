"""Cluster codes by equilibrium and hard k-means, with default parameters and at other alphas."""

from __future__ import annotations

from typing import Any

import numpy as np

from ekmfast.study.data import StudyData
from ekmfast.study.draws import Draw, as_text, draw_rows
from ekmfast.study.quiet import without_convergence_warnings
from ekmfast.study.scores import Codes, Fit, radius, scored

# Multiples of the paper's alpha, of which the one is chosen that gives the wanted sizes.
TUNED = 2.0 ** np.linspace(-2, 5, 29)
# Multiples of the alpha that is tuned to the wanted sizes.
MULTIPLES = (0.1, 10.0)
# The multiple at which the naive formula fails depends on how dense the clusters are, so it is
# also tried at a larger one.
NAIVE_MULTIPLES = (10.0, 100.0)


def cluster_draw(codes: Codes, draw: Draw, seed: int) -> dict[str, Fit]:
    """Fit each method with default parameters, then the stable and naive formula at more alphas."""
    from ekmfast import alpha_path

    X = codes[draw.rows]
    fits = {"ekm": _ekm(X, draw, seed), "dvariance": _ekm(X, draw, seed, alpha="dvariance")}
    path = alpha_path(
        X,
        draw.n_clusters,
        fits["dvariance"].scores["alpha"] * TUNED,
        target_sizes=draw.shares,
        random_state=seed,
    )
    alpha = float(path.alphas[path.best])
    fits["tuned"] = _ekm(X, draw, seed, alpha=alpha)
    fits["tuned"].scores["n_alphas"] = len(path.alphas)
    for multiple in MULTIPLES:
        fits[f"tuned_{multiple:g}x"] = _ekm(X, draw, seed, alpha=multiple * alpha)
    for multiple in NAIVE_MULTIPLES:
        # Both formulas start from the same centroids.
        start = fits["tuned"].centroids
        fits[f"stable_{multiple:g}x"] = _ekm(X, draw, seed, alpha=multiple * alpha, init=start)
        fits[f"naive_{multiple:g}x"] = _naive(X, draw, start, multiple * alpha)
    fits["kmeans"] = _kmeans(X, draw, seed)
    return fits


def score_path(codes: Codes, draw: Draw, n_alphas: int, seed: int) -> list[dict[str, float]]:
    """Scores of EKM at multiples of the paper's alpha."""
    from sklearn.metrics import adjusted_rand_score

    from ekmfast import alpha_path

    X = codes[draw.rows]
    multiples = np.geomspace(MULTIPLES[0], MULTIPLES[-1], n_alphas)
    dvariance = 2.0 / (radius(X) ** 2 / 2)
    path = alpha_path(X, draw.n_clusters, multiples * dvariance, random_state=seed)
    rows = [
        {
            "multiple": float(multiple),
            "alpha": float(path.alphas[i]),
            "objective": float(path.objective[i]),
            "mean_objective": float(path.objective[i] / len(X)),
            "largest": float(path.sizes[i].max() / len(X)),
        }
        for i, multiple in enumerate(multiples)
    ]
    if draw.classes is not None:
        for row, labels in zip(rows, path.labels, strict=True):
            row["ari"] = float(adjusted_rand_score(draw.classes, labels))
    return rows


def score_other_classes(
    codes: Codes,
    data: StudyData,
    triple: tuple[int, int, int],
    all_shares: tuple[tuple[int, ...], ...],
    seed: int,
) -> dict[str, Any]:
    """The adjusted Rand index of each method on draws of three classes."""
    assert data.labels is not None
    row: dict[str, Any] = {"classes": [data.class_names[c] for c in triple]}
    for shares in all_shares:
        draw = draw_rows(data.labels, triple, shares, seed)
        X = codes[draw.rows]
        row[as_text(shares)] = {
            "ekm": _ekm(X, draw, seed).scores["ari"],
            "dvariance": _ekm(X, draw, seed, alpha="dvariance").scores["ari"],
            "kmeans": _kmeans(X, draw, seed).scores["ari"],
        }
    return row


def _ekm(X: Codes, draw: Draw, seed: int, **parameters: Any) -> Fit:
    from ekmfast import EKMeans

    model = EKMeans(draw.n_clusters, random_state=seed, **parameters)
    # At a small alpha the centroids collapse. The report describes this, so no warning is needed.
    with without_convergence_warnings():
        model.fit(X)
    return scored(
        X,
        draw,
        model.labels_.astype(np.int64),
        model.cluster_centers_,
        alpha=model.alpha_,
        objective=float(model.objective_),
        n_iter=int(model.n_iter_),
        converged=bool(model.converged_),
    )


def _kmeans(X: Codes, draw: Draw, seed: int) -> Fit:
    from sklearn.cluster import KMeans

    model = KMeans(draw.n_clusters, n_init=10, random_state=seed).fit(X)
    return scored(
        X,
        draw,
        model.labels_.astype(np.int64),
        model.cluster_centers_,
        alpha=None,
        objective=float(model.inertia_) / 2,  # the limit of J for large alpha
        n_iter=int(model.n_iter_),
        converged=bool(model.n_iter_ < model.max_iter),
    )


def _naive(X: Codes, draw: Draw, start: Codes, alpha: float) -> Fit:
    """Iterate the formula without a shift, and with 1e-8 in its denominators, from one start."""
    from ekmfast import assign, ekm_statistics
    from ekmfast._reference import naive_update, naive_weights
    from ekmfast.fit.merging import merge_coincident

    centroids, converged, n_iter = start, False, 0
    while not converged and n_iter < 300:
        following = naive_update(X, naive_weights(X, centroids, alpha))
        if not np.isfinite(following).all():
            break
        converged = bool(np.linalg.norm(following - centroids) <= 1e-4 * radius(X))
        centroids, n_iter = following.astype(np.float64), n_iter + 1

    return scored(
        X,
        draw,
        # As in EKMeans, coincident centroids are one cluster; else rounding would assign the rows.
        merge_coincident(centroids, alpha)[assign(X, centroids)[0]].astype(np.int64),
        centroids,
        alpha=alpha,
        objective=float(ekm_statistics(X, centroids, alpha).objective),
        n_iter=n_iter,
        converged=converged,
        lost=_lost(X, start, alpha),
    )


def _lost(X: Codes, centroids: Codes, alpha: float) -> float:
    """Share of the rows whose exponentials sum to less than the 1e-8 that is added to the sum."""
    from ekmfast import assign

    nearest = ((X - centroids[assign(X, centroids)[0]]) ** 2).sum(axis=1)
    return float((np.exp(-alpha / 2 * nearest) < 1e-8).mean())
