"""Tables of the values that parameters may have, and the function that checks values against them.

A table maps the name of each parameter to a constraint:

>>> table = {"n_clusters": Integer(1), "alpha": AnyOf(OneOf("auto"), Number(0, open_low=True))}
>>> check_parameters({"n_clusters": 3, "alpha": -1.0}, table)
Traceback (most recent call last):
ValueError: alpha must be 'auto' or a finite number > 0, got -1.0

A value of a wrong type, such as a list for a number, raises a TypeError. A value of the right type
that is not allowed, such as a number out of range or an unknown name, raises a ValueError.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from ekmfast._arguments import shown

# The largest C int, with which PyTorch, NumPy and the kernels count.
MOST = 2**31 - 1

Fault = type[TypeError] | type[ValueError]


class Constraint(ABC):
    """The values that one parameter may have."""

    def check(self, name: str, value: Any) -> Any:
        """The value, converted to the type that the code uses; raises an error if not allowed."""
        fault = self.fault(value)
        if fault is not None:
            raise fault(f"{name} must be {self.allowed(value)}, got {self.given(value)}")
        return self.converted(value)

    def given(self, value: Any) -> str:
        """``value`` as the error message shows it."""
        return shown(value)

    def allowed(self, value: Any = None) -> str:
        """The allowed values in words, for the error message about ``value``."""
        *others, last = self.alternatives(value)
        return f"{', '.join(others)} or {last}" if others else last

    @abstractmethod
    def fault(self, value: Any) -> Fault | None:
        """The class of the error for ``value``; None if it is allowed."""

    @abstractmethod
    def alternatives(self, value: Any) -> list[str]:
        """The parts of `allowed`, which are joined with "or"."""

    def converted(self, value: Any) -> Any:
        return value


class Integer(Constraint):
    """An integer from ``least`` to ``most`` that ``multiple_of`` divides."""

    def __init__(self, least: int, most: float = MOST, *, multiple_of: int = 1) -> None:
        self.least = least
        self.most = most
        self.multiple_of = multiple_of

    def fault(self, value: Any) -> Fault | None:
        number = _as_integer(value)
        if number is None:
            return TypeError
        inside = self.least <= number <= self.most
        return None if inside and number % self.multiple_of == 0 else ValueError

    def alternatives(self, value: Any) -> list[str]:
        if self.least == self.most:
            return [str(self.least)]
        words = f"an integer >= {self.least}"
        if self.multiple_of > 1:
            words = f"a multiple of {self.multiple_of} that is >= {self.least}"
        # The limit of the machine's integers is mentioned only if ``value`` exceeds it.
        number = _as_integer(value)
        beyond = number is not None and number > self.most
        if beyond or self.most not in (MOST, math.inf):
            words += f" and <= {self.most}"
        return [words]

    def converted(self, value: Any) -> int:
        return index(value)


def _as_integer(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_):  # in NumPy 2.0 the latter is still an index
        return None
    try:
        return index(value)
    except TypeError:
        return None


class Number(Constraint):
    """A finite number from ``least`` to ``most``; an open end is itself not allowed."""

    def __init__(
        self,
        least: float,
        most: float = math.inf,
        *,
        open_low: bool = False,
        open_high: bool = False,
    ) -> None:
        self.least = least
        self.most = most
        self.open_low = open_low
        self.open_high = open_high

    def fault(self, value: Any) -> Fault | None:
        if isinstance(value, bool) or not isinstance(value, Real):
            return TypeError
        number = as_float(value)
        low = number > self.least if self.open_low else number >= self.least
        high = number < self.most if self.open_high else number <= self.most
        return None if low and high and math.isfinite(number) else ValueError

    def alternatives(self, value: Any) -> list[str]:
        if self.most == math.inf:
            return [f"a finite number {'>' if self.open_low else '>='} {self.least:g}"]
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return [f"a number in {left}{self.least:g}, {self.most:g}{right}"]

    def converted(self, value: Any) -> float:
        return as_float(value)


def as_float(value: Real) -> float:
    """``float(value)``, or infinity if it is too large for a float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


