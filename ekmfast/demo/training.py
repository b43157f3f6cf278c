"""Train the demo's autoencoder: pretrain it on images, then finetune it on their classes."""

from __future__ import annotations

import copy
from typing import Any

from ekmfast.demo.data import IMAGE_SIZE, DemoData
from ekmfast.demo.draws import Rows
from ekmfast.demo.settings import Settings


def pretrained_model(
    data: DemoData, train: Rows, held: Rows, settings: Settings, seed: int
) -> tuple[Any, float]:
    """A new model that is trained to reconstruct the images, and its validation loss."""
    import torch

    from ekmfast.autoencoder import ConvAutoencoder, pretrain

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = ConvAutoencoder(
            IMAGE_SIZE,
            data.images.shape[1],
            settings.latent_dim,
            len(data.class_names),
            settings.width,
        )
    history = pretrain(
        model,
        data.images[train],
        validation_data=data.images[held],
        epochs=settings.pretrain_epochs,
        random_state=seed,
        verbose=0,
    )
    return model, history.best_loss


def finetuned_model(
    pretrained: Any,
    data: DemoData,
    train: Rows,
    held: Rows,
    settings: Settings,
    seed: int,
    *,
    augment: bool | None,
) -> tuple[Any, float]:
    """A copy of the model that is also trained to classify, and its validation accuracy."""
    from ekmfast.autoencoder import finetune

    model = copy.deepcopy(pretrained)
    history = finetune(
        model,
        data.images[train],
        data.labels[train],
        augment=augment,
        validation_data=(data.images[held], data.labels[held]),
        epochs=settings.finetune_epochs,
        random_state=seed,
        verbose=0,
    )
    assert history.best_accuracy is not None  # as there are labels and validation images
    return model, history.best_accuracy
