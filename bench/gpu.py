"""Tests and benchmarks on a GPU, in one report: `make gpu`.

    python bench/gpu.py [--only tests|sanitize|bench|device ...] [--sanitize] [--out DIR]

It needs a GPU and no network. The parts are

- tests: the tests with the mark ``gpu``, by several processes if pytest-xdist is installed;
- sanitize: some of the tests under compute-sanitizer's memcheck and racecheck, only if asked for;
- bench: bench/test_cuda.py, whose first lines say what is measured;
- device: bench/device_table.py, from how many rows a GPU is faster than the CPU.

``gpu-CARD.json`` and ``gpu-CARD.md`` hold the results, and are written after each part;
``gpu-CARD.log`` holds all output. The exit status is 1 if a test or a check failed or took too
long. With NUMBA_ENABLE_CUDASIM=1 the tests run in Numba's simulator, and so do the other parts if
they are asked for, which EKMFAST_BENCH_SMALL=1 makes bearable; these times say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from records import machine_facts, markdown

from ekmfast.rows.device import cuda_status, describe_card

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("tests", "sanitize", "bench", "device")
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
TEST_FILES = (
    "tests/test_cuda.py",
    "tests/test_cuda_estimators.py",
    "tests/test_gpu_arrays.py",
    "tests/test_device.py",
)
# Small tests that start every kernel of a pass, since a sanitizer makes them some 100 times slower.
SANITIZED = ("tests/test_cuda.py", "-k", "(statistics_are_the_cpus and equilibrium) or closest")
TOOLS = ("memcheck", "racecheck")
MOST_PROCESSES = 16
PACKAGES = (
    "numpy",
    "scikit-learn",
    "numba",
    "numba-cuda",
    "llvmlite",
    "cuda-bindings",
    "cuda-toolkit",
    "nvidia-cuda-nvcc",
    "nvidia-cublas",
    "torch",
    "triton",
    "cupy",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "cuml-cu12",
    "cuml-cu13",
    "flash-kmeans",
    "fastkmeans",
    "pytest",
    "pytest-benchmark",
    "pytest-xdist",
)
Results = dict[str, Any]


# --------------------------------------------------------------------------------------------------
# Facts


def facts() -> Results:
    """The card, the machine, and the versions of what computes; they do not name the host."""
    found = machine_facts()
    found |= {
        "card": "Simulator" if SIMULATED else describe_card(),
        "python": sys.version.split()[0],
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "toolkit": _toolkit(),
    }
    return found | ({} if SIMULATED else _driver())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _toolkit() -> str | None:
    """The CUDA toolkit on the PATH; the packages may bring others."""
    release = re.search(r"release ([\d.]+)", _output("nvcc", "--version"))
    return release[1] if release else None


def _driver() -> Results:
    from numba import cuda

    device = cuda.get_current_device()
    found: Results = {
        "compute_capability": "{}.{}".format(*device.compute_capability),
        "multiprocessors": int(device.MULTIPROCESSOR_COUNT),
        "memory_gb": round(cuda.current_context().get_memory_info().total / 1e9, 1),
    }
    names = "driver_version,clocks.max.sm,clocks.max.memory,power.limit"
    answer = _output("nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader", "--id=0")
    if answer:
        values = [value.strip() for value in answer.splitlines()[0].split(",")]
        found |= dict(zip(names.split(","), values, strict=False))
    return found


def slug(card: str) -> str:
    """A name for files: ``NVIDIA H100 (compute capability 9.0)`` is ``nvidia-h100``."""
    return re.sub(r"[^a-z0-9]+", "-", card.partition("(")[0].lower()).strip("-")


# --------------------------------------------------------------------------------------------------
# Parts


class Runner:
    """Runs commands in the root folder; their output goes to the terminal and to a file."""

    def __init__(self, log: TextIO, timeout: float) -> None:
        self.log, self.timeout = log, timeout

    def __call__(self, command: Sequence[str | Path], **environment: str) -> tuple[int | None, str]:
        """The exit status, None if the time was over, and the output."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        late, lines = threading.Event(), []
        with subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:

            def stop() -> None:
                with contextlib.suppress(ProcessLookupError):  # it may just have ended
                    os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started

            def stop_late() -> None:
                late.set()
                stop()

            timer = threading.Timer(self.timeout, stop_late)
            timer.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.append(line)
                    for stream in (sys.stdout, self.log):
                        stream.write(line)
                        stream.flush()
            except BaseException:
                stop()
                raise
            finally:
                timer.cancel()
        return (None if late.is_set() else process.returncode), "".join(lines)


