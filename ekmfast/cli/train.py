"""Train an autoencoder on a folder of images and export it."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ekmfast.cli import images
from ekmfast.cli.arguments import count, positive, seed
from ekmfast.cli.errors import errors_in_one_line, warnings_in_one_line
from ekmfast.cli.output import asks_for_onnx, check_outputs
from ekmfast.cli.printing import say, say_clusters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train an autoencoder on the images of a folder and export it to a file that needs only\n"
        "PyTorch, or only a runtime of ONNX, to run. If there are two or more sub-folders, they\n"
        "are classes, and the autoencoder is also trained to classify the images."
    )
    parser.epilog = "example:\n  ekmfast train photos/ -o model.ts --image-size 64 --epochs 20"
    images.add_arguments(parser)
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="TorchScript (.ts, up to Python 3.13), torch.export (.pt2), or ONNX (.onnx), which "
        "the other commands do not read",
    )
    parser.add_argument(
        "--image-size",
        type=count,
        default=64,
        metavar="S",
        help="a multiple of 16; default: %(default)s",
    )
    parser.add_argument("--grey", action="store_true", help="one channel instead of three")
    parser.add_argument(
        "--latent-dim",
        type=count,
        default=128,
        metavar="D",
        help="features of the code; default: %(default)s",
    )
    parser.add_argument(
        "--width",
        type=positive,
        default=0.5,
        metavar="W",
        help="factor on the channels; default: %(default)s",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        default=10,
        metavar="N",
        help="number of epochs of each training; default: %(default)s",
    )
    parser.add_argument(
        "--batch-size", type=count, default=128, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=3e-3,
        metavar="R",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--augment", action="store_true", help="train on random variations of the images"
    )
    parser.add_argument(
        "--no-classes", action="store_true", help="do not use sub-folders as classes"
    )
    parser.add_argument(
        "--clusters",
        type=count,
        metavar="K",
        help="cluster the codes, and export clusters and model in one file",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="write the state of the training there after every epoch, and continue from it",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="default: %(default)s")


@errors_in_one_line(FloatingPointError, NotImplementedError)
@warnings_in_one_line()
def run(arguments: argparse.Namespace) -> None:
    from ekmfast import EKMeans
    from ekmfast.autoencoder import (  # before torch: this import explains a missing torch
        ConvAutoencoder,
        encode,
        export,
        export_pipeline,
        finetune,
        load,
        pretrain,
    )
    from ekmfast.autoencoder.torchscript import is_supported, require_torchscript
    from ekmfast.persist.onnx import export_onnx

    import torch  # isort: skip

    out = arguments.out
    is_onnx, is_program = asks_for_onnx(out), out.suffix.lower() == ".pt2"
    if not (is_onnx or is_program):  # before the training
        require_torchscript(f"name the file {out.with_suffix('.pt2')}")

    def checkpoint(name: str) -> Path | None:
        return None if arguments.checkpoint is None else Path(arguments.checkpoint) / name

    check_outputs(out)
    if arguments.checkpoint is not None:
        arguments.checkpoint.mkdir(parents=True, exist_ok=True)
        check_outputs(out, checkpoint("pretrain.pt"), checkpoint("finetune.pt"))
    files = images.open_images(arguments, arguments.image_size, 1 if arguments.grey else 3)
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
    kind: Literal["pt2", "torchscript"] = "pt2" if is_program else "torchscript"
    if arguments.clusters is None:
        if is_onnx:
            export_onnx(model, out)
        else:
            export(model, out, format=kind)
    else:
        clusters = EKMeans(arguments.clusters, random_state=arguments.seed)
        clusters.fit(encode(model, files))
        say_clusters(clusters, np.bincount(clusters.labels_, minlength=arguments.clusters))
        if is_onnx:
            with tempfile.TemporaryDirectory() as folder:
                # Some versions of PyTorch write programs of torch.export that they cannot load.
                name = "model.ts" if is_supported() else "model.pt2"
                export_onnx(load(export_pipeline(model, clusters, Path(folder) / name)), out)
        else:
            export_pipeline(model, clusters, out, format=kind)
    say("model", out)
