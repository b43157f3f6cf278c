"""The other weightings of the same kernels, held to plain NumPy in double.

Tolerances are forward error bounds as in test_kernels.py: `Oracle` says by how much a distance may
be off, and follows that through each weighting's formula by the product rule.
"""

import numpy as np
import pytest

from ekmfast import _core, _reference
from ekmfast.rows.array import ArrayRows

DTYPES = [np.float32, np.float64]
WEIGHTINGS = ["maximum-entropy", "hard", "fuzzy"]
NAMES = ["sum_wx", "sum_w", "sum_p", "objective"]
SHAPES = [(1, 1, 1), (2, 3, 1), (25, 2, 2), (100, 1, 3), (1000, 17, 2), (1000, 5, 33), (4001, 3, 5)]


def data(n, k, d, dtype, offset=0.0, seed=0):
    rng = np.random.default_rng([seed, n, k, d])
    X = (rng.normal(size=(n, d)) + 2 * rng.integers(0, 3, size=(n, 1)) + offset).astype(dtype)
    C = X[rng.integers(0, n, size=k)].astype(float) + rng.normal(size=(k, d)) / 2
    s = rng.integers(0, 3, size=n).astype(dtype)
    return X, C, s


class Oracle:
    """Sums about ``reference`` and their error bounds."""

    def __init__(self, X, C, alpha, s, weighting, m, reference):
        eps = float(np.finfo(X.dtype).eps)
        n, dim = X.shape
        k = len(C)
        s = np.ones(n) if s is None else s.astype(float)
        Y = X.astype(float) - reference
        d = _reference.squared_distances(X.astype(float), C) / 2
        size = (Y**2).sum(1)[:, None] / 2 + ((C - reference) ** 2).sum(1) / 2
        # A sum of D products as large as the norms.
        delta = (4 + np.sqrt(dim)) * eps * size
        if weighting == "maximum-entropy":
            r = -alpha * (d - d.min(1, keepdims=True))
            u = np.exp(r)
            total = u.sum(1, keepdims=True)
            p = w = u / total
            off = alpha * (delta + delta.max(1, keepdims=True)) + 4 * eps * (1 - r)
            dp = dw = p * np.expm1(off + off.max(1, keepdims=True)) + (k + 8) * eps * p
            cost = d.min(1) - np.log(total[:, 0]) / alpha
            dcost = delta.max(1) + 8 * eps * size.max(1) + (k + 8) * eps / alpha
        elif weighting == "hard":
            p = w = (np.arange(k) == d.argmin(1)[:, None]).astype(float)
            # Where two are as near to rounding, either may be taken.
            tied = d - d.min(1, keepdims=True) <= delta + delta.max(1, keepdims=True)
            dp = dw = (tied & (tied.sum(1, keepdims=True) > 1)).astype(float)
            cost, dcost = d.min(1), delta.max(1)
        else:
            # From half the digits on, distances are sums of the squares of differences.
            half = 2.0**-12 if X.dtype == np.float32 else 2.0**-26
            near = (4 + np.sqrt(dim)) * eps * d + 4 * eps * np.sqrt(size * d)
            delta = np.where(d < half * size / 2, near, delta)
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = np.where(d > 0, delta / d, 0)
                ratio = np.where(d > 0, d.min(1, keepdims=True) / d, 1.0)
            least = np.take_along_axis(relative, d.argmin(1)[:, None], 1)
            v = ratio ** (1 / (m - 1))
            total = v.sum(1, keepdims=True)
            p = v / total
            w = p**m
            with np.errstate(divide="ignore", invalid="ignore"):
                exponent = np.where(v > 0, np.abs(np.log2(v)), 0)
            off = (relative + least + eps) / (m - 1) + 4 * eps * exponent
            off += off.max(1, keepdims=True) + (k + 8) * eps
            dp = p * np.expm1(off)
            dw = w * np.expm1(m * off + 4 * eps * (m - 1) * np.log2(k))
            cost = (w * d).sum(1)
            dcost = (dw * d + w * delta).sum(1)
        add = 4 * eps * np.sqrt(min(n, 1536)) + 4 * eps  # blocks are summed in the dtype
        self.sum_w, self.sum_p = s @ w, s @ p
        self.sum_wx = (s[:, None] * w).T @ Y
        self.objective = s @ cost
        self.bounds = {
            "sum_w": s @ dw + add * (s @ w),
            "sum_p": s @ dp + add * (s @ p),
            "sum_wx": (s[:, None] * (dw + (add + eps) * w)).T @ np.abs(Y),
            "objective": s @ dcost + 1e-15 * (s @ np.abs(cost)),
        }


