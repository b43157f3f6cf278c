"""Plot the sizes of clusters of several clusterings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ekmfast._parameters import Kind
from ekmfast.plotting.axes import PALETTE, new_figure

SIZES = Kind(lambda value: hasattr(value, "items"), "a dict of names to sizes")


def plot_sizes(
    sizes: dict[str, Sequence[int]], names: Sequence[str] | None = None, ax: Any = None
) -> Any:
    """Plot the sizes of clusters of several clusterings side by side, on a logarithmic scale.

    Parameters
    ----------
    sizes : dict of str to sequence of K int
        Maps the name of each clustering to its sizes. If there are several, a legend shows the
        names.
    names : sequence of K str, default=None
        Names of the clusters; None for their numbers.
    ax : matplotlib Axes, default=None
        Where to draw; None for a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError
        If ``sizes`` is not a dict.
    ValueError
        If there is nothing to draw, or the lengths differ.

    Examples
    --------
    >>> from ekmfast.plotting import plot_sizes
    >>> axes = plot_sizes({"truth": [400, 20], "k-means": [230, 190]}, names=["large", "small"])
    >>> len(axes.patches)
    4
    """
    SIZES.check("sizes", sizes)
    rows = list(sizes.items())
    lengths = {len(row) for _, row in rows}
    if len(lengths) != 1:
        raise ValueError(f"sizes has rows of lengths {sorted(lengths)}: must be one length")
    n_clusters = lengths.pop()
    names = [str(k) for k in range(n_clusters)] if names is None else names
    if len(names) != n_clusters:
        raise ValueError(f"names has {len(names)} entries: must be {n_clusters}")
    if ax is None:
        ax = new_figure(5, 3)[1][0, 0]
    width = 0.8 / len(sizes)
    for i, (name, row) in enumerate(rows):
        at = np.arange(n_clusters) + (i - (len(sizes) - 1) / 2) * width
        bars = ax.bar(at, row, 0.92 * width, color=PALETTE[i % len(PALETTE)], label=name)
        ax.bar_label(bars, fontsize=8, padding=1)
    # A symlog scale can show an empty cluster, of size 0.
    ax.set_yscale("symlog", linthresh=1)
    ax.margins(y=0.12)
    ax.set_xticks(np.arange(n_clusters), names)
    ax.set_ylabel("samples")
    ax.spines[["top", "right"]].set_visible(False)
    if len(sizes) > 1:
        ax.legend(frameon=False, fontsize=8, loc="upper right")
    return ax
