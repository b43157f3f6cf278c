"""
Clusters with shapes
====================

``EKMeans`` gives each row to the nearest centroid, as if all clusters were round and equally wide.
``EquilibriumMixture`` also finds the share, the width and the shape of each cluster.
"""

# %%
# One long cluster, one wide one, and a small dense one.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans, EquilibriumMixture
from ekmfast.plotting import plot_clusters, plot_mixture

rng = np.random.default_rng(0)
turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
parts = [
    rng.normal(size=(1200, 2)) * (6, 0.5) @ turn,
    rng.normal((6, -5), 1.6, (400, 2)),
    rng.normal((0, 4.5), 0.4, (60, 2)),
]
X = np.vstack(parts)
y = np.repeat([0, 1, 2], [len(part) for part in parts])


# %%

mixture = EquilibriumMixture(3, covariance_type="full", random_state=0).fit(X)
means = EKMeans(3, random_state=0).fit(X)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
plot_clusters(X, means.labels_, ax=axes[0])
plot_mixture(X, mixture, axes[1])
for ax, model in zip(axes, (means, mixture), strict=True):
    name, score = type(model).__name__, adjusted_rand_score(y, model.labels_)
    ax.set_title(f"{name}: ARI {score:.2f}")
plt.show()

# %%
# The ellipses of ``plot_mixture`` are where a component has two standard deviations.
#
# The mixture knows how sure it is: ``predict_proba`` gives the probability of each component, and
# ``score_samples`` the log density, which is low for rows of no cluster.

print("shares", mixture.weights_.round(3))
print("shapes", mixture.covariance_type_, " degrees of freedom", mixture.degrees_of_freedom_)
rows = np.array([[0.0, 4.5], [6.0, -5.0], [12.0, 12.0]])
print(mixture.predict_proba(rows).round(3))
print(mixture.score_samples(rows).round(1))

# %%
# The ellipse of the small cluster is a little longer than the cluster: the covariances of
# components of few rows are drawn towards the mean covariance of all components. Shapes have to be
# estimated from rows. Where there are many features and few rows, ``EKMeans`` is the better choice:
# see :doc:`/comparison`.
