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
    from . import anomaly, blocks, datasets, metrics, plotting

    # Not in __all__, as `import *` takes all of that: their packages are extras.
    from . import autoencoder as autoencoder
    from . import dask as dask
    from ._ekmeans import EKMeans
    from ._fuzzy import FuzzyCMeans
    from ._hard import HardKMeans
    from ._maxent import MaximumEntropyKMeans
    from ._minibatch import MiniBatchEKMeans
    from ._path import AlphaPath, alpha_path
    from ._persist import load, save
    from ._semisupervised import SemiSupervisedEKMeans

# Loaded on first use: scikit-learn's estimators for their import time, the rest for what they need.
_LAZY_NAMES = {
    "AlphaPath": "_path",
    "EKMeans": "_ekmeans",
    "FuzzyCMeans": "_fuzzy",
    "HardKMeans": "_hard",
    "MaximumEntropyKMeans": "_maxent",
    "MiniBatchEKMeans": "_minibatch",
    "SemiSupervisedEKMeans": "_semisupervised",
    "alpha_path": "_path",
    "load": "_persist",
    "save": "_persist",
}
_LAZY_MODULES = ("anomaly", "autoencoder", "blocks", "dask", "datasets", "metrics", "plotting")

__all__ = [
    "AlphaPath",
    "EKMeans",
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
    "compute_weights",
    "datasets",
    "ekm_statistics",
    "ekm_step",
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
