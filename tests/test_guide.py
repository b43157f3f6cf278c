"""The code on the pages of the documentation works as it is pasted, and prints what they show."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.mixture import GaussianMixture

import ekmfast
from ekmfast import EKMeans, EquilibriumMixture, MiniBatchEKMeans, SemiSupervisedEKMeans
from ekmfast.anomaly import EKMeansDetector
from ekmfast.datasets import make_imbalanced_blobs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NAMED = ("install", "start", "mathematics", "glossary", "faq", "moving")
PAGES = [
    *(f"{name}.md" for name in NAMED),
    *sorted(f"guide/{p.name}" for p in DOCS.glob("guide/*.md")),
]
# Optional packages without which the code of a page cannot run.
NEEDS = {
    "guide/alpha.md": ("matplotlib",),
    "guide/anomalies.md": ("torch",),
    "guide/images.md": ("torch", "kornia", "mlxtend", "skimage"),
    "guide/large_data.md": ("dask",),
}
# A block of code, and the block of text that shows its output, if one follows at once.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
END = "\x1e"  # printed after each block


def blocks_of(page):
    return BLOCK.findall((DOCS / page).read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)])
def test_code_runs_as_pasted(page, tmp_path):
    for package in NEEDS.get(page, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the code of {page} needs {package}")
    blocks = blocks_of(page)
    # One after the other in one program, as a reader pastes them.
    program = "".join(f"{code}\nprint({END!r})\n" for code, _ in blocks)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        # One thread of OpenMP: where models are small and processors busy, the threads of PyTorch
        # wait for each other more than they compute.
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = [part.strip() for part in done.stdout.split(END)[:-1]]
    assert len(printed) == len(blocks)
    for (code, shown), output in zip(blocks, printed, strict=True):
        if shown:
            assert output == shown.strip(), code


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (DOCS / page).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        target, _, anchor = link.partition("#")
        there = (DOCS / page).parent / target if target else DOCS / page
        assert there.exists(), link
        if anchor:
            assert anchor in anchors(there), link


def anchors(page):
    """The anchors that GitHub and MyST make of the headings of a page, and its explicit ones."""
    text = page.read_text()
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_tables_fit_on_a_phone(page):
    for row in re.findall(r"^\|.*\|$", (DOCS / page).read_text(), re.MULTILINE):
        cells = re.sub(r"\\\||`[^`]*`", "", row).count("|") - 1
        assert cells <= 4, row


def names_of(estimator):
    """Parameters, methods, and attributes of a fitted estimator."""
    return set(estimator.get_params()) | set(dir(estimator))


@pytest.mark.parametrize(
    ("section", "theirs", "ours"),
    [
        ("scikit-learn's KMeans", KMeans(3, n_init=2), EKMeans(3)),
        ("scikit-learn's MiniBatchKMeans", MiniBatchKMeans(3, n_init=2), MiniBatchEKMeans(3)),
        ("scikit-learn's GaussianMixture", GaussianMixture(3), EquilibriumMixture(3)),
        ("sklekmeans", None, SemiSupervisedEKMeans(3)),
        ("PyOD", None, EKMeansDetector()),
    ],
)
def test_names_in_the_tables_of_moving_exist(section, theirs, ours):
    """Of packages that are not among the project's, only the names of ours are checked."""
    X, _ = make_imbalanced_blobs(sizes=(300, 30, 60))
    known = [None if theirs is None else names_of(theirs.fit(X)), names_of(ours.fit(X))]
    text = (DOCS / "moving.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)[2:]]
    assert rows
    packages = {*ekmfast.__all__, *ekmfast.anomaly.__all__}
    for row in rows:
        for cell, names in zip(row[:2], known, strict=True):
            for name in re.findall(r"`-?(\w+)(?:=[^`(]*|\([^`(]*\))?`", cell):
                assert names is None or name in names | packages, name
