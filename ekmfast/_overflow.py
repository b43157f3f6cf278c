"""Which input to blame where sums of weighted squared distances overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def overflow_error(
    low: NDArray[Any], high: NDArray[Any], dtype: np.dtype[Any], *, weighted: bool
) -> ValueError:
    """The error for rows in the box from ``low`` to ``high`` (D,).

    No squared distance is larger than that of the box's corners. Where ``dtype`` holds that one,
    it is the weights that make the sum overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        widest = np.square(high.astype(np.float64) - low).sum()
    if weighted and widest < np.finfo(dtype).max:
        return ValueError(
            "sample_weight times squared distances overflow: scale sample_weight down"
        )
    return ValueError(f"squared distances overflow {dtype}: scale X down")
