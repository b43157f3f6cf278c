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
from matplotlib.patches import Ellipse
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans, EquilibriumMixture
from ekmfast.plotting import PALETTE, plot_clusters

rng = np.random.default_rng(0)
turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
parts = [
    rng.normal(size=(1200, 2)) * (6, 0.5) @ turn,
    rng.normal((6, -5), 1.6, (400, 2)),
    rng.normal((0, 4.5), 0.4, (60, 2)),
]
X = np.vstack(parts)
y = np.repeat([0, 1, 2], [len(part) for part in parts])


def draw_ellipses(mixture, ax):
    """Draw for each component where it has twice its standard deviation."""
    components = zip(mixture.means_, mixture.covariances_, PALETTE, strict=False)
    for mean, covariance, colour in components:
        variances, axes = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
        height, width = 4 * np.sqrt(variances)
        ax.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, color=colour, lw=2))


# %%

mixture = EquilibriumMixture(3, covariance_type="full", random_state=0).fit(X)
means = EKMeans(3, random_state=0).fit(X)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
for ax, model in zip(axes, (means, mixture), strict=True):
    plot_clusters(X, model.labels_, ax=ax)
    name, score = type(model).__name__, adjusted_rand_score(y, model.labels_)
    ax.set_title(f"{name}: ARI {score:.2f}")
draw_ellipses(mixture, axes[1])
plt.show()

# %%
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
