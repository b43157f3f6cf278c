"""Export an autoencoder and the clusters of its codes to one file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ekmfast._parameters import PATH, Kind
from ekmfast.autoencoder.export import Exported, write_script
from ekmfast.autoencoder.model import MODEL, ConvAutoencoder
from ekmfast.autoencoder.torchscript import require_torchscript
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


class _Pipeline(Exported):
    """The module in the file: the autoencoder and the clusters of its codes."""

    def __init__(self, model: ConvAutoencoder, estimator: CentroidEstimator) -> None:
        super().__init__(model)
        centroids = np.asarray(estimator.cluster_centers_, np.float64)
        self.n_clusters = len(centroids)
        self.alpha = float(estimator.alpha_)
        self.register_buffer("centroids", torch.from_numpy(centroids))
        merged = np.asarray(estimator._merged_, np.int64)
        self.register_buffer("merged", torch.from_numpy(merged))

    def squared_distances(self, z: torch.Tensor) -> torch.Tensor:
        # float64 without the expanded form, so that they equal the estimator's up to rounding.
        d = torch.cdist(
            z.to(torch.float64),
            self.centroids,
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        return d * d

    def labels_of(self, d2: torch.Tensor) -> torch.Tensor:
        return self.merged[d2.argmin(1)]

    def memberships_of(self, d2: torch.Tensor) -> torch.Tensor:
        return torch.softmax(-0.5 * self.alpha * d2, 1).to(torch.float32)

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


def export_pipeline(
    autoencoder: ConvAutoencoder, clustering: Any, path: str | os.PathLike[str]
) -> Path:
    """Write an autoencoder and the clusters of its codes to one TorchScript file.

    ``torch.jit.load(path)(images)`` needs only PyTorch, in Python or C++. It takes images
    (N, C, S, S), as bytes or floats in [0, 1], and returns a dict of tensors: ``codes``
    (N, latent_dim), ``labels`` (N,), ``memberships`` (N, K), ``anomaly_loss`` (N,). The methods
    ``encode``, ``reconstruct``, ``anomaly_loss``, ``predict`` and ``membership`` compute a single
    result each. The metadata are those of `export`, with ``n_clusters`` and ``alpha``. Distances
    are computed in float64.

    Parameters
    ----------
    autoencoder : ConvAutoencoder
        The model, on any device.
    clustering : EKMeans, MiniBatchEKMeans, SemiSupervisedEKMeans or MaximumEntropyKMeans
        An estimator that was fitted to codes of this model.
    path : str or path-like
        File to write, usually with the suffix ``.ts``. An existing file is replaced when the new
        one is complete, and stays unchanged if writing fails.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    TypeError
        If ``autoencoder`` or ``clustering`` is of another type.
    ValueError
        If the clustering was fitted to another number of features than the codes have.
    NotImplementedError
        On Python 3.14 and newer, where PyTorch does not support TorchScript.
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
    path = PATH.check("path", path)
    require_torchscript(
        "export(model, 'model.pt2') writes the model alone, ekmfast.save the clusters"
    )
    write_script(_Pipeline(autoencoder, clustering).cpu().eval(), path)
    return path
