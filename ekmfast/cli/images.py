"""The commands that work on folders of images: train, encode, anomaly."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import replace_file, write_csv
from ekmfast.cli.output import (
    check_names,
    check_outputs,
    check_suffix,
    map_rows,
    say,
    say_clusters,
    text_path,
    write_arrays,
    write_figure,
    write_json,
)

ENCODE_SUFFIXES = (".npz", ".npy", ".csv")
ANOMALY_SUFFIXES = (".csv", ".json", ".npz")
# Codes whose distances are in memory at once.
ROWS_AT_ONCE = 4096
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
        type=text_path,
        required=True,
        metavar="FILE",
        help=".npz (codes, paths, and labels and memberships), .npy (the codes, written as they "
        "come: memory stays small), or .csv; - for text to stdout",
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
        type=text_path,
        required=True,
        metavar="FILE",
        help=".csv, .json or .npz: path, loss and verdict of each image; - for .csv to stdout",
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


def train(arguments: argparse.Namespace) -> None:
    """Train, export, and say how it went."""
    from ekmfast import EKMeans
    from ekmfast.autoencoder import (  # before torch, whose absence it explains
        ConvAutoencoder,
        encode,
        export,
        export_pipeline,
        finetune,
        pretrain,
    )

    import torch  # isort: skip

    out = arguments.out
    is_program = out.suffix.lower() == ".pt2"
    if arguments.clusters is not None and is_program:
        raise ValueError(f"{out}: clusters go into TorchScript files alone, name it .ts")

    def checkpoint(name: str) -> Path | None:
        return None if arguments.checkpoint is None else Path(arguments.checkpoint) / name

    check_outputs(out)
    if arguments.checkpoint is not None:
        arguments.checkpoint.mkdir(parents=True, exist_ok=True)
        check_outputs(out, checkpoint("pretrain.pt"), checkpoint("finetune.pt"))
    files = _open(arguments, arguments.image_size, 1 if arguments.grey else 3)
    if arguments.clusters is not None and len(files) < arguments.clusters:
        raise ValueError(f"{arguments.images}: {len(files)} images, fewer than --clusters")
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
    history = pretrain(model, files, checkpoint=checkpoint("pretrain.pt"), **options)
    say("pretrain", f"loss {history.best_loss:.6f} in epoch {history.best_epoch + 1}")
    if with_classes:
        history = finetune(model, files, checkpoint=checkpoint("finetune.pt"), **options)
        accuracy = (
            "" if history.best_accuracy is None else f"accuracy {history.best_accuracy:.4f}, "
        )
        say("finetune", f"{accuracy}loss {history.best_loss:.6f} in epoch {history.best_epoch + 1}")
    if arguments.clusters is None:
        export(model, out, format="pt2" if is_program else "torchscript")
    else:
        clusters = EKMeans(arguments.clusters, random_state=arguments.seed)
        clusters.fit(encode(model, files))
        say_clusters(clusters, np.bincount(clusters.labels_, minlength=arguments.clusters))
        export_pipeline(model, clusters, out)
    say("model", out)


def encode(arguments: argparse.Namespace) -> None:
    """Write codes, and clusters where the model has some."""
    from ekmfast.autoencoder import ExportedPipeline

    out = arguments.out
    suffix = check_suffix(out, ENCODE_SUFFIXES)
    is_text = suffix == ".csv"
    check_outputs(
        None if is_text else out, texts=[out if is_text else None], inputs=[arguments.model]
    )
    model, files = _model_and_images(arguments)
    names = [str(path) for path in files.paths]
    if is_text:
        check_names(names, out)
    say("images", len(files))
    shape = (len(files), model.latent_dim)

    def codes_into(rows: Any = None) -> Any:
        return model.encode(_shown(files, arguments), out=rows, batch_size=arguments.batch_size)

    if suffix == ".npy":

        def fill(file: IO[bytes]) -> None:
            codes_into(map_rows(file, out, shape)).flush()

        replace_file(out, fill)
    else:
        codes = codes_into()
        columns: dict[str, Any] = {"path": names}
        if isinstance(model, ExportedPipeline):
            columns["label"], columns["membership"] = _clusters(model, codes)
        if is_text:
            columns.pop("membership", None)
            header = [*columns, *(f"z{i}" for i in range(model.latent_dim))]
            rows = zip(*columns.values(), strict=True)
            write_csv(out, header, ([*row, *z] for row, z in zip(rows, codes, strict=True)))
        else:
            write_arrays(out, {"codes": codes, **columns})
    say("codes", f"{shape[0]} x {shape[1]} to {out}")


def _clusters(model: Any, codes: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and memberships of codes, as the model gives them for the images."""
    import torch

    labels = np.empty(len(codes), np.int32)
    memberships = np.empty((len(codes), model.n_clusters), np.float32)
    module = model._module
    with torch.inference_mode():
        for start in range(0, len(codes), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            d2 = module.squared_distances(torch.from_numpy(codes[rows]).to(model.device))
            labels[rows] = module.labels_of(d2).cpu().numpy()
            memberships[rows] = module.memberships_of(d2).cpu().numpy()
    return labels, memberships


def anomaly(arguments: argparse.Namespace) -> None:
    """Write losses and verdicts."""
    out = arguments.out
    suffix = check_suffix(out, ANOMALY_SUFFIXES)
    is_text = suffix != ".npz"
    check_outputs(
        None if is_text else out,
        texts=[out if is_text else None],
        plot=arguments.plot,
        inputs=[arguments.model],
    )
    model, files = _model_and_images(arguments)
    names = [str(path) for path in files.paths]
    if suffix == ".csv":
        check_names(names, out)
    if arguments.plot is not None:
        check_outputs(plot=arguments.plot, inputs=files.paths)
    batch = {"batch_size": arguments.batch_size}
    threshold = arguments.threshold
    normal_files = None
    if threshold is None and arguments.normal is not None:
        normal_files = _open(arguments, model.image_size, model.in_channels, arguments.normal)
        if len(normal_files) < 2:
            raise ValueError(
                f"{arguments.normal}: {len(normal_files)} image, at least 2 are needed for a "
                "threshold"
            )
    losses = model.anomaly_loss(_shown(files, arguments), **batch)
    if threshold is None:
        if normal_files is None:
            threshold = float(np.quantile(losses, 1 - arguments.contamination))
        else:
            threshold = _threshold(model, normal_files, arguments)
    outliers = losses > threshold
    say("images", len(files))
    say("threshold", f"{threshold:.6g}")
    say("outliers", int(outliers.sum()))
    if suffix == ".npz":
        write_arrays(
            out, {"path": names, "loss": losses, "outlier": outliers, "threshold": threshold}
        )
    elif suffix == ".json":
        images = [
            {"path": name, "loss": float(loss), "outlier": bool(outlier)}
            for name, loss, outlier in zip(names, losses, outliers, strict=True)
        ]
        skipped = [str(path) for path in files.skipped]
        write_json(out, {"threshold": threshold, "images": images, "skipped": skipped})
    else:
        rows = zip(names, losses, outliers.astype(int), strict=True)
        write_csv(out, ["path", "loss", "outlier"], rows)
    say("scores", out)
    if arguments.plot is not None:
        from ekmfast.plotting import plot_anomaly_map

        worst = files.__getitems__(np.argsort(-losses, kind="stable")[:SHOWN].tolist())
        axes = plot_anomaly_map(worst, model.reconstruct(worst))
        write_figure(arguments.plot, axes[0, 0].figure)
        say("picture", arguments.plot)


def _threshold(model: Any, normal: Any, arguments: argparse.Namespace) -> float:
    """Loss above which a share of fresh normal images lies, from those not trained on."""
    from ekmfast.anomaly import AutoencoderDetector
    from ekmfast.autoencoder.seen import trained_on

    detector = AutoencoderDetector(model, contamination=arguments.contamination)
    detector._scored_at_once = arguments.batch_size
    # Read once more where they are compared with the images of the training.
    passes = 2 if len(trained_on(model)) else 1
    threshold: float = detector.fit(_shown(normal, arguments, passes)).threshold_
    return threshold


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
        if self.bar.n >= self.bar.total:
            self.bar.close()
        return images


def _shown(files: Any, arguments: argparse.Namespace, passes: int = 1) -> Any:
    if arguments.quiet:
        return files
    from ekmfast._optional import require

    tqdm: Any = require("tqdm", "torch").tqdm
    return _Shown(files, tqdm(total=passes * len(files), desc=arguments.command, unit="image"))
