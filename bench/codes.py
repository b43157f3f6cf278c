"""Imbalanced draws of the codes of an autoencoder.

The model is that of the demo, with 128 features; it is pretrained and finetuned on 4,500 of 5,000
handwritten digits. `draws` are used for published results. Rules were chosen on the codes of models
with other seeds and widths, and on draws with seeds from TUNING_SEEDS on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from problems import TUNING_SEEDS, Problem

__all__ = ["TUNING_SEEDS", "draws", "make_codes"]

# Rows of each class in a draw, the large class first: 84 draws in all.
SIZES = (
    (400, 20),
    (400, 20, 20),
    (400, 50, 25),
    (400, 10, 10),
    (400, 200, 50, 20),
    (300, 30, 30, 30, 30),
    (200, 100, 50, 25, 12),
)
DRAWS = 12  # draws of each of these sizes


def make_codes(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Train a model, which takes a minute; return its codes (5000, 128) and the digits' classes."""
    import torch

    from ekmfast.autoencoder import ConvAutoencoder, encode, finetune, pretrain
    from ekmfast.datasets import load_digits_and_faces

    data = load_digits_and_faces(32)
    rng = np.random.default_rng(seed)
    train, held = np.split(rng.permutation(len(data.labels)), [4500])
    images, labels = data.digits[train], data.labels[train]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that the model does not depend on the number of processors
    try:
        torch.manual_seed(seed)
        model = ConvAutoencoder(32, 1, latent_dim=128, n_classes=10, width=0.25)
        common = {"random_state": seed, "verbose": 0}
        pretrain(model, images, validation_data=data.digits[held], epochs=5, **common)
        validation = data.digits[held], data.labels[held]
        finetune(model, images, labels, validation_data=validation, epochs=8, **common)
        return encode(model, data.digits), data.labels
    finally:
        torch.set_num_threads(threads)


def draws(codes: NDArray[np.float32], labels: NDArray[np.int64]) -> Iterator[Problem]:
    """Yield the published draws: random classes in each of `SIZES`."""
    for pattern, sizes in enumerate(SIZES):
        for seed in range(DRAWS):
            rng = np.random.default_rng([seed, pattern])
            classes = rng.permutation(np.unique(labels))[: len(sizes)]
            rows = [
                rng.permutation(np.flatnonzero(labels == c))[:n]
                for c, n in zip(classes, sizes, strict=True)
            ]
            yield Problem(
                name=f"codes-{'/'.join(map(str, sizes))}-{seed}",
                X=codes[np.concatenate(rows)].astype(np.float64),
                y=np.repeat(np.arange(len(sizes)), sizes),
                k=len(sizes),
                facts={
                    "sizes": list(sizes),
                    "classes": classes.tolist(),
                    "seed": seed,
                    "imbalance": max(sizes) / min(sizes),
                },
            )