def pytest_command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]


def counts(xml: Path) -> Results:
    """How many tests passed, failed and were skipped, and why, from pytest's JUnit file."""
    found: Results = {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
    found |= {"failures": {}, "skips": {}}
    for case in ET.parse(xml).iter("testcase"):
        name = f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}"
        found["seconds"] += float(case.get("time", 0))
        bad = [child for child in case if child.tag in ("failure", "error")]
        skipped = case.find("skipped")
        if bad:
            found["failed"] += 1
            found["failures"][name] = (bad[0].get("message") or "").split("\n")[0][:300]
        elif skipped is not None:
            found["skipped"] += 1
            found["skips"][name] = (skipped.get("message") or "")[:300]
        else:
            found["passed"] += 1
    return found


def run_tests(run: Runner, folder: Path) -> Results:
    arguments: list[str | Path] = [*TEST_FILES, "--junitxml", folder / "tests.xml"]
    if not SIMULATED:  # the tests have no such mark in the simulator
        arguments += ["-m", "gpu"]
    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    if importlib.util.find_spec("xdist") is not None:
        arguments += ["-p", "no:benchmark", "-n", str(processes)]
    return judged(run(pytest_command(*arguments)), folder / "tests.xml")


def judged(done: tuple[int | None, str], xml: Path) -> Results:
    """What a run of pytest found; ``ok`` is whether it ended and all was well."""
    status, output = done
    found: Results = {"ok": status == 0, "timed_out": status is None}
    if xml.exists():
        found |= counts(xml)
    if not found["ok"]:
        found["end_of_output"] = output[-3000:]
    return found


def sanitize(run: Runner, folder: Path) -> Results:
    """The summary of each tool; ``ok`` is whether it saw no error."""
    if shutil.which("compute-sanitizer") is None:
        return {"ok": True, "missing": "compute-sanitizer is not on the PATH"}
    found: Results = {"ok": True, "tools": {}}
    for tool in TOOLS:
        status, output = run(
            ["compute-sanitizer", "--tool", tool, "--target-processes", "all", *pytest_command(
                *SANITIZED, "-m", "gpu", "-p", "no:benchmark")],
            EKMFAST_CUDA_PRODUCT="own",  # racecheck takes some of cuBLAS' kernels for races
        )  # fmt: skip
        tests = re.findall(r"^\d+ (?:passed|failed).*$", output, re.MULTILINE)
        summary = sanitizer_summary(output)
        ok = status == 0 and bool(summary) and all("SUMMARY: 0 " in line for line in summary)
        found["tools"][tool] = {
            "ok": ok,
            "timed_out": status is None,
            "summary": summary,
            "tests": tests[-1] if tests else None,
        }
        found["ok"] &= ok
    return found


def sanitizer_summary(output: str) -> list[str]:
    return [
        line.strip("= ")
        for line in output.splitlines()
        if re.search(r"(ERROR|RACECHECK) SUMM", line)
    ]


def bench(run: Runner, folder: Path) -> Results:
    xml, file = folder / "bench.xml", folder / "bench.json"
    done = run(
        # Warnings of other packages are no errors here.
        pytest_command("bench/test_cuda.py", "-m", "gpu", "-W", "default", "--junitxml", xml,
                       f"--benchmark-json={file}")
    )  # fmt: skip
    found = judged(done, xml)
    if file.exists() and file.stat().st_size:
        found["figures"] = figures(json.loads(file.read_text()))
    return found


