"""Predict the seconds of a pass on clusters of machines, by a model with measured constants.

    python bench/scaling_model.py

The script reads results/dask-overhead.json and results/out-of-core.json, and prints the tables of
docs/scaling.md. A pass for S problems with K clusters on N float32 rows of D features in B blocks
takes

    max(arithmetic, reading) + latency + B * task + reduction
    arithmetic = S * N * second_per_row / cores
    reading    = 4 * N * D / (nodes * bandwidth)     (0 where the blocks are in memory)
    reduction  = levels * 8 * S * K * D / network,   levels = log16(B)

Measured are second_per_row (on one core, for K = 8 and D = 16), latency, task and bandwidth.
Assumed are 16 cores in a node, each as fast as the measured one when all are busy; a network of 1
GB/s; and a scheduler as fast as the measured one.
"""

from __future__ import annotations

import json
import math
import sys
from statistics import median

from records import RESULTS, markdown

CORES = 16
NETWORK = 1e9
K, D = 8, 16
ARITY = 16
ROW_BYTES = 4 * D


def main() -> int:
    overhead = json.loads((RESULTS / "dask-overhead.json").read_text())
    reading = json.loads((RESULTS / "out-of-core.json").read_text())
    local = [row for row in overhead["rows"] if row["workers"] == 1 and row["block_rows"] > 1e5]
    per_row = median(median(row["local"]) / row["blocks"] / row["block_rows"] for row in local)
    latency, task, _ = overhead["settings"]["models"]["2"]
    disk = median(row["bytes"] / median(row["read"]) for row in reading["rows"] if row["cold"])
    print(
        f"{1e9 * per_row:.1f} ns a row and core, {1e3 * latency:.0f} ms a pass, "
        f"{1e3 * task:.2f} ms a block, {disk / 1e9:.1f} GB/s from a disk\n"
    )

    def seconds(n_rows: float, nodes: int, block_bytes: float, problems: int, files: bool) -> str:
        blocks = math.ceil(n_rows * ROW_BYTES / block_bytes)
        parts = {
            "arithmetic": problems * n_rows * per_row / (nodes * CORES),
            "reading": n_rows * ROW_BYTES / (nodes * disk) if files else 0.0,
            "tasks": latency + blocks * task,
            "reduction": math.log(max(blocks, 2), ARITY) * 8 * problems * K * D / NETWORK,
        }
        total = max(parts["arithmetic"], parts["reading"]) + parts["tasks"] + parts["reduction"]
        most = max(parts, key=lambda name: parts[name])
        return f"{total:.3g} ({most})"

    for problems in (1, 16):
        table = []
        for n_rows in (1e9, 1e10, 1e11):
            for block_bytes in (256e6, 2e9):
                row = [f"{n_rows:.0e}", f"{block_bytes / 1e6:,.0f} MB"]
                for files in (False, True):
                    for nodes in (1, 10, 100):
                        cell = seconds(n_rows, nodes, block_bytes, problems, files)
                        fits = n_rows * ROW_BYTES <= nodes * 200e9
                        row.append(cell if files or fits else "")
                table.append(row)
        head = ["rows", "blocks of"]
        head += [f"memory, {n} node(s)" for n in (1, 10, 100)]
        head += [f"files, {n} node(s)" for n in (1, 10, 100)]
        print(f"Seconds of a pass, {problems} problem(s):\n\n{markdown(head, table)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
