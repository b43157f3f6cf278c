"""The C++ kernels without Python, such as on an emulated AArch64; sanitized/ has more tests."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pybind11
import pytest
from test_isa_files import ROOT, build_settings

pytestmark = pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree")

CXX = shutil.which("c++")
CLANG = shutil.which("clang++")
CROSS_CXX = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
DISPATCH = Path("csrc") / "simd" / "dispatch.cpp"
SOURCES = [
    *sorted(path for path in (ROOT / "csrc").glob("*.cpp") if path.name != "bind.cpp"),
    ROOT / DISPATCH,
    ROOT / "tests" / "native" / "check_kernels.cpp",
]
# -O1 compiles in a third of the time and leaves the kernels their vectors.
FLAGS = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]


def build(compiler: str, table: list, out: Path, *extra: str, root: Path = ROOT) -> Path:
    """Link the checks with all kernels of an architecture, each compiled with its own flags."""
    program = out / "check_kernels"
    sources = [root / path.relative_to(ROOT) for path in SOURCES]
    objects = compile_all(compiler, sources, table, out, *extra, root=root)
    run(compiler, *objects, *extra, "-pthread", "-o", program)
    return program


def compile_all(
    compiler: str, sources: list[Path], table: list, out: Path, *extra: str, root: Path = ROOT
) -> list[Path]:
    jobs = [(source, source.stem, []) for source in sources]
    jobs += [(root / build_settings()["KERNELS"], f"kernels_{name}", own) for name, own in table]

    def compile_one(job: tuple[Path, str, list[str]]) -> Path:
        source, stem, own = job
        made = out / f"{stem}.o"
        run(compiler, *FLAGS, "-I", root / "csrc", *own, *extra, "-c", source, "-o", made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, jobs))


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sets_checked(output: str) -> set[str]:
    return set(re.findall(r"^(\w+) +float(?:32|64) +2\^x", output, re.MULTILINE))


@pytest.mark.skipif(CLANG is None, reason="needs clang++")
def test_the_extension_built_by_clang_gives_the_same_sums(tmp_path):
    """A build by Clang can be imported: it must not need symbols of GCC's library."""
    from ekmfast import _core

    sources = [*sorted((ROOT / "csrc").glob("*.cpp")), ROOT / DISPATCH]
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    flags = ["-O0", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-warning-option", *includes]
    table = build_settings()["ISA_TABLE"]
    objects = compile_all(CLANG, sources, table, tmp_path, *flags)
    module = tmp_path / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    run(CLANG, "-shared", *objects, "-pthread", "-o", module)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import _core, numpy as np
assert _core.compiler.startswith("Clang"), _core.compiler
X = np.random.default_rng(0).normal(size=(20_000, 8))
for isa in _core.available_isas():
    _core.set_isa(isa)
    print(*_core.statistics(X, X[None, :4].copy(), np.ones(1), None, None, 2)[0].ravel())
"""
    lines = run(sys.executable, "-c", code).splitlines()
    X = np.random.default_rng(0).normal(size=(20_000, 8))
    expected = _core.statistics(X, X[None, :4].copy(), np.ones(1), None, None, 2)[0].ravel()
    assert len(lines) == len(_core.available_isas())
    for line in lines:
        # Sums of 20,000 terms of size 1 and of both signs.
        got = np.array(line.split(), float)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


@pytest.mark.skipif(CROSS_CXX is None, reason="needs aarch64-linux-gnu-g++")
@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-aarch64")
def test_the_kernels_of_aarch64_under_emulation(tmp_path):
    program = build(CROSS_CXX, build_settings()["ARM_TABLE"], tmp_path, "-static")
    assert sets_checked(run(EMULATOR, program)) == {"base", "neon"}


@pytest.mark.skipif(CXX is None, reason="needs c++")
def test_a_wrong_kernel_is_noticed(tmp_path):
    """The checks fail if a coefficient of 2^x is wrong by a ten-thousandth."""
    for folder in ("csrc", Path("tests") / "native"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    exp2 = tmp_path / "csrc" / "kernels" / "exp2.inl"
    text = exp2.read_text()
    assert "0.240222420573f" in text
    exp2.write_text(text.replace("0.240222420573f", "0.2402f"))
    program = build(CXX, build_settings()["ISA_TABLE"], tmp_path, root=tmp_path)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "TOO LARGE" in done.stdout
