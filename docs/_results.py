"""Tables and pictures of bench/results, read while the pages are built and never copied by hand.

The directive ``results`` shows a table of ``bench/results/NAME.md`` and below it the processor, the
instruction set, the compiler and the commit that ``NAME.json`` names:

    ```{results} quality-families
    :table: 2
    :columns: 1 4 5 6
    :where: ^gaussian
    :best: 2 3 4
    ```

``table`` counts the tables of the file from 1. ``columns`` are the columns shown, and ``where`` is
a regular expression that the first cell of the rows shown matches; without them all are shown. Of
the columns ``best``, counted among those shown, the largest number of each row is bold.

``results-picture`` draws one of ``PICTURES``, the text of the directive is its description.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ekmfast.plotting import PALETTE, new_figure

BENCH = Path(__file__).parent.parent / "bench"
RESULTS = BENCH / "results"
KERNELS = "kernels-epyc-zen5-avx512"


def read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def facts(name: str) -> str:
    """The machine, compiler and commit of a measurement, as one line."""
    machine = read(name)["machine"]
    build = machine["ekmfast"]
    parts = [
        *([machine["card"]] if "card" in machine else []),
        f"{machine['cpu']} with {machine['cpu_count']} processors",
        build["isa"].upper(),
        build["compiler"],
        f"commit {machine['commit']}" + (" with changes" if machine["uncommitted"] else ""),
        f"bench/results/{name}.json",
    ]
    return ", ".join(parts)


def tables(name: str) -> list[list[list[str]]]:
    """The tables of a file in Markdown, each as rows of cells of which the first is the header."""
    found: list[list[list[str]]] = []
    inside = False
    for line in (RESULTS / f"{name}.md").read_text().splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not inside:
            found.append([])
        inside = True
        if set("".join(cells)) - set("-: "):
            found[-1].append(cells)
    return found


class Results(SphinxDirective):
    """A table of a file in bench/results."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Callable[[str], Any]]] = {
        "table": int,
        "columns": lambda text: [int(number) - 1 for number in text.split()],
        "where": re.compile,
        "best": lambda text: [int(number) - 1 for number in text.split()],
    }

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        for ending in (".md", ".json"):
            self.env.note_dependency(str(RESULTS / f"{name}{ending}"))
        header, *rows = tables(name)[self.options.get("table", 1) - 1]
        if "where" in self.options:
            rows = [row for row in rows if self.options["where"].search(row[0])]
        if not rows:
            raise self.error(f"no row of {name} fits")
        columns = self.options.get("columns", range(len(header)))
        shown = [[row[column] for column in columns] for row in [header, *rows]]
        best = self.options.get("best", [])
        return [_table(shown, best), nodes.paragraph("", facts(name), classes=["facts"])]


def _table(lines: list[list[str]], best: list[int]) -> nodes.table:
    width = len(lines[0])
    group = nodes.tgroup("", cols=width)
    group += [nodes.colspec(colwidth=1) for _ in range(width)]
    group += nodes.thead("", _row(lines[0], set()))
    body = nodes.tbody()
    for cells in lines[1:]:
        # A cell such as "0.74 +- 0.02" begins with its number.
        values = {i: float(cells[i].strip("*").split()[0]) for i in best}
        body += _row(cells, {i for i in values if values[i] == max(values.values())})
    group += body
    return nodes.table("", group, classes=["results"])


def _row(cells: list[str], bold: set[int]) -> nodes.row:
    row = nodes.row()
    for i, cell in enumerate(cells):
        text = re.sub(r"\*\*|`", "", cell)
        inner = nodes.strong("", text) if i in bold else nodes.Text(text)
        row += nodes.entry("", nodes.paragraph("", "", inner))
    return row


METHODS = {
    "EquilibriumMixture": PALETTE[2],
    "EKM": PALETTE[0],
    "KMeans": PALETTE[1],
    "GaussianMixture": PALETTE[3],
}


