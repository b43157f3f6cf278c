"""Export an autoencoder and the clusters of its codes to one file."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ekmfast._parameters import Kind
from ekmfast.autoencoder.export import Exported, kind_of_file, write_program, write_script
from ekmfast.autoencoder.model import MODEL, ConvAutoencoder
from ekmfast.estimators.base import CentroidEstimator

# Weightings whose memberships are softmax(-alpha d).
SOFT = ("equilibrium", "maximum-entropy")
CLUSTERING = Kind(
    lambda value: isinstance(value, CentroidEstimator) and value._weighting in SOFT,
    "an EKMeans",
    "a MiniBatchEKMeans",
    "a SemiSupervisedEKMeans",
    "a MaximumEntropyKMeans",
)


def squared_distances(z: torch.Tensor, centroids: torch.Tensor, metric: str) -> torch.Tensor:
    # float64 without the expanded form, so that they equal the estimator's up to rounding.
    z = z.to(torch.float64)
    if metric == "cosine":
        z = z / z.norm(2, dim=[1], keepdim=True)
    d = torch.cdist(z, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    return d * d


def memberships(d2: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.softmax(-0.5 * alpha * d2, 1).to(torch.float32)


class _Pipeline(Exported):
    """The module in the file: the autoencoder and the clusters of its codes."""

    described = (*Exported.described, "n_clusters", "alpha", "metric")

    def __init__(self, model: ConvAutoencoder, estimator: CentroidEstimator) -> None:
        super().__init__(model)
        centroids = np.asarray(estimator.cluster_centers_, np.float64)
        self.n_clusters = len(centroids)
        self.alpha = float(estimator.alpha_)
        self.metric = estimator.metric
        self.register_buffer("centroids", torch.from_numpy(centroids))
        merged = np.asarray(estimator._merged_, np.int64)
        self.register_buffer("merged", torch.from_numpy(merged))

    def squared_distances(self, z: torch.Tensor) -> torch.Tensor:
        return squared_distances(z, self.centroids, self.metric)

    def labels_of(self, d2: torch.Tensor) -> torch.Tensor:
        return self.merged[d2.argmin(1)]

    def memberships_of(self, d2: torch.Tensor) -> torch.Tensor:
        return memberships(d2, self.alpha)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return self.labels_of(self.squared_distances(self.encode(x)))

    @torch.jit.export  # type: ignore[untyped-decorator]
    def membership(self, x: torch.Tensor) -> torch.Tensor:
        return self.memberships_of(self.squared_distances(self.encode(x)))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.images(x)
        z = self.code(x)
        d2 = self.squared_distances(z)
        return {
            "codes": z,
            "labels": self.labels_of(d2),
            "memberships": self.memberships_of(d2),
            "anomaly_loss": (self.image(z) - x).square().flatten(1).mean(1),
        }


class _Outputs(nn.Module):
    """The module in the file of torch.export; its encoder and decoder can be called separately."""

    def __init__(self, pipeline: _Pipeline) -> None:
        super().__init__()
        self.encoder = pipeline.encoder
        self.decoder = pipeline.decoder
        self.register_buffer("centroids", pipeline.centroids)
        self.register_buffer("merged", pipeline.merged)
        self.alpha = pipeline.alpha
        self.metric = pipeline.metric

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        z = self.encoder(x)
        d2 = squared_distances(z, self.centroids, self.metric)
        return {
            "codes": z,
            "labels": self.merged[d2.argmin(1)],
            "memberships": memberships(d2, self.alpha),
            "anomaly_loss": (self.decoder(z) - x).square().flatten(1).mean(1),
        }


def export_pipeline(
    autoencoder: ConvAutoencoder,
    clustering: Any,
    path: str | os.PathLike[str],
    *,
    format: Literal["torchscript", "pt2"] | None = None,
) -> Path:
    """Write an autoencoder and the clusters of its codes to one file that needs only PyTorch.

    A TorchScript file is called as ``torch.jit.load(path)(images)`` from Python or C++. It takes
    images (N, C, S, S), as bytes or floats in [0, 1], and returns a dict of tensors: ``codes``
    (N, latent_dim), ``labels`` (N,), ``memberships`` (N, K), ``anomaly_loss`` (N,). The methods
    ``encode``, ``reconstruct``, ``anomaly_loss``, ``predict`` and ``membership`` compute a single
    result each. Distances are computed in float64.

    ``torch.export.load(path).module()(images)`` of a ``pt2`` file returns the same dict for images
    that are floats in [0, 1]. The metadata of both formats are those of `export`, with
    ``n_clusters``, ``alpha`` and ``metric``.

    Parameters
    ----------
    autoencoder : ConvAutoencoder
        The model, on any device.
    clustering : EKMeans, MiniBatchEKMeans, SemiSupervisedEKMeans or MaximumEntropyKMeans
        An estimator that was fitted to codes of this model.
    path : str or path-like
        File to write, usually with the suffix ``.ts`` or ``.pt2``. An existing file is replaced
        when the new one is complete, and stays unchanged if writing fails.
    format : {"torchscript", "pt2"}, default=None
        None chooses by the suffix: "pt2" for ``.pt2``, "torchscript" for all others.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    TypeError
        If ``autoencoder`` or ``clustering`` is of another type.
    ValueError
        If the clustering was fitted to another number of features than the codes have, or
        ``format`` is unknown, or the file is named ``.onnx``: `ekmfast.export_onnx` writes it. If
        the clustering has ``zero_rows="label"``, since the file labels codes of zeros like others.
    NotImplementedError
        If the format is "torchscript" on Python 3.14 or newer, where PyTorch does not support it.
    FileNotFoundError
        If the folder of ``path`` does not exist.
    OSError
        If the file cannot be written, as on a full disk.
    NotFittedError
        If ``clustering`` is not fitted.

    See Also
    --------
    load : Read the file back.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ekmfast import EKMeans
    >>> from ekmfast.autoencoder import ConvAutoencoder, encode, export_pipeline, load
    >>> model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=4, width=0.0625)
    >>> images = np.random.default_rng(0).random((20, 1, 16, 16), np.float32)
    >>> clusters = EKMeans(2, random_state=0).fit(encode(model, images))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = load(export_pipeline(model, clusters, f"{folder}/pipeline.ts"))
    >>> bool((loaded.predict(images) == clusters.labels_).all())
    True
    """
    MODEL.check("autoencoder", autoencoder)
    CLUSTERING.check("clustering", clustering)
    check_is_fitted(clustering)
    if clustering.n_features_in_ != autoencoder.latent_dim:
        raise ValueError(
            f"clustering was fitted to {clustering.n_features_in_} features: must be fitted to the "
            f"codes, latent_dim={autoencoder.latent_dim}"
        )
    if clustering.metric == "cosine" and clustering.zero_rows == "label":
        raise ValueError(
            "clustering has zero_rows='label', but the file would label codes of zeros like "
            "others: use ekmfast.export_onnx(clustering, ...), or "
            "clustering.set_params(zero_rows='error')"
        )
    path, kind = kind_of_file(path, format)
    pipeline = _Pipeline(autoencoder, clustering).cpu().eval()
    if kind == "torchscript":
        write_script(pipeline, path)
    else:
        write_program(_Outputs(pipeline), pipeline, path)
    return path
