"""The source distribution, the wheel, and the time of an import."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import ekmfast

ROOT = Path(__file__).resolve().parents[1]
# Files of the package that are not modules.
PACKAGE_FILES = {"ekmfast/py.typed", "ekmfast/_core.pyi", "ekmfast/study/report/page.html"}
TEST_FILES = {".py", ".json", ".npz", ".cpp"}
BUILD_FILES = ["setup.py", "pyproject.toml", "Makefile", "MANIFEST.in"]

needs_checkout = pytest.mark.skipif(
    not (ROOT / "csrc").is_dir(), reason="the sources do not lie beside these tests"
)

BUILD = """
import os, sys
from setuptools import build_meta
os.chdir(sys.argv[1])
print(getattr(build_meta, "build_" + sys.argv[2])(sys.argv[3]))
"""

STEP = """
import json, importlib.metadata, numpy as np, ekmfast
X = np.array([[100.0], [101.0], [102.0], [110.0], [111.0]], dtype=np.float32)
C = np.array([[105.0], [1000.0]])
for _ in range(2):
    C, objective = ekmfast.ekm_step(X, C, 2.0)
version = importlib.metadata.version("ekmfast")
print(json.dumps([ekmfast.__file__, version, C.ravel().tolist()]))
"""


def run(*args, **kwargs):
    done = subprocess.run(
        [str(a) for a in args], capture_output=True, text=True, check=False, **kwargs
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def build(kind, source, out):
    """Call the build backend as pip and build do, without their isolated environment."""
    out.mkdir()
    name = run(sys.executable, "-c", BUILD, source, kind, out).split()[-1]
    return out / name


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    pytest.importorskip("setuptools")
    pytest.importorskip("pybind11")
    tmp = tmp_path_factory.mktemp("sdist")
    # A copy, so that neither the checkout's build folder nor its objects take part.
    shutil.copytree(
        ROOT,
        tmp / "source",
        ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__",
                                      "demo-out", "results", "shared"),
    )  # fmt: skip
    return build("sdist", tmp / "source", tmp / "dist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp, filter="data")
    (source,) = tmp.iterdir()
    return build("wheel", source, tmp / "dist")


@needs_checkout
def test_sdist_holds_what_a_build_needs(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "csrc").rglob("*")
        if path.suffix in (".cpp", ".h", ".inl")
    }
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ekmfast").rglob("*.py")}
    assert {Path(name).suffix for name in sources} == {".cpp", ".h", ".inl"}
    wanted = sources | modules | {*BUILD_FILES, "LICENSE", "README.md", "constraints.txt"}
    wanted |= PACKAGE_FILES
    tests = [path for path in (ROOT / "tests").rglob("*") if path.suffix in TEST_FILES]
    wanted |= {str(path.relative_to(ROOT)) for path in tests}
    assert wanted <= names
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o"))]


@needs_checkout
def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(n for n in names if n.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ekmfast").rglob("*.py")}
    assert modules | PACKAGE_FILES <= names
    assert len([n for n in names if re.fullmatch(r"ekmfast/_core\..*\.so", n)]) == 1
    assert {n.split("/")[0].partition("-")[0] for n in names} == {"ekmfast"}
    assert not [n for n in names if n.endswith((".cpp", ".h", ".inl", ".o", ".pyc"))]
    assert f"\nVersion: {ekmfast.__version__}\n" in text
    assert any("LICENSE" in n for n in names)
    assert wheel.stat().st_size < 3e6


@needs_checkout
def test_wheel_works_without_a_compiler(wheel, tmp_path):
    # The dependencies are this environment's, on a path behind the new one's own packages.
    # A .pth file among those would be read only in site-packages: no editable ekmfast leaks in.
    env_dir = tmp_path / "env"
    venv.create(env_dir, with_pip=False, symlinks=True)
    python = env_dir / "bin" / "python"
    purelib = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    env = {"PATH": str(env_dir / "bin"), "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    assert shutil.which("c++", path=env["PATH"]) is shutil.which("cc", path=env["PATH"]) is None
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        "--no-cache-dir", wheel, env=env, cwd=tmp_path)  # fmt: skip
    dependencies = {str(Path(np.__file__).parents[1])}
    for name in ("scipy", "sklearn", "threadpoolctl", "joblib"):
        dependencies.add(
            str(
                Path(pytest.importorskip(name).__file__).parents[
                    0 if name == "threadpoolctl" else 1
                ]
            )
        )
    (purelib / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")

    file, version, centroids = json.loads(run(python, "-c", STEP, env=env, cwd=tmp_path))
    assert Path(file).is_relative_to(purelib)
    assert version == ekmfast.__version__
    np.testing.assert_allclose(centroids, [101, 110.5], rtol=1e-5)


@needs_checkout
def test_build_files_ask_for_nothing_unportable():
    paths = [ROOT / name for name in BUILD_FILES] + [
        p for p in (ROOT / "csrc").rglob("*") if p.is_file()
    ]
    for path in paths:
        text = path.read_text()
        for flag in ("march=native", "mtune=native", "ffast-math", "Ofast", "ffinite-math"):
            assert flag not in text, f"{flag} in {path.name}"


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+([.a-z]\w*)?", ekmfast.__version__)
    assert ekmfast.show_config("dict")["version"] == ekmfast.__version__


def test_import_brings_no_optional_package():
    optional = ["torch", "numba", "dask", "matplotlib", "pandas", "kornia", "skimage", "onnx"]
    optional += ["scipy", "sklearn"]  # only the estimators need these
    code = f"import sys, ekmfast; print([m for m in {optional} if m in sys.modules])"
    assert run(sys.executable, "-c", code).strip() == "[]"


@needs_checkout
def test_constraints_pin_every_extra_that_the_makefile_installs():
    import tomllib

    with open(ROOT / "pyproject.toml", "rb") as file:
        config = tomllib.load(file)
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.partition("==")[0].lower() for line in lines if "==" in line}
    wanted = config["build-system"]["requires"] + config["project"]["dependencies"]
    for extra in ("torch", "plot", "demo", "test", "bench", "docs"):
        wanted += config["project"]["optional-dependencies"][extra]
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in wanted}
    # Builds of torch with CUDA name the version of cuda-toolkit themselves.
    assert names - {"ekmfast", "cuda-toolkit"} <= pins
