"""
A stream of rows
================

``MiniBatchEKMeans.partial_fit`` takes one batch at a time and stores none of them. Here the
clusters move while the rows arrive.
"""

# %%
# Batch ``t`` replaces the share ``t ** -forgetting`` of what the estimator remembers. With the
# default, 0.7, old batches are forgotten slowly, and the centroids settle. With a smaller value
# they follow data that drift.

import matplotlib.pyplot as plt
import numpy as np

from ekmfast import MiniBatchEKMeans
from ekmfast.datasets import make_imbalanced_blobs
from ekmfast.plotting import PALETTE


def batch(time):
    """Three clusters, of which the smallest moves to the right."""
    centers = [(0.0, 0.0), (-1.0 + 0.06 * time, -6.0), (0.0, 6.0)]
    return make_imbalanced_blobs((400, 60, 100), centers, random_state=time)[0]


models = {
    forgetting: MiniBatchEKMeans(3, alpha=1.0, forgetting=forgetting, random_state=0)
    for forgetting in (0.7, 0.2)
}
paths = {forgetting: [] for forgetting in models}
for time in range(100):
    for forgetting, model in models.items():
        model.partial_fit(batch(time))
        paths[forgetting].append(model.cluster_centers_.copy())

# %%
# The crosses are the last centroids, and the lines show how they got there. The grey rows are those
# of the last five batches.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
last = np.vstack([batch(time) for time in range(95, 100)])
for ax, (forgetting, path) in zip(axes, paths.items(), strict=True):
    ax.scatter(*last.T, s=3, color="#bbbbbb")
    for centroids, colour in zip(np.swapaxes(path, 0, 1), PALETTE, strict=False):
        ax.plot(*centroids.T, color=colour)
        ax.plot(*centroids[-1], "x", color=colour, markersize=12, markeredgewidth=3)
    ax.set_title(f"forgetting = {forgetting}")
plt.show()

# %%
# A model can be saved between two batches and go on later, also in another process: see
# :func:`ekmfast.save`.
