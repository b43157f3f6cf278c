"""Check detectors that were read from files, and convert autoencoders to and from their parts.

A `ConvAutoencoder` is saved as its parameters and weights, so that reading it runs no code. An
exported model is saved as the bytes of the file that it was read from. This file is a program,
which PyTorch runs when images are scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from ekmfast.persist.state import FLOAT64, FLOATING, INTEGERS, POSITIVE, Number, Numbers, Rule
from ekmfast.persist.state import check_values as _check_values

DETECTOR: Mapping[str, Rule] = {
    "n_features_in_": Number(Integral, 1),
    "offset_": Number(Real),
    "threshold_": Number(Real),
    "decision_scores_": Numbers("N", FLOATING),
    "labels_": Numbers("N", INTEGERS, 0),
    "held_out_": Numbers("N", (np.dtype(bool),)),
    "large_": Numbers("L", INTEGERS, 0),
    "_units": Numbers("PU", FLOAT64),
}
NORMALS: Mapping[str, Rule] = {
    "centre": Numbers("D", FLOAT64),
    "unit": Number(Real, POSITIVE),
    "whitener": Numbers("DE", FLOAT64),
    "means": Numbers("LD", FLOAT64),
    "sizes": Numbers("L", FLOAT64, 1),
}
# Parameters of a ConvAutoencoder.
PARAMETERS = (
    "image_size",
    "in_channels",
    "latent_dim",
    "n_classes",
    "width",
    "dropout",
    "normalize_codes",
)
WEIGHTS = "weights/"


def check_of_features(detector: Any) -> None:
    """Raise ValueError if an EKMeansDetector is fitted but its attributes are not consistent."""
    state = vars(detector)
    needed = ("clustering_", "large_", "_normals", "n_features_in_")
    if not _is_fitted(state, needed):
        return
    n_clusters, n_features = state["clustering_"].cluster_centers_.shape
    sizes = {"D": n_features, "E": n_features}
    _check_values(state, DETECTOR, sizes)
    _check_values(vars(state["_normals"]), NORMALS, sizes)
    if not math.isfinite(state["_normals"].unit):
        raise ValueError(f"unit is {state['_normals'].unit}: must be finite")
    large = state["large_"]
    if not len(large) or (np.diff(large) <= 0).any() or large[-1] >= n_clusters:
        raise ValueError(f"large_ is {large}: must be some of {n_clusters} clusters, in order")
    if state["n_features_in_"] != n_features:
        raise ValueError(f"n_features_in_ is {state['n_features_in_']}: must be {n_features}")
    _check_threshold(state)


def check_of_images(detector: Any) -> None:
    """Raise ValueError if an AutoencoderDetector is fitted but its attributes are inconsistent."""
    state = vars(detector)
    if "offset_" in state and detector.model is not None:
        state.setdefault("autoencoder_", detector.model)  # `save` stores the model only once
    if not _is_fitted(state, ("autoencoder_", "clusters_", "held_out_", "_units")):
        return
    from ekmfast.anomaly.images import SCORES

    score, clusters = state["score"], state["clusters_"]
    if score not in SCORES or (clusters is None) != (score == "reconstruction"):
        raise ValueError(f"score={score!r} does not go with what was fitted")
    if not is_autoencoder(state["autoencoder_"]):
        raise ValueError("autoencoder_ is none")
    latent_dim = state["autoencoder_"].latent_dim
    if clusters is not None and vars(clusters).get("n_features_in_") != latent_dim:
        raise ValueError(f"clusters_ must be of {latent_dim} features, as the codes have")
    _check_values(state, DETECTOR, {"P": 2 if score == "both" else 1, "U": 2})
    if (state["_units"][:, 1] <= 0).any():
        raise ValueError("_units holds a deviation that is not above 0")
    _check_threshold(state)
    detector.history_ = None


def _is_fitted(state: Mapping[str, Any], needed: tuple[str, ...]) -> bool:
    needed = (*needed, "offset_", "threshold_", "decision_scores_", "labels_")
    lacking = [name for name in needed if name not in state]
    if lacking and "offset_" in state:
        raise ValueError(f"offset_ is there, {', '.join(lacking)} is not")
    return "offset_" in state


def _check_threshold(state: Mapping[str, Any]) -> None:
    offset, scores = state["offset_"], state["decision_scores_"]
    if not math.isfinite(offset) or state["threshold_"] != -offset:
        raise ValueError(f"offset_ is {offset}: must be finite, and -threshold_")
    if (state["labels_"] != (scores > -offset)).any():
        raise ValueError("labels_ must say which decision_scores_ lie above the threshold")


def is_autoencoder(value: Any) -> bool:
    """Whether the value is a model of `ekmfast.autoencoder`; other values import no PyTorch."""
    if not type(value).__module__.startswith("ekmfast.autoencoder"):
        return False
    from ekmfast.autoencoder import ConvAutoencoder, ExportedAutoencoder

    return type(value) is ConvAutoencoder or isinstance(value, ExportedAutoencoder)


def parts_of(model: Any) -> dict[str, Any]:
    """Numbers, strings and arrays from which `autoencoder_of` restores the model."""
    from ekmfast.autoencoder import ExportedAutoencoder
    from ekmfast.autoencoder.seen import trained_on

    if isinstance(model, ExportedAutoencoder):
        archive = np.frombuffer(model.archive, np.uint8)
        return {"archive": archive, "precision": model.precision}
    parts: dict[str, Any] = {name: getattr(model, name) for name in PARAMETERS}
    parts["trained_on"] = trained_on(model)
    for name, value in model.state_dict().items():
        parts[WEIGHTS + name] = value.detach().cpu().numpy()
    return parts


def autoencoder_of(parts: Mapping[str, Any]) -> Any:
    """Inverse of `parts_of`; the model is on the CPU and in evaluation mode."""
    import torch

    from ekmfast.autoencoder import ConvAutoencoder
    from ekmfast.autoencoder.loading import from_archive

    if "archive" in parts:
        archive = parts["archive"]
        if archive.dtype != np.uint8 or archive.ndim != 1:
            raise ValueError(f"the archive is an array of {archive.dtype}: must be of bytes")
        return from_archive(archive.tobytes(), parts["precision"], "cpu")
    # On the meta device no memory is allocated before the shapes of the weights are checked.
    with torch.device("meta"):
        model = ConvAutoencoder(**{name: parts[name] for name in PARAMETERS})
    weights = {
        name.removeprefix(WEIGHTS): torch.from_numpy(np.array(value))
        for name, value in parts.items()
        if name.startswith(WEIGHTS)
    }
    for name, value in model.state_dict().items():
        if name in weights and weights[name].dtype != value.dtype:
            raise ValueError(f"{name} has dtype {weights[name].dtype}: must be {value.dtype}")
        if name in weights and not weights[name].isfinite().all():
            raise ValueError(f"{name} holds values that are not finite")
        if name.endswith("running_var") and name in weights and weights[name].min() < 0:
            raise ValueError(f"{name} holds a negative variance")
    model.load_state_dict(weights, assign=True)
    known = parts["trained_on"]
    if known.dtype != np.int64 or known.ndim != 1:
        raise ValueError(f"trained_on is an array of {known.dtype}: must be of int64")
    model.trained_on = torch.from_numpy(known.copy())
    return model.eval()
