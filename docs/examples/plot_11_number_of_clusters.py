"""
The number of clusters
======================

``n_clusters="auto"`` searches for the number. ``cluster_path`` shows what it is chosen from, so
that you can choose another one at a glance.
"""

# %%
# Four clusters, one of them long and one small.

import matplotlib.pyplot as plt
import numpy as np

from ekmfast import EKMeans, EquilibriumMixture, cluster_path
from ekmfast.plotting import plot_cluster_path, plot_mixture

rng = np.random.default_rng(0)
X = np.vstack(
    [
        rng.normal(size=(900, 3)) * (4, 1, 1),
        rng.normal((0, 6, 0), 1.2, (400, 3)),
        rng.normal((7, 6, 3), 1.0, (200, 3)),
        rng.normal((-6, 6, 4), 0.6, (40, 3)),
    ]
)

# %%
# The criterion is lowest at the number that is chosen. The stability says how far mixtures that are
# found in two halves of the rows agree: it falls where a cluster has to be cut.

path = cluster_path(X, 8, random_state=0)
figure, axes = plt.subplots(3, 1, figsize=(6.5, 7.5), sharex=True, layout="constrained")
plot_cluster_path(path, axes)
plt.show()

# %%
# Estimators take the same number. ``EKMeans`` finds round clusters of that number;
# ``EquilibriumMixture`` finds those of which the path speaks.

print(len(EKMeans("auto", random_state=0).fit(X).cluster_centers_), "centroids")
mixture = EquilibriumMixture("auto", random_state=0).fit(X)
print("sizes", sorted(np.bincount(mixture.labels_).tolist()))

# %%
# ``plot_mixture`` draws the rows in the plane of two principal components, and where each component
# has two standard deviations.

figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
plot_mixture(X, mixture, axes)
plt.show()

# %%
# No criterion is always right: see :doc:`/guide/number_of_clusters`.
