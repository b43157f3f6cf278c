"""Read an exported autoencoder and run it on arrays or tensors."""

import os
from pathlib import Path
from typing import Any

import torch

from ekmfast.autoencoder import _torchscript
from ekmfast.autoencoder._images import as_images
from ekmfast.autoencoder._inference import apply_in_batches
from ekmfast.autoencoder.export import FORMAT, FORMAT_VERSION


class ExportedAutoencoder:
    """An autoencoder read from a file by `load`.

    The methods take images of shape (N, in_channels, image_size, image_size), or (N, image_size,
    image_size) where there is one channel: uint8, or floats in [0, 1]; or a dataset of such, as
    `ekmfast.datasets.open_image_folder` gives, which is read a batch ahead. They give a
    C-contiguous float32 NumPy array for an array or dataset, and a tensor on the images' device
    for a tensor. An empty batch gives an empty result.

    Attributes
    ----------
    image_size, in_channels, latent_dim, n_classes : int
        Parameters of the model that was exported.
    version : str
        Version of ekmfast that wrote the file.
    device : torch.device
        Where the model runs.
    """

    def __init__(self, module: torch.jit.ScriptModule, device: torch.device) -> None:
        self._module = module
        self.device = device
        self.image_size: int = module.image_size
        self.in_channels: int = module.in_channels
        self.latent_dim: int = module.latent_dim
        self.n_classes: int = module.n_classes
        self.version: str = module.version

    def __repr__(self) -> str:
        return (
            f"ExportedAutoencoder(image_size={self.image_size}, in_channels={self.in_channels}, "
            f"latent_dim={self.latent_dim}, n_classes={self.n_classes}, device='{self.device}')"
        )

    def encode(self, images: Any, *, batch_size: int = 256, out: Any = None) -> Any:
        """Code of each image.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Images that pass through the model at once.
        out : ndarray or Tensor of shape (N, latent_dim), float32, default=None
            Where to write the codes, such as a memory map for more than fit into memory.

        Returns
        -------
        ndarray or Tensor of shape (N, latent_dim), float32

        Raises
        ------
        TypeError
            If the dtype is neither uint8 nor floating.
        ValueError
            If the shape is wrong, or a value is NaN or outside [0, 1].
        """
        return self._apply(self._module.encode, images, (self.latent_dim,), batch_size, out)

    def reconstruct(self, images: Any, *, batch_size: int = 256) -> Any:
        """Reconstruction of each image.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Images that pass through the model at once.

        Returns
        -------
        ndarray or Tensor of shape (N, in_channels, image_size, image_size), float32, in [0, 1]

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """
        shape = (self.in_channels, self.image_size, self.image_size)
        return self._apply(self._module.reconstruct, images, shape, batch_size)

    def anomaly_loss(self, images: Any, *, batch_size: int = 256) -> Any:
        """Mean squared error of each image's reconstruction.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Images that pass through the model at once.

        Returns
        -------
        ndarray or Tensor of shape (N,), float32

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """
        return self._apply(self._module.anomaly_loss, images, (), batch_size)

    def anomaly_map(self, images: Any, *, batch_size: int = 256) -> Any:
        """Squared error of each pixel's reconstruction, the mean over the channels.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Images that pass through the model at once.

        Returns
        -------
        ndarray or Tensor of shape (N, image_size, image_size), float32

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """

        def error(x: torch.Tensor) -> torch.Tensor:
            squared: torch.Tensor = (self._module.reconstruct(x) - x).square()
            return squared.mean(1)

        return self._apply(error, images, (self.image_size, self.image_size), batch_size)

    def _apply(
        self,
        method: Any,
        images: Any,
        row_shape: tuple[int, ...],
        batch_size: int,
        out: Any = None,
    ) -> Any:
        checked = as_images(images, self.in_channels, self.image_size)
        return apply_in_batches(
            method, checked, row_shape, batch_size=batch_size, device=self.device, out=out
        )


def load(
    path: str | os.PathLike[str], *, device: str | torch.device = "cpu"
) -> ExportedAutoencoder:
    """Read a file that `export` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.
    device : str or torch.device, default="cpu"
        Where the model is to run.

    Returns
    -------
    ExportedAutoencoder

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not TorchScript, is not an autoencoder of ekmfast, or was written in a
        newer format than this version reads.

    See Also
    --------
    export : Write the file.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ekmfast.autoencoder import ConvAutoencoder, export, load
    >>> model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=4, width=0.0625)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = load(export(model, f"{folder}/model.pt"))
    >>> loaded.encode(np.zeros((3, 1, 16, 16), np.float32)).shape
    (3, 4)
    """
    path = Path(path)
    device = torch.device(device)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file")
    try:
        module = _torchscript.load(path, device)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"path={str(path)!r}: is not a readable TorchScript file") from error
    if getattr(module, "format", None) != FORMAT:
        raise ValueError(
            f"path={str(path)!r}: is TorchScript but not an autoencoder that "
            "ekmfast.autoencoder.export wrote"
        )
    if module.format_version > FORMAT_VERSION:
        raise ValueError(
            f"path={str(path)!r}: has format version {module.format_version}, written by ekmfast "
            f"{module.version}; this version reads up to {FORMAT_VERSION}"
        )
    return ExportedAutoencoder(module.eval(), device)
