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
SIMD = ROOT / "csrc" / "simd"
NOT_KERNELS = {"dispatch", "processor"}  # files of csrc/simd that only dispatch.cpp includes
CXX, NM = shutil.which("c++"), shutil.which("nm")

pytestmark = pytest.mark.skipif(not KERNELS.is_dir(), reason="needs the source tree")
needs_compiler = pytest.mark.skipif(CXX is None or NM is None, reason="needs c++ and nm")


def build_settings():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **_: None)
        patch.chdir(ROOT)
        return runpy.run_path(str(ROOT / "setup.py"))


SETTINGS = build_settings() if KERNELS.is_dir() else {"ISA_TABLE": [], "CXXFLAGS": []}


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
@pytest.mark.parametrize(
    ("name", "flags"), SETTINGS["ISA_TABLE"], ids=[row[0] for row in SETTINGS["ISA_TABLE"]]
)
def test_an_object_defines_its_table_and_nothing_else(name, flags, tmp_path):
    symbols = external_symbols(ROOT / SETTINGS["KERNELS"], flags, tmp_path / "isa.o")
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
    files += [ROOT / "csrc" / "portable.h"]
    files += sorted(path for path in SIMD.glob("*.h") if path.stem not in NOT_KERNELS)
    assert len(files) > 3
    for path in files:
        for header in re.findall(r"^\s*#\s*include\s*<([^>]+)>", path.read_text(), re.MULTILINE):
            assert header in allowed, f"{path.name} includes <{header}>"


def test_every_row_has_its_vectors_and_every_vector_header_its_row():
    tables = SETTINGS["X86_TABLE"] + SETTINGS["ARM_TABLE"]
    shared = {"isas", "vectors", "compress"} | NOT_KERNELS
    assert {path.stem for path in SIMD.glob("*.h")} - shared == {name for name, _ in tables}


@needs_compiler
@pytest.mark.parametrize(
    ("architecture", "kinds"), [("X86", "ROW, ROW, NO"), ("ARM", "ROW, NO, ROW")]
)
def test_setup_reads_the_rows_that_the_compiler_reads(architecture, kinds, tmp_path):
    source = tmp_path / "rows.cpp"
    source.write_text(
        '#include "simd/isas.h"\n#define NO(name, flags, condition)\n'
        f"#define ROW(name, flags, condition) @ name flags\nEKMFAST_ISAS({kinds})\n"
    )
    command = [CXX, "-E", "-P", "-I", ROOT / "csrc", source]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = re.findall(r'@\s*(\w+)((?:\s*"[^"]*")+)', text)
    flags_of = {name: "".join(re.findall('"([^"]*)"', flags)).split() for name, flags in rows}
    table = SETTINGS[f"{architecture}_TABLE"]
    assert [name for name, _ in table] == list(flags_of)
    for name, flags in table:
        assert flags == [f"-DEKMFAST_ISA={name}", *flags_of[name]]


@needs_compiler
@pytest.mark.parametrize("path", sorted(KERNELS.glob("*.inl")), ids=lambda path: path.name)
def test_each_file_of_kernels_can_be_read_alone(path, tmp_path):
    """What a file needs, it includes."""
    source = tmp_path / "alone.cpp"
    source.write_text(f'#include "kernels/{path.name}"\n')
    command = [CXX, "-std=c++17", "-fsyntax-only", "-DEKMFAST_ISA=base", "-I", ROOT / "csrc"]
    done = subprocess.run([*command, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
