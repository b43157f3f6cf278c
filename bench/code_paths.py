"""What each code path of the C++ kernels gains: kernels without it take its place, in turns.

    python bench/code_paths.py [--only NAME ...] [--isa avx2] [--rounds 3] [--out FILE]

`csrc/kernels/tuning.h` lists the paths that exist for speed alone. For each, the extension is built
into a temporary folder without it (`-DEKMFAST_WITHOUT=name`), and all builds are loaded into this
one process. On every shape that a path serves, the full build, a copy of the full build, and the
builds without a path take turns; each result is compared with that of the full build. A round's
ratio is the shortest time without the path over the shortest time with it. The copy shows how far
a ratio is from 1 where nothing differs. A gain counts if the least ratio of all rounds has it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.machinery
import importlib.util
import itertools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from records import RESULTS, markdown, write

import ekmfast

ROOT = Path(__file__).resolve().parent.parent
TUNING = ROOT / "csrc" / "kernels" / "tuning.h"
FULL, COPY = "none", "copy"
# A gain below this does not pay for code that has to be read.
WORTH = 1.05
# Seconds for the turns of one case in one round, and repetitions at least.
BUDGET, LEAST = 0.1, 3


@dataclass(frozen=True)
class Case:
    """One call of the extension. `sharpness` is a factor on the dvariance alpha at scale 2."""

    function: str
    n: int
    k: int
    d: int
    problems: int = 1
    sharpness: float = 1.0
    weighting: str = "equilibrium"

    def __str__(self) -> str:
        n = f"{self.n // 1000}k" if self.n >= 10_000 else str(self.n)
        name = f"{self.function} {n} x {self.k} x {self.d}"
        if self.problems > 1:
            name += f", {self.problems} problems"
        if self.sharpness > 1:
            name += f", alpha x {self.sharpness:g}"
        return name + ("" if self.weighting == "equilibrium" else f", {self.weighting}")


PLANE = Case("statistics", 1_000_000, 3, 2)
SMALL = Case("statistics", 1_000_000, 8, 8)
MIDDLE = Case("statistics", 200_000, 16, 32)
WIDE = Case("statistics", 100_000, 64, 128)
LONG = Case("statistics", 50_000, 3, 1024)
MANY = Case("statistics", 50_000, 512, 128)
DIGITS = Case("statistics", 1797, 10, 64)
IRIS = Case("statistics", 150, 3, 4)
CODES = Case("statistics", 20_000, 8, 16)
EMBEDDED = Case("statistics", 20_000, 10, 768)
PAGES = Case("statistics", 20_000, 10, 1024)
EMBEDDINGS = Case("statistics", 20_000, 100, 768)
MANY_PAGES = Case("statistics", 20_000, 100, 1024)
MANY_EMBEDDINGS = Case("statistics", 20_000, 500, 512)
LONG_256 = Case("statistics", 200_000, 3, 256)
LONG_768 = Case("statistics", 50_000, 4, 768)
STARTS = Case("statistics", 100_000, 3, 2, problems=16)
SEARCH = Case("statistics", 20_000, 5, 10, problems=176)
IRIS_SEARCH = Case("statistics", 150, 3, 4, problems=176)
DIGITS_SEARCH = Case("statistics", 1797, 10, 64, problems=16)
SHARP_WIDE = Case("statistics", 100_000, 64, 128, sharpness=300)
SHARP_MANY = Case("statistics", 50_000, 512, 128, sharpness=300)
SHARP_UNEVEN = Case("statistics", 100_000, 40, 50, sharpness=300)
HARD_PLANE = Case("statistics", 1_000_000, 3, 2, weighting="hard")
HARD_WIDE = Case("statistics", 100_000, 64, 128, weighting="hard")
FUZZY = Case("statistics", 200_000, 16, 32, weighting="fuzzy")
ASSIGN_PLANE = Case("assign", 1_000_000, 3, 2)
ASSIGN_SMALL = Case("assign", 1_000_000, 8, 8)
ASSIGN_WIDE = Case("assign", 100_000, 64, 128)
ASSIGN_LONG = Case("assign", 50_000, 3, 1024)
CLOSEST_PLANE = Case("closest", 1_000_000, 3, 2, problems=16)
CLOSEST_SMALL = Case("closest", 1_000_000, 4, 8)
CLOSEST_WIDE = Case("closest", 100_000, 6, 128, problems=4)
WEIGHTS_PLANE = Case("weights", 1_000_000, 3, 2)
WEIGHTS_SMALL = Case("weights", 1_000_000, 8, 8)
WEIGHTS_MIDDLE = Case("weights", 200_000, 16, 32)
WEIGHTS_LONG = Case("weights", 50_000, 3, 1024)
SUMS_PLANE = Case("accumulate", 1_000_000, 3, 2)
SUMS_WIDE = Case("accumulate", 100_000, 64, 128)
SUMS_MIDDLE = Case("accumulate", 200_000, 16, 32)
SUMS_LONG = Case("accumulate", 50_000, 3, 1024)

FROM_MEMORY = [SMALL, MIDDLE, WIDE, EMBEDDED]
CASES: dict[str, list[Case]] = {
    "tiny": [PLANE, STARTS],
    "tiny_slice": [STARTS],
    "dots": [LONG, LONG_256, LONG_768, ASSIGN_LONG, WEIGHTS_LONG],
    "dot_rows": [LONG, LONG_256, LONG_768, ASSIGN_LONG],
    "short_rows": [SMALL, IRIS, SEARCH, ASSIGN_PLANE, ASSIGN_SMALL, CLOSEST_PLANE, CLOSEST_SMALL],
    "very_short": [
        IRIS,
        IRIS_SEARCH,
        HARD_PLANE,
        ASSIGN_PLANE,
        CLOSEST_PLANE,
        WEIGHTS_PLANE,
        SUMS_PLANE,
    ],
    "shuffles": [PLANE, SMALL, IRIS, ASSIGN_PLANE, ASSIGN_SMALL, WEIGHTS_PLANE, CLOSEST_SMALL],
    "unpack": [WEIGHTS_PLANE, WEIGHTS_SMALL, WEIGHTS_MIDDLE, WEIGHTS_LONG],
    "prefetch_panels": [*FROM_MEMORY, ASSIGN_PLANE, ASSIGN_SMALL, ASSIGN_WIDE, CLOSEST_WIDE],
    "prefetch_spread": [*FROM_MEMORY, ASSIGN_SMALL, ASSIGN_WIDE, CLOSEST_WIDE],
    "prefetch_pack": [WIDE, PAGES, EMBEDDINGS, EMBEDDED, DIGITS, ASSIGN_WIDE, CLOSEST_WIDE],
    "prefetch_dots": [LONG, ASSIGN_LONG],
    "prefetch_product": [LONG, SUMS_LONG, SUMS_WIDE, SUMS_MIDDLE],
    "parts": [SMALL, CODES, MIDDLE, WIDE, MANY, DIGITS, EMBEDDED, SEARCH],
    "parts_l1": [SMALL, CODES, MIDDLE, WIDE, DIGITS, SEARCH],
    "row_product": [MIDDLE, WIDE, DIGITS],
    "lane_product": [SMALL, CODES, IRIS, SEARCH],
    "in_place": [MIDDLE, WIDE, LONG, DIGITS, EMBEDDED],
    "copies": [MANY, EMBEDDINGS, MANY_PAGES, MANY_EMBEDDINGS],
    "vector_pairs": [MIDDLE],
    "gather": [SHARP_UNEVEN, SHARP_WIDE, SHARP_MANY, HARD_WIDE],
    "given_rows": [SUMS_WIDE, SUMS_MIDDLE, SUMS_LONG],
    "short_columns": [SUMS_PLANE, SUMS_LONG],
    "lookup": [PLANE, SMALL, MIDDLE, STARTS, SEARCH, WEIGHTS_SMALL],
    "shared_panels": [SEARCH, IRIS_SEARCH, DIGITS_SEARCH],
    "reciprocal": [FUZZY],
    "distance_sums": [ASSIGN_LONG, ASSIGN_WIDE],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--isa", default=ekmfast.show_config("dict")["isa"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--builds", type=Path, help="folder in which builds are kept and reused")
    parser.add_argument("--out", type=Path, default=RESULTS / "code-paths")
    args = parser.parse_args()
    if set(CASES) != listed():
        sys.exit(f"paths of tuning.h without a case, or the reverse: {set(CASES) ^ listed()}")
    ekmfast._core.set_isa(args.isa)  # for the record, and what makes weights for `accumulate`
    with contextlib.ExitStack() as stack:
        folder = args.builds or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cores = load_all(folder, args.only, args.isa)
        rows = list(measure(cores, args))
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "builds")}
    write(args.out, settings, rows, report(rows, args))
    return 0


def listed() -> set[str]:
    """Name the paths that tuning.h lists."""
    text = TUNING.read_text()
    body = text[text.index("enum class Path") : text.index("#ifndef EKMFAST_WITHOUT")]
    return set(re.findall(r"^  (\w+)(?=,)", body, re.MULTILINE)) - {FULL}


# ---------------------------------------------------------------------------------------------
# Builds


def load_all(folder: Path, paths: list[str], isa: str) -> dict[str, Any]:
    """Build what is missing in the folder; the extension by the path that it lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    with mock.patch("setuptools.setup"), contextlib.chdir(ROOT):
        settings = runpy.run_path("setup.py")
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")[0]
    includes = [*settings["core"].include_dirs, sysconfig.get_path("include")]
    common = [compiler, "-std=c++17", "-fPIC", *settings["CXXFLAGS"], "-DNDEBUG"]
    common += [f"-I{ROOT / path}" for path in includes]
    kernels, tables = settings["KERNELS"], dict(settings["ISA_TABLE"])

    def compile_one(source: str, name: str, *flags: str) -> Path:
        out = folder / f"{name}.o"
        if not out.exists():
            subprocess.run([*common, *flags, "-c", ROOT / source, "-o", out], check=True)
        return out

    # Only the kernels of the instruction set that is timed differ.
    jobs = [(source, Path(source).stem) for source in settings["core"].sources]
    jobs += [(kernels, name, *flags) for name, flags in tables.items() if name != isa]
    variants = [
        (kernels, f"{isa}-{path}", *tables[isa], f"-DEKMFAST_WITHOUT={path}")
        for path in [FULL, *paths]
    ]
    print(f"building {len(variants)} variants", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda job: compile_one(*job), jobs + variants))
    cores = {}
    for path, own in zip([FULL, *paths], objects[len(jobs) :], strict=True):
        library = folder / f"{isa}-{path}.so"
        command = [compiler, "-shared", "-pthread", *objects[: len(jobs)], own, "-o", library]
        subprocess.run(command, check=True)
        cores[path] = load(library, isa)
    copy = folder / f"{isa}-{COPY}.so"
    shutil.copyfile(folder / f"{isa}-{FULL}.so", copy)
    cores[COPY] = load(copy, isa)
    return cores


