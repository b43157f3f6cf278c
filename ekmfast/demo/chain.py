"""The order of the demo's stages, and the files that it writes."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ekmfast._files import replace_file, write_csv
from ekmfast._optional import require
from ekmfast._version import __version__
from ekmfast.demo.anomalies import detect_anomalies
from ekmfast.demo.clustering import cluster_draw, score_other_classes, score_path
from ekmfast.demo.data import DemoData
from ekmfast.demo.deep import deep_clusterings
from ekmfast.demo.draws import RATIOS, Draw, draw_rows, split
from ekmfast.demo.exporting import export_and_encode, export_with_clusters
from ekmfast.demo.plane import in_plane
from ekmfast.demo.report.page import write_report
from ekmfast.demo.scores import Codes, Fit
from ekmfast.demo.settings import QUICK, Settings
from ekmfast.demo.training import finetuned_model, pretrained_model


def check_requirements() -> None:
    """Import the optional packages of the demo, so that it fails early if one is missing.

    Raises
    ------
    ImportError
        If a package is missing; the message names the extra that installs it.
    NotImplementedError
        On Python 3.14 and newer, where PyTorch does not support TorchScript.

    Examples
    --------
    >>> from ekmfast.demo import check_requirements
    >>> check_requirements()
    """
    for module in ("torch", "kornia", "PIL.Image", "matplotlib", "jinja2"):
        require(module, "demo")
    from ekmfast.autoencoder.export import require_torchscript

    require_torchscript("the demo, which writes such files, needs Python 3.11, 3.12 or 3.13")


def run(data: DemoData, out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
    """Run the demo and write its report.

    Parameters
    ----------
    data : DemoData
        The images, from `load_data`.
    out : Path
        An existing folder, to which ``report.html``, ``metrics.json``, ``labels.csv``,
        ``model.ts``, ``pipeline.ts`` and five pictures are written. Older files are overwritten.
    seed : int, default=0
        Seed of all random numbers.
    quick : bool, default=False
        Use a tiny model and one epoch, to test that everything runs.

    Returns
    -------
    dict
        The contents of ``metrics.json``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from ekmfast.demo import load_data, run
    >>> metrics = run(load_data(), Path("demo-out"))  # doctest: +SKIP
    """
    from ekmfast.demo.report import figures

    settings = QUICK if quick else Settings()
    out = Path(out)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    print(data.source, flush=True)
    train, held = split(data.labels, seed)

    with _one_torch_thread():
        with _stage("pretrain", seconds):
            model, loss = pretrained_model(data, train, held, settings, seed)
        common = (model, data, train, held, settings, seed)
        with _stage("finetune", seconds):
            plain, accuracy = finetuned_model(*common, augment=None)
        with _stage("finetune with augmentation", seconds):
            augmented, accuracy_augmented = finetuned_model(*common, augment=True)
        exported = augmented if accuracy_augmented >= accuracy else plain
        with _stage("export, reload, encode", seconds):
            loaded, codes = export_and_encode(exported, data.images, out / "model.ts")
    with _stage("cluster", seconds):
        draws = {name: draw_rows(data.labels, data.triple, r, seed) for name, r in RATIOS.items()}
        fits = {name: cluster_draw(codes, draw, seed) for name, draw in draws.items()}
        paths = {
            name: score_path(codes, draw, settings.n_alphas, seed) for name, draw in draws.items()
        }
        others = [score_other_classes(codes, data, triple, seed) for triple in data.other_triples]
    clustering = {
        name: {method: fit.scores for method, fit in row.items()} for name, row in fits.items()
    }
    with _stage("pictures of the codes", seconds):
        names = [data.class_names[c] for c in data.triple]
        pictures = {
            "sizes": figures.sizes_figure(clustering, names, out / "sizes.png"),
            "path": figures.path_figure(paths, clustering, out / "path.png"),
            "tsne": _tsne(codes, draws["20:1:1"], fits["20:1:1"], names, settings, seed, out),
        }
    with _one_torch_thread():
        with _stage("anomalies", seconds):
            anomaly, groups, losses = detect_anomalies(loaded, data, train, held, seed)
            pictures["anomalies"] = figures.reconstruction_figure(
                groups, losses, out / "anomalies.png"
            )
            pictures["map"] = figures.map_figure(groups, out / "map.png")
        with _stage("one file of encoder and clusters", seconds):
            pipeline = export_with_clusters(
                exported, codes, draws["20:1:1"], data.images, seed, out / "pipeline.ts"
            )
        with _stage("deep clustering without labels", seconds):
            deep = deep_clusterings(data.images, draws["2:1:1"], settings, seed)

    seconds["total"] = time.perf_counter() - started
    results = {
        "pretrain": {"validation_loss": loss},
        "finetune": {
            "accuracy": accuracy,
            "accuracy_augmented": accuracy_augmented,
            "n_train": len(train),
            "n_validation": len(held),
        },
        "clustering": clustering,
        "path": paths,
        "other_classes": others,
        "anomaly": anomaly,
        "pipeline": pipeline,
        "deep": deep,
        "data": data.source,
        "classes": names,
        "seed": seed,
        "quick": quick,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "versions": _versions(),
    }
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    replace_file(out / "metrics.json", lambda file: file.write(text.encode()))
    _write_labels(out / "labels.csv", data, draws, fits)
    write_report(results, pictures, out / "report.html")
    print(f"{seconds['total']:6.1f} s  in all\n{out / 'report.html'}", flush=True)
    return results


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
    print(f"{seconds[name]:6.1f} s  {name}", flush=True)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Use one thread of PyTorch, so that the same seed gives the same model on every machine.

    The layers are too small to gain much from more threads. With more threads, the training becomes
    several times slower when another program uses a core, since the threads wait for each other.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tsne(
    codes: Codes,
    draw: Draw,
    fits: dict[str, Fit],
    names: list[str],
    settings: Settings,
    seed: int,
    out: Path,
) -> Path:
    """Draw the codes of a draw, and its centroids at three alphas."""
    from ekmfast.demo.report import figures

    shown = {method: fits[method] for method in ("ekm_0.1x", "ekm", "ekm_10x")}
    centroids = np.stack([fit.centroids for fit in shown.values()])
    points, projected = in_plane(codes[draw.rows], centroids, settings.tsne_iterations, seed)
    panels = {
        method: (fit.labels, in_panel, fit.scores["ari"])
        for (method, fit), in_panel in zip(shown.items(), projected, strict=True)
    }
    return figures.tsne_figure(points, draw.classes, panels, names, out / "tsne.png")


def _write_labels(
    path: Path, data: DemoData, draws: dict[str, Draw], fits: dict[str, dict[str, Fit]]
) -> None:
    """Write a row for each clustered image; clusters have the numbers of their matched classes."""
    methods = list(next(iter(fits.values())))

    def rows() -> Iterator[list[Any]]:
        for name, draw in draws.items():
            columns = [fits[name][method].labels for method in methods]
            for i, (row, c) in enumerate(zip(draw.rows, draw.classes, strict=True)):
                class_name = data.class_names[data.triple[c]]
                yield [name, row, class_name, c, *(column[i] for column in columns)]

    # Names of folders may contain bytes that are not UTF-8, which Python decodes to surrogates.
    header = ["draw", "image", "class_name", "class", *methods]
    write_csv(path, header, rows(), errors="surrogateescape")


def _versions() -> dict[str, str]:
    packages = ("numpy", "scipy", "scikit-learn", "torch", "kornia", "matplotlib")
    versions = {name: version(name) for name in packages}
    return {"ekmfast": __version__, "python": platform.python_version()} | versions
