"""From how many rows a GPU computes a pass faster than the CPU: what ``device="auto"`` must know.

    python bench/device_table.py [--seconds 40] [--out FILE]

For some (K, D) and growing numbers of rows N, the median time of one pass by the CPU with all its
threads, of one pass by the GPU over rows that lie there, and of sending the rows there. The tables
give each time and, for each (K, D), the least N from which the GPU's pass is faster, and the
multiply-adds 2 N K D of such a pass. ``ekmfast.rows.device`` holds what the choice takes from them.
float32; each result is compared with that of the CPU. With EKMFAST_BENCH_SMALL=1 the shapes are
tiny, so that the script can be tried in Numba's simulator.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from records import RESULTS, markdown, write

from ekmfast.rows.array import ArrayRows
from ekmfast.rows.device import GPU_LATENCY, cpu_seconds, cuda_status, describe_card
from ekmfast.rows.threads import get_num_threads

SMALL = os.environ.get("EKMFAST_BENCH_SMALL") == "1"
SHAPES = [(3, 2), (4, 3)] if SMALL else [(3, 2), (8, 8), (16, 32), (64, 128), (256, 128)]
ROWS = [40, 160] if SMALL else [1000 * 4**i for i in range(6)]
ALPHA = 0.5
# Calls of which the median is taken; there are more until the time of the measurement is over.
LEAST, MOST = 3, 50


def median_of(work: Callable[[], Any], budget: float) -> float:
    """The median seconds of calls that take about ``budget`` seconds together."""
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < LEAST or (len(times) < MOST and time.perf_counter() < end):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(n: int, k: int, d: int, budget: float) -> dict[str, Any]:
    """The three times, in milliseconds, for one shape."""
    from numba import cuda

    from ekmfast.rows.cuda.rows import CudaRows

    X = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    C, alpha = X[None, :k].astype(np.float64), np.array([ALPHA])

    def send() -> None:
        cuda.to_device(X)
        cuda.synchronize()

    by_cpu = ArrayRows(X, None, get_num_threads())
    by_gpu = CudaRows(cuda.to_device(X))
    wanted, got = by_cpu.statistics(C, alpha), by_gpu.statistics(C, alpha)  # compiles, too
    for name in ("sum_w", "sum_p"):
        a, b = getattr(got, name), getattr(wanted, name)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max(), err_msg=name)
    times = {
        "cpu_ms": 1e3 * median_of(lambda: by_cpu.statistics(C, alpha), budget / 3),
        "gpu_ms": 1e3 * median_of(lambda: by_gpu.statistics(C, alpha), budget / 3),
        "send_ms": 1e3 * median_of(send, budget / 3),
    }
    return {"n": n, "k": k, "d": d, "multiply_adds": 2 * n * k * d} | times


def crossing(rows: list[dict[str, Any]], k: int, d: int) -> dict[str, Any]:
    """The least N from which the GPU's pass is faster for all measured N; None if there is none.

    ``between`` is an estimate of the N at which both take the same time: log(CPU / GPU) is taken
    to be linear in log N between the last N at which the CPU is faster and the next one.
    """
    own = sorted((row for row in rows if (row["k"], row["d"]) == (k, d)), key=lambda row: row["n"])
    gains = [float(np.log(row["cpu_ms"] / row["gpu_ms"])) for row in own]
    first = len(own)
    while first and gains[first - 1] > 0:
        first -= 1
    found: dict[str, Any] = {"k": k, "d": d, "from": None, "between": None, "multiply_adds": None}
    if first == len(own):
        return found
    n = found["from"] = own[first]["n"]
    found["multiply_adds"] = 2 * n * k * d
    if first:
        before = own[first - 1]["n"]
        share = -gains[first - 1] / (gains[first] - gains[first - 1])
        found["between"] = round(before * (n / before) ** share)
    return found


def report(rows: list[dict[str, Any]], crossings: list[dict[str, Any]], left_out: int) -> str:
    times = markdown(
        ["K, D", "N", "2 N K D", "CPU, ms", "GPU, ms", "CPU / GPU", 'device="auto"',
         "sending X, ms", "passes that repay the sending"],
        [
            [
                f"{row['k']}, {row['d']}",
                f"{row['n']:,}",
                f"{row['multiply_adds']:.2g}",
                f"{row['cpu_ms']:.3g}",
                f"{row['gpu_ms']:.3g}",
                f"{row['cpu_ms'] / row['gpu_ms']:.2g}",
                "GPU" if cpu_seconds(row["multiply_adds"], row["d"]) > GPU_LATENCY else "CPU",
                f"{row['send_ms']:.3g}",
                f"{row['send_ms'] / gain:.2g}"
                if (gain := row["cpu_ms"] - row["gpu_ms"]) > 0
                else "-",
            ]
            for row in rows
        ],
    )  # fmt: skip
    least = markdown(
        ["K, D", "the GPU is faster from N =", "equal at about N =", "2 N K D there"],
        [
            [
                f"{found['k']}, {found['d']}",
                "none measured" if found["from"] is None else f"{found['from']:,}",
                "-" if found["between"] is None else f"{found['between']:,}",
                "-"
                if found["from"] is None
                else f"{2 * (found['between'] or found['from']) * found['k'] * found['d']:.2g}",
            ]
            for found in crossings
        ],
    )
    missing = f"\n\nThe time was over before {left_out} more shapes." if left_out else ""
    return f"{least}\n\n{times}{missing}\n\n{describe_card()}."


def table(seconds: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """All measurements, the crossings, and how many shapes were left out for lack of time."""
    end = time.perf_counter() + seconds
    shapes = [(n, k, d) for n in ROWS for k, d in SHAPES]  # so that large N are left out first
    rows = []
    for i, (n, k, d) in enumerate(shapes):
        left = end - time.perf_counter()
        if left <= 0:
            break
        rows.append(measure(n, k, d, left / (len(shapes) - i) / 2))
        print(json.dumps(rows[-1]), flush=True)
    rows.sort(key=lambda row: (row["k"] * row["d"], row["n"]))
    return rows, [crossing(rows, k, d) for k, d in SHAPES], len(shapes) - len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=40, help="at most, about")
    parser.add_argument("--out", type=Path, default=RESULTS / "device-table")
    options = parser.parse_args()
    if (missing := cuda_status()) is not None:
        sys.exit(f"No GPU can be used here: {missing.rstrip(' .:')}.")
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        sys.path.append(str(Path(__file__).parents[1] / "tests"))
        import simulator

        simulator.patch()
    rows, crossings, left_out = table(options.seconds)
    settings = {
        "seconds": options.seconds,
        "threads": get_num_threads(),
        "card": describe_card(),
        "crossings": crossings,
        "left_out": left_out,
    }
    write(options.out, settings, rows, report(rows, crossings, left_out))


if __name__ == "__main__":
    main()
