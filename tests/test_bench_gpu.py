"""The report of bench/gpu.py, from results as a GPU would give them, and its error without one."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ekmfast.rows.device import cuda_status

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "bench" / "gpu.py").exists(), reason="the benchmarks do not lie beside these tests"
)

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_cuda" name="test_a" time="1.5" />
<testcase classname="tests.test_cuda" name="test_b[float32]" time="0.5">
  <failure message="AssertionError: 0.1 is not 0&#10;more">trace</failure></testcase>
<testcase classname="tests.test_cuda" name="test_c"><skipped message="no torch" /></testcase>
<testcase classname="tests.test_cuda" name="test_d"><error message="no memory" /></testcase>
</testsuite></testsuites>"""

PASS = {
    "name": "test_many_centroids[1000000-1024-128]",
    "stats": {
        "median": 0.0125, "q1": 0.0124, "q3": 0.0131, "min": 0.012, "max": 0.02, "rounds": 40,
    },
    "extra_info": {
        "case": "pass", "shape": [1_000_000, 1024, 128], "floor_ms": 10.0,
        "floor_is": "two products", "share": 0.8, "gpu_ms": 12.2, "share_on_gpu": 0.82,
        "gpu_kernels": {"sgemm": 11.0, "weigh_rows": 1.2},
        "rates": {"copy": 2.9e12, "products": 2.6e13},
    },
}  # fmt: skip
PEER = {
    "name": "test_hard_k_means_of_others[flash_kmeans, float16-1000000-1024-128]",
    "stats": dict.fromkeys(("median", "q1", "q3", "min", "max"), 0.01) | {"rounds": 2},
    "extra_info": {
        "peer": "flash_kmeans, float16",
        "ratios": [
            {
                "peer": "flash_kmeans, float16", "shape": "1000kx1024x128", "dtype": "float32",
                "ratio_median": 0.25, "ratio_min": 0.2, "ratio_max": 0.31, "rounds": 5,
                "peer_ms": 3.1, "our_ms": 12.5,
            }
        ],
    },
}  # fmt: skip


@pytest.fixture
def module(monkeypatch):
    """Import a script of bench/, whose modules import each other by their plain names."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    before = set(sys.modules)
    yield importlib.import_module
    for name in {"gpu", "device_table", "records"} - before:
        sys.modules.pop(name, None)


def results(gpu, tmp_path):
    (tmp_path / "tests.xml").write_text(JUNIT)
    tests = gpu.judged((1, "end"), tmp_path / "tests.xml")
    summary = gpu.sanitizer_summary(
        "========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 2 hazards displayed (2 errors)\n"
    )
    racecheck = {"ok": False, "timed_out": False, "summary": summary, "tests": "9 passed in 3 s"}
    return {
        "machine": {
            "card": "NVIDIA H100 (compute capability 9.0)", "cpu": "A processor", "cpu_count": 16,
            "ekmfast": {"isa": "avx512"}, "python": "3.12.3", "toolkit": "13.0", "commit": "",
            "uncommitted": False, "time": "2030-01-01T00:00:00", "driver_version": "580.1",
            "packages": {"numpy": "2.4.0", "torch": "2.11.0"},
        },
        "tests": tests,
        "sanitize": {"ok": False, "tools": {"racecheck": racecheck}},
        "bench": {
            "ok": True, "timed_out": False, "passed": 2, "failed": 0, "skipped": 1, "seconds": 61.0,
            "failures": {}, "skips": {"a": "could not import 'cuml.cluster'"},
            "figures": gpu.figures({"benchmarks": [PASS, PEER]}),
        },
    }  # fmt: skip


def cells(text, first):
    """The cells of the table's row that begins with this one."""
    found = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_the_report_holds_the_facts_and_figures(module, tmp_path):
    gpu = module("gpu")
    found = results(gpu, tmp_path)
    text = gpu.report(json.loads(json.dumps(found)))
    assert text.startswith("# NVIDIA H100 (compute capability 9.0)\n")
    assert cells(text, "driver version")[1] == "580.1"
    assert cells(text, "commit")[1] == "unknown"
    assert cells(text, "packages")[1] == "numpy 2.4.0, torch 2.11.0"
    assert cells(text, "pass") == [
        "pass", "1,000,000 x 1,024 x 128", "12.5", "12.4 to 13.1", "12.2", "10", "two products",
        "80 %", "82 %", "",
    ]  # fmt: skip
    peer = cells(text, "flash_kmeans, float16")
    assert (peer[1], peer[2], peer[-1]) == ("1000kx1024x128", "3.1", "0.25 (0.20 to 0.31)")
    assert "copy: 2,900 GB/s; products, 1024 x 128: 52.0 TFLOP/s." in text
    assert "1 passed, 2 failed, 1 skipped, in 2 s of all processes." in text
    assert "- `test_cuda::test_b[float32]`: AssertionError: 0.1 is not 0\n" in text
    assert "- Skipped, 1: could not import 'cuml.cluster'" in text
    racecheck = cells(text, "racecheck")
    assert racecheck[1:] == ["RACECHECK SUMMARY: 2 hazards displayed (2 errors)", "9 passed in 3 s"]
    assert "| pass | 1,000,000 x 1,024 x 128 | `sgemm` | 11 |" in text