def check(X, C, alpha, s, weighting, m=2.0, n_threads=2):
    sums = ArrayRows(X, s, n_threads, weighting, m).statistics(C, alpha)
    for i in range(len(C)):
        oracle = Oracle(X, C[i], alpha[i], s, weighting, m, sums.reference)
        for name in NAMES:
            got, expected = getattr(sums, name)[i], getattr(oracle, name)
            room = oracle.bounds[name] + 1e-30
            error = np.abs(got - expected)
            assert (error <= room).all(), f"{name} off by {np.max(error / room):.3g} bounds"
    return sums


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize(
    ("weighting", "m"),
    [
        ("maximum-entropy", 2.0),
        ("hard", 2.0),
        ("fuzzy", 2.0),
        ("fuzzy", 1.2),
        ("fuzzy", 1.5),
        ("fuzzy", 3.0),
        ("fuzzy", 7.0),
    ],
)
def test_the_formulas(weighting, m, offset, dtype, isa):
    for n, k, d in SHAPES:
        X, C, s = data(n, k, d, dtype, offset)
        others = [data(n, k, d, dtype, offset, seed=i)[1] for i in (1, 2)]
        alpha = np.array([0.3, 1.0, 3.0])
        check(X, np.stack([C, *others]), alpha, s, weighting, m)
        check(X, C[None], np.array([1.0]), None, weighting, m)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bounds_notice_another_weighting(weighting, dtype):
    X, C, s = data(1000, 5, 3, dtype)
    sums = ArrayRows(X, s, 1, weighting).statistics(C[None], np.ones(1))
    for other, m in [("maximum-entropy", 2.0), ("hard", 2.0), ("fuzzy", 2.0), ("fuzzy", 2.01)]:
        if (other, m) == (weighting, 2.0):
            continue
        oracle = Oracle(X, C, 1.0, s, other, m, sums.reference)
        for name in ("sum_wx", "sum_w", "objective"):
            error = np.abs(getattr(sums, name)[0] - getattr(oracle, name))
            assert (error > oracle.bounds[name]).any(), (other, name)


