"""The public functions on arrays, held to the NumPy oracle in long double.

Where long double is float64, the oracle's exponents still come from distances with twice its digits
(`pairs`). In the problems below it then differs from the oracle in long double by a twentieth of
the bounds for float64 at most, and for centroids, which are rounded to float64, by three tenths.

Tolerances are forward error bounds, computed for each problem from its own data (`Oracle`), so a
well-conditioned problem is held to some units in the last place and only an ill-conditioned one
(large alpha times large squared distances) gets more room.
"""

import os
import subprocess
import sys
import tracemalloc
from functools import cache

import numpy as np
import pairs
import pytest

import ekmfast
from ekmfast import (
    _core,
    _reference,
    assign,
    compute_weights,
    ekm_statistics,
    ekm_step,
    update_centroids,
)

LD = np.longdouble
DTYPES = [np.float32, np.float64]
LN2 = float(np.log(2))

# Exponents below 2^CLAMP are set to it; a column whose memberships sum to less than
# N 2^(CLAMP + MARGIN) is recomputed in double from differences.
CLAMP = {np.float32: -100, np.float64: -900}
MARGIN = {np.float32: 30, np.float64: 60}


class Oracle:
    """What the functions should return for one problem, and by how much rounding may move it.

    The bounds follow the computation. With y = x - r (r the median of some rows) an exponent is
    -alpha (|y|^2 + |c|^2 - 2 y.c)/2, of which the kernels form alpha (y.c - |c|^2/2) as a sum of
    D + 1 products. The errors of a dot product of length D grow as sqrt(D) eps for independent
    roundings (Higham & Mary, 2019); its operands y, c and alpha c are themselves rounded once or
    twice. Hence an exponent errs by at most about

        delta_kn = (4 + sqrt(D)) eps alpha (|y| |c| + |c|^2 / 2) + 4 eps |its own size|.

    A membership then lies within a factor exp(+-2 delta) (+- 4 eps of the exponential and (K + 4)
    eps of the normalisation), and Eq. 38, w = p (1 + r - m), m = sum p r, follows by the product
    rule. Everything below is that rule, written out; nothing was fitted.
    """

    def __init__(self, X, C, alpha, s=None):
        self.dtype = X.dtype.type
        eps = float(np.finfo(X.dtype).eps)
        n, d = X.shape
        k = len(C)
        XL, CL = X.astype(LD), C.astype(LD)
        s = np.ones(n, LD) if s is None else s.astype(LD)
        rows = np.arange(min(15, n)) * n // max(1, min(15, n))
        origin = np.sort(X[rows], axis=0)[len(rows) // 2].astype(LD) if n else np.zeros(d, LD)
        Y, G = XL - origin, CL - origin
        y, c = np.sqrt((Y**2).sum(1))[:, None], np.sqrt((G**2).sum(1))[None, :]
        high, low = pairs.squared_distances(X, C)
        dist = (high.astype(LD) + low) / 2
        high, low = pairs.minus_the_least(high, low)
        r = -LD(alpha) * (high.astype(LD) + low) / 2
        log_p = r - np.log(np.exp(r).sum(1, keepdims=True))
        p = np.exp(log_p)
        mean = (p * r).sum(1, keepdims=True)
        tilt = 1 + r - mean

        delta = (4 + np.sqrt(d)) * eps * alpha * (y * c + c**2 / 2) + 4 * eps * (1 - r)
        nearest = np.take_along_axis(delta, dist.argmin(1)[:, None], 1)
        delta = np.minimum(delta + nearest, 1e3)  # of r, a difference; exp of more is no bound
        relative = np.expm1(delta + delta.max(1, keepdims=True)) + (k + 8) * eps
        clamp = CLAMP[self.dtype] * LN2
        # A clamped entry is off by the clamped term; |r| e^r falls there.
        floor = np.where(r < clamp + delta, np.exp(LD(clamp)) * -clamp, 0)
        dp = np.minimum(p * relative, 1) + floor / -clamp
        dmean = (dp * np.abs(r) + (p + dp) * delta).sum(1, keepdims=True)
        dtilt = delta + dmean + 4 * eps * (1 + np.abs(r) + np.abs(mean))
        w = p * tilt
        dw = dp * np.abs(tilt) + (p + dp) * dtilt + 2 * floor + 4 * eps * np.abs(w)

        self.weights, self.weights_error = w, dw
        self.labels = dist.argmin(1) if n else np.zeros(0, int)
        self.distances = 2 * dist
        # assign() forms the same scores with alpha = 1.
        self.score_error = 2 * (4 + np.sqrt(d)) * eps * (y * c + c**2 / 2)

        # Sums. A block of up to 1536 rows is added up in the dtype (errors grow as the square
        # root of its length), blocks and chunks in double.
        add = 4 * eps * np.sqrt(min(n, 1536)) + 4 * eps
        self.sum_p = s @ p
        self.sum_p_error = s @ dp + add * self.sum_p
        self.sum_w = s @ w
        self.sum_w_error = s @ dw + add * (s @ np.abs(w))
        ay = np.abs(Y)
        centred = (s[:, None] * w).T @ Y
        centred_error = (s[:, None] * dw).T @ ay + add * ((s[:, None] * np.abs(w)).T @ ay)
        eps64 = 2.3e-16
        self.sum_wx = centred + np.outer(self.sum_w, origin)
        self.sum_wx_error = (
            centred_error
            + np.abs(origin) * self.sum_w_error[:, None]
            + 8 * eps64 * (np.abs(origin) * (s @ np.abs(w))[:, None] + np.abs(centred))
        )
        # E = |y|^2/2 - (best + mean)/alpha, whose terms are as large as y and c.
        size = y**2 / 2 + np.take_along_axis(y * c + c**2 / 2, dist.argmin(1)[:, None], 1)
        energy_error = (4 + np.sqrt(d)) * eps * size + (nearest + dmean) / alpha
        energy_error += 4 * eps * np.abs(mean) / alpha
        self.objective = (s[:, None] * p * dist).sum()
        self.objective_error = float((s[:, None] * energy_error).sum())

        # The step, column by column, scaled by the column's largest membership.
        self.centroids, self.centroids_error = np.array(CL), np.full((k, d), np.inf)
        if n == 0:
            return
        top = log_p[s > 0].max(0)
        scaled = np.exp(log_p - top)
        self.share = np.abs(scaled * tilt) / np.abs(scaled * tilt).max(0)
        total_log = np.log(s @ scaled) + top
        edge = (CLAMP[self.dtype] + MARGIN[self.dtype]) * LN2 + np.log(s.sum())
        for j in range(k):
            if total_log[j] < edge - 2:  # recomputed in double from differences
                dj = np.minimum(8 * (4 + np.sqrt(d)) * eps64 * alpha * dist.max(1), 1e3)
                u, du = scaled[:, j], scaled[:, j] * np.expm1(2 * dj)
                dt = 2 * dj + 8 * eps64 * (np.abs(tilt[:, j]) + np.abs(mean[:, 0]))
                dv = du * np.abs(tilt[:, j]) + (u + du) * dt
                rounding = 64 * eps64
            else:
                u = scaled[:, j]
                dv = dw[:, j] * np.exp(-np.minimum(top[j], 0))
                rounding = add
            v = u * tilt[:, j]
            B = s @ v
            dB = s @ dv + rounding * (s @ np.abs(v))
            dA = (s * dv) @ ay + rounding * ((s * np.abs(v)) @ ay)
            if dB < np.abs(B) / 2:
                self.centroids[j] = origin + (s * v) @ Y / B
                away = np.abs(self.centroids[j] - origin)
                self.centroids_error[j] = 2 * (dA + away * dB) / np.abs(B)
        self.centroids_error += eps * np.abs(self.centroids)


def within(got, expected, bound):
    """Every element within its bound, with the worst reported as a multiple of it."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    error = np.abs(got.astype(LD) - expected)
    worst = float(np.max(error / (bound + np.finfo(LD).tiny), initial=0))
    assert worst <= 1, f"off by {worst:.3g} times the bound, {float(error.max()):.3g}"


def data(n, k, d, dtype, offset=0.0, seed=0, scale=1.0):
    """Three clumps of sizes 6 : 3 : 1, and centroids drawn from around them."""
    rng = np.random.default_rng([seed, n, k, d])
    centres = 2 * rng.normal(size=(3, d)) / np.sqrt(d)
    pick = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    X = centres[pick] + rng.normal(size=(n, d)) / np.sqrt(d)
    C = centres[rng.integers(0, 3, size=k)] + rng.normal(size=(k, d)) / np.sqrt(d)
    return (scale * X + offset).astype(dtype), (scale * C + offset).astype(dtype)


def problems():
    """(n, k, d, alpha, offset): all sizes, with the extremes of alpha on the small ones."""
    for n in (0, 1, 7, 1000):
        for k in (1, 2, 3, 17):
            for d in (1, 2, 5, 33, 257):
                if n == 1000 and k * d > 600:
                    alphas = [2.0]
                else:
                    alphas = [1e-6, 1e-2, 2.0, 1e2, 1e6]
                for alpha in alphas:
                    for offset in (0.0, 1e3):
                        yield n, k, d, alpha, offset


@cache
def solved(n, k, d, alpha, offset, dtype, weighted):
    X, C = data(n, k, d, dtype, offset)
    s = None
    if weighted:
        s = np.random.default_rng(n).integers(0, 3, size=n).astype(dtype)
        s[:1] = 1.5
    return X, C, s, Oracle(X, C, alpha, s)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 5, 33, 257])
@pytest.mark.parametrize("k", [1, 2, 3, 17])
def test_within_the_error_bound_of_the_oracle(k, d, dtype, isa):
    bounded = 0
    for n, k_, d_, alpha, offset in problems():
        if (k_, d_) != (k, d):
            continue
        weighted = alpha == 2.0
        X, C, s, oracle = solved(n, k, d, alpha, offset, dtype, weighted)
        where = f"n={n} alpha={alpha} offset={offset}"

        W = compute_weights(X, C, alpha)
        assert W.dtype == dtype
        within(W, oracle.weights, oracle.weights_error)

        sums = ekm_statistics(X, C, alpha, sample_weight=s if n else None)
        for name in ("sum_wx", "sum_w", "sum_p", "objective"):
            got = getattr(sums, name)
            assert np.asarray(got).dtype == np.float64, where
            within(got, getattr(oracle, name), getattr(oracle, name + "_error"))

        labels, squared = assign(X, C)
        assert (labels.dtype, squared.dtype) == (np.int32, dtype)
        assert (labels.shape, squared.shape) == ((n,), (n,))
        chosen = oracle.distances[np.arange(n), labels]
        room = 2 * oracle.score_error.max(1, initial=0)
        assert (chosen <= oracle.distances.min(1) + room).all(), where
        # A difference, its square and a sum of d such in double, then one rounding to the dtype.
        rtol = np.finfo(dtype).eps + (3 + np.sqrt(d)) * np.finfo(float).eps
        np.testing.assert_allclose(squared, chosen, rtol=rtol)

        if n == 0:
            continue
        new, objective = ekm_step(X, C, alpha, sample_weight=s)
        assert new.dtype == dtype
        within(objective, oracle.objective, oracle.objective_error)
        sure = np.isfinite(oracle.centroids_error).all(1)
        within(new[sure], oracle.centroids[sure], oracle.centroids_error[sure])
        bounded += sure.sum()
    assert bounded >= 10 * k  # or the bounds say nothing


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "k", "d"),
    [(1700, 4, 2), (2000, 8, 8), (1100, 5, 29), (900, 16, 32), (700, 70, 130), (900, 2, 400)],
)
def test_blocks_of_several_parts_within_the_bound(n, k, d, dtype, isa):
    """Parts of a block, strips of features, rows apart in memory, several problems."""
    X, C = data(n, k, d, dtype)
    wide = np.full((n, d + 3), np.nan, dtype)
    wide[:, :d] = X
    oracle = Oracle(X, C, 2.0)
    other = Oracle(X, C[::-1], 1.0)
    together = ekm_statistics(wide[:, :d], np.stack([C, C[::-1]]), np.array([2.0, 1.0]))
    alone = ekm_statistics(wide[:, :d], C, 2.0)
    for name in ("sum_wx", "sum_w", "sum_p", "objective"):
        room = getattr(oracle, name + "_error")
        within(getattr(alone, name), getattr(oracle, name), room)
        # One problem's sums do not depend on what is computed beside it.
        np.testing.assert_array_equal(getattr(together, name)[0], getattr(alone, name))
        within(getattr(together, name)[1], getattr(other, name), getattr(other, name + "_error"))
    W = np.asarray(oracle.weights, dtype)
    signed = np.abs(W.astype(LD)).sum(0) / np.abs(W.astype(LD).sum(0))
    bound = 4 * np.sqrt(n) * np.finfo(dtype).eps * np.abs(X - X.mean(0)).max() * signed[:, None]
    bound = bound + 4 * np.finfo(dtype).eps * np.abs(X).max()
    within(update_centroids(wide[:, :d], W), _reference.update(X.astype(LD), W.astype(LD)), bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [300.0, 1000.0])
@pytest.mark.parametrize(("n", "k", "d"), [(1000, 16, 30), (400, 33, 64), (200, 17, 300)])
def test_nearly_hard_weights_within_the_bound(n, k, d, alpha, dtype, isa):
    """Most weights are idle, so rows are gathered (gather.inl), whatever they weigh."""
    X, C = data(n, k, d, dtype)
    C[-1] += 2 / np.sqrt(d)  # a column of small weights alone
    rng = np.random.default_rng(n)
    s = (10.0 ** rng.uniform(-6, 6, size=n)).astype(dtype)
    s[rng.random(n) < 0.1] = 0
    oracle = Oracle(X, C, alpha, s)
    assert (oracle.share > 2.0**-32).mean() < 0.3
    sums = ekm_statistics(X, C, alpha, sample_weight=s)
    for name in ("sum_wx", "sum_w", "sum_p", "objective"):
        within(getattr(sums, name), getattr(oracle, name), getattr(oracle, name + "_error"))


@pytest.mark.parametrize("d", [8, 64])
def test_weights_of_one_sign_and_of_both_are_summed_without_loss(d, isa):
    n, k = 1536, 16
    X, W = np.ones((n, d), np.float32), np.full((n, k), 0.1, np.float32)
    W[::3, 1], W[1::3, 1], W[2::3, 1] = 3e7, 1, -3e7
    _, sum_w, _ = _core.accumulate(X, W, 1)
    np.testing.assert_allclose(sum_w[0], W[:, 0].sum(dtype=float), rtol=1e-12)
    assert sum_w[1] == n // 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_mostly_zero_weights_keep_small_columns(dtype, isa):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 70)).astype(dtype)
    W = (rng.random((500, 20)) * (rng.random((500, 20)) < 0.05)).astype(dtype)
    W[:, 3] *= dtype(1e-30)
    W[:, 4] *= -1
    XL, WL = X.astype(LD), W.astype(LD)
    # About 25 terms a column of one sign, of size up to 6.
    bound = 4 * 5 * np.finfo(dtype).eps * 6
    within(update_centroids(X, W), _reference.update(XL, WL), bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("k", "d"), [(2, 2), (3, 70), (20, 70)])
def test_rows_without_weight_must_be_finite_too(k, d, value, dtype, isa):
    X = np.ones((500, d), dtype)
    W = np.zeros((500, k), dtype)
    W[:k] = np.eye(k)
    X[300, d - 1] = value
    with pytest.raises(ValueError, match=r"must be finite, got (NaN|infinity) in row 300, column"):
        update_centroids(X, W)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_is_within_the_error_bound(dtype):
    """So the formulas of the oracle are those of the specification."""
    X, C, s, oracle = solved(1000, 3, 5, 2.0, 0.0, dtype, True)
    X, C, s = X.astype(LD), C.astype(LD), s.astype(LD)
    within(_reference.weights(X, C, 2.0), oracle.weights, oracle.weights_error)
    sums = _reference.statistics(X, C, 2.0, s)
    for name, value in zip(("sum_wx", "sum_w", "sum_p", "objective"), sums, strict=True):
        within(value, getattr(oracle, name), getattr(oracle, name + "_error"))
    new, objective = _reference.step(X, C, 2.0, s)
    within(new, oracle.centroids, oracle.centroids_error)
    within(objective, oracle.objective, oracle.objective_error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "wrong",
    ["no half", "no tilt", "tilt of d", "sample weight left out", "alpha 1e-3 off"],
)
def test_the_error_bound_notices_a_wrong_formula(wrong, dtype):
    X, C, s, oracle = solved(1000, 3, 5, 2.0, 1e3, dtype, True)
    X, C, s, alpha = X.astype(LD), C.astype(LD), s.astype(LD), 2.0
    if wrong == "no half":
        alpha = 4.0
    if wrong == "alpha 1e-3 off":
        alpha = 2.002
    W = _reference.weights(X, C, alpha)
    if wrong == "no tilt":
        W = _reference.memberships(X, C, alpha)
    if wrong == "tilt of d":
        d = _reference.squared_distances(X, C) / 2
        W = _reference.memberships(X, C, alpha) * (1 - alpha * d)
    if wrong == "sample weight left out":
        s = np.ones(len(X), LD)
    else:
        with pytest.raises(AssertionError, match="times the bound"):
            within(W, oracle.weights, oracle.weights_error)
    SW = s[:, None] * W
    for got, name in ((SW.T @ X, "sum_wx"), (SW.sum(0), "sum_w")):
        with pytest.raises(AssertionError, match="times the bound"):
            within(got, getattr(oracle, name), getattr(oracle, name + "_error"))
    with pytest.raises(AssertionError, match="times the bound"):
        within(_reference.update(X, SW), oracle.centroids, oracle.centroids_error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k", "d"), [(5000, 3, 2), (20_011, 17, 33), (3001, 40, 257)])
def test_bits_do_not_depend_on_the_threads(n, k, d, dtype, isa):
    X, C = data(n, k, d, dtype)
    C[-1] += 1e3  # a column for the rescue
    s = np.random.default_rng(0).random(n).astype(dtype)
    W = compute_weights(X, C, 3.0, n_threads=1)

    def run(n_threads):
        sums = ekm_statistics(X, C, 3.0, sample_weight=s, n_threads=n_threads)
        return (
            compute_weights(X, C, 3.0, n_threads=n_threads),
            update_centroids(X, W[:, :-1].copy(), n_threads=n_threads),
            *ekm_step(X, C, 3.0, sample_weight=s, n_threads=n_threads),
            *assign(X, C, n_threads=n_threads),
            *(getattr(sums, name) for name in ("sum_wx", "sum_w", "sum_p", "objective")),
        )

    one = run(1)
    for n_threads in (2, 4):
        for a, b in zip(one, run(n_threads), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2), (17, 33), (5, 257)])
def test_update_centroids(k, d, dtype, isa):
    X, _ = data(1000, k, d, dtype, offset=1e3)
    W = (1 + np.random.default_rng(0).random((1000, k))).astype(dtype)
    got = update_centroids(X, W)
    assert got.dtype == dtype
    # Differences from 1000 have no rounding errors, so that they can be compared in float64 too.
    XL, WL = (X - dtype(1e3)).astype(LD), W.astype(LD)
    # Positive weights: the ratio errs by what adding 1000 centred terms of size |x - mean| <= 6
    # in the dtype does, sqrt(1000) eps, and by one rounding of the result.
    eps = np.finfo(dtype).eps
    bound = 4 * np.sqrt(1000) * eps * 6 + eps * 1010
    within(got - dtype(1e3), _reference.update(XL, WL), bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_then_update_is_a_step(dtype, isa):
    X, C, _, oracle = solved(1000, 3, 5, 2.0, 1e3, dtype, False)
    new = update_centroids(X, compute_weights(X, C, 2.0))
    # The weights are rounded once more on the way.
    within(new, oracle.centroids, 2 * oracle.centroids_error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 50.0])
def test_weights_sum_to_one(alpha, dtype, isa):
    X, C = data(1000, 17, 33, dtype)
    W = compute_weights(X, C, alpha)
    # Eq. 38 sums to one for any memberships that do; what is left are roundings of the terms.
    eps = np.finfo(dtype).eps
    assert (np.abs(W.sum(1, dtype=LD) - 1) <= 20 * eps * np.abs(W).sum(1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_weight_two_is_the_row_twice(dtype, isa):
    X, C, _, oracle = solved(1000, 3, 5, 2.0, 0.0, dtype, False)
    s = np.random.default_rng(0).integers(1, 3, size=len(X))
    weighted = ekm_statistics(X, C, 2.0, sample_weight=s)
    repeated = ekm_statistics(np.repeat(X, s, axis=0), C, 2.0)
    for name in ("sum_wx", "sum_w", "sum_p", "objective"):
        # Both differ from the exact sums by at most twice the bound for every row once.
        bound = 4 * getattr(oracle, name + "_error")
        within(getattr(weighted, name), getattr(repeated, name), bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_shift_and_scale(dtype, isa):
    X, C, _, _ = solved(1000, 3, 5, 2.0, 0.0, dtype, False)
    new, objective = ekm_step(X, C, 2.0)
    # Powers of two are exact, and so is everything that follows from them.
    scaled, scaled_objective = ekm_step(8 * X, 8 * C, 2.0 / 64)
    np.testing.assert_array_equal(scaled, 8 * new)
    assert scaled_objective == 64 * objective
    # Numbers of 12 bits stay exact when shifted by 1024, also in float32.
    X, C = np.round(256 * X) / 256, np.round(256 * C) / 256
    new, objective = ekm_step(X, C, 2.0)
    shifted, shifted_objective = ekm_step(X + dtype(1024), C + dtype(1024), 2.0)
    # Rows and reference move together, so only the rounding of the result (at 1024) differs.
    np.testing.assert_allclose(shifted - dtype(1024), new, rtol=0, atol=2048 * np.finfo(dtype).eps)
    assert shifted_objective == objective


@pytest.mark.parametrize("dtype", DTYPES)
def test_order_of_rows_and_of_centroids(dtype, isa):
    X, C, _, oracle = solved(1000, 3, 5, 2.0, 1e3, dtype, False)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(1000), rng.permutation(3)
    new, objective = ekm_step(X[rows], C[columns], 2.0)
    within(new, oracle.centroids[columns], oracle.centroids_error[columns])
    within(objective, oracle.objective, oracle.objective_error)
    np.testing.assert_array_equal(assign(X[rows], C)[0], assign(X, C)[0][rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_of_disjoint_blocks_add(dtype, isa):
    X, C, s, oracle = solved(1000, 3, 5, 2.0, 1e3, dtype, True)
    blocks = [slice(0, 1), slice(1, 400), slice(400, 400), slice(400, 1000)]
    total = None
    for block in blocks:
        part = ekm_statistics(X[block], C, 2.0, sample_weight=s[block])
        total = part if total is None else total + part
    for name in ("sum_wx", "sum_w", "sum_p", "objective"):
        # Blocks choose reference points of their own, hence the room.
        within(getattr(total, name), getattr(oracle, name), 2 * getattr(oracle, name + "_error"))


def test_statistics_of_other_shapes_do_not_add():
    X = np.ones((4, 2))
    with pytest.raises(ValueError, match="shape"):
        ekm_statistics(X, X[:2], 1.0) + ekm_statistics(X, X[:3], 1.0)
    with pytest.raises(TypeError):
        ekm_statistics(X, X[:2], 1.0) + 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_problems_equal_one_at_a_time(dtype, isa):
    X, _ = data(1000, 3, 5, dtype)
    C = np.stack([data(1000, 3, 5, dtype, seed=i)[1] for i in range(4)])
    C[2, 1] += 500
    alphas = np.array([0.1, 1.0, 3.0, 40.0])
    s = np.random.default_rng(0).random(1000).astype(dtype)
    sums = ekm_statistics(X, C, alphas, sample_weight=s)
    new, objective = ekm_step(X, C, alphas, sample_weight=s)
    assert new.shape == C.shape
    assert objective.shape == (4,)
    for i, alpha in enumerate(alphas):
        alone = ekm_statistics(X, C[i], alpha, sample_weight=s)
        for name in ("sum_wx", "sum_w", "sum_p", "objective"):
            np.testing.assert_array_equal(getattr(sums, name)[i], getattr(alone, name))
        one, one_objective = ekm_step(X, C[i], alpha, sample_weight=s)
        np.testing.assert_array_equal(new[i], one)
        assert objective[i] == one_objective
    np.testing.assert_array_equal(ekm_step(X, C, 2.0)[0], ekm_step(X, C, np.full(4, 2.0))[0])


# --- small recipes whose results are known ------------------------------------------------------

FIVE = np.array([[100.0], [101.0], [102.0], [110.0], [111.0]])


@pytest.mark.parametrize(("zeros", "second"), [(22, 684.4105), (23, -22.7650)])
def test_a_denominator_near_zero_is_not_damped(zeros, second, isa):
    X = np.r_[np.zeros(zeros), 1, 1][:, None]
    new, _ = ekm_step(X, [[0.0], [1.0]], 4.8)
    assert abs(new[1, 0] - second) < 5e-5  # as many digits as are known


@pytest.mark.parametrize("origin", [0.0, 100.0])
def test_a_far_centroid_moves_to_the_outermost_samples(origin, isa):
    X, C = FIVE - origin, np.array([[105.0], [1000.0]]) - origin
    first, _ = ekm_step(X, C, 2.0)
    np.testing.assert_allclose(first + origin, [[104.8], [111.0]], rtol=1e-13)
    second, _ = ekm_step(X, first, 2.0)
    # The groups are apart by exp(-2 * 9 * 2); beside it nothing but rounding.
    expected = _reference.step(X.astype(LD), first.astype(LD), 2.0)[0]
    np.testing.assert_allclose(second, expected.astype(float), rtol=1e-12)
    np.testing.assert_allclose(second + origin, [[101.0], [110.5]], atol=5e-7)


def test_a_far_centroid_in_float32(isa):
    new, _ = ekm_step(FIVE.astype(np.float32), [[105.0], [1000.0]], 2.0)
    # The far column is computed in double, the other by sums of 5 numbers.
    np.testing.assert_allclose(new, [[104.8], [111.0]], rtol=2 * np.finfo(np.float32).eps)


def test_an_epsilon_in_the_denominator_sends_a_centroid_to_the_origin(isa):
    C = np.array([[105.0], [140.0]])
    new, _ = ekm_step(FIVE, C, 0.1)
    assert abs(new[1, 0] - 110.968) < 5e-4
    naive = _reference.naive_update(FIVE, _reference.naive_weights(FIVE, C, 0.1))
    assert abs(naive[1, 0]) < 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_in_high_dimension_separate_where_the_naive_formula_collapses(dtype, isa):
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [400, 200, 200])
    X = (rng.normal(size=(3, 1024))[truth] + rng.normal(size=(800, 1024))).astype(dtype)
    # Seeds beside the samples: one that is a sample has a distance of 0 and never moves at all.
    C = naive = X[[0, 400, 600]] + rng.normal(size=(3, 1024)).astype(dtype)
    for _ in range(10):
        C, _ = ekm_step(X, C, 0.1)
        naive = _reference.naive_update(X, _reference.naive_weights(X, naive, 0.1))
    np.testing.assert_array_equal(assign(X, C)[0], truth)
    np.testing.assert_allclose(naive, 0, atol=1e-6)


def test_float32_far_from_the_origin(isa):
    X, C = data(20_000, 3, 8, np.float32, offset=1000.0, scale=3.0)
    new, _ = ekm_step(X, C, 0.5)
    exact, _ = _reference.step(X.astype(LD), C.astype(LD), 0.5)
    # 2e-5 standard deviations; the result itself is rounded to 3e-5 / std at 1000, which is
    # left out by rounding the exact result too.
    rounded = np.abs(new.astype(LD) - exact.astype(np.float32))
    spacing = np.spacing(np.float32(1000))
    assert (rounded <= spacing + 2e-5 * X.std(0)).all()
    # Before that rounding, from the sums.
    sums = ekm_statistics(X, C, 0.5)
    ratio = sums.sum_wx / sums.sum_w[:, None]
    assert (np.abs(ratio - exact) <= 2e-5 * X.std(0)).all()


# --- the edges ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows(dtype):
    X, C = np.empty((0, 3), dtype), np.zeros((2, 3))
    assert compute_weights(X, C, 1.0).shape == (0, 2)
    labels, squared = assign(X, C)
    assert labels.shape == squared.shape == (0,)
    sums = ekm_statistics(X, C, 1.0)
    for name in ("sum_wx", "sum_w", "sum_p", "objective"):
        assert not np.any(getattr(sums, name))
    assert sums.sum_wx.shape == (2, 3)
    with pytest.raises(ValueError, match="X"):
        ekm_step(X, C, 1.0)


def test_a_column_that_sums_to_zero_keeps_its_centroid(isa):
    # The squared distance to 1e200 is infinite, so not even the logarithm of a membership is left.
    new, _ = ekm_step(np.array([[0.0], [4.0]]), [[1.0], [1e200]], 1.0)
    np.testing.assert_allclose(new, [[2.0], [1e200]], rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_identical_centroids_share_alike(dtype, isa):
    X, C = data(100, 1, 3, dtype)
    W = compute_weights(X, np.repeat(C, 4, axis=0), 2.0)
    # Equal exponents: each membership is 1/4 but for the roundings of 1/S and of the moment 0.
    np.testing.assert_allclose(W, 0.25, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_centroid_goes_to_the_mean(dtype, isa):
    X, C = data(1000, 1, 3, dtype, offset=50.0)
    new, _ = ekm_step(X, C, 1e3)
    eps = np.finfo(dtype).eps
    # All weights are exactly one; sums of 1000 centred terms (at most 6) in the dtype.
    bound = 4 * np.sqrt(1000) * eps * 6 / 10 + eps * 60
    mean = (X - dtype(50)).astype(LD).mean(0, keepdims=True)  # exact differences
    within(new - dtype(50), mean, bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_be_apart_and_unowned(dtype, isa):
    wide, C = data(1000, 3, 40, dtype)
    view = wide[:, :33]
    C = C[:, :33]
    assert not view.flags.c_contiguous
    view.flags.writeable = False
    every_second = wide[::2, :33]
    for X in (view, every_second):
        dense = np.ascontiguousarray(X)
        np.testing.assert_array_equal(compute_weights(X, C, 2.0), compute_weights(dense, C, 2.0))
        np.testing.assert_array_equal(ekm_step(X, C, 2.0)[0], ekm_step(dense, C, 2.0)[0])
        np.testing.assert_array_equal(assign(X, C)[0], assign(dense, C)[0])
        W = compute_weights(X, C, 2.0)
        np.testing.assert_array_equal(update_centroids(X, W), update_centroids(dense, W))


def test_centroids_may_have_any_layout_and_float_type():
    X, C = data(100, 3, 5, np.float32)
    expected = compute_weights(X, C, 2.0)
    for other in (
        np.asfortranarray(C),
        C.astype(np.float64),
        C.tolist(),
        np.repeat(C, 2, 1)[:, ::2],
    ):
        np.testing.assert_array_equal(compute_weights(X, other, 2.0), expected)


def test_lists_are_float64():
    W = compute_weights([[0, 0], [1, 1]], [[0, 0], [1, 1]], 1)
    assert W.dtype == np.float64
    assert update_centroids([[0.0], [1.0]], [[1.0], [1.0]]).dtype == np.float64
    labels, _ = assign([[0.0], [9.0]], [[0.0], [10.0]])
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_is_filled_and_returned(dtype):
    X, C = data(100, 3, 5, dtype)
    out = np.full((100, 3), np.nan, dtype)
    assert compute_weights(X, C, 2.0, out=out) is out
    np.testing.assert_array_equal(out, compute_weights(X, C, 2.0))


def test_the_first_of_equal_centroids_is_chosen(isa):
    labels, squared = assign(np.ones((50, 3)), np.zeros((20, 3)))
    assert not labels.any()
    np.testing.assert_array_equal(squared, 3.0)


def test_inputs_are_not_written_to(isa):
    X, C = data(500, 3, 5, np.float64)
    C[2] += 1e4
    s = np.ones(500)
    before = X.copy(), C.copy(), s.copy()
    ekm_step(X, C, 2.0, sample_weight=s)
    assign(X, C)
    update_centroids(X, compute_weights(X, C, 2.0)[:, :2].copy())
    for a, b in zip((X, C, s), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_centroids_in_runs_are_assigned_as_at_once(dtype, monkeypatch):
    """More centroids than the kernels take at once; equals on both sides of a border."""
    X, C = data(200, 40, 3, dtype)
    C[20] = C[3]
    expected = assign(X, C)
    monkeypatch.setattr("ekmfast.rows.nearest.CENTROIDS_AT_ONCE", 7)
    labels, squared = assign(X, C)
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(squared, expected[1])
    assert (labels.dtype, squared.dtype) == (np.int32, dtype)


def test_labels_beyond_what_a_float_counts():
    k = 2**24 + 3
    C = np.zeros((k, 1))
    C[-1] = 1
    with pytest.raises(ValueError, match="2\\^24"):
        _core.assign(np.ones((2, 1), np.float32), C, np.empty(2, np.int32), np.empty(2, "f4"), 1)
    labels, squared = assign(np.array([[1], [0]], np.float32), C)
    assert labels.tolist() == [k - 1, 0]
    assert squared.tolist() == [0, 0]


# --- arrays of any layout -----------------------------------------------------------------------


def misaligned(array):
    """The same numbers, one byte beside where they should lie."""
    array = np.asarray(array)
    buffer = np.zeros(array.nbytes + array.itemsize, np.uint8)
    at = 1 + -buffer.ctypes.data % array.itemsize
    other = buffer[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
    other[...] = array
    assert not other.flags.aligned
    return other


LAYOUTS = {
    "misaligned": misaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "long double": lambda a: a.astype(LD),
    "object": lambda a: a.astype(object),
    "masked, nothing hidden": np.ma.array,
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_of_everything_but_samples(dtype, layout):
    X, C = data(100, 3, 5, dtype)
    C = np.stack([C, C[::-1]]).astype(float)
    alpha, s = np.array([1.0, 2.0]), np.arange(100, dtype=dtype)
    expected = ekm_step(X, C, alpha, sample_weight=s)
    got = ekm_step(X, layout(C), layout(alpha), sample_weight=layout(s))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        compute_weights(X, layout(C[0]), 1.0), compute_weights(X, C[0], 1.0)
    )
    np.testing.assert_array_equal(assign(X, layout(C[0]))[0], assign(X, C[0])[0])


def test_one_weight_for_all_rows():
    X, C = data(100, 3, 5, np.float64)
    got, _ = ekm_step(X, C, 1.0, sample_weight=np.broadcast_to(2.0, 100))
    np.testing.assert_array_equal(got, ekm_step(X, C, 1.0, sample_weight=np.full(100, 2.0))[0])


@pytest.mark.parametrize("name", ["centroids", "alpha", "sample_weight", "reference"])
def test_the_binding_refuses_what_is_misaligned(name):
    arguments = {
        "X": GOOD_X,
        "centroids": GOOD_C[None],
        "alpha": np.ones(1),
        "sample_weight": np.ones(6),
        "reference": np.zeros(2),
    }
    _core.statistics(**arguments, n_threads=1)
    arguments[name] = misaligned(arguments[name])
    with pytest.raises(ValueError, match=f"{name} must be .*aligned"):
        _core.statistics(**arguments, n_threads=1)


def test_the_binding_refuses_what_is_misaligned_elsewhere():
    with pytest.raises(ValueError, match=r"weights must be .*aligned"):
        _core.accumulate(GOOD_X, misaligned(np.ones((6, 2))), 1)
    with pytest.raises(ValueError, match="centroids must be aligned"):
        _core.weights(GOOD_X, misaligned(GOOD_C), 1.0, np.empty((6, 2)), 1)
    with pytest.raises(ValueError, match="candidates must be aligned"):
        _core.closest(GOOD_X, misaligned(GOOD_C[None]), np.ones((1, 6)), None, None, 1)


def test_arrays_of_other_libraries_keep_their_dtype():
    class Frame:  # as pandas', by columns
        def __init__(self, array):
            self.array = np.asfortranarray(array)

        def __array__(self, dtype=None, copy=None):
            return self.array if dtype is None else self.array.astype(dtype)

    X, C = data(100, 3, 5, np.float32)
    got = compute_weights(Frame(X), Frame(C), 1.0)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, compute_weights(X, C, 1.0))
    assert compute_weights(Frame(np.arange(6).reshape(3, 2)), [[0, 0]], 1.0).dtype == np.float64


# --- what is refused ----------------------------------------------------------------------------

GOOD_X, GOOD_C = np.arange(12.0).reshape(6, 2), np.array([[0.0, 1.0], [10.0, 11.0]])
CALLS = {
    "compute_weights": lambda X=GOOD_X, C=GOOD_C, alpha=1.0, **kw: compute_weights(
        X, C, alpha, **kw
    ),
    "ekm_statistics": lambda X=GOOD_X, C=GOOD_C, alpha=1.0, **kw: ekm_statistics(X, C, alpha, **kw),
    "ekm_step": lambda X=GOOD_X, C=GOOD_C, alpha=1.0, **kw: ekm_step(X, C, alpha, **kw),
    "assign": lambda X=GOOD_X, C=GOOD_C, **kw: assign(X, C, **kw),
    "update_centroids": lambda X=GOOD_X, W=None, **kw: update_centroids(
        X, np.ones((len(X), 2), getattr(X, "dtype", float)) if W is None else W, **kw
    ),
}
every_function = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
with_centroids = pytest.mark.parametrize(
    "call", [CALLS[name] for name in CALLS if name != "update_centroids"]
)
with_alpha = pytest.mark.parametrize(
    "call", [CALLS[name] for name in ("compute_weights", "ekm_statistics", "ekm_step")]
)
with_sample_weight = pytest.mark.parametrize(
    "call", [CALLS[name] for name in ("ekm_statistics", "ekm_step")]
)


def test_the_good_arguments_pass():
    for call in CALLS.values():
        call()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CALLS)
def test_samples_that_are_not_finite(name, dtype, bad, isa):
    for d in (1, 5, 40):
        for row in (0, 41, 99):
            for column in {0, d - 1}:
                X, C = data(100, 2, d, dtype)
                X[row, column] = bad
                message = rf"X must be finite.* {row}, column {column}($|;)"
                with pytest.raises(ValueError, match=message):
                    CALLS[name](X) if name == "update_centroids" else CALLS[name](X, C)


@every_function
@pytest.mark.parametrize(
    "X", [np.zeros(3), np.zeros((2, 3, 2)), np.zeros((6, 0))], ids=["1-d", "3-d", "no features"]
)
def test_shapes_of_samples(call, X):
    with pytest.raises(ValueError, match="X"):
        call(X)


@every_function
@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, np.int64, bool, complex, ">f8"])
def test_dtypes_of_samples(call, dtype):
    with pytest.raises(TypeError, match="X"):
        call(GOOD_X.astype(dtype))


@every_function
@pytest.mark.parametrize(
    "X",
    [np.asfortranarray(GOOD_X), GOOD_X[:, ::-1], GOOD_X[::-1], np.ones((6, 4))[:, ::2]],
    ids=["Fortran", "columns reversed", "rows reversed", "every second column"],
)
def test_layouts_of_samples(call, X):
    with pytest.raises(ValueError, match=r"np\.ascontiguousarray"):
        call(X)


@every_function
def test_misaligned_samples(call):
    buffer = np.zeros(12 * 8 + 1, np.uint8)[1:].view(np.float64).reshape(6, 2)
    with pytest.raises(ValueError, match="X"):
        call(buffer)


@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("d", [0, 2])
@pytest.mark.parametrize("problems", [None, 0, 2])
@pytest.mark.parametrize("name", CALLS)
def test_zero_in_every_position(name, problems, n, k, d):
    """Nothing is refused by name, or gives results of the right shape; nothing crashes."""
    X, C = np.ones((n, d)), np.ones((k, d) if problems is None else (problems, k, d))
    several = name in ("ekm_statistics", "ekm_step")
    wrong = None
    if d == 0:
        wrong = "X must have at least one column"
    elif name == "update_centroids":
        wrong = "X must have at least one row" if n == 0 else None
        wrong = wrong or ("weights must have at least one column" if k == 0 else None)
    elif problems is not None and not several:
        wrong = "centroids must have shape"
    elif problems == 0:
        wrong = "centroids must hold at least one problem"
    elif k == 0:
        wrong = "centroids must hold at least one centroid"
    elif n == 0 and name == "ekm_step":
        wrong = "X must have at least one row"

    def call(**more):
        if name == "update_centroids":
            return update_centroids(X, np.ones((n, k)))
        return CALLS[name](X, C, **more)

    alphas = {} if problems is None or not several else {"alpha": np.ones(problems)}
    weights = {"sample_weight": np.ones(n)} if several else {}
    for more in ({}, alphas, weights):
        if wrong:
            with pytest.raises(ValueError, match=wrong):
                call(**more)
        else:
            call(**more)


@pytest.mark.parametrize(
    "arguments",
    [
        (GOOD_C[:0][None], np.ones(1)),
        (np.ones((0, 2, 2)), np.ones(0)),
        (np.ones((1, 2, 0)), np.ones(1)),
    ],
    ids=["K", "S", "D"],
)
def test_the_binding_refuses_nothing(arguments):
    with pytest.raises(ValueError, match="centroids must have shape"):
        _core.statistics(GOOD_X, *arguments, None, None, 1)


@with_centroids
@pytest.mark.parametrize(
    "C",
    [
        np.array([[np.nan, 0], [1, 1]]),
        np.array([[0, 0], [1, -np.inf]]),
        np.zeros((0, 2)),
        np.zeros(2),
        np.zeros((1, 1, 2, 2)),
        np.zeros((2, 3)),
        np.zeros((2, 1)),
    ],
    ids=["nan", "inf", "K=0", "1-d", "4-d", "D too large", "D too small"],
)
def test_centroids(call, C):
    with pytest.raises(ValueError, match="centroids"):
        call(C=C)


@pytest.mark.parametrize("name", ["compute_weights", "assign"])
def test_several_problems_only_where_they_make_sense(name):
    with pytest.raises(ValueError, match="centroids"):
        CALLS[name](C=GOOD_C[None])


@with_alpha
@pytest.mark.parametrize("alpha", [0.0, -1.0, np.inf, np.nan, [1.0, 2.0]])
def test_alpha(call, alpha):
    with pytest.raises(ValueError, match="alpha"):
        call(alpha=alpha)


@with_sample_weight
@pytest.mark.parametrize("alpha", [[1.0], [1.0, 2.0, 3.0], [1.0, 0.0], [[1.0, 1.0]]])
def test_alpha_of_several_problems(call, alpha):
    with pytest.raises(ValueError, match="alpha"):
        call(C=np.stack([GOOD_C, GOOD_C]), alpha=alpha)


@with_sample_weight
@pytest.mark.parametrize(
    "s",
    [
        [1, 1, 1, 1, 1, -1.0],
        [1, 1, 1, 1, 1, np.nan],
        [1, 1, 1, 1, 1, np.inf],
        np.ones(5),
        np.ones((6, 1)),
        np.zeros(6),
    ],
    ids=["negative", "nan", "inf", "short", "2-d", "all zero"],
)
def test_sample_weight(call, s):
    with pytest.raises(ValueError, match="sample_weight"):
        call(sample_weight=s)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((6, 3)),
        np.empty(12),
        np.empty((6, 2), np.float32),
        np.empty((2, 6)).T,
        np.empty((12, 2))[::2],
        np.broadcast_to(0.0, (6, 2)),
    ],
    ids=["K", "1-d", "dtype", "Fortran", "strided", "read-only"],
)
def test_out(out):
    with pytest.raises(ValueError, match="out"):
        compute_weights(GOOD_X, GOOD_C, 1.0, out=out)


def test_out_over_the_samples():
    X = GOOD_X.copy()
    with pytest.raises(ValueError, match="out must not share memory with X"):
        compute_weights(X, GOOD_C, 1.0, out=X)


def test_out_over_the_centroids():
    C = np.arange(12.0).reshape(6, 2)
    with pytest.raises(ValueError, match="out must not share memory with centroids"):
        compute_weights(GOOD_X, C[:2], 1.0, out=C)
    np.testing.assert_array_equal(C, np.arange(12.0).reshape(6, 2))


@pytest.mark.parametrize("dress", [misaligned, np.ma.array], ids=["misaligned", "masked array"])
def test_outs_of_other_kinds(dress):
    with pytest.raises(ValueError, match="out must be a writable, aligned"):
        compute_weights(GOOD_X, GOOD_C, 1.0, out=dress(np.empty((6, 2))))


@every_function
@pytest.mark.parametrize("n_threads", [0, -1])
def test_n_threads(call, n_threads):
    with pytest.raises(ValueError, match="n_threads"):
        call(n_threads=n_threads)


@every_function
def test_n_threads_is_an_integer(call):
    with pytest.raises(TypeError, match="n_threads"):
        call(n_threads=1.5)


@pytest.mark.parametrize(
    ("W", "error"),
    [
        (np.ones((5, 2)), ValueError),
        (np.ones(6), ValueError),
        (np.ones((6, 0)), ValueError),
        (np.full((6, 2), np.nan), ValueError),
        (np.zeros((6, 2)), ValueError),
        (np.ones((6, 2), np.float32), TypeError),
    ],
    ids=["rows", "1-d", "K=0", "nan", "sums to zero", "dtype"],
)
def test_weights(W, error):
    with pytest.raises(error, match="weights"):
        update_centroids(GOOD_X, W)


@pytest.mark.parametrize("name", ["compute_weights", "ekm_statistics", "ekm_step", "assign"])
def test_squares_that_overflow_are_reported(name, isa):
    X = np.array([[1e30, 0], [0, 1]], np.float32)
    # assign sums in double and has no such limit, but its result is float32.
    if name == "assign":
        X *= np.float32(1e-12)
        CALLS[name](X)
    else:
        with pytest.raises(ValueError, match="overflow"):
            CALLS[name](X)


# --- the kernels' exponential -------------------------------------------------------------------

# Measured over every float32 in [-100, 0] and 6 million float64 in [-900, 0]: 0.992 and 1.007 with
# a table (AVX-512), 2.042 and 0.944 without, 2.294 and 1.222 without fused multiply-add either. The
# polynomial of degree 5 alone errs by 9.1e-8, 1.5 units where the result is just above 1/2.
MAX_ULP = {np.float32: 2.3, np.float64: 1.25}
MAX_ULP_AVX512 = {np.float32: 1.0, np.float64: 1.05}


def max_ulp(dtype, isa):
    return (MAX_ULP_AVX512 if isa == "avx512" else MAX_ULP)[dtype]


def test_exp2_for_every_float32(isa):
    # x = n + f with f exact, and 2^n exact too: what happens below -1 happens, on a coarser grid
    # of f, above it as well. So: every number in [-1, -2^-8], then every 251st of the rest.
    first, last, end = (int(np.float32(x).view(np.uint32)) for x in (-(2.0**-8), -1, -100))
    chunks = [range(i, min(i + (1 << 20), last + 1)) for i in range(first, last + 1, 1 << 20)]
    chunks += [range(0x80000000, first, 251), range(last, end + 1, 251)]
    worst = 0.0
    for chunk in chunks:
        x = np.arange(chunk.start, chunk.stop, chunk.step, dtype=np.uint32).view(np.float32)
        exact = np.exp2(x.astype(np.float64))
        ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
        worst = max(worst, float((np.abs(_core.exp2_kernel(x) - exact) / ulp).max()))
    assert worst <= max_ulp(np.float32, isa), worst


def test_exp2_for_float64(isa):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [-900 * rng.random(200_000), -rng.random(200_000), -np.logspace(-320, 2, 100_000)]
    )
    exact = np.exp2(x.astype(LD))
    ulp = np.spacing(exact.astype(np.float64)).astype(LD)
    worst = float((np.abs(_core.exp2_kernel(x) - exact) / ulp).max())
    assert worst <= max_ulp(np.float64, isa), worst


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp2_of_integers_is_exact(dtype, isa):
    x = np.arange(CLAMP[dtype], 1).astype(dtype)
    np.testing.assert_array_equal(_core.exp2_kernel(x), np.exp2(x))
    np.testing.assert_array_equal(_core.exp2_kernel(np.array([-0.0], dtype)), 1)


# --- the choice of the instruction set ----------------------------------------------------------


def test_instruction_sets():
    assert _core.available_isas()[0] == "base"
    assert _core.isa() in _core.available_isas()
    with pytest.raises(ValueError, match="base"):
        _core.set_isa("abacus")


@pytest.mark.parametrize("name", _core.available_isas())
def test_the_environment_chooses_the_instruction_set(name):
    code = "import ekmfast, ekmfast._core as c; print(c.isa())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "EKMFAST_ISA": name},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == name


def test_an_unknown_instruction_set_in_the_environment_is_reported():
    done = subprocess.run(
        [sys.executable, "-c", "import ekmfast; ekmfast.assign([[0.0]], [[1.0]])"],
        env={**os.environ, "EKMFAST_ISA": "abacus"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "abacus" in done.stderr


def test_public_names():
    assert {"assign", "compute_weights", "ekm_statistics", "ekm_step", "update_centroids"} <= set(
        ekmfast.__all__
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda X: compute_weights(X, [[1.0], [1e39]], 1.0),
        lambda X: ekm_step(X, [[1e200], [1.0]], 1.0),
        lambda X: assign(X, [[1e39], [1.0]]),
        lambda X: assign(X * np.float32(1e25), [[1e25], [0.0]]),
    ],
    ids=["compute_weights", "ekm_step", "assign", "assign distance"],
)
def test_overflow_of_float32_is_an_error(call):
    X = np.array([[0.0], [4.0], [5.0]], np.float32)
    with pytest.raises(ValueError, match="overflow float32"):
        call(X)


@pytest.mark.parametrize("alpha", [1e-20, 1e-45, 1e-300])
def test_tiny_alpha_means_uniform_memberships(alpha):
    X = np.array([[0.0], [4.0], [5.0]], np.float32)
    centroids, objective = ekm_step(X, [[1.0], [2.0]], alpha)
    np.testing.assert_allclose(centroids, [[3.0], [3.0]], rtol=1e-6)
    # The mean of the two centroids' sums of 1/2 (x - c)^2: (13 + 8.5) / 2.
    assert objective == pytest.approx(10.75, rel=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        "a",
        [[1.0, 2.0], [3.0]],
        [[1j, 0]],
        [["1.0", "2.0"]],
        [[10**400, 0]],
        [[None, {}]],
        [[np.datetime64("2020-01-01"), np.datetime64("2020-01-02")]],
        [[np.timedelta64(1, "s"), np.timedelta64(2, "s")]],
    ],
    ids=lambda bad: str(bad)[:30],
)
@pytest.mark.parametrize("name", ["X", "centroids", "sample_weight"])
def test_what_is_not_an_array_of_numbers_is_named(name, bad):
    arguments = {"X": [[0.0, 0.0], [1.0, 1.0]], "centroids": [[0.0, 0.0]], "sample_weight": None}
    arguments[name] = bad
    with pytest.raises(ValueError, match=f"{name} must be an array of real numbers"):
        ekm_step(**arguments, alpha=1.0)


@pytest.mark.parametrize("name", ["centroids", "sample_weight", "alpha"])
@pytest.mark.parametrize("dtype", [complex, np.complex64, "U3", "S3"])
def test_no_part_of_a_number_is_dropped(name, dtype):
    """Arrays of complex numbers, of which NumPy would drop one part with a warning, and of text."""
    arguments = {"centroids": GOOD_C, "sample_weight": np.ones(6), "alpha": np.array(1.0)}
    arguments[name] = arguments[name].astype(dtype)
    with pytest.raises((ValueError, TypeError), match=f"{name} must be"):
        ekm_step(GOOD_X, **arguments)


@pytest.mark.parametrize("name", ["X", "centroids", "sample_weight", "alpha", "weights"])
def test_masked_entries_are_refused(name):
    arguments = {"X": GOOD_X, "centroids": GOOD_C, "sample_weight": np.ones(6), "alpha": 1.0}
    arguments["weights"] = np.ones((6, 2))
    hidden = np.ma.array(arguments[name])
    hidden[(0,) * hidden.ndim] = np.ma.masked
    arguments[name] = hidden
    weights = arguments.pop("weights")
    error = TypeError if name == "alpha" else ValueError

    def call():
        return update_centroids(GOOD_X, weights) if name == "weights" else ekm_step(**arguments)

    with pytest.raises(error, match=f"{name} must"):
        call()


@with_alpha
@pytest.mark.parametrize("alpha", [10**400, 10**5000, -(10**5000), -1], ids=range(4))
def test_integers_beyond_a_float_for_alpha(call, alpha):
    with pytest.raises(ValueError, match="alpha must be finite and > 0, got"):
        call(alpha=alpha)


# --- numbers at the end of their range ----------------------------------------------------------

UNIT = {np.float32: 1e-25, np.float64: 1e-170}  # whose square is 0
LARGEST = {np.float32: 3e38, np.float64: 1.5e308}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", [CALLS[name] for name in ("ekm_statistics", "ekm_step", "assign")])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_squares_that_underflow_are_reported(call, offset, dtype, isa):
    X = (UNIT[dtype] * (GOOD_X + offset)).astype(dtype)
    with pytest.raises(ValueError, match=f"squared distances underflow {np.dtype(dtype)}"):
        call(X, UNIT[dtype] * GOOD_C)
    with pytest.raises(ValueError, match="squared distances underflow"):
        call(np.zeros((3, 2), dtype), UNIT[dtype] * GOOD_C)  # rows alike, centroids apart


@pytest.mark.parametrize("dtype", DTYPES)
def test_squares_that_underflow_matter_where_they_lose_an_order(dtype, isa):
    zeros, unit = np.zeros((3, 2), dtype), UNIT[dtype]
    for near, k in ([[unit, 0], [1, 1]], 0), ([[1, 1], [unit, 0]], 1), ([[unit, unit]] * 2, 0):
        np.testing.assert_array_equal(assign(zeros, near)[0], k)
        np.testing.assert_array_equal(assign(zeros[:1], near[k : k + 1])[0], 0)
    with pytest.raises(ValueError, match="squared distances underflow"):
        assign(zeros, [[unit, unit], [unit, 0]])  # the second is nearer, and no square says so


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", [CALLS[name] for name in ("ekm_statistics", "ekm_step", "assign")])
def test_rows_that_lie_on_centroids_do_not_underflow(call, dtype, isa):
    call(np.repeat(GOOD_C, 5, axis=0).astype(dtype), GOOD_C, **HARD.get(call, {}))
    call(np.ones((4, 2), dtype), np.ones((1, 2)))
    call(np.zeros((4, 2), dtype), np.zeros((3, 2)))


HARD = {CALLS[name]: {"alpha": 1e3} for name in ("ekm_statistics", "ekm_step")}


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_units_with_an_alpha_to_match(dtype, isa):
    """Where squares can be told from 0, results scale exactly with the unit, a power of two."""
    X, C = data(300, 3, 5, dtype)
    unit = 2.0**-40 if dtype == np.float32 else 2.0**-400
    new, objective = ekm_step(X, C, 2.0)
    small, small_objective = ekm_step((X * unit).astype(dtype), C * unit, 2.0 / unit**2)
    np.testing.assert_array_equal(small, (new * unit).astype(dtype))
    assert small_objective == objective * unit**2


@pytest.mark.parametrize("dtype", DTYPES)
@with_sample_weight
def test_sample_weights_too_large_or_small_are_named(call, dtype, isa):
    X = GOOD_X.astype(dtype)
    with pytest.raises(ValueError, match="scale sample_weight down"):
        call(X, sample_weight=np.full(6, LARGEST[dtype], dtype))
    tiny = np.finfo(dtype).smallest_subnormal
    with pytest.raises(ValueError, match="scale sample_weight up"):
        call(X, sample_weight=np.full(6, tiny, dtype))
    with pytest.raises(ValueError, match="scale sample_weight up"):
        call(np.float32(X), sample_weight=np.full(6, 1e-60))
    with pytest.raises(
        ValueError, match=r"sample_weight must .* got 1e\+60, beyond float32, in row"
    ):
        call(np.float32(X), sample_weight=np.full(6, 1e60))


@pytest.mark.parametrize("dtype", DTYPES)
@with_alpha
def test_an_alpha_too_large_is_named(call, dtype, isa):
    with pytest.raises(ValueError, match="alpha times squared distances overflows"):
        call(GOOD_X.astype(dtype), alpha=1.7e308)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_too_large_or_small_are_named(dtype, isa):
    X = GOOD_X.astype(dtype)
    with pytest.raises(ValueError, match=r"weights of up to .* make sums overflow"):
        update_centroids(X, np.full((6, 2), LARGEST[dtype], dtype))
    small = np.full((6, 2), 1, dtype)
    small[:, 1] = 4 * np.finfo(dtype).smallest_subnormal
    with pytest.raises(ValueError, match=r"column 1 of weights, of at most .* underflows"):
        update_centroids(X, small)
    W = np.array([[1, 1], [-1, 1], [np.finfo(dtype).tiny * 1e6, 1]], dtype)
    far = dtype(LARGEST[dtype]) ** dtype(0.4)
    with pytest.raises(ValueError, match="column 0 of weights nearly cancels"):
        update_centroids(np.array([[far], [-far], [far]], dtype), W)


def test_sums_of_rows_that_overflow_are_named():
    with pytest.raises(ValueError, match="scale X down"):
        ekm_statistics(np.full((3, 1), 1.5e308), [[1.5e308]], 1.0)
    assert update_centroids(np.full((3, 1), 1.5e308), np.ones((3, 1))) == 1.5e308


@pytest.mark.parametrize("alpha", [1e-300, 1e-200, 1e-100])
def test_tiny_alpha_and_huge_centroids(alpha, isa):
    """Memberships are uniform, to a rounding, however large centroids are beside the rows."""
    X, C = data(103, 3, 5, np.float32)
    W = compute_weights(X, C * np.float32(1e30), alpha)
    np.testing.assert_allclose(W, 1 / 3, rtol=1e-6)
    sums = ekm_statistics(X, C * np.float32(1e30), alpha)
    np.testing.assert_allclose(sums.sum_w, 103 / 3, rtol=1e-6)
    exact = (_reference.squared_distances(X.astype(LD), C.astype(LD) * LD(1e30)) / 2).mean(1).sum()
    np.testing.assert_allclose(sums.objective, float(exact), rtol=1e-5)


@pytest.mark.parametrize("alpha", [50.0, 1e3])  # at 1e3 rounding is looked for
def test_weights_of_many_centroids_take_no_second_matrix(alpha):
    X, C = data(4000, 500, 2, np.float32)
    out = np.empty((len(X), len(C)), X.dtype)
    tracemalloc.start()
    compute_weights(X, C, alpha, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < out.nbytes / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("far", [False, True])
@with_alpha
def test_centroids_that_rounding_makes_equal_are_reported(call, far, dtype, isa):
    scale = 1e10 if dtype == np.float32 else 1e29
    X = (scale * (1 + np.random.default_rng(0).random((49, 2)))).astype(dtype)
    C = np.array([[0.5, 1.0], [1.5, 0.1], [1e3 * scale, 0]])
    with pytest.raises(ValueError, match=r"centroids 0 and 1 differ by .* cannot tell them apart"):
        call(X, C if far else C[:2])


@pytest.mark.parametrize("seed", [288, 310, 340])
def test_columns_that_contradict_their_rescue_are_all_recomputed(seed, isa):
    """Rounding in float32 empties a column that has rows, and gives them to another as well."""
    rng = np.random.default_rng(seed)
    d = int(rng.choice([1, 2, 5]))
    X, C = rng.normal(size=(49, d)), rng.normal(size=(4, d)) * 10 ** rng.uniform(-6, 0)
    C += rng.normal(size=d) * 10 ** rng.uniform(-2, 2)
    if rng.random() < 0.5:
        X[:10] = C[:1] + 1e-4 * rng.normal(size=(10, d))
    X, alpha = X.astype(np.float32), 10 ** rng.uniform(4, 17)
    sums = ekm_statistics(X, C, alpha)
    exact = _reference.statistics(X.astype(LD), C.astype(LD), alpha)
    np.testing.assert_allclose(sums.sum_p, exact[2].astype(float), atol=1e-5)
    np.testing.assert_allclose(sums.objective, float(exact[3]), rtol=1e-5)


def test_a_far_centroid_of_rows_in_small_units(isa):
    """Memberships of 1e-190 are in range, their products with rows of 1e-135 are not."""
    X, C = data(300, 3, 5, np.float64)
    C[2] = 10
    unit = 2.0**-450
    expected, _ = ekm_step(X, C, 2.0)
    got, _ = ekm_step(X * unit, C * unit, 2.0 / unit**2)
    np.testing.assert_allclose(got / unit, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["X", "centroids", "sample_weight"])
def test_an_array_that_cannot_be_had_is_named(name):
    class Tensor:  # as torch's that requires a gradient
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("use tensor.detach()")

    arguments = {"X": GOOD_X, "centroids": GOOD_C, "alpha": 1.0} | {name: Tensor()}
    with pytest.raises(ValueError, match=rf"{name} must be an array.*use tensor\.detach\(\)"):
        ekm_step(**arguments)


@pytest.mark.parametrize("call", [CALLS[name] for name in ("ekm_statistics", "ekm_step", "assign")])
def test_squares_just_within_range_are_nobodys_fault(call):
    X = (np.float32(1e-18) * GOOD_X).astype(np.float32)
    call(X, 1e-18 * GOOD_C)
