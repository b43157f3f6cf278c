"""Write the codes of the images of a folder, and their clusters if the model has clusters."""

from __future__ import annotations

import argparse
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import replace_file, write_csv
from ekmfast.cli import images
from ekmfast.cli.arguments import count
from ekmfast.cli.errors import errors_in_one_line, warnings_in_one_line
from ekmfast.cli.output import (
    check_names,
    check_outputs,
    check_suffix,
    map_rows,
    text_path,
    write_arrays,
)
from ekmfast.cli.printing import say
from ekmfast.cli.progress import with_progress

SUFFIXES = (".npz", ".npy", ".csv")
# Number of codes whose distances are in memory at a time.
ROWS_AT_ONCE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the code of each image of a folder. With a model of `train --clusters`, also\n"
        "write its cluster and memberships."
    )
    parser.epilog = "example:\n  ekmfast encode photos/ -m model.ts -o codes.npz"
    images.add_arguments(parser)
    images.add_model(parser)
    parser.add_argument(
        "-o",
        "--out",
        type=text_path,
        required=True,
        metavar="FILE",
        help=".npz (codes, paths, labels and memberships), .npy (only codes, each batch written "
        "at once, so that memory stays small), or .csv; - for text to stdout",
    )
    parser.add_argument(
        "--batch-size", type=count, default=64, metavar="N", help="default: %(default)s"
    )


@errors_in_one_line(FloatingPointError, NotImplementedError)
@warnings_in_one_line()
def run(arguments: argparse.Namespace) -> None:
    from ekmfast.autoencoder import ExportedPipeline

    out = arguments.out
    suffix = check_suffix(out, SUFFIXES)
    is_text = suffix == ".csv"
    check_outputs(
        None if is_text else out, texts=[out if is_text else None], inputs=[arguments.model]
    )
    model, files = images.open_model_and_images(arguments)
    names = [str(path) for path in files.paths]
    if is_text:
        check_names(names, out)
    say("images", len(files))
    shape = (len(files), model.latent_dim)

    def codes_into(rows: Any = None) -> Any:
        return model.encode(
            with_progress(files, arguments), out=rows, batch_size=arguments.batch_size
        )

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
    """Labels and memberships of codes, equal to those that the model computes from the images."""
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
