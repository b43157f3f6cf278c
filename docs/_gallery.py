"""What sphinx-gallery does before each example."""

from __future__ import annotations

import warnings
from typing import Any


def warnings_are_errors(gallery_conf: dict[str, Any], fname: str) -> None:
    """Let an example that warns end the build: readers copy the examples."""
    warnings.simplefilter("error")
