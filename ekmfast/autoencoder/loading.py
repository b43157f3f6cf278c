"""Read an exported autoencoder and run it on arrays or tensors."""

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ekmfast._parameters import PATH, AnyOf, Kind, OneOf
from ekmfast.autoencoder import _packed, torchscript
from ekmfast.autoencoder._device import first_line, usable
from ekmfast.autoencoder.export import FORMAT, FORMAT_VERSION, METADATA
from ekmfast.autoencoder.images import as_images
from ekmfast.autoencoder.inference import apply_in_batches
from ekmfast.autoencoder.model import MODEL
from ekmfast.autoencoder.pipeline import memberships, squared_distances
from ekmfast.autoencoder.seen import from_text

PRECISION = OneOf("float32", "bfloat16")


class ExportedAutoencoder:
    """An autoencoder read from a file by `load`.

    The methods take images of shape (N, in_channels, image_size, image_size), or (N, image_size,
    image_size) where there is one channel, as uint8 or floats in [0, 1]. They also take a dataset
    of such images, for instance of `ekmfast.datasets.open_image_folder`, and read its next batch
    while they compute the current one. They return a C-contiguous float32 NumPy array for an array
    or dataset, and a tensor on the images' device for a tensor. An empty batch gives an empty
    result.

    Attributes
    ----------
    image_size, in_channels, latent_dim, n_classes : int
        Parameters of the model that was exported.
    version : str
        Version of ekmfast that wrote the file.
    device : torch.device
        Where the model runs.
    archive : bytes
        The bytes of the file that the model was read from; `pickle` and `ekmfast.save` store them.
    precision : str
        The ``precision`` that `load` was called with.
    """

    archive: bytes
    precision: Literal["float32", "bfloat16"]

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._module = module
        self._dtype = dtype
        self._encoder, self._decoder = _fastest(module, device, dtype)
        self.device = device
        self.image_size: int = module.image_size
        self.in_channels: int = module.in_channels
        self.latent_dim: int = module.latent_dim
        self.n_classes: int = module.n_classes
        self.version: str = module.version
        # Digests of the training images; files of older versions have none.
        self.trained_on: torch.Tensor | None = getattr(module, "trained_on", None)

    def __reduce__(self) -> Any:
        # PyTorch cannot pickle a program.
        return from_archive, (self.archive, self.precision, str(self.device))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(image_size={self.image_size}, in_channels={self.in_channels}, "
            f"latent_dim={self.latent_dim}, n_classes={self.n_classes}, device='{self.device}')"
        )

    def encode(self, images: Any, *, batch_size: int = 256, out: Any = None) -> Any:
        """Code of each image.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Number of images in a batch.
        out : ndarray or Tensor of shape (N, latent_dim), float32, default=None
            Where to write the codes; a memory map if they do not fit into memory.

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
        return self._apply(self._code, images, (self.latent_dim,), batch_size, out)

    def reconstruct(self, images: Any, *, batch_size: int = 256) -> Any:
        """Reconstruction of each image.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Number of images in a batch.

        Returns
        -------
        ndarray or Tensor of shape (N, in_channels, image_size, image_size), float32, in [0, 1]

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """
        shape = (self.in_channels, self.image_size, self.image_size)
        return self._apply(self._image, images, shape, batch_size)

    def anomaly_loss(self, images: Any, *, batch_size: int = 256) -> Any:
        """Mean squared error of each image's reconstruction.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Number of images in a batch.

        Returns
        -------
        ndarray or Tensor of shape (N,), float32

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """

        def loss(x: torch.Tensor) -> torch.Tensor:
            return (self._image(x) - x).square().flatten(1).mean(1)

        return self._apply(loss, images, (), batch_size)

    def anomaly_map(self, images: Any, *, batch_size: int = 256) -> Any:
        """Squared error of each pixel's reconstruction, averaged over the channels.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Number of images in a batch.

        Returns
        -------
        ndarray or Tensor of shape (N, image_size, image_size), float32

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """

        def error(x: torch.Tensor) -> torch.Tensor:
            return (self._image(x) - x).square().mean(1)

        return self._apply(error, images, (self.image_size, self.image_size), batch_size)

    # The layers compute in ``_dtype``; codes and images are float32.
    def _code(self, x: torch.Tensor) -> torch.Tensor:
        return self._encoder(x.to(self._dtype)).to(torch.float32)

    def _image(self, x: torch.Tensor) -> torch.Tensor:
        """Reconstruction of images."""
        return self._decoder(self._code(x).to(self._dtype)).to(torch.float32)

    def _apply(
        self,
        method: Any,
        images: Any,
        row_shape: tuple[int, ...],
        batch_size: int,
        out: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> Any:
        checked = as_images(images, self.in_channels, self.image_size)
        return apply_in_batches(
            method,
            checked,
            row_shape,
            batch_size=batch_size,
            device=self.device,
            out=out,
            dtype=dtype,
        )


ANY_MODEL = AnyOf(
    MODEL, Kind(lambda value: isinstance(value, ExportedAutoencoder), "an ExportedAutoencoder")
)


class ExportedPipeline(ExportedAutoencoder):
    """An autoencoder with the clusters of its codes, read from a file of `export_pipeline`.

    It also has the methods and attributes of `ExportedAutoencoder`.

    Attributes
    ----------
    n_clusters : int
    alpha : float
    cluster_centers : ndarray of shape (K, latent_dim), float64
    """

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(module, device, dtype)
        self.n_clusters: int = module.n_clusters
        self.alpha: float = module.alpha
        self.cluster_centers: np.ndarray = module.centroids.cpu().numpy()

    def predict(self, images: Any, *, batch_size: int = 256) -> Any:
        """Cluster of each image.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Number of images in a batch.

        Returns
        -------
        ndarray or Tensor of shape (N,), int32

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """

        def labels(x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self._module.labels_of(self._distances(x))
            return result

        return self._apply(labels, images, (), batch_size, dtype=torch.int32)

    def membership(self, images: Any, *, batch_size: int = 256) -> Any:
        """Boltzmann memberships of each image's code; rows sum to 1.

        Parameters
        ----------
        images : ndarray or Tensor of shape (N, in_channels, image_size, image_size)
            uint8, or floats in [0, 1].
        batch_size : int, default=256
            Number of images in a batch.

        Returns
        -------
        ndarray or Tensor of shape (N, n_clusters), float32

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """

        def memberships(x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self._module.memberships_of(self._distances(x))
            return result

        return self._apply(memberships, images, (self.n_clusters,), batch_size)

    def _distances(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._module.squared_distances(self._code(x))
        return result


class _Program:
    """A program of torch.export, with the parts and attributes of the TorchScript file."""

    def __init__(self, module: Any, metadata: dict[str, Any]) -> None:
        self.__dict__.update(metadata)
        self.trained_on = from_text(metadata.get("trained_on", ""))
        self.encoder, self.decoder = _compiled(module.encoder), _compiled(module.decoder)

    def to(self, device: torch.device) -> None:
        for part in (self.encoder, self.decoder):
            part.to(device)


class _ProgramWithClusters(_Program):
    """A program of torch.export of `export_pipeline`, with the parts of the TorchScript file."""

    def __init__(self, module: Any, metadata: dict[str, Any]) -> None:
        super().__init__(module, metadata)
        self.centroids, self.merged = module.centroids, module.merged
        self.alpha = float(metadata["alpha"])
        self.metric = str(metadata.get("metric", "euclidean"))  # which older files lack

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.centroids, self.merged = self.centroids.to(device), self.merged.to(device)

    def squared_distances(self, z: torch.Tensor) -> torch.Tensor:
        return squared_distances(z, self.centroids, self.metric)

    def labels_of(self, d2: torch.Tensor) -> torch.Tensor:
        return self.merged[d2.argmin(1)]

    def memberships_of(self, d2: torch.Tensor) -> torch.Tensor:
        return memberships(d2, self.alpha)


def _compiled(part: Any) -> torch.fx.GraphModule:
    """Translate a part of a program to Python code that computes the same.

    Otherwise PyTorch interprets the program node by node, which for a small model takes longer than
    the computation itself.
    """
    for name, child in part.named_children():
        if hasattr(child, "graph"):
            setattr(part, name, _compiled(child))
    return torch.fx.GraphModule(part, part.graph)


def _fastest(
    module: Any, device: torch.device, dtype: torch.dtype
) -> tuple[_packed.Step, _packed.Step]:
    """Move encoder and decoder to the device, and find the fastest functions that compute them."""
    module.to(device)
    if _packed.can_pack(device, dtype):
        size = module.image_size
        return (
            _packed.packed_encoder(module.encoder, size, dtype),
            _packed.packed_decoder(module.decoder, size, dtype),
        )
    for part in (module.encoder, module.decoder):
        part.to(dtype=dtype, memory_format=torch.channels_last)
    return module.encoder, module.decoder


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
) -> ExportedAutoencoder:
    """Read a file that `export` or `export_pipeline` wrote, of either format.

    The weights are brought into the layout in which the layers are fastest: on a CPU with AVX2 that
    of oneDNN, in a copy; elsewhere channels last.

    Parameters
    ----------
    path : str or path-like
        The file.
    device : str or torch.device, default="cpu"
        Where the model shall run.
    precision : {"float32", "bfloat16"}, default="float32"
        "bfloat16" computes the convolutions in bfloat16, which has three digits; the results are
        float32. It is faster on GPUs and on CPUs with bfloat16 instructions, and much slower on
        other CPUs.

    Returns
    -------
    ExportedAutoencoder
        An ExportedPipeline for a file of `export_pipeline`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If a parameter is of the wrong kind.
    ValueError
        If the file is neither TorchScript nor of torch.export, is not an autoencoder of ekmfast,
        or was written in a newer format than this version reads; or if ``precision`` is unknown or
        ``device`` cannot be used.
    OSError
        If the file cannot be read, or is a folder.

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
    path = PATH.check("path", path)
    device = usable(device)
    PRECISION.check("precision", precision)
    if path.is_dir():
        raise IsADirectoryError(f"path={str(path)!r}: is a folder, not a file")
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file")
    read = _read_program if _is_program(path) else _read_script
    module = read(path)
    if getattr(module, "format", None) != FORMAT:
        raise ValueError(
            f"path={str(path)!r}: is not an autoencoder that ekmfast.autoencoder.export wrote"
        )
    if module.format_version > FORMAT_VERSION:
        raise ValueError(
            f"path={str(path)!r}: has format version {module.format_version}, written by ekmfast "
            f"{module.version}; this version reads up to {FORMAT_VERSION}"
        )
    kind = ExportedPipeline if hasattr(module, "n_clusters") else ExportedAutoencoder
    exported = kind(module, device, getattr(torch, precision))
    exported.archive, exported.precision = path.read_bytes(), precision
    return exported


