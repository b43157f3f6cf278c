"""The order of the study's stages, and the files that it writes."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ekmfast._files import replace_file, write_csv
from ekmfast._optional import require
from ekmfast._version import __version__
from ekmfast.study.anomalies import detect_anomalies
from ekmfast.study.clustering import cluster_draw, score_other_classes, score_path
from ekmfast.study.data import StudyData
from ekmfast.study.deep import deep_clusterings
from ekmfast.study.draws import Draw, draws_of, split
from ekmfast.study.exporting import export_and_encode, export_with_clusters, suffix
from ekmfast.study.plane import in_plane
from ekmfast.study.progress import Stages
from ekmfast.study.report.page import write_report
from ekmfast.study.scores import Codes, Fit
from ekmfast.study.settings import Settings
from ekmfast.study.training import Training, curves, describe

# The work of stages that train no model, in images that the demo's model sees in a training. It
# serves only to estimate how much time is left.
CLUSTERING, PLANE, FEW = 1e4, 4e3, 1e3
# Images that are drawn in the plane, at most: t-SNE is slow.
DRAWN = 2000


def check_requirements() -> None:
    """Import the optional packages of the study, so that it fails early if one is missing.

    Raises
    ------
    ImportError
        If a package is missing; the message names the extra that installs it.

    Examples
    --------
    >>> from ekmfast.study import check_requirements
    >>> check_requirements()
    """
    for module in ("torch", "kornia", "PIL.Image", "matplotlib", "jinja2"):
        require(module, "demo")


def run(
    data: StudyData,
    out: Path,
    *,
    settings: Settings | None = None,
    seed: int = 0,
    title: str = "Equilibrium k-means on the codes of an autoencoder",
    quick: bool = False,
    states: bool = False,
    one_thread: bool = True,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run the study and write its report.

    Parameters
    ----------
    data : StudyData
        The images, from `load_digits` or `load_photos`.
    out : Path
        An existing folder, to which ``report.html``, ``metrics.json``, ``labels.csv``,
        ``model.ts``, ``pipeline.ts`` and the pictures are written. Older files are overwritten.
        Where PyTorch does not support TorchScript, models are named ``.pt2``.
    settings : Settings, default=None
        Sizes of models, epochs and shares; None for those of the demo.
    seed : int, default=0
        Seed of all random numbers.
    title : str
        Title of the report.
    quick : bool, default=False
        Whether the report says that its numbers mean nothing.
    states : bool, default=False
        Write the states of trainings to the folder ``states`` of ``out``, or ``quick-states`` of a
        quick study. If they exist, the trainings continue from them.
    one_thread : bool, default=True
        Use one thread of PyTorch, so that the same seed gives the same model on every machine.
    quiet : bool, default=False
        Print nothing, and show no progress bars.

    Returns
    -------
    dict
        The contents of ``metrics.json``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from ekmfast.study import load_digits, run
    >>> metrics = run(load_digits(), Path("demo-out"))  # doctest: +SKIP
    """
    from ekmfast.study.report import figures

    settings = Settings() if settings is None else settings
    out = Path(out)
    # A full study does not continue the trainings of a quick one.
    folder = out / ("quick-states" if quick else "states") if states else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    stages = Stages(_work(data, settings), quiet, estimate=not quick)
    stages.say(data.source)
    train, held = split(data, seed)
    # Bars are for terminals; in a file they would be long lines.
    verbose = 1 if sys.stderr.isatty() and not quiet else 0
    training = Training(data, train, held, settings, seed, folder, verbose)
    draws = draws_of(data, settings.shares, seed)
    shown = list(draws)[-1]  # the draw in the plane and in the file with clusters
    labelled = data.labels is not None
    pictures: dict[str, Path] = {}

    with _torch_threads(one_thread):
        with stages.stage("pretrain", resumed=training.resumed("pretrain")):
            exported, history = training.pretrained()
        histories = {"pretraining": curves(history)}
        model = describe(exported)
        loss, finetune = history.best_loss, None
        if labelled:
            with stages.stage("finetune", resumed=training.resumed("finetune")):
                plain, history = training.finetuned(exported, augment=False)
            histories["finetuning"] = curves(history)
            resumed = training.resumed("augmented")
            with stages.stage("finetune with augmentation", resumed=resumed):
                augmented, other = training.finetuned(exported, augment=True)
            histories["with augmentation"] = curves(other)
            exported = augmented if other.best_accuracy >= history.best_accuracy else plain
            finetune = {
                "accuracy": history.best_accuracy,
                "accuracy_augmented": other.best_accuracy,
                "n_train": len(train),
                "n_validation": len(held),
                "confusion": training.confusion(plain),
                "confusion_augmented": training.confusion(augmented),
            }
            pictures["confusion"] = figures.confusion_figure(
                finetune, data.class_names, out / "confusion.png"
            )
        pictures["training"] = figures.training_figure(histories, out / "training.png")
        with stages.stage("export, reload, encode"):
            loaded, codes = export_and_encode(exported, data.images, out / f"model.{suffix()}")
    with stages.stage("cluster"):
        fits = {name: cluster_draw(codes, draw, seed) for name, draw in draws.items()}
        paths = {
            name: score_path(codes, draw, settings.n_alphas, seed) for name, draw in draws.items()
        }
        others = [
            score_other_classes(codes, data, triple, settings.shares, seed)
            for triple in data.other_triples
        ]
    clustering = {
        name: {method: fit.scores for method, fit in row.items()} for name, row in fits.items()
    }
    with stages.stage("pictures of the codes"):
        names = _names(data, draws[shown])
        pictures |= {
            "sizes": figures.sizes_figure(clustering, names, out / "sizes.png"),
            "path": figures.path_figure(paths, clustering, out / "path.png"),
            "tsne": _tsne(codes, draws[shown], fits[shown], names, settings, seed, out),
        }
    anomaly = None
    with _torch_threads(one_thread):
        if data.anomalies is not None:
            n_clusters = len(data.class_names) or draws[shown].n_clusters
            with stages.stage("anomalies"):
                anomaly, groups, losses = detect_anomalies(
                    loaded, data, train, held, n_clusters, seed
                )
                pictures["anomalies"] = figures.reconstruction_figure(
                    groups, losses, out / "anomalies.png"
                )
                pictures["map"] = figures.map_figure(groups, out / "map.png")
        with stages.stage("one file of encoder and clusters"):
            pipeline = export_with_clusters(
                exported, codes, draws[shown], data.images, seed, out / f"pipeline.{suffix()}"
            )
        with stages.stage("deep clustering without labels"):
            first = next(iter(draws))
            deep, deep_labels = deep_clusterings(
                data.images, draws[first], settings, seed, verbose=verbose
            )
            if not labelled:
                pictures["examples"] = figures.examples_figure(
                    data.images[draws[first].rows],
                    {"EKMeans on the codes": fits[first]["ekm"].labels}
                    | {"DeepEKM": deep_labels["DeepEKM"]},
                    draws[first].n_clusters,
                    out / "examples.png",
                )

    total = stages.total()
    results = {
        "title": title,
        "model": model,
        "training": histories,
        "pretrain": {
            "validation_loss": loss,
            "n_train": len(train),
            "n_validation": len(held),
        },
        "finetune": finetune,
        "clustering": clustering,
        "shown": shown,
        "deep_draw": first,
        "path": paths,
        "other_classes": others,
        "anomaly": anomaly,
        "pipeline": pipeline,
        "deep": deep,
        "data": data.source,
        "classes": names,
        "class_names": data.class_names,
        "deep_size": settings.deep_size,
        "reconstruction_weight": settings.reconstruction_weight,
        "labelled": labelled,
        "seed": seed,
        "quick": quick,
        "seconds": {name: round(value, 2) for name, value in stages.seconds.items()},
        "versions": _versions(),
    }
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    replace_file(out / "metrics.json", lambda file: file.write(text.encode()))
    _write_labels(out / "labels.csv", data, draws, fits)
    write_report(results, pictures, out / "report.html")
    stages.say(f"{total:6.1f} s  in all\n{out / 'report.html'}")
    return results


