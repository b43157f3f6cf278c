"""Check images once, hand them out in float32 batches."""

from typing import Any

import numpy as np
import torch

# Interpolation leaves values a rounding error outside [0, 1].
_RANGE_SLACK = 1e-5


class Images:
    """Checked images, NumPy array or tensor, kept as they came.

    Only ``batch`` converts, one batch at a time, so neither a float32 copy of bytes nor a
    writable copy of a read-only array is ever made of the whole.

    Parameters
    ----------
    images : array or Tensor of shape (N, C, S, S), or (N, S, S) where C is 1
        Bytes (uint8, scaled by 1/255), or floats in [0, 1].
    in_channels, image_size : int
        What C and S must be.
    name : str, default="images"
        Name of the parameter, for the messages.

    Raises
    ------
    TypeError
        If the dtype is neither uint8 nor floating.
    ValueError
        If the shape is wrong, or a value is NaN or outside [0, 1].
    """

    def __init__(
        self, images: Any, in_channels: int, image_size: int, name: str = "images"
    ) -> None:
        self.is_tensor = isinstance(images, torch.Tensor)
        if not self.is_tensor:
            images = np.asarray(images)
        shape = tuple(images.shape)
        wanted = (in_channels, image_size, image_size)
        if len(shape) == 3 and in_channels == 1 and shape[1:] == wanted[1:]:
            images = images[:, None]
        elif len(shape) != 4 or shape[1:] != wanted:
            hint = ""
            if len(shape) == 4 and shape[1:] == (image_size, image_size, in_channels):
                order = "permute(0, 3, 1, 2)" if self.is_tensor else "transpose(0, 3, 1, 2)"
                hint = f"; these have their channels last, use {name}.{order}"
            alternative = f" or (N, {image_size}, {image_size})" if in_channels == 1 else ""
            raise ValueError(
                f"{name} has shape {shape}: must be (N, {in_channels}, {image_size}, {image_size})"
                f"{alternative}{hint}"
            )
        self.values = images
        self._check_values(name)

    def _check_values(self, name: str) -> None:
        values = self.values
        if self.is_tensor:
            is_bytes, is_floats = values.dtype == torch.uint8, values.is_floating_point()
            self.device = values.device
        else:
            is_bytes, is_floats = values.dtype == np.uint8, values.dtype.kind == "f"
            self.device = torch.device("cpu")
        if not (is_bytes or is_floats):
            raise TypeError(f"{name} has dtype {values.dtype}: must be uint8 or floating")
        self._scale = 255.0 if is_bytes else 1.0
        if is_bytes or len(self) == 0:
            return
        low, high = float(values.min()), float(values.max())
        if np.isnan(low) or np.isnan(high):
            raise ValueError(f"{name} contains NaN: must be finite and in [0, 1]")
        if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
            raise ValueError(
                f"{name} has values from {low:g} to {high:g}: floats must be in [0, 1] "
                "(bytes from 0 to 255 are taken as uint8)"
            )

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def batch(self, rows: slice | np.ndarray, device: torch.device) -> torch.Tensor:
        """Some of the images, float32 in [0, 1] and contiguous, on ``device``."""
        if self.is_tensor:
            if isinstance(rows, np.ndarray):
                rows = torch.from_numpy(rows).to(self.device)
            chosen = self.values[rows].detach().to(device, torch.float32).contiguous()
        else:
            chosen = torch.from_numpy(np.array(self.values[rows], np.float32, order="C"))
            chosen = chosen.to(device)
        return chosen / self._scale if self._scale != 1.0 else chosen
