"""Time and memory of a pass over a large file, compared with reading alone and arithmetic alone.

    python bench/out_of_core.py [--gigabytes 4] [--rounds 3] [--threads 2] [--folder DIR]

For each shape, a .npy file of float32 rows is written. Then three things are timed in turns: only
reading the file in blocks; one pass of the statistics over it, by the code of EKMeans; and the
statistics of one block in memory, multiplied by the number of blocks. A pass cannot be faster than
the slower of reading and arithmetic. A cold file is dropped from the page cache before each
measurement; a warm file is read from there.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from records import RESULTS, markdown, write

from ekmfast import blocks
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.blocks.block import BLOCK_BYTES
from ekmfast.rows.blockwise import BlockRows
from ekmfast.rows.source import LocalSource

# Pairs (D, K).
SHAPES = [(8, 3), (32, 16), (128, 64)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="of the file: which disk")
    parser.add_argument("--out", type=Path, default=RESULTS / "out-of-core")
    args = parser.parse_args()
    rows = []
    for n_features, k in SHAPES:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = Path(folder) / "X.npy"
            make(path, int(args.gigabytes * 1e9), n_features)
            for cold in (False, True):
                rows.append(measure(path, k, args, cold=cold))
                print(rows[-1], flush=True)
    settings = {n: v for n, v in vars(args).items() if n not in ("out", "folder")}
    write(args.out, settings, rows, report(rows))
    return 0


def make(path: Path, n_bytes: int, n_features: int) -> None:
    rng = np.random.default_rng(0)
    n_rows = n_bytes // (4 * n_features)
    centres = 4 * rng.normal(size=(8, n_features)).astype(np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, n_features))
    step = BLOCK_BYTES // (4 * n_features)
    for start in range(0, n_rows, step):
        size = min(step, n_rows - start)
        which = rng.choice(8, size, p=np.array([0.6, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01, 0.01]))
        out[start : start + size] = centres[which]
        out[start : start + size] += rng.standard_normal((size, n_features), np.float32)
    out.flush()


def measure(path: Path, k: int, args: argparse.Namespace, *, cold: bool) -> dict[str, Any]:
    data = blocks.from_npy(path)
    first = next(iter(data)).X
    shape = np.load(path, mmap_mode="r").shape
    alpha = np.array([4 / float((0.5 * (first - first.mean(axis=0)) ** 2).sum(axis=1).mean())])
    centroids = first[None, :: len(first) // k][:, :k].astype(np.float64)
    in_memory = ArrayRows(first, None, args.threads)
    rows = BlockRows(LocalSource(data, args.threads), args.threads)
    rows.survey()
    before = peak_memory(reset=True)
    read, passes, arithmetic = [], [], []
    for _ in range(args.rounds):
        read.append(timed(lambda: read_alone(path), path, cold))
        passes.append(timed(lambda: check(rows.statistics(centroids, alpha)), path, cold))
        start = time.perf_counter()
        for _ in range(10):
            in_memory.statistics(centroids, alpha)
        arithmetic.append((time.perf_counter() - start) / 10 * shape[0] / len(first))
    return {
        "n": shape[0],
        "d": shape[1],
        "k": k,
        "cold": cold,
        "bytes": path.stat().st_size,
        "read": read,
        "pass": passes,
        "arithmetic": arithmetic,
        "more_memory": peak_memory() - before,  # for buffers and statistics
    }


def peak_memory(*, reset: bool = False) -> int:
    """Largest memory of this process in bytes, since the last call with ``reset``."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def timed(work: Any, path: Path, cold: bool) -> float:
    if cold:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_alone(path: Path) -> None:
    buffer: NDArray[np.uint8] = np.empty(BLOCK_BYTES, np.uint8)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer.data):
            pass


def check(sums: Any) -> None:
    assert np.isfinite(sums.objective).all()
    assert np.isfinite(sums.sum_wx).all()


def report(rows: list[dict[str, Any]]) -> str:
    table = []
    for row in rows:
        read, one, work = (median(row[name]) for name in ("read", "pass", "arithmetic"))
        bound = [max(a, b) for a, b in zip(row["read"], row["arithmetic"], strict=True)]
        ratio = median(p / b for p, b in zip(row["pass"], bound, strict=True))
        table.append(
            [
                f"{row['n'] / 1e6:.1f}M x {row['d']}, K = {row['k']}",
                "cold" if row["cold"] else "warm",
                f"{row['bytes'] / read / 1e9:.2f}",
                f"{read:.2f}",
                f"{work:.2f}",
                f"{one:.2f} ({min(row['pass']):.2f} .. {max(row['pass']):.2f})",
                f"{ratio:.2f}",
                f"{row['bytes'] / one / 1e9:.2f}",
                f"{read / one:.0%}",
                f"{row['more_memory'] / 2**20:.0f}",
            ]
        )
    head = "rows | cache | GB/s read | s read | s arithmetic | s pass | pass / slower of the two | "
    head += "GB/s pass | of read speed | MiB more memory"
    return markdown([cell.strip() for cell in head.split("|")], table)


if __name__ == "__main__":
    sys.exit(main())
