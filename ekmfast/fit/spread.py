"""Which input to blame where the spread of rows cannot be told, wherever the rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.limits import least_square

WEIGHT_OVERFLOWS = "sample_weight times squared distances overflow: scale sample_weight down"
WEIGHT_UNDERFLOWS = "sample_weight times squared distances underflow: scale sample_weight up"


def check_spread(
    dispersion: float,
    low: NDArray[Any],
    high: NDArray[Any],
    dtype: np.dtype[Any],
    *,
    weighted: bool,
) -> None:
    """Refuse a dispersion, of rows in the box from ``low`` to ``high``, that ``dtype`` cannot hold.

    No squared distance is larger than that of the box's corners. Where ``dtype`` holds that one it
    is the weights that make the sum overflow; and where only some rows have a weight, a dispersion
    of nothing in a box of some width says that these are equal.
    """
    least = least_square(dtype)
    if np.isfinite(dispersion) and dispersion >= least:
        return
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        widest = np.square(high.astype(np.float64) - low).sum()
    if not np.isfinite(dispersion):
        if weighted and widest < np.finfo(dtype).max:
            raise ValueError(WEIGHT_OVERFLOWS)
        raise ValueError(f"squared distances overflow {dtype}: scale X down")
    if (low != high).any() and (widest < least or not weighted):
        raise ValueError(f"squared distances underflow {dtype}: scale X up")
