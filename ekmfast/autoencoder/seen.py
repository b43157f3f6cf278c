"""Remember which images a model was trained on, by digests that its exported files contain.

A model reconstructs its training images better than new images. Therefore a threshold for new
images must not be computed from training images.
"""

import base64
import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ekmfast.autoencoder.images import as_images

# Number of images whose pixels are in memory at a time.
BATCH = 256


def digests(batch: torch.Tensor) -> NDArray[np.int64]:
    """A 64-bit digest of each image of a batch; its values in [0, 1] are rounded to bytes."""
    pixels = (batch * 255).round().to(torch.uint8).cpu().numpy()
    hashes = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in pixels]
    return np.frombuffer(b"".join(hashes), "<i8").astype(np.int64)


def remember(model: Any, new: list[NDArray[np.int64]]) -> None:
    """Record that the model was trained on the images with these digests."""
    model.trained_on = torch.from_numpy(np.unique(np.concatenate([trained_on(model), *new])))


def trained_on(model: Any) -> NDArray[np.int64]:
    """Sorted digests of the images that the model is known to have been trained on."""
    known = getattr(model, "trained_on", None)
    return np.empty(0, np.int64) if known is None else np.asarray(known.cpu().numpy())


def unseen(model: Any, images: Any) -> NDArray[np.bool_]:
    """Mask of the images that the model is not known to have been trained on."""
    source = as_images(images, model.in_channels, model.image_size)
    known = trained_on(model)
    if not len(known):
        return np.ones(len(source), bool)
    starts = range(0, len(source), BATCH)
    parts = [slice(start, start + BATCH) for start in starts]
    device = torch.device("cpu")
    given = [digests(batch) for batch in source.batches(parts, device)]
    return ~np.isin(np.concatenate([np.empty(0, np.int64), *given]), known)


def as_text(known: torch.Tensor) -> str:
    """Digests as text, for a JSON file."""
    return base64.b64encode(known.numpy().astype("<i8").tobytes()).decode()


def from_text(text: str) -> torch.Tensor:
    """Inverse of `as_text`."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<i8").astype(np.int64))
