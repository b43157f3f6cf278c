"""The device that a model is to run on."""

from typing import Any

import torch

from ekmfast._arguments import shown


def usable(device: Any) -> torch.device:
    """The device, tried; a ValueError if it is unknown, absent or holds no numbers."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except Exception as error:  # PyTorch has a different one for every reason
        raise ValueError(f"device={shown(device)}: {first_line(error)}") from None
    return found


def first_line(reason: object) -> str:
    """What PyTorch says before it lists where in its code that was."""
    lines = str(reason).strip().splitlines()
    return lines[0] if lines else type(reason).__name__
