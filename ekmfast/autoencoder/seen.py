"""Which images a model was trained on: digests of their pixels, which go with it into files.

A model reconstructs those better than fresh ones, so a threshold that is to hold for fresh images
must not come from them.
"""

import base64
import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ekmfast.autoencoder.images import as_images

# Images whose pixels are in memory at once.
BATCH = 256


def digests(batch: torch.Tensor) -> NDArray[np.int64]:
    """Of each image of a batch in [0, 1]: 64 bits of its pixels, rounded to bytes."""
    pixels = (batch * 255).round().to(torch.uint8).cpu().numpy()
    found = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in pixels]
    return np.frombuffer(b"".join(found), "<i8").astype(np.int64)


def remember(model: Any, found: list[NDArray[np.int64]]) -> None:
    """Note that the model was trained on images of these digests."""
    model.trained_on = torch.from_numpy(np.unique(np.concatenate([trained_on(model), *found])))


def trained_on(model: Any) -> NDArray[np.int64]:
    """Sorted digests of the images that the model is known to have been trained on."""
    known = getattr(model, "trained_on", None)
    return np.empty(0, np.int64) if known is None else np.asarray(known.cpu().numpy())


def unseen(model: Any, images: Any) -> NDArray[np.bool_]:
    """Which of some images the model is not known to have been trained on; they are read once."""
    source = as_images(images, model.in_channels, model.image_size)
    known = trained_on(model)
    if not len(known):
        return np.ones(len(source), bool)
    starts = range(0, len(source), BATCH)
    parts = [slice(start, start + BATCH) for start in starts]
    device = torch.device("cpu")
    found = [digests(batch) for batch in source.batches(parts, device)]
    return ~np.isin(np.concatenate([np.empty(0, np.int64), *found]), known)


def as_text(known: torch.Tensor) -> str:
    """Digests for a file of JSON."""
    return base64.b64encode(known.numpy().astype("<i8").tobytes()).decode()


def from_text(text: str) -> torch.Tensor:
    """What `as_text` wrote."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<i8").astype(np.int64))
