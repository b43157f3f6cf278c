"""TorchScript without its deprecation warnings, in one place.

PyTorch deprecates ``torch.jit`` in favour of ``torch.export``. TorchScript stays the file format
here because it is what a program with PyTorch alone, in Python or C++, can run by method name
(``encode``, ``reconstruct``, ``anomaly_loss``) on batches of any size; a caller of ekmfast can do
nothing about the warning, so it is not shown to them.
"""

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
        # Of torch.export, about its own internals.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec", FutureWarning)
        warnings.filterwarnings("ignore", r"Attempted to insert a get_attr Node", UserWarning)
        yield


def script(module: nn.Module) -> torch.jit.ScriptModule:
    with quiet():
        return torch.jit.script(module)


def save(module: torch.jit.ScriptModule, buffer: IO[bytes]) -> None:
    with quiet():
        torch.jit.save(module, buffer)


def load(path: Path) -> torch.jit.ScriptModule:
    with quiet():
        return torch.jit.load(str(path), map_location="cpu")
