"""Score the images of a folder by a model's reconstruction error."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ekmfast._files import write_csv
from ekmfast.cli import images
from ekmfast.cli.arguments import count, positive, share
from ekmfast.cli.errors import errors_in_one_line, warnings_in_one_line
from ekmfast.cli.output import (
    check_names,
    check_outputs,
    check_suffix,
    text_path,
    write_arrays,
    write_figure,
    write_json,
)
from ekmfast.cli.printing import say
from ekmfast.cli.progress import with_progress

SUFFIXES = (".csv", ".json", ".npz")
# Number of images in the picture, those with the largest losses.
SHOWN = 8
CONTAMINATION = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Score each image by its reconstruction loss, which is high for abnormal images. Images\n"
        "above the threshold are outliers. The threshold is given by --threshold, or chosen so\n"
        "that a share --contamination of new images like those of --normal lies above it (images\n"
        "that the model was trained on are left out), or, without --normal, so that this share of\n"
        "IMAGES lies above it."
    )
    parser.epilog = (
        "example:\n"
        "  ekmfast anomaly photos/ -m model.ts --normal training/ --contamination 0.01"
        " -o scores.csv"
    )
    images.add_arguments(parser)
    images.add_model(parser)
    parser.add_argument(
        "-o",
        "--out",
        type=text_path,
        required=True,
        metavar="FILE",
        help=".csv, .json or .npz: path, loss and verdict of each image; - for .csv to stdout",
    )
    parser.add_argument("--normal", type=Path, metavar="DIR", help="folder of normal images")
    parser.add_argument(
        "--contamination",
        type=share,
        metavar="C",
        help=f"a share in (0, 0.5]; default: {CONTAMINATION}",
    )
    parser.add_argument("--threshold", type=positive, metavar="T", help="a reconstruction loss")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PICTURE",
        help=f"draw the {SHOWN} worst images and where their errors are",
    )
    parser.add_argument(
        "--batch-size", type=count, default=64, metavar="N", help="default: %(default)s"
    )


@errors_in_one_line(FloatingPointError, NotImplementedError)
@warnings_in_one_line()
def run(arguments: argparse.Namespace) -> None:
    if arguments.threshold is not None:
        for option in ("normal", "contamination"):
            if getattr(arguments, option) is not None:
                raise argparse.ArgumentError(
                    None, f"--{option} has no effect with --threshold: give one of them"
                )
    if arguments.contamination is None:
        arguments.contamination = CONTAMINATION
    out = arguments.out
    suffix = check_suffix(out, SUFFIXES)
    is_text = suffix != ".npz"
    check_outputs(
        None if is_text else out,
        texts=[out if is_text else None],
        plot=arguments.plot,
        inputs=[arguments.model],
    )
    model, files = images.open_model_and_images(arguments)
    names = [str(path) for path in files.paths]
    if suffix == ".csv":
        check_names(names, out)
    if arguments.plot is not None:
        check_outputs(plot=arguments.plot, inputs=files.paths)
    batch = {"batch_size": arguments.batch_size}
    threshold = arguments.threshold
    normal_files = None
    if threshold is None and arguments.normal is not None:
        normal_files = images.open_images(
            arguments, model.image_size, model.in_channels, arguments.normal
        )
        if len(normal_files) < 2:
            raise ValueError(
                f"{arguments.normal}: {len(normal_files)} image, at least 2 are needed for a "
                "threshold"
            )
    losses = model.anomaly_loss(with_progress(files, arguments), **batch)
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
        verdicts = [
            {"path": name, "loss": float(loss), "outlier": bool(outlier)}
            for name, loss, outlier in zip(names, losses, outliers, strict=True)
        ]
        skipped = [str(path) for path in files.skipped]
        write_json(out, {"threshold": threshold, "images": verdicts, "skipped": skipped})
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
    """Loss above which a share of new normal images lies; training images are not used for it."""
    from ekmfast.anomaly import AutoencoderDetector
    from ekmfast.autoencoder.seen import trained_on

    detector = AutoencoderDetector(model, contamination=arguments.contamination)
    detector._scored_at_once = arguments.batch_size
    # A further pass compares the images with those of the training.
    passes = 2 if len(trained_on(model)) else 1
    threshold: float = detector.fit(with_progress(normal, arguments, passes)).threshold_
    return threshold
