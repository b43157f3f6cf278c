"""A convolutional autoencoder whose codes are clustered and whose errors reveal anomalies.

Needs PyTorch: ``pip install "ekmfast[torch]"``.
"""

from ekmfast._optional import require

# ruff: noqa: E402 - without PyTorch, this call raises an error that says how to install it.
require("torch", "torch")

from ekmfast.autoencoder._deep_training import DeepHistory
from ekmfast.autoencoder.deep import DeepEKM
from ekmfast.autoencoder.encoding import encode
from ekmfast.autoencoder.equilibrium import equilibrium_loss
from ekmfast.autoencoder.export import export
from ekmfast.autoencoder.loading import ExportedAutoencoder, ExportedPipeline, load
from ekmfast.autoencoder.model import ConvAutoencoder
from ekmfast.autoencoder.pipeline import export_pipeline
from ekmfast.autoencoder.training import History, finetune, pretrain

__all__ = [
    "ConvAutoencoder",
    "DeepEKM",
    "DeepHistory",
    "ExportedAutoencoder",
    "ExportedPipeline",
    "History",
    "encode",
    "equilibrium_loss",
    "export",
    "export_pipeline",
    "finetune",
    "load",
    "pretrain",
]
