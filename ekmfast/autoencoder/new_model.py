"""Make a new autoencoder for the images that an estimator was given."""

from typing import Any

from ekmfast._parameters import COUNT, IMAGE_SIZE, POSITIVE
from ekmfast.autoencoder._device import DEVICE, usable
from ekmfast.autoencoder._generators import seeded
from ekmfast.autoencoder.images import channels_of
from ekmfast.autoencoder.model import ConvAutoencoder

# What an estimator that makes a new model asks its users for.
PARAMETERS = {
    "image_size": IMAGE_SIZE,
    "latent_dim": COUNT,
    "width": POSITIVE,
    "device": DEVICE,
}


def new_model(images: Any, seed: int, device: str, **parameters: Any) -> ConvAutoencoder:
    """A model on ``device`` for the channels of ``images``, with weights drawn from ``seed``."""
    checked_device = usable(device)
    with seeded(seed):
        model = ConvAutoencoder(in_channels=channels_of(images), n_classes=1, **parameters)
    model.to(checked_device)
    return model
