"""Make figures and axes without pyplot, and define the colours of all plots."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._optional import require

# The colours of Okabe and Ito, which people with common kinds of colour blindness can distinguish.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")

NO_CLUSTER = "#BBBBBB"
ATTRACT, REPEL = PALETTE[0], PALETTE[5]


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Any, NDArray[Any]]:
    """Make a figure that is not registered with pyplot, and its axes.

    Parameters
    ----------
    width, height : float
        Size in inches.
    rows, columns : int, default=1
        Size of the grid of axes.
    **options
        Further arguments of ``Figure.subplots``, such as ``sharex``.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of shape (rows, columns)

    Examples
    --------
    >>> from ekmfast.plotting import new_figure
    >>> figure, axes = new_figure(6, 3, columns=2)
    >>> axes.shape
    (1, 2)
    """
    matplotlib: Any = require("matplotlib.figure", "plot")
    figure = matplotlib.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def check_path(path: Any, parts: str, maker: str) -> None:
    """Raise TypeError if ``path`` lacks attributes of what the function ``maker`` returns."""
    missing = [name for name in parts.split() if not hasattr(path, name)]
    if missing:
        raise TypeError(
            f"path must be the result of ekmfast.{maker}, got a {type(path).__name__} without "
            f"{', '.join(missing)}"
        )


def three_axes(axes: Any, width: float, height: float, **options: Any) -> NDArray[Any]:
    """The three Axes that are given, or those of a new figure, one below the other."""
    if axes is None:
        axes = new_figure(width, height, 3, sharex=True, **options)[1]
    three: NDArray[Any] = np.ravel(np.asarray(axes, object))
    if len(three) != 3:
        raise ValueError(f"axes has {len(three)} Axes: must be 3")
    return three


def _draw_centroids(ax: Any, centroids: NDArray[Any]) -> None:
    # A white cross under a black one is visible on every colour.
    ax.scatter(*centroids.T, s=130, color="white", marker="x", linewidths=5, zorder=4)
    ax.scatter(*centroids.T, s=100, color="black", marker="x", linewidths=2.2, zorder=5)


def _plane(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} has shape {array.shape}: must be (n, 2)")
    return array
