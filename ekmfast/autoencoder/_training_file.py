"""Checkpoints of trainings: files from which an interrupted training continues.

The file has PyTorch's own format, read with ``weights_only=True`` so that it cannot run code,
followed by a digest of it, since PyTorch itself does not verify the checksums of weights. A new
checkpoint is written to a temporary file that then replaces the old one, so the file is complete at
any time.
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
# Parts of a training that are compared by a digest. Error messages do not show it, since a digest
# means nothing to a reader.
DIGESTS = ("images", "labels", "validation_data", "model")


class TrainingFile:
    """The checkpoint of one training; reading the checkpoint of another training is refused.

    ``training`` maps the name of each thing that influences the result to a text; the texts for
    images, models and functions are those of `ekmfast.autoencoder._fingerprint`. The text of the
    model is added here.
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
            except Exception as error:  # PyTorch raises various types for files of other programs
                raise self._foreign() from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise self._foreign()
        self._compare(state)
        # The model may now have the weights that the training reached. Later checkpoints shall
        # still name the weights that it began with.
        self.training = state["training"]
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Put the state into the file."""
        whole = {"format": FORMAT, "training": self.training, "machine": _machine(), **state}
        # PyTorch writes to memory, since its own file writer ends the process on a full disk.
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
            "this version of ekmfast; remove the file to start the training again"
        )

    def _compare(self, state: dict[str, Any]) -> None:
        noted, now = state["training"], self.training
        different = [name for name in (noted | now) if noted.get(name) != now.get(name)]
        # If this training was interrupted or has finished, the model has the weights of its best or
        # its last epoch.
        if "model" in different and now["model"] in [
            of_model(self._model, state[weights]) for weights in ("best", "model")
        ]:
            different.remove("model")
        if different:
            descriptions = [
                "model (its layers, or the weights at the beginning)"
                if name == "model"
                else name
                if name in DIGESTS
                else f"{name} ({noted.get(name)} in the file, {now.get(name)} now)"
                for name in different
            ]
            raise ValueError(
                f"checkpoint={str(self.path)!r}: is of another training, with other "
                f"{', '.join(descriptions)}; remove the file to start the training again"
            )

    def warn_of_other_machine(self, state: dict[str, Any]) -> None:
        """Warn if the continued result will differ by rounding from an uninterrupted one."""
        changed = [
            f"{name} was {then}, is {_machine()[name]}"
            for name, then in state["machine"].items()
            if _machine()[name] != then
        ]
        if changed:
            warnings.warn(
                f"checkpoint={str(self.path)!r}: the training goes on elsewhere than it began "
                f"({'; '.join(changed)}): the result will differ from an uninterrupted one by "
                "rounding",
                stacklevel=4,  # this, train, pretrain, its caller
            )


def _machine() -> dict[str, str]:
    """Properties of the machine that change the result only by rounding."""
    return {"torch": str(torch.__version__), "number of threads": str(torch.get_num_threads())}
