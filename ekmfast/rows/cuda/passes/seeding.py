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
from ekmfast.rows.cuda.layer import ceil_div, empty, flat, host, upload
from ekmfast.rows.cuda.passes.base import Passes
from ekmfast.rows.cuda.passes.centroids import send_for_distances
from ekmfast.rows.cuda.passes.chunks import scored
from ekmfast.rows.cuda.passes.sums import add_partial

Float64 = NDArray[np.float64]


def distances(passes: Passes, n_seedings: int) -> Any:
    """Infinite squared distances (S, N), with which `closest` begins when no row is chosen."""
    return upload(np.full((n_seedings, passes.held.n), np.inf, passes.held.dtype))


def closest(passes: Passes, candidates: Float64, closest: Any, update: bool = False) -> Float64:
    """See `RowsAtHand.closest`; the distances stay on the GPU."""
    S, each, _ = candidates.shape
    dtype, width = passes.held.dtype, S * each
    c = send_for_distances(passes, dtype, candidates, 2.0)
    columns = kernels.columns_for(width)
    measure = kernels.closest(dtype, columns, passes.held.weighted, update)
    totals = passes.kept.mirror("closest", S, each, totals=((width,), np.float64))
    totals.clear()
    whole = closest
    for at in scored(passes, dtype, c, each, split=False):
        b, tiles, n = at.buffers, at.rows // TILE, at.X.shape[0]
        if at.first == 0 and n < whole.shape[1]:
            closest = whole[:, at.start : at.start + n]
        launch(measure, tiles * ceil_div(width, columns), b.scores, c.bias, b.half_norm, b.Y,
               flat(c.plain, width), at.s, at.first, n, closest, b.sums)  # fmt: skip
        add_partial(b.sums, tiles, totals.card["totals"])
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
    none = upload(np.zeros((1, 1), held.dtype)) if closest is None else None
    for start, X, s in held.segments() if held.weighted else _whole(held.n):
        n = X.shape[0]
        here = ceil_div(n, STRETCH)
        found = empty((S, here), np.float64), empty((S, here), np.int64)
        distances = none if closest is None else closest[:, start : start + n]
        launch(find, here * S, distances, s, n, STRETCH, *found)
        at = start // STRETCH
        masses[:, at : at + here] = host(found[0])
        rows[:, at : at + here] = host(found[1]) + start
    return masses, rows


def _whole(n: int) -> Iterator[tuple[int, Any, Any]]:
    """One segment without rows and weights, for kernels that read distances alone."""
    yield 0, np.broadcast_to(np.float32(0), (n, 1)), upload(np.ones(1))
