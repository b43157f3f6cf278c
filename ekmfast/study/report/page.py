"""Write the page of the report, an HTML file that needs no other files."""

from __future__ import annotations

import base64
from importlib.resources import files
from pathlib import Path
from typing import Any

from ekmfast._files import replace_file
from ekmfast._optional import require
from ekmfast.study.report.methods import CALLS, NAMES
from ekmfast.study.report.readings import Scores, all_readings


def _calls(key: str, draw: str) -> str:
    """The call whose result a row of a table shows, or an empty string."""
    shares = draw.split(":")
    return CALLS.get(key, "").format(k=len(shares), shares=", ".join(shares))


def write_report(results: Scores, pictures: dict[str, Path], path: Path) -> None:
    """Write the report to one HTML file that needs no other files.

    Parameters
    ----------
    results : dict
        The result of `ekmfast.study.run`.
    pictures : dict of str to Path
        PNG files, which are embedded in the page, under the keys "training", "sizes", "path" and
        "tsne"; with classes "confusion", without them "examples"; with anomalies "anomalies" and
        "map".
    path : Path
        File to write.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from ekmfast.study import write_report
    >>> out = Path("demo-out")
    >>> results = json.loads((out / "metrics.json").read_text())  # doctest: +SKIP
    >>> names = ("training", "confusion", "sizes", "path", "tsne", "anomalies", "map")
    >>> pictures = {name: out / f"{name}.png" for name in names}
    >>> write_report(results, pictures, out / "again.html")  # doctest: +SKIP
    """
    template = (files("ekmfast.study.report") / "page.html").read_text("utf-8")
    jinja2: Any = require("jinja2", "demo")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    embedded = {
        name: "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
        for name, file in pictures.items()
    }
    page = environment.from_string(template).render(
        r=results,
        names=NAMES,
        calls=_calls,
        pictures=embedded,
        num=lambda value: f"{value:.2f}",
        pct=lambda value: f"{100 * value:.1f} %",
        **all_readings(results),
    )
    replace_file(path, lambda file: file.write(page.encode("utf-8", "replace")))
