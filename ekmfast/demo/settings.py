"""Sizes of models and numbers of epochs and iterations of the demo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings, for which ``quick`` uses smaller numbers."""

    width: float = 0.25
    latent_dim: int = 128
    pretrain_epochs: int = 5
    finetune_epochs: int = 8
    n_alphas: int = 17
    tsne_iterations: int = 1000
    deep_width: float = 0.125
    deep_warmup: int = 20
    deep_epochs: int = 8


QUICK = Settings(0.0625, 16, 1, 1, 3, 250, 0.0625, 1, 1)
