"""Write the golden files of this version: ``python tests/golden/make.py``, once before a release.

Existing files are never overwritten: they show that files which users saved can still be loaded.
For each ``<name>.npz`` there is a ``<name>.json`` with the rows of the fit and their results.
"""

import json
from pathlib import Path

import numpy as np

import ekmfast
from ekmfast.persist.file import CLASSES

HERE = Path(__file__).parent
# Two large clusters and a small one, without a random generator that may change.
STEPS = np.arange(60)
X = np.column_stack([np.sin(STEPS * 1.7), np.cos(STEPS * 2.3)]) * 0.9
X[40:56] += [9, 1]
X[56:] += [4, 8]
# For the estimator that takes labels; the others ignore them.
Y = np.full(60, -1)
Y[[5, 45, 58]] = [2, 1, 0]

for name in CLASSES:
    path = HERE / f"{name.lower()}-{ekmfast.__version__}.npz"
    if path.exists():
        continue
    model = getattr(ekmfast, name)(3, random_state=0).fit(X, Y)
    ekmfast.save(model, path)
    expected = {
        "X": X.tolist(),
        "labels": model.predict(X).tolist(),
        "distances": model.transform(X).tolist(),
    }
    path.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n")
    print(path.name, np.bincount(expected["labels"]))
