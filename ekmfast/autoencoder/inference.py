"""Apply a model to images in batches, and write the results to one preallocated array."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ekmfast._parameters import COUNT, Kind
from ekmfast.autoencoder.images import DatasetImages, Images

OUT = Kind(lambda value: isinstance(value, np.ndarray | torch.Tensor), "an array", "a tensor")


def apply_in_batches(
    function: Callable[[torch.Tensor], torch.Tensor],
    images: Images | DatasetImages,
    row_shape: tuple[int, ...],
    *,
    batch_size: int,
    device: torch.device,
    out: Any = None,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """Rows of ``function(images)``, computed in inference mode.

    Parameters
    ----------
    function : callable
        Takes a float32 batch (n, C, S, S) on ``device``, returns (n, *row_shape).
    images : Images or DatasetImages
        Checked images.
    row_shape : tuple of int
        Shape of one row of the result.
    batch_size : int
        Images per call of ``function``.
    device : torch.device
        Where ``function`` runs.
    out : ndarray or Tensor of shape (N, *row_shape), float32, default=None
        Where to write the rows.
    dtype : torch.dtype, default=torch.float32
        Type of the result.

    Returns
    -------
    ndarray or Tensor of shape (N, *row_shape), ``dtype``, C-contiguous
        An array for an array, a tensor on the images' device for a tensor.
    """
    batch_size = COUNT.check("batch_size", batch_size)
    shape = (len(images), *row_shape)
    result: Any = out
    if out is not None:
        _check_out(out, shape)
    elif images.is_tensor:
        result = torch.empty(shape, dtype=dtype, device=images.device)
    else:
        result = torch.empty(shape, dtype=dtype).numpy()
    # ``rows`` shares the memory of the result.
    rows = result if isinstance(result, torch.Tensor) else torch.from_numpy(result)
    with torch.inference_mode():
        starts = range(0, len(images), batch_size)
        parts = [slice(start, start + batch_size) for start in starts]
        for part, batch in zip(parts, images.batches(parts, device), strict=True):
            rows[part] = function(batch)
    return result


def _check_out(out: Any, shape: tuple[int, ...]) -> None:
    OUT.check("out", out)
    if out.dtype not in (np.dtype(np.float32), torch.float32):
        raise TypeError(f"out has dtype {out.dtype}: must be float32")
    if tuple(out.shape) != shape:
        raise ValueError(f"out has shape {tuple(out.shape)}: must be {shape}")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("out is read-only: must be writable")
