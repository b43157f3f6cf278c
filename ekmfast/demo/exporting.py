"""Export the model, alone and with clusters of its codes, to files that need only PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.demo.draws import Draw
from ekmfast.demo.quiet import without_convergence_warnings
from ekmfast.demo.scores import Codes


def export_and_encode(model: Any, images: NDArray[np.float32], path: Path) -> tuple[Any, Codes]:
    """Export the model and read it back; return it, and its codes of the images."""
    from ekmfast.autoencoder import export, load

    loaded = load(export(model, path))
    return loaded, loaded.encode(images).astype(np.float64)


def export_with_clusters(
    model: Any,
    codes: Codes,
    draw: Draw,
    images: NDArray[np.float32],
    seed: int,
    path: Path,
) -> dict[str, Any]:
    """Export encoder and clusters to one file, run it with PyTorch, and compare the labels."""
    import torch

    from ekmfast import EKMeans
    from ekmfast.autoencoder import export_pipeline

    clusters = EKMeans(3, random_state=seed)
    with without_convergence_warnings():
        clusters.fit(codes[draw.rows].astype(np.float32))
    path = export_pipeline(model, clusters, path)
    with warnings.catch_warnings():
        # PyTorch deprecates TorchScript, but C++ programs still read it.
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.load(path)
    with torch.no_grad():
        result = scripted(torch.from_numpy(images[draw.rows]))
    return {
        "n_images": len(draw.rows),
        "equal_labels": float((result["labels"].numpy() == clusters.labels_).mean()),
        "outputs": {name: list(value.shape) for name, value in result.items()},
        "megabytes": path.stat().st_size / 1e6,
    }
