"""TorchScript without its deprecation warnings, where PyTorch supports it.

PyTorch deprecates ``torch.jit`` in favour of ``torch.export``. TorchScript remains the default file
format here, because a program in Python or C++ that has only PyTorch can call its methods
(``encode``, ``reconstruct``, ``anomaly_loss``) by name on batches of any size. Users of ekmfast can
do nothing about the warnings, so they are not shown. From Python 3.14 on PyTorch does not support
TorchScript.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import nn


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", r"`?torch\.jit\.", category)
        # torch.export warns about its own internals.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec", FutureWarning)
        warnings.filterwarnings("ignore", r"Attempted to insert a get_attr Node", UserWarning)
        yield


def is_supported() -> bool:
    return sys.version_info < (3, 14)


def require_torchscript(instead: str) -> None:
    """Raise an error that says what to do ``instead`` if TorchScript is not supported here."""
    if not is_supported():
        raise NotImplementedError(
            f"PyTorch does not support TorchScript from Python 3.14 on: {instead}"
        )


def script(module: nn.Module) -> torch.jit.ScriptModule:
    require_torchscript("use torch.export")
    with quiet():
        return torch.jit.script(module)


def save(module: torch.jit.ScriptModule, buffer: IO[bytes]) -> None:
    with quiet():
        torch.jit.save(module, buffer)


def load(path: Path) -> torch.jit.ScriptModule:
    require_torchscript(
        f"load {path} with an older Python, or export the model again, to a file named .pt2"
    )
    with quiet():
        return torch.jit.load(str(path), map_location="cpu")
