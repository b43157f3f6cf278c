"""Train an encoder so that its codes form clusters: the training loop of `DeepEKM`."""

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import mse_loss

from ekmfast.autoencoder._contrast import nt_xent
from ekmfast.autoencoder._generators import seeded
from ekmfast.autoencoder._training_loop import (
    Change,
    Settings,
    _changed,
    _progress,
    _schedule,
    n_batches,
)
from ekmfast.autoencoder.encoding import encode
from ekmfast.autoencoder.images import DatasetImages, Images
from ekmfast.autoencoder.model import ConvAutoencoder
from ekmfast.autoencoder.seen import digests, remember


class Clusters(Protocol):
    """The methods of the clusters that the loop calls; one object is used for all epochs."""

    def update(self, codes: NDArray[np.float32]) -> NDArray[np.int32]:
        """Fit the centroids to the codes, and return the labels."""

    def loss(self, codes: torch.Tensor) -> torch.Tensor:
        """Mean objective of some codes at the centroids of the last update, differentiable."""


@dataclass(frozen=True)
class Weights:
    """The weights of the terms of the loss, and the temperature of the contrastive loss."""

    reconstruction: float
    contrast: float
    clustering: float
    temperature: float


@dataclass
class DeepHistory:
    """Losses and labels of each epoch, beginning with the epochs of the warm-up.

    Attributes
    ----------
    reconstruction_loss, contrastive_loss : list of float
        Means over the images of the squared error, and of NT-Xent; NaN where its weight is 0.
    clustering_loss : list of float
        Mean objective over the codes of the augmented images, in units of their dispersion; NaN in
        the warm-up.
    labels_changed : list of float
        Share of the images whose labels changed at the update of the centroids before the epoch;
        NaN in the warm-up and in the first epoch after it.
    n_clusters : list of int
        Number of distinct labels after that update; 0 in the warm-up.
    """

    reconstruction_loss: list[float] = field(default_factory=list)
    contrastive_loss: list[float] = field(default_factory=list)
    clustering_loss: list[float] = field(default_factory=list)
    labels_changed: list[float] = field(default_factory=list)
    n_clusters: list[int] = field(default_factory=list)


def train_clusters(
    model: ConvAutoencoder,
    images: Images | DatasetImages,
    clusters: Clusters,
    augment: Change,
    weights: Weights,
    settings: Settings,
    n_warmup: int,
    rng: np.random.Generator,
) -> DeepHistory:
    """Train ``model`` in place. It ends in evaluation mode, and its codes have variance 1.

    The first ``n_warmup`` of the ``settings.epochs`` epochs are trained without clusters. Before
    each later epoch all images are encoded and the clusters are updated. Every image is used in two
    random views. The reconstruction loss uses the first view, the contrastive loss compares the
    codes of both, and the clustering loss is the mean over both.
    """
    device = next(model.parameters()).device
    steps = n_batches(len(images), settings.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = _schedule(optimizer, settings, steps)
    history = DeepHistory()
    labels: NDArray[np.int32] | None = None
    seen: list[NDArray[np.int64]] = []
    # Each feature of the codes has variance 1, so this is the mean of 1/2 ||z - mean||^2.
    unit = 0.5 * model.latent_dim
    try:
        with (
            seeded(int(rng.integers(2**63)), device),
            _progress("DeepEKM", settings, steps) as progress,
        ):
            for epoch in range(settings.epochs):
                clustering = epoch >= n_warmup
                changed = math.nan
                if clustering:
                    before, labels = labels, clusters.update(calibrated_codes(model, images))
                    if before is not None:
                        changed = float(np.mean(before != labels))
                history.labels_changed.append(changed)
                history.n_clusters.append(0 if labels is None else len(np.unique(labels)))
                model.train()
                totals = torch.zeros(3, dtype=torch.float64, device=device)
                order = rng.permutation(len(images))
                parts = np.array_split(order, steps)
                for x in images.batches(parts, device):
                    if epoch == 0:
                        seen.append(digests(x))
                    first, second = (_changed(augment, x, "augment") for _ in range(2))
                    optimizer.zero_grad(set_to_none=True)
                    codes = model.encode(torch.cat([first, second]))
                    own, other = codes.chunk(2)
                    terms = codes.new_full((3,), math.nan)
                    loss = codes.new_zeros(())
                    if weights.reconstruction:
                        terms[0] = value = mse_loss(model.decode(own), first)
                        loss = loss + weights.reconstruction * value
                    if weights.contrast:
                        terms[1] = value = nt_xent(own, other, weights.temperature)
                        loss = loss + weights.contrast * value
                    if clustering:
                        terms[2] = value = clusters.loss(codes) / unit
                        loss = loss + weights.clustering * value
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    totals += terms.detach() * len(x)
                    progress.update()
                means = (totals / len(images)).tolist()
                if not math.isfinite(float(loss.detach())):
                    raise FloatingPointError(
                        f"the loss of epoch {epoch + 1} is not finite: lower learning_rate="
                        f"{settings.learning_rate!r}"
                    )
                history.reconstruction_loss.append(means[0])
                history.contrastive_loss.append(means[1])
                history.clustering_loss.append(means[2])
                shown = {
                    "reconstruction": means[0],
                    "contrast": means[1],
                    "clustering": means[2],
                }
                progress.set_postfix({k: f"{v:.4f}" for k, v in shown.items() if v == v})
    finally:
        remember(model, seen)
        model.zero_grad(set_to_none=True)
        model.eval()
    return history


def calibrated_codes(model: ConvAutoencoder, images: Images | DatasetImages) -> NDArray[np.float32]:
    """Codes of all images, after correcting the averages in the model's last batch normalisation.

    Batch normalisation keeps running averages over augmented images, computed while the weights
    change. With these averages, features of the codes have variances of .5 to 2 in evaluation mode.
    This function replaces them by the mean and variance over the images without augmentation: if
    (a - m) / s has mean u and variance v, then a has mean m + s u and variance s^2 v.
    """
    given = encode(model, images)
    codes = np.asarray(given.cpu() if isinstance(given, torch.Tensor) else given, np.float32)
    norm = model.encoder.code_norm
    mean, variance = codes.mean(axis=0, dtype=np.float64), codes.var(axis=0, dtype=np.float64)
    squared = norm.running_var.double().cpu().numpy() + norm.eps  # s^2
    new_squared = np.maximum(squared * variance, norm.eps)
    new_mean = norm.running_mean.double().cpu().numpy() + np.sqrt(squared) * mean
    with torch.no_grad():
        norm.running_mean.copy_(torch.from_numpy(new_mean))
        norm.running_var.copy_(torch.from_numpy(new_squared - norm.eps))
    calibrated = (codes - mean) * np.sqrt(squared / new_squared)
    return np.asarray(calibrated, np.float32)
