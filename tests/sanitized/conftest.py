"""Fixtures of the tests with sanitizers, which `make test-sanitized` runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from builds import FOLDER, GCC, LIBRARY, MEMORY, PYTHON, THREADS, Build, library_of, require
from test_isa_files import ROOT, build_settings
from test_native import compile_all


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.sanitized)


@pytest.fixture(scope="session")
def memory_build() -> Build:
    """With AddressSanitizer and UndefinedBehaviorSanitizer."""
    folder = FOLDER / "memory"
    require(folder, MEMORY)
    if not library_of("libasan.so"):
        pytest.skip("g++ has no libasan.so, which Python must load first")
    table = build_settings()["ISA_TABLE"]
    sources = [*LIBRARY, ROOT / "csrc" / "bind.cpp"]
    objects = compile_all(GCC, sources, table, folder, *MEMORY, *PYTHON)
    return Build(folder, MEMORY, [o for o in objects if o.name != "bind.o"])


@pytest.fixture(scope="session")
def threads_build() -> Build:
    """With ThreadSanitizer."""
    folder = FOLDER / "threads"
    require(folder, THREADS)
    objects = compile_all(GCC, LIBRARY, build_settings()["ISA_TABLE"], folder, *THREADS)
    return Build(folder, THREADS, objects)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Makes a copy of a source file with a text replaced, to see whether a fault is found."""

    def change(name: str, old: str, new: str) -> Path:
        text = (ROOT / "csrc" / name).read_text()
        assert text.count(old) == 1, f"{name} has changed: plant the fault elsewhere"
        made = tmp_path / name
        made.write_text(text.replace(old, new))
        return made

    return change
