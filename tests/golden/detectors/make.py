"""Write the golden files of the detectors: ``python tests/golden/detectors/make.py``.

As in ../make.py, existing files are never overwritten. For each ``<name>.npz`` there is a
``<name>.json`` with rows or images, their scores, and which of them are outliers.
"""

import json
from pathlib import Path

import numpy as np
import torch

import ekmfast
from ekmfast.anomaly import AutoencoderDetector, EKMeansDetector

HERE = Path(__file__).parent
# Without a random generator that may change.
STEPS = np.arange(60)
ROWS = np.column_stack([np.sin(STEPS * 1.7), np.cos(STEPS * 2.3)]) * 0.9
ROWS[40:57] += [9, 1]
ROWS[57:] += [4, 8]
GRID = np.arange(16)
AT = 8 + 3 * np.column_stack([np.sin(STEPS * 1.7), np.cos(STEPS * 2.3)])[:, :, None]
BUMPS = np.exp(-((GRID - AT) ** 2) / 8)
IMAGES = np.rint(255 * BUMPS[:, 0, :, None] * BUMPS[:, 1, None, :]).astype(np.uint8)


def write(name: str, detector: EKMeansDetector | AutoencoderDetector, X: np.ndarray) -> None:
    path = HERE / f"{name}-{ekmfast.__version__}.npz"
    if path.exists():
        return
    ekmfast.save(detector.fit(X), path)
    expected = {
        "X": X.tolist(),
        "scores": detector.score_samples(X).tolist(),
        "found": detector.predict(X).tolist(),
    }
    path.with_suffix(".json").write_text(json.dumps(expected) + "\n")
    print(path.name, detector.labels_.sum(), "outliers")


torch.manual_seed(0)
write("ekmeansdetector", EKMeansDetector(3, contamination=0.1, random_state=0), ROWS)
write(
    "autoencoderdetector",
    AutoencoderDetector(
        score="both",
        n_clusters=2,
        image_size=16,
        latent_dim=4,
        width=0.02,
        epochs=3,
        batch_size=16,
        random_state=0,
    ),
    IMAGES,
)
