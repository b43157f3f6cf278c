"""The table of commands: each is a module, and the line that the help has for it."""

from __future__ import annotations

import argparse
from typing import Protocol

from ekmfast.cli import anomaly, cluster, demo, encode, info, path, train


class Command(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Give the command's parser its arguments and its description."""

    def run(self, arguments: argparse.Namespace) -> None:
        """Do the command's work; it imports only here what takes long to import.

        Options that do not go together raise `argparse.ArgumentError`; what the user can mend is
        raised within `errors.errors_in_one_line`; other errors are faults of the program.
        """


COMMANDS: dict[str, tuple[Command, str]] = {
    "demo": (demo, "train an autoencoder, cluster its codes, find anomalies, write a report"),
    "cluster": (cluster, "cluster the rows of a file"),
    "path": (path, "cluster the rows of a file at many alphas, to choose one"),
    "train": (train, "train an autoencoder on a folder of images and export it"),
    "encode": (encode, "codes, and clusters, of a folder of images"),
    "anomaly": (anomaly, "score the images of a folder by how badly a model reconstructs them"),
    "info": (info, "show version, instruction set, threads and compiler"),
}
