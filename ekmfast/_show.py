"""Show the version, the hardware and the compiler of this installation."""

from __future__ import annotations

import platform
from typing import Any, Literal, overload

from ekmfast import _core
from ekmfast._version import __version__
from ekmfast.rows.device import describe_card
from ekmfast.rows.threads import get_num_threads


@overload
def show_config(mode: Literal["print"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dict"]) -> dict[str, Any]: ...


def show_config(mode: str = "print") -> dict[str, Any] | None:
    """Show version, instruction set, threads and compiler.

    Parameters
    ----------
    mode : {'print', 'dict'}, default='print'
        Print to stdout, or return a dictionary.

    Examples
    --------
    >>> import ekmfast
    >>> ekmfast.show_config("dict")["version"] == ekmfast.__version__
    True
    """
    if mode not in ("print", "dict"):
        raise ValueError(f"mode must be 'print' or 'dict', got {mode!r}")
    config: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "isa": _core.isa(),
        "isa_available": _core.available_isas(),
        "n_threads": get_num_threads(),
        "compiler": _core.compiler,
        "gpu": describe_card(),
    }
    if mode == "dict":
        return config
    for key, value in config.items():
        print(f"{key:14} {', '.join(value) if isinstance(value, list) else value}")
    return None
