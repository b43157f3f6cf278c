"""Open folders of images, and models, for the commands ``train``, ``encode`` and ``anomaly``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder and the options for reading it; line breaks in descriptions are kept."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "images", type=Path, metavar="IMAGES", help="folder, with or without a sub-folder a class"
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that cannot be read, with a warning, instead of stopping",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the model."""
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help="from train, or from ekmfast.autoencoder.export",
    )


def open_model_and_images(arguments: argparse.Namespace) -> tuple[Any, Any]:
    from ekmfast.autoencoder import load

    model = load(arguments.model)
    return model, open_images(arguments, model.image_size, model.in_channels)


def open_images(
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
