"""Rows divided by their lengths, for the cosine distance: in memory, sparse, or in blocks.

For rows and centroids of length 1 the squared distance is ``||x - c||^2 = 2 (1 - x . c)``, twice
the cosine distance. Sums, labels and weights are therefore those of the Euclidean distance for rows
of length 1, and only the solver must know that centroids have length 1, too. `UnitRows` holds one
number for each row, by which the kernels multiply the row as they read it, and no copy of X.

Zeros have no direction. Either a row of zeros is an error, or, in the classes whose names begin
with `ZeroOrUnit`, it stays zero, has no weight, and gets the label -1.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.array import ArrayRows
from ekmfast.rows.blocks import Block
from ekmfast.rows.blockwise import BlockRows, label_of_block, weights_of_block
from ekmfast.rows.columns import is_sparse
from ekmfast.rows.limits import name_of
from ekmfast.rows.source import Apply, Check, Source, finite
from ekmfast.rows.sparse import SparseRows
from ekmfast.rows.survey import Survey
from ekmfast.rows.tree import Summable

Float64 = NDArray[np.float64]
S = TypeVar("S", bound=Summable)
R = TypeVar("R")

ZERO_LABEL = -1
NO_DIRECTION = (
    "metric='cosine' needs a row with weight that is not zero, as zeros have no direction: all are "
    "zero"
)
# Numbers of the rows that are copied at a time, for a function of them and for their lengths.
PART_NUMBERS = 1 << 21
LENGTH_NUMBERS = 1 << 17


def is_zero(X: Any) -> NDArray[np.bool_]:
    """Which rows (N,) of an array, or of a CSR matrix in canonical form, hold zeros alone."""
    there = X.tocsr().astype(bool).sum(axis=1) if is_sparse(X) else X.any(axis=1)
    zero: NDArray[np.bool_] = np.asarray(there).ravel() == 0
    return zero


def filled(function: Callable[[Any], NDArray[Any]], value: float, X: Any) -> NDArray[Any]:
    """``function(X)``, a new array, with ``value`` for the rows of zeros."""
    values = function(X)
    values[is_zero(X)] = value
    return values


def inverse_lengths(X: Any, name: str = "X", *, zeros: bool = False) -> NDArray[Any]:
    """``1 / ||x_n||`` (N,) in the dtype of X, an array or a CSR matrix in canonical form.

    With ``zeros`` it is 0 for a row of zeros.

    Raises
    ------
    ValueError
        If a row is zero, unless ``zeros`` are allowed, or not finite, or so long or short that the
        dtype cannot hold its inverse.
    """
    squares = np.empty(X.shape[0])
    step = max(1, LENGTH_NUMBERS // X.shape[1])
    with np.errstate(over="ignore", under="ignore"):
        if is_sparse(X):
            squared = type(X)((X.data.astype(np.float64) ** 2, X.indices, X.indptr), X.shape)
            squares[:] = np.asarray(squared.sum(axis=1)).ravel()
        else:
            for first in range(0, len(X), step):
                some = X[first : first + step].astype(np.float64)
                np.einsum("ij,ij->i", some, some, out=squares[first : first + step])
    lengths = np.sqrt(squares)
    zero = squares == 0
    if zero.any():  # squares of numbers below 1e-162 are zero, too
        zero[zero] = is_zero(X[zero])
    for row in np.flatnonzero(zero)[: 0 if zeros else 1]:
        raise ValueError(
            f"metric='cosine' needs rows that are not zero, as zeros have no direction: row {row} "
            f"of {name} is zero; leave out such rows, or use zero_rows='label'"
        )
    # Squares of these may have overflowed or underflowed; they are computed again, one by one.
    for row in np.flatnonzero(~zero & ~((squares > 1e-290) & (squares < 1e290))):
        lengths[row] = _length(X, int(row), name)
    inverse = np.reciprocal(lengths, where=~zero, out=np.zeros_like(lengths))
    limits = np.finfo(X.dtype)
    bad = np.flatnonzero(~zero & ~((inverse >= limits.tiny) & (inverse <= limits.max)))
    if bad.size:
        first, length = int(bad[0]), float(lengths[bad[0]])
        raise ValueError(
            f"row {first} of {name} has the length {length:.3g}, whose inverse {X.dtype} cannot "
            f"hold: scale the row {'up' if length < 1 else 'down'}"
        )
    return inverse.astype(X.dtype)


def _length(X: Any, row: int, name: str) -> float:
    """The length of one row that is not zero, whatever its size; refuses one not finite."""
    numbers = X[[row]].toarray()[0] if is_sparse(X) else X[row]
    numbers = numbers.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        value, column = name_of(numbers[bad[0]]), int(bad[0])
        raise ValueError(f"{name} must be finite, got {value} in row {row}, column {column}")
    largest = float(np.abs(numbers).max())
    return largest * float(np.linalg.norm(numbers / largest))


def of_one_direction(survey: Survey, dtype: np.dtype[Any]) -> Survey:
    """The survey; that of equal rows if they differ only by the rounding of their numbers.

    Otherwise a fit to rows of one direction would cluster the rounding errors.
    """
    # The mean of sparse rows, in float64, has the rounding errors of a sum.
    rounding = max(4 * float(np.finfo(dtype).eps), 256 * float(np.finfo(np.float64).eps))
    if survey.dispersion > rounding**2:
        return survey
    return replace(survey, dispersion=0.0, low=survey.mean, high=survey.mean)


class UnitRows(ArrayRows):
    """Rows in memory that count as if they were divided by their lengths.

    The parameters are those of `ArrayRows`, and ``factor`` (N,), the inverse lengths of the rows,
    which are computed if they are not given.
    """

    space = "unit"
    factor: NDArray[Any]

    def __init__(self, *given: Any, factor: NDArray[Any] | None = None) -> None:
        super().__init__(*given)
        self.factor = inverse_lengths(self.X) if factor is None else factor

    def survey(self, *, checksum: bool = False) -> Survey:
        return of_one_direction(super().survey(checksum=checksum), self.dtype)

    def part(self, numbers: Any) -> NDArray[Any]:
        part: NDArray[Any] = self.X[numbers] * self.factor[numbers][..., None]
        return part

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]], n_columns: int) -> NDArray[Any]:
        values: NDArray[Any] | None = None
        for first, part in self._numbered_parts():
            found = function(part)
            if values is None:
                values = np.empty((self.n_rows, *found.shape[1:]), found.dtype)
            values[first : first + len(found)] = found
        return np.empty((0, n_columns), self.dtype) if values is None else values

    def parts(self) -> Iterator[NDArray[Any]]:
        for _, part in self._numbered_parts():
            yield part

    def _numbered_parts(self) -> Iterator[tuple[int, NDArray[Any]]]:
        step = max(1, PART_NUMBERS // self.n_features)
        for first in range(0, self.n_rows, step):
            yield first, self.part(slice(first, first + step))

    def _of(
        self,
        X: NDArray[Any],
        sample_weight: NDArray[Any] | None,
        factor: NDArray[Any] | None = None,
    ) -> Self:
        options = self.n_threads, self.weighting, self.fuzzifier
        return type(self)(X, sample_weight, *options, factor=factor)


class UnitSparseRows(SparseRows):
    """Sparse rows of length 1: see `unit_sparse_rows`."""

    space = "unit"

    def survey(self, *, checksum: bool = False) -> Survey:
        return of_one_direction(super().survey(checksum=checksum), self.dtype)


class ZeroOrUnit(ArrayRows):
    """What dense and sparse rows share if some of them may be zero."""

    zero: NDArray[np.bool_]  # (N,), which rows are

    def survey(self, *, checksum: bool = False) -> Survey:
        s = self.sample_weight
        if self.zero.all() or not (s is None or s.any()):
            raise ValueError(NO_DIRECTION)
        return super().survey(checksum=checksum)

    def label(self, centroids: Float64, merged: NDArray[np.intp]) -> NDArray[np.int32]:
        labels = super().label(centroids, merged)
        labels[self.zero] = ZERO_LABEL
        return labels

    def weights(
        self, centroids: Float64, alpha: float, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        out = super().weights(centroids, alpha, out)
        out[self.zero] = 0
        return out

    def take(self, numbers: NDArray[np.intp]) -> Float64:
        """The rows with these numbers; in place of zeros, the first row that is not zero.

        A start takes a row of zeros only if there are fewer other rows than clusters.
        """
        return super().take(np.where(self.zero[numbers], self.zero.argmin(), numbers))


class ZeroOrUnitRows(ZeroOrUnit, UnitRows):
    """Rows in memory divided by their lengths, of which some are zero: see `UnitRows`."""

    def __init__(
        self,
        X: NDArray[Any],
        sample_weight: NDArray[Any] | None = None,
        *options: Any,
        factor: NDArray[Any] | None = None,
    ) -> None:
        factor = inverse_lengths(X, zeros=True) if factor is None else factor
        self.zero = factor == 0
        super().__init__(X, _weight(X, sample_weight, self.zero), *options, factor=factor)


class ZeroOrUnitSparseRows(ZeroOrUnit, UnitSparseRows):
    """Sparse rows of length 1 or 0: see `unit_sparse_rows`."""

    def __init__(self, X: Any, sample_weight: NDArray[Any] | None = None, *options: Any) -> None:
        self.zero = is_zero(X)
        super().__init__(X, _weight(X, sample_weight, self.zero), *options)


def _weight(
    X: Any, sample_weight: NDArray[Any] | None, zero: NDArray[np.bool_]
) -> NDArray[Any] | None:
    """The weights of rows, 0 for rows of zeros; None if all rows count once."""
    if not zero.any():
        return sample_weight
    some = np.ones(1, X.dtype) if sample_weight is None else sample_weight
    weight: NDArray[Any] = np.where(zero, X.dtype.type(0), some)
    return weight


def unit_sparse_rows(X: Any, *options: Any, zeros: bool = False) -> UnitSparseRows:
    """The rows of a CSR matrix divided by their lengths. Only the numbers of X are copied."""
    given = SparseRows(X).X  # checked, without duplicates
    factor = inverse_lengths(given, zeros=zeros)
    numbers = given.data * np.repeat(factor, np.diff(given.indptr))
    scaled = type(given)((numbers, given.indices, given.indptr), shape=given.shape)
    return (ZeroOrUnitSparseRows if zeros else UnitSparseRows)(scaled, *options)


class UnitBlockRows(BlockRows):
    """Rows in blocks, each of which is divided by its length whenever a block is read."""

    space = "unit"
    in_memory: type[ArrayRows] = UnitRows
    zeros = False

    def __init__(self, source: Source, *options: Any) -> None:
        super().__init__(UnitSource(source, self.zeros), *options)

    def survey(self, *, checksum: bool = False) -> Survey:
        return of_one_direction(super().survey(checksum=checksum), self.dtype)


class ZeroOrUnitBlockRows(UnitBlockRows):
    """Rows in blocks divided by their lengths, of which some are zero.

    All blocks have weights, since any of them may have a row of zeros.
    """

    in_memory = ZeroOrUnitRows
    zeros = True
    without_weight = NO_DIRECTION

    def label(self, centroids: Float64, merged: NDArray[np.intp]) -> Any:
        names = merged.astype(np.int32)
        label = partial(label_of_block, centroids, names, self.n_threads, ArrayRows)
        return self.source.map(partial(filled, label, ZERO_LABEL), None, np.int32)

    def weights(self, centroids: Float64, alpha: float) -> Any:
        weights = partial(weights_of_block, centroids, alpha, self.n_threads, ArrayRows)
        return self.map(partial(filled, weights, 0), len(centroids))


class UnitSource:
    """Blocks of another source, whose rows are divided by their lengths.

    With ``zeros`` rows of zeros are allowed, and have no weight.
    """

    def __init__(self, source: Source, zeros: bool = False) -> None:
        self.source, self.zeros = source, zeros
        self.name, self.n_threads = source.name, source.n_threads
        self.n_rows, self.n_features = source.n_rows, source.n_features

    @property
    def feature_names(self) -> list[str] | None:
        return self.source.feature_names

    def first(self, function: Callable[[Block, int], R]) -> R:
        return self.source.first(partial(_of_block, function, self.zeros))

    def sum(self, function: Callable[[Block, int], S]) -> S:
        return self.source.sum(partial(_of_block, function, self.zeros))

    def map(
        self,
        function: Callable[[NDArray[Any]], NDArray[Any]],
        n_columns: int | None,
        dtype: Any,
        check: Check = finite,
    ) -> Any:
        return self.source.map(partial(_of_rows, function, self.zeros), n_columns, dtype, check)

    def each(self, indices: Sequence[int] | None = None) -> Generator[Apply, None, None]:
        with closing(self.source.each(indices)) as blocks:
            for apply in blocks:
                yield partial(_apply, apply, self.zeros)


def _apply(apply: Apply, zeros: bool, function: Callable[[Block, int], R]) -> R:
    result: R = apply(partial(_of_block, function, zeros))
    return result


def _of_block(function: Callable[[Block, int], R], zeros: bool, block: Block, index: int) -> R:
    factor = inverse_lengths(block.X, block.name, zeros=zeros)
    if zeros:
        s = np.ones(1, factor.dtype) if block.sample_weight is None else block.sample_weight
        block = block._replace(sample_weight=s * (factor > 0))
    return function(block._replace(X=block.X * factor[:, None]), index)


def _of_rows(
    function: Callable[[NDArray[Any]], NDArray[Any]], zeros: bool, X: NDArray[Any]
) -> NDArray[Any]:
    return function(X * inverse_lengths(X, "a block", zeros=zeros)[:, None])
