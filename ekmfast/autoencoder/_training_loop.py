"""The loop that every kind of training shares: steps, validation, the best epoch, checkpoints."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ekmfast._optional import require
from ekmfast._parameters import (
    COUNT,
    NONE,
    POSITIVE,
    VERBOSE,
    AnyOf,
    Integer,
    Number,
    OneOf,
    check_parameters,
)
from ekmfast.autoencoder._generators import seeded
from ekmfast.autoencoder._training_file import TrainingFile
from ekmfast.autoencoder.images import DatasetImages, Images
from ekmfast.autoencoder.model import ConvAutoencoder
from ekmfast.autoencoder.seen import digests, remember

# (target images, input images, labels) -> (mean loss, number of correctly classified images or
# None).
Loss = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor | None]
]
Change = Callable[[torch.Tensor], torch.Tensor]

SETTINGS = {
    "epochs": COUNT,
    # Batch normalisation needs two images where the encoder ends in a single pixel.
    "batch_size": Integer(2),
    "learning_rate": POSITIVE,
    "schedule": OneOf("one-cycle", "cosine", "constant"),
    "weight_decay": Number(0),
    "max_grad_norm": AnyOf(NONE, POSITIVE),
    "patience": AnyOf(NONE, COUNT),
    "precision": OneOf("float32", "bfloat16"),
    "checkpoint_every": COUNT,
    "verbose": VERBOSE,
}


@dataclass
class History:
    """Losses and other numbers of each epoch of a training.

    Attributes
    ----------
    train_loss : list of float
        Mean loss over the epoch's training batches, each with the weights of its own step.
    val_loss : list of float
        Loss on the validation images after the epoch; empty without validation.
    val_accuracy : list of float
        Share of the validation images that are classified correctly; empty without labels or
        validation.
    learning_rate : list of float
        Learning rate of the epoch's last step.
    best_epoch : int
        Index of the epoch whose weights were kept. It has the highest validation accuracy, and
        among equal ones the lowest validation loss; without labels the lowest validation loss;
        without validation the lowest training loss.
    best_loss : float
        Validation loss of that epoch, or its training loss without validation.
    best_accuracy : float or None
        Validation accuracy of that epoch, if there is one.
    stopped_early : bool
        Whether ``patience`` ended the training.
    """

    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    best_accuracy: float | None = None
    stopped_early: bool = False

    def is_better(self) -> bool:
        """Whether the last epoch is the best so far; if so, record it as the best."""
        loss = (self.val_loss or self.train_loss)[-1]
        accuracy = self.val_accuracy[-1] if self.val_accuracy else None
        better = loss < self.best_loss
        if accuracy is not None and self.best_accuracy is not None:
            better = (-accuracy, loss) < (-self.best_accuracy, self.best_loss)
        if better:
            self.best_epoch = len(self.train_loss) - 1
            self.best_loss, self.best_accuracy = loss, accuracy
        return better

    def waited(self) -> int:
        """Epochs since the best one."""
        return len(self.train_loss) - 1 - self.best_epoch


@dataclass(frozen=True)
class Part:
    """Rows of images that are used for training or validation, and their labels if any."""

    images: Images | DatasetImages
    labels: torch.Tensor | None
    rows: np.ndarray

    def batches(
        self, rows: np.ndarray, batch_size: int, device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        parts = np.array_split(rows, n_batches(len(rows), batch_size))
        for chosen, batch in zip(parts, self.images.batches(parts, device), strict=True):
            labels = self.labels
            if labels is not None:
                labels = labels[torch.from_numpy(chosen)].to(device)
            yield batch, labels


@dataclass(frozen=True)
class Settings:
    """Parameters of the loop that the user may choose."""

    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    weight_decay: float
    max_grad_norm: float | None
    patience: int | None
    precision: str
    checkpoint_every: int
    verbose: int

    def __post_init__(self) -> None:
        for name, value in check_parameters(vars(self), SETTINGS).items():
            object.__setattr__(self, name, value)


def train(
    model: ConvAutoencoder,
    part: Part,
    valid: Part,
    loss: Loss,
    augment: Change | None,
    corrupt: Change | None,
    settings: Settings,
    rng: np.random.Generator,
    name: str,
    file: TrainingFile | None,
) -> History:
    """Train ``model``, which ends in evaluation mode with the weights of its best epoch."""
    if len(part.rows) < 2:
        raise ValueError(f"images: {len(part.rows)} left to train on, at least 2 are needed")
    device = next(model.parameters()).device
    steps = n_batches(len(part.rows), settings.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = _schedule(optimizer, settings, steps)
    history = History()
    patience = math.inf if settings.patience is None else settings.patience
    best = _snapshot(model)
    seen: list[np.ndarray] = []
    try:
        with seeded(int(rng.integers(2**63)), device), _progress(name, settings, steps) as progress:
            if file is not None and (state := file.read()) is not None:
                stored = History(**json.loads(state["history"]))
                if len(stored.train_loss) > settings.epochs:
                    raise ValueError(
                        f"epochs={settings.epochs}: checkpoint={str(file.path)!r} has already "
                        f"trained {len(stored.train_loss)}; ask for at least as many, or remove "
                        "the file"
                    )
                if len(stored.train_loss) < settings.epochs and stored.waited() < patience:
                    file.warn_of_other_machine(state)
                seen += [
                    digests(x) for x, _ in part.batches(part.rows, settings.batch_size, device)
                ]
                history, best = stored, state["best"]
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                schedule.load_state_dict(state["schedule"])
                rng.bit_generator.state = json.loads(state["rng"])
                _set_torch_state(device, state["torch_rng"])
                progress.update(steps * len(history.train_loss))
            for epoch in range(len(history.train_loss), settings.epochs):
                if history.waited() >= patience:
                    history.stopped_early = True
                    break
                model.train()
                total = torch.zeros((), dtype=torch.float64, device=device)
                rows = rng.permutation(part.rows)
                for x, target in part.batches(rows, settings.batch_size, device):
                    if epoch == 0:
                        seen.append(digests(x))
                    if augment is not None:
                        x = _changed(augment, x, "augment")
                    given = x if corrupt is None else _changed(corrupt, x, "corruption")
                    optimizer.zero_grad(set_to_none=True)
                    with _precision(device, settings.precision):
                        value, _ = loss(x, given, target)
                    value.backward()
                    if settings.max_grad_norm is not None:
                        nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
                    optimizer.step()
                    rate = float(optimizer.param_groups[0]["lr"])
                    schedule.step()
                    total += value.detach() * len(x)
                    progress.update()
                history.train_loss.append(float(total) / len(part.rows))
                history.learning_rate.append(rate)
                if not math.isfinite(history.train_loss[-1]):
                    raise FloatingPointError(
                        f"the loss of epoch {epoch + 1} is not finite: lower learning_rate="
                        f"{settings.learning_rate!r}"
                    )
                if len(valid.rows):
                    _validate(model, valid, loss, settings, device, history)
                if history.is_better():
                    best = _snapshot(model)
                last = history.waited() >= patience or epoch + 1 == settings.epochs
                if file is not None and (last or (epoch + 1) % settings.checkpoint_every == 0):
                    state = {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                        "best": best,
                        "history": json.dumps(asdict(history)),
                        "rng": json.dumps(rng.bit_generator.state),
                        "torch_rng": _torch_state(device),
                    }
                    file.write(state)
                shown = {"loss": history.train_loss, "val_loss": history.val_loss}
                shown["val_accuracy"] = history.val_accuracy
                progress.set_postfix({k: f"{v[-1]:.4f}" for k, v in shown.items() if v})
    finally:
        model.load_state_dict(best)
        if history.best_epoch >= 0:  # otherwise the weights are still those before the training
            remember(model, seen)
        model.zero_grad(set_to_none=True)
        model.eval()
    return history


def _schedule(optimizer: torch.optim.Optimizer, settings: Settings, steps: int) -> Any:
    """Schedule of the learning rate over the steps."""
    schedules = torch.optim.lr_scheduler
    total = settings.epochs * steps
    if settings.schedule == "one-cycle":
        return schedules.OneCycleLR(optimizer, settings.learning_rate, total_steps=total)
    if settings.schedule == "cosine":
        return schedules.CosineAnnealingLR(optimizer, T_max=total)
    return schedules.ConstantLR(optimizer, factor=1.0)


def _precision(device: torch.device, precision: str) -> Any:
    """Context in which matrix products use ``precision``; weights and sums stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _validate(
    model: ConvAutoencoder,
    valid: Part,
    loss: Loss,
    settings: Settings,
    device: torch.device,
    history: History,
) -> None:
    model.eval()
    total, correct = 0.0, 0
    with torch.no_grad():
        for x, target in valid.batches(valid.rows, settings.batch_size, device):
            with _precision(device, settings.precision):
                value, right = loss(x, x, target)
            total += float(value) * len(x)
            if right is not None:
                correct += int(right)
    history.val_loss.append(total / len(valid.rows))
    if valid.labels is not None:
        history.val_accuracy.append(correct / len(valid.rows))


def _snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _torch_state(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_torch_state(device: torch.device, states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)


@contextmanager
def _progress(name: str, settings: Settings, steps: int) -> Iterator[Any]:
    if settings.verbose:
        tqdm: Any = require("tqdm", "torch").tqdm
        with tqdm(total=settings.epochs * steps, desc=name, unit="batch") as bar:
            yield bar
    else:
        yield _Silent()


class _Silent:
    """A progress bar that shows nothing."""

    def update(self, n: int = 1) -> None: ...

    def set_postfix(self, values: dict[str, str]) -> None: ...


def n_batches(n_rows: int, batch_size: int) -> int:
    return -(-n_rows // batch_size)


def _changed(change: Change, x: torch.Tensor, name: str) -> torch.Tensor:
    view = change(x)
    if not isinstance(view, torch.Tensor) or view.shape != x.shape or view.dtype != x.dtype:
        got = (
            f"{tuple(view.shape)} {view.dtype}"
            if isinstance(view, torch.Tensor)
            else type(view).__name__
        )
        raise ValueError(f"{name} returned {got}: must return {tuple(x.shape)} {x.dtype}")
    return view
