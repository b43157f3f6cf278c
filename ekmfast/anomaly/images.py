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
    """Tell abnormal images by their reconstruction, by their codes, or by both.

    An autoencoder that has seen normal images reconstructs others badly: the score of
    ``"reconstruction"`` is the negative mean squared error. ``"codes"`` is the score of
    `EKMeansDetector` on the codes. ``"both"`` is their mean, each in units of its spread over the
    held-out images: less the median, over the median absolute deviation.

    The threshold comes from images that were held out: a tenth of those of ``fit``, or
    ``1 / contamination`` images if that is more (half of all at most), on which a new model is not
    trained. A given model brings along digests of the images that it was trained on (from
    `ekmfast.autoencoder.pretrain`, `finetune` and `DeepEKM`, in memory and in exported files, not
    in a ``state_dict``): those are left out of the threshold, and where none remains a warning says
    that it is too strict for fresh images. So a fresh normal image is called an outlier with
    probability ``contamination``; the share of one fit deviates from it by about
    ``sqrt(contamination / n)``, n the number of held-out images.

    Images are arrays of shape (N, C, H, W), or (N, H, W) where there is one channel, uint8 or
    floats in [0, 1]; of another height or width than ``image_size`` they are resized (bilinear,
    antialiased) into a copy. Also datasets of images of that size, such as
    `ekmfast.datasets.open_image_folder`, which are read a batch at a time.

    Parameters
    ----------
    model : ConvAutoencoder, ExportedAutoencoder or None, default=None
        A trained autoencoder, left as it is; ``fit`` then only finds the threshold and clusters.
        None: a new one, trained by ``fit``.
    score : {"reconstruction", "codes", "both"}, default="reconstruction"
    n_clusters : int, default=4
        Of `EKMeansDetector`, where codes are scored.
    alpha : {'auto', 'dvariance'} or float, default='auto'
        As of `ekmfast.EKMeans`, whose default it is too, where codes are scored.
    image_size : int, default=32
        Height and width, a multiple of 16. With ``model``: the model's.
    latent_dim : int, default=16
        Features of the code of a new model: few, so that only what is normal fits through.
    width : float, default=0.25
        As of `ekmfast.autoencoder.ConvAutoencoder`, of a new model.
    epochs : int, default=20
        Passes over the images, for a new model.
    batch_size : int, default=32
        Images a step of the training.
    learning_rate : float, default=3e-3
        As of `ekmfast.autoencoder.pretrain`.
    corruption : None, float or callable, default=None
        As of `ekmfast.autoencoder.pretrain`: makes the new model a denoising one.
    contamination : float, default=0.1
        Share of images like those of ``fit``, in (0, 0.5], to be called outliers. Where ``fit``
        gets normal images alone: the share of false alarms among fresh ones. That holds only if
        ``model`` knows what it was trained on, or was trained on none of the images of ``fit``: a
        model restored by ``load_state_dict``, or from a file of an older version, knows nothing,
        so give it images that it has not seen; otherwise the false alarms are more, and no warning
        can say so. Less than one in n + 1 cannot be promised, n the number of held-out images: the
        threshold then is the lowest score, and a warning says so.
    device : str, default="cpu"
        Where a new model is trained and run.
    random_state : int, RandomState instance or None, default=None
        Seed of the weights, the training and the clusters.
    verbose : int, default=0
        1 shows the training's progress.

    Attributes
    ----------
    autoencoder_ : ConvAutoencoder or ExportedAutoencoder
    history_ : ekmfast.autoencoder.History or None
        Of the training, None with ``model`` and after `ekmfast.load`.
    clusters_ : EKMeansDetector or None
        On the codes, None where they are not scored.
    held_out_ : ndarray of bool of shape (N,)
        Which images of ``fit`` the threshold comes from, as the model was not trained on them.
    offset_ : float
        Scores below are outliers.
    decision_scores_, labels_, threshold_
        Of the images of ``fit`` in the way of PyOD: the negative score, 1 for outliers and 0 for
        others, and ``-offset_``. Only those of ``held_out_`` are comparable with scores of fresh
        images; the others, on which the model was trained, are lower, and fewer of them outliers.

    Raises
    ------
    ImportError
        From ``fit``, if PyTorch is not installed.
    ValueError, TypeError
        From ``fit``, for parameters or images that are not as described.

    Warns
    -----
    UserWarning
        If the given model was trained on all of the images, or ``contamination`` is less than one
        in n + 1 images.

    Notes
    -----
    ``score`` is a parameter here, no method: `GridSearchCV` and `cross_val_score` need ``scoring``,
    such as ``"roc_auc"`` with y = 1 for normal images and -1 for outliers.

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
    # Images that are scored at once.
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
        # A trained model is shared: a copy of its weights would be as trained, and large.
        parameters = self.get_params(deep=False)
        model = parameters.pop("model")
        return type(self)(model, **copy.deepcopy(parameters))

    def fit(self, X: Any, y: Any = None) -> AutoencoderDetector:
        """Train an autoencoder, unless there is one, and find the threshold of fresh scores.

        Parameters
        ----------
        X : array of shape (N, C, H, W) or (N, H, W), or dataset
            Images, at least 4, or 2 where there is a model.
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
        # Training takes two at least, and half of them may be held out.
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
                # Its own threshold is not used.
                warnings.filterwarnings("ignore", r"contamination=.* is less than one in")
                self.clusters_ = clusters.fit(codes)
        parts = self._parts(images, fitted=True)
        self._units = np.array([_unit(part[self.held_out_]) for part in parts])
        self._set_threshold(self._joined(parts), self.held_out_)
        return self

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
            f"the model was trained on all {len(images)} images of X: it reconstructs fresh ones "
            f"worse, and more than contamination={self.contamination!r} of them will be called "
            "outliers; fit the detector to normal images that the model has not seen, or train it "
            "with a validation_split and fit the detector to the same images",
            UserWarning,
            stacklevel=3,
        )
        return ~held_out

    def _parts(self, images: Any, *, fitted: bool = False) -> list[NDArray[Any]]:
        """The scores that are joined; of the images of ``fit``, the clusters' without each."""
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
    """Share of the images that a threshold at the contamination takes, half of them at most."""
    least = 1 / max(contamination, 1 / n_images)  # not the reciprocal of a number next to 0
    return min(max(HELD_OUT, math.ceil(least) / n_images), 0.5)


def _unit(scores: NDArray[Any]) -> tuple[float, float]:
    """Median, and median absolute deviation; 1 where most scores are equal."""
    median = float(np.median(scores))
    deviation = float(np.median(np.abs(scores - median)))
    return median, deviation if deviation > 0 else 1.0
