"""Equilibrium K-means: fast, stable clustering of imbalanced data (arXiv 2402.14490)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ekmfast._show import show_config
from ekmfast._version import __version__
from ekmfast.kernels import (
    Statistics,
    assign,
    compute_weights,
    ekm_statistics,
    ekm_step,
    update_centroids,
)

if TYPE_CHECKING:
    from ekmfast import anomaly, blocks, datasets, metrics, plotting

    # Not in __all__, since `import *` would import them, and the packages they need are optional.
    from ekmfast import autoencoder as autoencoder
    from ekmfast import dask as dask
    from ekmfast.estimators.alpha_path import alpha_path
    from ekmfast.estimators.cluster_path import cluster_path
    from ekmfast.estimators.ekmeans import EKMeans
    from ekmfast.estimators.fuzzy import FuzzyCMeans
    from ekmfast.estimators.hard import HardKMeans
    from ekmfast.estimators.maxent import MaximumEntropyKMeans
    from ekmfast.estimators.minibatch import MiniBatchEKMeans
    from ekmfast.estimators.mixture import EquilibriumMixture
    from ekmfast.estimators.semisupervised import SemiSupervisedEKMeans
    from ekmfast.fit.cluster_path import ClusterPath
    from ekmfast.fit.search import AlphaPath
    from ekmfast.persist.file import load, save
    from ekmfast.persist.onnx import export_onnx

# These are imported on first use, because scikit-learn is slow to import, and other names need
# optional packages.
_LAZY_NAMES = {
    "AlphaPath": "estimators.alpha_path",
    "ClusterPath": "estimators.cluster_path",
    "EKMeans": "estimators.ekmeans",
    "EquilibriumMixture": "estimators.mixture",
    "FuzzyCMeans": "estimators.fuzzy",
    "HardKMeans": "estimators.hard",
    "MaximumEntropyKMeans": "estimators.maxent",
    "MiniBatchEKMeans": "estimators.minibatch",
    "SemiSupervisedEKMeans": "estimators.semisupervised",
    "alpha_path": "estimators.alpha_path",
    "cluster_path": "estimators.cluster_path",
    "export_onnx": "persist.onnx",
    "load": "persist.file",
    "save": "persist.file",
}
_LAZY_MODULES = ("anomaly", "autoencoder", "blocks", "dask", "datasets", "metrics", "plotting")

__all__ = [
    "AlphaPath",
    "ClusterPath",
    "EKMeans",
    "EquilibriumMixture",
    "FuzzyCMeans",
    "HardKMeans",
    "MaximumEntropyKMeans",
    "MiniBatchEKMeans",
    "SemiSupervisedEKMeans",
    "Statistics",
    "__version__",
    "alpha_path",
    "anomaly",
    "assign",
    "blocks",
    "cluster_path",
    "compute_weights",
    "datasets",
    "ekm_statistics",
    "ekm_step",
    "export_onnx",
    "load",
    "metrics",
    "plotting",
    "save",
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
    return sorted({*globals(), *__all__, *_LAZY_MODULES})
