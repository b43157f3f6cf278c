"""The whole chain on small data: train, export, encode, cluster, look, tell anomalies.

``ekmfast demo`` runs it. Every number in the report comes from here, through ``metrics.json``.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import replace_file, write_csv
from ekmfast._optional import require
from ekmfast._version import __version__

__all__ = ["DemoData", "check_requirements", "load_data", "run"]

IMAGE_SIZE = 32
VALIDATION_SHARE = 0.1
RATIOS = {"2:1:1": (2, 1, 1), "20:1:1": (20, 1, 1)}
LARGEST = 400  # samples of the first class of a draw
FALSE_ALARMS = 0.02  # of normal images, at the detectors' threshold
# Of the paper's alpha, that of alpha="dvariance".
MULTIPLES = (0.1, 10.0)
# The naive formula is followed further: where it breaks depends on how tight the clusters are.
NAIVE_MULTIPLES = (10.0, 100.0)
DIGITS = (2, 7, 1)
# The first of each is the large class. The list is fixed, not picked by result: some triples need
# equilibrium k-means, some do not, on some it fails.
OTHER_DIGITS = ((5, 7, 9), (0, 1, 9), (8, 7, 1), (5, 8, 9), (0, 1, 3), (0, 2, 8), (4, 9, 7))

Codes = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class DemoData:
    """Normal images with their classes, and anomalous ones.

    Attributes
    ----------
    images : ndarray of shape (N, C, 32, 32), float32
    labels : ndarray of shape (N,), int64
    class_names : list of str
    anomalies : ndarray of shape (M, C, 32, 32), float32
    triple : tuple of three int
        Classes to cluster, the one to draw most of first.
    other_triples : tuple of tuples of three int
        Further classes to cluster, for comparison.
    source : str
        What the images are, for the report.
    """

    images: NDArray[np.float32]
    labels: Labels
    class_names: list[str]
    anomalies: NDArray[np.float32]
    triple: tuple[int, int, int]
    other_triples: tuple[tuple[int, int, int], ...]
    source: str


@dataclass(frozen=True)
class _Settings:
    """What ``quick`` changes."""

    width: float = 0.25
    latent_dim: int = 128
    pretrain_epochs: int = 5
    finetune_epochs: int = 8
    n_alphas: int = 17
    tsne_iterations: int = 1000
    deep_width: float = 0.125
    deep_warmup: int = 20
    deep_epochs: int = 8


_QUICK = _Settings(0.0625, 16, 1, 1, 3, 250, 0.0625, 1, 1)


def check_requirements() -> None:
    """Import what the demo needs, so that a missing package is told before the work begins.

    Raises
    ------
    ImportError
        If a package is missing; the message names the extra that installs it.

    Examples
    --------
    >>> from ekmfast.demo import check_requirements
    >>> check_requirements()
    """
    for module in ("torch", "kornia", "PIL.Image", "matplotlib", "jinja2"):
        require(module, "demo")


def load_data(
    images: str | os.PathLike[str] | None = None,
    anomalies: str | os.PathLike[str] | None = None,
    *,
    quick: bool = False,
) -> DemoData:
    """Digits and faces, or the images of two folders.

    Parameters
    ----------
    images : path-like, default=None
        Folder of normal images, with a sub-folder for each of at least three classes; None for
        5,000 handwritten digits.
    anomalies : path-like, default=None
        Folder of anomalous images; None for 100 faces. Given with ``images``, or not at all.
    quick : bool, default=False
        Keep 40 images of each class and 20 anomalies.

    Returns
    -------
    DemoData

    Raises
    ------
    ImportError
        If a package is missing.
    OSError, ValueError
        If a folder cannot be used.

    Examples
    --------
    >>> from ekmfast.demo import load_data
    >>> load_data(quick=True).images.shape
    (400, 1, 32, 32)
    """
    from ekmfast.datasets import load_digits_and_faces, load_image_folder

    if (images is None) != (anomalies is None):
        raise ValueError("images and anomalies must be given together")
    if images is None or anomalies is None:
        digits = load_digits_and_faces(IMAGE_SIZE)
        data = DemoData(
            digits.digits,
            digits.labels,
            [str(digit) for digit in range(10)],
            digits.faces,
            DIGITS,
            OTHER_DIGITS,
            f"{len(digits.digits):,} handwritten digits (MNIST), {len(digits.faces)} faces (LFW)",
        )
    else:
        folder = load_image_folder(images, IMAGE_SIZE)
        strange = load_image_folder(anomalies, IMAGE_SIZE)
        if folder.labels is None or len(folder.class_names) < 3:
            raise ValueError(
                f"{images}: must have images in at least three sub-folders, one for each class"
            )
        counts = np.bincount(folder.labels)
        if counts.min() < 2:
            name = folder.class_names[int(counts.argmin())]
            raise ValueError(f"{images}: class {name!r} has one image, at least 2 are needed")
        first, second, third = (int(c) for c in np.argsort(-counts, kind="stable")[:3])
        data = DemoData(
            folder.images,
            folder.labels,
            folder.class_names,
            strange.images,
            (first, second, third),
            (),
            f"{len(folder.images):,} images in {len(folder.class_names)} classes of "
            f"{Path(images).name}, {len(strange.images):,} anomalies of {Path(anomalies).name}",
        )
    return _smaller(data) if quick else data


def run(data: DemoData, out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
    """Run the demo and write its report.

    Parameters
    ----------
    data : DemoData
        From `load_data`.
    out : Path
        Folder to write to; it exists. ``report.html``, ``metrics.json``, ``labels.csv``,
        ``model.ts``, ``pipeline.ts`` and five pictures are written, over those of an earlier run.
    seed : int, default=0
        Seed of everything random.
    quick : bool, default=False
        Tiny model and one epoch, to see that everything runs.

    Returns
    -------
    dict
        What ``metrics.json`` holds.

    Examples
    --------
    >>> from pathlib import Path
    >>> from ekmfast.demo import load_data, run
    >>> metrics = run(load_data(), Path("demo-out"))  # doctest: +SKIP
    """
    from ekmfast.demo import report

    settings = _QUICK if quick else _Settings()
    out = Path(out)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    print(data.source, flush=True)
    train, held = _split(data.labels, seed)

    with _one_torch_thread():
        plain, augmented, results = _train(data, train, held, settings, seed, seconds)
        exported = max([augmented, plain], key=lambda pair: pair[1])[0]
        with _stage("export, reload, encode", seconds):
            loaded, codes = _export_and_encode(exported, data.images, out / "model.ts")
    with _stage("cluster", seconds):
        draws = {name: _draw(data.labels, data.triple, r, seed) for name, r in RATIOS.items()}
        fits = {name: _cluster_draw(codes, draws[name], seed) for name in RATIOS}
        paths = {name: _path(codes, draws[name], settings, seed) for name in RATIOS}
        others = [_other(codes, data, triple, seed) for triple in data.other_triples]
    with _stage("pictures of the codes", seconds):
        names = [data.class_names[c] for c in data.triple]
        pictures = {
            "sizes": report.sizes_figure(fits, names, out / "sizes.png"),
            "path": report.path_figure(paths, fits, out / "path.png"),
            "tsne": _tsne(codes, draws["20:1:1"], fits["20:1:1"], names, settings, seed, out),
        }
    with _one_torch_thread():
        with _stage("anomalies", seconds):
            anomaly, pictures["anomalies"], pictures["map"] = _anomalies(
                loaded, data, train, held, seed, out
            )
        with _stage("one file of encoder and clusters", seconds):
            pipeline = _pipeline(exported, codes, draws["20:1:1"], data.images, seed, out)
        with _stage("deep clustering without labels", seconds):
            deep = _deep(data.images, draws["2:1:1"], settings, seed)

    seconds["total"] = time.perf_counter() - started
    results |= {
        "clustering": {
            name: {k: f.as_dict() for k, f in row.items()} for name, row in fits.items()
        },
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
    report.write_report(results, pictures, out / "report.html")
    print(f"{seconds['total']:6.1f} s  in all\n{out / 'report.html'}", flush=True)
    return results


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
    print(f"{seconds[name]:6.1f} s  {name}", flush=True)


@contextmanager
def _no_word_of_convergence() -> Iterator[None]:
    """What the report tells in its own words: centroids that coincide or have not settled."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Train on one thread, so that the same seed gives the same model on any number of cores.

    The layers are too small to gain much from more, and threads that wait for each other lose
    several times over where another program wants a core too.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _smaller(data: DemoData) -> DemoData:
    rows = np.sort(
        np.concatenate([np.flatnonzero(data.labels == c)[:40] for c in np.unique(data.labels)])
    )
    return DemoData(
        data.images[rows],
        data.labels[rows],
        data.class_names,
        data.anomalies[:20],
        data.triple,
        data.other_triples[:1],
        data.source + ", of which a few (quick)",
    )


