"""Where a long fit is, kept in a file, so that one that was killed goes on from there.

The file is a NumPy archive of arrays, without pickle. It is written beside its place and put there
whole, so at any moment it is a whole one: the last or the one before.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._files import replace_file
from ._solver import Run

FORMAT = "ekmfast checkpoint 1"
# What a run holds but for its arrays; all are numbers or booleans.
PLAIN = (
    "alpha",
    "objective",
    "size",
    "n_halvings",
    "n_jumps",
    "jumping",
    "held",
    "least",
    "n_still",
    "n_iter",
    "converged",
    "given_up",
    "done",
)


class Checkpoint:
    """Writes the runs of one fit every so many passes, when called as the solver's ``report``.

    ``fit`` are the arrays that make a fit what it is: a file of another fit is refused.
    """

    def __init__(
        self,
        path: Path,
        every: int,
        *,
        fit: Sequence[NDArray[Any]],
        report: Callable[[list[Run]], bool] | None,
    ) -> None:
        self.path = path
        self.every = every
        self.report = report
        self.n_passes = 0
        digest = hashlib.sha256()
        for array in fit:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        self.fit = digest.hexdigest()

    def __call__(self, runs: list[Run]) -> bool:
        self.n_passes += 1
        stop = self.report is not None and self.report(runs)
        if stop or self.n_passes % self.every == 0 or all(run.done for run in runs):
            self.write(runs)
        return stop

    def write(self, runs: list[Run]) -> None:
        """Put the runs into the file."""
        arrays: dict[str, NDArray[Any]] = {}
        plain = []
        for i, run in enumerate(runs):
            plain.append({name: getattr(run, name) for name in PLAIN})
            arrays[f"{i}.centroids"] = run.centroids
            arrays[f"{i}.history"] = np.array(run.history)
            for name in ("step", "leap"):
                if (value := getattr(run, name)) is not None:
                    arrays[f"{i}.{name}"] = value
            if run.past:
                arrays[f"{i}.past"] = np.array(run.past)
        header = {"format": FORMAT, "fit": self.fit, "n_passes": self.n_passes, "runs": plain}
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)

        def fill(file: Any) -> None:
            np.savez(file, allow_pickle=False, **arrays)

        replace_file(self.path, fill)

    def read(self) -> list[Run] | None:
        """The runs that the file holds; None where there is no file."""
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']!r}, not {FORMAT!r}")
            runs = [_run(arrays, i, plain) for i, plain in enumerate(header["runs"])]
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"checkpoint {self.path} cannot be read: {error}") from error
        if header["fit"] != self.fit:
            raise ValueError(
                f"checkpoint {self.path} is of another fit: other data, parameters or random_state;"
                " remove the file to begin anew"
            )
        self.n_passes = header["n_passes"]
        return runs


def _run(arrays: dict[str, NDArray[Any]], i: int, plain: dict[str, Any]) -> Run:
    run = Run(arrays[f"{i}.centroids"], plain["alpha"])
    for name in PLAIN:
        setattr(run, name, plain[name])
    run.history = arrays[f"{i}.history"].tolist()
    run.step, run.leap = arrays.get(f"{i}.step"), arrays.get(f"{i}.leap")
    run.past = deque((c, g) for c, g in arrays.get(f"{i}.past", ()))
    return run
