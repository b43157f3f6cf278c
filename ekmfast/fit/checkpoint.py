"""Where a long fit is, kept in a file, so that one that was killed goes on from there.

The file is a NumPy archive of arrays, without pickle. It is written beside its place and put there
whole, so at any moment it is a whole one: the last or the one before. A digest of all that it holds
tells a damaged file, and everything that shapes a fit's result is in it, by name: a file of another
fit is refused, and the refusal says what differs.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import check_output, replace_file
from ekmfast.fit.solver import Run, Runs

FORMAT = "ekmfast checkpoint 2"
# Of ekmfast 0.1.0: it did not say which estimator had written it.
OLD_FORMAT = "ekmfast checkpoint 1"
ANEW = "remove the file to begin anew"
# The array that holds the digest of the others.
DIGEST = "digest"
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

    ``fit`` names what makes a fit what it is. Strings and numbers are kept as they are, of an array
    the beginning of its digest.
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
            self.write(runs)
        return stop

    def end(self, runs: Runs) -> None:
        """Keep also the last passes of a fit that its ``max_iter`` has stopped."""
        if self.n_passes % self.interval and runs.n_going:
            self.write(runs)

    def write(self, runs: Runs) -> None:
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
        arrays[DIGEST] = np.frombuffer(_digest(arrays), np.uint8)

        def fill(file: Any) -> None:
            np.savez(file, allow_pickle=False, **arrays)

        replace_file(self.path, fill)

    def read(self, max_iter: int) -> list[Run] | None:
        """The runs that the file holds, of ``max_iter`` passes at most; None where there is none.

        Raises
        ------
        ValueError
            If the file is damaged, of another format or of another fit, or if it is further than
            this fit may go.
        """
        if not self.path.exists():
            return None
        with self.path.open("rb") as file:
            try:
                header, runs = _parse(file)
            # What a damaged archive raises is legion: zlib's and zipfile's errors, OSError for a
            # seek to nowhere, NotImplementedError for a compression that there is not.
            except Exception as error:
                raise ValueError(
                    f"checkpoint {self.path} cannot be read: {type(error).__name__}: {error}; "
                    f"{ANEW}"
                ) from error
        differences = [
            f"{name} ({header['fit'].get(name)!r} there, {self.fit.get(name)!r} here)"
            for name in dict.fromkeys([*self.fit, *header["fit"]])
            if header["fit"].get(name) != self.fit.get(name)
        ]
        if differences:
            raise ValueError(
                f"checkpoint {self.path} is of another fit: it differs in {', '.join(differences)};"
                f" {ANEW}"
            )
        n_iter = max(run.n_iter for run in runs)
        if n_iter > max_iter:
            raise ValueError(
                f"checkpoint {self.path} is at pass {n_iter}, beyond max_iter={max_iter}: raise "
                f"max_iter, or {ANEW}"
            )
        self.n_passes = header["n_passes"]
        return runs


def check_writable(path: Path) -> None:
    """Refuse a place where no file can be written, before there is anything to write."""
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


def _parse(file: Any) -> tuple[dict[str, Any], list[Run]]:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is not a whole NumPy archive")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    if header["format"] == OLD_FORMAT:
        raise ValueError(
            "it was written by ekmfast 0.1.0, which did not keep what tells an estimator's file "
            "from another's"
        )
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']!r}, not {FORMAT!r}")
    if arrays.pop(DIGEST).tobytes() != _digest(arrays):
        raise ValueError("its contents are not those that were written")
    return header, [_run(arrays, i, plain) for i, plain in enumerate(header["runs"])]


def _run(arrays: dict[str, NDArray[Any]], i: int, plain: dict[str, Any]) -> Run:
    run = Run(arrays[f"{i}.centroids"], plain["alpha"])
    for name in PLAIN:
        setattr(run, name, plain[name])
    run.history = arrays[f"{i}.history"].tolist()
    run.step, run.leap = arrays.get(f"{i}.step"), arrays.get(f"{i}.leap")
    run.past = [(c, g) for c, g in arrays.get(f"{i}.past", ())]
    return run
