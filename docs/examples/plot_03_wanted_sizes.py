"""
Clusters of wanted sizes
========================

Sometimes you know about how large the clusters are: one customer in a hundred complains, a disease
has a known frequency. ``alpha_path`` then takes the alpha whose clusters have these sizes.
"""

# %%
# These clusters overlap, so that several results are plausible.

import matplotlib.pyplot as plt
import numpy as np

from ekmfast import alpha_path
from ekmfast.plotting import plot_alpha_path, plot_clusters

rng = np.random.default_rng(0)
X = np.vstack(
    [
        rng.normal((0, 0), 1.4, (1600, 2)),
        rng.normal((4.2, 0.5), 1.0, (260, 2)),
        rng.normal((2.0, 4.0), 0.8, (90, 2)),
    ]
)

# %%
# We know that about 82 % of the rows are normal, 13 % are of one special kind and 5 % of another.
# ``target_sizes`` are such proportions, in any order. ``size_errors`` is the share of the rows that
# would have to change their cluster to have exactly these sizes.

path = alpha_path(X, 3, np.geomspace(0.1, 2, 12), target_sizes=(82, 13, 5), random_state=0)
for alpha, sizes, error in zip(path.alphas, path.sizes, path.size_errors, strict=True):
    print(f"alpha {alpha:.2f}   sizes {sizes.astype(int)}   error {error:.3f}")
print(f"best: alpha {path.alphas[path.best]:.2f}")

# %%

figure, axes = plt.subplots(3, 1, figsize=(8, 7.5), sharex=True, layout="constrained")
plot_alpha_path(path, axes)
plt.show()

# %%

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
plot_clusters(X, path.labels[path.best], ax=axes)
axes.set_title(f"sizes {', '.join(map(str, path.sizes[path.best].astype(int)))}")
plt.show()

# %%
# Sizes are a weak hint: clusters of the right sizes can still be the wrong ones. Look at the
# agreement in the middle panel, and at some rows of each cluster.