class OneOf(Constraint):
    """One of some names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def fault(self, value: Any) -> Fault | None:
        if not isinstance(value, str):
            return TypeError
        return None if value in self.names else ValueError

    def alternatives(self, value: Any) -> list[str]:
        return [repr(name) for name in self.names]


class Kind(Constraint):
    """Values for which ``test`` is true, such as the instances of a class; ``words`` name them."""

    def __init__(self, test: Callable[[Any], bool], *words: str) -> None:
        self.test = test
        self.words = words

    def fault(self, value: Any) -> Fault | None:
        return None if self.test(value) else TypeError

    def alternatives(self, value: Any) -> list[str]:
        return list(self.words)


class AnyOf(Constraint):
    """Values that at least one of several constraints allows."""

    def __init__(self, *constraints: Constraint) -> None:
        self.constraints = constraints

    def fault(self, value: Any) -> Fault | None:
        faults = [constraint.fault(value) for constraint in self.constraints]
        if None in faults:
            return None
        # The type of the value is right if it is right for one of the constraints.
        return ValueError if ValueError in faults else TypeError

    def alternatives(self, value: Any) -> list[str]:
        return [words for each in self.constraints for words in each.alternatives(value)]

    def converted(self, value: Any) -> Any:
        taken = next(each for each in self.constraints if each.fault(value) is None)
        return taken.converted(value)


class SequenceOf(Constraint):
    """A sequence of ``length`` values, or of one or more, each of which ``each`` allows."""

    def __init__(self, each: Constraint, length: int | None = None) -> None:
        self.each = each
        self.length = length

    def check(self, name: str, value: Any) -> Any:
        # An iterator can be iterated over only once, so its items are kept in a list.
        return super().check(name, list(value) if isinstance(value, Iterator) else value)

    def fault(self, value: Any) -> Fault | None:
        if isinstance(value, str | bytes) or not isinstance(value, Iterable | Sequence):
            return TypeError
        try:
            faults = [self.each.fault(item) for item in value]
        except TypeError:  # an array without axes is an Iterable, but cannot be iterated over
            return TypeError
        if TypeError in faults:
            return TypeError
        right_length = len(faults) > 0 if self.length is None else len(faults) == self.length
        return ValueError if ValueError in faults or not right_length else None

    def alternatives(self, value: Any) -> list[str]:
        length = "one or more" if self.length is None else str(self.length)
        return [f"a sequence of {length}, each {self.each.allowed()}"]

    def converted(self, value: Any) -> list[Any]:
        return [self.each.converted(item) for item in value]


class FilePath(Constraint):
    """The path of a file, which ``check`` returns as a `pathlib.Path`."""

    def check(self, name: str, value: Any) -> Path:
        return cast(Path, super().check(name, value))

    def fault(self, value: Any) -> Fault | None:
        return None if isinstance(value, str | os.PathLike) else TypeError

    def alternatives(self, value: Any) -> list[str]:
        return ["a str", "a path"]

    def converted(self, value: Any) -> Path:
        return Path(value)


class Later(Constraint):
    """A constraint that is made when it is used, since it needs an optional package."""

    def __init__(self, make: Callable[[], Constraint]) -> None:
        self.make = make

    def fault(self, value: Any) -> Fault | None:
        return self.make().fault(value)

    def alternatives(self, value: Any) -> list[str]:
        return self.make().alternatives(value)

    def converted(self, value: Any) -> Any:
        return self.make().converted(value)


def _is_random_state(value: Any) -> bool:
    # As in scikit-learn, the module means NumPy's global generator.
    return value is np.random or isinstance(value, np.random.RandomState)


# Constraints that several modules use.
NONE = Kind(lambda value: value is None, "None")
BOOLEAN = Kind(lambda value: isinstance(value, bool), "True", "False")
CALLABLE = Kind(callable, "a callable")
PATH = FilePath()
COUNT = Integer(1)
POSITIVE = Number(0, open_low=True)
METRIC = OneOf("euclidean", "cosine")
MISSING = OneOf("error", "partial")
ZERO_ROWS = OneOf("error", "label")
ALPHA = AnyOf(OneOf("auto", "dvariance"), POSITIVE)
# The alpha of estimators that do not search for the best alpha.
DVARIANCE_OR_NUMBER = AnyOf(OneOf("dvariance"), POSITIVE)
# Each of the autoencoder's four convolutions halves the height and width of an image.
IMAGE_SIZE = Integer(16, multiple_of=16)
N_THREADS = AnyOf(NONE, COUNT)
VERBOSE = AnyOf(BOOLEAN, Integer(0))
# Seeds of NumPy's RandomState, which scikit-learn's estimators use, and of NumPy's Generator.
SEED = AnyOf(NONE, Integer(0, 2**32 - 1), Kind(_is_random_state, "a numpy.random.RandomState"))
GENERATOR_SEED = AnyOf(NONE, Integer(0, math.inf))


def check_parameters(
    values: Mapping[str, Any], constraints: Mapping[str, Constraint]
) -> dict[str, Any]:
    """The checked values of all names in ``constraints``, converted as `Constraint.check` does."""
    return {name: each.check(name, values[name]) for name, each in constraints.items()}


def check_seed(random_state: Any) -> np.random.RandomState:
    """The generator for ``random_state``, which may be a seed, a generator or None."""
    from sklearn.utils import check_random_state

    SEED.check("random_state", random_state)
    return cast(np.random.RandomState, check_random_state(random_state))


class Parameters:
    """Mixin of estimators: a class declares the allowed parameters, and ``fit`` checks them."""

    _constraints: ClassVar[dict[str, Constraint]] = {}

    def _check_parameters(self) -> None:
        for name, constraint in self._constraints.items():
            constraint.check(name, getattr(self, name))
