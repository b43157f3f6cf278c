"""
A few known labels
==================

If some rows have a label, ``SemiSupervisedEKMeans`` uses them. Cluster k is then the class k.
"""

# %%
# Handwritten digits of scikit-learn, three of the ten classes, in unequal numbers. Five digits of
# each class have a label, and -1 means that none is known.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from ekmfast import EKMeans, SemiSupervisedEKMeans
from ekmfast.metrics import class_recall, clustering_accuracy
from ekmfast.plotting import plot_clusters

rng = np.random.default_rng(0)
images, digit = load_digits(return_X_y=True)
counts = {2: 170, 3: 60, 8: 20}
rows = np.concatenate([rng.permutation(np.flatnonzero(digit == d))[:n] for d, n in counts.items()])
X = PCA(10, random_state=0).fit_transform(images[rows])
y = np.repeat(np.arange(3), list(counts.values()))
known = np.full(len(y), -1)
for k in range(3):
    known[np.flatnonzero(y == k)[:5]] = k
print(f"{(known >= 0).sum()} of {len(y)} labels are known")

# %%

without = EKMeans(3, random_state=0).fit(X)
labelled = SemiSupervisedEKMeans(3, random_state=0).fit(X, known)
for name, labels in (("without labels", without.labels_), ("with labels", labelled.labels_)):
    accuracy = clustering_accuracy(y, labels)
    print(f"{name}: accuracy {accuracy:.2f}, recall of each class {class_recall(y, labels)}")

# %%
# The first two principal components of the digits. Rows with a known label have a black ring.

plane = PCA(2, random_state=0).fit_transform(X)
panels = {"truth": y, "EKMeans": without.labels_, "SemiSupervisedEKMeans": labelled.labels_}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
for ax, (name, labels) in zip(axes, panels.items(), strict=True):
    plot_clusters(plane, labels, ax=ax, point_size=16)
    ax.set_title(name)
for ax in axes[[0, 2]]:
    ax.scatter(*plane[known >= 0].T, s=40, facecolor="none", edgecolor="black")
plt.show()

# %%
# The estimator also takes prior probabilities instead of certain labels: see
# :class:`ekmfast.SemiSupervisedEKMeans`.
