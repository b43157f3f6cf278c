"""
How the weights repel
=====================

In hard k-means a row belongs to one centroid. In equilibrium k-means a row also has a **negative**
weight for centroids that are clearly farther away than the nearest one. This is what keeps
centroids apart.
"""

# %%
# With half the squared distance d from a row to each centroid, the membership is p = softmax(-alpha
# d), and the weight is w = p (1 - alpha (d - E[d])), where E[d] is the mean of d under p. The
# weights of a row sum to one.

import matplotlib.pyplot as plt
import numpy as np

from ekmfast import EKMeans, compute_weights, update_centroids
from ekmfast.datasets import make_imbalanced_blobs
from ekmfast.plotting import PALETTE, plot_repulsion

line = np.linspace(-2, 6, 400)[:, None]
centroids = np.array([[0.0], [4.0]])
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for alpha, style in ((0.3, ":"), (1.0, "-"), (5.0, "--")):
    weights = compute_weights(line, centroids, alpha)
    axes.plot(line, weights[:, 0], style, color=PALETTE[0], label=f"alpha = {alpha:g}")
axes.axhline(0, color="black", linewidth=0.8)
axes.plot(centroids, [0, 0], "kx", markersize=10)
axes.set_xlabel("position of a row; the crosses are the two centroids")
axes.set_ylabel("weight for the left one")
axes.legend()
plt.show()

# %%
# A row a little to the right of the middle pushes the left centroid away: its weight is below zero.
# With a large alpha this happens only close to the middle, and the weights are those of hard
# k-means.
#
# In the plane, three centroids start close together in a large cluster. Each step computes the
# weights and then the weighted means. With a moderate alpha two of the centroids are pushed out of
# the large cluster and find the small ones. With a large alpha two stay in the large cluster.

X, _ = make_imbalanced_blobs(sizes=(2000, 50, 200))
start = np.array([[-0.6, -0.5], [0.7, 0.0], [0.0, 0.6]])
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
for ax, alpha in zip(axes, (1.0, 100.0), strict=True):
    steps = [start]
    for _ in range(150):
        steps.append(update_centroids(X, compute_weights(X, steps[-1], alpha)))
    ax.scatter(*X.T, s=4, color="#bbbbbb")
    for path, colour in zip(np.swapaxes(steps, 0, 1), PALETTE, strict=False):
        ax.plot(*path.T, ".-", color=colour, markersize=3, linewidth=1)
        ax.plot(*path[-1], "x", color=colour, markersize=12, markeredgewidth=3)
    ax.set_title(f"alpha = {alpha:g}")
plt.show()

# %%
# ``plot_repulsion`` shows the weights of all rows for each centroid of a fitted estimator: blue
# rows attract it, orange ones repel it, and so would any row in the orange area.

model = EKMeans(3, random_state=0).fit(X)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharex=True, sharey=True, layout="constrained")
plot_repulsion(X, model, ax=axes)
plt.show()

# %%
# :doc:`/mathematics` derives the weights.
