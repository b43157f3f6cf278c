"""The commands that work on folders of images: train, encode, anomaly."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENCODE_SUFFIXES = (".npz", ".npy", ".csv")
ANOMALY_SUFFIXES = (".csv", ".json", ".npz")
# Images of a picture: the worst ones.
SHOWN = 8


def add_parsers(commands: Any, types: Mapping[str, Callable[[str], Any]]) -> None:
    """Add the commands; ``types`` read integers >= 1 (count), seeds and shares from words."""
    images = argparse.ArgumentParser(add_help=False)
    images.add_argument(
        "images", type=Path, metavar="IMAGES", help="folder, with a sub-folder a class or without"
    )
    images.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out, and name, images that cannot be read, instead of stopping at them",
    )
    images.add_argument("--quiet", action="store_true", help="no progress bar")

    def add(name: str, text: str, description: str, example: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(
            name,
            parents=[images],
            help=text,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return parser

    train = add(
        "train",
        "train an autoencoder on a folder of images and export it",
        "Train an autoencoder on the images of a folder and export it to a file that PyTorch\n"
        "alone can run. With two classes (sub-folders) or more, it learns to tell them apart.",
        "ekmfast train photos/ -o model.ts --image-size 64 --epochs 20",
    )
    train.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="TorchScript (.ts), or torch.export (.pt2)",
    )
    train.add_argument(
        "--image-size",
        type=types["count"],
        default=64,
        metavar="S",
        help="a multiple of 16; default: %(default)s",
    )
    train.add_argument("--grey", action="store_true", help="one channel instead of three")
    train.add_argument(
        "--latent-dim",
        type=types["count"],
        default=128,
        metavar="D",
        help="features of the code; default: %(default)s",
    )
    train.add_argument(
        "--width",
        type=types["positive"],
        default=0.5,
        metavar="W",
        help="factor on the channels; default: %(default)s",
    )
    train.add_argument(
        "--epochs",
        type=types["count"],
        default=10,
        metavar="N",
        help="of each training; default: %(default)s",
    )
    train.add_argument(
        "--batch-size", type=types["count"], default=128, metavar="N", help="default: %(default)s"
    )
    train.add_argument(
        "--learning-rate",
        type=types["positive"],
        default=3e-3,
        metavar="R",
        help="default: %(default)s",
    )
    train.add_argument("--augment", action="store_true", help="train on random views")
    train.add_argument("--no-classes", action="store_true", help="pay no heed to sub-folders")
    train.add_argument(
        "--clusters",
        type=types["count"],
        metavar="K",
        help="cluster the codes, and export clusters and model in one file (.ts)",
    )
    train.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="note the state there after every epoch, and go on from it",
    )
    train.add_argument(
        "--seed", type=types["seed"], default=0, metavar="N", help="default: %(default)s"
    )

    encode = add(
        "encode",
        "codes, and clusters, of a folder of images",
        "Write the code of each image of a folder; with a model of `train --clusters`, its\n"
        "cluster and memberships too.",
        "ekmfast encode photos/ -m model.ts -o codes.npz",
    )
    encode.add_argument(
        "-m",
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help="from train, or from ekmfast.autoencoder.export",
    )
    encode.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".npz (codes, paths, and labels and memberships), .npy (the codes, written as they "
        "come: memory stays small), or .csv",
    )
    encode.add_argument(
        "--batch-size", type=types["count"], default=64, metavar="N", help="default: %(default)s"
    )

    anomaly = add(
        "anomaly",
        "score the images of a folder by how badly a model reconstructs them",
        "Score each image by its reconstruction loss: high is abnormal. Outliers are those above\n"
        "the threshold: given; or such that a share --contamination of fresh images like those of\n"
        "--normal lie above it, for which those that the model was trained on are left out (the\n"
        "model knows them); or, without --normal, that share of IMAGES.",
        "ekmfast anomaly photos/ -m model.ts --normal training/ --contamination 0.01 -o scores.csv",
    )
    anomaly.add_argument(
        "-m",
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help="from train, or from ekmfast.autoencoder.export",
    )
    anomaly.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".csv, .json or .npz: path, loss and verdict of each image",
    )
    anomaly.add_argument("--normal", type=Path, metavar="DIR", help="folder of normal images")
    anomaly.add_argument(
        "--contamination",
        type=types["share"],
        default=0.1,
        metavar="C",
        help="a share in (0, 0.5]; default: %(default)s",
    )
    anomaly.add_argument(
        "--threshold", type=types["positive"], metavar="T", help="a reconstruction loss"
    )
    anomaly.add_argument(
        "--plot",
        type=Path,
        metavar="PICTURE",
        help=f"draw the {SHOWN} worst images and where their errors are",
    )
    anomaly.add_argument(
        "--batch-size", type=types["count"], default=64, metavar="N", help="default: %(default)s"
    )


def train(arguments: argparse.Namespace, say: Callable[[str, str], None]) -> None:
    """Train, export, and say how it went."""
    import torch

    from ekmfast import EKMeans
    from ekmfast.autoencoder import (
        ConvAutoencoder,
        encode,
        export,
        export_pipeline,
        finetune,
        pretrain,
    )

    out = _writable(arguments.out)
    if arguments.clusters is not None and out.suffix == ".pt2":
        raise ValueError(f"{out}: clusters go into TorchScript files alone, name it .ts")
    if arguments.checkpoint is not None:
        arguments.checkpoint.mkdir(parents=True, exist_ok=True)
    files = _open(arguments, arguments.image_size, 1 if arguments.grey else 3)
    say("images", f"{len(files)}, {files.channels} x {files.image_size} x {files.image_size}")
    with_classes = len(files.class_names) > 1 and not arguments.no_classes
    if with_classes:
        say("classes", ", ".join(files.class_names))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(arguments.seed)
        model = ConvAutoencoder(
            arguments.image_size,
            files.channels,
            arguments.latent_dim,
            max(1, len(files.class_names)) if with_classes else 1,
            arguments.width,
        )
    options: dict[str, Any] = {
        "augment": arguments.augment,
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
        "random_state": arguments.seed,
        "verbose": 0 if arguments.quiet else 1,
    }

    def checkpoint(name: str) -> Path | None:
        return None if arguments.checkpoint is None else Path(arguments.checkpoint) / name

    history = pretrain(model, files, checkpoint=checkpoint("pretrain.pt"), **options)
    say("pretrain", f"loss {history.best_loss:.6f} in epoch {history.best_epoch + 1}")
    if with_classes:
        history = finetune(model, files, checkpoint=checkpoint("finetune.pt"), **options)
        accuracy = (
            "" if history.best_accuracy is None else f"accuracy {history.best_accuracy:.4f}, "
        )
        say("finetune", f"{accuracy}loss {history.best_loss:.6f} in epoch {history.best_epoch + 1}")
    if arguments.clusters is None:
        export(model, out)
    else:
        clusters = EKMeans(arguments.clusters, random_state=arguments.seed)
        clusters.fit(encode(model, files))
        sizes = np.bincount(clusters.labels_, minlength=arguments.clusters)
        say("sizes", " ".join(map(str, sizes)))
        export_pipeline(model, clusters, out)
    say("model", str(out))


def encode(arguments: argparse.Namespace, say: Callable[[str, str], None]) -> None:
    """Write codes, and clusters where the model has some."""
    from ekmfast.autoencoder import ExportedPipeline

    out = _writable(arguments.out, ENCODE_SUFFIXES)
    model, files = _model_and_images(arguments)
    batch = {"batch_size": arguments.batch_size}
    say("images", f"{len(files)}")
    shape = (len(files), model.latent_dim)
    if out.suffix == ".npy":
        codes = np.lib.format.open_memmap(out, "w+", np.float32, shape)
        model.encode(_shown(files, arguments), out=codes, **batch)
        codes.flush()
    else:
        codes = model.encode(_shown(files, arguments), **batch)
        columns: dict[str, Any] = {"path": np.array([str(path) for path in files.paths])}
        if isinstance(model, ExportedPipeline):
            columns["label"] = model.predict(files, **batch)
            columns["membership"] = model.membership(files, **batch)
        if out.suffix == ".npz":
            np.savez(out, codes=codes, **columns)
        else:
            labels = {name: columns[name] for name in ("path", "label") if name in columns}
            header = [*labels, *(f"z{i}" for i in range(model.latent_dim))]
            rows = zip(*labels.values(), strict=True)
            _write_csv(out, header, ([*row, *z] for row, z in zip(rows, codes, strict=True)))
    say("codes", f"{shape[0]} x {shape[1]} to {out}")


def anomaly(arguments: argparse.Namespace, say: Callable[[str, str], None]) -> None:
    """Write losses and verdicts."""
    out = _writable(arguments.out, ANOMALY_SUFFIXES)
    model, files = _model_and_images(arguments)
    batch = {"batch_size": arguments.batch_size}
    losses = model.anomaly_loss(_shown(files, arguments), **batch)
    threshold = arguments.threshold
    if threshold is None:
        if arguments.normal is None:
            threshold = float(np.quantile(losses, 1 - arguments.contamination))
        else:
            normal = _open(arguments, model.image_size, model.in_channels, arguments.normal)
            threshold = _threshold(model, normal, arguments.contamination)
    outliers = losses > threshold
    say("images", f"{len(files)}")
    say("threshold", f"{threshold:.6g}")
    say("outliers", f"{int(outliers.sum())}")
    names = [str(path) for path in files.paths]
    if out.suffix == ".npz":
        np.savez(out, path=np.array(names), loss=losses, outlier=outliers, threshold=threshold)
    elif out.suffix == ".json":
        images = [
            {"path": name, "loss": float(loss), "outlier": bool(outlier)}
            for name, loss, outlier in zip(names, losses, outliers, strict=True)
        ]
        skipped = [str(path) for path in files.skipped]
        found = {"threshold": threshold, "images": images, "skipped": skipped}
        out.write_text(json.dumps(found, indent=1) + "\n")
    else:
        rows = zip(names, losses, outliers.astype(int), strict=True)
        _write_csv(out, ["path", "loss", "outlier"], rows)
    say("scores", str(out))
    if arguments.plot is not None:
        from ekmfast.plotting import plot_anomaly_map

        worst = files.__getitems__(np.argsort(-losses, kind="stable")[:SHOWN].tolist())
        axes = plot_anomaly_map(worst, model.reconstruct(worst))
        axes[0, 0].figure.savefig(arguments.plot, dpi=150)
        say("picture", str(arguments.plot))


def _threshold(model: Any, normal: Any, contamination: float) -> float:
    """Loss above which a share of fresh normal images lies, from those not trained on."""
    from ekmfast.anomaly import AutoencoderDetector

    return AutoencoderDetector(model, contamination=contamination).fit(normal).threshold_


def _model_and_images(arguments: argparse.Namespace) -> tuple[Any, Any]:
    from ekmfast.autoencoder import load

    model = load(arguments.model)
    return model, _open(arguments, model.image_size, model.in_channels)


def _open(
    arguments: argparse.Namespace, size: int, channels: int, folder: Path | None = None
) -> Any:
    from ekmfast.datasets import open_image_folder

    if channels not in (1, 3):
        raise ValueError(f"the model takes {channels} channels: only 1 or 3 can be read from files")
    return open_image_folder(
        arguments.images if folder is None else folder,
        size,
        channels=1 if channels == 1 else 3,
        on_error="skip" if arguments.skip_unreadable else "raise",
    )


class _Shown:
    """Images that move a progress bar as they are read."""

    def __init__(self, files: Any, bar: Any) -> None:
        self.files, self.bar = files, bar
        self.image_size, self.channels = files.image_size, files.channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> NDArray[Any]:
        image: NDArray[Any] = self.files[i]
        return image

    def __getitems__(self, rows: Sequence[int]) -> NDArray[Any]:
        images: NDArray[Any] = self.files.__getitems__(rows)
        self.bar.update(len(images))
        if self.bar.n >= len(self.files):
            self.bar.close()
        return images


def _shown(files: Any, arguments: argparse.Namespace) -> Any:
    if arguments.quiet:
        return files
    from ekmfast._optional import require

    tqdm: Any = require("tqdm", "torch").tqdm
    return _Shown(files, tqdm(total=len(files), desc=arguments.command, unit="image"))


def _writable(path: Path, suffixes: tuple[str, ...] = ()) -> Path:
    """Refuse before the work what could not be written after it."""
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{path}: the name must end in one of {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such folder {str(path.parent)!r}")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder")
    return path


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
