"""Resize images of any height and width to a model's size."""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from ekmfast.autoencoder.images import is_dataset

BATCH = 256


def resized(images: Any, image_size: int, name: str = "images") -> Any:
    """Resize images (N, C, H, W) or (N, H, W) to (N, C, S, S), float32 in [0, 1].

    Datasets, and images that already have the size, are returned unchanged. The interpolation is
    bilinear with antialiasing; the ratio of height to width is not kept.
    """
    if is_dataset(images):
        return images
    is_tensor = isinstance(images, torch.Tensor)
    if not is_tensor:
        images = np.asarray(images)
    shape = tuple(images.shape)
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise ValueError(f"{name} has shape {shape}: must be (N, C, H, W) or (N, H, W)")
    if shape[-2:] == (image_size, image_size):
        return images
    if len(shape) == 4 and shape[1] > 4 and shape[3] <= 4:
        raise ValueError(
            f"{name} has shape {shape}, its channels last: must be (N, C, H, W); use "
            f"{name}.{'permute' if is_tensor else 'transpose'}(0, 3, 1, 2)"
        )
    scale = 255.0 if str(images.dtype).endswith("uint8") else 1.0
    if len(shape) == 3:
        images = images[:, None]
    out = torch.empty((shape[0], images.shape[1], image_size, image_size))
    for start in range(0, shape[0], BATCH):
        part = images[start : start + BATCH]
        part = part.detach().cpu() if is_tensor else torch.from_numpy(np.array(part))
        out[start : start + BATCH] = interpolate(
            part.to(torch.float32) / scale, (image_size, image_size), mode="bilinear",
            antialias=True, align_corners=False,
        )  # fmt: skip
    # Values are not clipped to [0, 1]: the later check allows rounding errors, and shall still
    # find images whose values were outside the range before.
    return out.to(images.device) if is_tensor else out.numpy()
