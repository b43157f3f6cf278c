"""Errors for rows whose squared distances overflow or underflow their dtype."""

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
    """Raise ValueError if ``dtype`` cannot hold the dispersion of rows in a bounding box.

    The error names the input that causes it. No squared distance is larger than that between the
    opposite corners ``low`` and ``high`` of the box. If ``dtype`` can hold that one, the weights
    have caused the overflow. A dispersion that underflows is no error here if the rows are weighted
    and the box is wide enough, since all rows with a positive weight may be equal.
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
