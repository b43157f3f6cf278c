"""What each row has of its own: its label and distance, and its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.kernels import TILE
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import THREADS, current_stream, empty, host, lanes_for, upload
from ekmfast.rows.cuda.passes.base import Passes
from ekmfast.rows.cuda.passes.centroids import for_distances, for_weights
from ekmfast.rows.cuda.passes.chunks import scored, weighed
from ekmfast.rows.cuda.passes.sums import add_partial

Float64 = NDArray[np.float64]


def assign(passes: Passes, centroids: Float64, labels: Any, squared_distances: Any) -> float:
    """Write the label and the squared distance of each row; return the sum of the distances.

    ``labels`` and ``squared_distances`` may be arrays on the host or on the GPU.
    """
    k, d = centroids.shape
    T = passes.held.dtype
    c = for_distances(passes, T, centroids[None], 1.0)
    exact = upload(centroids)
    lanes = lanes_for(max(k, d))
    find, per_block = kernels.nearest(T, lanes), THREADS // lanes
    on_host = isinstance(labels, np.ndarray)
    totals = passes.kept.mirror("assign", total=((1,), np.float64))
    totals.clear()
    sums = None
    for at in scored(passes, T, c, k, split=True):
        b, n = at.buffers, at.X.shape[0]
        if sums is None:
            sums = empty((1, b.rows // per_block), np.float64)
        if at.first == 0:
            end = at.start + n
            found = labels, squared_distances
            if on_host:
                found = empty(n, np.int32), empty(n, T)
            elif n < labels.shape[0]:
                found = labels[at.start : end], squared_distances[at.start : end]
        launch(find, at.rows // per_block, b.flat_scores, c.bias, at.X, at.first, n, exact,
               *found, sums)  # fmt: skip
        add_partial(sums, at.rows // per_block, totals.card["total"])
        if on_host and at.first + b.rows >= n:
            labels[at.start : end] = host(found[0])
            squared_distances[at.start : end] = host(found[1])
    totals.fetch()
    return float(totals.host["total"][0]) if c.finite[0] else np.nan


def weights(passes: Passes, centroids: Float64, alpha: float, out: Any) -> float:
    """Write the weights (N, K) of Eq. 38; return a number that is finite if all of them are."""
    k, T = centroids.shape[0], passes.held.dtype
    c = for_weights(passes, T, centroids[None], np.array([alpha]))
    # The sums of one problem, of which the last two are not finite if a weight is not.
    totals = passes.kept.mirror("weights", k, sums=((2 * k + 2,), np.float64))
    totals.clear()
    for at in weighed(passes, T, c, k):
        b = at.buffers
        n = min(at.rows, at.X.shape[0] - at.first)
        begin = at.start + at.first
        if isinstance(out, np.ndarray):
            out[begin : begin + n] = host(b.scores[:n])
        else:
            out[begin : begin + n].copy_to_device(b.scores[:n], stream=current_stream())
        add_partial(b.sums, at.rows // TILE, totals.card["sums"])
    totals.fetch()
    return float(totals.host["sums"][2 * k :].sum()) if c.finite[0] else np.nan
