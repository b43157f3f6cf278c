"""Deep clustering: train an encoder on images and their clusters, without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.study.data import Labels
from ekmfast.study.draws import Draw
from ekmfast.study.quiet import without_convergence_warnings
from ekmfast.study.scores import ranks
from ekmfast.study.settings import Settings


def deep_clusterings(
    images: NDArray[np.float32], draw: Draw, settings: Settings, seed: int, *, verbose: int
) -> tuple[dict[str, Any], dict[str, Labels]]:
    """Scores and labels of deep clustering with the equilibrium loss and with hard k-means.

    Both continue from the same warm-up.
    """
    from sklearn.metrics import adjusted_rand_score

    from ekmfast.autoencoder import DeepEKM
    from ekmfast.metrics import class_recall

    k, chosen = draw.n_clusters, images[draw.rows]
    common: dict[str, Any] = {
        "image_size": settings.deep_size,
        "random_state": seed,
        "verbose": verbose,
    }
    warm = DeepEKM(
        k, width=settings.deep_width, warmup_epochs=settings.deep_warmup, epochs=0, **common
    )
    with without_convergence_warnings():
        models = {"the warm-up's codes": warm.fit(chosen)}
        for name, clustering in (("DeepEKM", "equilibrium"), ("deep hard k-means", "hard")):
            models[name] = DeepEKM(
                k,
                model=warm.autoencoder_,
                clustering=clustering,
                warmup_epochs=0,
                epochs=settings.deep_epochs,
                learning_rate=1e-3,
                **common,
            ).fit(chosen)
    rows, labels = {}, {}
    for name, model in models.items():
        found = model.labels_.astype(np.int64)
        labels[name] = ranks(found, draw)[found]
        rows[name] = {
            "sizes": np.bincount(labels[name], minlength=k).tolist(),
            "n_clusters": int(model.n_clusters_effective_),
        }
        if draw.classes is not None:
            recall = class_recall(draw.classes, found)
            rows[name] |= {
                "ari": float(adjusted_rand_score(draw.classes, found)),
                "recall": [round(float(v), 4) for v in recall],
            }
    return rows, labels
