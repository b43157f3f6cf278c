"""The code in the README works as it is pasted, and its names exist."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ekmfast.cli.program import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DEMO = (ROOT / "docs" / "guide" / "demo.md").read_text()


def test_python_runs_as_pasted(torchscript):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks[0].splitlines()) <= 10
    block = "\n".join(blocks)  # one after the other, as a reader pastes them
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # All three clusters are found; the size of the smallest is right within a few points.
    sizes = [int(n) for n in re.findall(r"\d+", done.stdout.splitlines()[0])]
    assert abs(min(sizes) - 50) < 25


def test_relative_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^(?:    )?make (\w+)|`make (\w+)`", README, re.MULTILINE)):
        name = target[0] or target[1]
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_names_in_the_table_exist():
    pytest.importorskip("torch", reason="for ekmfast.autoencoder")
    import ekmfast
    from ekmfast import anomaly, autoencoder

    table = README.split("| you have | use | page |")[1].split("## ")[0]
    for row in table.strip().splitlines()[1:]:
        for name in re.findall(r"`(\w+)`", row.split("|")[2]):
            assert any(hasattr(place, name) for place in (ekmfast, anomaly, autoencoder)), name


def test_figures_are_the_published_ones(monkeypatch):
    # The table of the README is what bench/quick.py reads from the files of results.
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    quick = importlib.import_module("quick")
    assert quick.as_markdown() in README
    assert len(quick.FIGURES) == 10


def test_files_of_the_demo_are_those_that_it_writes():
    from test_cli import FILES

    table = DEMO.split("writes to `demo-out/`:")[1].split("\n\n")[1]
    assert sorted(re.findall(r"`([\w.]+\.\w+)`", table)) == FILES


def test_options_of_the_demo_exist(capsys):
    parsers = build_parser()._subparsers._group_actions[0].choices
    options = {name: set(parsers[name]._option_string_actions) for name in ("demo", "study")}
    demo, study = DEMO.split("## Your photos")
    assert set(re.findall(r"--[a-z][\w-]*", demo)) == {"--out", "--seed"} <= options["demo"]
    told = set(re.findall(r"--[a-z][\w-]*", study))
    assert {"--anomalies", "--classes", "--shares", "--full", "--quiet"} <= told <= options["study"]