def from_archive(archive: bytes, precision: Any, device: str) -> ExportedAutoencoder:
    """`load` of a file with these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive"
        path.write_bytes(archive)
        return load(path, device=device, precision=precision)


def _is_program(path: Path) -> bool:
    """Whether the archive is one of torch.export; a damaged one is refused."""
    with path.open("rb") as file:  # outside the try, so that an OSError keeps its own message
        try:
            with zipfile.ZipFile(file) as archive:
                # PyTorch itself does not verify the checksums of weights.
                damaged = archive.testzip()
                is_program = any(name.endswith("/archive_format") for name in archive.namelist())
        except Exception as error:  # zipfile raises different types for different damages
            raise _unreadable(path, error) from error
    if damaged is not None:
        raise _unreadable(path, f"{damaged} is damaged")
    return is_program


def _unreadable(path: Path, reason: object) -> ValueError:
    return ValueError(
        f"path={str(path)!r}: is not a readable file of TorchScript or torch.export: "
        f"{first_line(reason)}"
    )


def _read_script(path: Path) -> Any:
    try:
        return torchscript.load(path).eval()
    except NotImplementedError:  # there is no TorchScript here
        raise
    except Exception as error:  # PyTorch raises various types for damaged archives
        raise _unreadable(path, error) from error


def _read_program(path: Path) -> Any:
    extra = {METADATA: ""}
    try:
        with torchscript.quiet(), path.open("rb") as file:
            program = torch.export.load(file, extra_files=extra)
            module = torch.export.unflatten(program)
        metadata = json.loads(extra[METADATA] or "{}")
        if metadata.get("format") != FORMAT:
            return None
        kind = _ProgramWithClusters if "n_clusters" in metadata else _Program
        return kind(module, metadata)
    except Exception as error:
        raise _unreadable(path, error) from error
