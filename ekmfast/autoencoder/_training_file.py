"""Where a training is, kept in a file, so that one that was killed goes on from there.

The file is PyTorch's own format, read with ``weights_only=True`` (it can run no code), and a
digest of all that behind it, since PyTorch itself does not look at the checksums of weights. It is
written beside its place and put there whole, so it is always a whole one: the last or the one
before.
"""

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from ekmfast._files import check_output, replace_file
from ekmfast.autoencoder._fingerprint import of_model
from ekmfast.autoencoder.model import ConvAutoencoder

FORMAT = "ekmfast training 2"
MARK = b"\nsha256 "
# What is told by a digest alone, which says nothing to a reader.
DIGESTS = ("images", "labels", "validation_data", "model")


class TrainingFile:
    """The file of one training; that of another is refused.

    ``training`` is all that makes it what it is, in words; `ekmfast.autoencoder._fingerprint` has
    those for images, models and functions. The model's own are added here.
    """

    def __init__(self, path: Path, training: Mapping[str, str], model: ConvAutoencoder) -> None:
        self.path = path
        check_output(self.path)
        self.training = {**training, "model": of_model(model)}
        self._model = model

    def read(self) -> dict[str, Any] | None:
        """The state that the file holds, on the CPU; None where there is no file."""
        if not self.path.exists():
            return None
        content, _, digest = self.path.read_bytes().rpartition(MARK)
        state: Any = None
        if hashlib.sha256(content).hexdigest().encode() == digest:
            try:
                state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            except Exception as error:  # whatever PyTorch makes of a foreign archive
                raise self._foreign() from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise self._foreign()
        self._compare(state)
        # It began with the weights that it began with, whichever the model has now.
        self.training = state["training"]
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Put the state into the file."""
        whole = {"format": FORMAT, "training": self.training, "machine": _machine(), **state}
        # To memory first: where the disk is full, PyTorch's own writer ends the process.
        buffer = io.BytesIO()
        torch.save(whole, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest().encode()

        def fill(file: IO[bytes]) -> None:
            file.write(buffer.getbuffer())
            file.write(MARK + digest)

        replace_file(self.path, fill)

    def _foreign(self) -> ValueError:
        return ValueError(
            f"checkpoint={str(self.path)!r}: is damaged, or is not a checkpoint of a training by "
            "this version of ekmfast; remove the file to begin anew"
        )

    def _compare(self, state: dict[str, Any]) -> None:
        noted, now = state["training"], self.training
        different = [name for name in (noted | now) if noted.get(name) != now.get(name)]
        # A training that was interrupted, or is done, has left its own weights in the model.
        if "model" in different and now["model"] in [
            of_model(self._model, state[weights]) for weights in ("best", "model")
        ]:
            different.remove("model")
        if different:
            told = [
                "model (its layers, or the weights at the beginning)"
                if name == "model"
                else name
                if name in DIGESTS
                else f"{name} ({noted.get(name)} in the file, {now.get(name)} now)"
                for name in different
            ]
            raise ValueError(
                f"checkpoint={str(self.path)!r}: is of another training, with other "
                f"{', '.join(told)}; remove the file to begin anew"
            )

    def tell_of_changes(self, state: dict[str, Any]) -> None:
        """Warn of what will make the result another one than that of one run."""
        changed = [
            f"{name} was {then}, is {_machine()[name]}"
            for name, then in state["machine"].items()
            if _machine()[name] != then
        ]
        if changed:
            warnings.warn(
                f"checkpoint={str(self.path)!r}: goes on elsewhere than it began "
                f"({'; '.join(changed)}): the result differs from that of one run by rounding",
                stacklevel=4,  # this, train, pretrain, its caller
            )


def _machine() -> dict[str, str]:
    """What changes the rounding alone."""
    return {"torch": str(torch.__version__), "number of threads": str(torch.get_num_threads())}
