"""AddressSanitizer and UndefinedBehaviorSanitizer on the kernels and on the binding."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from builds import try_to_run
from test_isa_files import ROOT
from test_native import sets_checked

TESTS = ROOT / "tests"
# Two parts that take about as long: they run at the same time. test_interrupt is left out: its
# calls compute for seconds, which become minutes with AddressSanitizer.
PARTS = [
    ["test_kernels"],
    [
        "test_solver", "test_weightings", "test_threads", "test_neighbours",
        "test_seeding_kernel", "test_reference", "test_init", "test_distances",
        "test_mixture_kernels",
    ],
]  # fmt: skip
FUZZ = ["--calls", "20000", "--seed", "1"]


def test_native_kernels(memory_build):
    from ekmfast import _core

    program = memory_build.link("kernels", TESTS / "native" / "check_kernels.cpp")
    done = try_to_run(program, ASAN_OPTIONS="")  # leaks are reported too
    assert done.returncode == 0, done.stdout + done.stderr
    assert sets_checked(done.stdout) == set(_core.available_isas())


def test_python_tests_and_the_fuzzer(memory_build):
    package = memory_build.package("package")
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"]
    commands = [[*pytest, *(TESTS / f"{name}.py" for name in part)] for part in PARTS]
    commands.append([sys.executable, TESTS / "fuzz.py", *FUZZ])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = list(pool.map(lambda command: try_to_run(*command, package=package), commands))
    for done in runs:
        print(done.stdout[-3000:])
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-20_000:]


def test_planted_faults_are_reported(memory_build, changed):
    """A read beyond an array of NumPy, and a signed overflow, each in a call from Python."""
    ekm = changed(
        "ekm.cpp",
        "for (std::int64_t i = 0; i < samples.n; ++i) sum +=",
        "for (std::int64_t i = 0; i <= samples.n; ++i) sum +=",
    )
    changed_line = "  // With q = 2 a score is"
    overflow = "  volatile std::int64_t most = std::numeric_limits<std::int64_t>::max();\n"
    overflow += "  most = most + samples.n;\n"
    text = ekm.read_text()
    assert text.count(changed_line) == 1
    ekm.write_text(text.replace(changed_line, overflow + changed_line))
    package = memory_build.package("planted", ekm)
    code = """
import sys
from pathlib import Path
import numpy as np
from ekmfast import _core
assert Path(_core.__file__).parent.parent == Path.cwd(), _core.__file__
X, ones = np.ones((20, 3)), np.ones(20)
if "closest" in sys.argv:
    _core.closest(X, X[None, :1].copy(), ones[None], None, None, 1)
else:
    weight = ones if "weighted" in sys.argv else None
    _core.statistics(X, X[None, :2].copy(), np.ones(1), weight, None, 1)
print("survived")
"""
    whole = try_to_run(sys.executable, "-c", code, package=package)
    assert (whole.returncode, whole.stdout) == (0, "survived\n"), whole.stderr
    beyond = try_to_run(sys.executable, "-c", code, "weighted", package=package)
    assert beyond.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in beyond.stderr
    assert "total_weight" in beyond.stderr
    overflowed = try_to_run(sys.executable, "-c", code, "closest", package=package)
    assert overflowed.returncode != 0
    assert "signed integer overflow" in overflowed.stderr
