"""Centroids in the forms that the kernels read, made on the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda import kernels
from ekmfast.rows.cuda.launch import launch
from ekmfast.rows.cuda.layer import ceil_div, flat
from ekmfast.rows.cuda.mirror import Mirror
from ekmfast.rows.cuda.passes.base import Passes

Float64 = NDArray[np.float64]

LOG2E = 1 / np.log(2)


@dataclass
class Centroids:
    """Centroids of S problems, relative to the reference, on their way to the GPU.

    The arrays there hold them once `make_ready` has been called, which the work of a pass does
    first, so that it is recorded with the rest.
    """

    scaled: Any  # (S, K, D) = q c
    plain: Any  # (S, K, D) = c
    bias: Any  # (S, K) = -q/2 ||c||^2
    reference: Any  # (D,)
    parts: Any  # (S K, 3 D) for the scores of parts if there are any, see `CublasProduct`
    q: Float64  # (S,)
    finite: NDArray[np.bool_]  # (S,), whether q c is finite in the dtype of the rows
    mirror: Mirror  # whose memory on the host is read until the pass has ended
    splits: bool  # whether there are parts

    def make_ready(self) -> None:
        """Bring the centroids that were sent into these forms."""
        sent, width = self.mirror.card, self.scaled.shape[0] * self.scaled.shape[1]
        scale = kernels.scale_centroids(np.dtype(self.scaled.dtype).type, self.splits)
        scaled, plain = flat(self.scaled, width), flat(self.plain, width)
        launch(scale, ceil_div(width, kernels.CENTROIDS_A_BLOCK), sent["y"], sent["q"], scaled,
               plain, self.bias, self.parts)  # fmt: skip


def _mirror(passes: Passes, dtype: Any, S: int, k: int, d: int, splits: bool) -> Mirror:
    mirror = passes.kept.mirror(
        "centroids",
        dtype,
        S,
        k,
        there={
            "scaled": ((S, k, d), dtype),
            "plain": ((S, k, d), dtype),
            "bias": ((S, k), dtype),
            "parts": ((S * k if splits else 1, 3 * d), dtype),
        },
        y=((S * k, d), np.float64),
        q=((S,), np.float64),
        reference=((d,), dtype),
    )
    mirror.host["reference"][:] = passes.reference
    return mirror


def _largest(y: Float64) -> Float64:
    """The largest absolute value of each problem (S,); NaN if there is one."""
    each = y.reshape(len(y), -1)
    return cast(Float64, np.maximum(each.max(axis=1), -each.min(axis=1)))


def exponent_scale(passes: Passes, largest: Float64, alpha: Float64, dtype: Any) -> Float64:
    """The factor q for which scores are exponents in base 2; see ``csrc/ekm.cpp``.

    It is at least so large that q times a centroid is no denormal number. ``largest`` is the
    largest absolute value of the centroids minus the reference.
    """
    if passes.weighting in ("hard", "fuzzy"):
        return np.full(len(largest), 1.0 if passes.weighting == "hard" else 2.0)
    smallest, far = (1e-30, 1e19) if dtype is np.float32 else (1e-290, 1e154)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        floor = np.where(largest > 0, smallest / largest * np.minimum(1, far / largest), 0.0)
    return cast(Float64, np.maximum(alpha * LOG2E, floor))


def for_weights(passes: Passes, dtype: Any, centroids: Float64, alpha: Float64) -> Centroids:
    """Centroids (S, K, D) for the weights at alpha (S,)."""
    return _centroids(passes, dtype, centroids, alpha)


def for_distances(passes: Passes, dtype: Any, centroids: Float64, q: float) -> Centroids:
    """Centroids (S, K, D) for scores ``q (y . c - ||c||^2 / 2)``."""
    return _centroids(passes, dtype, centroids, None, q)


def _centroids(
    passes: Passes, dtype: Any, centroids: Float64, alpha: Float64 | None, q: float = 1.0
) -> Centroids:
    S, k, d = centroids.shape
    splits = passes.product.splits(dtype, S * k)
    mirror = _mirror(passes, dtype, S, k, d, splits)
    y = mirror.host["y"].reshape(S, k, d)
    np.subtract(centroids, passes.reference, out=y)
    largest = _largest(y)
    scale = mirror.host["q"]
    scale[:] = q if alpha is None else exponent_scale(passes, largest, alpha, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        # Rounding keeps the order of numbers, so all products are finite if the largest is.
        finite = np.isfinite((scale * largest).astype(dtype))
    # Copies are no part of recordings: one that is started alone runs while Python does the rest.
    mirror.send()
    return Centroids(
        **{name: mirror.card[name] for name in ("scaled", "plain", "bias", "reference", "parts")},
        q=scale.copy(),
        finite=finite,
        mirror=mirror,
        splits=splits,
    )
