"""Write the results of the scripts in bench/: tables, single results, and facts of the machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray

import ekmfast

RESULTS = Path(__file__).parent / "results"


def write(out: Path, settings: dict[str, Any], rows: list[Any], report: str) -> None:
    """Print the report, and write it as Markdown and all rows and facts of the machine as JSON."""
    machine = machine_facts()
    isa, threads = machine["ekmfast"]["isa"], settings.get("threads")
    report += (
        f"\n\n{machine['cpu']}, {machine['cpu_count']} processors, {isa}, {threads} thread(s), "
        f"commit {machine['commit']}{', with changes' if machine['uncommitted'] else ''}."
    )
    print("\n" + report)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(out.name + ".md").write_text(report + "\n")
    out.with_name(out.name + ".json").write_text(as_json(machine, settings, rows))
    print(f"\n{out}.json, {out}.md")


def as_json(machine: dict[str, Any], settings: dict[str, Any], rows: list[Any]) -> str:
    """JSON with one line for each row, so that the diff of two files is readable."""
    head = json.dumps({"machine": machine, "settings": settings}, indent=1)
    lines = ",\n".join(map(json.dumps, rows))
    return f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n'


def machine_facts() -> dict[str, Any]:
    """Facts of the machine that may explain a result or a time; they do not name the host."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if models:
            cpu = models[0].partition(":")[2].strip()
    here = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        if shutil.which("git") is None:
            return ""
        done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True)
        return done.stdout.strip()

    return {
        "cpu": cpu,
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "commit": git("rev-parse", "--short", "HEAD"),
        "uncommitted": bool(git("status", "--porcelain", "--", "ekmfast", "csrc", "bench/*.py")),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "ekmfast": ekmfast.show_config("dict"),
    }


def markdown(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def objective(X: NDArray[Any], centroids: NDArray[Any], alpha: float) -> float:
    """J = sum_n sum_k p_kn d_kn, computed in float64 directly from the formula."""
    total = 0.0
    rows = max(1, 2_000_000 // centroids.size)
    C = np.asarray(centroids, np.float64)
    for start in range(0, len(X), rows):
        part = X[start : start + rows].astype(np.float64)
        d = 0.5 * ((part[:, None, :] - C[None]) ** 2).sum(axis=2)
        p = np.exp(-alpha * (d - d.min(axis=1, keepdims=True)))
        p /= p.sum(axis=1, keepdims=True)
        total += float((p * d).sum())
    return total
