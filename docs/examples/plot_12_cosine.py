"""
Directions instead of distances
===============================

The rows of embeddings and of word counts are often compared by their directions alone.
``metric="cosine"`` does so.
"""

# %%
# Three directions in the plane, with 600, 60 and 30 rows. The lengths of the rows have nothing to
# do with the directions.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans
from ekmfast.plotting import plot_clusters

rng = np.random.default_rng(0)
y = np.repeat([0, 1, 2], [600, 60, 30])
angle = np.deg2rad(np.array([30, 75, 120])[y] + rng.normal(0, 6, len(y)))
X = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.lognormal(0, 0.6, (len(y), 1))

# %%
# The Euclidean distance separates short rows from long ones, the cosine separates directions. The
# lines show the directions of the centroids.

figure = plt.figure(figsize=(8, 3.8), layout="constrained")
axes = figure.subplots(1, 2, sharex=True, sharey=True)
for ax, metric in zip(axes, ("euclidean", "cosine"), strict=True):
    model = EKMeans(3, metric=metric, random_state=0).fit(X)
    plot_clusters(X, model.labels_, ax=ax)
    ax.set_title(f"{metric}: ARI {adjusted_rand_score(y, model.labels_):.2f}")
for centroid in model.cluster_centers_:
    ax.axline((0, 0), centroid, color="grey", linewidth=0.8, zorder=0)
plt.show()

# %%
# Centroids have length 1, and ``transform`` gives one minus the cosine.

print(np.linalg.norm(model.cluster_centers_, axis=1))
print(model.transform(X[:1]).round(3))
