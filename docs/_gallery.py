"""What sphinx-gallery does before and after each example."""

from __future__ import annotations

import warnings
from typing import Any

_filters: list[Any] = []


def warnings_are_errors(gallery_conf: dict[str, Any], fname: str, when: str) -> None:
    """Let an example that warns end the build, since readers copy the examples."""
    if when == "before":
        _filters[:] = warnings.filters
        warnings.simplefilter("error")
    else:
        warnings.filters[:] = _filters  # type: ignore[index]
