"""Check the device on which a model shall run."""

from typing import Any

import torch

from ekmfast._arguments import shown


def usable(device: Any) -> torch.device:
    """The device; raise ValueError if it is unknown or absent, or cannot store a tensor."""
    try:
        checked = torch.device(device)
        torch.zeros(1, device=checked).cpu()
    except Exception as error:  # PyTorch raises different types for different reasons
        raise ValueError(f"device={shown(device)}: {first_line(error)}") from None
    return checked


def first_line(reason: object) -> str:
    """First line of a message of PyTorch; the lines after it list places in PyTorch's code."""
    lines = str(reason).strip().splitlines()
    return lines[0] if lines else type(reason).__name__