def _work(data: StudyData, settings: Settings) -> dict[str, float]:
    """The stages, and a guess of their work in images that the demo's model sees in a training."""
    n = len(data.images)
    passes = n * _cost(data.images.shape[-1], settings.width)
    work = {"pretrain": settings.pretrain_epochs * passes}
    if data.labels is not None:
        work["finetune"] = settings.finetune_epochs * passes
        work["finetune with augmentation"] = 1.2 * settings.finetune_epochs * passes
    work["export, reload, encode"] = FEW + 0.2 * passes
    work |= {"cluster": CLUSTERING, "pictures of the codes": PLANE}
    if data.anomalies is not None:
        work["anomalies"] = FEW + passes
    work["one file of encoder and clusters"] = FEW
    epochs = settings.deep_warmup + 2 * settings.deep_epochs
    drawn = n if data.labels is None else min(n, 800)
    # Each epoch also fits clusters.
    cost = _cost(settings.deep_size, settings.deep_width)
    work["deep clustering without labels"] = epochs * (cost * drawn + FEW / 10)
    return work


def _cost(image_size: int, width: float) -> float:
    """How much longer an image takes than with the demo's model, by measurements."""
    demo = Settings()
    return float((image_size / 32) ** 2 * (width / demo.width) ** 1.2)


