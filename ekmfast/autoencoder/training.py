"""Train an autoencoder to reconstruct images, with or without its class predictor."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss

from ekmfast._parameters import (
    BOOLEAN,
    CALLABLE,
    GENERATOR_SEED,
    NONE,
    PATH,
    AnyOf,
    Kind,
    Number,
    check_parameters,
)
from ekmfast.autoencoder._fingerprint import of_change, of_images, of_labels
from ekmfast.autoencoder._training_file import TrainingFile
from ekmfast.autoencoder._training_loop import Change, History, Part, Settings, train
from ekmfast.autoencoder.augmentation import Augmentation
from ekmfast.autoencoder.images import as_images, labels_in
from ekmfast.autoencoder.model import MODEL, ConvAutoencoder

__all__ = ["History", "finetune", "pretrain"]

# Of both trainings, beside what `Settings` checks.
COMMON = {
    "model": MODEL,
    "augment": AnyOf(NONE, BOOLEAN, CALLABLE),
    "validation_split": Number(0, 1, open_high=True),
    "checkpoint": AnyOf(NONE, PATH),
    "random_state": GENERATOR_SEED,
}
PRETRAIN = COMMON | {"corruption": AnyOf(NONE, Number(0), CALLABLE)}
LABELLED = Kind(
    lambda value: isinstance(value, tuple) and len(value) == 2, "a tuple (images, labels)"
)
FINETUNE = COMMON | {"reconstruction_weight": Number(0), "validation_data": AnyOf(NONE, LABELLED)}


def pretrain(
    model: ConvAutoencoder,
    images: Any,
    *,
    augment: Callable[[torch.Tensor], torch.Tensor] | bool | None = None,
    corruption: float | Callable[[torch.Tensor], torch.Tensor] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle",
    weight_decay: float = 1e-4,
    max_grad_norm: float | None = None,
    patience: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    validation_split: float = 0.1,
    validation_data: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1,
    random_state: int | None = None,
    verbose: int = 1,
) -> History:
    """Train the encoder and the decoder to reconstruct unlabelled images.

    The loss is the mean squared error, and the optimiser is AdamW. The model is trained on its own
    device. At the end, and also if the training is interrupted (Ctrl-C) or fails, the model is in
    evaluation mode and has the weights of its best epoch. If no epoch was completed, it has its
    initial weights.

    Parameters
    ----------
    model : ConvAutoencoder
        The model, changed in place. Its predictor is not trained.
    images : ndarray or Tensor of shape (N, C, S, S), or (N, S, S) where C is 1; or dataset
        uint8, or floats in [0, 1]; C and S are the model's. There is never a copy of all images. A
        dataset (`ekmfast.datasets.open_image_folder`, or any object with ``__len__`` and
        ``__getitem__``) is read one batch ahead.
    augment : None, bool or callable, default=None
        As in `finetune`.
    corruption : None, float or callable, default=None
        Trains a denoising autoencoder: it gets a corrupted image and shall reconstruct the original
        one. A number is the standard deviation of Gaussian noise; a callable takes a float32 batch
        (n, C, S, S) and returns a batch of the same shape. Validation images are not corrupted.
    epochs : int, default=10
        Number of times that each image is used.
    batch_size : int, default=128
        Largest number of images in a step. The sizes of the batches in an epoch differ by at most
        one image.
    learning_rate : float, default=3e-3
        Largest learning rate of the schedule.
    schedule : {"one-cycle", "cosine", "constant"}, default="one-cycle"
        The learning rate rises and falls ("one-cycle"), falls ("cosine"), or stays constant.
    weight_decay : float, default=1e-4
        AdamW's weight decay.
    max_grad_norm : float, default=None
        Gradients with a larger norm are scaled to this norm; None does not change gradients.
    patience : int, default=None
        The training stops after this number of epochs without an improvement; None for never.
    precision : {"float32", "bfloat16"}, default="float32"
        "bfloat16" computes matrix products in bfloat16 (autocast), and keeps weights and sums in
        float32. It is faster on GPUs and on CPUs with bfloat16 instructions, slower on others.
    validation_split : float, default=0.1
        Share of the images, in [0, 1), that is used for validation instead of training; 0 for none.
    validation_data : ndarray or Tensor, default=None
        Images for validation, instead of a share of ``images``.
    checkpoint : path-like, default=None
        File to which the state of the training is written after an epoch. If it exists, the
        training continues from it, with the weights in the file, to the same result as without the
        interruption; if that training has finished, its result is returned. Needs
        ``random_state``.

        The file must belong to the same training. Compared are all parameters, all images and
        labels (for this a dataset is read once, a folder's files byte by byte), the initial weights
        of ``model`` (which may also be those in the file, as after an interruption), and the type
        of its device. ``epochs`` may be larger than before if ``schedule`` is "constant".

        Of a callable, the code and the values that it holds (attributes, closures, the globals that
        it names) are compared, but neither other modules that it calls, nor the contents of
        generators, open files and compiled objects. It must draw random numbers from PyTorch's
        global generators. If it changes its own attributes when it is called, create it again
        before continuing.
    checkpoint_every : int, default=1
        Number of epochs between two checkpoints.
    random_state : int, default=None
        Seed. The same seed, images and number of threads give the same weights on a CPU. The
        global random states of PyTorch and NumPy are not changed.
    verbose : int, default=1
        0 shows no progress bar.

    Returns
    -------
    History

    Raises
    ------
    TypeError
        If a parameter or the dtype of the images has the wrong type.
    ValueError
        If a parameter is out of its range, or the images have the wrong shape or values; or if
        ``checkpoint`` is damaged or belongs to another training, in which case the message says
        what differs.
    FloatingPointError
        If the loss is no longer finite.
    OSError
        If ``checkpoint`` cannot be read or written.

    Warns
    -----
    UserWarning
        If the training began with another version of PyTorch or number of threads, which changes
        the rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.autoencoder import ConvAutoencoder, pretrain
    >>> model = ConvAutoencoder(image_size=16, in_channels=1, latent_dim=4, width=0.0625)
    >>> images = np.random.default_rng(0).random((20, 1, 16, 16), np.float32)
    >>> history = pretrain(model, images, epochs=2, random_state=0, verbose=0)
    >>> len(history.val_loss)
    2
    """
    checked, settings = check_parameters(locals(), PRETRAIN), _settings(locals())
    corruption = checked["corruption"]
    source = as_images(images, model.in_channels, model.image_size)
    rng = _generator(random_state, checkpoint)
    if validation_data is None:
        rows, val_rows = _split(len(source), None, validation_split, rng)
        valid = Part(source, None, val_rows)
    else:
        rows = np.arange(len(source))
        given = as_images(validation_data, model.in_channels, model.image_size, "validation_data")
        valid = Part(given, None, np.arange(len(given)))

    def loss(
        x: torch.Tensor, given: torch.Tensor, _: torch.Tensor | None
    ) -> tuple[torch.Tensor, None]:
        return mse_loss(model.decode(model.encode(given)).float(), x), None

    part, views = Part(source, None, rows), _augmentation(augment)
    made_by = {
        "training": "pretrain",
        "random_state": random_state,
        "augment": views,
        "corruption": corruption,
    }
    return train(
        model,
        part,
        valid,
        loss,
        views,
        _noise(corruption) if isinstance(corruption, float) else corruption,
        settings,
        rng,
        "pretrain",
        _file(checkpoint, model, settings, part, valid, validation_split, made_by),
    )


def finetune(
    model: ConvAutoencoder,
    images: Any,
    labels: Any = None,
    *,
    augment: Callable[[torch.Tensor], torch.Tensor] | bool | None = None,
    reconstruction_weight: float = 1.0,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle",
    weight_decay: float = 1e-4,
    max_grad_norm: float | None = None,
    patience: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    validation_split: float = 0.1,
    validation_data: tuple[Any, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1,
    random_state: int | None = None,
    verbose: int = 1,
) -> History:
    """Train the whole model on labelled images: reconstruction and classification.

    The loss is the cross-entropy of the classes plus ``reconstruction_weight`` times the mean
    squared error of the reconstruction. Optimiser, device, the effect of an interruption and the
    final state of the model are as in `pretrain`.

    Parameters
    ----------
    model : ConvAutoencoder
        The model, changed in place; usually it was trained by `pretrain` before.
    images : ndarray or Tensor of shape (N, C, S, S), or (N, S, S) where C is 1; or dataset
        uint8, or floats in [0, 1]; C and S are the model's. There is never a copy of all images. A
        dataset (`ekmfast.datasets.open_image_folder`, or any object with ``__len__`` and
        ``__getitem__``) is read one batch ahead.
    labels : array-like of int of shape (N,), default=None
        Classes, from 0 to the model's ``n_classes`` - 1. None takes the labels of a dataset: its
        ``labels`` or ``targets``, or else the second parts of its items, for which it is read once.
    augment : None, bool or callable, default=None
        True uses `ekmfast.autoencoder.augmentation.Augmentation`. A callable takes a float32 batch
        (n, C, S, S) in [0, 1] and returns a batch of the same shape. Only training images are
        augmented, and the model shall reconstruct the augmented images.
    reconstruction_weight : float, default=1.0
        Weight of the reconstruction in the loss, at least 0.
    epochs : int, default=10
        Number of times that each image is used.
    batch_size : int, default=128
        Largest number of images in a step. The sizes of the batches in an epoch differ by at most
        one image.
    learning_rate : float, default=3e-3
        Largest learning rate of the schedule.
    schedule : {"one-cycle", "cosine", "constant"}, default="one-cycle"
        The learning rate rises and falls ("one-cycle"), falls ("cosine"), or stays constant.
    weight_decay : float, default=1e-4
        AdamW's weight decay.
    max_grad_norm : float, default=None
        Gradients with a larger norm are scaled to this norm; None does not change gradients.
    patience : int, default=None
        The training stops after this number of epochs without an improvement; None for never.
    precision : {"float32", "bfloat16"}, default="float32"
        "bfloat16" computes matrix products in bfloat16 (autocast), and keeps weights and sums in
        float32. It is faster on GPUs and on CPUs with bfloat16 instructions, slower on others.
    validation_split : float, default=0.1
        Share of each class, in [0, 1), that is used for validation instead of training; at least
        one image of each class with two or more; 0 for none.
    validation_data : tuple (images, labels), default=None
        Images and labels for validation, instead of a share of ``images``.
    checkpoint : path-like, default=None
        File to which the state is written after an epoch, as in `pretrain`. Needs
        ``random_state``.
    checkpoint_every : int, default=1
        Number of epochs between two checkpoints.
    random_state : int, default=None
        Seed, as in `pretrain`.
    verbose : int, default=1
        0 shows no progress bar.

    Returns
    -------
    History

    Raises
    ------
    ImportError
        If ``augment`` is True and kornia is not installed.
    TypeError
        If a parameter, the labels or the dtype of the images has the wrong type.
    ValueError
        If a parameter is out of its range, or the images or labels have the wrong shape or
        values; or if ``checkpoint`` is damaged or belongs to another training.
    FloatingPointError
        If the loss is no longer finite.
    OSError
        If ``checkpoint`` cannot be read or written.

    Warns
    -----
    UserWarning
        If the training began with another version of PyTorch or number of threads, which changes
        the rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.autoencoder import ConvAutoencoder, finetune
    >>> model = ConvAutoencoder(
    ...     image_size=16, in_channels=1, latent_dim=4, n_classes=2, width=0.0625
    ... )
    >>> images = np.random.default_rng(0).random((20, 1, 16, 16), np.float32)
    >>> labels = np.arange(20) % 2
    >>> history = finetune(model, images, labels, epochs=2, random_state=0, verbose=0)
    >>> len(history.val_accuracy)
    2
    """
    checked, settings = check_parameters(locals(), FINETUNE), _settings(locals())
    reconstruction_weight = checked["reconstruction_weight"]
    source = as_images(images, model.in_channels, model.image_size)
    classes = _check_labels(_given_labels(labels, images), len(source), model.n_classes, "labels")
    rng = _generator(random_state, checkpoint)
    if validation_data is None:
        rows, val_rows = _split(len(source), classes.numpy(), validation_split, rng)
        valid = Part(source, classes, val_rows)
    else:
        name = "validation_data"
        given = as_images(validation_data[0], model.in_channels, model.image_size, f"{name}[0]")
        val_classes = _check_labels(validation_data[1], len(given), model.n_classes, f"{name}[1]")
        rows, valid = np.arange(len(source)), Part(given, val_classes, np.arange(len(given)))

    def loss(
        x: torch.Tensor, given: torch.Tensor, target: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        x_prime, y, _ = model(given)
        y = y.float()
        total = cross_entropy(y, target) + reconstruction_weight * mse_loss(x_prime.float(), x)
        return total, (y.argmax(1) == target).sum()

    part, views = Part(source, classes, rows), _augmentation(augment)
    made_by = {
        "training": "finetune",
        "random_state": random_state,
        "augment": views,
        "reconstruction_weight": reconstruction_weight,
    }
    return train(
        model,
        part,
        valid,
        loss,
        views,
        None,
        settings,
        rng,
        "finetune",
        _file(checkpoint, model, settings, part, valid, validation_split, made_by),
    )


def _settings(given: dict[str, Any]) -> Settings:
    return Settings(**{name: given[name] for name in Settings.__dataclass_fields__})


def _file(
    checkpoint: str | os.PathLike[str] | None,
    model: ConvAutoencoder,
    settings: Settings,
    part: Part,
    valid: Part,
    validation_split: float,
    made_by: dict[str, Any],
) -> TrainingFile | None:
    """The checkpoint of a training, with a text for each thing that influences the result."""
    if checkpoint is None:
        return None
    made_by = made_by | asdict(settings)
    # These do not change the result.
    del made_by["verbose"], made_by["checkpoint_every"]
    if settings.schedule == "constant":
        # An epoch does not depend on the number of epochs, so a training may be prolonged.
        del made_by["epochs"]
    made_by["device"] = next(model.parameters()).device.type
    made_by["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    texts = {k: of_change(v) if callable(v) else str(v) for k, v in made_by.items()}
    texts["images"] = of_images(part.images)
    if part.labels is not None:
        texts["labels"] = of_labels(part.labels)
    if valid.images is part.images:
        texts["validation_split"] = str(float(validation_split))
    else:
        texts["validation_data"] = of_images(valid.images)
        if valid.labels is not None:
            texts["validation_data"] += of_labels(valid.labels)
    return TrainingFile(Path(checkpoint), texts, model)


def _given_labels(labels: Any, images: Any) -> Any:
    if labels is None and (labels := labels_in(images)) is None:
        raise ValueError("labels must be given, as the images bring none along, got None")
    return labels


def _noise(spread: float) -> Change:
    return lambda x: x + spread * torch.randn_like(x)


def _augmentation(
    augment: Callable[[torch.Tensor], torch.Tensor] | bool | None,
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    if augment is None or augment is False:
        return None
    if augment is True:
        made: Callable[[torch.Tensor], torch.Tensor] = Augmentation()
        return made
    return augment


def _generator(
    random_state: int | None, checkpoint: str | os.PathLike[str] | None
) -> np.random.Generator:
    if random_state is None and checkpoint is not None:
        raise ValueError("random_state must be an integer with checkpoint, got None")
    return np.random.default_rng(random_state)


def _check_labels(labels: Any, n_images: int, n_classes: int, name: str) -> torch.Tensor:
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    labels = np.asarray(labels)
    if labels.shape != (n_images,):
        raise ValueError(f"{name} has shape {labels.shape}: must be ({n_images},), one an image")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {labels.dtype}: must be integer")
    if n_images and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(
            f"{name} has values from {labels.min()} to {labels.max()}: must be from 0 to "
            f"{n_classes - 1}, as n_classes={n_classes} of the model"
        )
    return torch.from_numpy(labels.astype(np.int64))


def _split(
    n_rows: int, labels: np.ndarray | None, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and rows for validation, with the same share of each class."""
    held = np.zeros(n_rows, bool)
    if share > 0:
        # All classes use one random order. So the same seed holds out mostly the same rows with
        # and without labels: a model that was pretrained has not seen most of the rows that
        # finetuning holds out.
        order = rng.permutation(n_rows)
        classes = np.zeros(n_rows, np.int64) if labels is None else labels
        by_class = order[np.argsort(classes[order], kind="stable")]
        _, counts = np.unique(classes, return_counts=True)
        for end, n in zip(np.cumsum(counts), counts.tolist(), strict=True):
            if n > 1:
                n_held = min(max(round(share * n), 1), n - 1)
                held[by_class[end - n : end - n + n_held]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