def figures(benchmarks: Results) -> list[Results]:
    """What pytest-benchmark measured: quartiles in milliseconds, and each extra_info."""
    found = []
    for one in benchmarks["benchmarks"]:
        stats = one["stats"]
        times = {name: 1e3 * stats[name] for name in ("median", "q1", "q3", "min", "max")}
        found.append({"name": one["name"], "rounds": stats["rounds"]} | times | one["extra_info"])
    return found


def device(run: Runner, folder: Path) -> Results:
    out = folder / "device"
    status, output = run([sys.executable, "bench/device_table.py", "--out", out])
    found: Results = {"ok": status == 0, "timed_out": status is None}
    if not found["ok"]:
        return found | {"end_of_output": output[-3000:]}
    written = json.loads(out.with_suffix(".json").read_text())
    report = out.with_suffix(".md").read_text().strip()
    return found | {"settings": written["settings"], "rows": written["rows"], "report": report}


RUN: dict[str, Callable[[Runner, Path], Results]] = {
    "tests": run_tests,
    "sanitize": sanitize,
    "bench": bench,
    "device": device,
}


# --------------------------------------------------------------------------------------------------
# The report


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def report(results: Results) -> str:
    """All results in Markdown."""
    machine = results["machine"]
    changed = ", with changes" if machine["uncommitted"] else ""
    gpu = [("GPU", machine["card"])]
    gpu += [(name.replace("_", " ").replace(".", " "), machine[name]) for name in (
        "compute_capability", "multiprocessors", "memory_gb", "driver_version", "clocks.max.sm",
        "clocks.max.memory", "power.limit") if name in machine]  # fmt: skip
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    rows = [
        *gpu,
        ("CUDA toolkit on the PATH", machine["toolkit"] or "none"),
        (
            "CPU",
            f"{machine['cpu']}, {machine['cpu_count']} processors, {machine['ekmfast']['isa']}",
        ),
        ("Python", machine["python"]),
        ("packages", packages),
        ("commit", (machine["commit"] or "unknown") + changed),
        ("time", machine["time"]),
    ]
    parts = [f"# {machine['card']}", markdown(["", ""], rows)]
    sections = {"tests": _tests, "sanitize": _sanitize, "bench": _bench, "device": _device}
    for name, section in sections.items():
        if name in results:
            parts += [f"## {name.capitalize()}", section(results[name])]
    return "\n\n".join(parts) + "\n"


def _tests(found: Results) -> str:
    lines = [_sentence(found)]
    if found.get("failures"):
        lines += [f"- `{name}`: {message}" for name, message in found["failures"].items()]
    reasons: dict[str, int] = {}
    for reason in found.get("skips", {}).values():
        reasons[reason] = reasons.get(reason, 0) + 1
    lines += [f"- Skipped, {times}: {reason}" for reason, times in reasons.items()]
    return "\n".join([lines[0], "", *lines[1:]] if lines[1:] else lines)


def _sentence(found: Results) -> str:
    if found["timed_out"]:
        return "The time was over before the tests ended."
    if "passed" not in found:
        return "pytest did not run the tests."
    return (
        f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped, "
        f"in {found['seconds']:.0f} s of all processes."
    )


def _sanitize(found: Results) -> str:
    if "missing" in found:
        return f"{found['missing']}."
    rows = []
    for tool, result in found["tools"].items():
        summary = "; ".join(sorted(set(result["summary"]))) or "no summary"
        over = "the time was over" if result["timed_out"] else result["tests"] or "no tests"
        rows.append([tool, summary, over])
    return markdown(["tool", "summary", "tests"], rows)


