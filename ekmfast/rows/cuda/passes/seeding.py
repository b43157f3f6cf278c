"""Starts chosen from all rows: distances to chosen rows, the farthest rows, and random ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.division import STRETCH
from ekmfast.rows.cuda.kernels import TILE
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import THREADS, address, ceil_div, empty, flat, host
from ekmfast.rows.cuda.passes.base import Passes
from ekmfast.rows.cuda.passes.centroids import for_distances
from ekmfast.rows.cuda.passes.chunks import scored
from ekmfast.rows.cuda.passes.sums import add_partial

Float64 = NDArray[np.float64]


def distances(passes: Passes, n_seedings: int) -> Any:
    """Infinite squared distances (S, N), with which `closest` begins when no row is chosen."""
    found = empty((n_seedings, passes.held.n), passes.held.dtype)
    if found.size:
        launch(kernels.fill(passes.held.dtype), ceil_div(found.size, THREADS), flat(found), np.inf)
    return found


def closest(passes: Passes, candidates: Float64, closest: Any, update: bool = False) -> Float64:
    """See `RowsAtHand.closest`; the distances stay on the GPU."""
    S, each, _ = candidates.shape
    dtype, width = passes.held.dtype, S * each
    c = for_distances(passes, dtype, candidates, 2.0)
    columns = kernels.columns_for(width)
    measure = kernels.closest(dtype, columns, passes.held.weighted, update)
    totals = passes.kept.mirror("closest", S, each, totals=((width,), np.float64))

    def work() -> None:
        totals.clear()
        mine = closest
        for at in scored(passes, dtype, c, each, split=False):
            b, tiles, n = at.buffers, at.rows // TILE, at.X.shape[0]
            if at.first == 0 and n < closest.shape[1]:
                mine = closest[:, at.start : at.start + n]
            launch(measure, tiles * ceil_div(width, columns), b.scores, c.bias, b.half_norm, b.Y,
                   flat(c.plain, width), at.s, at.first, n, mine, b.sums)  # fmt: skip
            add_partial(b.sums, tiles, totals.card["totals"])

    # A recording reads and writes the distances where they lie.
    passes.kept.run(("closest", S, each, update, address(closest)), work)
    totals.fetch()
    potentials = totals.host["totals"].reshape(S, each).copy()
    potentials[~c.finite] = np.nan
    return potentials


def farthest(passes: Passes, closest: Any) -> NDArray[np.intp]:
    """For each start the first of the rows that are farthest from its chosen rows."""
    masses, rows = _masses(passes, closest, closest.shape[0], farthest=True)
    best = masses.argmax(axis=1)
    return cast(NDArray[np.intp], rows[np.arange(len(best)), best].astype(np.intp))


def draw(passes: Passes, closest: Any, uniform: Float64) -> NDArray[np.intp]:
    """Random rows: see `RowsAtHand.draw`.

    The GPU sums the probabilities of stretches of rows, and the host finds the row in one.
    """
    n = passes.held.n
    S = 1 if closest is None else closest.shape[0]
    masses, _ = _masses(passes, closest, S, farthest=False)
    uniform = np.asarray(uniform).reshape(S, -1)
    found = np.empty(uniform.shape, np.intp)
    for i in range(S):
        total = np.concatenate([[0.0], np.cumsum(masses[i])])
        if not total[-1] > 0:
            found[i] = (uniform[i] * n).astype(np.intp)
            continue
        for j, share in enumerate(uniform[i]):
            target = share * total[-1]
            stretch = int(np.searchsorted(total, target, side="right")) - 1
            stretch = min(stretch, int(np.flatnonzero(masses[i])[-1]))
            begin = stretch * STRETCH
            end = min(begin + STRETCH, n)
            within = np.cumsum(_mass_of(passes, closest, i, begin, end))
            row = np.searchsorted(within, target - total[stretch], side="right")
            last = np.flatnonzero(np.diff(within, prepend=0.0))[-1]
            found[i, j] = begin + min(int(row), int(last))
    return found


def _mass_of(passes: Passes, closest: Any, seeding: int, begin: int, end: int) -> Float64:
    mass = np.ones(end - begin)
    if closest is not None:
        mass = host(closest[seeding, begin:end]).astype(np.float64)
    if passes.held.weighted:
        mass *= passes.held.weights(begin, end)
    return mass


def _masses(
    passes: Passes, closest: Any, S: int, farthest: bool
) -> tuple[Float64, NDArray[np.int64]]:
    held = passes.held
    stretches = ceil_div(held.n, STRETCH)
    masses, rows = np.empty((S, stretches)), np.empty((S, stretches), np.int64)
    find = kernels.row_masses(held.weighted, closest is not None, farthest)
    for start, n, s in _weights(passes):
        here = ceil_div(n, STRETCH)
        found = passes.kept.mirror(
            "masses", S, here, masses=((S, here), np.float64), rows=((S, here), np.int64)
        )
        if closest is None:
            distances = _one(passes, 2)
        else:
            distances = closest if n == held.n else closest[:, start : start + n]
        launch(find, here * S, distances, s, n, STRETCH, *found.card.values())
        found.fetch()
        at = start // STRETCH
        masses[:, at : at + here] = found.host["masses"]
        rows[:, at : at + here] = found.host["rows"] + start
    return masses, rows


def _weights(passes: Passes) -> Iterator[tuple[int, int, Any]]:
    """For each segment the first row, the number of rows, and their weights or a single number."""
    if passes.held.weighted:
        yield from ((start, X.shape[0], s) for start, X, s in passes.held.segments())
    else:
        yield 0, passes.held.n, _one(passes, 1)


def _one(passes: Passes, ndim: int) -> Any:
    """An array of one number that is not read, on the GPU."""
    shape, T = (1,) * ndim, passes.held.dtype
    return passes.kept.mirror("one", ndim, one=(shape, T)).card["one"]