def _split(labels: Labels, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to train on, and rows held out: a share of each class."""
    rng = np.random.default_rng([seed, 0])
    held = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        held[rows[: max(1, round(VALIDATION_SHARE * len(rows)))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _train(
    data: DemoData,
    train: NDArray[np.intp],
    held: NDArray[np.intp],
    settings: _Settings,
    seed: int,
    seconds: dict[str, float],
) -> tuple[tuple[Any, float], tuple[Any, float], dict[str, Any]]:
    """Two finetuned models with their validation accuracies, without and with augmentation."""
    import torch

    from ekmfast.autoencoder import ConvAutoencoder, finetune, pretrain

    valid_images, valid_labels = data.images[held], data.labels[held]
    images, labels = data.images[train], data.labels[train]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = ConvAutoencoder(
            IMAGE_SIZE,
            data.images.shape[1],
            settings.latent_dim,
            len(data.class_names),
            settings.width,
        )
    with _stage("pretrain", seconds):
        first = pretrain(
            model,
            images,
            validation_data=valid_images,
            epochs=settings.pretrain_epochs,
            random_state=seed,
            verbose=0,
        )
    trained = []
    for augment, name in ((None, "finetune"), (True, "finetune with augmentation")):
        tuned = copy.deepcopy(model)
        with _stage(name, seconds):
            history = finetune(
                tuned,
                images,
                labels,
                augment=augment,
                validation_data=(valid_images, valid_labels),
                epochs=settings.finetune_epochs,
                random_state=seed,
                verbose=0,
            )
        assert history.best_accuracy is not None  # there are labels and validation images
        trained.append((tuned, history.best_accuracy))
    results = {
        "pretrain": {"validation_loss": first.best_loss},
        "finetune": {
            "accuracy": trained[0][1],
            "accuracy_augmented": trained[1][1],
            "n_train": len(train),
            "n_validation": len(held),
        },
    }
    return trained[0], trained[1], results


def _export_and_encode(
    model: Any, images: NDArray[np.float32], path: Path
) -> tuple[Any, NDArray[np.float64]]:
    from ekmfast.autoencoder import export, load

    loaded = load(export(model, path))
    return loaded, loaded.encode(images).astype(np.float64)


@dataclass(frozen=True)
class _Draw:
    """Rows of the three classes, and the class of each row: 0, 1 or 2."""

    rows: NDArray[np.intp]
    classes: Labels


def _draw(labels: Labels, triple: tuple[int, ...], ratio: tuple[int, ...], seed: int) -> _Draw:
    """Samples of three classes in a ratio, or as near to it as the classes are large."""
    counts = [int((labels == c).sum()) for c in triple]
    unit = min(c // r for c, r in zip(counts, ratio, strict=True))
    unit = max(1, min(unit, LARGEST // ratio[0]))
    sizes = [min(c, unit * r) for c, r in zip(counts, ratio, strict=True)]
    rng = np.random.default_rng([seed, 1])
    rows = [
        rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(triple, sizes, strict=True)
    ]
    return _Draw(np.concatenate(rows), np.repeat(np.arange(3), sizes))


@dataclass(frozen=True)
class Fit:
    """One clustering of one draw, with its clusters numbered as the classes they match."""

    labels: Labels
    centroids: Codes
    scores: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return self.scores


def _cluster_draw(codes: Codes, draw: _Draw, seed: int) -> dict[str, Fit]:
    """Each method as its users call it, then the formula at other alphas."""
    X = codes[draw.rows]
    fits = {"ekm": _ekm(X, draw, seed), "dvariance": _ekm(X, draw, seed, alpha="dvariance")}
    alpha = fits["dvariance"].scores["alpha"]
    for multiple in MULTIPLES:
        fits[f"ekm_{multiple:g}x"] = _ekm(X, draw, seed, alpha=multiple * alpha)
    for multiple in NAIVE_MULTIPLES:
        # From where the default call ended: the best of starts, and the same for both formulas.
        start = fits["ekm"].centroids
        fits[f"stable_{multiple:g}x"] = _ekm(X, draw, seed, alpha=multiple * alpha, init=start)
        fits[f"naive_{multiple:g}x"] = _naive(X, draw, start, multiple * alpha)
    fits["kmeans"] = _kmeans(X, draw, seed)
    return fits


def _ekm(X: Codes, draw: _Draw, seed: int, **parameters: Any) -> Fit:
    from ekmfast import EKMeans

    model = EKMeans(3, random_state=seed, **parameters)
    # The collapse at 0.1x is what the demo shows; the report tells it from the centroids.
    with _no_word_of_convergence():
        model.fit(X)
    return _scored(
        X,
        draw,
        model.labels_.astype(np.int64),
        model.cluster_centers_,
        alpha=model.alpha_,
        objective=float(model.objective_),
        n_iter=int(model.n_iter_),
        converged=bool(model.converged_),
    )


def _kmeans(X: Codes, draw: _Draw, seed: int) -> Fit:
    from sklearn.cluster import KMeans

    model = KMeans(3, n_init=10, random_state=seed).fit(X)
    return _scored(
        X,
        draw,
        model.labels_.astype(np.int64),
        model.cluster_centers_,
        alpha=None,
        objective=float(model.inertia_) / 2,  # the limit of J for large alpha
        n_iter=int(model.n_iter_),
        converged=bool(model.n_iter_ < model.max_iter),
    )


def _naive(X: Codes, draw: _Draw, start: Codes, alpha: float) -> Fit:
    """The formula without a shift and with 1e-8 in its denominators, from one start."""
    from ekmfast import assign, ekm_statistics
    from ekmfast._reference import naive_update, naive_weights
    from ekmfast.fit.merging import merge_coincident

    centroids, converged, n_iter = start, False, 0
    while not converged and n_iter < 300:
        following = naive_update(X, naive_weights(X, centroids, alpha))
        if not np.isfinite(following).all():
            break
        converged = bool(np.linalg.norm(following - centroids) <= 1e-4 * _radius(X))
        centroids, n_iter = following.astype(np.float64), n_iter + 1

    return _scored(
        X,
        draw,
        # As in EKMeans: centroids in one point are one cluster, not a matter of rounding.
        merge_coincident(centroids, alpha)[assign(X, centroids)[0]].astype(np.int64),
        centroids,
        alpha=alpha,
        objective=float(ekm_statistics(X, centroids, alpha).objective),
        n_iter=n_iter,
        converged=converged,
    )


def _radius(X: Codes) -> float:
    """Root mean square distance from the mean, the yardstick of all distances in the report."""
    return float(np.sqrt(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _scored(X: Codes, draw: _Draw, labels: Labels, centroids: Codes, **facts: Any) -> Fit:
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist, pdist
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    from ekmfast.metrics import cluster_sizes, clustering_accuracy

    # Cluster k becomes the class it shares most samples with: for colours and tables alone.
    table = np.zeros((3, 3), np.int64)
    np.add.at(table, (labels, draw.classes), 1)
    clusters, classes = linear_sum_assignment(table, maximize=True)
    rank = np.empty(3, np.int64)
    rank[clusters] = classes
    labels, centroids = rank[labels], centroids[np.argsort(rank)]

    means = np.stack([X[draw.classes == c].mean(axis=0) for c in range(3)])
    radius = _radius(X)
    scores = facts | {
        "ari": float(adjusted_rand_score(draw.classes, labels)),
        "nmi": float(normalized_mutual_info_score(draw.classes, labels)),
        "accuracy": clustering_accuracy(draw.classes, labels),
        "sizes": cluster_sizes(labels, 3).tolist(),
        "true_sizes": cluster_sizes(draw.classes, 3).tolist(),
        # In units of the codes' root mean square distance from their mean.
        "centroids": {
            "to_origin": (np.linalg.norm(centroids, axis=1) / radius).tolist(),
            "to_each_other": (pdist(centroids) / radius).tolist(),
            "to_class_means": np.diag(cdist(centroids, means) / radius).tolist(),
        },
    }
    return Fit(labels, centroids, scores)


def _path(codes: Codes, draw: _Draw, settings: _Settings, seed: int) -> list[dict[str, float]]:
    """Scores over multiples of the paper's alpha."""
    from sklearn.metrics import adjusted_rand_score

    from ekmfast import alpha_path

    X = codes[draw.rows]
    multiples = np.geomspace(MULTIPLES[0], MULTIPLES[-1], settings.n_alphas)
    dvariance = 2.0 / (_radius(X) ** 2 / 2)
    path = alpha_path(X, 3, multiples * dvariance, random_state=seed)
    return [
        {
            "multiple": float(multiple),
            "alpha": float(path.alphas[i]),
            "ari": float(adjusted_rand_score(draw.classes, path.labels[i])),
            "objective": float(path.objective[i]),
            "mean_objective": float(path.objective[i] / len(X)),
        }
        for i, multiple in enumerate(multiples)
    ]


def _other(codes: Codes, data: DemoData, triple: tuple[int, int, int], seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"classes": [data.class_names[c] for c in triple]}
    for name, ratio in RATIOS.items():
        draw = _draw(data.labels, triple, ratio, seed)
        X = codes[draw.rows]
        row[name] = {
            "ekm": _ekm(X, draw, seed).scores["ari"],
            "dvariance": _ekm(X, draw, seed, alpha="dvariance").scores["ari"],
            "kmeans": _kmeans(X, draw, seed).scores["ari"],
        }
    return row


def _tsne(
    codes: Codes,
    draw: _Draw,
    fits: dict[str, Fit],
    names: list[str],
    settings: _Settings,
    seed: int,
    out: Path,
) -> Path:
    from scipy.spatial.distance import cdist
    from sklearn.manifold import TSNE

    from ekmfast.demo import report

    shown = ["ekm_0.1x", "ekm", "ekm_10x"]
    X = codes[draw.rows]
    centroids = np.concatenate([fits[key].centroids for key in shown])
    # t-SNE pushes equal points apart, so centroids that coincide enter it as one.
    apart = cdist(centroids, centroids) / _radius(X)
    first = (apart < 0.01).argmax(axis=1)
    distinct, inverse = np.unique(first, return_inverse=True)
    plane = TSNE(
        init="pca",
        perplexity=min(30.0, (len(X) - 1) / 4),
        max_iter=settings.tsne_iterations,
        random_state=seed,
    ).fit_transform(np.concatenate([X, centroids[distinct]]).astype(np.float32))
    points, drawn = plane[: len(X)], plane[len(X) :][inverse].reshape(len(shown), 3, 2)
    panels = {key: (fits[key], c) for key, c in zip(shown, drawn, strict=True)}
    return report.tsne_figure(points, draw.classes, panels, names, out / "tsne.png")


def _anomalies(
    model: Any,
    data: DemoData,
    train: NDArray[np.intp],
    held: NDArray[np.intp],
    seed: int,
    out: Path,
) -> tuple[dict[str, Any], Path, Path]:
    """Detectors on held-out and on anomalous images that they have not seen.

    They are fitted to the training images and half of those held out, from which the thresholds
    come, as the model reconstructs better what it was trained on.
    """
    from sklearn.metrics import roc_auc_score

    from ekmfast.anomaly import AutoencoderDetector, reconstruction_loss
    from ekmfast.demo import report

    known = np.concatenate([train, held[::2]])
    normal, strange = data.images[held[1::2]], data.anomalies
    losses = reconstruction_loss(model, normal), reconstruction_loss(model, strange)
    truth = np.repeat([0, 1], [len(normal), len(strange)])
    detectors = {}
    for score in ("reconstruction", "codes", "both"):
        detector = AutoencoderDetector(
            model,
            score=score,
            n_clusters=min(len(data.class_names), len(train)),
            contamination=FALSE_ALARMS,
            random_state=seed,
        )
        with _no_word_of_convergence():
            # Of a quick run's few images.
            warnings.filterwarnings("ignore", r"contamination=\S+ is less than one in")
            detector.fit(data.images[known])
        scored = [-detector.score_samples(part) for part in (normal, strange)]
        detectors[score] = {
            "auc": float(roc_auc_score(truth, np.concatenate(scored))),
            "false_alarms": float((scored[0] > detector.threshold_).mean()),
            "found": float((scored[1] > detector.threshold_).mean()),
        }
    scores = {
        "normal_loss": float(losses[0].mean()),
        "anomaly_loss": float(losses[1].mean()),
        "auc": float(roc_auc_score(truth, np.concatenate(losses))),
        "n_normal": len(normal),
        "n_anomalies": len(strange),
        "contamination": FALSE_ALARMS,
        "detectors": detectors,
    }
    rng = np.random.default_rng([seed, 2])
    shown = [rng.permutation(len(part))[:8] for part in (normal, strange)]
    groups = {}
    for name, part, rows, loss in zip(
        ("normal", "anomalous"), (normal, strange), shown, losses, strict=True
    ):
        groups[name] = (part[rows], model.reconstruct(part[rows]), loss[rows])
    picture = report.reconstruction_figure(groups, losses, out / "anomalies.png")
    some = [np.concatenate([group[i][:4] for group in groups.values()]) for i in (0, 1)]
    return scores, picture, report.map_figure(some[0], some[1], out / "map.png")


def _pipeline(
    model: Any,
    codes: Codes,
    draw: _Draw,
    images: NDArray[np.float32],
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """Encoder and clusters in one file, run by PyTorch alone, against the steps one by one."""
    import torch

    from ekmfast import EKMeans
    from ekmfast.autoencoder import export_pipeline

    clusters = EKMeans(3, random_state=seed)
    with _no_word_of_convergence():
        clusters.fit(codes[draw.rows].astype(np.float32))
    path = export_pipeline(model, clusters, out / "pipeline.ts")
    with warnings.catch_warnings():
        # PyTorch deprecates TorchScript, which C++ programs still read.
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


def _deep(
    images: NDArray[np.float32], draw: _Draw, settings: _Settings, seed: int
) -> dict[str, Any]:
    """Clusters by an encoder that sees no labels, with the equilibrium loss and with hard k-means.

    Both go on from one warm-up.
    """
    from sklearn.metrics import adjusted_rand_score

    from ekmfast.autoencoder import DeepEKM
    from ekmfast.metrics import class_recall

    chosen = images[draw.rows]
    common: dict[str, Any] = {"image_size": 16, "random_state": seed}
    warm = DeepEKM(
        3, width=settings.deep_width, warmup_epochs=settings.deep_warmup, epochs=0, **common
    )
    with _no_word_of_convergence():
        rows = {"the warm-up's codes": warm.fit(chosen)}
        for name, clustering in (("DeepEKM", "equilibrium"), ("deep hard k-means", "hard")):
            rows[name] = DeepEKM(
                3,
                model=warm.autoencoder_,
                clustering=clustering,
                warmup_epochs=0,
                epochs=settings.deep_epochs,
                learning_rate=1e-3,
                **common,
            ).fit(chosen)
    return {
        name: {
            "ari": float(adjusted_rand_score(draw.classes, deep.labels_)),
            "recall": [round(float(v), 4) for v in class_recall(draw.classes, deep.labels_)],
            "n_clusters": int(deep.n_clusters_effective_),
        }
        for name, deep in rows.items()
    }


def _write_labels(
    path: Path, data: DemoData, draws: dict[str, _Draw], fits: dict[str, dict[str, Fit]]
) -> None:
    """One row a clustered image; clusters carry the number of the class they match, 0 to 2."""
    methods = list(next(iter(fits.values())))

    def rows() -> Iterator[list[Any]]:
        for name, draw in draws.items():
            columns = [fits[name][method].labels for method in methods]
            for i, (row, c) in enumerate(zip(draw.rows, draw.classes, strict=True)):
                class_name = data.class_names[data.triple[c]]
                yield [name, row, class_name, c, *(column[i] for column in columns)]

    # Names of folders may hold bytes that are no text; they come back by the same rule.
    header = ["draw", "image", "class_name", "class", *methods]
    write_csv(path, header, rows(), errors="surrogateescape")


def _versions() -> dict[str, str]:
    packages = ("numpy", "scipy", "scikit-learn", "torch", "kornia", "matplotlib")
    versions = {name: version(name) for name in packages}
    return {"ekmfast": __version__, "python": platform.python_version()} | versions
