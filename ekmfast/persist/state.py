"""Check the attributes of estimators that were read from files.

A file with valid checksums may still have been made by hand. Therefore attributes are compared with
tables of shapes, dtypes and ranges. A letter in a shape stands for a size, which must be the same
in all shapes with this letter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

FLOATING = (np.dtype(np.float32), np.dtype(np.float64))
FLOAT64 = FLOATING[1:]
INTEGERS = (np.dtype(np.int32), np.dtype(np.int64))


class Numbers(NamedTuple):
    """Rule for an array: a letter for each axis, dtypes, least value, whether all are finite."""

    shape: str
    dtypes: tuple[np.dtype[Any], ...]
    least: float = -math.inf
    finite: bool = True


class Number(NamedTuple):
    """Rule for a scalar: its type and its least value."""

    kind: type
    least: float = -math.inf


Rule = Numbers | Number
POSITIVE = math.ulp(0)

CENTROIDS: Mapping[str, Rule] = {
    "n_features_in_": Number(Integral, 1),
    "cluster_centers_": Numbers("KD", FLOATING),
    "alpha_": Number(Real, POSITIVE),
    "theta_": Number(Real, 0),
    "objective_": Number(Real),
    "objective_history_": Numbers("I", FLOAT64, finite=False),
    "n_iter_": Number(Integral, 0),
    "n_steps_": Number(Integral, 0),
    "converged_": Number(bool),
    "_merged_": Numbers("K", INTEGERS, 0),
    "n_clusters_effective_": Number(Integral, 1),
    "labels_": Numbers("N", INTEGERS, 0),
}
STREAM: Mapping[str, Rule] = {
    "centroids": Numbers("KD", FLOAT64),
    "packed": Numbers("KP", FLOAT64),
    "reference": Numbers("D", FLOAT64),
    "weight": Number(Real, POSITIVE),
    "mean": Numbers("D", FLOAT64),
    "scatter": Number(Real, 0),
    "mass": Numbers("D", FLOAT64, 0),
}
MIXTURE: Mapping[str, Rule] = {
    "weights": Numbers("K", FLOAT64, 0),
    "means": Numbers("KD", FLOAT64),
    "scales": Numbers("K", FLOAT64, POSITIVE),
    "background": Number(Real, 0),
    "log_volume": Number(Real),
}
BOX: Mapping[str, Rule] = {"low": Numbers("D", FLOAT64), "high": Numbers("D", FLOAT64)}
# Whether the scatters of a kind are matrices.
MATRICES = {"spherical": False, "diag": False, "tied": True, "full": True}
# What EquilibriumMixture has besides its mixture; the shape of covariances_ depends on the type.
MIXTURE_ESTIMATOR: Mapping[str, Rule] = {
    "n_features_in_": Number(Integral, 1),
    "weights_": Numbers("K", FLOAT64, 0),
    "means_": Numbers("KD", FLOATING),
    "labels_": Numbers("N", INTEGERS, -1),
    "degrees_of_freedom_": Number(Real, 2),
    "n_iter_": Number(Integral, 1),
    "converged_": Number(bool),
    "lower_bound_": Number(Real),
    "_centre": Numbers("D", FLOAT64),
    "_unit": Number(Real, POSITIVE),
}
SCALER: Mapping[str, Rule] = {
    "n_features_in_": Number(Integral, 1),
    "mean_": Numbers("D", FLOAT64),
    "var_": Numbers("D", FLOAT64, 0),
    "scale_": Numbers("D", FLOAT64, POSITIVE),
}


def check_values(
    values: Mapping[str, Any], rules: Mapping[str, Rule], sizes: dict[str, int]
) -> None:
    """Raise ValueError if a value does not satisfy its rule.

    Parameters
    ----------
    values : mapping of str to object
        Attributes. Values without a rule, and rules without a value, are ignored.
    rules : mapping of str to Numbers or Number
        The rule for each attribute.
    sizes : dict of str to int
        Known sizes by their letters; new ones are added.
    """
    for name, rule in rules.items():
        if name not in values:
            continue
        value = values[name]
        if isinstance(rule, Number):
            _check_number(name, value, rule)
        else:
            _check_array(name, value, rule, sizes)


def _check_number(name: str, value: Any, rule: Number) -> None:
    of_kind = isinstance(value, (bool, np.bool_) if rule.kind is bool else rule.kind)
    if not of_kind or (rule.kind is not bool and isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r:.60}: must be of type {rule.kind.__name__}")
    if not value >= rule.least:
        raise ValueError(f"{name} is {value!r}: must be at least {rule.least:g}")


def _check_array(name: str, value: Any, rule: Numbers, sizes: dict[str, int]) -> None:
    if not isinstance(value, np.ndarray) or value.ndim != len(rule.shape):
        shape = np.shape(value) if isinstance(value, np.ndarray) else repr(value)[:60]
        raise ValueError(f"{name} is {shape}: must be an array of {len(rule.shape)} axes")
    expected = tuple(
        sizes.setdefault(letter, n) for letter, n in zip(rule.shape, value.shape, strict=True)
    )
    if value.shape != expected:
        raise ValueError(f"{name} has shape {value.shape}: must be {expected}")
    if value.dtype not in rule.dtypes:
        raise ValueError(
            f"{name} has dtype {value.dtype}: must be {' or '.join(map(str, rule.dtypes))}"
        )
    if rule.finite and not np.isfinite(value).all():
        raise ValueError(f"{name} holds values that are not finite")
    if rule.finite and not (value >= rule.least).all():
        raise ValueError(f"{name} holds {value.min()}: must be at least {rule.least:g}")


def check_centroids(estimator: Any) -> None:
    """Raise ValueError if an estimator is fitted but its attributes are inconsistent."""
    state = vars(estimator)
    sizes: dict[str, int] = {}
    check_values(state, {"cluster_centers_": CENTROIDS["cluster_centers_"]}, sizes)
    fitted = "cluster_centers_" in state
    lacking = [name for name in ("n_features_in_", "alpha_", "_merged_") if name not in state]
    if fitted and lacking:
        raise ValueError(f"cluster_centers_ is there, {', '.join(lacking)} is not")
    # Only the cosine gives the label -1; set_params may have changed zero_rows after the fit.
    least_label = -1 if estimator.metric == "cosine" else 0
    labels_rule = {"labels_": Numbers("N", INTEGERS, least_label)}
    check_values(state, {**CENTROIDS, **labels_rule}, sizes)
    _check_features(state, sizes)
    if fitted:
        n_clusters = sizes["K"]
        if not n_clusters:
            raise ValueError("cluster_centers_ has no rows")
        if not math.isfinite(state["alpha_"]) and estimator._uses_alpha:
            raise ValueError(f"alpha_ is {state['alpha_']}: must be finite")
        merged = state["_merged_"]
        # Entry k must be the first of the centroids that coincide with centroid k.
        if (merged > np.arange(n_clusters)).any() or (merged[merged] != merged).any():
            raise ValueError(f"_merged_ is {merged}: must hold the first of coincident centroids")
        effective = state.get("n_clusters_effective_", len(np.unique(merged)))
        if effective != len(np.unique(merged)):
            raise ValueError(f"n_clusters_effective_ is {effective}: _merged_ says otherwise")
        labels = state.get("labels_")
        if labels is not None and labels.size and labels.max() >= n_clusters:
            raise ValueError(f"labels_ holds {labels.max()}: must be less than {n_clusters}")
    if "_stream_" in state:
        stream = dict(vars(state["_stream_"]))
        if stream["mass"] is None:  # no numbers were missing
            del stream["mass"]
        check_values(stream, STREAM, sizes)
        allowed = sizes["D"] + 2, 3 * sizes["D"]
        if sizes["P"] not in allowed:
            raise ValueError(
                f"packed has {sizes['P']} columns: must be {allowed[0]} or {allowed[1]}"
            )


def check_mixture(estimator: Any) -> None:
    """Raise ValueError if an EquilibriumMixture is fitted but its attributes are inconsistent."""
    state = vars(estimator)
    if "_mixture" not in state:
        return
    mixture = state["_mixture"]
    needed = (*MIXTURE_ESTIMATOR, "covariances_")
    # A fit to blocks does not set labels_.
    lacking = [name for name in needed if name not in state and name != "labels_"]
    if lacking:
        raise ValueError(f"_mixture is there, {', '.join(lacking)} is not")
    sizes: dict[str, int] = {}
    check_values(vars(mixture), MIXTURE, sizes)
    check_values(state, MIXTURE_ESTIMATOR, sizes)
    _check_features(state, sizes)
    if mixture.kind not in MATRICES or state["covariance_type_"] != mixture.kind:
        raise ValueError(f"covariance_type_ is {state['covariance_type_']!r:.40}")
    if not mixture.degrees > 0:
        raise ValueError(f"degrees is {mixture.degrees!r}: must be above 0")
    shape = "KDD" if MATRICES[mixture.kind] else "KD"
    check_values({"scatters": mixture.scatters}, {"scatters": Numbers(shape, FLOAT64)}, sizes)
    try:
        positive = mixture.full or (mixture.scatters > 0).all()
        valid = positive and np.isfinite(mixture.whiteners).all()
    except np.linalg.LinAlgError:
        valid = False
    if not valid:
        raise ValueError("scatters must be positive definite")
    _check_background(mixture, state.get("_box"), sizes)
    if not math.isfinite(state["_unit"]):
        raise ValueError(f"_unit is {state['_unit']}: must be finite")
    labels = state.get("labels_")
    if labels is not None and labels.size and labels.max() >= sizes["K"]:
        raise ValueError(f"labels_ holds {labels.max()}: must be less than {sizes['K']}")
    if labels is not None and labels.size and labels.min() < 0 and not mixture.has_background:
        raise ValueError("labels_ holds -1, but there is no background")


def _check_background(mixture: Any, box: Any, sizes: dict[str, int]) -> None:
    if not mixture.background < 1:
        raise ValueError(f"background is {mixture.background!r}: must be below 1")
    if mixture.log_volume == -math.inf:
        raise ValueError("log_volume is -inf: must be finite, or inf for no background")
    if not mixture.has_background:
        return
    if box is None:
        raise ValueError("there is a background, but no _box")
    check_values(vars(box), BOX, sizes)
    if not (box.low <= box.high).all():
        raise ValueError("_box has sides of negative lengths")


def check_scaler(scaler: Any) -> None:
    """Raise ValueError if a StandardScaler is fitted but its attributes are inconsistent."""
    state = vars(scaler)
    if "n_samples_seen_" in state:
        needed = ["n_features_in_"]
        needed += ["mean_"] if scaler.with_mean else []
        needed += ["scale_", "var_"] if scaler.with_std else []
        lacking = [name for name in needed if state.get(name) is None]
        if lacking:
            raise ValueError(f"the StandardScaler lacks {', '.join(lacking)}")
    sizes: dict[str, int] = {}
    check_values({k: v for k, v in state.items() if v is not None}, SCALER, sizes)
    _check_features(state, sizes)


def _check_features(state: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    n_features = state.get("n_features_in_")
    if n_features is not None and sizes.get("D", n_features) != n_features:
        raise ValueError(f"n_features_in_ is {n_features}: arrays are of {sizes['D']} features")
    names = state.get("feature_names_in_")
    if names is not None and np.shape(names) != (n_features,):
        raise ValueError(f"feature_names_in_ has shape {np.shape(names)}: must be ({n_features},)")
