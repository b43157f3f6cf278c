"""Fit detectors of anomalies, and test them on images that were not used to fit them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.study.data import StudyData
from ekmfast.study.draws import Rows
from ekmfast.study.quiet import without_convergence_warnings

FALSE_ALARMS = 0.02  # intended share of normal images beyond the detectors' threshold

Images = NDArray[np.float32]
Losses = NDArray[Any]


def detect_anomalies(
    model: Any, data: StudyData, train: Rows, held: Rows, n_clusters: int, seed: int
) -> tuple[dict[str, Any], dict[str, tuple[Images, Images, Losses]], tuple[Losses, Losses]]:
    """Scores of the detectors, some images with reconstructions and losses, and all losses.

    The detectors are fitted to the training images and to half of the held-out images. Only the
    latter determine the thresholds, since the model reconstructs its training images better than
    others. The detectors are tested on the other half and on the anomalous images.
    """
    from sklearn.metrics import roc_auc_score

    from ekmfast.anomaly import AutoencoderDetector, anomaly_map, reconstruction_loss

    assert data.anomalies is not None
    known = np.concatenate([train, held[::2]])
    normal, anomalous = data.images[held[1::2]], data.anomalies
    losses = reconstruction_loss(model, normal), reconstruction_loss(model, anomalous)
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    detectors = {}
    for score in ("reconstruction", "codes", "both"):
        detector = AutoencoderDetector(
            model,
            score=score,
            n_clusters=min(n_clusters, len(train)),
            contamination=FALSE_ALARMS,
            random_state=seed,
        )
        with without_convergence_warnings():
            # There may be too few images, as with the option --quick.
            warnings.filterwarnings("ignore", r"contamination=\S+ is less than one in")
            detector.fit(data.images[known])
        scored = [-detector.score_samples(part) for part in (normal, anomalous)]
        detectors[score] = {
            "auc": float(roc_auc_score(truth, np.concatenate(scored))),
            "false_alarms": float((scored[0] > detector.threshold_).mean()),
            "found": float((scored[1] > detector.threshold_).mean()),
        }
    groups = {"normal": normal, "anomalous": anomalous}
    scores = {
        "normal_loss": float(losses[0].mean()),
        "anomaly_loss": float(losses[1].mean()),
        "auc": float(roc_auc_score(truth, np.concatenate(losses))),
        "overlap": _overlap(*losses),
        # What the loss would be if each image were reconstructed by its mean colour.
        "contrast": {name: float(part.var(axis=(2, 3)).mean()) for name, part in groups.items()},
        "half_of_error": {name: _half(anomaly_map(model, part)) for name, part in groups.items()},
        "n_normal": len(normal),
        "n_anomalies": len(anomalous),
        "n_threshold": int(detector.held_out_.sum()),
        "contamination": FALSE_ALARMS,
        "detectors": detectors,
    }
    rng = np.random.default_rng([seed, 2])
    shown = {}
    for (name, part), loss in zip(groups.items(), losses, strict=True):
        rows = rng.permutation(len(part))[:8]
        shown[name] = (part[rows], model.reconstruct(part[rows]), loss[rows])
    return scores, shown, losses


def _overlap(normal: Losses, anomalous: Losses) -> float:
    """Share of wrong images at the best threshold of the loss, where both kinds count equally."""
    thresholds = np.unique(np.concatenate([normal, anomalous]))
    alarms = (normal[:, None] >= thresholds).mean(axis=0)
    missed = (anomalous[:, None] < thresholds).mean(axis=0)
    return float(min(0.5, ((alarms + missed) / 2).min()))


def _half(maps: Losses) -> float:
    """Mean share of an image's pixels in which half of its error lies."""
    errors = -np.sort(-maps.reshape(len(maps), -1), axis=1).astype(np.float64)
    below = errors.cumsum(axis=1) < errors.sum(axis=1, keepdims=True) / 2
    return float((below.sum(axis=1) + 1).mean() / errors.shape[1])
