"""Train an encoder so that its codes form clusters: the alternation of `DeepEKM`."""

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import mse_loss

from ekmfast.autoencoder._contrast import nt_xent
from ekmfast.autoencoder._training_loop import (
    Change,
    Settings,
    _changed,
    _progress,
    _schedule,
    _seeded,
    n_batches,
)
from ekmfast.autoencoder.encoding import encode
from ekmfast.autoencoder.images import DatasetImages, Images
from ekmfast.autoencoder.model import ConvAutoencoder
from ekmfast.autoencoder.seen import digests, remember


class Clusters(Protocol):
    """What the loop asks of the clusters; one of these outlives all epochs."""

    def update(self, codes: NDArray[np.float32]) -> NDArray[np.int32]:
        """Move the centroids to the codes; labels."""

    def loss(self, codes: torch.Tensor) -> torch.Tensor:
        """Mean objective of some codes at the centroids of the last update, differentiable."""


@dataclass(frozen=True)
class Weights:
    """What each part of the loss counts, and the temperature of the contrast."""

    reconstruction: float
    contrast: float
    clustering: float
    temperature: float


@dataclass
class DeepHistory:
    """What happened in each epoch, the warm-up's first.

    Attributes
    ----------
    reconstruction_loss, contrastive_loss : list of float
        Means over the images: of the squared error, and of NT-Xent; NaN where it counts nothing.
    clustering_loss : list of float
        Mean objective over the codes of the augmented images, in units of their dispersion; NaN in
        the warm-up.
    labels_changed : list of float
        Share of the images whose label the update before the epoch changed; NaN in the warm-up
        and in the first epoch after it.
    n_clusters : list of int
        Distinct labels at the update before the epoch; 0 in the warm-up.
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
    """Train ``model`` in place; it ends in evaluation mode, its codes of variance 1.

    Of ``settings.epochs`` epochs the first ``n_warmup`` have no clusters. Before each other one all
    images are encoded and the clusters updated. Every image is seen in two random views: the first
    is to be reconstructed, both are to have like codes, and both are drawn to the clusters.
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
    # d is of the order of the number of features, where each has variance 1.
    unit = 0.5 * model.latent_dim
    try:
        with _seeded(device, rng), _progress("DeepEKM", settings, steps) as progress:
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
    """Codes of all images, and the model's own averages of them set right.

    Batch normalisation keeps running averages, of augmented images and over changing weights; its
    codes in evaluation mode have variances of .5 to 2 by them. Here they become mean and variance
    of the images as they are: if (a - m) / s has mean u and variance v, then a has mean m + s u and
    variance s^2 v.
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
