"""Equilibrium K-means: fast, stable clustering of imbalanced data (arXiv 2402.14490)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._show import show_config
from ._version import __version__
from .kernels import (
    Statistics,
    assign,
    compute_weights,
    ekm_statistics,
    ekm_step,
    update_centroids,
)

if TYPE_CHECKING:
    from . import anomaly, autoencoder, datasets, metrics, plotting
    from ._ekmeans import EKMeans

# Loaded on first use: scikit-learn's estimators for their import time, the rest for what they need.
_LAZY_NAMES = {"EKMeans": "_ekmeans"}
_LAZY_MODULES = ("anomaly", "autoencoder", "datasets", "metrics", "plotting")

__all__ = [
    "EKMeans",
    "Statistics",
    "__version__",
    "anomaly",
    "assign",
    "autoencoder",
    "compute_weights",
    "datasets",
    "ekm_statistics",
    "ekm_step",
    "metrics",
    "plotting",
    "show_config",
    "update_centroids",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY_NAMES:
        value = getattr(importlib.import_module("." + _LAZY_NAMES[name], __name__), name)
    elif name in _LAZY_MODULES:
        value = importlib.import_module("." + name, __name__)
    else:
        raise AttributeError(f"module 'ekmfast' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
