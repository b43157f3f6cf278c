"""`Rows`: what a fit asks of the rows, in memory, in blocks, on a GPU or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.statistics import CentredStatistics

if TYPE_CHECKING:
    from ekmfast import _core
    from ekmfast.rows.array import ArrayRows
    from ekmfast.rows.survey import Survey

Float64 = NDArray[np.float64]


class Sums(Protocol):
    """The one method that the solver calls: the sums of one pass."""

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over the rows for centroids (S, K, D) and alpha (S,)."""
        ...


class Iterated(Sums, Protocol):
    """Rows of which compiled code makes all passes of the solver, if ``iterated`` is true.

    The results have the same bits as those of the loop around single passes.
    """

    iterated: bool

    def iterate(self, solver: _core.Solver, max_passes: int) -> None:
        """Make at most so many passes for the runs of a solver, until all are done."""
        ...


class Compiled(Iterated, Protocol):
    """Rows of which compiled code makes all passes of every loop, if ``compiled`` is true."""

    compiled: bool

    def choose(self, first: Float64, uniform: Float64) -> NDArray[np.intp]:
        """Numbers (S, K) of the rows that are chosen for S starts, one after another.

        ``first`` (S,) and ``uniform`` (K - 1, S, L) are random numbers from [0, 1). A row is the
        best of the L that are drawn with them, or the farthest one if L is 0.
        """
        ...

    def rounded(self) -> Rows:
        """The same rows in float64, whose sums are computed in float32: see `ArrayRows`."""
        ...


def as_iterated(rows: Sums) -> Iterated | None:
    """The rows, if compiled code makes all passes of the solver."""
    return cast(Iterated, rows) if getattr(rows, "iterated", False) else None


def as_compiled(rows: Sums) -> Compiled | None:
    """The rows, if compiled code makes all passes of their loops."""
    return cast(Compiled, rows) if getattr(rows, "compiled", False) else None


class Batches(Protocol):
    """A partition of the rows into batches, the same in every epoch."""

    masses: Float64  # (B,), the sum of the weights of each batch

    def visit(self, random_state: np.random.RandomState) -> Generator[tuple[int, Sums], None, None]:
        """Yield the number and the rows of every batch once: one epoch."""
        ...


class Rows(Sums, Protocol):
    """Rows and their weights in one place, and how one pass over them is made.

    Single rows of `RowsAtHand` can be read at any time. Other rows are read only by passes over all
    of them, so that their starts are chosen from the sample that the survey draws.

    Attributes
    ----------
    at_hand : bool
        Whether these are `RowsAtHand`.
    shares_passes : bool
        Whether one pass for several problems is faster than a pass for each of them.
    space : {'free', 'unit', 'features'}
        What centroids may be, and over what the sums of weights are: see ``csrc/solver.h``.
    weighting, fuzzifier
        How the weights w_kn of the sums are defined: see `ArrayRows`.
    feature_names : list of str or None
        Names of the columns. None for an array, whose names scikit-learn reads.
    """

    at_hand: bool
    shares_passes: bool
    space: str

    @property
    def n_threads(self) -> int:
        """Number of threads that one call of a function given to `map` should use."""
        ...

    @property
    def weighting(self) -> str: ...
    @property
    def fuzzifier(self) -> float: ...
    @property
    def weighted(self) -> bool: ...
    @property
    def n_features(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def feature_names(self) -> list[str] | None: ...

    def survey(self, *, checksum: bool = False) -> Survey:
        """What a fit must know before it begins; raises an error for NaN and infinity.

        This takes one pass over an array or blocks, and a second one if the rows are far from the
        reference that was found from few of them. It takes three to five passes on a GPU.
        """
        ...

    def with_weighting(self, weighting: str) -> Self:
        """The same rows, with another definition of the weights w_kn of the sums."""
        ...

    def label(self, centroids: Float64, merged: NDArray[np.intp]) -> Any:
        """``merged[k]``, int32, k being the nearest of the centroids (K, D), for each row.

        The result is the same kind of array as X. ``merged`` (K,) gives merged centroids one label.
        """
        ...

    def weights(self, centroids: Float64, alpha: float) -> Any:
        """The weights (N, K) of Eq. 38, as the same kind of array as X."""
        ...

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]], n_columns: int) -> Any:
        """The values (N, n_columns) of a function that maps rows (n, D) to (n, n_columns)."""
        ...

    def parts(self) -> Iterator[NDArray[Any]]:
        """Yield the rows in order, some at a time, in memory of the host."""
        ...

    def fetch(self, numbers: NDArray[np.intp]) -> ArrayRows:
        """The rows with these ascending numbers, in memory of the host; after `survey`."""
        ...

    def on_host(self) -> ArrayRows:
        """All rows, in memory of the host."""
        ...

    def batches(self, batch_size: int, random_state: np.random.RandomState) -> Batches:
        """Batches of about ``batch_size`` rows, or one for each block; after `survey`."""
        ...


class RowsAtHand(Rows, Protocol):
    """Rows of which single ones can be read at any time, from which starts are chosen.

    A start is built by choosing one row after another as its next centroid. S starts are built at
    the same time, so that they share passes over the rows.
    """

    X: Any  # the array
    sample_weight: NDArray[Any] | None  # in memory of the host

    @property
    def n_rows(self) -> int: ...

    def distances(self, n_seedings: int) -> Any:
        """Infinite squared distances (S, N), with which `closest` begins when no row is chosen."""
        ...

    def closest(self, candidates: Float64, closest: Any, update: bool = False) -> Float64:
        """One pass for S starts at once: the potentials (S, L) of candidates (S, L, D).

        ``closest`` (S, N), in the dtype of X, holds the squared distance of each row to the nearest
        row chosen so far. A potential is the sum of these distances, weighted, if the candidate
        were chosen: ``sum_n s_n min(closest[s, n], ||x_n - candidates[s, l]||^2)``. With ``update``
        (L = 1) the minima replace ``closest``.
        """
        ...

    def farthest(self, closest: Any) -> NDArray[np.intp]:
        """For each start the first of the rows that are farthest from its chosen rows."""
        ...

    def farthest_rows(self, centroids: Float64, n_rows: int) -> NDArray[np.intp]:
        """Ascending numbers of the ``n_rows`` rows farthest from all centroids (K, D).

        Rows without weight are left out.
        """
        ...

    def draw(self, closest: Any, uniform: Float64) -> NDArray[np.intp]:
        """Numbers (S, L) of rows drawn with probabilities proportional to s_n closest[s, n].

        ``uniform`` (S, L) are random numbers from [0, 1), one for each row to draw. If ``closest``
        is None, ``uniform`` is (S,), the probabilities are proportional to s_n, and the result is
        (1, S). If all products are zero, all rows have the same probability.
        """
        ...

    def take(self, numbers: NDArray[np.intp]) -> Float64:
        """The rows with these numbers, (..., D) in float64, in memory of the host."""
        ...

    def subset(self, numbers: NDArray[np.intp]) -> RowsAtHand:
        """The rows with these numbers, in the same place as all rows."""
        ...

    def stretches(self, numbers: NDArray[np.intp], length: int, *, rest: bool) -> RowsAtHand:
        """The stretches with these numbers, in the same place as all rows.

        Stretch i is the ``length`` consecutive rows that begin with row ``i * length``. With
        ``rest`` the rows after the last whole stretch are included.
        """
        ...
