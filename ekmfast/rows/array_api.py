"""Arrays of other libraries in memory of the host: read without a copy, and results of their kind.

Any array that has DLPack is read. Results are arrays of NumPy; after
``sklearn.set_config(array_api_dispatch=True)`` they are of the library of X.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config

from ekmfast.rows.device import is_cuda_array

Method = TypeVar("Method", bound=Callable[..., Any])


def as_numpy(X: Any) -> Any:
    """An array of another library as one of NumPy, which shares its memory; other input as it is.

    What DLPack cannot lend, such as a tensor that needs its gradient, is given back too: the checks
    that follow name the fault.
    """
    if isinstance(X, np.ndarray) or not hasattr(type(X), "__dlpack__") or is_cuda_array(X):
        return X
    try:
        return np.from_dlpack(X)
    except (BufferError, TypeError, ValueError, RuntimeError):
        return X


def of_the_kind_of(X: Any, result: NDArray[Any]) -> Any:
    """The result as an array of the library and on the device of X, where dispatch is on."""
    if not get_config()["array_api_dispatch"] or isinstance(X, np.ndarray) or is_cuda_array(X):
        return result
    if not hasattr(type(X), "__dlpack__"):
        return result
    from sklearn.utils._array_api import get_namespace_and_device

    library, _, device = get_namespace_and_device(X)
    return library.asarray(result, device=device)


def like_x(method: Method) -> Method:
    """Decorate a method of X whose result shall be an array of the same kind."""

    @wraps(method)
    def wrapper(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        return of_the_kind_of(X, method(self, X, *args, **kwargs))

    return cast(Method, wrapper)
