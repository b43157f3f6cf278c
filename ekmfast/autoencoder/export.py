"""Write an autoencoder to a file that PyTorch alone can run."""

import copy
import os
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ekmfast._version import __version__
from ekmfast.autoencoder import _torchscript
from ekmfast.autoencoder.model import ConvAutoencoder

FORMAT = "ekmfast-autoencoder"
FORMAT_VERSION = 1


def _without_batch_norm(part: nn.Sequential) -> nn.Sequential:
    """A copy whose normalisations are folded into the convolutions before them.

    ``torch.jit.freeze`` folds too, but it turns the weights into constants of one device.
    """
    layers: list[nn.Module] = []
    for layer in copy.deepcopy(part).eval():
        if isinstance(layer, nn.BatchNorm2d):
            transposed = isinstance(layers[-1], nn.ConvTranspose2d)
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer, transpose=transposed)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


class _Exported(nn.Module):
    """What the file holds: the methods, the weights and the metadata."""

    def __init__(self, model: ConvAutoencoder) -> None:
        super().__init__()
        self.format = FORMAT
        self.format_version = FORMAT_VERSION
        self.version = __version__
        self.image_size = model.image_size
        self.in_channels = model.in_channels
        self.latent_dim = model.latent_dim
        self.n_classes = model.n_classes
        self.encoder: nn.Sequential = _without_batch_norm(model.encoder)
        self.decoder: nn.Sequential = _without_batch_norm(model.decoder)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        c, s = self.in_channels, self.image_size
        if x.dim() != 4 or x.size(1) != c or x.size(2) != s or x.size(3) != s:
            raise ValueError(f"x has shape {list(x.shape)}: must be (N, {c}, {s}, {s})")
        return self.encoder(x)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encode(x))

    @torch.jit.export  # type: ignore[untyped-decorator]
    def anomaly_loss(self, x: torch.Tensor) -> torch.Tensor:
        return (self.reconstruct(x) - x).square().flatten(1).mean(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encode(x)


def export(model: ConvAutoencoder, path: str | os.PathLike[str]) -> Path:
    """Write a model to a TorchScript file, in evaluation mode.

    The file runs with PyTorch alone: ``torch.jit.load(path).encode(x)``, and likewise
    ``reconstruct`` and ``anomaly_loss``, on float32 batches in [0, 1] of any size. It carries the
    attributes ``image_size``, ``in_channels``, ``latent_dim``, ``n_classes``, ``version`` (of
    ekmfast), ``format`` and ``format_version``. The class predictor is left out; the batch
    normalisations are folded into the convolutions. The model is not changed.

    Parameters
    ----------
    model : ConvAutoencoder
        The model, on any device; the file holds its weights as they are on the CPU.
    path : str or path-like
        File to write, by custom with the suffix ``.pt``. An existing file is replaced at once,
        when the new one is complete.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    TypeError
        If ``model`` is not a ConvAutoencoder.
    FileNotFoundError
        If the folder of ``path`` does not exist.

    See Also
    --------
    load : Read the file back.

    Examples
    --------
    >>> import tempfile
    >>> from ekmfast.autoencoder import ConvAutoencoder, export, load
    >>> model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=4, width=0.0625)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = load(export(model, f"{folder}/model.pt"))
    >>> loaded.latent_dim
    4
    """
    if not isinstance(model, ConvAutoencoder):
        raise TypeError(f"model is a {type(model).__name__}: must be a ConvAutoencoder")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: the folder {path.parent} does not exist")
    scripted = _torchscript.script(_Exported(model).cpu().eval())
    # PyTorch writes the file's name into the archive, so the draft gets a constant name inside a
    # folder of its own and the same model gives the same bytes.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        draft = Path(folder) / "autoencoder.pt"
        _torchscript.save(scripted, draft)
        os.replace(draft, path)
    return path
