"""Sizes of models, numbers of epochs and iterations, and shares of the clusters of a study."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settings:
    """The settings; the defaults are those of the demo.

    Attributes
    ----------
    width, latent_dim : float, int
        Of the autoencoder, as in `ekmfast.autoencoder.ConvAutoencoder`.
    pretrain_epochs, finetune_epochs, batch_size : int
        Of its trainings.
    reconstruction_weight : float
        As in `ekmfast.autoencoder.finetune`.
    n_alphas : int
        Number of alphas of the path.
    tsne_iterations : int
    deep_size, deep_width, deep_warmup, deep_epochs
        Of `ekmfast.autoencoder.DeepEKM`.
    shares : tuple of tuples of int
        Wanted shares of the clusters. Images of three classes are drawn in each of these ratios.
        Images without classes are clustered with the first of them.
    """

    width: float = 0.25
    latent_dim: int = 128
    pretrain_epochs: int = 5
    finetune_epochs: int = 8
    batch_size: int = 128
    reconstruction_weight: float = 1.0
    n_alphas: int = 17
    tsne_iterations: int = 1000
    deep_size: int = 16
    deep_width: float = 0.125
    deep_warmup: int = 20
    deep_epochs: int = 8
    shares: tuple[tuple[int, ...], ...] = ((2, 1, 1), (20, 1, 1))


QUICK = Settings(
    width=0.0625,
    latent_dim=16,
    pretrain_epochs=1,
    finetune_epochs=1,
    n_alphas=3,
    tsne_iterations=250,
    deep_width=0.0625,
    deep_warmup=1,
    deep_epochs=1,
)
# Passes over the images of each training of a study of photos, so many that about this number of
# images is seen, within limits: small sets need more passes until the loss is small.
IMAGES_SEEN = 20_000
LIMITS = (8, 60)
# Photos have less contrast than digits, so that the error of their reconstruction, by which
# anomalies are found, would hardly count beside the cross-entropy.
RECONSTRUCTION_WEIGHT = 10.0
# Sets with fewer images than this get smaller batches, so that an epoch has some steps.
SMALL_SET = 2000


def for_photos(
    n_images: int,
    image_size: int,
    shares: tuple[int, ...],
    *,
    full: bool = False,
    epochs: int | None = None,
    quick: bool = False,
) -> Settings:
    """Settings for a set of photos.

    Parameters
    ----------
    n_images, image_size : int
        Number and size of the images.
    shares : tuple of int
        Wanted shares of the clusters.
    full : bool, default=False
        Whether to train the default model of `ekmfast.autoencoder.ConvAutoencoder`, which has 1,024
        features and, at 64 x 64 pixels, 22 million weights. Otherwise it has 128 features and half
        as many channels, or a quarter at 32 x 32 pixels.
    epochs : int, default=None
        Epochs of each training; None chooses by the number of images.
    quick : bool, default=False
        Tiny model and one epoch.

    Returns
    -------
    Settings

    Examples
    --------
    >>> from ekmfast.study import for_photos
    >>> for_photos(500, 64, (2, 1, 1)).pretrain_epochs
    40
    """
    if quick:
        return replace(QUICK, shares=(shares,))
    if epochs is None:
        epochs = min(max(round(IMAGES_SEEN / n_images), LIMITS[0]), LIMITS[1])
    width = 0.25 if image_size <= 32 else 0.5
    return Settings(
        width=1.0 if full else width,
        latent_dim=1024 if full else 128,
        pretrain_epochs=epochs,
        finetune_epochs=epochs,
        batch_size=128 if n_images >= SMALL_SET else 32,
        reconstruction_weight=RECONSTRUCTION_WEIGHT,
        deep_size=32,
        deep_width=0.25,
        deep_warmup=40,
        deep_epochs=12,
        shares=(shares,),
    )
