"""Write an autoencoder to a file that runs with PyTorch but without ekmfast."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, ClassVar, Literal

import torch
from torch import nn

from ekmfast._files import check_output, replace_file
from ekmfast._parameters import NONE, PATH, AnyOf, OneOf
from ekmfast._version import __version__
from ekmfast.autoencoder import torchscript
from ekmfast.autoencoder._folding import folded
from ekmfast.autoencoder.model import MODEL, ConvAutoencoder
from ekmfast.autoencoder.seen import as_text, trained_on
from ekmfast.autoencoder.torchscript import require_torchscript

FORMAT = "ekmfast-autoencoder"
FORMAT_VERSION = 1
# Name of the extra file with the metadata in a file of torch.export.
METADATA = "ekmfast.json"
KIND_OF_FILE = AnyOf(NONE, OneOf("torchscript", "pt2"))
NORMALISATION = "bytes / 255, or floats in [0, 1]"


class Exported(nn.Module):
    """The module in the TorchScript file: the methods, the weights and the metadata."""

    # Names of the metadata that a file of torch.export holds as JSON.
    described: ClassVar[tuple[str, ...]] = (
        "format",
        "format_version",
        "version",
        "normalisation",
        "image_size",
        "in_channels",
        "latent_dim",
        "n_classes",
    )

    def __init__(self, model: ConvAutoencoder) -> None:
        super().__init__()
        self.format = FORMAT
        self.format_version = FORMAT_VERSION
        self.version = __version__
        self.normalisation = NORMALISATION
        self.image_size = model.image_size
        self.in_channels = model.in_channels
        self.latent_dim = model.latent_dim
        self.n_classes = model.n_classes
        self.encoder: nn.Sequential = folded(model.encoder)
        self.decoder: nn.Sequential = folded(model.decoder)
        self.requires_grad_(False)
        self.register_buffer("trained_on", torch.from_numpy(trained_on(model)))

    def images(self, x: torch.Tensor) -> torch.Tensor:
        """Check the shape of images and convert them to float32 in [0, 1]."""
        c, s = self.in_channels, self.image_size
        if x.dim() != 4 or x.size(1) != c or x.size(2) != s or x.size(3) != s:
            raise ValueError(f"x has shape {list(x.shape)}: must be (N, {c}, {s}, {s})")
        floats = x.to(torch.float32)
        return floats / 255.0 if x.dtype == torch.uint8 else floats

    def code(self, x: torch.Tensor) -> torch.Tensor:
        # The layers compute in the type of their weights, which may be bfloat16; codes are float32.
        return self.encoder(x.to(self.encoder[0].weight.dtype)).to(torch.float32)

    def image(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z.to(self.decoder[0].weight.dtype)).to(torch.float32)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(self.images(x))

    @torch.jit.export  # type: ignore[untyped-decorator]
    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.image(self.encode(x))

    @torch.jit.export  # type: ignore[untyped-decorator]
    def anomaly_loss(self, x: torch.Tensor) -> torch.Tensor:
        x = self.images(x)
        return (self.image(self.code(x)) - x).square().flatten(1).mean(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encode(x)


class _Outputs(nn.Module):
    """The module in the file of torch.export; its encoder and decoder can be called separately."""

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.encoder = exported.encoder
        self.decoder = exported.decoder

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        x_prime = self.decoder(z)
        return z, x_prime, (x_prime - x).square().flatten(1).mean(1)


def export(
    model: ConvAutoencoder,
    path: str | os.PathLike[str],
    *,
    format: Literal["torchscript", "pt2"] | None = None,
) -> Path:
    """Write a model, in evaluation mode, to a file that runs with PyTorch but without ekmfast.

    A TorchScript file has the methods ``encode``, ``reconstruct`` and ``anomaly_loss``, which are
    called as ``torch.jit.load(path).encode(x)`` from Python or C++. They take batches of any size,
    of bytes or of floats in [0, 1]. Its attributes are ``image_size``, ``in_channels``,
    ``latent_dim``, ``n_classes``, ``normalisation``, ``version`` (of ekmfast), ``format`` and
    ``format_version``.

    A ``pt2`` file has the format of ``torch.export``: ``torch.export.load(path).module()(x)``
    returns codes, reconstructions and anomaly losses of floats in [0, 1].
    ``torch.export.unflatten`` of the loaded program has the parts ``encoder`` and ``decoder``. The
    metadata are JSON in the extra file ``ekmfast.json``.

    Both formats contain digests of the images that the model was trained on (8 bytes each), by
    which `ekmfast.anomaly` recognizes training images.

    From Python 3.14 on PyTorch does not support TorchScript: name the file ``.pt2`` there.

    The class predictor is left out, and the batch normalisations are folded into the convolutions.
    The model itself is not changed.

    Parameters
    ----------
    model : ConvAutoencoder
        The model, on any device; the weights in the file are on the CPU.
    path : str or path-like
        File to write, usually with the suffix ``.ts``, ``.pt`` or ``.pt2``. An existing file is
        replaced when the new one is complete, and stays unchanged if writing fails.
    format : {"torchscript", "pt2"}, default=None
        None chooses by the suffix: "pt2" for ``.pt2``, "torchscript" for all others.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    TypeError
        If ``model`` is not a ConvAutoencoder, or ``path`` no path.
    ValueError
        If ``format`` is unknown, or the file is named ``.onnx``: `ekmfast.export_onnx` writes
        it.
    NotImplementedError
        If the format is "torchscript" on Python 3.14 or newer, where PyTorch does not support it.
    FileNotFoundError
        If the folder of ``path`` does not exist.
    OSError
        If the file cannot be written, for instance on a full disk.

    See Also
    --------
    load : Read the file back.
    export_pipeline : Write the model together with the clusters of its codes.

    Examples
    --------
    >>> import tempfile
    >>> from ekmfast.autoencoder import ConvAutoencoder, export, load
    >>> model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=4, width=0.0625)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = load(export(model, f"{folder}/model.ts"))
    >>> loaded.latent_dim
    4
    """
    MODEL.check("model", model)
    path, kind = kind_of_file(path, format)
    exported = Exported(model).cpu().eval()
    if kind == "torchscript":
        write_script(exported, path)
    else:
        write_program(_Outputs(exported), exported, path)
    return path


def kind_of_file(
    path: str | os.PathLike[str], format: Literal["torchscript", "pt2"] | None
) -> tuple[Path, str]:
    """Check the parameters of these names, and choose a format by the suffix if there is none."""
    path = PATH.check("path", path)
    KIND_OF_FILE.check("format", format)
    if format is None and path.suffix.lower() == ".onnx":
        raise ValueError(f"path={str(path)!r}: ekmfast.export_onnx writes files of ONNX")
    chosen = format or ("pt2" if path.suffix == ".pt2" else "torchscript")
    if chosen == "torchscript":
        pt2 = path.with_suffix(".pt2").name
        require_torchscript(f"write a file of torch.export, path={pt2!r}")
    return path, chosen


def write_script(module: nn.Module, path: Path) -> None:
    """Compile a module to TorchScript and write it to a file."""
    _write(path, lambda buffer: torchscript.save(torchscript.script(module), buffer))


def write_program(outputs: nn.Module, exported: Exported, path: Path) -> None:
    """Write a file of torch.export that computes ``outputs``, with the metadata of ``exported``."""
    _write(path, lambda buffer: _save_program(outputs, exported, buffer))


def _save_program(outputs: nn.Module, exported: Exported, buffer: IO[bytes]) -> None:
    metadata = {name: getattr(exported, name) for name in exported.described}
    metadata["trained_on"] = as_text(exported.trained_on)
    x = torch.zeros(2, exported.in_channels, exported.image_size, exported.image_size)
    with torchscript.quiet():
        program = torch.export.export(
            outputs.eval(),
            (x,),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            preserve_module_call_signature=("encoder", "decoder"),
        )
        torch.export.save(program, buffer, extra_files={METADATA: json.dumps(metadata)})


def _write(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    """Write to the file the bytes that ``save`` writes to a buffer, completely or not at all.

    PyTorch writes to memory, since its own file writer ends the process on a full disk. It would
    also store the name of the file in the archive; without it the same model gives the same bytes.
    """
    check_output(path)
    buffer = io.BytesIO()
    save(buffer)

    def fill(file: IO[bytes]) -> None:
        file.write(buffer.getbuffer())

    replace_file(path, fill)
