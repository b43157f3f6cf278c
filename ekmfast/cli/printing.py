"""What the commands print."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# How errors of printing name what they could not print to.
STANDARD_OUTPUT = "standard output"


@contextmanager
def printing() -> Iterator[None]:
    """Name standard output in the errors of printing to it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from None


def say(name: str, value: object) -> None:
    """Print a row of what a command tells, whatever the terminal can show."""
    with printing():
        print(shown(f"{name:10} {value}"))


def shown(text: str) -> str:
    """The text with what stdout cannot encode, such as odd bytes of file names, in escapes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say_clusters(model: Any, sizes: Iterable[int]) -> None:
    """Print the rows that tell how a fit went."""
    rule = f" ({model.alpha})" if isinstance(model.alpha, str) else ""
    say("alpha", f"{model.alpha_:.6g}{rule}")
    say("objective", f"{model.objective_:.8g}")
    say("converged", f"{'yes' if model.converged_ else 'no'}, {model.n_iter_} passes")
    say("clusters", f"{model.n_clusters_effective_} of {model.n_clusters} distinct")
    say("sizes", " ".join(map(str, sizes)))
