"""Centroids in the forms that the kernels read, sent to the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ekmfast.rows.cuda.layer import leading_bits_of
from ekmfast.rows.cuda.mirror import Mirror
from ekmfast.rows.cuda.passes.base import Passes

Float64 = NDArray[np.float64]

LOG2E = 1 / np.log(2)


@dataclass
class Centroids:
    """Centroids of S problems, relative to the reference."""

    scaled: Any  # (S, K, D) = q c
    plain: Any  # (S, K, D) = c
    bias: Any  # (S, K) = -q/2 ||c||^2
    reference: Any  # (D,)
    parts: Any  # (S K, 3 D) for the scores of parts if there are any, see `CublasProduct`
    q: Float64  # (S,)
    finite: NDArray[np.bool_]  # (S,), whether q c is finite in the dtype of the rows
    mirror: Mirror  # whose memory on the host is read until the pass has ended


def relative(passes: Passes, centroids: Float64) -> Float64:
    """Centroids minus the reference, as a new array."""
    return centroids - passes.reference.astype(np.float64)


def exponent_scale(passes: Passes, y: Float64, alpha: Float64, dtype: Any) -> Float64:
    """The factor q for which scores are exponents in base 2; see ``csrc/ekm.cpp``.

    It is at least so large that q times a centroid is no denormal number. ``y`` is `relative`.
    """
    if passes.weighting in ("hard", "fuzzy"):
        return np.full(len(y), 1.0 if passes.weighting == "hard" else 2.0)
    largest = np.maximum(y.max(axis=(1, 2)), -y.min(axis=(1, 2)))
    smallest, far = (1e-30, 1e19) if dtype is np.float32 else (1e-290, 1e154)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        floor = np.where(largest > 0, smallest / largest * np.minimum(1, far / largest), 0.0)
    return cast(Float64, np.maximum(alpha * LOG2E, floor))


def send_for_weights(passes: Passes, dtype: Any, centroids: Float64, alpha: Float64) -> Centroids:
    """Centroids (S, K, D) for the weights at alpha (S,), sent to the GPU."""
    y = relative(passes, centroids)
    return _send(passes, dtype, y, exponent_scale(passes, y, alpha, dtype))


def send_for_distances(passes: Passes, dtype: Any, centroids: Float64, q: float) -> Centroids:
    """Centroids (S, K, D) for scores ``q (y . c - ||c||^2 / 2)``, sent to the GPU."""
    return _send(passes, dtype, relative(passes, centroids), np.full(len(centroids), q))


def _send(passes: Passes, dtype: Any, y: Float64, q: Float64) -> Centroids:
    """The centroids ``y + reference``, sent to the GPU; y (S, K, D) is changed."""
    S, k, d = y.shape
    splits = passes.product.splits(dtype, S * k)
    mirror = passes.kept.mirror(
        "centroids",
        dtype,
        S,
        k,
        scaled=((S, k, d), dtype),
        plain=((S, k, d), dtype),
        bias=((S, k), dtype),
        reference=((d,), dtype),
        parts=((S * k if splits else 1, 3 * d), dtype),
    )
    here = mirror.host
    here["reference"][:] = passes.reference
    with np.errstate(over="ignore", invalid="ignore"):
        here["plain"][:] = y
        here["bias"][:] = -0.5 * q[:, None] * np.einsum("skd,skd->sk", y, y)
        y *= q[:, None, None]
        here["scaled"][:] = y
        # A sum is finite only if all of its terms are.
        finite = np.isfinite(here["scaled"].sum(axis=(1, 2), dtype=np.float64))
    if splits:
        scaled, parts = here["scaled"].reshape(S * k, d), here["parts"]
        parts[:, :d] = parts[:, 2 * d :] = leading_bits_of(scaled)
        np.subtract(scaled, parts[:, :d], out=parts[:, d : 2 * d])
    mirror.send()
    return Centroids(**mirror.card, q=q, finite=finite, mirror=mirror)
