"""Train an autoencoder: reconstruction alone, or with its class predictor."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import index
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from ekmfast._optional import require
from ekmfast.autoencoder._images import Images
from ekmfast.autoencoder.augmentation import Augmentation
from ekmfast.autoencoder.model import ConvAutoencoder

# Images and labels of one batch -> mean loss, and the number of right classes where there are any.
_Loss = Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor | None]]


@dataclass
class History:
    """What a training run did, epoch by epoch.

    Attributes
    ----------
    train_loss : list of float
        Mean loss over the epoch's training batches, as they were met.
    val_loss : list of float
        Loss on the validation images after the epoch; empty without validation.
    val_accuracy : list of float
        Share of the validation images classified rightly; empty without labels or validation.
    best_epoch : int
        Index of the epoch whose weights were kept: the highest validation accuracy, ties broken
        by the validation loss; without labels the lowest validation loss; without validation the
        lowest training loss.
    best_loss : float
        Validation loss of that epoch, or its training loss without validation.
    best_accuracy : float or None
        Validation accuracy of that epoch, if there is one.
    """

    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    best_accuracy: float | None = None


@dataclass(frozen=True)
class _Part:
    """Rows of some images to train or validate on, with their labels if there are any."""

    images: Images
    labels: torch.Tensor | None
    rows: np.ndarray

    def batches(
        self, rows: np.ndarray, batch_size: int, device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        for chosen in np.array_split(rows, _n_batches(len(rows), batch_size)):
            labels = self.labels
            if labels is not None:
                labels = labels[torch.from_numpy(chosen)].to(device)
            yield self.images.batch(chosen, device), labels


@dataclass(frozen=True)
class _Settings:
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    verbose: int

    def __post_init__(self) -> None:
        # Batch normalisation needs two images where the encoder ends in a single pixel.
        for name, low in (("epochs", 1), ("batch_size", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or index(value) < low:
                raise ValueError(f"{name}={value!r}: must be an integer of at least {low}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate={self.learning_rate!r}: must be finite and above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay={self.weight_decay!r}: must be finite and at least 0")


def pretrain(
    model: ConvAutoencoder,
    images: Any,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-4,
    validation_split: float = 0.1,
    validation_data: Any = None,
    random_state: int | None = None,
    verbose: int = 1,
) -> History:
    """Train the encoder and the decoder to reconstruct unlabelled images.

    The loss is the mean squared error; the optimiser AdamW with a one-cycle schedule of the
    learning rate. The model is trained where it is, on its own device, and ends in evaluation
    mode with the weights of its best epoch; so it does when the training is interrupted
    (Ctrl-C) or fails, or with the weights it came with where no epoch was complete.

    Parameters
    ----------
    model : ConvAutoencoder
        The model, changed in place. The predictor is left as it is.
    images : ndarray or Tensor of shape (N, C, S, S), or (N, S, S) where C is 1
        uint8, or floats in [0, 1]; C and S are the model's. Never copied as a whole.
    epochs : int, default=10
        Passes over the images.
    batch_size : int, default=128
        Largest number of images a step; the batches of an epoch differ by one image at most.
    learning_rate : float, default=3e-3
        Peak of the schedule.
    weight_decay : float, default=1e-4
        AdamW's weight decay.
    validation_split : float, default=0.1
        Share of the images, in [0, 1), set aside for validation; 0 for none.
    validation_data : ndarray or Tensor, default=None
        Images to validate on instead.
    random_state : int, default=None
        Seed. The same seed, images and number of threads give the same weights on a CPU. The
        global random states of PyTorch and NumPy are left alone.
    verbose : int, default=1
        0 shows no progress bar.

    Returns
    -------
    History

    Raises
    ------
    TypeError
        If ``model`` or the dtype of the images is of the wrong kind.
    ValueError
        If a parameter is out of its range, or the images have the wrong shape or values.
    FloatingPointError
        If the loss is no longer finite.

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
    _check_model(model)
    settings = _Settings(epochs, batch_size, learning_rate, weight_decay, verbose)
    source = Images(images, model.in_channels, model.image_size)
    rng = _generator(random_state)
    if validation_data is None:
        rows, val_rows = _split(len(source), None, validation_split, rng)
        valid = _Part(source, None, val_rows)
    else:
        rows = np.arange(len(source))
        given = Images(validation_data, model.in_channels, model.image_size, "validation_data")
        valid = _Part(given, None, np.arange(len(given)))

    def loss(x: torch.Tensor, _: torch.Tensor | None) -> tuple[torch.Tensor, None]:
        return mse_loss(model.decode(model.encode(x)), x), None

    return _fit(model, _Part(source, None, rows), valid, loss, None, settings, rng, "pretrain")


