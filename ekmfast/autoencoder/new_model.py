"""Make a new autoencoder for the images that an estimator was given."""

from typing import Any

import torch

from ekmfast.autoencoder._device import usable
from ekmfast.autoencoder.images import channels_of
from ekmfast.autoencoder.model import ConvAutoencoder


def new_model(images: Any, seed: int, device: str, **parameters: Any) -> ConvAutoencoder:
    """A model on ``device`` for the channels of ``images``, with weights drawn from ``seed``."""
    checked_device = usable(device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = ConvAutoencoder(in_channels=channels_of(images), n_classes=1, **parameters)
    model.to(checked_device)
    return model
