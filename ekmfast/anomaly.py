"""Tell anomalies by how badly an autoencoder reconstructs them."""

from typing import Any

from ekmfast._optional import require


def reconstruction_loss(model: Any, images: Any, *, batch_size: int = 256) -> Any:
    """Mean squared error of each image's reconstruction.

    Parameters
    ----------
    model : ConvAutoencoder or ExportedAutoencoder
        The model. A ConvAutoencoder is run in evaluation mode, on its own device, and left in
        the mode it was in.
    images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
        uint8, or floats in [0, 1]; (N, image_size, image_size) where there is one channel.
    batch_size : int, default=256
        Images that pass through the model at once.

    Returns
    -------
    ndarray or Tensor of shape (N,), float32
        An array for an array, a tensor on the images' device for a tensor.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If ``model`` is neither kind, or the dtype of the images is neither uint8 nor floating.
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
    require("torch", "torch")
    from ekmfast.autoencoder import ConvAutoencoder, ExportedAutoencoder
    from ekmfast.autoencoder._images import as_images
    from ekmfast.autoencoder._inference import apply_in_batches

    if isinstance(model, ExportedAutoencoder):
        return model.anomaly_loss(images, batch_size=batch_size)
    if not isinstance(model, ConvAutoencoder):
        raise TypeError(
            f"model is a {type(model).__name__}: must be a ConvAutoencoder or an "
            "ExportedAutoencoder"
        )

    def loss(x: Any) -> Any:
        return (model.decode(model.encode(x)) - x).square().flatten(1).mean(1)

    checked = as_images(images, model.in_channels, model.image_size)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        return apply_in_batches(loss, checked, (), batch_size=batch_size, device=device)
    finally:
        model.train(was_training)
