"""Fit detectors of anomalies, and test them on images that were not used to fit them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.demo.data import DemoData
from ekmfast.demo.draws import Rows
from ekmfast.demo.quiet import without_convergence_warnings

FALSE_ALARMS = 0.02  # intended share of normal images beyond the detectors' threshold

Images = NDArray[np.float32]
Losses = NDArray[Any]


def detect_anomalies(
    model: Any, data: DemoData, train: Rows, held: Rows, seed: int
) -> tuple[dict[str, Any], dict[str, tuple[Images, Images, Losses]], tuple[Losses, Losses]]:
    """Scores of the detectors, some images with reconstructions and losses, and all losses.

    The detectors are fitted to the training images and to half of the held-out images. Only the
    latter determine the thresholds, since the model reconstructs its training images better than
    others. The detectors are tested on the other half and on the anomalous images.
    """
    from sklearn.metrics import roc_auc_score

    from ekmfast.anomaly import AutoencoderDetector, reconstruction_loss

    known = np.concatenate([train, held[::2]])
    normal, anomalous = data.images[held[1::2]], data.anomalies
    losses = reconstruction_loss(model, normal), reconstruction_loss(model, anomalous)
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    detectors = {}
    for score in ("reconstruction", "codes", "both"):
        detector = AutoencoderDetector(
            model,
            score=score,
            n_clusters=min(len(data.class_names), len(train)),
            contamination=FALSE_ALARMS,
            random_state=seed,
        )
        with without_convergence_warnings():
            # With the option --quick there are too few images.
            warnings.filterwarnings("ignore", r"contamination=\S+ is less than one in")
            detector.fit(data.images[known])
        scored = [-detector.score_samples(part) for part in (normal, anomalous)]
        detectors[score] = {
            "auc": float(roc_auc_score(truth, np.concatenate(scored))),
            "false_alarms": float((scored[0] > detector.threshold_).mean()),
            "found": float((scored[1] > detector.threshold_).mean()),
        }
    scores = {
        "normal_loss": float(losses[0].mean()),
        "anomaly_loss": float(losses[1].mean()),
        "auc": float(roc_auc_score(truth, np.concatenate(losses))),
        "n_normal": len(normal),
        "n_anomalies": len(anomalous),
        "contamination": FALSE_ALARMS,
        "detectors": detectors,
    }
    rng = np.random.default_rng([seed, 2])
    shown = {}
    for name, part, loss in zip(("normal", "anomalous"), (normal, anomalous), losses, strict=True):
        rows = rng.permutation(len(part))[:8]
        shown[name] = (part[rows], model.reconstruct(part[rows]), loss[rows])
    return scores, shown, losses
