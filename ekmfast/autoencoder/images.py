"""Check images once, and convert them to float32 batch by batch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ekmfast.rows.ahead import ahead

# Interpolation leaves values a rounding error outside [0, 1].
_RANGE_SLACK = 1e-5


def as_images(
    images: Any, in_channels: int, image_size: int, name: str = "images"
) -> "Images | DatasetImages":
    """Check images without copying them: `Images` for arrays, `DatasetImages` for datasets."""
    if isinstance(images, Images | DatasetImages):
        return images
    if is_dataset(images):
        return DatasetImages(images, in_channels, image_size, name)
    return Images(images, in_channels, image_size, name)


def is_dataset(images: Any) -> bool:
    """Whether ``images`` is a sequence of single images, such as an image folder, and no array."""
    return (
        not isinstance(images, torch.Tensor | list | tuple | str | bytes | dict)
        and not hasattr(images, "__array__")
        and hasattr(images, "__len__")
        and hasattr(images, "__getitem__")
    )


def channels_of(images: Any) -> int:
    """Channels of the images of an array (N, C, S, S) or (N, S, S), tensor or dataset."""
    channels = getattr(images, "channels", None)
    if channels is not None:
        return int(channels)
    if is_dataset(images):
        if not len(images):
            return 1
        first = images[0]
        shape = (1, *np.shape(first[0] if isinstance(first, tuple | list) else first))
    else:
        shape = np.shape(images)
    return shape[1] if len(shape) == 4 else 1


def labels_in(images: Any) -> Any:
    """Labels that belong to a dataset, or None.

    They are its ``labels`` or ``targets``, or else the second parts of its items, for which the
    whole dataset is read once.
    """
    for name in ("labels", "targets"):
        if (labels := getattr(images, name, None)) is not None:
            return labels
    if not is_dataset(images) or len(images) == 0:
        return None
    first = images[0]
    if not isinstance(first, tuple | list) or len(first) < 2:
        return None
    return np.array([int(images[i][1]) for i in range(len(images))], np.int64)


class Images:
    """Checked images in a NumPy array or tensor, which is not copied.

    Only ``batch`` converts them, one batch at a time, so that there is never a float32 or writable
    copy of all images.

    Parameters
    ----------
    images : array or Tensor of shape (N, C, S, S), or (N, S, S) where C is 1
        Bytes (uint8, scaled by 1/255), or floats in [0, 1].
    in_channels, image_size : int
        The C and S that the images must have.
    name : str, default="images"
        Name of the parameter in error messages.

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
        """The images in ``rows``, float32 in [0, 1], contiguous, on ``device``.

        The result may share memory with the images, so do not change it.
        """
        if self.is_tensor:
            if isinstance(rows, np.ndarray):
                rows = torch.from_numpy(rows).to(self.device)
            chosen = self.values[rows].detach().to(device, torch.float32).contiguous()
        else:
            values = self.values[rows]
            # A read-only array is copied to avoid a warning of PyTorch.
            if values.dtype != np.float32 or not (
                values.flags.c_contiguous and values.flags.writeable
            ):
                values = np.array(values, np.float32, order="C")
            chosen = torch.from_numpy(values).to(device)
        return chosen / self._scale if self._scale != 1.0 else chosen

    def batches(self, rows: list[Any], device: torch.device) -> Iterator[torch.Tensor]:
        """``batch`` of each of ``rows``."""
        return (self.batch(some, device) for some in rows)


class DatasetImages:
    """Images of a dataset, which are read and checked one batch at a time.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        Its items are images (C, S, S), or (S, S) where C is 1, or tuples that begin with one. If
        the dataset has ``__getitems__``, it is called with all rows of a batch.
    in_channels, image_size, name
        As in `Images`.
    """

    is_tensor = False
    device = torch.device("cpu")

    def __init__(self, dataset: Any, in_channels: int, image_size: int, name: str) -> None:
        size = getattr(dataset, "image_size", image_size)
        channels = getattr(dataset, "channels", in_channels)
        if (channels, size) != (in_channels, image_size):
            raise ValueError(
                f"{name} has images of shape ({channels}, {size}, {size}): must be "
                f"({in_channels}, {image_size}, {image_size})"
            )
        self.dataset = dataset
        self._in_channels = in_channels
        self._image_size = image_size
        self._name = name

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, rows: slice | np.ndarray, device: torch.device) -> torch.Tensor:
        """The images in ``rows``, float32 in [0, 1] and contiguous, on ``device``."""
        given = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        chosen: list[int] = list(given)
        if hasattr(self.dataset, "__getitems__"):
            items = self.dataset.__getitems__(chosen)
        else:
            items = [self.dataset[i] for i in chosen]
        if not isinstance(items, np.ndarray | torch.Tensor):
            items = self._stacked(items, chosen)
        name = f"{self._name} (rows {chosen[0]} to {chosen[-1]})" if chosen else self._name
        return Images(items, self._in_channels, self._image_size, name).batch(slice(None), device)

    def _stacked(self, items: Any, rows: list[int]) -> Any:
        images = [item[0] if isinstance(item, tuple | list) else item for item in items]
        if not images:
            shape = (0, self._in_channels, self._image_size, self._image_size)
            return np.empty(shape, np.float32)
        for image, row in zip(images, rows, strict=True):
            if not isinstance(image, np.ndarray | torch.Tensor):
                raise TypeError(
                    f"{self._name}[{row}] is a {type(image).__name__}: must be an array or a "
                    "tensor, or a tuple that begins with one"
                )
            if image.shape != images[0].shape:
                raise ValueError(
                    f"{self._name}[{row}] has shape {tuple(image.shape)}, others have "
                    f"{tuple(images[0].shape)}: all must be ({self._in_channels}, "
                    f"{self._image_size}, {self._image_size})"
                )
        if isinstance(images[0], torch.Tensor):
            return torch.stack(images)
        return np.stack(images)

    def batches(self, rows: list[Any], device: torch.device) -> Iterator[torch.Tensor]:
        """``batch`` of each of ``rows``; the next one is read while the caller uses the last."""
        return ahead(self.batch(some, device) for some in rows)
