"""Checkpoints: the state of a long fit in a file, from which an interrupted fit is continued.

The file is a NumPy archive of arrays, without pickle. It is written under a temporary name in the
same folder and then renamed, so that at any moment the file is complete: it is the last checkpoint
or the one before it. A digest of the contents detects a damaged file. The file also names
everything that determines the result of the fit. The checkpoint of another fit is refused with an
error that says what differs.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import check_output, replace_file
from ekmfast.fit.solver import Runs, WholeRun

FORMAT = "ekmfast checkpoint 2"
# The format of ekmfast 0.1.0, which does not say which estimator wrote the file.
OLD_FORMAT = "ekmfast checkpoint 1"
REMOVE = "remove the file to start the fit again"
# The array that holds the digest of the others.
DIGEST = "digest"
# The fields of a run that are numbers or booleans; the others are arrays.
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
    """Writes the runs of one fit after every ``interval`` passes, as the solver's ``report``.

    ``fit`` holds by name everything that determines the result of the fit. The file stores strings
    and numbers as they are, and of an array the first digits of its digest.
    """

    def __init__(
        self,
        path: Path,
        interval: int,
        *,
        fit: Mapping[str, str | float | NDArray[Any]],
        report: Callable[[Runs], bool] | None,
    ) -> None:
        self.path = path
        self.interval = interval
        self.report = report
        self.n_passes = 0
        self.fit = {
            name: _digest({name: value}).hex()[:16] if isinstance(value, np.ndarray) else value
            for name, value in fit.items()
        }

    def __call__(self, runs: Runs) -> bool:
        self.n_passes += 1
        stop = self.report is not None and self.report(runs)
        if stop or self.n_passes % self.interval == 0 or not runs.n_going:
            self.write(runs.wholes())
        return stop

    def end(self, runs: Runs) -> None:
        """Write the last passes of a fit that was stopped by ``max_iter``."""
        if self.n_passes % self.interval and runs.n_going:
            self.write(runs.wholes())

    def write(self, runs: Iterable[WholeRun]) -> None:
        """Write the runs into the file."""
        arrays: dict[str, Any] = {}
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
        arrays[DIGEST] = np.frombuffer(_digest(arrays), np.uint8)

        def fill(file: Any) -> None:
            np.savez(file, **arrays)  # all hold numbers; NumPy 2.0 has no allow_pickle here

        replace_file(self.path, fill)

    def read(self, max_iter: int) -> list[WholeRun] | None:
        """The runs in the file, of at most ``max_iter`` passes; None if there is no file.

        Raises
        ------
        ValueError
            If the file is damaged, if it has another format or belongs to another fit, or if its
            runs have had more than ``max_iter`` passes.
        """
        if not self.path.exists():
            return None
        with self.path.open("rb") as file:
            try:
                header, runs = _parse(file)
            # A damaged archive can raise errors of many classes: those of zlib and zipfile, OSError
            # for a position outside the file, NotImplementedError for an unknown compression.
            except Exception as error:
                raise ValueError(
                    f"checkpoint {self.path} cannot be read: {type(error).__name__}: {error}; "
                    f"{REMOVE}"
                ) from error
        differences = [
            f"{name} ({header['fit'].get(name)!r} in the file, {self.fit.get(name)!r} in this fit)"
            for name in dict.fromkeys([*self.fit, *header["fit"]])
            if header["fit"].get(name) != self.fit.get(name)
        ]
        if differences:
            raise ValueError(
                f"checkpoint {self.path} belongs to another fit: it differs in "
                f"{', '.join(differences)}; {REMOVE}"
            )
        n_iter = max(run.n_iter for run in runs)
        if n_iter > max_iter:
            raise ValueError(
                f"checkpoint {self.path} is at pass {n_iter}, beyond max_iter={max_iter}: raise "
                f"max_iter, or {REMOVE}"
            )
        self.n_passes = header["n_passes"]
        return runs


def check_writable(path: Path) -> None:
    """Raise OSError at once if no file can be written to this path."""
    try:
        check_output(path)
    except OSError as error:
        told = f"checkpoint={str(path)!r}: no file can be written there: {error.strerror}"
        raise OSError(error.errno, told) from None


def _digest(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """SHA-256 of names, dtypes, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.digest()


def _parse(file: Any) -> tuple[dict[str, Any], list[WholeRun]]:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is not a complete NumPy archive")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    if header["format"] == OLD_FORMAT:
        raise ValueError(
            "it was written by ekmfast 0.1.0, whose files do not say which estimator they belong to"
        )
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']!r}, not {FORMAT!r}")
    if arrays.pop(DIGEST).tobytes() != _digest(arrays):
        raise ValueError("its contents are not those that were written")
    return header, [_run(arrays, i, plain) for i, plain in enumerate(header["runs"])]


def _run(arrays: dict[str, NDArray[Any]], i: int, plain: dict[str, Any]) -> WholeRun:
    run = WholeRun(arrays[f"{i}.centroids"], plain["alpha"])
    for name in PLAIN:
        setattr(run, name, plain[name])
    run.history = arrays[f"{i}.history"].tolist()
    run.step, run.leap = arrays.get(f"{i}.step"), arrays.get(f"{i}.leap")
    run.past = [(c, g) for c, g in arrays.get(f"{i}.past", ())]
    return run
