"""DeepEKM: train an autoencoder and cluster its codes together."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from ekmfast._parameters import (
    ALPHA,
    CALLABLE,
    COUNT,
    NONE,
    POSITIVE,
    SEED,
    VERBOSE,
    AnyOf,
    Constraint,
    Integer,
    Kind,
    Number,
    OneOf,
    Parameters,
    check_seed,
)
from ekmfast.autoencoder._deep_training import (
    DeepHistory,
    Weights,
    calibrated_codes,
    train_clusters,
)
from ekmfast.autoencoder._training_loop import SETTINGS, Settings
from ekmfast.autoencoder.encoding import encode
from ekmfast.autoencoder.equilibrium import equilibrium_loss
from ekmfast.autoencoder.images import as_images
from ekmfast.autoencoder.model import MODEL, ConvAutoencoder
from ekmfast.autoencoder.new_model import PARAMETERS as OF_A_NEW_MODEL
from ekmfast.autoencoder.new_model import new_model
from ekmfast.autoencoder.resize import resized
from ekmfast.autoencoder.training import _augmentation
from ekmfast.estimators.ekmeans import EKMeans
from ekmfast.estimators.hard import HardKMeans


class DeepEKM(
    Parameters, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator
):
    """Cluster images by the codes of an autoencoder that is trained to cluster them.

    The training begins with a warm-up without clusters. After it, every epoch begins with an update
    of the centroids, fitted to the codes of all images. Then the encoder and the decoder are
    trained with the weighted sum of

    - the squared error of the reconstruction,
    - NT-Xent, which is small if two random views of an image have similar codes, and codes of
      different images are dissimilar,
    - `equilibrium_loss` of the codes and the centroids, whose gradient moves codes towards their
      cluster.

    The encoder ends in a batch normalisation that keeps the variance of each feature at 1; without
    it the last term would shrink all codes to a point. An update continues from the last centroids
    and also tries new starts; the result with the lower objective is kept.

    On small draws of digits `DeepEKM` is better than deep hard k-means if one class is much larger
    than all others, and equally good otherwise. It is hardly better than `EKMeans` on the codes of
    the warm-up (``epochs=0``). bench/README.md has the numbers.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    model : ConvAutoencoder or None, default=None
        The model whose copy is trained; it must have ``normalize_codes=True``. None makes a new
        model.
    clustering : {"equilibrium", "hard"}, default="equilibrium"
        "hard" is deep k-means, for comparison: it uses `HardKMeans` and the mean of min_k d_kn.
    alpha : {"auto", "dvariance"} or float, default="auto"
        Sharpness of the memberships. "auto" chooses alpha as `EKMeans` does, on the codes of the
        warm-up and again on the final codes; in between, alpha times the dispersion of the codes
        is constant. "dvariance" is ``scale`` divided by the dispersion of the codes, computed in
        every epoch.
    scale : float, default=4.0
        The scale for "dvariance". With 2, the usual value elsewhere, several centroids coincide, so
        that clusters are lost.
    image_size : int, default=32
        Height and width, a multiple of 16, to which images are resized. If ``model`` is given, its
        size is used instead.
    latent_dim : int, default=32
        Features of the code of a new model.
    width : float, default=0.25
        Width of a new model, as in `ConvAutoencoder`.
    warmup_epochs : int, default=60
        Epochs without clusters; use 0 for a ``model`` that is already trained.
    epochs : int, default=20
        Epochs with clusters; with 0 the codes of the warm-up are clustered.
    batch_size : int, default=128
        Images in a step; two views of each are used.
    learning_rate : float, default=2e-3
        Learning rate of AdamW at the beginning; it falls to 0 by a cosine schedule.
    reconstruction_weight, contrastive_weight, clustering_weight : float, default=1.0, 1.0, 0.1
        Weights of the terms of the loss. The clustering term is divided by the dispersion of the
        codes.
    temperature : float, default=0.5
        Temperature of NT-Xent.
    augment : True or callable, default=True
        How random views are made, as in `finetune`.
    device : str, default="cpu"
        Device on which a new model is trained and run.
    random_state : int, RandomState instance or None, default=None
        Seed of the weights, the training and the clusters.
    verbose : int, default=0
        1 shows the training's progress.

    Attributes
    ----------
    autoencoder_ : ConvAutoencoder
        The trained model. `export_pipeline` writes it and ``clusterer_`` to one file.
    clusterer_ : EKMeans or HardKMeans
        The clustering, fitted to the final codes.
    cluster_centers_ : ndarray of shape (n_clusters, latent_dim)
        Centroids in the space of the codes.
    labels_ : ndarray of shape (N,), int32
        Labels of the images of ``fit``.
    alpha_ : float
        The alpha of ``clusterer_``; infinity for "hard".
    objective_ : float
        The objective J of the final codes.
    n_clusters_effective_ : int
        Number of clusters when coincident centroids are counted as one.
    history_ : DeepHistory
        Losses, changed labels and numbers of clusters of every epoch.

    Raises
    ------
    ImportError
        From ``fit``, if kornia is not installed and ``augment`` is True.
    ValueError, TypeError
        From ``fit``, for parameters or images that are not as described.
    FloatingPointError
        From ``fit``, if the loss is no longer finite.

    References
    ----------
    Y. He, "Imbalanced Data Clustering using Equilibrium K-Means", arXiv 2402.14490. Its section
    on deep clustering uses neither the contrastive loss nor the normalisation.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.autoencoder import DeepEKM
    >>> rng = np.random.default_rng(0)
    >>> images = rng.uniform(0, 0.2, (60, 16, 16)).astype(np.float32)
    >>> images[:50, 2:6] += 0.8  # most have a bar at the top, some at the left
    >>> images[50:, :, 2:6] += 0.8
    >>> deep = DeepEKM(
    ...     2, image_size=16, latent_dim=4, width=0.0625, warmup_epochs=10, epochs=2,
    ...     batch_size=30, random_state=0,
    ... ).fit(images)
    >>> np.sort(np.bincount(deep.labels_)).tolist()
    [10, 50]
    """

    _constraints: ClassVar[dict[str, Constraint]] = {
        "n_clusters": COUNT,
        "model": AnyOf(NONE, MODEL),
        "clustering": OneOf("equilibrium", "hard"),
        "alpha": ALPHA,
        "scale": POSITIVE,
        **OF_A_NEW_MODEL,
        "warmup_epochs": Integer(0),
        "epochs": Integer(0),
        "batch_size": SETTINGS["batch_size"],
        "learning_rate": POSITIVE,
        "reconstruction_weight": Number(0),
        "contrastive_weight": Number(0),
        "clustering_weight": Number(0),
        "temperature": POSITIVE,
        "augment": AnyOf(Kind(lambda value: value is True, "True"), CALLABLE),
        "random_state": SEED,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        model: ConvAutoencoder | None = None,
        clustering: str = "equilibrium",
        alpha: str | float = "auto",
        scale: float = 4.0,
        image_size: int = 32,
        latent_dim: int = 32,
        width: float = 0.25,
        warmup_epochs: int = 60,
        epochs: int = 20,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        reconstruction_weight: float = 1.0,
        contrastive_weight: float = 1.0,
        clustering_weight: float = 0.1,
        temperature: float = 0.5,
        augment: bool | Callable[[torch.Tensor], torch.Tensor] = True,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.model = model
        self.clustering = clustering
        self.alpha = alpha
        self.scale = scale
        self.image_size = image_size
        self.latent_dim = latent_dim
        self.width = width
        self.warmup_epochs = warmup_epochs
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.reconstruction_weight = reconstruction_weight
        self.contrastive_weight = contrastive_weight
        self.clustering_weight = clustering_weight
        self.temperature = temperature
        self.augment = augment
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.no_validation = True
        return tags

    def __sklearn_clone__(self) -> Self:
        # fit copies the model before training, so clones may share it.
        parameters = self.get_params(deep=False)
        model = parameters.pop("model")
        return type(self)(**copy.deepcopy(parameters), model=model)

    @property
    def _n_features_out(self) -> int:
        return int(self.cluster_centers_.shape[0])

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder and find the clusters.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset
            At least ``n_clusters`` images, uint8 or floats in [0, 1].
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        seeds = check_seed(self.random_state).randint(2**31 - 1, size=3)
        given = self._resized(X)
        model = self._new_model(given, int(seeds[0]))
        images = as_images(given, model.in_channels, model.image_size, "X")
        if len(images) < max(2, self.n_clusters):
            raise ValueError(
                f"X has {len(images)} images, at least {max(2, self.n_clusters)} are needed "
                f"(n_clusters={self.n_clusters})"
            )
        augment = _augmentation(self.augment)
        assert augment is not None
        settings = Settings(
            epochs=max(1, self.warmup_epochs + self.epochs),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule="cosine",
            weight_decay=1e-4,
            max_grad_norm=None,
            patience=None,
            precision="float32",
            checkpoint_every=1,
            verbose=self.verbose,
        )
        weights = Weights(
            self.reconstruction_weight,
            self.contrastive_weight,
            self.clustering_weight,
            self.temperature,
        )
        clusters = _Clusters(
            self.n_clusters, self.clustering == "hard", self.alpha, self.scale, int(seeds[2])
        )
        self.history_ = DeepHistory()
        if self.warmup_epochs + self.epochs:
            self.history_ = train_clusters(
                model,
                images,
                clusters,
                augment,
                weights,
                settings,
                self.warmup_epochs,
                np.random.default_rng(int(seeds[1])),
            )
        else:
            model.eval()
        codes = calibrated_codes(model, images)
        self.clusterer_ = clusters.last(codes)
        self.autoencoder_ = model
        self.cluster_centers_ = self.clusterer_.cluster_centers_
        self.labels_ = self.clusterer_.labels_
        self.alpha_ = self.clusterer_.alpha_
        self.objective_ = self.clusterer_.objective_
        self.n_clusters_effective_ = self.clusterer_.n_clusters_effective_
        return self

    def encode(self, X: Any) -> NDArray[np.float32]:
        """Code of each image.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset

        Returns
        -------
        codes : ndarray of shape (N, latent_dim), float32
        """
        check_is_fitted(self)
        codes = encode(self.autoencoder_, self._resized(X))
        return np.asarray(codes.cpu() if isinstance(codes, torch.Tensor) else codes)

    def predict(self, X: Any) -> NDArray[np.int32]:
        """Cluster of each image, whose centroid is nearest to the image's code.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset

        Returns
        -------
        labels : ndarray of shape (N,), int32
        """
        codes = self.encode(X)
        return self.clusterer_.predict(codes)

    def transform(self, X: Any) -> NDArray[Any]:
        """Euclidean distance of each code to each centroid.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset

        Returns
        -------
        distances : ndarray of shape (N, n_clusters), float32
        """
        codes = self.encode(X)
        return self.clusterer_.transform(codes)

    def membership(self, X: Any) -> NDArray[Any]:
        """Membership of each image in each cluster; rows sum to 1.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset

        Returns
        -------
        p : ndarray of shape (N, n_clusters), float32
        """
        codes = self.encode(X)
        return self.clusterer_.membership(codes)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the objective of the codes: higher is better.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset
        y : ignored

        Returns
        -------
        score : float
        """
        codes = self.encode(X)
        return self.clusterer_.score(codes)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        learns = self.reconstruction_weight or self.contrastive_weight
        if not learns and (self.warmup_epochs or not self.clustering_weight):
            raise ValueError(
                "reconstruction_weight and contrastive_weight are 0: one must be above 0, or there "
                "must be a clustering_weight and warmup_epochs=0"
            )
        if self.model is not None and not self.model.normalize_codes:
            raise ValueError("model has normalize_codes=False: must be made with True")

    def _resized(self, X: Any) -> Any:
        return resized(X, self.image_size if self.model is None else self.model.image_size, "X")

    def _new_model(self, images: Any, seed: int) -> ConvAutoencoder:
        if self.model is not None:
            model: ConvAutoencoder = copy.deepcopy(self.model)
            return model
        return new_model(
            images,
            seed,
            self.device,
            image_size=self.image_size,
            latent_dim=self.latent_dim,
            width=self.width,
            normalize_codes=True,
        )


