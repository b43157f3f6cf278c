"""Plots of clusterings, which need Matplotlib: ``pip install "ekmfast[plot]"``.

Every function draws into the given axes, or into a new figure. New figures are not registered with
pyplot, so they do not stay in memory.
"""

from ekmfast.plotting.alpha_path import plot_alpha_path
from ekmfast.plotting.anomaly_map import plot_anomaly_map
from ekmfast.plotting.axes import PALETTE, new_figure
from ekmfast.plotting.cluster_path import plot_cluster_path
from ekmfast.plotting.clusters import plot_clusters
from ekmfast.plotting.mixture import plot_mixture
from ekmfast.plotting.repulsion import plot_repulsion
from ekmfast.plotting.sizes import plot_sizes

__all__ = [
    "PALETTE",
    "new_figure",
    "plot_alpha_path",
    "plot_anomaly_map",
    "plot_cluster_path",
    "plot_clusters",
    "plot_mixture",
    "plot_repulsion",
    "plot_sizes",
]
