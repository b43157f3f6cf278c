"""Check the device on which a model shall run."""

from typing import Any

import torch

from ekmfast._arguments import shown
from ekmfast._parameters import Constraint, Fault, Integer


class _Device(Constraint):
    """A device of PyTorch, whether or not this machine has it."""

    def fault(self, value: Any) -> Fault | None:
        if not isinstance(value, str):
            return None if isinstance(value, torch.device) else Integer(0).fault(value)
        try:
            torch.device(value)
        except Exception:  # PyTorch has a different one for every reason
            return ValueError
        return None

    def alternatives(self, value: Any) -> list[str]:
        return ["a device's name, such as 'cpu' or 'cuda:0'", "its number", "a torch.device"]


DEVICE = _Device()


def usable(device: Any) -> torch.device:
    """The device; raise ValueError if it is unknown or absent, or cannot store a tensor."""
    DEVICE.check("device", device)
    try:
        checked = torch.device(device)
        torch.zeros(1, device=checked).cpu()
    except Exception as error:  # PyTorch raises different types for different reasons
        raise ValueError(
            f"device must be one that can be used here, got {shown(device)}: {first_line(error)}"
        ) from None
    return checked


def first_line(reason: object) -> str:
    """First line of a message of PyTorch; the lines after it list places in PyTorch's code."""
    lines = str(reason).strip().splitlines()
    return lines[0] if lines else type(reason).__name__
