"""Import optional dependencies, or say how to install them."""

from importlib import import_module
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Dotted name of the module, such as ``"PIL.Image"``.
    extra : str
        Extra of ekmfast that installs it, such as ``"torch"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If the package is not installed; the message names the extra to install. An installed
        package that fails on import raises its own error.

    Examples
    --------
    >>> from ekmfast._optional import require
    >>> require("json", "torch").__name__
    'json'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f'{package} is needed here and is not installed: pip install "ekmfast[{extra}]"',
            name=package,
        ) from error
