"""Build the extension: one module whose kernels are compiled once for each instruction set.

Everything but the kernels is compiled with the compiler's baseline flags, so that the wheel runs on
every machine of its architecture. Only the kernels are compiled with the flags of their instruction
set; they are called only if the processor supports it (``csrc/simd/dispatch.cpp``).

The kernels need the vector types of GCC or Clang. On Windows the compiler is therefore clang-cl,
which takes the options of Visual Studio's cl.exe, and those of Clang behind ``/clang:``.
"""

import os
import platform
import re
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pybind11.setup_helpers import Pybind11Extension
from pybind11.setup_helpers import build_ext as pybind11_build_ext
from setuptools import setup

KERNELS = "csrc/kernels/kernels.cpp"
ISA_ROWS = re.findall(  # in the C++ header: architecture, name, compiler flags
    r'^ +(ANY|X86|ARM)\((\w+),((?:\s*"[^"]*")+)',
    Path("csrc/simd/isas.h").read_text().replace("\\\n", "\n"),
    re.MULTILINE,
)


def isa_table(architecture: str) -> list[tuple[str, list[str]]]:
    """Name and compiler flags of each instruction set of an architecture."""
    return [
        (name, [f"-DEKMFAST_ISA={name}", *"".join(re.findall('"([^"]*)"', flags)).split()])
        for where, name, flags in ISA_ROWS
        if where in ("ANY", architecture)
    ]


X86_TABLE, ARM_TABLE = isa_table("X86"), isa_table("ARM")
ISA_TABLES = dict.fromkeys(("x86_64", "amd64"), X86_TABLE)
ISA_TABLES |= dict.fromkeys(("aarch64", "arm64"), ARM_TABLE)


def target() -> str:
    """The architecture to compile for: that of this machine, or on macOS that of ``ARCHFLAGS``."""
    if sys.platform == "darwin":
        # Some interpreters would else compile for both architectures at once.
        archflags = os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")
        names = set(re.findall(r"-arch\s+(\w+)", archflags))
        if len(names) != 1:
            sys.exit(f"ekmfast is compiled for one architecture at a time, not for {archflags!r}.")
        return names.pop()
    return platform.machine().lower()


ISA_TABLE = ISA_TABLES.get(target(), isa_table("ANY"))

VISUAL_STUDIO = sys.platform == "win32" and "mingw" not in sysconfig.get_platform()
if VISUAL_STUDIO:
    CXXFLAGS = ["/W4", "/clang:-O3", "/clang:-fno-math-errno"]  # clang-cl's /W4 is -Wall -Wextra
    ISA_TABLE = [(name, [f"/clang:{flag}" for flag in flags]) for name, flags in ISA_TABLE]
else:
    CXXFLAGS = ["-O3", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra"]


def use_clang_cl(compiler: Any) -> None:
    """Let setuptools' compiler of Visual Studio call clang-cl, which is one of its components."""
    if not compiler.initialized:
        compiler.initialize()
    tools = next((folder for folder in Path(compiler.cc).parents if folder.name == "Tools"), Path())
    folders = [os.environ["PATH"], str(tools / "Llvm" / "x64" / "bin")]
    clang_cl = shutil.which("clang-cl", path=os.pathsep.join(folders))
    if clang_cl is None:
        sys.exit("ekmfast needs clang-cl: Visual Studio's 'C++ Clang tools', or LLVM, on PATH.")
    compiler.cc = clang_cl
    # Code for the linker to optimise, which only cl.exe writes.
    compiler.compile_options = [flag for flag in compiler.compile_options if flag != "/GL"]


class build_ext(pybind11_build_ext):  # noqa: N801 - setuptools' name for the command
    """Compile the kernels once for each row of ``ISA_TABLE``, and all files in parallel."""

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "msvc":
            use_clang_cl(self.compiler)
        super().build_extensions()

    def build_extension(self, ext: Pybind11Extension) -> None:
        jobs = [(source, "", []) for source in ext.sources]
        jobs += [(KERNELS, name, flags) for name, flags in ISA_TABLE]

        def compile_one(job: tuple[str, str, list[str]]) -> list[str]:
            source, folder, flags = job
            return self.compiler.compile(
                [source],
                output_dir=str(Path(self.build_temp, folder)),
                macros=ext.define_macros,
                include_dirs=ext.include_dirs,
                extra_postargs=ext.extra_compile_args + flags,
                depends=ext.depends,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [name for names in pool.map(compile_one, jobs) for name in names]
        ext.extra_objects = objects
        # Without sources, the base class cannot see whether the module is up to date, so linking
        # is forced.
        self.force = True
        sources, ext.sources = ext.sources, []
        try:
            super().build_extension(ext)
        finally:
            ext.sources = sources


core = Pybind11Extension(
    "ekmfast._core",
    sources=[*sorted(str(p) for p in Path("csrc").glob("*.cpp")), "csrc/simd/dispatch.cpp"],
    depends=sorted(str(p) for p in Path("csrc").rglob("*") if p.suffix in (".h", ".inl")),
    include_dirs=["csrc"],
    extra_compile_args=[*CXXFLAGS],
    cxx_std=17,
)

setup(ext_modules=[core], cmdclass={"build_ext": build_ext})
