"""The NumPy reference agrees with plain arithmetic and with numbers from the literature."""

import decimal
import math

import numpy as np
import pytest

from ekmfast import _reference as ref

TINY = decimal.Decimal("1e-4000")  # below it, a long double becomes denormal


def by_hand(X, C, alpha, s):
    """Eq. 38, Eq. 39 and J with loops over Python decimals: no NumPy, no shift, no underflow."""
    with decimal.localcontext(prec=60, Emin=-(10**9), Emax=10**9):
        num = decimal.Decimal
        A = [[num(0)] * len(X[0]) for _ in C]
        B, P = [num(0)] * len(C), [num(0)] * len(C)
        W, J, a = [], num(0), num(alpha)
        for x, weight in zip(X, s, strict=True):
            d = [sum((num(u) - num(v)) ** 2 for u, v in zip(x, c, strict=True)) / 2 for c in C]
            e = [(-a * v).exp() for v in d]
            p = [v / sum(e) for v in e]
            E = sum(u * v for u, v in zip(p, d, strict=True))
            w = [u * (1 - a * (v - E)) for u, v in zip(p, d, strict=True)]
            W.append(w)
            J += num(weight) * E
            for k in range(len(C)):
                P[k] += num(weight) * p[k]
                B[k] += num(weight) * w[k]
                for j in range(len(x)):
                    A[k][j] += num(weight) * w[k] * num(x[j])
        ratio = [[v / b for v in row] for row, b in zip(A, B, strict=True)]
        return W, A, B, P, ratio, J


def exactly(nested):
    text = np.vectorize(lambda v: "0" if abs(v) < TINY else str(v))
    return text(np.array(nested, dtype=object)).astype(np.longdouble)


@pytest.mark.parametrize("alpha", [0.01, 0.7, 30.0, 4000.0])
def test_agrees_with_decimal_arithmetic(alpha):
    rng = np.random.default_rng(0)
    X, C = rng.normal(size=(9, 3)).astype(np.longdouble), rng.normal(size=(4, 3))
    s = rng.integers(0, 4, size=9).astype(float)
    C = C.astype(np.longdouble)
    W, A, B, P, ratio, J = by_hand(X.astype(float), C.astype(float), alpha, s)
    # An exponent alpha d (at most about 4000 * 10) carries its relative rounding of a few eps.
    rtol = float(50 * np.finfo(np.longdouble).eps * max(1.0, 40 * alpha))
    same = {"rtol": rtol, "atol": rtol}
    np.testing.assert_allclose(ref.weights(X, C, alpha), exactly(W), **same)
    sum_wx, sum_w, sum_p, objective = ref.statistics(X, C, alpha, s)
    np.testing.assert_allclose(sum_wx, exactly(A), **same)
    np.testing.assert_allclose(sum_w, exactly(B), **same)
    np.testing.assert_allclose(sum_p, exactly(P), **same)
    centroids, step_objective = ref.step(X, C, alpha, s)
    # Relative to the size of the column, since the sums in the ratio may be tiny or cancel.
    size = np.abs(exactly(A)).max(axis=1) / np.abs(exactly(B))
    error = np.abs(centroids - exactly(ratio)).max(axis=1) / size
    assert error.max() <= 1000 * rtol
    np.testing.assert_allclose(objective, np.longdouble(str(J)), rtol=rtol)
    np.testing.assert_allclose(step_objective, np.longdouble(str(J)), rtol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_works_in_the_dtype_given(dtype):
    X = np.arange(12, dtype=dtype).reshape(6, 2)
    C = X[[0, 5]]
    for result in (
        ref.squared_distances(X, C),
        ref.memberships(X, C, 0.1),
        ref.weights(X, C, 0.1),
        ref.naive_weights(X, C, 0.1),
        ref.update(X, ref.weights(X, C, 0.1)),
        *ref.statistics(X, C, 0.1, np.ones(6)),
        *ref.step(X, C, 0.1, np.ones(6)),
    ):
        assert result.dtype == dtype


def test_squared_distances():
    X, C = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 0.0], [3.0, 0.0]])
    np.testing.assert_array_equal(ref.squared_distances(X, C), [[0, 9], [25, 16]])


def test_memberships_are_a_softmax_with_the_half():
    p = ref.memberships(np.array([[0.0]]), np.array([[0.0], [2.0]]), 0.5)
    # alpha * 1/2 * 2^2 = 1
    np.testing.assert_allclose(p, [[1 / (1 + math.exp(-1)), 1 / (1 + math.e)]], rtol=1e-15)


def test_step_follows_from_weights_and_update():
    rng = np.random.default_rng(1)
    X, C = rng.normal(size=(50, 3)), rng.normal(size=(4, 3))
    # The columns differ by their scale alone; a few roundings of sums of 50 terms that cancel.
    np.testing.assert_allclose(
        ref.step(X, C, 1.5)[0], ref.update(X, ref.weights(X, C, 1.5)), rtol=1e-12
    )


def test_step_is_exact_where_the_weights_underflow():
    X = np.array([[100.0], [101.0], [102.0], [110.0], [111.0]])
    C = np.array([[105.0], [1000.0]])
    assert ref.weights(X, C, 2.0)[:, 1].max() == 0
    first, _ = ref.step(X, C, 2.0)
    np.testing.assert_allclose(first, [[104.8], [111.0]], rtol=1e-14)
    np.testing.assert_allclose(ref.step(X, first, 2.0)[0], [[101.0], [110.5]], rtol=1e-6)


def test_step_ignores_rows_of_weight_zero():
    X = np.array([[100.0], [101.0], [102.0], [110.0], [111.0], [999.0]])
    C = np.array([[105.0], [1000.0]])
    s = np.array([1.0, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(ref.step(X, C, 2.0, s)[0], ref.step(X[:5], C, 2.0)[0])


def test_step_leaves_a_centroid_whose_weights_sum_to_zero():
    # Squared, 1e200 is infinite: not even the logarithm of a membership is left.
    X, C = np.array([[0.0], [4.0]]), np.array([[1.0], [1e200]])
    with np.errstate(over="ignore"):
        new, _ = ref.step(X, C, 1.0)
    np.testing.assert_array_equal(new, [[2.0], [1e200]])


def test_naive_weights_agree_where_nothing_underflows():
    rng = np.random.default_rng(2)
    X, C = rng.normal(size=(50, 2)), rng.normal(size=(3, 2))
    # The 1e-8 shifts a membership by 1e-8 / sum of exponentials, which is at least exp(-3) here.
    np.testing.assert_allclose(
        ref.naive_weights(X, C, 0.1), ref.weights(X, C, 0.1), rtol=1e-6, atol=1e-7
    )


def test_naive_weights_collapse_where_everything_underflows():
    rng = np.random.default_rng(3)
    X = 5 + rng.normal(size=(100, 1024))
    C = X[:3] + 0
    X = X[3:]
    assert np.abs(ref.naive_weights(X, C, 1.0).sum(axis=1)).max() == 0
    np.testing.assert_allclose(ref.weights(X, C, 1.0).sum(axis=1), 1, rtol=1e-12)
    collapsed = ref.naive_update(X, ref.naive_weights(X, C, 1.0))
    np.testing.assert_array_equal(collapsed, np.zeros_like(C))
