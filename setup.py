"""Builds the extension: one module whose kernels are compiled once for each instruction set.

Everything but the kernels is compiled with the compiler's baseline flags, so that the wheel
runs on any machine of its architecture; the files of ``ISA_TABLE`` alone get the flags of their
instruction set and are entered only after the processor has been asked (``csrc/simd.cpp``).
"""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from pybind11.setup_helpers import build_ext as pybind11_build_ext
from setuptools import setup

# (name, compiler flags, source) of each instruction set, by machine architecture.
# -ffp-contract=fast lets a multiply and an add fuse, which is what these sets are for;
# -Wno-(maybe-)uninitialized hides GCC's bug 105593, in its own header of AVX-512.
X86_TABLE = [
    ("avx2", ["-mavx2", "-mfma", "-ffp-contract=fast"], "csrc/kernels/avx2.cpp"),
    (
        "avx512",
        ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma",
         "-mprefer-vector-width=512", "-ffp-contract=fast",
         "-Wno-maybe-uninitialized", "-Wno-uninitialized"],
        "csrc/kernels/avx512.cpp",
    ),
]  # fmt: skip
ARM_TABLE = [("neon", ["-ffp-contract=fast"], "csrc/kernels/neon.cpp")]
ISA_TABLES = dict.fromkeys(("x86_64", "amd64"), X86_TABLE)
ISA_TABLES |= dict.fromkeys(("aarch64", "arm64"), ARM_TABLE)
ISA_TABLE = ISA_TABLES.get(platform.machine().lower(), [])

CXXFLAGS = ["-O3", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra"]


class build_ext(pybind11_build_ext):  # noqa: N801 - setuptools' name for the command
    """Compile the files of ``ISA_TABLE`` with their own flags, and all files side by side."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        jobs = [(source, []) for source in ext.sources]
        jobs += [(source, flags) for _, flags, source in ISA_TABLE]

        def compile_one(job: tuple[str, list[str]]) -> list[str]:
            source, flags = job
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=ext.define_macros,
                include_dirs=ext.include_dirs,
                extra_postargs=ext.extra_compile_args + flags,
                depends=ext.depends,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [name for names in pool.map(compile_one, jobs) for name in names]
        ext.extra_objects = objects
        # The check for what is up to date sees no sources below: link whenever objects were made.
        self.force = True
        sources, ext.sources = ext.sources, []
        try:
            super().build_extension(ext)
        finally:
            ext.sources = sources


if sys.platform == "win32":
    sys.exit("ekmfast needs GCC or Clang; Windows builds have not been tried.")

core = Pybind11Extension(
    "ekmfast._core",
    sources=[*sorted(str(p) for p in Path("csrc").glob("*.cpp")), "csrc/kernels/base.cpp"],
    depends=sorted(str(p) for p in Path("csrc").rglob("*") if p.suffix in (".h", ".inl")),
    include_dirs=["csrc"],
    define_macros=[("EKMFAST_HAVE_" + name.upper(), "1") for name, _, _ in ISA_TABLE],
    extra_compile_args=CXXFLAGS,
    cxx_std=17,
)

setup(ext_modules=[core], cmdclass={"build_ext": build_ext})
