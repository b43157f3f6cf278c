"""
Where equilibrium k-means does not help
=======================================

Three kinds of data on which another method is as good or better. Look whether yours are of these
kinds before you use EKM.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from ekmfast import EKMeans
from ekmfast.plotting import plot_clusters


def compare(X, y, other):
    """Draw the clusters of EKMeans beside those of another method."""
    figure = plt.figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, model in zip(axes, (EKMeans(len(set(y)), random_state=0), other), strict=True):
        labels = model.fit_predict(X)
        plot_clusters(X, np.where(labels < 0, 7, labels), ax=ax)
        ax.set_title(f"{type(model).__name__}: ARI {adjusted_rand_score(y, labels):.2f}")
    plt.show()


# %%
# **Clusters of equal size.** There is nothing to repel from: hard k-means finds the same clusters
# in less time.

X, y = make_blobs(1500, centers=5, cluster_std=1.0, random_state=3)
compare(X, y, KMeans(5, n_init=10, random_state=0))

# %%
# **Long clusters.** ``EKMeans`` cuts a long cluster in pieces, as hard k-means does, because it
# gives each row to the nearest centroid. Use a Gaussian mixture, or
# :class:`ekmfast.EquilibriumMixture`.

rng = np.random.default_rng(0)
X = np.vstack([rng.normal(size=(900, 2)) * (7, 0.6), rng.normal(size=(300, 2)) * (7, 0.6) + (0, 4)])
y = np.repeat([0, 1], [900, 300])
compare(X, y, GaussianMixture(2, n_init=10, random_state=0))

# %%
# **Clusters that are no blobs.** A method that follows dense regions needs no centroids, and finds
# the number of clusters itself. Rows that it leaves out as noise are grey.

X, y = make_moons(1000, noise=0.06, random_state=0)
compare(X, y, HDBSCAN(min_cluster_size=25, copy=True))

# %%
# Equilibrium k-means also needs features of comparable spread.