def clusters() -> Any:
    """Mean ARI of each method on each family of problems and on codes, with standard errors."""
    rows = read("quality-shapes-families")["rows"]
    groups = {
        family: [row for row in rows if row["family"] == family]
        for family in dict.fromkeys(row["family"] for row in rows)
    }
    groups["codes of an encoder"] = read("quality-shapes-codes")["rows"]
    figure, grid = new_figure(8, 3.6)
    axes = grid[0, 0]
    for i, (method, colour) in enumerate(METHODS.items()):
        scores = [[row["results"][method]["ARI"] for row in group] for group in groups.values()]
        at = np.arange(len(groups)) + (i - 1.5) * 0.2
        errors = [np.std(values, ddof=1) / len(values) ** 0.5 for values in scores]
        axes.bar(at, [np.mean(values) for values in scores], 0.19, color=colour, label=method,
                 yerr=errors, error_kw={"linewidth": 1, "ecolor": "#333333"})  # fmt: skip
    labels = [f"{name}\n{len(group)} problems" for name, group in groups.items()]
    axes.set_xticks(range(len(groups)), labels)
    axes.set_ylabel("mean ARI")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def kernels() -> Any:
    """The time of an iteration of other packages divided by ours."""
    sys.path.insert(0, str(BENCH))
    import kernel_report

    return kernel_report.draw_peers(read(KERNELS)["rows"])


def default_fit() -> Any:
    """Seconds against ARI of the calls that people make."""
    sys.path.insert(0, str(BENCH))
    import default_fit

    return default_fit.draw(read("default-fit")["rows"])


def fit_time() -> Any:
    """Seconds until a fit has ended."""
    rows = read("fit-time")["rows"]
    names = list(rows[0]["seconds"])
    figure, grid = new_figure(8, 3.2)
    axes = grid[0, 0]
    for i, row in enumerate(rows):
        seconds = [np.median(row["seconds"][name]) for name in names]
        at = np.arange(len(names)) + (i - 1) * 0.27
        label = f"{row['set'].rpartition('-')[0]}, K = {row['k']}, D = {row['d']}"
        axes.plot(seconds, at, "o", color=PALETTE[i], label=label)
        for x, y in zip(seconds, at, strict=True):
            text = f"{x:.0f}" if x > 10 else f"{x:.2g}"
            axes.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("seconds; each line is ten times the last one")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def anomalies() -> Any:
    """AUC of each detector on each problem, from the worst problem to the best one."""
    figure, grid = new_figure(8, 3.6, columns=2, sharey=True)
    sources = {
        "tables": ("anomaly-features", "EKMeansDetector"),
        "images of digits": ("anomaly-images", "AutoencoderDetector, reconstruction"),
    }
    for axes, (title, (name, ours)) in zip(grid[0], sources.items(), strict=True):
        rows = [row for row in read(name)["rows"] if row["method"] != "AutoencoderDetector, codes"]
        methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != ours]
        for method, colour in zip([ours, *methods], PALETTE[:6] + PALETTE[7:], strict=False):
            by_problem: dict[str, list[float]] = {}
            for row in rows:
                if row["method"] == method:
                    problem = f"{row['group']} {row['problem']}"
                    by_problem.setdefault(problem, []).append(row["auc"])
            scores = np.sort([np.mean(values) for values in by_problem.values()])
            share = (np.arange(len(scores)) + 0.5) / len(scores)
            width = 2.6 if method == ours else 1.2
            axes.plot(share, scores, color=colour, linewidth=width, label=method)
        axes.set_title(f"{title}: {len(scores)} problems", fontsize=10)
        axes.set_xlabel("share of the problems with a lower AUC")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False, loc="lower right")
    grid[0, 0].set_ylabel("AUC")
    return figure


# The function that draws each picture, and the files whose numbers it shows.
PICTURES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "clusters": (clusters, ["quality-shapes-families", "quality-shapes-codes"]),
    "kernels": (kernels, [KERNELS]),
    "default-fit": (default_fit, ["default-fit"]),
    "fit-time": (fit_time, ["fit-time"]),
    "anomalies": (anomalies, ["anomaly-features", "anomaly-images"]),
}


class ResultsPicture(SphinxDirective):
    """A picture of the numbers in bench/results."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        draw, sources = PICTURES[name]
        for source in sources:
            self.env.note_dependency(str(RESULTS / f"{source}.json"))
        folder = Path(self.env.srcdir) / "_generated"
        folder.mkdir(exist_ok=True)
        draw().savefig(folder / f"{name}.png", dpi=150)
        image = nodes.image(uri=f"/_generated/{name}.png", alt=" ".join(self.content))
        origin = "; ".join(map(facts, sources))
        return [image, nodes.paragraph("", origin, classes=["facts"])]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("results", Results)
    app.add_directive("results-picture", ResultsPicture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