def test_results_that_are_missing_are_said_to_be(module, tmp_path):
    gpu = module("gpu")
    found = results(gpu, tmp_path)
    found["tests"] = gpu.judged((None, "half of a line"), tmp_path / "none.xml")
    found["bench"] = gpu.judged((2, "no such file"), tmp_path / "none.xml")
    found["device"] = {"ok": False, "timed_out": True}
    text = gpu.report(found)
    assert "The time was over before the tests ended." in text
    assert "pytest did not run the tests." in text
    assert text.rstrip().endswith("The time was over.")
    assert found["bench"]["end_of_output"] == "no such file"


def test_a_command_is_stopped_with_what_it_started(module, tmp_path):
    gpu = module("gpu")
    started = "import subprocess, sys; print('on', flush=True); subprocess.run(['sleep', '60'])"
    with (tmp_path / "log").open("w") as log:
        status, output = gpu.Runner(log, 3.0)([sys.executable, "-c", started])
    assert (status, output) == (None, "on\n")
    assert (tmp_path / "log").read_text() == "on\n"


@pytest.mark.parametrize(
    ("card", "name"),
    [("NVIDIA H100 80GB HBM3 (compute capability 9.0)", "nvidia-h100-80gb-hbm3")],
)
def test_files_are_named_after_the_card(module, card, name):
    assert module("gpu").slug(card) == name


def test_parts_are_chosen(module, monkeypatch):
    gpu = module("gpu")
    assert gpu.chosen(None, False) == ["tests", "bench", "device"]
    assert gpu.chosen(None, True) == ["tests", "sanitize", "bench", "device"]
    assert gpu.chosen(["device", "tests"], False) == ["tests", "device"]
    monkeypatch.setattr(gpu, "SIMULATED", True)
    assert gpu.chosen(None, False) == ["tests"]


def rows_of(gains, k=8, d=8):
    return [
        {"n": n, "k": k, "d": d, "multiply_adds": 2 * n * k * d, "cpu_ms": gain, "gpu_ms": 1.0,
         "send_ms": 0.5}
        for n, gain in gains.items()
    ]  # fmt: skip


def test_the_gpu_is_faster_from_the_crossing_on(module, monkeypatch):
    table = module("device_table")
    rows = rows_of({1000: 2.0, 4000: 0.5, 16000: 2.0, 64000: 8.0})
    found = table.crossing(rows, 8, 8)
    assert found["from"] == 16000  # the GPU was faster at 1,000 too, but not at 4,000
    assert found["between"] == 8000  # 1/2 at 4,000 and 2 at 16,000
    assert found["multiply_adds"] == 2 * 16000 * 64
    assert table.crossing(rows_of({1000: 0.5}), 8, 8)["from"] is None
    assert table.crossing(rows_of({1000: 3.0}), 8, 8)["from"] == 1000
    monkeypatch.setattr(table, "cpu_seconds", lambda work, d: 1e-4)
    text = table.report(rows, [found], 2)
    assert cells(text, "8, 8") == ["8, 8", "16,000", "8,000", "1e+06"]
    assert "The time was over before 2 more shapes." in text
    assert "| 8, 8 | 64,000 | 8.2e+06 | 8 | 1 | 8 | CPU | 0.5 | 0.071 |" in text


@pytest.mark.skipif(cuda_status() is None, reason="there is a card, or a simulated one")
@pytest.mark.parametrize("script", ["gpu.py", "device_table.py"])
def test_without_a_card_one_sentence_says_why(script, tmp_path):
    out = ["--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / script), *out],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"No GPU can be used here: {cuda_status().rstrip(' .:')}.\n"
    assert not (tmp_path / "out").exists()
