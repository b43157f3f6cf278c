"""Functions by which commands print their results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# The name of the file in errors of printing.
STANDARD_OUTPUT = "standard output"


@contextmanager
def printing() -> Iterator[None]:
    """Give errors of printing the file name `STANDARD_OUTPUT`, by which `main` recognizes them."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from None


def say(name: str, value: object) -> None:
    """Print a line with a name and a value; characters that stdout lacks are escaped."""
    with printing():
        print(shown(f"{name:10} {value}"))


def counted(number: int, one: str, more: str) -> str:
    """A number and what it counts."""
    return f"{number} {one if number == 1 else more}"


def shown(text: str) -> str:
    """The text, where characters that stdout cannot encode are replaced by escapes.

    Such characters come, for instance, from file names that are not valid UTF-8.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say_clusters(model: Any, sizes: Iterable[int]) -> None:
    """Print the alpha, objective, convergence and sizes of a fit."""
    rule = f" ({model.alpha})" if isinstance(model.alpha, str) else ""
    say("alpha", f"{model.alpha_:.6g}{rule}")
    say("objective", f"{model.objective_:.8g}")
    passes = counted(model.n_iter_, "pass", "passes")
    say("converged", f"{'yes' if model.converged_ else 'no'}, {passes}")
    say("clusters", f"{model.n_clusters_effective_} of {len(model.cluster_centers_)} distinct")
    say("sizes", " ".join(map(str, sizes)))
