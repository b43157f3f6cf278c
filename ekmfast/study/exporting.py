"""Export the model, alone and with clusters of its codes, to files that need only PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.study.draws import Draw
from ekmfast.study.quiet import without_convergence_warnings
from ekmfast.study.scores import Codes


def suffix() -> str:
    """That of TorchScript, or of torch.export where Python is too new for TorchScript."""
    from ekmfast.autoencoder.torchscript import is_supported

    return "ts" if is_supported() else "pt2"


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

    clusters = EKMeans(draw.n_clusters, random_state=seed)
    with without_convergence_warnings():
        clusters.fit(codes[draw.rows].astype(np.float32))
    path = export_pipeline(model, clusters, path)
    with warnings.catch_warnings():
        # PyTorch deprecates TorchScript, but C++ programs still read it.
        warnings.simplefilter("ignore")
        scripted = path.suffix == ".ts"
        program = torch.jit.load(path) if scripted else torch.export.load(path).module()
    parts: list[dict[str, Any]] = []
    with torch.no_grad():
        for start in range(0, len(draw.rows), 512):
            parts.append(program(torch.from_numpy(images[draw.rows[start : start + 512]])))
    labels = np.concatenate([part["labels"].numpy() for part in parts])
    return {
        "file": path.name,
        "n_images": len(draw.rows),
        "equal_labels": float((labels == clusters.labels_).mean()),
        "outputs": {name: [len(draw.rows), *value.shape[1:]] for name, value in parts[0].items()},
        "megabytes": path.stat().st_size / 1e6,
    }
