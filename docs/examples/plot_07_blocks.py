"""
Data larger than memory
=======================

The estimators take a file in blocks instead of an array. Each pass reads every block once, so that
memory holds a few blocks, however long the file is.
"""

# %%
# A file to read. Think of 100 GB; this one has 8 MB, so that the example runs everywhere.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np

from ekmfast import EKMeans, blocks
from ekmfast.datasets import make_imbalanced_blobs
from ekmfast.plotting import plot_clusters

folder = TemporaryDirectory()
file = Path(folder.name) / "rows.npy"
X, y = make_imbalanced_blobs(sizes=(950_000, 20_000, 30_000))
np.save(file, X.astype(np.float32))
print(f"{file.stat().st_size / 1e6:.0f} MB")

# %%
# ``from_npy`` opens the file and reads nothing yet. With ``checkpoint`` a fit that was interrupted,
# for example by a crash, goes on where it was when the same call is made again.

data = blocks.from_npy(file, block_rows=100_000)
model = EKMeans(3, random_state=0).fit(data, checkpoint=Path(folder.name) / "fit")
print(model.cluster_centers_.round(2))
print(model.n_iter_, "passes over the data")

# %%
# Labels of blocks are computed block by block, too. Here they fit into memory, and are counted.

labels = np.concatenate([model.predict(block) for block in np.array_split(np.load(file), 10)])
print(np.bincount(labels))

# %%
# The result is that of the same rows in an array, up to rounding.

in_memory = EKMeans(3, random_state=0).fit(X.astype(np.float32))
matched = in_memory.predict(model.cluster_centers_)
print(np.abs(in_memory.cluster_centers_[matched] - model.cluster_centers_).max())

# %%

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
plot_clusters(X[::100], labels[::100], model.cluster_centers_, axes)
axes.set_title("every hundredth row")
plt.show()
folder.cleanup()

# %%
# Other sources are Zarr, Parquet, a list of arrays, and any function that yields arrays: see
# :mod:`ekmfast.blocks`. :doc:`/scaling` says what a pass costs.