def finetune(
    model: ConvAutoencoder,
    images: Any,
    labels: Any,
    *,
    augment: Callable[[torch.Tensor], torch.Tensor] | bool | None = None,
    reconstruction_weight: float = 1.0,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-4,
    validation_split: float = 0.1,
    validation_data: tuple[Any, Any] | None = None,
    random_state: int | None = None,
    verbose: int = 1,
) -> History:
    """Train the whole model on labelled images: reconstruction and classification.

    The loss is the cross-entropy of the classes plus ``reconstruction_weight`` times the mean
    squared error. Optimiser, device, interruption and the model's final state are as in
    `pretrain`.

    Parameters
    ----------
    model : ConvAutoencoder
        The model, changed in place, by custom after `pretrain`.
    images : ndarray or Tensor of shape (N, C, S, S), or (N, S, S) where C is 1
        uint8, or floats in [0, 1]; C and S are the model's. Never copied as a whole.
    labels : array-like of int of shape (N,)
        Classes, from 0 to the model's ``n_classes`` - 1.
    augment : None, bool or callable, default=None
        True for `ekmfast.autoencoder.augmentation.Augmentation`; or a callable that takes a
        float32 batch (n, C, S, S) in [0, 1] and returns one of the same shape. It changes the
        training images alone, and the changed image is the one to reconstruct.
    reconstruction_weight : float, default=1.0
        Weight of the reconstruction in the loss, at least 0.
    epochs : int, default=10
        Passes over the images.
    batch_size : int, default=128
        Largest number of images a step; the batches of an epoch differ by one image at most.
    learning_rate : float, default=3e-3
        Peak of the schedule.
    weight_decay : float, default=1e-4
        AdamW's weight decay.
    validation_split : float, default=0.1
        Share of each class, in [0, 1), set aside for validation, at least one image of a class
        with two; 0 for none.
    validation_data : tuple (images, labels), default=None
        What to validate on instead.
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
        If ``model``, ``augment``, the labels or the dtype of the images is of the wrong kind.
    ValueError
        If a parameter is out of its range, or the images or labels have the wrong shape or
        values.
    FloatingPointError
        If the loss is no longer finite.

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
    _check_model(model)
    settings = _Settings(epochs, batch_size, learning_rate, weight_decay, verbose)
    if not (math.isfinite(reconstruction_weight) and reconstruction_weight >= 0):
        raise ValueError(
            f"reconstruction_weight={reconstruction_weight!r}: must be finite and at least 0"
        )
    source = Images(images, model.in_channels, model.image_size)
    classes = _check_labels(labels, len(source), model.n_classes, "labels")
    rng = _generator(random_state)
    if validation_data is None:
        rows, val_rows = _split(len(source), classes.numpy(), validation_split, rng)
        valid = _Part(source, classes, val_rows)
    else:
        if not isinstance(validation_data, tuple) or len(validation_data) != 2:
            raise TypeError("validation_data must be a tuple (images, labels)")
        name = "validation_data"
        given = Images(validation_data[0], model.in_channels, model.image_size, f"{name}[0]")
        val_classes = _check_labels(validation_data[1], len(given), model.n_classes, f"{name}[1]")
        rows, valid = np.arange(len(source)), _Part(given, val_classes, np.arange(len(given)))

    def loss(
        x: torch.Tensor, target: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        x_prime, y, _ = model(x)
        total = cross_entropy(y, target) + reconstruction_weight * mse_loss(x_prime, x)
        return total, (y.argmax(1) == target).sum()

    train = _Part(source, classes, rows)
    return _fit(model, train, valid, loss, _augmentation(augment), settings, rng, "finetune")


def _fit(
    model: ConvAutoencoder,
    train: _Part,
    valid: _Part,
    loss: _Loss,
    augment: Callable[[torch.Tensor], torch.Tensor] | None,
    settings: _Settings,
    rng: np.random.Generator,
    name: str,
) -> History:
    """The loop that every kind of training shares."""
    if len(train.rows) < 2:
        raise ValueError(f"images: {len(train.rows)} are left to train on, at least 2 are needed")
    device = next(model.parameters()).device
    steps = _n_batches(len(train.rows), settings.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * steps
    )
    history = History()
    best = _snapshot(model)
    try:
        with _seeded(device, rng), _progress(name, settings, steps) as progress:
            for epoch in range(settings.epochs):
                model.train()
                total = torch.zeros((), dtype=torch.float64, device=device)
                rows = rng.permutation(train.rows)
                for x, target in train.batches(rows, settings.batch_size, device):
                    if augment is not None:
                        x = _augmented(augment, x)
                    optimizer.zero_grad(set_to_none=True)
                    value, _ = loss(x, target)
                    value.backward()
                    optimizer.step()
                    schedule.step()
                    total += value.detach() * len(x)
                    progress.update()
                history.train_loss.append(float(total) / len(train.rows))
                if not math.isfinite(history.train_loss[-1]):
                    raise FloatingPointError(
                        f"the loss of epoch {epoch + 1} is not finite: lower learning_rate="
                        f"{settings.learning_rate!r}"
                    )
                if len(valid.rows):
                    _validate(model, valid, loss, settings.batch_size, device, history)
                if _is_best(history):
                    best = _snapshot(model)
                shown = {"loss": history.train_loss, "val_loss": history.val_loss}
                shown["val_accuracy"] = history.val_accuracy
                progress.set_postfix({k: f"{v[-1]:.4f}" for k, v in shown.items() if v})
    finally:
        model.load_state_dict(best)
        model.zero_grad(set_to_none=True)
        model.eval()
    return history


def _validate(
    model: ConvAutoencoder,
    valid: _Part,
    loss: _Loss,
    batch_size: int,
    device: torch.device,
    history: History,
) -> None:
    model.eval()
    total, correct = 0.0, 0
    with torch.no_grad():
        for x, target in valid.batches(valid.rows, batch_size, device):
            value, right = loss(x, target)
            total += float(value) * len(x)
            if right is not None:
                correct += int(right)
    history.val_loss.append(total / len(valid.rows))
    if valid.labels is not None:
        history.val_accuracy.append(correct / len(valid.rows))


def _is_best(history: History) -> bool:
    """Whether the last epoch is the best so far; if so, note it in the history."""
    loss = (history.val_loss or history.train_loss)[-1]
    accuracy = history.val_accuracy[-1] if history.val_accuracy else None
    better = loss < history.best_loss
    if accuracy is not None and history.best_accuracy is not None:
        better = (-accuracy, loss) < (-history.best_accuracy, history.best_loss)
    if better:
        history.best_epoch = len(history.train_loss) - 1
        history.best_loss, history.best_accuracy = loss, accuracy
    return better


def _snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@contextmanager
def _seeded(device: torch.device, rng: np.random.Generator) -> Iterator[None]:
    """Seed PyTorch's generators for a while, then put their states back.

    Dropout and kornia draw from the global generators and take no other.
    """
    seed = int(rng.integers(2**63))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # torch.manual_seed would reseed every device, those not forked here included.
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def _progress(name: str, settings: _Settings, steps: int) -> Iterator[Any]:
    if settings.verbose:
        tqdm: Any = require("tqdm", "torch").tqdm
        with tqdm(total=settings.epochs * steps, desc=name, unit="batch") as bar:
            yield bar
    else:
        yield _Silent()


class _Silent:
    """A progress bar that shows nothing."""

    def update(self) -> None: ...

    def set_postfix(self, values: dict[str, str]) -> None: ...


def _n_batches(n_rows: int, batch_size: int) -> int:
    return -(-n_rows // batch_size)


def _augmented(augment: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    view = augment(x)
    if not isinstance(view, torch.Tensor) or view.shape != x.shape or view.dtype != x.dtype:
        got = (
            f"{tuple(view.shape)} {view.dtype}"
            if isinstance(view, torch.Tensor)
            else type(view).__name__
        )
        raise ValueError(f"augment returned {got}: must return {tuple(x.shape)} {x.dtype}")
    return view


def _augmentation(
    augment: Callable[[torch.Tensor], torch.Tensor] | bool | None,
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    if augment is None or augment is False:
        return None
    if augment is True:
        made: Callable[[torch.Tensor], torch.Tensor] = Augmentation()
        return made
    if not callable(augment):
        raise TypeError(f"augment={augment!r}: must be None, a bool or a callable")
    return augment


def _check_model(model: Any) -> None:
    if not isinstance(model, ConvAutoencoder):
        raise TypeError(f"model is a {type(model).__name__}: must be a ConvAutoencoder")


def _generator(random_state: int | None) -> np.random.Generator:
    if random_state is None:
        return np.random.default_rng()
    if isinstance(random_state, bool) or index(random_state) < 0:
        raise ValueError(f"random_state={random_state!r}: must be None or an integer >= 0")
    return np.random.default_rng(index(random_state))


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
    """Rows to train on and rows to validate on, each class in its share."""
    if not 0 <= share < 1:
        raise ValueError(f"validation_split={share!r}: must be in [0, 1)")
    held = np.zeros(n_rows, bool)
    groups = [np.arange(n_rows)]
    if labels is not None:
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for group in groups:
        if share > 0 and len(group) > 1:
            n_held = min(max(round(share * len(group)), 1), len(group) - 1)
            held[rng.permutation(group)[:n_held]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
