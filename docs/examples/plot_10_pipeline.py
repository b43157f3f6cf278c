"""
A pipeline, a file, and ONNX
============================

The estimators go into scikit-learn's pipelines. A pipeline with a scaler can be saved without
pickle, and written as an ONNX file that runs without ekmfast and without Python.
"""

# %%
# The features of a table often have different units. A ``StandardScaler`` gives each the same
# spread before distances are computed.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ekmfast
from ekmfast import EKMeans

X, y = load_breast_cancer(return_X_y=True)
pipeline = make_pipeline(StandardScaler(), EKMeans(2, random_state=0)).fit(X)
labels = pipeline.predict(X)
print(np.bincount(labels))

# %%
# ``save`` and ``load``: the loaded pipeline gives the same labels.

folder = TemporaryDirectory()
ekmfast.save(pipeline, Path(folder.name) / "model.ekm")
loaded = ekmfast.load(Path(folder.name) / "model.ekm")
print((loaded.predict(X) == labels).all())

# %%
# ONNX: this part needs only onnxruntime, which exists for many languages. The rows are in their
# original units, since the scaler is in the file.

ekmfast.export_onnx(pipeline, Path(folder.name) / "model.onnx")
session = onnxruntime.InferenceSession(
    Path(folder.name) / "model.onnx", providers=["CPUExecutionProvider"]
)
label, membership = session.run(["label", "membership"], {"X": X})
print((label == labels).all(), membership[:3].round(3))
del session
folder.cleanup()

# %%
# With 30 features nearly all memberships are close to 0 or 1, although some labels disagree with
# the diagnosis. A membership says how clearly a row is nearer to one centroid than to the others.
# It is not the probability that the label is right.

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
malignant = int(np.bincount(labels[y == 0]).argmax())
bins = np.linspace(0, 1, 41)
axes.hist([membership[y == 0, malignant], membership[y == 1, malignant]], bins, stacked=True,
          label=["malignant", "benign"])  # fmt: skip
axes.set_yscale("log")
axes.set_xlabel("membership in the cluster of most malignant tumours")
axes.set_ylabel("tumours")
axes.legend()
plt.show()

# %%
# :doc:`/deployment` says more about both kinds of files.
