"""Deep clustering: train an encoder on images and their clusters, without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.demo.draws import Draw
from ekmfast.demo.quiet import without_convergence_warnings
from ekmfast.demo.settings import Settings


def deep_clusterings(
    images: NDArray[np.float32], draw: Draw, settings: Settings, seed: int
) -> dict[str, Any]:
    """Scores of deep clustering with the equilibrium loss and with hard k-means.

    Both continue from the same warm-up.
    """
    from sklearn.metrics import adjusted_rand_score

    from ekmfast.autoencoder import DeepEKM
    from ekmfast.metrics import class_recall

    chosen = images[draw.rows]
    common: dict[str, Any] = {"image_size": 16, "random_state": seed}
    warm = DeepEKM(
        3, width=settings.deep_width, warmup_epochs=settings.deep_warmup, epochs=0, **common
    )
    with without_convergence_warnings():
        rows = {"the warm-up's codes": warm.fit(chosen)}
        for name, clustering in (("DeepEKM", "equilibrium"), ("deep hard k-means", "hard")):
            rows[name] = DeepEKM(
                3,
                model=warm.autoencoder_,
                clustering=clustering,
                warmup_epochs=0,
                epochs=settings.deep_epochs,
                learning_rate=1e-3,
                **common,
            ).fit(chosen)
    return {
        name: {
            "ari": float(adjusted_rand_score(draw.classes, deep.labels_)),
            "recall": [round(float(v), 4) for v in class_recall(draw.classes, deep.labels_)],
            "n_clusters": int(deep.n_clusters_effective_),
        }
        for name, deep in rows.items()
    }
