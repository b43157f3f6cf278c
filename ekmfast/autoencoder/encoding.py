"""Compute codes of images, with a model in memory or one read from an exported file."""

from typing import Any

from ekmfast.autoencoder.images import as_images
from ekmfast.autoencoder.inference import apply_in_batches
from ekmfast.autoencoder.loading import ANY_MODEL, ExportedAutoencoder


def encode(model: Any, images: Any, *, batch_size: int = 256, out: Any = None) -> Any:
    """Code of each image, in batches.

    Parameters
    ----------
    model : ConvAutoencoder or ExportedAutoencoder
        The model. A ConvAutoencoder is run in evaluation mode on its own device; afterwards its
        previous mode is restored.
    images : ndarray or Tensor of shape (N, in_channels, image_size, image_size), or dataset
        uint8, or floats in [0, 1]; (N, image_size, image_size) where there is one channel. A
        dataset (`ekmfast.datasets.open_image_folder`) is read a batch ahead.
    batch_size : int, default=256
        Number of images in a batch.
    out : ndarray or Tensor of shape (N, latent_dim), float32, default=None
        Where to write the codes; a memory map if they do not fit into memory.

    Returns
    -------
    ndarray or Tensor of shape (N, latent_dim), float32, C-contiguous
        ``out`` if it was given. Otherwise a new array for an array or dataset, or a new tensor on
        the images' device for a tensor. `ekmfast.EKMeans` takes it without a copy.

    Raises
    ------
    TypeError
        If ``model`` is of another type, or the dtype of the images or of ``out`` is wrong.
    ValueError
        If the images or ``out`` have the wrong shape, or a value is NaN or outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.autoencoder import ConvAutoencoder, encode
    >>> model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=4, width=0.0625)
    >>> encode(model, np.zeros((3, 16, 16), np.uint8)).shape
    (3, 4)
    """
    ANY_MODEL.check("model", model)
    if isinstance(model, ExportedAutoencoder):
        return model.encode(images, batch_size=batch_size, out=out)
    checked = as_images(images, model.in_channels, model.image_size)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        return apply_in_batches(
            model.encode,
            checked,
            (model.latent_dim,),
            batch_size=batch_size,
            device=device,
            out=out,
        )
    finally:
        model.train(was_training)
