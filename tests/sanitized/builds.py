"""Builds with sanitizers, and how their programs are run.

Each build lies in a folder of its own under ``build/sanitized``, so that the extension that is
installed stays as it is.
"""

import os
import platform
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pybind11
import pytest
from test_isa_files import ROOT
from test_native import DISPATCH, compile_all, run

FOLDER = ROOT / "build" / "sanitized"
GCC = shutil.which("g++")
LIBRARY = [
    *sorted(path for path in (ROOT / "csrc").glob("*.cpp") if path.name != "bind.cpp"),
    ROOT / DISPATCH,
]
COMMON = ["-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-Wno-error"]
MEMORY = ["-fsanitize=address,undefined,float-cast-overflow", *COMMON]
THREADS = ["-fsanitize=thread", *COMMON]
PYTHON = [
    "-fPIC",
    "-fvisibility=hidden",
    f"-I{pybind11.get_include()}",
    f"-I{sysconfig.get_path('include')}",
]
OPTIONS = {
    # Python and NumPy keep much of their memory until the process ends, which would be reported as
    # leaks. A sanitizer must return null for arrays that are too large, as malloc does.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # By default ThreadSanitizer ends a child of a fork that starts threads, as ours do.
    "TSAN_OPTIONS": "die_after_fork=0:halt_on_error=1",
}


def library_of(name: str) -> str:
    """The path of a library of GCC, or an empty string."""
    found = run(GCC, f"-print-file-name={name}").strip()
    return found if os.path.isabs(found) else ""


def require(folder: Path, flags: list[str]) -> None:
    """Skip the tests if no program with this sanitizer can be built and run."""
    if GCC is None:
        pytest.skip("needs g++, whose sanitizers these tests use")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "trial.cpp"
    source.write_text("int main() { return 0; }\n")
    try:
        run(GCC, *flags, source, "-o", folder / "trial")
        run(*fixed_addresses(), folder / "trial")
    except AssertionError as error:
        said = str(error).strip().splitlines() or ["no message"]
        pytest.skip(f"this machine has no {flags[0]}: {said[0]}")


def fixed_addresses() -> list[str]:
    """A command that starts a program at addresses that are not random, if the system allows it.

    Newer Linux kernels choose addresses from a larger range than the sanitizers of GCC 12 know:
    then a program ends with "unexpected memory mapping".
    """
    prefix = ["setarch", platform.machine(), "-R"]
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except OSError:
        allowed = False
    return prefix if allowed else []


@dataclass
class Build:
    """Objects that were compiled with a sanitizer, and programs made of them."""

    folder: Path
    flags: list[str]
    objects: list[Path]

    def link(self, name: str, *sources: Path, instead: tuple[Path, ...] = ()) -> Path:
        """Link sources with the objects, some of which ``instead`` replaces."""
        out = self.folder / name
        out.mkdir(exist_ok=True)
        made = compile_all(GCC, [*sources, *instead], [], out, *self.flags)
        kept = [o for o in self.objects if o.stem not in {path.stem for path in instead}]
        program = out / "program"
        run(GCC, *kept, *made, *self.flags, "-pthread", "-o", program)
        return program

    def package(self, name: str, *instead: Path) -> Path:
        """A folder with a copy of the package whose extension has the sanitizer."""
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(
            ROOT / "ekmfast", out / "ekmfast", ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
        made = compile_all(GCC, list(instead), [], out, *self.flags, *PYTHON) if instead else []
        kept = [o for o in self.objects if o.stem not in {path.stem for path in instead}]
        module = out / "ekmfast" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        bind = self.folder / "bind.o"
        run(GCC, "-shared", bind, *kept, *made, *self.flags, "-pthread", "-o", module)
        return out


def try_to_run(
    *command: object, package: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program, or Python with the package of a folder, with the options of all sanitizers."""
    settings = {**os.environ, **OPTIONS, **environment}
    if package is not None:
        # The library of C++ must come before Python asks for it: otherwise the sanitizer does not
        # find the function that throws exceptions.
        settings["LD_PRELOAD"] = f"{library_of('libasan.so')} {library_of('libstdc++.so')}"
        settings["PYTHONPATH"] = str(package)
    return subprocess.run(
        [*fixed_addresses(), *(str(part) for part in command)],
        env=settings,
        cwd=package,
        capture_output=True,
        text=True,
        timeout=1800,  # a deadlock, not a measure of speed
    )
