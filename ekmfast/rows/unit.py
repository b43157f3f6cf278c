"""Rows divided by their lengths, for the cosine distance: in memory, sparse, or in blocks.

For rows and centroids of length 1 the squared distance is ``||x - c||^2 = 2 (1 - x . c)``, twice
the cosine distance. Sums, labels and weights are therefore those of the Euclidean distance for rows
of length 1, and only the solver must know that centroids have length 1, too. `UnitRows` holds one
number for each row, by which the kernels multiply the row as they read it, and no copy of X.
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
from ekmfast.rows.blockwise import BlockRows
from ekmfast.rows.columns import is_sparse
from ekmfast.rows.limits import name_of
from ekmfast.rows.source import Apply, Source
from ekmfast.rows.sparse import SparseRows
from ekmfast.rows.survey import Survey
from ekmfast.rows.tree import Summable

S = TypeVar("S", bound=Summable)
R = TypeVar("R")

# Numbers of the rows that are copied at a time, for a function of them and for their lengths.
PART_NUMBERS = 1 << 21
LENGTH_NUMBERS = 1 << 17


def inverse_lengths(X: Any, name: str = "X") -> NDArray[Any]:
    """``1 / ||x_n||`` (N,) in the dtype of X, an array or a CSR matrix in canonical form.

    Raises
    ------
    ValueError
        If a row is zero or not finite, or so long or short that the dtype cannot hold its inverse.
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
    # Squares of these may have overflowed or underflowed; they are computed again, one by one.
    for row in np.flatnonzero(~((squares > 1e-290) & (squares < 1e290))):
        lengths[row] = _length(X, int(row), name)
    inverse = np.reciprocal(lengths)
    limits = np.finfo(X.dtype)
    bad = np.flatnonzero(~((inverse >= limits.tiny) & (inverse <= limits.max)))
    if bad.size:
        first, length = int(bad[0]), float(lengths[bad[0]])
        raise ValueError(
            f"row {first} of {name} has the length {length:.3g}, whose inverse {X.dtype} cannot "
            f"hold: scale the row {'up' if length < 1 else 'down'}"
        )
    return inverse.astype(X.dtype)


def _length(X: Any, row: int, name: str) -> float:
    """The length of one row, whatever its size; refuses a row that is zero or not finite."""
    numbers = X[[row]].toarray()[0] if is_sparse(X) else X[row]
    numbers = numbers.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        value, column = name_of(numbers[bad[0]]), int(bad[0])
        raise ValueError(f"{name} must be finite, got {value} in row {row}, column {column}")
    largest = float(np.abs(numbers).max())
    if largest == 0:
        raise ValueError(
            f"metric='cosine' needs rows that are not zero, as zeros have no direction: row {row} "
            f"of {name} is zero; leave out such rows"
        )
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

    def reweighted(self, sample_weight: NDArray[Any] | None) -> Self:
        return type(self)(self.X, sample_weight, self.n_threads, factor=self.factor)

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


def unit_sparse_rows(X: Any, *options: Any) -> UnitSparseRows:
    """The rows of a CSR matrix divided by their lengths. Only the numbers of X are copied."""
    given = SparseRows(X).X  # checked, without duplicates
    factor = inverse_lengths(given)
    numbers = given.data * np.repeat(factor, np.diff(given.indptr))
    scaled = type(given)((numbers, given.indices, given.indptr), shape=given.shape)
    return UnitSparseRows(scaled, *options)


class UnitBlockRows(BlockRows):
    """Rows in blocks, each of which is divided by its length whenever a block is read."""

    space = "unit"
    in_memory = UnitRows

    def __init__(self, source: Source, *options: Any) -> None:
        super().__init__(UnitSource(source), *options)

    def survey(self, *, checksum: bool = False) -> Survey:
        return of_one_direction(super().survey(checksum=checksum), self.dtype)


class UnitSource:
    """Blocks of another source, whose rows are divided by their lengths."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name, self.n_threads = source.name, source.n_threads
        self.n_rows, self.n_features = source.n_rows, source.n_features

    @property
    def feature_names(self) -> list[str] | None:
        return self.source.feature_names

    def first(self, function: Callable[[Block, int], R]) -> R:
        return self.source.first(partial(_of_block, function))

    def sum(self, function: Callable[[Block, int], S]) -> S:
        return self.source.sum(partial(_of_block, function))

    def map(
        self, function: Callable[[NDArray[Any]], NDArray[Any]], n_columns: int | None, dtype: Any
    ) -> Any:
        return self.source.map(partial(_of_rows, function), n_columns, dtype)

    def each(self, indices: Sequence[int] | None = None) -> Generator[Apply, None, None]:
        with closing(self.source.each(indices)) as blocks:
            for apply in blocks:
                yield partial(_apply, apply)


def _apply(apply: Apply, function: Callable[[Block, int], R]) -> R:
    result: R = apply(partial(_of_block, function))
    return result


def _of_block(function: Callable[[Block, int], R], block: Block, index: int) -> R:
    unit = block.X * inverse_lengths(block.X, block.name)[:, None]
    return function(block._replace(X=unit), index)


def _of_rows(function: Callable[[NDArray[Any]], NDArray[Any]], X: NDArray[Any]) -> NDArray[Any]:
    return function(X * inverse_lengths(X, "a block")[:, None])
