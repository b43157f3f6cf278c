"""Passes over rows in float64 that compute in float32, and the fits that use them at first."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ekmfast import EKMeans, FuzzyCMeans, HardKMeans, MaximumEntropyKMeans, _core, alpha_path
from ekmfast.fit.problem import Problem
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.unit import UnitRows

WEIGHTINGS = ["equilibrium", "maximum-entropy", "hard", "fuzzy"]
NAMES = ["sum_wx", "sum_w", "sum_p", "exponent", "objective", "reference"]


def clusters(n_rows=4_000, n_features=10, k=9, offset=0.0):
    rng = np.random.default_rng(n_rows)
    centres = 5 * rng.normal(size=(k, n_features))
    return centres[rng.integers(0, k, n_rows)] + rng.normal(size=(n_rows, n_features)) + offset


@pytest.mark.parametrize("offset", [0.0, 1e7])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("n_rows", "n_features", "k"), [(1, 1, 1), (700, 3, 2), (5_000, 33, 17)])
def test_sums_are_those_of_float64_to_the_digits_of_float32(
    n_rows, n_features, k, weighting, offset, isa
):
    """Also far from the origin, since rows are centred before they are rounded."""
    X = clusters(n_rows, n_features, k, offset)
    weight = np.arange(n_rows) % 3 + 0.5
    centroids = X[np.random.default_rng(0).integers(0, n_rows, (3, k))]
    exact = ArrayRows(X, weight, 1, weighting, 1.5)
    exact.survey()
    rounded = exact.rounded()
    alpha = np.full(3, 0.3)
    expected, found = exact.statistics(centroids, alpha), rounded.statistics(centroids, alpha)
    size = weight.sum() * (1 + np.abs(X - expected.reference).max())
    for name in NAMES:
        a, b = getattr(expected, name), getattr(found, name)
        # J is a sum of n_features squares for each row.
        scale = size**2 * n_features if name == "objective" else size
        assert_allclose(b, a, rtol=0, atol=1e-5 * scale, err_msg=name)
    assert (found.sum_wx != expected.sum_wx).any() or n_rows == 1
    for n_threads in (2, 5):
        rounded.n_threads = n_threads
        again = rounded.statistics(centroids, alpha)
        for name in NAMES:
            assert_array_equal(getattr(again, name), getattr(found, name))


def test_rows_of_length_1_and_strided_rows():
    X = clusters(3_000, 20)
    wide = np.concatenate([X, np.full_like(X, np.nan)], axis=1)[:, : X.shape[1]]
    centroids, alpha = X[None, :9].copy(), np.ones(1)
    for of, given in ((UnitRows, X), (ArrayRows, wide), (UnitRows, wide)):
        rows = of(given)
        rows.survey()
        expected = rows.statistics(centroids, alpha)
        found = rows.rounded().statistics(centroids, alpha)
        assert_allclose(found.ratio(centroids), expected.ratio(centroids), atol=1e-4)


def test_columns_that_float32_loses_are_computed_in_float64():
    X = clusters()
    centroids = X[None, :9].copy()
    centroids[0, 3] += 60  # memberships of some exp(-2000)
    rows = ArrayRows(X)
    rows.survey()
    expected = rows.statistics(centroids, np.ones(1))
    found = rows.rounded().statistics(centroids, np.ones(1))
    for name in NAMES:
        assert_array_equal(getattr(found, name), getattr(expected, name))
    assert np.isfinite(found.ratio(centroids)).all()


def test_only_float64_is_rounded():
    X = np.ones((5, 2), np.float32)
    with pytest.raises(ValueError, match="only rows in float64 can be rounded"):
        _core.statistics(X, np.ones((1, 2, 2)), np.ones(1), None, None, 1, rounded=True)


@pytest.fixture
def solved(monkeypatch):
    """The dtype in which the passes of each iteration compute, and the number of rows."""
    found, solve = [], Problem.solve

    def watched(self, *args, **more):
        found.append((self.dtype.name, self.survey.n_rows))
        return solve(self, *args, **more)

    monkeypatch.setattr(Problem, "solve", watched)
    return found


@pytest.mark.parametrize("n_rows", [900, 16_000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "estimator",
    [
        EKMeans(9, random_state=0, tol=1e-5),
        EKMeans(9, alpha="dvariance", random_state=0, tol=1e-5),
        EKMeans(9, metric="cosine", random_state=0, tol=1e-5),
        HardKMeans(9, random_state=0, tol=1e-5),
        MaximumEntropyKMeans(9, alpha=0.5, random_state=0, tol=1e-5),
        FuzzyCMeans(9, fuzzifier=1.3, random_state=0, tol=1e-5),
    ],
)
def test_a_fit_ends_in_float64(estimator, weighted, n_rows, solved, monkeypatch):
    X = clusters(n_rows, 12)
    weight = np.arange(len(X)) % 3 + 0.5 if weighted else None
    fitted = estimator.fit(X, sample_weight=weight)
    centroids = fitted.cluster_centers_
    assert solved[-2:] == [("float32", len(X)), ("float64", len(X))]
    if getattr(estimator, "alpha", None) != "auto":  # whose search has passes of its own
        assert {dtype for dtype, _ in solved[:-1]} == {"float32"}
    assert fitted.converged_
    assert centroids.dtype == np.float64
    assert len(fitted.objective_history_) <= fitted.n_iter_ <= fitted.max_iter
    assert (np.diff(fitted.objective_history_) <= 1e-6 * fitted.objective_).all()
    # It is where a fit ends that computes in float64 from the first pass on.
    monkeypatch.setattr(Problem, "_rounded", lambda self, alpha, n_runs: None)
    whole = estimator.fit(X, sample_weight=weight)
    assert solved[-1] == ("float64", len(X))
    assert_allclose(whole.objective_, fitted.objective_, rtol=1e-6)
    # Several ends may have the same J, up to rounding, with the centroids in another order.
    in_order = [C[C[:, 0].argsort()] for C in (whole.cluster_centers_, centroids)]
    assert_allclose(*in_order, atol=1e-2)


def test_every_run_of_a_path_ends_in_float64(solved):
    X = clusters(900, n_features=3, k=3)
    found = alpha_path(X, 3, random_state=0)
    n_alphas = len(found.alphas)
    assert solved == [("float32", len(X))] + [("float64", len(X))] * n_alphas
    assert found.converged.all()
    exact = alpha_path(X, 3, random_state=0, tol=1e-9)  # float64 from the first pass on
    assert solved[n_alphas + 1 :] == [("float64", len(X))]
    assert_allclose(found.objective, exact.objective, rtol=1e-6)
    assert found.best == exact.best


@pytest.mark.parametrize("n_rows", [600, 20_000])
@pytest.mark.parametrize("estimator", [HardKMeans(4), FuzzyCMeans(4, fuzzifier=1.3)])
def test_float32_does_not_choose_between_runs_where_its_errors_hide_j(
    estimator, n_rows, solved, monkeypatch
):
    X = clusters(n_rows, n_features=5, k=5)
    X[0] *= 1e6  # alone in its cluster, so that J is that of the other rows
    estimator.set_params(random_state=0)
    found = estimator.fit(X).objective_
    assert solved[0][0] == "float32"
    assert solved[-1] == ("float64", n_rows)
    monkeypatch.setattr(Problem, "_rounded", lambda self, alpha, n_runs: None)
    assert found == estimator.fit(X).objective_


def test_j_is_lost_where_it_is_small_beside_the_squares_of_the_rows():
    X = clusters(1000)
    problem = Problem(ArrayRows(X), 9, tol=1e-4, max_iter=9)
    all_squares = np.square(X - X.mean(axis=0)).sum()
    least = np.finfo(np.float32).eps * all_squares / 1e-4
    assert problem._loses([least * 0.99, all_squares])
    assert problem._loses([-least * 0.99])  # a free energy may be negative
    assert not problem._loses([least * 1.01, -all_squares])


@pytest.mark.parametrize(
    ("n_clusters", "n_features", "n_runs", "rounds"),
    [
        (9, 10, 1, True),
        (2, 2, 16, False),  # too little arithmetic for float32 to save time
        (3, 3, 16, True),
        (3, 10, 1, False),  # the last passes in float64 are too many of all
        (3, 10, 4, True),
    ],
)
def test_passes_are_rounded_where_that_saves_time(n_clusters, n_features, n_runs, rounds):
    X = clusters(n_features=n_features)
    problem = Problem(ArrayRows(X), n_clusters, tol=1e-4, max_iter=100)
    assert (problem._rounded(0.1, n_runs) is not None) == rounds


def test_the_number_of_passes_is_limited_over_both_parts():
    X = clusters(16_000, 12)
    for max_iter in (1, 2, 3):
        with pytest.warns(match="without converging"):
            fitted = EKMeans(9, random_state=1, tol=1e-5, max_iter=max_iter).fit(X)
        assert fitted.n_iter_ == max_iter


@pytest.mark.parametrize(
    ("X", "changes", "alpha"),
    [
        (clusters().astype(np.float32), {}, 0.1),
        (clusters(n_features=7), {}, 0.1),
        (clusters(), {"n_clusters": 7}, 0.1),
        (clusters(), {"tol": 1e-6}, 0.1),
        (clusters(), {"max_iter": 1}, 0.1),
        (clusters(), {}, 1e3),  # memberships depend on digits that float32 does not have
        (np.r_[clusters(), np.full((1, 10), 1e4)], {}, 0.1),  # the same, owing to one far row
        (clusters() * 1e20, {}, 1e-40),
        (clusters() * 1e-20, {}, 1e40),
    ],
)
def test_nothing_is_rounded_where_that_would_lose_or_save_nothing(X, changes, alpha):
    def problem(X, n_clusters=9, tol=1e-4, max_iter=100):
        return Problem(ArrayRows(X), n_clusters, tol=tol, max_iter=max_iter)

    assert problem(clusters())._rounded(0.1, 1) is not None
    assert problem(X, **changes)._rounded(alpha, 1) is None


@pytest.mark.parametrize("extreme", [1e-42, 1e40])
def test_weights_beyond_float32_are_not_rounded(extreme):
    X = clusters()
    weight = np.ones(len(X))
    assert Problem(ArrayRows(X, weight), 9, tol=1e-4, max_iter=9)._rounded(0.1, 1) is not None
    weight[5] = extreme
    assert Problem(ArrayRows(X, weight), 9, tol=1e-4, max_iter=9)._rounded(0.1, 1) is None