@contextmanager
def _torch_threads(one: bool) -> Iterator[None]:
    """Use one thread of PyTorch, or as many as before.

    The layers of small models gain little from more threads. With more threads, their training
    becomes several times slower when another program uses a core, since the threads wait for each
    other.
    """
    import torch

    before = torch.get_num_threads()
    if one:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _names(data: StudyData, draw: Draw) -> list[str]:
    if data.triple is None:
        return [str(k) for k in range(draw.n_clusters)]
    return [data.class_names[c] for c in data.triple]


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
    from ekmfast.study.report import figures

    shown = {method: fits[method] for method in ("tuned_0.1x", "tuned", "tuned_10x")}
    some = np.sort(np.random.default_rng([seed, 3]).permutation(len(draw.rows))[:DRAWN])
    centroids = np.stack([fit.centroids for fit in shown.values()])
    points, projected = in_plane(codes[draw.rows[some]], centroids, settings.tsne_iterations, seed)
    panels = {
        method: (fit.labels[some], in_panel, fit.scores.get("ari"))
        for (method, fit), in_panel in zip(shown.items(), projected, strict=True)
    }
    if draw.classes is None:
        last = ("hard k-means", fits["kmeans"].labels[some])
    else:
        last = ("true classes", draw.classes[some])
    return figures.tsne_figure(points, last, panels, names, out / "tsne.png")


def _write_labels(
    path: Path, data: StudyData, draws: dict[str, Draw], fits: dict[str, dict[str, Fit]]
) -> None:
    """Write a row for each clustered image; clusters have the numbers of their matched classes."""
    methods = list(next(iter(fits.values())))

    def rows() -> Iterator[list[Any]]:
        for name, draw in draws.items():
            columns = [fits[name][method].labels for method in methods]
            for i, row in enumerate(draw.rows):
                of_class: list[Any] = []
                if draw.classes is not None and data.triple is not None:
                    c = draw.classes[i]
                    of_class = [data.class_names[data.triple[c]], c]
                file = [data.files[row]] if data.files else []
                yield [name, row, *file, *of_class, *(column[i] for column in columns)]

    # Names of folders may contain bytes that are not UTF-8, which Python decodes to surrogates.
    of_class = [] if data.labels is None else ["class_name", "class"]
    header = ["draw", "image", *(["file"] if data.files else []), *of_class, *methods]
    write_csv(path, header, rows(), errors="surrogateescape")


def _versions() -> dict[str, str]:
    packages = ("numpy", "scipy", "scikit-learn", "torch", "kornia", "matplotlib")
    versions = {name: version(name) for name in packages}
    return {"ekmfast": __version__, "python": platform.python_version()} | versions
