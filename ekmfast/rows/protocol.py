"""What a fit asks of rows, wherever they are: in memory, in blocks, on a card, on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.statistics import CentredStatistics

if TYPE_CHECKING:
    from ekmfast.rows.array import ArrayRows
    from ekmfast.rows.survey import Survey

Float64 = NDArray[np.float64]


class Sums(Protocol):
    """All that the solver asks for: the sums of one pass."""

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over the rows for centroids (S, K, D) and alpha (S,)."""
        ...


class Batches(Protocol):
    """Rows cut into batches, which stay the same from visit to visit."""

    masses: Float64  # (B,), the weight of each

    def visit(self, random_state: np.random.RandomState) -> Generator[tuple[int, Sums], None, None]:
        """Yield the number of each batch and its rows, every batch once."""
        ...


class Rows(Sums, Protocol):
    """Rows and their weights in one place, and how one pass over them is made.

    `RowsAtHand` are those of which some can be taken at any time. A pass over others reads all of
    them anew, so seeding works on the sample that their survey holds.

    Attributes
    ----------
    at_hand : bool
        Whether these are `RowsAtHand`.
    weighting, fuzzifier
        What the weights w_kn of the sums are, as of `ArrayRows`.
    feature_names : list of str or None
        What the columns are called. None of an array, whose names scikit-learn looks at.
    """

    at_hand: bool

    @property
    def n_threads(self) -> int:
        """Of one call of a function that `map` gets."""
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
        """What a fit must know before it begins; refuses NaN and infinity.

        One pass over arrays and blocks, and one more where the rows lie far from the first of
        them that the kernels take them about. Three passes on a card.
        """
        ...

    def with_weighting(self, weighting: str) -> Self:
        """The same rows, with another rule of what the weights w_kn of the sums are."""
        ...

    def label(self, centroids: Float64, merged: NDArray[np.intp]) -> Any:
        """``merged`` of the nearest centroid (K, D) of each row, int32, of X's kind of array."""
        ...

    def weights(self, centroids: Float64, alpha: float) -> Any:
        """The weights (N, K) of Eq. 38, of X's kind of array."""
        ...

    def map(self, function: Callable[[NDArray[Any]], NDArray[Any]], n_columns: int) -> Any:
        """A function of rows (n, D) that returns (n, n_columns) in their dtype, for all rows."""
        ...

    def parts(self) -> Iterator[NDArray[Any]]:
        """The rows in order, some at a time, in memory of the host."""
        ...

    def fetch(self, numbers: NDArray[np.intp]) -> ArrayRows:
        """The rows of these ascending numbers, in memory of the host; after `survey`."""
        ...

    def on_host(self) -> ArrayRows:
        """All rows, in memory of the host."""
        ...

    def batches(self, batch_size: int, random_state: np.random.RandomState) -> Batches:
        """Batches of about that many rows, or the blocks of rows in blocks; after `survey`."""
        ...


class RowsAtHand(Rows, Protocol):
    """Rows of which some can be taken at any time: what seeding works on."""

    X: Any  # the array
    sample_weight: NDArray[Any] | None  # in memory of the host

    @property
    def n_rows(self) -> int: ...

    def distances(self, n_seedings: int) -> Any:
        """Squared distances (S, N) to no seed yet, for `closest`."""
        ...

    def closest(self, candidates: Float64, closest: Any, update: bool = False) -> Float64:
        """One pass for S seedings at once: potentials (S, L) of candidates (S, L, D).

        ``closest`` (S, N), dtype of X, holds squared distances to the nearest seed so far, ``inf``
        at first. A potential is ``sum_n s_n min(closest[s, n], ||x_n - candidates[s, l]||^2)``.
        With ``update`` (L = 1) the minima replace ``closest``.
        """
        ...

    def farthest(self, closest: Any) -> NDArray[np.intp]:
        """For each seeding the first row farthest from its seeds."""
        ...

    def draw(self, closest: Any, uniform: Float64) -> NDArray[np.intp]:
        """Rows with chances by weight and distance; ``uniform`` (S, L), or (S,) without distances.

        Any row where all chances are zero.
        """
        ...

    def take(self, numbers: NDArray[np.intp]) -> Float64:
        """Rows of these numbers, (..., D) in float64, in memory of the host."""
        ...

    def subset(self, numbers: NDArray[np.intp]) -> RowsAtHand:
        """The rows of these numbers, in the same place."""
        ...

    def replaced(self, X: NDArray[Any], sample_weight: NDArray[Any] | None) -> RowsAtHand:
        """Other rows, given in memory of the host, for the same place to compute."""
        ...

    def nearest(self, centroids: Float64) -> tuple[Any, Any]:
        """Labels (N,) and squared distances (N,), of the kind of X; of equals the first."""
        ...

    def stretches(self, numbers: NDArray[np.intp], length: int, *, rest: bool) -> RowsAtHand:
        """The stretches of so many consecutive rows with these numbers, in the same place.

        With ``rest`` also the rows behind the last whole stretch.
        """
        ...
