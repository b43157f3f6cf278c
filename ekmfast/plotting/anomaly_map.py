"""Plot images, their reconstructions, and the error of each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast.plotting.axes import new_figure


def plot_anomaly_map(images: ArrayLike, reconstructions: ArrayLike, axes: Any = None) -> Any:
    """Plot images, their reconstructions, and the squared error of each pixel.

    Parameters
    ----------
    images : array-like of shape (N, C, H, W) or (N, H, W), C 1 or 3
        Floats in [0, 1], or uint8. Each image is a column, so use at most about a dozen.
    reconstructions : array-like of the same shape
        Reconstructions in [0, 1], for instance from ``ExportedAutoencoder.reconstruct``.
    axes : ndarray of 3 N matplotlib.axes.Axes of shape (3, N), default=None
        Where to draw; None for a new figure outside pyplot.

    Returns
    -------
    ndarray of shape (3, N)
        The axes, with the images in the first row, the reconstructions in the second, and the
        squared errors, all on the same scale, in the third. The mean of the errors, which is the
        reconstruction loss of the image, is written below them.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the shapes do not agree.

    See Also
    --------
    ekmfast.anomaly.anomaly_map : The errors as numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast.plotting import plot_anomaly_map
    >>> images = np.random.default_rng(0).random((2, 1, 16, 16))
    >>> plot_anomaly_map(images, np.full((2, 1, 16, 16), 0.5)).shape
    (3, 2)
    """
    pictures = [_pictures(images, "images"), _pictures(reconstructions, "reconstructions")]
    shape = pictures[0].shape
    if pictures[1].shape != shape:
        raise ValueError(
            f"reconstructions has shape {np.shape(reconstructions)}: must be that of images, "
            f"{np.shape(images)}"
        )
    errors = ((pictures[0] - pictures[1]) ** 2).mean(axis=3)
    if axes is None:
        _, axes = new_figure(max(3.0, 1.2 * shape[0] + 0.8), 4.2, 3, shape[0])
    axes = np.asarray(axes, object)
    if axes.shape != (3, shape[0]):
        raise ValueError(f"axes has shape {axes.shape}: must be (3, {shape[0]})")
    for row, values in zip(axes[:2], pictures, strict=True):
        for ax, picture in zip(row, values, strict=True):
            ax.imshow(np.clip(picture, 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
    most = max(float(errors.max()), 1e-12)
    for ax, error in zip(axes[2], errors, strict=True):
        drawn = ax.imshow(error, cmap="inferno", vmin=0, vmax=most)
        ax.set_xlabel(f"{error.mean():.4f}", fontsize=9)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax, name in zip(axes[:, 0], ("image", "reconstruction", "squared error"), strict=True):
        ax.set_ylabel(name)
    figure = axes[0, 0].figure
    # Space is taken from all rows, so that they stay aligned.
    figure.colorbar(drawn, ax=list(axes.flat), fraction=0.05, shrink=0.3, anchor=(0.0, 0.02))
    return axes


def _pictures(images: ArrayLike, name: str) -> NDArray[np.float64]:
    """Images as (N, H, W, C) in [0, 1]."""
    values = np.asarray(images)
    scale = 255.0 if values.dtype == np.uint8 else 1.0
    if values.ndim == 3:
        values = values[:, None]
    if values.ndim != 4 or values.shape[1] not in (1, 3) or values.shape[0] == 0:
        raise ValueError(
            f"{name} has shape {np.shape(images)}: must be (N, C, H, W) or (N, H, W), "
            "N at least 1, C 1 or 3"
        )
    return values.transpose(0, 2, 3, 1).astype(np.float64) / scale
