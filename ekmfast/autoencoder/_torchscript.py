"""TorchScript without its deprecation warnings.

PyTorch deprecates ``torch.jit`` in favour of ``torch.export``. TorchScript remains the default file
format here, because a program in Python or C++ that has only PyTorch can call its methods
(``encode``, ``reconstruct``, ``anomaly_loss``) by name on batches of any size. Users of ekmfast can
do nothing about the warnings, so they are not shown.
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
        # torch.export warns about its own internals.
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
