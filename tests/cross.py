"""The compiled code for other systems, by the Clang of the package ziglang: `make cross`.

`make test` does not collect this file. Where the emulator of a system is installed, the checks of
the kernels run there too.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
import pytest
from test_isa_files import ROOT, build_settings
from test_native import build, compile_all, sets_checked

WINE = shutil.which("wine64") or shutil.which("wine64", path="/usr/lib/wine")
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
HERE = ""  # run as a program of this machine, whose system is Linux
TARGETS = {
    # system: (architecture, how its programs are run here or None)
    "x86_64-linux-musl": ("X86", HERE),
    "aarch64-linux-musl": ("ARM", QEMU),
    "aarch64-linux-gnu": ("ARM", None),  # QEMU would need that system's libraries
    "x86_64-windows-gnu": ("X86", WINE),
    "x86_64-macos": ("X86", None),
    "aarch64-macos": ("ARM", None),
}


def compiler(target: str, folder: Path) -> str:
    """A program that compiles for a system."""
    program = folder / "c++"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ziglang c++ -target {target} "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("target", TARGETS)
def test_the_kernels_compile_and_are_right_where_they_can_run(target, tmp_path):
    architecture, runner = TARGETS[target]
    table = build_settings()[f"{architecture}_TABLE"]
    # Zig's default is to stop at undefined behaviour, which sanitized/ looks for.
    flags = ["-fno-sanitize=undefined", "-Wno-unknown-warning-option"]
    program = build(compiler(target, tmp_path), table, tmp_path, *flags)
    if runner is None:
        pytest.skip(f"compiled, but nothing here runs programs of {target}")
    done = subprocess.run([*filter(None, [runner]), program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sets_checked(done.stdout) <= {name for name, _ in table}
    assert sets_checked(done.stdout) >= {"base"}


@pytest.mark.parametrize("target", [name for name in TARGETS if "windows" not in name])
def test_the_binding_compiles(target, tmp_path):
    """With the headers of this Python, which are not those of Windows."""
    headers = [f"-I{pybind11.get_include()}", f"-isystem{sysconfig.get_path('include')}"]
    compile_all(compiler(target, tmp_path), [ROOT / "csrc" / "bind.cpp"], [], tmp_path, *headers)