class _Clusters:
    """The centroids, and how they are updated between epochs."""

    def __init__(
        self, n_clusters: int, hard: bool, alpha: str | float, scale: float, seed: int
    ) -> None:
        self.n_clusters = n_clusters
        self.hard = hard
        self.alpha = alpha
        self.scale = scale
        self.seed = seed
        self.fitted: EKMeans | HardKMeans | None = None
        self.multiple = scale  # alpha times the codes' mean of 1/2 ||z - mean||^2

    def update(self, codes: NDArray[np.float32]) -> NDArray[np.int32]:
        """Fit the centroids for the next epoch to the codes, and return the labels."""
        with warnings.catch_warnings():
            # A fit that did not converge continues at the next update.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = self._lowest(codes)
        self.fitted = fitted
        self._centroids = torch.from_numpy(fitted.cluster_centers_.astype(np.float32))
        return fitted.labels_

    def loss(self, codes: torch.Tensor) -> torch.Tensor:
        assert self.fitted is not None
        centroids = self._centroids.to(codes.device)
        if self.hard:
            return 0.5 * torch.cdist(codes, centroids).min(dim=1).values.square().mean()
        return equilibrium_loss(codes, centroids, self.fitted.alpha_)

    def last(self, codes: NDArray[np.float32]) -> EKMeans | HardKMeans:
        """The clusters of the final codes."""
        if self.alpha == "auto":
            # Alpha is chosen again, and the objective of the old centroids at another alpha
            # cannot be compared with the new one.
            self.fitted = None
        return self._lowest(codes)

    def _lowest(self, codes: NDArray[np.float32]) -> EKMeans | HardKMeans:
        """The fit with the lower objective: from new starts, or from the centroids so far.

        Without new starts the clusters of the early, poorly trained codes would never change, since
        the loss moves the codes towards them.
        """
        fitted = self._fit(codes, random_state=self.seed)
        if self.fitted is None:
            return fitted
        moved = self._fit(codes, init=self.fitted.cluster_centers_, n_init=1)
        return min(moved, fitted, key=_objective)

    def _fit(self, codes: NDArray[np.float32], **start: Any) -> EKMeans | HardKMeans:
        fitted: EKMeans | HardKMeans
        if self.hard:
            fitted = HardKMeans(self.n_clusters, **start).fit(codes)
            return fitted
        start["alpha"] = self.alpha
        if self.alpha == "auto" and self.fitted is not None:
            start |= {"alpha": "dvariance", "scale": self.multiple}
        elif self.alpha == "dvariance":
            start["scale"] = self.scale
        # With "auto", EKMeans keeps its default scale, on which its candidate alphas depend.
        fitted = EKMeans(self.n_clusters, **start).fit(codes)
        multiple = fitted.alpha_ * 0.5 * float(codes.var(axis=0, dtype=np.float64).sum())
        self.multiple = multiple or self.scale  # the product is 0 where all codes are equal
        return fitted


def _objective(fitted: EKMeans | HardKMeans) -> float:
    return fitted.objective_
