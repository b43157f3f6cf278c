"""Where a training is, kept in a file, so that one that was killed goes on from there.

The file is PyTorch's own format, read with ``weights_only=True``: it can run no code. It is
written beside its place and put there whole, so it is always a whole one: the last or the one
before.
"""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ekmfast._files import replace_file

FORMAT = "ekmfast training 1"
# Images that are looked at to tell one training from another.
LOOKED_AT = 16


class TrainingFile:
    """The file of one training; that of another is refused.

    ``training`` are the settings, ``images`` and ``labels`` the data that make it what it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        training: dict[str, Any],
        images: Any,
        labels: torch.Tensor | None,
    ) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"checkpoint={str(path)!r}: the folder {self.path.parent} does not exist"
            )
        if self.path.is_dir():
            raise IsADirectoryError(f"checkpoint={str(path)!r}: is a folder")
        rows = np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).round().astype(np.intp))
        digest = hashlib.sha256(repr((sorted(training.items()), len(images))).encode())
        digest.update(images.batch(rows, torch.device("cpu")).numpy().tobytes())
        if labels is not None:
            digest.update(labels.numpy().tobytes())
        self.training = digest.hexdigest()

    def read(self) -> dict[str, Any] | None:
        """The state that the file holds, on the CPU; None where there is no file."""
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
            raise ValueError(f"checkpoint={str(self.path)!r}: is not readable") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError(
                f"checkpoint={str(self.path)!r}: is not a checkpoint of a training by ekmfast"
            )
        if state["training"] != self.training:
            raise ValueError(
                f"checkpoint={str(self.path)!r}: is of another training: other images, labels, "
                "parameters or random_state; remove the file to begin anew"
            )
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Put the state into the file."""
        whole = {"format": FORMAT, "training": self.training, **state}
        # To memory first: where the disk is full, PyTorch's own writer ends the process.
        buffer = io.BytesIO()
        torch.save(whole, buffer)

        def fill(file: IO[bytes]) -> None:
            file.write(buffer.getbuffer())

        replace_file(self.path, fill)
