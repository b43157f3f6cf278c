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
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"device={shown(device)}: {reason}") from None
    return found
