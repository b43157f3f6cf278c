"""What a training is made of, as short texts by which another training is told from it."""

import hashlib
from collections.abc import Mapping
from enum import Enum
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from ekmfast._image_files import ImageFiles
from ekmfast.autoencoder._images import DatasetImages, Images

# Images that are held in memory at once.
BATCH = 256


def of_images(images: Images | DatasetImages) -> str:
    """Of every image as a model sees it; of a folder's files, as they are on the disk."""
    if isinstance(images, DatasetImages) and isinstance(images.dataset, ImageFiles):
        return images.dataset.digest()
    digest = hashlib.sha256(f"{len(images)} images".encode())
    starts = range(0, len(images), BATCH)
    parts = [slice(start, start + BATCH) for start in starts]
    for batch in images.batches(parts, torch.device("cpu")):
        digest.update(batch.contiguous().numpy())
    return digest.hexdigest()


def of_labels(labels: torch.Tensor) -> str:
    """Of classes, int64."""
    return hashlib.sha256(labels.numpy()).hexdigest()


def of_model(model: nn.Module, state: Mapping[str, torch.Tensor] | None = None) -> str:
    """Of the layers, of what is trained of them, and of the weights: its own, or ``state``."""
    digest = hashlib.sha256(repr(model).encode())
    digest.update(repr([p.requires_grad for p in model.parameters()]).encode())
    _add(digest, dict(model.state_dict() if state is None else state), [])
    return digest.hexdigest()


def of_change(change: Any) -> str:
    """Of a function or object that changes images: its name, its code and the values it holds.

    What it draws from generators of its own, and what other modules do for it, is not seen.
    """
    if change is None:
        return "None"
    named = change if hasattr(change, "__qualname__") else type(change)
    digest = hashlib.sha256()
    _add(digest, change, [])
    return f"{named.__qualname__} {digest.hexdigest()[:16]}"


def _add(digest: Any, value: Any, above: list[Any]) -> None:
    """Add a value and all that it is made of, but for what it is itself a part of."""
    if any(value is other for other in above):
        return
    above = [*above, value]
    kind = type(value)
    digest.update(f"{kind.__module__}.{kind.__qualname__}(".encode())
    parts: Any = ()
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype.str} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        parts = [part for item in value.items() for part in item]
    elif isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, set | frozenset):
        digest.update(repr(sorted(map(repr, value))).encode())
    elif isinstance(value, CodeType):
        digest.update(value.co_code)
        parts = (value.co_names, value.co_consts)
    elif isinstance(value, FunctionType):
        digest.update(value.__qualname__.encode())
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, cells, _globals(value))
    elif isinstance(value, MethodType):
        parts = (value.__func__, value.__self__)
    elif isinstance(value, partial):
        parts = (value.func, value.args, value.keywords)
    elif isinstance(value, type | ModuleType | Enum) or not hasattr(value, "__dict__"):
        # Numbers, texts and what is built in; not where an object is in memory.
        shown = getattr(value, "__qualname__", None) or repr(value)
        digest.update(shown.split(" at 0x")[0].encode())
    else:
        own = vars(value)
        # Private ones are often a cache, such as kornia's of the last random numbers.
        parts = [{k: v for k, v in own.items() if not k.startswith("_")}]
        if isinstance(value, nn.Module):
            parts += [value.extra_repr(), own["_parameters"], own["_buffers"], own["_modules"]]
        classes = [c for c in kind.__mro__ if c not in (object, nn.Module)]
        methods = [m for c in classes for m in vars(c).values() if isinstance(m, FunctionType)]
        parts.append(methods)
    for part in parts:
        _add(digest, part, above)
    digest.update(b")")


def _globals(function: FunctionType) -> dict[str, Any]:
    """Values, and functions of its own module, that a function finds by their names."""
    found = {}
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, int | float | str | tuple) or (
            isinstance(value, FunctionType) and value.__module__ == function.__module__
        ):
            found[name] = value
    return found
