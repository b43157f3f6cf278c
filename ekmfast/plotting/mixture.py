"""Plot a mixture: its rows in a plane, and an ellipse for each component."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ekmfast._optional import require
from ekmfast._parameters import POSITIVE, Kind
from ekmfast.plotting.axes import PALETTE, new_figure
from ekmfast.plotting.clusters import plot_clusters

Float64 = NDArray[np.float64]

MIXTURE = Kind(
    lambda value: all(hasattr(value, name) for name in ("means_", "covariances_", "predict")),
    "a fitted mixture with means_, covariances_ and predict",
)


def plot_mixture(
    X: ArrayLike,
    mixture: Any,
    ax: Any = None,
    *,
    deviations: float = 2.0,
    point_size: float = 9.0,
) -> Any:
    """Plot rows in a plane, coloured by their component, with an ellipse for each component.

    Rows of two features are drawn as they are, others in the plane of their first two principal
    components. An ellipse is where a component has ``deviations`` standard deviations in the plane.
    In the plane of principal components ellipses may overlap, although components do not.

    Parameters
    ----------
    X : array-like of shape (N, D), D >= 2
    mixture : fitted estimator
        An `ekmfast.EquilibriumMixture`, or scikit-learn's ``GaussianMixture``.
    ax : matplotlib Axes, default=None
        Where to draw; None for a new figure.
    deviations : float, default=2.0
    point_size : float, default=9.0
        Area of a point, in square points.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    TypeError
        If ``mixture`` is not fitted.
    ValueError
        If X does not have the columns of the fit, or only one.

    Examples
    --------
    >>> import numpy as np
    >>> from ekmfast import EquilibriumMixture
    >>> from ekmfast.plotting import plot_mixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.vstack([rng.normal(size=(300, 3)) * [9, 1, 1], rng.normal(6, 1, (60, 3))])
    >>> axes = plot_mixture(X, EquilibriumMixture(2, random_state=0).fit(X))
    >>> len(axes.patches)
    2
    """
    MIXTURE.check("mixture", mixture)
    deviations = POSITIVE.check("deviations", deviations)
    rows = np.asarray(X, np.float64)
    means = np.asarray(mixture.means_, np.float64)
    if rows.ndim != 2 or rows.shape[1] != means.shape[1] or not len(rows):
        raise ValueError(
            f"X has shape {rows.shape}: must be (N, {means.shape[1]}) as in the fit, with N >= 1"
        )
    if means.shape[1] < 2:
        raise ValueError("mixture has one feature: must have at least two, for a plane")
    labels = np.asarray(mixture.predict(X))
    axes, names = _plane_of(rows)
    if ax is None:
        ax = new_figure(5, 4.4)[1][0, 0]
    plot_clusters(rows @ axes, labels, (means @ axes), ax, point_size=point_size)
    patches: Any = require("matplotlib.patches", "plot")
    for k, matrix in enumerate(_matrices(mixture, *means.shape)):
        variances, directions = np.linalg.eigh(axes.T @ matrix @ axes)
        height, width = 2 * deviations * np.sqrt(np.maximum(variances, 0.0))
        angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
        colour = PALETTE[k % len(PALETTE)]
        ax.add_patch(
            patches.Ellipse(means[k] @ axes, width, height, angle=angle, fill=False, color=colour,
                            linewidth=2, zorder=3)
        )  # fmt: skip
    ax.autoscale_view()
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    return ax


def _plane_of(rows: Float64) -> tuple[Float64, list[str]]:
    """Orthonormal directions (D, 2) of a plane, and names for its axes."""
    if rows.shape[1] == 2:
        return np.eye(2), ["feature 0", "feature 1"]
    covariance = np.cov(rows.T, ddof=0)
    variances, directions = np.linalg.eigh(covariance)
    shares = variances[::-1] / max(float(variances.sum()), np.finfo(np.float64).tiny)
    names = [f"principal component {i + 1} ({100 * shares[i]:.0f} %)" for i in range(2)]
    return directions[:, ::-1][:, :2], names


def _matrices(mixture: Any, k: int, d: int) -> Float64:
    """The covariance matrices (K, D, D) of all components."""
    covariances = np.asarray(mixture.covariances_, np.float64)
    kind = getattr(mixture, "covariance_type_", None) or mixture.covariance_type
    if kind == "full":
        return covariances
    if kind == "tied":
        return np.broadcast_to(covariances, (k, d, d))
    variances = covariances[:, None] if kind == "spherical" else covariances
    return variances[:, :, None] * np.eye(d)
