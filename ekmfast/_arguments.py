"""How a value is shown in the message of an error."""

from __future__ import annotations

from typing import Any


def shown(value: Any) -> str:
    """``repr(value)`` on one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes out no integer of more than 4,300 digits
        if isinstance(value, int):
            text = f"(an integer of {value.bit_length()} bits)"
        else:
            text = f"(a {type(value).__name__} that holds an integer too large to write out)"
    return text if len(text) <= 60 else f"{text[:60]}..."
