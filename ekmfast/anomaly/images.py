"""AutoencoderDetector: images that an autoencoder reconstructs badly are abnormal."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ekmfast._optional import require
from ekmfast._parameters import (
    ALPHA,
    CALLABLE,
    COUNT,
    IMAGE_SIZE,
    NONE,
    POSITIVE,
    VERBOSE,
    AnyOf,
    Constraint,
    Integer,
    Later,
    Number,
    OneOf,
    check_seed,
)
from ekmfast.anomaly._detector import Detector
from ekmfast.anomaly._reconstruction import reconstruction_loss
from ekmfast.anomaly.features import EKMeansDetector
from ekmfast.rows.array_api import like_x

SCORES = ("reconstruction", "codes", "both")
# Share of the images that the training of a new model holds out.
HELD_OUT = 0.1


def _model() -> Constraint:
    from ekmfast.autoencoder.loading import ANY_MODEL

    return AnyOf(NONE, ANY_MODEL)


def _device() -> Constraint:
    from ekmfast.autoencoder.new_model import PARAMETERS

    return PARAMETERS["device"]


class AutoencoderDetector(Detector):
    """Detect abnormal images by their reconstruction error, by their codes, or by both.

    An autoencoder that was trained on normal images reconstructs abnormal ones badly, so the score
    ``"reconstruction"`` is the negative mean squared error. The score ``"codes"`` is that of
    `EKMeansDetector` on the codes. The score ``"both"`` is the mean of these two, after the median
    of each over the held-out images is subtracted and the result is divided by the median absolute
    deviation.

    The threshold is computed from held-out images. A new model is not trained on a tenth of the
    images of ``fit``, or on ``1 / contamination`` of them if that is more, but at most on half. A
    model that was trained by `ekmfast.autoencoder.pretrain`, `finetune` or `DeepEKM` holds digests
    of its training images, in memory and in exported files but not in a ``state_dict``. These
    images are left out when the threshold is computed. If no image remains, all are used, and a
    warning says that more new images will be called outliers. A new normal image is called an
    outlier with probability ``contamination``; the share of a single fit deviates from it by about
    ``sqrt(contamination / n)``, where n is the number of held-out images.

    Images are arrays of shape (N, C, H, W), or (N, H, W) where there is one channel, uint8 or
    floats in [0, 1]. If their height or width is not ``image_size``, a resized copy is made
    (bilinear, antialiased). Images can also be datasets of images of that size, for instance of
    `ekmfast.datasets.open_image_folder`, which are read one batch at a time.

    Parameters
    ----------
    model : ConvAutoencoder, ExportedAutoencoder or None, default=None
        A trained autoencoder, which ``fit`` does not change; ``fit`` then computes only the
        threshold and the clusters. None trains a new model.
    score : {"reconstruction", "codes", "both"}, default="reconstruction"
        The score, as described above.
    n_clusters : int, default=4
        Number of clusters of codes, as in `EKMeansDetector`.
    alpha : {'auto', 'dvariance'} or float, default='auto'
        As in `ekmfast.EKMeans`, for the clusters of codes.
    image_size : int, default=32
        Height and width of the images of a new model, a multiple of 16. If ``model`` is given, its
        size is used instead.
    latent_dim : int, default=16
        Features of the code of a new model. They should be few, so that the code can describe
        normal images only.
    width : float, default=0.25
        Width of a new model, as in `ekmfast.autoencoder.ConvAutoencoder`.
    epochs : int, default=20
        Epochs of the training of a new model.
    batch_size : int, default=32
        Images in a step of the training.
    learning_rate : float, default=3e-3
        As in `ekmfast.autoencoder.pretrain`.
    corruption : None, float or callable, default=None
        As in `ekmfast.autoencoder.pretrain`; it makes the new model a denoising autoencoder.
    contamination : float, default=0.1
        Share of images like those of ``fit``, in (0, 0.5], that are called outliers. If ``fit``
        gets only normal images, it is the share of false alarms among new images. If it is less
        than 1 / (n + 1), where n is the number of held-out images, the threshold is the lowest
        score, and a warning says so. The share is met only if ``model`` has digests of its training
        images, or was trained on none of the images of ``fit``. A model that was restored by
        ``load_state_dict`` or from a file of an older version has no digests: fit the detector to
        images that this model was not trained on, otherwise there will be more false alarms,
        without a warning.
    device : str, default="cpu"
        Device on which a new model is trained and run.
    random_state : int, RandomState instance or None, default=None
        Seed of the weights, the training and the clusters.
    verbose : int, default=0
        1 shows the training's progress.

    Attributes
    ----------
    autoencoder_ : ConvAutoencoder or ExportedAutoencoder
        The given model, or the new one.
    history_ : ekmfast.autoencoder.History or None
        History of the training; None if ``model`` was given, and after `ekmfast.load`.
    clusters_ : EKMeansDetector or None
        The detector that was fitted to the codes; None if codes are not scored.
    held_out_ : ndarray of bool of shape (N,)
        Mask of the images of ``fit`` from which the threshold is computed, since the model was not
        trained on them.
    offset_ : float
        The threshold; images with a lower score are outliers.
    decision_scores_, labels_, threshold_
        As in PyOD, for the images of ``fit``: the negative score, 1 for outliers and 0 for others,
        and ``-offset_``. Only those of ``held_out_`` can be compared with scores of new images.
        For training images ``decision_scores_`` are lower, so fewer of them are outliers.

    Raises
    ------
    ImportError
        From ``fit``, if PyTorch is not installed.
    ValueError, TypeError
        From ``fit``, for parameters or images that are not as described.

    Warns
    -----
    UserWarning
        If the given model was trained on all of the images, or if ``contamination`` is less than
        1 / (n + 1).

    Notes
    -----
    ``score`` is a parameter and not a method. Therefore `GridSearchCV` and `cross_val_score` need
    the parameter ``scoring``, for instance ``"roc_auc"`` with y = 1 for normal images and -1 for
    outliers.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.anomaly import AutoencoderDetector
    >>> rng = np.random.default_rng(0)
    >>> normal = np.zeros((60, 16, 16), np.float32)
    >>> normal[:, 4:12] = rng.uniform(0.5, 1, (60, 1, 1))
    >>> detector = AutoencoderDetector(
    ...     image_size=16, latent_dim=4, width=0.0625, epochs=30, batch_size=20, random_state=0
    ... ).fit(normal)
    >>> detector.predict(rng.random((3, 16, 16), np.float32)).tolist()
    [-1, -1, -1]
    """

    _constraints = Detector._constraints | {
        "model": Later(_model),
        "score": OneOf(*SCORES),
        "n_clusters": COUNT,
        "alpha": ALPHA,
        "image_size": IMAGE_SIZE,
        "latent_dim": COUNT,
        "width": POSITIVE,
        "epochs": COUNT,
        "batch_size": Integer(2),
        "learning_rate": POSITIVE,
        "corruption": AnyOf(NONE, Number(0), CALLABLE),
        "device": Later(_device),
        "verbose": VERBOSE,
    }
    _saved_state = ("_units",)
    _unsaved_state = ("history_",)
    # Number of images in a batch when scores are computed.
    _scored_at_once = 256

    def __init__(
        self,
        model: Any = None,
        *,
        score: str = "reconstruction",
        n_clusters: int = 4,
        alpha: str | float = "auto",
        image_size: int = 32,
        latent_dim: int = 16,
        width: float = 0.25,
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        corruption: float | Callable[..., Any] | None = None,
        contamination: float = 0.1,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.score = score
        self.n_clusters = n_clusters
        self.alpha = alpha
        self.image_size = image_size
        self.latent_dim = latent_dim
        self.width = width
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.corruption = corruption
        self.contamination = contamination
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.no_validation = True
        return tags

    def __sklearn_clone__(self) -> AutoencoderDetector:
        # Clones share the given model, since fit does not change it and a copy would be large.
        parameters = self.get_params(deep=False)
        model = parameters.pop("model")
        return type(self)(model, **copy.deepcopy(parameters))

    def fit(self, X: Any, y: Any = None) -> AutoencoderDetector:
        """Train an autoencoder if none was given, and compute the threshold.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset
            At least 4 images, or 2 if a model was given.
        y : ignored

        Returns
        -------
        self
        """
        require("torch", "torch")
        self._check_parameters()
        generator = check_seed(self.random_state)
        seeds = generator.randint(2**31 - 1, size=3)
        images = self._resized(X)
        # Training needs at least two images, and half of the images may be held out.
        least = 4 if self.model is None else 2
        if len(images) < least:
            raise ValueError(f"X has {len(images)} images, at least {least} are needed")
        self.history_ = None
        if self.model is None:
            self.autoencoder_, self.history_ = self._train(images, seeds)
        else:
            self.autoencoder_ = self.model
        self.held_out_ = self._held_out(images)
        self.clusters_ = None
        if self.score != "reconstruction":
            clusters = EKMeansDetector(
                self.n_clusters,
                alpha=self.alpha,
                contamination=self.contamination,
                random_state=int(seeds[2]),
            )
            codes = self._codes(images)
            with warnings.catch_warnings():
                # The threshold of this detector is not used.
                warnings.filterwarnings("ignore", r"contamination=.* is less than one in")
                self.clusters_ = clusters.fit(codes)
        parts = self._parts(images, fitted=True)
        self._units = np.array([_unit(part[self.held_out_]) for part in parts])
        self._set_threshold(self._joined(parts), self.held_out_)
        return self

    @like_x
    def score_samples(self, X: Any) -> NDArray[Any]:
        """Score of each image.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset
            Images.

        Returns
        -------
        ndarray of shape (N,), float32
            Lower is more abnormal.
        """
        check_is_fitted(self)
        return self._joined(self._parts(self._resized(X)))

    def _train(self, images: Any, seeds: NDArray[Any]) -> tuple[Any, Any]:
        from ekmfast.autoencoder import pretrain
        from ekmfast.autoencoder.new_model import new_model

        model = new_model(
            images,
            int(seeds[0]),
            self.device,
            image_size=self.image_size,
            latent_dim=self.latent_dim,
            width=self.width,
        )
        history = pretrain(
            model,
            images,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            corruption=self.corruption,
            validation_split=_share_held_out(len(images), float(self.contamination)),
            random_state=int(seeds[1]),
            verbose=self.verbose,
        )
        return model, history

    def _resized(self, X: Any) -> Any:
        from ekmfast.autoencoder.resize import resized

        model = getattr(self, "autoencoder_", None) if self.model is None else self.model
        return resized(X, self.image_size if model is None else model.image_size, "X")

    def _codes(self, images: Any) -> NDArray[Any]:
        from ekmfast.autoencoder import encode

        codes: NDArray[Any] = encode(self.autoencoder_, images, batch_size=self._scored_at_once)
        return codes

    def _held_out(self, images: Any) -> NDArray[np.bool_]:
        from ekmfast.autoencoder.seen import unseen

        held_out = unseen(self.autoencoder_, images)
        if held_out.any():
            return held_out
        warnings.warn(
            f"the model was trained on all {len(images)} images of X: it reconstructs new images "
            f"worse, and more than contamination={self.contamination!r} of them will be called "
            "outliers; fit the detector to normal images that the model was not trained on, or "
            "train the model with a validation_split and fit the detector to the same images",
            UserWarning,
            stacklevel=3,
        )
        return ~held_out

    def _parts(self, images: Any, *, fitted: bool = False) -> list[NDArray[Any]]:
        """The scores that ``_joined`` combines.

        For the images of ``fit``, the scores of codes are the held-out ones.
        """
        parts = []
        if self.score != "codes":
            loss = reconstruction_loss(self.autoencoder_, images, batch_size=self._scored_at_once)
            parts.append(-loss)
        if self.clusters_ is not None:
            parts.append(
                -self.clusters_.decision_scores_
                if fitted
                else self.clusters_.score_samples(self._codes(images))
            )
        return parts

    def _joined(self, parts: list[NDArray[Any]]) -> NDArray[Any]:
        if len(parts) == 1:
            return parts[0]
        in_units = [(p - m) / s for p, (m, s) in zip(parts, self._units, strict=True)]
        return np.asarray(np.mean(in_units, axis=0), np.float32)


def _share_held_out(n_images: int, contamination: float) -> float:
    """Share of the images to hold out, so that the threshold can be computed; at most one half."""
    least = 1 / max(contamination, 1 / n_images)  # so that 1 / contamination does not overflow
    return min(max(HELD_OUT, math.ceil(least) / n_images), 0.5)


def _unit(scores: NDArray[Any]) -> tuple[float, float]:
    """Median and median absolute deviation, where a deviation of 0 is replaced by 1."""
    median = float(np.median(scores))
    deviation = float(np.median(np.abs(scores - median)))
    return median, deviation if deviation > 0 else 1.0
