"""
Small clusters beside a large one
=================================

Three methods on the same rows: a large cluster of 2,000 rows, and two small ones of 50 and 200.
"""

# %%
# The data are drawn at random, so we know from which cluster each row comes.

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.mixture import GaussianMixture

from ekmfast import EKMeans
from ekmfast.datasets import make_imbalanced_blobs
from ekmfast.plotting import plot_clusters

X, y = make_imbalanced_blobs(sizes=(2000, 50, 200))

# %%
# Hard k-means wants small squared distances. The large cluster has the most rows, so it gains the
# most from a second centroid there, and the two small clusters are left to share one. In
# equilibrium k-means two centroids within the same cluster repel each other, and each small cluster
# gets its own.
#
# The adjusted Rand index (ARI) is 1 for perfect clusters and about 0 for random ones.

estimators = {
    "KMeans": KMeans(3, n_init=10, random_state=0),
    "EKMeans": EKMeans(3, random_state=0),
    "GaussianMixture": GaussianMixture(3, n_init=10, random_state=0),
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), sharex=True, sharey=True, layout="constrained")
plot_clusters(X, y, ax=axes[0])
axes[0].set_title("truth: " + ", ".join(map(str, np.bincount(y))))
for ax, (name, estimator) in zip(axes[1:], estimators.items(), strict=True):
    labels = estimator.fit_predict(X)
    # Give each cluster the colour of the class whose rows it holds.
    _, cluster_of_class = linear_sum_assignment(contingency_matrix(y, labels), maximize=True)
    colour = np.argsort(cluster_of_class)
    plot_clusters(X, colour[labels], ax=ax)
    sizes = ", ".join(map(str, np.bincount(colour[labels])))
    ax.set_title(f"{name}: {sizes}\nARI {adjusted_rand_score(y, labels):.2f}")
plt.show()

# %%
# The Gaussian mixture does well here, since the clusters are Gaussian. It has to estimate a
# covariance for each cluster, which takes more rows than there often are when there are many
# features. :doc:`/comparison` has both on 884 problems.
