"""The kernels of one instruction set must not leak into the program of every processor.

A function compiled with AVX-512 flags that ends up a weak symbol (any inline function or template
instantiation with external linkage) may be the copy that the linker keeps for everybody: an
illegal instruction on an older machine. The objects are inspected for that.
"""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "csrc" / "kernels"
CXX, NM = shutil.which("c++"), shutil.which("nm")

pytestmark = pytest.mark.skipif(not KERNELS.is_dir(), reason="needs the source tree")
needs_compiler = pytest.mark.skipif(CXX is None or NM is None, reason="needs c++ and nm")


def build_settings():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **_: None)
        patch.chdir(ROOT)
        return runpy.run_path(str(ROOT / "setup.py"))


SETTINGS = build_settings() if KERNELS.is_dir() else {"ISA_TABLE": [], "CXXFLAGS": []}
FILES = [("base", [], "csrc/kernels/base.cpp"), *SETTINGS["ISA_TABLE"]]


def external_symbols(source, flags, out):
    command = [CXX, "-std=c++17", *SETTINGS["CXXFLAGS"], *flags, "-fPIC", "-I", ROOT / "csrc"]
    subprocess.run([*command, "-c", source, "-o", out], check=True, capture_output=True)
    listing = subprocess.run(
        [NM, "--defined-only", "--extern-only", "-C", out],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # "0000000000000000 R ekmfast::avx2_kernels": address, type, name
    return [tuple(line.split(maxsplit=2)[1:]) for line in listing.splitlines() if line]


@needs_compiler
@pytest.mark.parametrize(("name", "flags", "source"), FILES, ids=[row[0] for row in FILES])
def test_an_object_defines_its_table_and_nothing_else(name, flags, source, tmp_path):
    symbols = external_symbols(ROOT / source, flags, tmp_path / "isa.o")
    assert [symbol for _, symbol in symbols] == [f"ekmfast::{name}_kernels"]
    assert not [kind for kind, _ in symbols if kind in "wWvVu"]


@needs_compiler
def test_the_inspection_sees_a_weak_symbol(tmp_path):
    source = tmp_path / "weak.cpp"
    source.write_text("template <class T> T f(T x) { return x; }\ntemplate int f<int>(int);\n")
    assert external_symbols(source, [], tmp_path / "weak.o") == [("W", "int f<int>(int)")]


def test_kernels_include_no_containers_and_no_python():
    allowed = {"immintrin.h", "arm_neon.h", "cstddef", "cstdint", "cstring", "utility"}
    files = sorted(path for path in KERNELS.iterdir() if path.suffix in (".cpp", ".h", ".inl"))
    assert len(files) > 3
    for path in files:
        for header in re.findall(r"^\s*#\s*include\s*<([^>]+)>", path.read_text(), re.MULTILINE):
            assert header in allowed, f"{path.name} includes <{header}>"


def test_every_file_of_kernels_is_built():
    tables = [*SETTINGS["X86_TABLE"], *SETTINGS["ARM_TABLE"]]
    built = {"base.cpp", *(Path(source).name for _, _, source in tables)}
    assert built == {path.name for path in KERNELS.glob("*.cpp")}
