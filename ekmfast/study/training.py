"""Train the study's autoencoder: pretrain it on images, then finetune it on their classes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ekmfast.study.data import StudyData
from ekmfast.study.draws import Rows
from ekmfast.study.settings import Settings


@dataclass(frozen=True)
class Training:
    """What the trainings share: images, rows, settings, seed, and where their states are kept.

    Attributes
    ----------
    folder : Path or None
        Folder of the states, from which interrupted trainings continue; None for no states.
    verbose : int
        1 shows progress bars.
    """

    data: StudyData
    train: Rows
    held: Rows
    settings: Settings
    seed: int
    folder: Path | None
    verbose: int

    def resumed(self, name: str) -> bool:
        """Whether the state of a training is there, from which it continues."""
        path = self._state(name)
        return path is not None and path.exists()

    def _state(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.pt"

    def pretrained(self) -> tuple[Any, Any]:
        """A new model that is trained to reconstruct the images, and the training's history."""
        import torch

        from ekmfast.autoencoder import ConvAutoencoder, pretrain

        images = self.data.images
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            model = ConvAutoencoder(
                images.shape[-1],
                images.shape[1],
                self.settings.latent_dim,
                max(1, len(self.data.class_names)),
                self.settings.width,
            )
        history = pretrain(
            model,
            images[self.train],
            validation_data=images[self.held],
            epochs=self.settings.pretrain_epochs,
            **self._common("pretrain"),
        )
        return model, history

    def finetuned(self, pretrained: Any, *, augment: bool) -> tuple[Any, Any]:
        """A copy of the model that is also trained to classify, and the training's history."""
        from ekmfast.autoencoder import finetune

        images, labels = self.data.images, self.data.labels
        assert labels is not None
        model = copy.deepcopy(pretrained)
        history = finetune(
            model,
            images[self.train],
            labels[self.train],
            augment=True if augment else None,
            validation_data=(images[self.held], labels[self.held]),
            epochs=self.settings.finetune_epochs,
            reconstruction_weight=self.settings.reconstruction_weight,
            **self._common("augmented" if augment else "finetune"),
        )
        return model, history

    def confusion(self, model: Any) -> list[list[int]]:
        """Numbers of held-out images, by their class (rows) and the predicted one (columns)."""
        import torch

        assert self.data.labels is not None
        n = len(self.data.class_names)
        table = np.zeros((n, n), np.int64)
        with torch.inference_mode():
            for start in range(0, len(self.held), 256):
                rows = self.held[start : start + 256]
                _, logits, _ = model(torch.from_numpy(self.data.images[rows]))
                predicted = logits.argmax(dim=1).numpy()
                np.add.at(table, (self.data.labels[rows], predicted), 1)
        counts: list[list[int]] = table.tolist()
        return counts

    def _common(self, name: str) -> dict[str, Any]:
        return {
            "batch_size": self.settings.batch_size,
            "random_state": self.seed,
            "checkpoint": self._state(name),
            "verbose": self.verbose,
        }


def describe(model: Any) -> dict[str, Any]:
    """What the report says about the model."""
    return {
        "image_size": model.image_size,
        "in_channels": model.in_channels,
        "latent_dim": model.latent_dim,
        "channels": [
            layer.out_channels for layer in model.encoder if hasattr(layer, "out_channels")
        ],
        "n_weights": sum(
            p.numel() for part in (model.encoder, model.decoder) for p in part.parameters()
        ),
    }


def curves(history: Any) -> dict[str, list[float]]:
    """Numbers of each epoch."""
    return {
        "train_loss": [float(v) for v in history.train_loss],
        "validation_loss": [float(v) for v in history.val_loss],
        "validation_accuracy": [float(v) for v in history.val_accuracy],
    }
