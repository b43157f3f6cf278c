"""One pass over rows on a GPU: which kernels are launched for each chunk of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ekmfast import _core
from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.kernels import EQUILIBRIUM, FUZZY, HARD, MAXIMUM_ENTROPY, TILE
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import (
    SIMULATED,
    THREADS,
    current_stream,
    empty,
    flat,
    host,
    lanes_for,
    leading_bits_of,
    upload,
)
from ekmfast.rows.cuda.memory import Held
from ekmfast.rows.cuda.mirror import MOST_KEPT, Mirror, Scratch
from ekmfast.rows.cuda.product import Product, choose_product
from ekmfast.rows.cuda.recording import POSSIBLE, Recording
from ekmfast.rows.statistics import CentredStatistics

Float64 = NDArray[np.float64]

WEIGHTINGS = {
    "equilibrium": EQUILIBRIUM,
    "maximum-entropy": MAXIMUM_ENTROPY,
    "hard": HARD,
    "fuzzy": FUZZY,
}
LOG2E = 1 / np.log(2)
# Rows over which a matrix product sums in the dtype of the rows; sums of these are float64. A chunk
# holds a multiple of it.
DEPTH = 16 if SIMULATED else 1024
# Numbers of the largest matrix of a chunk. On an H200, chunks whose scores fit into the cache were
# slower than larger ones, since matrix products of few rows are slow (docs/cuda.md).
CHUNK_NUMBERS = 256 if SIMULATED else 1 << 25
CHUNK_ROWS = 32 if SIMULATED else 1 << 18
# The fused kernel leaves one set of sums for each thread block, in one launch at most so many
# numbers.
PARTIAL_NUMBERS = 1 << 23
# So many thread blocks keep a large GPU busy. For more rows each thread sums more rows instead.
ENOUGH_BLOCKS = 2 if SIMULATED else 2048
# To draw a row, the GPU sums the probabilities of stretches of so many rows, and the host looks for
# the row in one stretch.
STRETCH = 16 if SIMULATED else 4096
REFERENCE_ROWS = 15


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(x: float, least: int, most: int) -> int:
    """The largest power of two up to x, within bounds that are powers of two."""
    return int(min(max(1 << (max(int(x), 1).bit_length() - 1), least), most))


@dataclass
class Centroids:
    """Centroids of S problems, relative to the reference, in the forms that the kernels read."""

    scaled: Any  # (S, K, D) = q c
    plain: Any  # (S, K, D) = c
    bias: Any  # (S, K) = -q/2 ||c||^2
    reference: Any  # (D,)
    parts: Any  # (S K, 3 D) for the scores of parts, see `CublasProduct`
    q: Float64  # (S,)
    finite: NDArray[np.bool_]  # (S,), whether q c is finite in the dtype of the rows
    mirror: Mirror  # whose memory on the host is read until the pass has ended


class Buffers:
    """The arrays on the GPU for one chunk of rows."""

    def __init__(
        self, scratch: Scratch, dtype: Any, d: int, k: int, n_problems: int, n: int, split: bool
    ) -> None:
        width = k * n_problems
        fit = _power_of_two(CHUNK_NUMBERS / max(width, d), DEPTH, CHUNK_ROWS)
        self.rows = min(fit, _ceil(n, DEPTH) * DEPTH)
        tiles = self.rows // TILE
        arrays = scratch.arrays(
            (dtype, d, k, n_problems, split),
            Y=((self.rows, d), dtype),
            half_norm=((self.rows,), dtype),
            scores=((self.rows, width), dtype),
            shared=((self.rows, n_problems, 4), dtype),
            sums=((2 * (width + n_problems), tiles), np.float64),
            products=((self.rows // DEPTH, width, d), dtype),
            parts=((self.rows if split else 1, 3 * d), dtype),
        )
        self.half_norm, self.shared = arrays["half_norm"], arrays["shared"]
        self.sums = arrays["sums"]
        self.Y, self.scores, self.parts = arrays["Y"], arrays["scores"], arrays["parts"]
        self.products = arrays["products"]
        self.flat_scores = flat(self.scores)
        self.flat_products = self.products.reshape(self.products.shape[0], width * d)
        self._cuts: dict[int, tuple[Any, Any, Any, Any]] = {}

    def cut(self, rows: int) -> tuple[Any, Any, Any, Any]:
        """The first rows of Y, scores and parts, and their products; kept, since it takes time."""
        if rows not in self._cuts:
            self._cuts[rows] = (
                self.Y[:rows],
                self.scores[:rows],
                self.parts[:rows],
                self.products[: rows // DEPTH],
            )
        return self._cuts[rows]


class CudaPasses:
    """Statistics of one data set, computed by a GPU.

    Parameters
    ----------
    held : Held
        The rows and their weights.
    weighting : {'equilibrium', 'maximum-entropy', 'fuzzy', 'hard'}
        How the weights w_kn of the sums are defined: see ``csrc/weighting.h``.
    fuzzifier : float > 1
        The exponent m of ``'fuzzy'``.
    product : Product, default=None
        What computes matrix products; None for `choose_product`.
    """

    def __init__(
        self,
        held: Held,
        weighting: str = "equilibrium",
        fuzzifier: float = 2.0,
        product: Product | None = None,
    ) -> None:
        self.held = held
        self.weighting = weighting
        self.fuzzifier = fuzzifier
        self.product = product or choose_product()
        self.reference = self._find_reference()
        self._total_weight: float | None = None
        self._forget()

    def _forget(self) -> None:
        """Begin without arrays on the GPU."""
        self._scratch = Scratch()
        self._buffers: dict[tuple[Any, ...], Buffers] = {}
        self._mirrors: dict[tuple[Any, ...], Mirror] = {}
        # None for work that ran once.
        self._recordings: dict[tuple[Any, ...], Recording | None] = {}

    def with_weighting(self, weighting: str) -> CudaPasses:
        other = copy(self)
        other.weighting = weighting
        other._forget()
        return other

    def _mirror(self, *key: Any, **arrays: tuple[tuple[int, ...], Any]) -> Mirror:
        """The mirror that ``key`` names, made at the first call."""
        if key not in self._mirrors:
            if len(self._mirrors) >= MOST_KEPT:
                self._mirrors.clear()
                self._recordings.clear()
            self._mirrors[key] = Mirror(**arrays)
        return self._mirrors[key]

    def _buffers_for(self, key: Any, *shape: Any) -> Buffers:
        """The buffers that ``key`` names, made at the first call."""
        if key not in self._buffers:
            if len(self._buffers) >= MOST_KEPT:
                self._buffers.clear()
            generation = self._scratch.generation
            made = Buffers(self._scratch, *shape)
            self._forget_old(generation)
            self._buffers[key] = made
        return self._buffers[key]

    def _forget_old(self, generation: int) -> None:
        """Forget what uses smaller scratch memory, if a larger piece has replaced it since."""
        if generation != self._scratch.generation:
            self._buffers.clear()
            self._recordings.clear()

    def _run(self, key: tuple[Any, ...], work: Callable[[], None]) -> None:
        """Do what a pass does on the GPU; from the second time on as a recording."""
        if not (POSSIBLE and self.held.steady):
            work()
        elif key not in self._recordings:
            work()
            self._recordings[key] = None
        else:
            recording = self._recordings[key] or Recording(work)
            self._recordings[key] = recording
            recording.repeat()

    def _find_reference(self) -> NDArray[Any]:
        """The median of a few rows, feature by feature, as the CPU's kernels find it."""
        m = min(REFERENCE_ROWS, self.held.n)
        reference = np.zeros(self.held.d, self.held.dtype)
        if m:
            some = self.held.take(np.arange(m) * self.held.n // m)
            for j in range(self.held.d):
                values = np.sort(some[np.isfinite(some[:, j]), j])
                if len(values):
                    reference[j] = values[len(values) // 2]
        return reference

    @property
    def total_weight(self) -> float:
        if self._total_weight is None:
            self._total_weight = self.held.total_weight()
        return self._total_weight

    # ------------------------------------------------------------------------------------------
    # The sums of Eq. 39

    def statistics(self, centroids: Float64, alpha: Float64) -> CentredStatistics:
        """One pass over the rows for centroids (S, K, D) and alpha (S,)."""
        S, k, _ = centroids.shape
        T = self.held.dtype
        wx, w, p, objective = self._sum(T, centroids, alpha)
        exponent = np.zeros((S, k))
        if self.held.n and self.weighting != "hard":
            fuzzy = self.weighting == "fuzzy"
            for i in range(S):
                weak = np.flatnonzero(self._underflowed(w[i] if fuzzy else p[i], T))
                if len(weak) == 0 or not np.isfinite(objective[i]):
                    continue
                if T is np.float32:  # memberships may be 2^800 times smaller in float64
                    deep = self._sum(np.float64, centroids[i : i + 1], alpha[i : i + 1])
                    wx[i, weak], w[i, weak], p[i, weak] = (sums[0][weak] for sums in deep[:3])
                    if fuzzy:
                        objective[i] = deep[3][0]
                    weak = weak[self._underflowed(deep[2][0][weak], np.float64)]
                if len(weak) and not fuzzy:
                    self._rescue(
                        centroids[i], float(alpha[i]), weak, wx[i], w[i], p[i], exponent[i]
                    )
        return CentredStatistics(wx, w, p, exponent, objective, self.reference.astype(np.float64))

    def _underflowed(self, mass: Float64, dtype: Any) -> NDArray[np.bool_]:
        return ~(mass > self.total_weight * _core.least_mass(dtype is np.float32))

    def _relative(self, centroids: Float64) -> Float64:
        """Centroids minus the reference, as a new array."""
        return centroids - self.reference.astype(np.float64)

    def _prepared(self, dtype: Any, y: Float64, q: Float64) -> Centroids:
        """The centroids ``y + reference``, sent to the GPU; y (S, K, D) is changed."""
        S, k, d = y.shape
        mirror = self._mirror(
            "centroids",
            dtype,
            S,
            k,
            scaled=((S, k, d), dtype),
            plain=((S, k, d), dtype),
            bias=((S, k), dtype),
            reference=((d,), dtype),
            parts=((S * k, 3 * d), dtype),
        )
        here = mirror.host
        here["reference"][:] = self.reference
        with np.errstate(over="ignore", invalid="ignore"):
            here["plain"][:] = y
            here["bias"][:] = -0.5 * q[:, None] * np.einsum("skd,skd->sk", y, y)
            y *= q[:, None, None]
            here["scaled"][:] = y
            # A sum is finite only if all of its terms are.
            finite = np.isfinite(here["scaled"].sum(axis=(1, 2), dtype=np.float64))
        if self.product.splits(dtype, S * k):
            scaled, parts = here["scaled"].reshape(S * k, d), here["parts"]
            parts[:, :d] = parts[:, 2 * d :] = leading_bits_of(scaled)
            np.subtract(scaled, parts[:, :d], out=parts[:, d : 2 * d])
        mirror.send()
        return Centroids(**mirror.card, q=q, finite=finite, mirror=mirror)

    def _scale(self, y: Float64, alpha: Float64, dtype: Any) -> Float64:
        """The factor q for which scores are exponents in base 2; see ``csrc/ekm.cpp``.

        It is at least so large that q times a centroid is no denormal number.
        """
        if self.weighting in ("hard", "fuzzy"):
            return np.full(len(y), 1.0 if self.weighting == "hard" else 2.0)
        largest = np.maximum(y.max(axis=(1, 2)), -y.min(axis=(1, 2)))
        smallest, far = (1e-30, 1e19) if dtype is np.float32 else (1e-290, 1e154)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            floor = np.where(largest > 0, smallest / largest * np.minimum(1, far / largest), 0.0)
        return cast(Float64, np.maximum(alpha * LOG2E, floor))

    def _sum(
        self, dtype: Any, centroids: Float64, alpha: Float64
    ) -> tuple[Float64, Float64, Float64, Float64]:
        """sum_wx (S, K, D), sum_w, sum_p (S, K) and J (S,), computed in ``dtype``."""
        S, k, d = centroids.shape
        if self.held.n == 0:
            return np.zeros((S, k, d)), np.zeros((S, k)), np.zeros((S, k)), np.zeros(S)
        y = self._relative(centroids)
        c = self._prepared(dtype, y, self._scale(y, alpha, dtype))
        if self._is_fused(dtype, k):
            sums = self._sum_fused(dtype, c, k)
            wx, w = sums[:, : k * d], sums[:, k * d : k * d + k]
            p, norm, cost = sums[:, k * d + k : -2], sums[:, -2], sums[:, -1]
            norm = norm / 2
        else:
            totals = self._sum_chunks(dtype, c, k)
            wx, w, p = totals["wx"], totals["sums"][: S * k], totals["sums"][S * k : 2 * S * k]
            norm, cost = totals["sums"][2 * S * k :].reshape(S, 2).T
        with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the result
            objective = cost / c.q if self.weighting == "fuzzy" else norm - cost / c.q
        objective[~c.finite] = np.nan
        return (
            wx.reshape(S, k, d).copy(),
            w.reshape(S, k).copy(),
            p.reshape(S, k).copy(),
            objective,
        )

    def _is_fused(self, dtype: Any, k: int) -> bool:
        """Whether the fused kernel can read the rows and holds the sums."""
        held = self.held
        return (
            held.dense
            and held.aligned
            and dtype is held.dtype
            and kernels.fits_fused(dtype, k, held.d, WEIGHTINGS[self.weighting])
        )

    def _sum_fused(self, dtype: Any, c: Centroids, k: int) -> Float64:
        rows, d = self.held, self.held.d
        S = len(c.q)
        compiled = kernels.fused(dtype, k, d, WEIGHTINGS[self.weighting], rows.weighted)
        width = kernels.fused_width(k, d)
        at_once = kernels.rows_at_once(dtype, k, d)
        each = _power_of_two(rows.n / (THREADS * ENOUGH_BLOCKS), 1, kernels.ROWS_A_THREAD)
        turns = max(each // at_once, 1)
        block_rows = THREADS * at_once * turns
        most = max(PARTIAL_NUMBERS // (S * width), 1)
        blocks = min(_ceil(rows.n, block_rows), most)
        generation = self._scratch.generation
        key = (dtype, "fused", k, S, blocks)
        partial = self._scratch.arrays(key, partial=((S, width, blocks), np.float64))["partial"]
        self._forget_old(generation)
        totals = self._mirror("fused", S, k, totals=((S * width,), np.float64))
        centroids = c.plain if self.weighting == "fuzzy" else c.scaled
        power = dtype(1 / (self.fuzzifier - 1))

        def work() -> None:
            # Sums are added when ``partial`` is full, wherever segments end, so that the order of
            # summation does not depend on segments. These hold a multiple of the rows of a block.
            filled = 0
            totals.clear()
            for _, X, s in rows.segments():
                n, first = X.shape[0], 0
                while first < n:
                    here = min(_ceil(n - first, block_rows), blocks - filled)
                    launch(compiled, here * S, flat(X), s, first, n, S, turns, c.reference,
                           centroids, c.bias, power, partial, filled)  # fmt: skip
                    first += here * block_rows
                    filled += here
                    if filled == blocks:
                        self._add_partial(partial, filled, totals.card["totals"])
                        filled = 0
            self._add_partial(partial, filled, totals.card["totals"])

        self._run(("fused", dtype, S, k), work)
        totals.fetch()
        return totals.host["totals"].reshape(S, width).copy()

    @staticmethod
    def _add_partial(partial: Any, count: int, totals: Any) -> None:
        """Add the sums of the first ``count`` thread blocks to the totals."""
        if count:
            rows = totals.shape[0]
            launch(kernels.add_partial(), rows, flat(partial, rows), count, totals)

    def _sum_chunks(self, dtype: Any, c: Centroids, k: int) -> dict[str, Float64]:
        S, d = len(c.q), self.held.d
        width = S * k
        totals = self._mirror(
            "chunks",
            S,
            k,
            wx=((width * d,), np.float64),
            sums=((2 * (width + S),), np.float64),
        )

        def work() -> None:
            totals.clear()
            for at in self._weighed(dtype, c, k):
                b, m = at.buffers, at.rows
                Y, scores, _, products = b.cut(m)
                self.product.sums(scores, Y, DEPTH, products)
                self._add(b.flat_products, m // DEPTH, totals.card["wx"])
                launch(kernels.add_partial(), b.sums.shape[0], b.sums, m // TILE,
                       totals.card["sums"])  # fmt: skip

        self._run(("chunks", dtype, S, k), work)
        totals.fetch()
        return totals.host

    @staticmethod
    def _add(values: Any, count: int, totals: Any) -> None:
        """Add the first ``count`` rows of values to the totals."""
        slices = kernels.slices_for(totals.shape[0])
        blocks = _ceil(totals.shape[0] * slices, THREADS)
        launch(kernels.add_onto(slices), blocks, values, count, totals)

    def _scored(self, dtype: Any, c: Centroids, k: int, split: bool) -> Iterator[Chunk]:
        """Yield every chunk of rows with its scores, to which the bias is not yet added.

        With ``split`` the scores may be computed from parts of the factors: see `CublasProduct`.
        """
        S, d = len(c.q), self.held.d
        split = split and self.product.splits(dtype, S * k)
        key = (dtype, k, S, split)
        b = self._buffers_for(key, dtype, d, k, S, self.held.n, split)
        centroids = flat(c.scaled, S * k)
        for start, X, s in self.held.segments():
            n = X.shape[0]
            for at in range(0, n, b.rows):
                m = _ceil(min(b.rows, n - at), DEPTH) * DEPTH
                launch(kernels.prepare(dtype, split), m // kernels.PREPARED, X, at, n, c.reference,
                       b.Y, b.half_norm, b.parts)  # fmt: skip
                Y, scores, parts, _ = b.cut(m)
                if split:
                    self.product.scores_of_parts(parts, c.parts, scores)
                else:
                    self.product.scores(Y, centroids, scores)
                yield Chunk(b, m, start, at, X, s)

    def _weighed(self, dtype: Any, c: Centroids, k: int) -> Iterator[Chunk]:
        """Yield every chunk of rows with its weights in place of its scores, and their sums."""
        S = len(c.q)
        weighting, weighted = WEIGHTINGS[self.weighting], self.held.weighted
        power = dtype(1 / (self.fuzzifier - 1))
        together = weighting != FUZZY and k <= kernels.WEIGHED_COLUMNS[dtype]
        lanes, columns = lanes_for(k), kernels.columns_for(S * k)
        for at in self._scored(dtype, c, k, split=weighting != FUZZY):
            b, tiles, first, n = at.buffers, at.rows // TILE, at.first, at.X.shape[0]
            if together:
                launch(kernels.weigh(dtype, weighting, k, weighted), tiles * S, b.flat_scores,
                       c.bias, b.half_norm, at.s, first, n, b.sums)  # fmt: skip
            else:
                launch(kernels.weigh_rows(dtype, weighting, lanes, weighted), tiles * S, b.scores,
                       c.bias, b.half_norm, b.Y, flat(c.plain, S * k), at.s, first, n, power,
                       b.shared, b.sums)  # fmt: skip
                launch(kernels.weigh_columns(dtype, weighting, columns),
                       tiles * _ceil(S * k, columns), b.scores, c.bias, b.shared, power,
                       b.sums)  # fmt: skip
            yield at

    # ------------------------------------------------------------------------------------------
    # Columns whose memberships underflow in float64 too

    def _rescue(
        self,
        centroids: Float64,
        alpha: float,
        columns: NDArray[np.intp],
        wx: Float64,
        w: Float64,
        p: Float64,
        exponent: Float64,
    ) -> None:
        """Replace the sums of some columns by sums relative to their largest membership."""
        m = len(columns)
        largest = np.full(m, -np.inf)
        for _, found in self._depths(centroids, alpha, columns, None):
            largest = np.maximum(largest, found)
        scale = np.where(np.isfinite(largest), largest, 0.0)
        sums = np.zeros((m, self.held.d + 2))
        for part, _ in self._depths(centroids, alpha, columns, scale):
            sums += part
        wx[columns], w[columns], p[columns] = sums[:, :-2], sums[:, -2], sums[:, -1]
        exponent[columns] = scale

    def _depths(
        self, centroids: Float64, alpha: float, columns: NDArray[np.intp], scale: Float64 | None
    ) -> Iterator[tuple[Float64, Float64]]:
        """Yield for each chunk the sums (m, D + 2) of m columns, multiplied by 2^-scale.

        If ``scale`` is None, yield the largest log2 p (m,) of each column instead.
        """
        d, m = self.held.d, len(columns)
        fit = _power_of_two(CHUNK_NUMBERS / max(d, m), DEPTH, CHUNK_ROWS)
        chunk = min(fit, _ceil(self.held.n, DEPTH) * DEPTH)
        log_p, tilt = (empty((chunk, m), np.float64) for _ in range(2))
        largest = empty((chunk // TILE, m), np.float64)
        Y, half_norm = empty((chunk, d), np.float64), empty(chunk, np.float64)
        products = empty((chunk // DEPTH, m, d), np.float64)
        tall = kernels.columns_for(m)
        parts = empty((m, chunk // TILE), np.float64)
        measure = kernels.exact_memberships(self.weighting == "equilibrium", self.held.weighted)
        on_card = upload(centroids), upload(columns.astype(np.int64))
        exponent = upload(np.zeros(m) if scale is None else scale)
        reference = upload(self.reference.astype(np.float64))
        for _, X, s in self.held.segments():
            n = X.shape[0]
            for at in range(0, n, chunk):
                first, last = at, n
                launch(measure, _ceil(chunk, THREADS), X, s, first, last, on_card[0],
                       alpha * LOG2E, on_card[1], log_p, tilt)  # fmt: skip
                if scale is None:
                    launch(
                        kernels.largest_exponents(), _ceil(largest.size, THREADS), log_p, largest
                    )
                    yield np.empty(0), host(largest).max(axis=0)
                    continue
                launch(kernels.raise_exponents(), _ceil(chunk * m, THREADS), log_p, tilt, s, first,
                       last, exponent)  # fmt: skip
                launch(kernels.prepare(np.float64), chunk // kernels.PREPARED, X, first,
                       last, reference, Y, half_norm, Y)  # fmt: skip
                self.product.sums(log_p, Y, DEPTH, products)
                sums = [host(products).sum(axis=0)]
                for values in (log_p, tilt):
                    launch(kernels.column_sums(np.float64, tall),
                           chunk // TILE * _ceil(m, tall), values, parts)  # fmt: skip
                    sums.append(host(parts).sum(axis=1)[:, None])
                yield np.hstack(sums), np.empty(0)

    # ------------------------------------------------------------------------------------------
    # Seeding

    def distances(self, n_seedings: int) -> Any:
        """Infinite squared distances (S, N), with which `closest` begins when no row is chosen."""
        return upload(np.full((n_seedings, self.held.n), np.inf, self.held.dtype))

    def closest(self, candidates: Float64, closest: Any, update: bool = False) -> Float64:
        """See `RowsAtHand.closest`; the distances stay on the GPU."""
        S, each, _ = candidates.shape
        dtype, width = self.held.dtype, S * each
        c = self._prepared(dtype, self._relative(candidates), np.full(S, 2.0))
        columns = kernels.columns_for(width)
        measure = kernels.closest(dtype, columns, self.held.weighted, update)
        totals = self._mirror("closest", S, each, totals=((width,), np.float64))
        totals.clear()
        whole = closest
        for at in self._scored(dtype, c, each, split=False):
            b, tiles, n = at.buffers, at.rows // TILE, at.X.shape[0]
            if at.first == 0 and n < whole.shape[1]:
                closest = whole[:, at.start : at.start + n]
            launch(measure, tiles * _ceil(width, columns), b.scores, c.bias, b.half_norm, b.Y,
                   flat(c.plain, width), at.s, at.first, n, closest, b.sums)  # fmt: skip
            launch(kernels.add_partial(), width, b.sums, tiles, totals.card["totals"])
        totals.fetch()
        potentials = totals.host["totals"].reshape(S, each).copy()
        potentials[~c.finite] = np.nan
        return potentials

    def take(self, rows: NDArray[np.intp]) -> Float64:
        """The rows with these numbers, in float64."""
        return self.held.take(rows)

    def farthest(self, closest: Any) -> NDArray[np.intp]:
        """For each start the first of the rows that are farthest from its chosen rows."""
        masses, rows = self._masses(closest, closest.shape[0], farthest=True)
        best = masses.argmax(axis=1)
        return cast(NDArray[np.intp], rows[np.arange(len(best)), best].astype(np.intp))

    def draw(self, closest: Any, uniform: Float64) -> NDArray[np.intp]:
        """Random rows: see `RowsAtHand.draw`.

        The GPU sums the probabilities of stretches of rows, and the host finds the row in one.
        """
        S = 1 if closest is None else closest.shape[0]
        masses, _ = self._masses(closest, S, farthest=False)
        uniform = np.asarray(uniform).reshape(S, -1)
        found = np.empty(uniform.shape, np.intp)
        for i in range(S):
            total = np.concatenate([[0.0], np.cumsum(masses[i])])
            if not total[-1] > 0:
                found[i] = (uniform[i] * self.held.n).astype(np.intp)
                continue
            for j, share in enumerate(uniform[i]):
                target = share * total[-1]
                stretch = int(np.searchsorted(total, target, side="right")) - 1
                stretch = min(stretch, int(np.flatnonzero(masses[i])[-1]))
                begin = stretch * STRETCH
                end = min(begin + STRETCH, self.held.n)
                within = np.cumsum(self._mass_of(closest, i, begin, end))
                row = np.searchsorted(within, target - total[stretch], side="right")
                last = np.flatnonzero(np.diff(within, prepend=0.0))[-1]
                found[i, j] = begin + min(int(row), int(last))
        return found

    def _mass_of(self, closest: Any, seeding: int, begin: int, end: int) -> Float64:
        mass = np.ones(end - begin)
        if closest is not None:
            mass = host(closest[seeding, begin:end]).astype(np.float64)
        if self.held.weighted:
            mass *= self.held.weights(begin, end)
        return mass

    def _masses(self, closest: Any, S: int, farthest: bool) -> tuple[Float64, NDArray[np.int64]]:
        stretches = _ceil(self.held.n, STRETCH)
        masses, rows = np.empty((S, stretches)), np.empty((S, stretches), np.int64)
        find = kernels.row_masses(self.held.weighted, closest is not None, farthest)
        none = upload(np.zeros((1, 1), self.held.dtype)) if closest is None else None
        for start, X, s in self.held.segments() if self.held.weighted else self._whole():
            n = X.shape[0]
            here = _ceil(n, STRETCH)
            found = empty((S, here), np.float64), empty((S, here), np.int64)
            distances = none if closest is None else closest[:, start : start + n]
            launch(find, here * S, distances, s, n, STRETCH, *found)
            at = start // STRETCH
            masses[:, at : at + here] = host(found[0])
            rows[:, at : at + here] = host(found[1]) + start
        return masses, rows

    def _whole(self) -> Iterator[tuple[int, Any, Any]]:
        """One segment without rows and weights, for kernels that read distances alone."""
        yield 0, np.broadcast_to(np.float32(0), (self.held.n, 1)), upload(np.ones(1))

    # ------------------------------------------------------------------------------------------

    def box(self) -> tuple[Float64, Float64]:
        """The smallest and the largest value of each feature."""
        d, T = self.held.d, self.held.dtype
        lows, highs = [], []
        for _, X, _s in self.held.segments():
            n = X.shape[0]
            size = max(STRETCH // 8, _ceil(n, 1024))
            stretches = _ceil(n, size)
            low, high = (empty((stretches, d), T) for _ in range(2))
            launch(kernels.box(T), stretches * _ceil(d, THREADS), X, n, size, low,
                   high)  # fmt: skip
            lows.append(host(low).min(axis=0))
            highs.append(host(high).max(axis=0))
        return np.min(lows, axis=0).astype(np.float64), np.max(highs, axis=0).astype(np.float64)

    def assign(self, centroids: Float64, labels: Any, squared_distances: Any) -> float:
        """Write the label and the squared distance of each row; return the sum of the distances.

        ``labels`` and ``squared_distances`` may be arrays on the host or on the GPU.
        """
        k, d = centroids.shape
        T = self.held.dtype
        c = self._prepared(T, self._relative(centroids[None]), np.ones(1))
        exact = upload(centroids)
        lanes = lanes_for(max(k, d))
        find, per_block = kernels.nearest(T, lanes), THREADS // lanes
        on_host = isinstance(labels, np.ndarray)
        totals = self._mirror("assign", total=((1,), np.float64))
        totals.clear()
        sums = None
        for at in self._scored(T, c, k, split=True):
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
            launch(kernels.add_partial(), 1, sums, at.rows // per_block, totals.card["total"])
            if on_host and at.first + b.rows >= n:
                labels[at.start : end] = host(found[0])
                squared_distances[at.start : end] = host(found[1])
        totals.fetch()
        return float(totals.host["total"][0]) if c.finite[0] else np.nan

    def weights(self, centroids: Float64, alpha: float, out: Any) -> float:
        """Write the weights (N, K) of Eq. 38; return a number that is finite if all of them are."""
        k = centroids.shape[0]
        one = np.array([alpha])
        T = self.held.dtype
        y = self._relative(centroids[None])
        c = self._prepared(T, y, self._scale(y, one, T))
        # The sums of one problem, of which the last two are not finite if a weight is not.
        totals = self._mirror("weights", k, sums=((2 * k + 2,), np.float64))
        totals.clear()
        for at in self._weighed(T, c, k):
            b = at.buffers
            n = min(at.rows, at.X.shape[0] - at.first)
            begin = at.start + at.first
            if isinstance(out, np.ndarray):
                out[begin : begin + n] = host(b.scores[:n])
            else:
                out[begin : begin + n].copy_to_device(b.scores[:n], stream=current_stream())
            launch(kernels.add_partial(), 2 * k + 2, b.sums, at.rows // TILE,
                   totals.card["sums"])  # fmt: skip
        totals.fetch()
        return float(totals.host["sums"][2 * k :].sum()) if c.finite[0] else np.nan

    def accumulate(self, weights: Any) -> tuple[Float64, Float64]:
        """sum_wx (K, D) about the reference and sum_w (K,) for weights (N, K) on the GPU."""
        k, d, T = weights.shape[1], self.held.d, self.held.dtype
        b = self._buffers_for(("update", k), T, d, k, 1, self.held.n, False)
        columns = kernels.columns_for(k)
        reference, nothing = upload(self.reference), upload(np.zeros(k, T))
        totals = self._mirror("update", k, wx=((k * d,), np.float64), w=((k,), np.float64))
        totals.clear()
        for start, X, _s in self.held.segments():
            n = X.shape[0]
            mine = weights[start : start + n]
            for at in range(0, n, b.rows):
                m = _ceil(min(b.rows, n - at), DEPTH) * DEPTH
                launch(kernels.prepare(T), m // kernels.PREPARED, X, at, n, reference, b.Y,
                       b.half_norm, b.Y)  # fmt: skip
                launch(kernels.prepare(T), m // kernels.PREPARED, mine, at, n, nothing, b.scores,
                       b.half_norm, b.Y)  # fmt: skip
                Y, scores, _, products = b.cut(m)
                self.product.sums(scores, Y, DEPTH, products)
                launch(kernels.column_sums(T, columns), m // TILE * _ceil(k, columns), b.scores,
                       b.sums)  # fmt: skip
                self._add(b.flat_products, m // DEPTH, totals.card["wx"])
                launch(kernels.add_partial(), k, b.sums, m // TILE, totals.card["w"])
        totals.fetch()
        return totals.host["wx"].reshape(k, d).copy(), totals.host["w"].copy()


@dataclass
class Chunk:
    """A chunk of rows in `Buffers`, whose first ``rows`` rows hold it, padded with zeros."""

    buffers: Buffers
    rows: int
    start: int  # the segment's first row
    first: int  # the chunk's first row in the segment
    X: Any
    s: Any