@pytest.mark.parametrize("weighting", [*WEIGHTINGS, "equilibrium"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_or_company(weighting, dtype, isa):
    X, _, s = data(20_011, 5, 3, dtype)
    C = np.stack([data(20_011, 5, 3, dtype, seed=i)[1] for i in range(3)])
    C[1, -1] += 300  # a column that may need the second pass
    alpha = np.array([0.5, 1.0, 2.0])

    def run(C, alpha, n_threads):
        sums = ArrayRows(X, s, n_threads, weighting, 1.7).statistics(C, alpha)
        return [getattr(sums, name) for name in (*NAMES, "exponent")]

    one = run(C, alpha, 1)
    for n_threads in (2, 3):
        for a, b in zip(one, run(C, alpha, n_threads), strict=True):
            np.testing.assert_array_equal(a, b)
    for i in range(3):
        for a, b in zip(one, run(C[i : i + 1], alpha[i : i + 1], 1), strict=True):
            np.testing.assert_array_equal(a[i], b[0])


@pytest.mark.parametrize("weighting", [*WEIGHTINGS, "equilibrium"])
def test_with_one_centroid_the_objective_is_the_dispersion(weighting, isa):
    X, C, s = data(1000, 1, 5, np.float64)
    sums = ArrayRows(X, s, 1, weighting, 3.0).statistics(C[None], np.array([0.7]))
    expected = s @ ((X - C[0]) ** 2).sum(1) / 2
    np.testing.assert_allclose(sums.objective, [expected], rtol=1e-13)
    np.testing.assert_allclose(sums.sum_w, [[s.sum()]], rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_far_column_of_maximum_entropy_has_an_exact_ratio(dtype, isa):
    X = np.array([[100.0], [101.0], [102.0], [110.0], [111.0]], dtype)
    C = np.array([[[105.0], [1000.0]]])
    for alpha in (0.01, 2.0):
        sums = ArrayRows(X, None, 1, "maximum-entropy").statistics(C, np.array([alpha]))
        d = (X.astype(np.longdouble) - C[0].T) ** 2 / 2
        log_p = -alpha * d - np.logaddexp.reduce(-alpha * d, axis=1, keepdims=True)
        p = np.exp(log_p - log_p.max(0))
        np.testing.assert_allclose(
            sums.ratio(C)[0], (p.T @ X / p.sum(0)[:, None]).astype(float), rtol=2e-7
        )
        expected = -np.logaddexp.reduce(-alpha * d, axis=1).sum() / alpha
        np.testing.assert_allclose(sums.objective[0], float(expected), rtol=2e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_cluster_of_the_hard_weighting(dtype, isa):
    X, C, s = data(500, 3, 4, dtype)
    C = np.stack([C, C])
    C[:, 2] = C[:, 0]  # of equals the first has all
    C[1, 1] += 1e4
    sums = ArrayRows(X, s, 1, "hard").statistics(C, np.ones(2))
    np.testing.assert_array_equal(sums.sum_w, sums.sum_p)
    np.testing.assert_array_equal(sums.sum_w[:, 2], 0)
    np.testing.assert_array_equal(sums.sum_wx[:, 2], 0)
    np.testing.assert_array_equal(sums.sum_w[1], [s.sum(), 0, 0])
    np.testing.assert_array_equal(sums.exponent, 0)
    np.testing.assert_array_equal(sums.ratio(C)[0, 2], C[0, 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1.01, 1.5, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_row_on_centroids_belongs_to_them_alone(m, offset, dtype, isa):
    X = (np.random.default_rng(0).normal(size=(30, 3)) + offset).astype(dtype)
    C = np.array([X[4], X[4], X[9], X[9] + np.float32(0.5)], float)
    only = np.zeros(30, dtype)
    for row, p in ((4, [0.5, 0.5, 0, 0]), (9, [0, 0, 1, 0])):
        only[:] = 0
        only[row] = 3
        sums = ArrayRows(X, only, 1, "fuzzy", m).statistics(C[None], np.ones(1))
        p = np.array(p)
        np.testing.assert_allclose(sums.sum_p[0], 3 * p, rtol=4 * np.finfo(dtype).eps)
        rtol = 40 * m * np.finfo(dtype).eps
        np.testing.assert_allclose(sums.sum_w[0], 3 * p**m, rtol=rtol)
        np.testing.assert_array_equal(sums.objective, 0)
        np.testing.assert_allclose(
            sums.sum_wx[0], (3 * p**m)[:, None] * (X[row] - sums.reference), rtol=rtol, atol=1e-30
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1 + 1e-12, 1.05, 2.0, 40.0, 200.0])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_fuzzy_weighting_is_never_nan(m, scale, dtype, isa):
    X, C, s = data(200, 5, 2, dtype)
    X, C = (X * dtype(scale)).astype(dtype), C * scale
    C[1] = C[0]
    C[2] = X[3]
    C[3] += 1e4 * scale
    sums = ArrayRows(X, s, 1, "fuzzy", m).statistics(C[None], np.ones(1))
    for name in NAMES:
        assert np.isfinite(getattr(sums, name)).all(), name
    assert (sums.sum_w >= 0).all()
    np.testing.assert_allclose(sums.sum_p.sum(), s.sum(), rtol=1e-5)
    assert np.isfinite(sums.ratio(C[None])).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_far_column_of_the_fuzzy_weighting(dtype, isa):
    # (D / d)^(m / (m - 1)) is 2^-420 here: beyond float32, not beyond float64.
    X, C, s = data(500, 3, 2, dtype)
    C[2] += 1e3
    m = 1.05
    sums = ArrayRows(X, s, 1, "fuzzy", m).statistics(C[None], np.ones(1))
    d = _reference.squared_distances(X.astype(float), C) / 2
    v = (d.min(1, keepdims=True) / d) ** (1 / (m - 1))
    w = s[:, None] * (v / v.sum(1, keepdims=True)) ** m
    np.testing.assert_allclose(sums.sum_w[0, 2], w[:, 2].sum(), rtol=1e-10)
    expected = w[:, 2] @ X / w[:, 2].sum()
    np.testing.assert_allclose(sums.ratio(C[None])[0, 2], expected, rtol=1e-10)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_shows(weighting, bad, dtype, isa):
    X, C, s = data(200, 3, 4, dtype)
    X[17, 2] = bad
    sums = ArrayRows(X, s, 1, weighting, 2.5).statistics(C[None], np.ones(1))
    assert not np.isfinite(sums.objective).any()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_alpha_matters_to_the_softmax_alone(weighting):
    X, C, s = data(200, 3, 4, np.float64)
    backend = ArrayRows(X, s, 1, weighting)
    one, two = (backend.statistics(C[None], np.array([alpha])) for alpha in (1.0, 2.0))
    same = (one.sum_wx == two.sum_wx).all() and one.objective == two.objective
    assert same == (weighting != "maximum-entropy")


def test_no_rows(isa):
    X = np.empty((0, 2))
    for weighting in WEIGHTINGS:
        sums = ArrayRows(X, None, 1, weighting).statistics(np.zeros((1, 3, 2)), np.ones(1))
        assert not sums.sum_w.any()
        assert sums.objective == 0


def test_wrong_arguments_are_refused():
    X, C, _ = data(10, 3, 2, np.float64)

    def call(weighting, m, centroids=C[None]):
        return _core.statistics(X, centroids, np.ones(1), None, None, 1, weighting, m)

    with pytest.raises(ValueError, match="weighting must be"):
        call("soft", 2.0)
    for m in (1.0, 0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="fuzzifier must be finite and > 1"):
            call("fuzzy", m)
    with pytest.raises(ValueError, match="fuzzifier must be <="):
        call("fuzzy", 1000.0)
