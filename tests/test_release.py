"""What is built and published: cibuildwheel's table, the workflows, and setup.py elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from test_isa_files import ROOT, build_settings

import ekmfast

WORKFLOWS = ROOT / ".github" / "workflows"

pytestmark = pytest.mark.skipif(not WORKFLOWS.is_dir(), reason="needs a checkout")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def workflow(name):
    # YAML reads the key "on" as the truth value.
    text = (WORKFLOWS / f"{name}.yml").read_text()
    return {"on" if key is True else key: value for key, value in yaml.safe_load(text).items()}


def built(project):
    """The Pythons of cibuildwheel's table, as 3.14t."""
    names = project["tool"]["cibuildwheel"]["build"].split()
    pairs = [re.fullmatch(r"cp3(\d+)(t?)-\*", name).groups() for name in names]
    return {f"3.{minor}{threads}" for minor, threads in pairs}


def run_by_workflows():
    """The Pythons of the workflow of tests on Linux."""
    jobs = workflow("test")["jobs"]
    matrix = jobs["core"]["strategy"]["matrix"]
    added = {row["python"] for row in matrix["include"] if row["os"].startswith("ubuntu")}
    return {*jobs["linux"]["strategy"]["matrix"]["python"], *added}


def test_the_same_pythons_are_promised_built_and_tested(project):
    classifiers = project["project"]["classifiers"]
    pattern = r"Programming Language :: Python :: (3\.\d+)"
    promised = {match[1] for name in classifiers if (match := re.fullmatch(pattern, name))}
    assert {name.rstrip("t") for name in built(project)} == promised
    assert run_by_workflows() == built(project)
    lowest = min(promised, key=lambda name: int(name.partition(".")[2]))
    assert project["project"]["requires-python"] == f">={lowest}"


def test_each_architecture_of_the_table_is_built_on_a_machine_of_its_own(project):
    table = project["tool"]["cibuildwheel"]
    wanted = {
        (name, arch) for name in ("linux", "macos", "windows") for arch in table[name]["archs"]
    }
    rows = workflow("wheels")["jobs"]["wheels"]["strategy"]["matrix"]["include"]
    assert sorted((row["platform"], row["archs"]) for row in rows) == sorted(wanted)


def test_the_tests_of_wheels_need_nothing_else(project, tmp_path):
    """They are collected in a folder of their own: no module and no fixture is missing."""
    command = [sys.executable, ROOT / ".ci" / "copy_tests.py", tmp_path]
    subprocess.run(command, check=True, cwd=ROOT)
    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert copied == set(project["tool"]["cibuildwheel"]["test-sources"])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(ekmfast.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stdout


def test_only_a_tag_of_this_version_is_published():
    steps = workflow("wheels")["jobs"]
    publish = steps["publish"]
    assert publish["if"] == steps["tag"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(publish["needs"]) == set(steps) - {"publish"}
    assert publish["environment"]["name"] == "pypi"
    assert publish["permissions"] == {"id-token": "write"}
    for tag, allowed in ((f"v{ekmfast.__version__}", True), ("v99.0", False), ("v", False)):
        check = [sys.executable, ROOT / ".ci" / "check_tag.py", tag]
        assert (subprocess.run(check, capture_output=True).returncode == 0) == allowed, tag


@pytest.mark.parametrize("name", sorted(path.stem for path in WORKFLOWS.glob("*.yml")))
def test_workflows_may_only_read_and_name_versions(name):
    """Actions are pinned by their major version; runners are not the moving "latest"."""
    content = workflow(name)
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert "latest" not in str(job.get("runs-on")) + str(job.get("strategy"))
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/-]+@(v\d+|release/v\d+)", step.get("uses", "a/b@v1"))


@pytest.mark.parametrize(
    ("archflags", "isas"),
    [("-arch x86_64", ["base", "avx2", "avx512"]), ("-arch arm64", ["base", "neon"]), (None, None)],
)
def test_macos_is_compiled_for_one_architecture(monkeypatch, archflags, isas):
    monkeypatch.setattr(sys, "platform", "darwin")
    if archflags is None:
        monkeypatch.setenv("ARCHFLAGS", "-arch arm64 -arch x86_64")
        with pytest.raises(SystemExit, match="one architecture at a time"):
            build_settings()
    else:
        monkeypatch.setenv("ARCHFLAGS", archflags)
        assert [name for name, _ in build_settings()["ISA_TABLE"]] == isas


@pytest.fixture
def settings_of_windows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        patch.setattr("sysconfig.get_platform", lambda: "win-amd64")
        patch.setattr("platform.machine", lambda: "AMD64")
        return build_settings()


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_clang_cl_takes_the_flags(settings_of_windows, tmp_path):
    """Its driver is part of every Clang; a program that only reads compiles without headers."""
    clang_cl = tmp_path / "clang-cl"
    clang_cl.symlink_to(shutil.which("clang"))
    source = tmp_path / "reads.cpp"
    source.write_text(
        "#if !defined(__AVX2__) || defined(__OPTIMIZE_SIZE__) || !defined(__OPTIMIZE__)\n"
        "#error flags\n#endif\nint EKMFAST_ISA;\n"
    )
    table = dict(settings_of_windows["ISA_TABLE"])
    assert list(table) == ["base", "avx2", "avx512"]
    windows = ["--target=x86_64-pc-windows-msvc", "/c", "/O2", "/std:c++17", "/EHsc", "/WX"]
    for name, compiles in (("avx2", True), ("avx512", True), ("base", False)):
        done = subprocess.run(
            [clang_cl, *windows, *settings_of_windows["CXXFLAGS"], *table[name],
             "-Wno-unknown-warning-option", source, f"/Fo{tmp_path / name}.obj"],
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert (done.returncode == 0) == compiles, done.stderr


def test_setuptools_class_for_visual_studio_calls_clang_cl(
    settings_of_windows, tmp_path, monkeypatch
):
    class Compiler:
        initialized = False
        compile_options = ("/nologo", "/O2", "/GL")

        def initialize(self):
            self.cc = str(tmp_path / "VC" / "Tools" / "MSVC" / "14" / "bin" / "cl.exe")

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="needs clang-cl"):
        settings_of_windows["use_clang_cl"](Compiler())
    folder = tmp_path / "VC" / "Tools" / "Llvm" / "x64" / "bin"
    folder.mkdir(parents=True)
    (folder / "clang-cl").touch(mode=0o755)
    compiler = Compiler()
    settings_of_windows["use_clang_cl"](compiler)
    assert compiler.cc == str(folder / "clang-cl")
    assert list(compiler.compile_options) == ["/nologo", "/O2"]