def load(library: Path, isa: str) -> Any:
    # pybind11 makes a module once for each full name; PyInit is looked up by the last part of it.
    name = f"{library.stem}._core"
    loader = importlib.machinery.ExtensionFileLoader(name, str(library))
    spec = importlib.util.spec_from_file_location(name, library, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert module.__file__ == str(library)
    module.set_isa(isa)
    return module


# ---------------------------------------------------------------------------------------------
# Cases


def call_of(case: Case, dtype: str) -> Callable[[Any, int], list[NDArray[Any]]]:
    """Make the data; call(core, n_threads) returns what must agree between builds."""
    rng = np.random.default_rng(0)
    means = (
        1.5 * rng.standard_normal((case.k, case.d), np.float32) * np.float32((2 / case.d) ** 0.5)
    )
    sizes = 1 / np.arange(1, case.k + 1)
    labels = rng.choice(case.k, case.n, p=sizes / sizes.sum())
    X = (rng.standard_normal((case.n, case.d), np.float32) + means[labels]).astype(dtype)
    scale = 1 / (0.5 * X.var(axis=0, dtype=np.float64).sum())
    alpha = np.full(case.problems, 2 * scale * case.sharpness)
    shifts = 0.1 * rng.standard_normal((case.problems, case.k, case.d))
    centroids = means[None] + shifts / case.d**0.5

    if case.function == "statistics":

        def statistics(core: Any, n_threads: int) -> list[NDArray[Any]]:
            sums = core.statistics(
                X, centroids, alpha, None, None, n_threads, weighting=case.weighting
            )
            return [*sums[:3], sums[4]]

        return statistics
    if case.function == "closest":
        start = np.full((case.problems, case.n), np.inf, X.dtype)
        first = np.repeat(X[None, :1].astype(np.float64), case.problems, axis=0)
        ekmfast._core.closest(X, first, start, None, None, 1, update=True)
        return lambda core, n_threads: [
            core.closest(X, centroids, start, None, None, n_threads, update=False)
        ]
    if case.function == "assign":
        nearest, squared = np.empty(case.n, np.int32), np.empty(case.n, X.dtype)

        def assign(core: Any, n_threads: int) -> list[NDArray[Any]]:
            core.assign(X, centroids[0], nearest, squared, n_threads)
            return [squared]

        return assign
    weights = np.empty((case.n, case.k), X.dtype)
    if case.function == "weights":

        def all_weights(core: Any, n_threads: int) -> list[NDArray[Any]]:
            core.weights(X, centroids[0], float(alpha[0]), weights, n_threads)
            return [weights]

        return all_weights
    ekmfast._core.weights(X, centroids[0], float(alpha[0]), weights, 1)
    return lambda core, n_threads: list(core.accumulate(X, weights, n_threads)[:2])


def check(
    case: Case, dtype: str, path: str, found: list[NDArray[Any]], full: list[NDArray[Any]]
) -> None:
    # With large alpha a rounded distance moves a membership by alpha times the rounding.
    tolerance = (1e-5 if dtype == "float32" else 1e-12) * case.sharpness
    for one, other in zip(found, full, strict=True):
        np.testing.assert_allclose(
            one, other, rtol=0, atol=tolerance * np.abs(other).max(), err_msg=f"{case}, {path}"
        )


# ---------------------------------------------------------------------------------------------
# Times


def measure(cores: dict[str, Any], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each path, case, dtype and number of threads: the ratio of each round."""
    paths_of: dict[Case, list[str]] = {}
    for path in args.only:
        for case in CASES[path]:
            paths_of.setdefault(case, []).append(path)
    for (case, paths), dtype in itertools.product(paths_of.items(), args.dtypes):
        call = call_of(case, dtype)
        full = [np.array(values) for values in call(cores[FULL], 1)]
        for path in paths:
            check(case, dtype, path, call(cores[path], 1), full)
        for threads in args.threads:
            names = [FULL, COPY, *paths]
            rounds = [
                turns([cores[name] for name in names], call, threads) for _ in range(args.rounds)
            ]
            milliseconds = 1e3 * min(times[0] for times in rounds)
            row = {"case": str(case), "dtype": dtype, "threads": threads, "ms": milliseconds}
            for i, name in enumerate(names[1:], 1):
                ratios = [times[i] / times[0] for times in rounds]
                yield {"path": name, **row, "ratios": ratios}
            print(f"{case} {dtype} {threads}: {milliseconds:.3g} ms", flush=True)


def turns(cores: list[Any], call: Callable[[Any, int], Any], threads: int) -> list[float]:
    """Return the shortest time of each, all in turns, each time from another one on."""
    repeats, shortest = 1, [np.inf] * len(cores)
    for core in cores:
        call(core, threads)
    start = time.perf_counter()
    call(cores[0], threads)
    repeats = max(1, round(3e-4 / (time.perf_counter() - start)))
    begin = time.perf_counter()
    for turn in itertools.count():
        for i in range(len(cores)):
            at = (i + turn) % len(cores)
            start = time.perf_counter()
            for _ in range(repeats):
                call(cores[at], threads)
            shortest[at] = min(shortest[at], (time.perf_counter() - start) / repeats)
        if turn + 1 >= LEAST and time.perf_counter() - begin > BUDGET:
            return shortest
    raise AssertionError


def report(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """Each path with its best case, then all cases."""
    best = []
    for path in [COPY, *args.only]:
        mine = [row for row in rows if row["path"] == path]
        row = max(mine, key=lambda row: min(row["ratios"]))
        kept = "" if path == COPY else "yes" if min(row["ratios"]) >= WORTH else "**no**"
        best.append([path, *described(row), kept])
    header = ["without", "case", "dtype", "threads", "ms with", "time without / with"]
    everything = [[row["path"], *described(row)] for row in sorted(rows, key=order)]
    return (
        f"Ratios: the least and the most of {args.rounds} rounds. `{COPY}` is the full build a "
        "second time.\n\n## Where each path gains most\n\n"
        + markdown([*header, f"at least {WORTH:g}"], best)
        + "\n\n## All cases\n\n"
        + markdown(header, everything)
    )


def described(row: dict[str, Any]) -> list[Any]:
    ratios = f"{min(row['ratios']):.2f} .. {max(row['ratios']):.2f}"
    return [row["case"], row["dtype"], row["threads"], f"{row['ms']:.3g}", ratios]


def order(row: dict[str, Any]) -> tuple[str, float]:
    return row["path"], -min(row["ratios"])


if __name__ == "__main__":
    sys.exit(main())
