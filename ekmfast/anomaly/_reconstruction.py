"""Reconstruction errors of an autoencoder: one number for each image, or one for each pixel."""

from collections.abc import Callable
from typing import Any

from ekmfast._optional import require


def reconstruction_loss(model: Any, images: Any, *, batch_size: int = 256) -> Any:
    """Mean squared error of each image's reconstruction.

    Parameters
    ----------
    model : ConvAutoencoder or ExportedAutoencoder
        The model. A ConvAutoencoder is run in evaluation mode on its own device; afterwards its
        previous mode is restored.
    images : ndarray or Tensor of shape (N, in_channels, image_size, image_size), or dataset
        uint8, or floats in [0, 1]; (N, image_size, image_size) where there is one channel. A
        dataset (`ekmfast.datasets.open_image_folder`) is read one batch ahead.
    batch_size : int, default=256
        Number of images in a batch.

    Returns
    -------
    ndarray or Tensor of shape (N,), float32
        An array for an array, a tensor on the images' device for a tensor.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If ``model`` is of another type, or the dtype of the images is neither uint8 nor floating.
    ValueError
        If the images have the wrong shape, or a value is NaN or outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.anomaly import reconstruction_loss
    >>> from ekmfast.autoencoder import ConvAutoencoder
    >>> model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=4, width=0.0625)
    >>> reconstruction_loss(model, np.zeros((3, 1, 16, 16), np.float32)).shape
    (3,)
    """

    def loss(x_prime: Any, x: Any) -> Any:
        return (x_prime - x).square().flatten(1).mean(1)

    return _apply(model, images, loss, "anomaly_loss", batch_size)


def anomaly_map(model: Any, images: Any, *, batch_size: int = 256) -> Any:
    """Squared error of each pixel's reconstruction, which shows where an image is abnormal.

    Parameters
    ----------
    model : ConvAutoencoder or ExportedAutoencoder
        As in `reconstruction_loss`.
    images : ndarray or Tensor of shape (N, in_channels, image_size, image_size), or dataset
        As in `reconstruction_loss`.
    batch_size : int, default=256
        Number of images in a batch.

    Returns
    -------
    ndarray or Tensor of shape (N, image_size, image_size), float32
        Errors, averaged over the channels. The mean over a map is the image's
        `reconstruction_loss`.

    Raises
    ------
    ImportError, TypeError, ValueError
        As `reconstruction_loss`.

    See Also
    --------
    ekmfast.plotting.plot_anomaly_map : Draw the map.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.anomaly import anomaly_map
    >>> from ekmfast.autoencoder import ConvAutoencoder
    >>> model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=4, width=0.0625)
    >>> anomaly_map(model, np.zeros((3, 1, 16, 16), np.float32)).shape
    (3, 16, 16)
    """

    def error(x_prime: Any, x: Any) -> Any:
        return (x_prime - x).square().mean(1)

    return _apply(model, images, error, "anomaly_map", batch_size)


def _apply(
    model: Any, images: Any, compare: Callable[[Any, Any], Any], method: str, batch_size: int
) -> Any:
    """Compute ``compare(reconstruction, image)``, for an exported model by its ``method``."""
    require("torch", "torch")
    from ekmfast.autoencoder import ExportedAutoencoder
    from ekmfast.autoencoder.images import as_images
    from ekmfast.autoencoder.inference import apply_in_batches
    from ekmfast.autoencoder.loading import ANY_MODEL

    ANY_MODEL.check("model", model)
    if isinstance(model, ExportedAutoencoder):
        return getattr(model, method)(images, batch_size=batch_size)

    def function(x: Any) -> Any:
        return compare(model.decode(model.encode(x)), x)

    checked = as_images(images, model.in_channels, model.image_size)
    device = next(model.parameters()).device
    row_shape = () if method == "anomaly_loss" else (model.image_size, model.image_size)
    was_training = model.training
    model.eval()
    try:
        return apply_in_batches(function, checked, row_shape, batch_size=batch_size, device=device)
    finally:
        model.train(was_training)