def _bench(found: Results) -> str:
    all_figures = found.get("figures", [])
    parts = [_tests(found)]
    if rows := [row for figure in all_figures for row in figure_rows(figure)]:
        parts.append(
            markdown(
                ["what", "N x K x D", "median, ms", "quartiles, ms", "on the GPU, ms", "floor, ms",
                 "the floor is", "floor / median", "floor / on the GPU", "its time / ours"],
                rows,
            )
        )  # fmt: skip
    rates: dict[str, list[float]] = {}
    for figure in all_figures:
        size = "" if "shape" not in figure else " x ".join(map(str, figure["shape"][1:]))
        for name, rate in figure.get("rates", {}).items():
            rates[name if name != "products" else f"products, {size}"] = rate
    if rates:
        parts.append("Rates: " + "; ".join(_rate(*item) for item in rates.items()) + ".")
    if any("peer" in figure for figure in all_figures):
        parts.append(
            "The packages named compute an iteration of hard k-means, which needs one of the two "
            "matrix products and no exponentials."
        )
    kernels = [
        [figure["case"], size_of(figure), f"`{name[:60]}`", number(ms)]
        for figure in all_figures
        for name, ms in list(figure.get("gpu_kernels", {}).items())[:4]
    ]
    if kernels:
        parts.append(markdown(["what", "N x K x D", "longest kernels and copies", "ms"], kernels))
    return "\n\n".join(parts)


def _rate(name: str, rate: float) -> str:
    if name.startswith("products"):
        return f"{name}: {2e-12 * rate:.1f} TFLOP/s"
    return f"{name}: {rate / 1e9:,.0f} GB/s"


def size_of(figure: Results) -> str:
    return " x ".join(f"{n:,}" for n in figure["shape"])


def figure_rows(figure: Results) -> list[list[str]]:
    """The rows of the table for one benchmark: its own time, and those of others beside it."""
    rows = []
    if "case" in figure:
        rows.append([
            figure["case"],
            size_of(figure),
            number(figure["median"]),
            f"{number(figure['q1'])} to {number(figure['q3'])}",
            number(figure.get("gpu_ms")),
            number(figure.get("floor_ms")),
            figure.get("floor_is", "-"),
            percent(figure.get("share")),
            percent(figure.get("share_on_gpu")),
            "",
        ])  # fmt: skip
    for ratio in figure.get("ratios", []):
        spread = f"{ratio['ratio_min']:.2f} to {ratio['ratio_max']:.2f}"
        rows.append([
            ratio["peer"],
            ratio["shape"],
            number(ratio["peer_ms"]),
            *[""] * 6,
            f"{ratio['ratio_median']:.2f} ({spread})",
        ])  # fmt: skip
    return rows


def _device(found: Results) -> str:
    if "report" not in found:
        return "The time was over." if found["timed_out"] else "The measurement failed."
    return str(found["report"])


def replace(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    os.replace(temporary, path)


# --------------------------------------------------------------------------------------------------


def chosen(only: Sequence[str] | None, with_sanitizer: bool) -> list[str]:
    if only:
        return [part for part in PARTS if part in only or (part == "sanitize" and with_sanitizer)]
    if SIMULATED:
        return ["tests"]
    return [part for part in PARTS if part != "sanitize" or with_sanitizer]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-out"), help="a folder for the files")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given several times")
    parser.add_argument("--sanitize", action="store_true", help="run compute-sanitizer too")
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds for each command that is run"
    )
    options = parser.parse_args()
    if (missing := cuda_status()) is not None:
        print(f"No GPU can be used here: {missing.rstrip(' .:')}.", file=sys.stderr)
        return 1
    results: Results = {"machine": facts()}
    options.out.mkdir(parents=True, exist_ok=True)
    name = options.out / f"gpu-{slug(results['machine']['card'])}"
    log_file, json_file, report_file = (Path(f"{name}.{end}") for end in ("log", "json", "md"))
    with log_file.open("w") as log, tempfile.TemporaryDirectory() as folder:
        for part in chosen(options.only, options.sanitize):
            results[part] = RUN[part](Runner(log, options.timeout), Path(folder))
            replace(json_file, json.dumps(results, indent=1) + "\n")
            replace(report_file, report(results))
    print("\n" + report_file.read_text())
    print(f"{json_file}, {report_file}, {log_file}")
    return 0 if all(found["ok"] for part, found in results.items() if part != "machine") else 1


if __name__ == "__main__":
    sys.exit(main())
