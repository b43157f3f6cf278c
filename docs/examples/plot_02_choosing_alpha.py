"""
Choosing alpha
==============

Alpha says how sharply a row belongs to its nearest centroid. ``alpha_path`` clusters the rows at
many values of alpha, and shows which of them agree.
"""

# %%
# With a small alpha all centroids collapse to the mean of the rows. With a large alpha the result
# is that of hard k-means. Somewhere between, the centroids repel each other enough to find the
# small clusters.

import matplotlib.pyplot as plt

from ekmfast import EKMeans, alpha_path
from ekmfast.datasets import make_imbalanced_blobs
from ekmfast.plotting import plot_alpha_path, plot_clusters

X, y = make_imbalanced_blobs(sizes=(2000, 50, 200))
path = alpha_path(X, 3, random_state=0)
for alpha, sizes, likelihood in zip(path.alphas, path.sizes, path.likelihood, strict=True):
    print(f"alpha {alpha:7.3f}   sizes {sizes.astype(int)}   likelihood {likelihood:.3f}")

# %%
# The picture shows the same numbers. In the upper panel each bar is one alpha, and its parts are
# the clusters, the smallest on top. Look for alphas that agree with their neighbours: there the
# clusters do not depend on the exact value. The band marks the alpha whose result has the largest
# likelihood, which is the one that ``EKMeans`` takes by default.

figure, axes = plt.subplots(3, 1, figsize=(8, 7.5), sharex=True, layout="constrained")
plot_alpha_path(path, axes)
plt.show()

# %%
# Three of these alphas in the plane. ``dvariance`` is the rule of the paper, which is often too
# small.

chosen = {
    "too small": 0.15 * path.dvariance,
    "chosen": path.alphas[path.best],
    "as hard k-means": 30 * path.dvariance,
}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True, layout="constrained")
for ax, (name, alpha) in zip(axes, chosen.items(), strict=True):
    found = alpha_path(X, 3, [alpha], random_state=0)
    plot_clusters(X, found.labels[0], ax=ax)
    ax.set_title(f"{name}: alpha = {alpha:.2g}")
plt.show()

# %%
# Once you have decided, give the number to the estimator. It then fits at this alpha only, which
# takes a fraction of the time.

model = EKMeans(3, alpha=path.alphas[path.best], random_state=0).fit(X)
print(model.alpha_, model.n_iter_)
