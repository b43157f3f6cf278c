"""The table of commands, with the module of each and its line in the help."""

from __future__ import annotations

import argparse
from typing import Protocol

from ekmfast.cli import anomaly, cluster, demo, encode, info, path, study, train


class Command(Protocol):
    """The functions that the module of a command has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments and description to its parser."""

    def run(self, arguments: argparse.Namespace) -> None:
        """Execute the command. Slow packages are imported here, so that other commands start fast.

        Options that exclude each other raise `argparse.ArgumentError`. Code whose errors the user
        can correct runs within `errors.errors_in_one_line`. Other errors are bugs of the program,
        which end it with a traceback.
        """


COMMANDS: dict[str, tuple[Command, str]] = {
    "demo": (demo, "train an autoencoder, cluster its codes, find anomalies, write a report"),
    "study": (study, "do what the demo does with the photos of a folder"),
    "cluster": (cluster, "cluster the rows of a file"),
    "path": (path, "cluster the rows of a file at many alphas, to choose one"),
    "train": (train, "train an autoencoder on a folder of images and export it"),
    "encode": (encode, "compute codes, and clusters, of the images of a folder"),
    "anomaly": (anomaly, "score the images of a folder by a model's reconstruction error"),
    "info": (info, "show version, instruction set, threads and compiler"),
}
