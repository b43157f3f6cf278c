"""Tables and pictures of ``make bench``: ``python bench/kernel_report.py NAME [JSON ...]``.

The script reads pytest-benchmark's JSON (default results/latest.json), and writes
results/kernels-NAME.{json,md} and the pictures results/kernels-NAME-{peers,roofline}.png. If
several JSON files contain a benchmark, the last one counts; each row names its commit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from records import RESULTS, machine_facts, markdown

from ekmfast.plotting import new_figure

Row = dict[str, Any]


def main(name: str, sources: list[Path]) -> None:
    """Read the files of pytest-benchmark, and write the tables and pictures."""
    latest: dict[str, Row] = {}
    for source in sources:
        run = json.loads(source.read_text())
        commit = run["commit_info"]["id"][:7]
        latest |= {b["fullname"]: condensed(b) | {"commit": commit} for b in run["benchmarks"]}
    rows = list(latest.values())
    machine = machine_facts() | {
        "commit": run["commit_info"]["id"][:7],
        "uncommitted": run["commit_info"]["dirty"],
        "time": run["datetime"],
        "load_average": run["machine_info"].get("load_average"),
        "ekmfast": run["machine_info"]["ekmfast"],
        "blas": run["machine_info"].get("blas", []),
    }
    out = RESULTS / f"kernels-{name}"
    lines = ",\n".join(map(json.dumps, rows))
    head = json.dumps({"machine": machine}, indent=1)
    out.with_name(out.name + ".json").write_text(f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n')
    out.with_name(out.name + ".md").write_text(report(machine, rows))
    draw_peers(rows).savefig(out.with_name(out.name + "-peers.png"), dpi=110)
    draw_roofline(rows).savefig(out.with_name(out.name + "-roofline.png"), dpi=110)
    print(report(machine, rows))


def condensed(benchmark: Row) -> Row:
    """Times in milliseconds and other facts of a benchmark, without the single rounds."""
    stats = benchmark["stats"]
    kept = {f"{key}_ms": round(1e3 * stats[key], 6) for key in ("min", "median", "iqr")}
    return {
        "group": benchmark["group"],
        "name": benchmark["name"],
        "rounds": stats["rounds"],
        **kept,
        **benchmark["extra_info"],
    }


def of_group(rows: Iterable[Row], group: str) -> list[Row]:
    return [row for row in rows if row["group"].startswith(group)]


def shape_name(shape: Any) -> str:
    if isinstance(shape, str):
        return shape.replace("1000k", "1M").replace("x", " x ")
    n, k, d = shape
    return f"{n // 1_000_000}M x {k} x {d}" if n >= 1e6 else f"{n // 1000}k x {k} x {d}"


def ratios(rows: Iterable[Row], group: str) -> list[Row]:
    return [entry for row in of_group(rows, group) for entry in row.get("ratios", [])]


def report(machine: Row, rows: list[Row]) -> str:
    """All tables, as Markdown."""
    facts = machine["ekmfast"]
    parts = [
        f"# Kernels: one run\n\n{machine['cpu']}, {machine['cpu_count']} processors, "
        f"{facts['isa']}, {facts['bench_threads']} threads, {facts['compiler']}, commit "
        f"{', '.join(dict.fromkeys(row['commit'] for row in rows))}. "
        f"BLAS of the peers: {', '.join(machine['blas']) or 'not noted'}. "
        "Ratios are peer time / our time, medians of paired rounds with least and most."
    ]
    peers = ratios(rows, "peers")
    if peers:
        table = markdown(
            ["peer", "dtype", "N x K x D", "peer, ms", "ours, ms", "ratio"],
            [
                [
                    e["peer"],
                    e["dtype"],
                    shape_name(e["shape"]),
                    f"{e['peer_ms']:.2f}",
                    f"{e['our_ms']:.2f}",
                    f"{e['ratio_median']:.2f} ({e['ratio_min']:.1f} .. {e['ratio_max']:.1f})"
                    if e["ratio_median"] > 0
                    else "not measurable: fits vary by more than their iterations take",
                ]
                for e in peers
            ],
        )
        parts.append("## One iteration against peers\n\n" + table)
    shares = [row for row in rows if "share_of_gflops" in row]
    if shares:
        table = markdown(
            ["function", "ISA", "dtype", "N x K x D", "ms", "GF/s", "of peak", "GB/s", "of memory"],
            [
                [
                    row["group"] + (", nearly hard" if "sharp" in row["name"] else ""),
                    row["isa"],
                    row["dtype"],
                    shape_name(row["shape"]),
                    f"{row['median_ms']:.2f}",
                    f"{row['gflops']:.0f}",
                    f"{row['share_of_gflops']:.0%}",
                    f"{row['gb_s']:.1f}",
                    f"{row['share_of_gb_s']:.0%}",
                ]
                for row in shares
            ],
        )
        parts.append("## Shares of the machine's limits, measured together\n\n" + table)
    for title, group in (
        ("Several problems in one pass", "several problems"),
        ("Threads", "threads"),
    ):
        found = ratios(rows, group)
        if found:
            table = markdown(
                ["compared with", "N x K x D", "its ms", "ours, ms", "ratio"],
                [
                    [
                        e["peer"],
                        shape_name(e["shape"]),
                        f"{e['peer_ms']:.2f}",
                        f"{e['our_ms']:.2f}",
                        f"{e['ratio_median']:.2f} ({e['ratio_min']:.2f} .. {e['ratio_max']:.2f})",
                    ]
                    for e in found
                ],
            )
            parts.append(f"## {title}\n\n{table}")
    small = of_group(rows, "small calls")
    if small:
        table = markdown(
            ["call of 100 rows, K = 3, D = 2", "median, us", "least, us"],
            [
                [row["name"], f"{1e3 * row['median_ms']:.1f}", f"{1e3 * row['min_ms']:.1f}"]
                for row in small
            ],
        )
        parts.append("## Small calls\n\n" + table)
    growth = of_group(rows, "growth")
    if growth:
        table = markdown(
            ["N x K x D", "ms", "ns / (N K D)"],
            [
                [
                    shape_name(row["shape"]),
                    f"{row['median_ms']:.3f}",
                    f"{1e6 * row['median_ms'] / product(row['shape']):.3f}",
                ]
                for row in growth
            ],
        )
        parts.append("## Growth, float32\n\n" + table)
    accuracy = of_group(rows, "accuracy")
    if accuracy:
        table = markdown(
            [
                *("N x K x D", "dtype", "offset", "worst error", "but for cancelling"),
                *("the same before rounding to the dtype", "ms"),
            ],
            [
                [
                    shape_name(row["shape"]),
                    row["dtype"],
                    f"{row['offset']:.0f}",
                    f"{row['worst_error_in_deviations']:.1e}",
                    f"{row['worst_error_but_for_cancelling']:.1e}",
                    f"{row['before_rounding_but_for_cancelling']:.1e}",
                    f"{row['median_ms']:.2f}",
                ]
                for row in accuracy
            ],
        )
        parts.append(
            "## Accuracy of a step, in standard deviations of the data\n\n"
            "But for cancelling: each centroid's error divided by sum |w| / |sum w|.\n\n" + table
        )
    turns = of_group(rows, "in turns")
    if turns:
        table = markdown(
            ["imported first", "data", "our threads", "in turns / both alone"],
            [
                [
                    row["first"],
                    row["size"],
                    row["our_threads"],
                    f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} .. {row['ratio_max']:.2f})",
                ]
                for row in turns
            ],
        )
        parts.append("## In turns with torch\n\n" + table)
    return "\n\n".join(parts) + "\n"


def product(shape: Iterable[int]) -> float:
    result = 1.0
    for number in shape:
        result *= number
    return result


def draw_peers(rows: list[Row]) -> Any:
    """Draw peer time / our time as bars from 1 on a logarithmic axis, for float32 and float64."""
    entries = [
        e
        for e in ratios(rows, "peers")
        if not e["peer"].startswith("fastest") and e["ratio_median"] > 0
    ]
    figure, grid = new_figure(9, 7, rows=2, sharex=True)
    panels = grid[:, 0]
    shapes = list(dict.fromkeys(e["shape"] for e in entries))
    names = list(dict.fromkeys(e["peer"] for e in entries))
    for axes, dtype in zip(panels, ("float32", "float64"), strict=True):
        for i, name in enumerate(names):
            found = [e for e in entries if e["peer"] == name and e["dtype"] == dtype]
            at = [shapes.index(e["shape"]) + (i - (len(names) - 1) / 2) * 0.16 for e in found]
            heights = [e["ratio_median"] - 1 for e in found]
            axes.bar(at, heights, width=0.15, bottom=1.0, label=name)
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylabel(f"{dtype}: peer time / our time")
        axes.grid(axis="y", alpha=0.3)
    panels[1].set_xticks(range(len(shapes)), [shape_name(shape) for shape in shapes], fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=5)
    panels[0].set_title("One iteration: above the line we are faster")
    return figure


def draw_roofline(rows: list[Row]) -> Any:
    """Draw the attained GF/s over the operations per byte of X, and the two measured limits."""
    figure, grid = new_figure(8, 5.5)
    axes = grid[0, 0]
    steps = [
        row
        for row in of_group(rows, "ekm_step")
        if "share_of_gflops" in row and "sharp" not in row["name"]
    ]
    colours = {"float32": "tab:blue", "float64": "tab:orange"}
    marks = {"base": "v", "avx2": "s", "avx512": "o", "neon": "d"}
    best = list(dict.fromkeys(row["isa"] for row in steps))[-1:]
    for dtype, colour in colours.items():
        of_dtype = [row for row in steps if row["dtype"] == dtype]
        for isa in dict.fromkeys(row["isa"] for row in of_dtype):
            points = [row for row in of_dtype if row["isa"] == isa]
            axes.plot(
                [row["gflops"] / row["gb_s"] for row in points],
                [row["gflops"] for row in points],
                marks[isa],
                color=colour,
                label=f"{dtype}, {isa}",
            )
        top = [row for row in of_dtype if row["isa"] in best]
        if not top:
            continue
        # Other virtual machines use the same processor at times, so the lines are medians.
        peak = median(row["gflops_limit"] for row in top)
        memory = median(row["gb_s_limit"] for row in steps)
        line = [0.5, peak / memory, 1e4]
        axes.plot(line, [0.5 * memory, peak, peak], color=colour, linewidth=0.8)
        if dtype == "float32":
            for row in top:
                axes.annotate(
                    shape_name(row["shape"]),
                    (row["gflops"] / row["gb_s"], row["gflops"]),
                    textcoords="offset points",
                    xytext=(4, 6 if row["gflops"] / row["gb_s"] == 8 else -11),
                    fontsize=7,
                )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("multiply-adds of both products, two operations each, per byte of X")
    axes.set_ylabel("GF/s; exponentials are not counted")
    axes.set_title("ekm_step under the measured limits of memory and arithmetic")
    axes.grid(alpha=0.3)
    if steps:
        axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], [Path(a) for a in sys.argv[2:]] or [RESULTS / "latest.json"])
