"""Study the photos of a folder: train, classify, cluster, find anomalies, and write a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ekmfast.cli.arguments import count, seed
from ekmfast.cli.errors import errors_in_one_line, warnings_in_one_line

LEAST_SHARES = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Train an autoencoder on your photos and write a report on them: how well the classes are\n"
        "told apart, with and without augmentation; the clusters of the codes of three classes,\n"
        "at the alpha that gives the wanted sizes and at others; and whether anomalous photos are\n"
        "recognized by their reconstruction. If PHOTOS has no sub-folders, there are no classes,\n"
        "and all photos are clustered. An interrupted study continues if it is called again."
    )
    parser.epilog = "example:\n  ekmfast study photos/ --anomalies faces/ --classes cat,dog,owl"
    parser.add_argument(
        "photos", type=Path, metavar="PHOTOS", help="folder, with or without a sub-folder a class"
    )
    parser.add_argument("--anomalies", type=Path, metavar="DIR", help="anomalous photos")
    parser.add_argument(
        "--out", type=Path, default=Path("study-out"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--classes",
        type=_names,
        metavar="A,B,C",
        help="the three classes to cluster, the large one first; default: those with most photos",
    )
    parser.add_argument(
        "--shares",
        type=_shares,
        default=(2, 1, 1),
        metavar="A:B:C",
        help="wanted shares of the clusters, and number of clusters if there are no classes; "
        "default: 2:1:1",
    )
    parser.add_argument(
        "--image-size",
        type=count,
        metavar="S",
        help="a multiple of 16; default: 64, or 32 if the photos are small",
    )
    colours = parser.add_mutually_exclusive_group()
    colours.add_argument("--grey", action="store_true", default=None, help="one channel")
    colours.add_argument(
        "--colour",
        action="store_false",
        dest="grey",
        default=None,
        help="three channels; default: one if all photos are grey",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="train the full model with a code of 1,024 features, which takes much longer",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        metavar="N",
        help="epochs of each training; default: 8 to 60, by the number of photos",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out photos that cannot be read, with a warning, instead of stopping",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use few photos and one epoch, to test that everything runs; results mean nothing",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _shares(text: str) -> tuple[int, ...]:
    parts = text.split(":")
    if len(parts) < LEAST_SHARES or not all(p.isascii() and p.isdigit() and int(p) for p in parts):
        raise argparse.ArgumentTypeError(
            f"must be positive whole numbers such as 2:1:1, got {text!r}"
        )
    return tuple(map(int, parts))


@errors_in_one_line(FloatingPointError)
@warnings_in_one_line()
def run(arguments: argparse.Namespace) -> None:
    from ekmfast import study

    study.check_requirements()
    out = arguments.out.resolve()
    for folder in (arguments.photos, arguments.anomalies):
        if folder is not None and out.is_relative_to(folder.resolve()):
            raise ValueError(
                f"--out {arguments.out}: must not be in {folder}, or its pictures would be studied"
            )
    data = study.load_photos(
        arguments.photos,
        arguments.anomalies,
        image_size=arguments.image_size,
        grey=arguments.grey,
        classes=arguments.classes,
        skip_unreadable=arguments.skip_unreadable,
        quick=arguments.quick,
    )
    if data.triple is not None and len(arguments.shares) != len(data.triple):
        shares = ":".join(map(str, arguments.shares))
        raise ValueError(f"--shares {shares}: must be three, one for each class to cluster")
    if len(arguments.shares) > len(data.images):
        raise ValueError(
            f"--shares: must be at most {len(data.images)} numbers, one for each photo, got "
            f"{len(arguments.shares)}"
        )
    settings = study.for_photos(
        len(data.images),
        data.images.shape[-1],
        arguments.shares,
        full=arguments.full,
        epochs=arguments.epochs,
        quick=arguments.quick,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        study.run(
            data,
            arguments.out,
            settings=settings,
            seed=arguments.seed,
            title=f"A study of {arguments.photos.resolve().name}",
            quick=arguments.quick,
            states=True,
            one_thread=False,
            quiet=arguments.quiet,
        )
    except KeyboardInterrupt:
        print("ekmfast: the same command continues this study", file=sys.stderr)
        raise
