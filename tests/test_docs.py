"""The sources of the documentation are complete: names, links, pages and examples.

`make docs` builds the pages, runs the examples, and fails for any warning. These tests need none of
the packages for that.
"""

import importlib
import re
from pathlib import Path

import pytest

import ekmfast

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Folders that the build writes.
WRITTEN = {"_build", "_generated", "gallery", "generated"}
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if not WRITTEN & set(page.relative_to(DOCS).parts[:-1])
]
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
MODULES = ["anomaly", "autoencoder", "blocks", "dask", "datasets", "metrics", "plotting"]

pytestmark = pytest.mark.skipif(
    not (DOCS / "conf.py").exists(), reason="the documentation does not lie beside these tests"
)


def test_numbers_of_equations_are_those_of_the_page():
    # Sphinx numbers the equations that have labels, in their order on the page.
    labels = re.findall(r"^:label: (\S+)$", (DOCS / "mathematics.md").read_text(), re.MULTILINE)
    numbers = {label: i for i, label in enumerate(labels, 1)}
    cited = [
        (path.name, int(number), label)
        for path in sorted((ROOT / "ekmfast").rglob("*.py"))
        for number, label in re.findall(r"Eq\. (\d+),\s+(eq-[a-z-]+)", path.read_text())
    ]
    assert len(cited) > 10
    wrong = [(name, n, label, numbers.get(label)) for name, n, label in cited
             if numbers.get(label) != n]  # fmt: skip
    assert not wrong


def listed():
    """The names of the API reference."""
    names, module = set(), ""
    for line in (DOCS / "api" / "index.md").read_text().splitlines():
        if found := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.fullmatch(r"   (\w+)", line):
            names.add(f"{module}.{found[1]}")
    return names


def test_api_reference_lists_every_name_of_the_package():
    modules = set(MODULES) | {"__version__"}
    wanted = {f"ekmfast.{name}" for name in ekmfast.__all__ if name not in modules}
    wanted |= {f"ekmfast.{name}" for name in ekmfast._LAZY_NAMES}
    assert {name for name in listed() if name.count(".") == 1} == wanted
    assert set(ekmfast._LAZY_MODULES) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_api_reference_lists_every_name_of_a_module(module):
    if module in ("autoencoder", "dask"):
        pytest.importorskip({"autoencoder": "torch", "dask": "dask"}[module], reason="an extra")
    names = importlib.import_module(f"ekmfast.{module}").__all__
    prefix = f"ekmfast.{module}."
    assert {name for name in listed() if name.startswith(prefix)} == {prefix + n for n in names}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", text):
        assert (page.parent / link).exists(), link


def toctree(page):
    """The pages that the toctrees of a page name."""
    for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line and not line.startswith(":"):
                yield (page.parent / line.strip()).resolve()


def test_every_page_is_in_a_toctree():
    entries = {entry for page in PAGES for entry in toctree(page)}
    pages = {page.with_suffix("").resolve() for page in PAGES}
    assert pages - entries == {DOCS / "index"}
    assert entries - pages == {DOCS / "gallery" / "index"}  # which the build writes


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_examples_compile_and_begin_with_a_title(example):
    text = example.read_text()
    compile(text, example.name, "exec")
    opening, title, line = text.splitlines()[:3]
    assert opening == '"""'
    assert line == "=" * len(title)


@pytest.mark.parametrize("page", ["comparison.md"])
def test_tables_of_results_come_from_files_that_exist(page):
    names = re.findall(r"```\{results\} (\S+)", (DOCS / page).read_text())
    assert names
    for name in names:
        for ending in (".md", ".json"):
            assert (ROOT / "bench" / "results" / (name + ending)).exists(), name
