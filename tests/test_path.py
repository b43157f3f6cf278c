"""alpha_path, and the rule alpha='auto', which chooses from it."""

from __future__ import annotations

import numpy as np
import pytest
from data import set_a, set_b, set_c, set_d
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_t
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

import ekmfast.estimators.ekmeans
from ekmfast import EKMeans, alpha_path, blocks
from ekmfast._reference import classification_likelihood as classification_likelihood_of
from ekmfast.fit import likelihood, merging
from ekmfast.fit.alpha import MULTIPLES
from ekmfast.fit.likelihood import classification_likelihood
from ekmfast.fit.merging import merge_all, merge_coincident
from ekmfast.fit.problem import Problem
from ekmfast.rows.array import ArrayRows


def test_each_entry_is_the_fit_at_its_alpha():
    X = set_a()[0]
    path = alpha_path(X, 3, [4.0, 0.5, 1.0], random_state=3)
    np.testing.assert_array_equal(path.alphas, [0.5, 1.0, 4.0])
    for a, alpha in enumerate(path.alphas):
        model = EKMeans(3, alpha=alpha, random_state=3).fit(X)
        np.testing.assert_array_equal(path.centroids[a], model.cluster_centers_)
        np.testing.assert_array_equal(path.labels[a], model.labels_)
        assert path.objective[a] == model.objective_
        assert path.n_clusters_effective[a] == model.n_clusters_effective_
        assert path.converged[a] == model.converged_
        np.testing.assert_array_equal(path.sizes[a], np.bincount(model.labels_, minlength=3))
    assert (np.diff(path.objective) < 0).all()


def test_agreement_is_that_of_the_neighbours():
    X = set_a()[0]
    path = alpha_path(X, 3, random_state=0)
    assert len(path.alphas) == len(MULTIPLES)
    np.testing.assert_allclose(path.alphas / path.dvariance, MULTIPLES)
    alike = [
        adjusted_rand_score(a, b) for a, b in zip(path.labels[:-1], path.labels[1:], strict=True)
    ]
    assert path.agreement[0] == pytest.approx(alike[0])
    assert path.agreement[-1] == pytest.approx(alike[-1])
    np.testing.assert_allclose(path.agreement[1:-1], np.convolve(alike, [0.5, 0.5], "valid"))
    assert alpha_path(X, 3, [1.0], random_state=0).agreement.tolist() == [1.0]


def test_auto_finds_clusters_as_likely_as_those_of_the_path():
    X = set_a()[0]
    path = alpha_path(X, 3, random_state=0)
    model = EKMeans(3, random_state=0).fit(X)
    assert path.likelihood[path.best] == pytest.approx(path.likelihood.max(), rel=1e-9)
    likelihood = classification_likelihood(X, model.labels_)
    assert likelihood >= path.likelihood[path.best] - 0.01
    assert adjusted_rand_score(model.labels_, path.labels[path.best]) > 0.98


def test_wanted_sizes_choose_alpha():
    X, y = set_a()
    sizes = np.bincount(y)
    plain = alpha_path(X, 3, random_state=0)
    assert plain.size_errors is None
    path = alpha_path(X, 3, target_sizes=sizes[[1, 2, 0]], random_state=0)
    np.testing.assert_array_equal(path.sizes, plain.sizes)
    shares = np.sort(path.sizes, axis=1) / len(X)
    wanted = 0.5 * np.abs(shares - np.sort(sizes) / len(X)).sum(axis=1)
    np.testing.assert_allclose(path.size_errors, wanted, atol=1e-15)
    assert path.size_errors[path.best] == pytest.approx(path.size_errors.min())
    assert path.size_errors[path.best] < 0.01
    # Equal thirds are what a large alpha comes nearest to, since it splits the large cluster.
    equal = alpha_path(X, 3, target_sizes=[5, 5, 5], random_state=0)
    assert equal.best > path.best
    assert equal.size_errors[equal.best] < path.size_errors.max()


def test_the_most_likely_of_equal_sizes_is_chosen():
    X = set_a()[0]
    path = alpha_path(X, 3, target_sizes=[1, 1, 98], random_state=0)
    nearest = path.size_errors <= path.size_errors.min() + 1e-9
    assert path.likelihood[path.best] == path.likelihood[nearest].max()


@pytest.mark.parametrize(
    ("sizes", "error"),
    [([1, 2], ValueError), ([1, 2, 0], ValueError), ([1, 2, np.inf], ValueError),
     ("abc", TypeError), (["a", 1, 2], TypeError), ([[1, 2, 3]], ValueError)],
)  # fmt: skip
def test_wanted_sizes_that_are_none_are_named(sizes, error):
    with pytest.raises(error, match="target_sizes must be n_clusters=3 finite numbers > 0, got"):
        alpha_path(set_a()[0][:50], 3, target_sizes=sizes)


@pytest.mark.parametrize(
    ("data", "k", "least"),
    [(set_a, 3, 0.98), (set_b, 3, 0.99), (set_c, 2, 0.97), (set_d, 9, 0.99)],
    ids=["A", "B", "C", "D"],
)
def test_auto_on_the_imbalanced_sets(data, k, least):
    X, y = data()
    assert adjusted_rand_score(y, EKMeans(k, random_state=0).fit_predict(X)) >= least


def test_auto_on_many_rows_chooses_on_a_sample(monkeypatch):
    X, y = set_a()
    whole = EKMeans(3, random_state=0).fit(X)
    monkeypatch.setattr(ekmfast.fit.likeliest, "SEARCH_ROWS", 1500)
    model = EKMeans(3, random_state=0).fit(X)
    assert whole.alpha_ / 2 <= model.alpha_ <= whole.alpha_ * 2
    again = EKMeans(3, alpha=model.alpha_, random_state=1).fit(X)
    assert model.objective_ <= again.objective_ * (1 + 1e-6)
    assert adjusted_rand_score(y, model.labels_) >= 0.98
    weight = np.ones(len(X))
    weight[:1000] = 0
    light = EKMeans(3, random_state=0).fit(X, sample_weight=weight)
    assert adjusted_rand_score(y[1000:], light.labels_[1000:]) >= 0.97


def test_auto_is_equivariant():
    X = set_a()[0]
    plain = EKMeans(3, random_state=0).fit(X)
    moved = EKMeans(3, random_state=0).fit(X * 1e6 + 1e8)
    np.testing.assert_array_equal(plain.labels_, moved.labels_)
    assert moved.alpha_ * 1e12 == pytest.approx(plain.alpha_, rel=1e-6)


@pytest.mark.parametrize("k", [1, 2])
def test_auto_where_nothing_can_be_chosen(k):
    X = np.full((10, 2), 3.0)
    if k == 1:
        X[0] += 1
        model = EKMeans(1, random_state=0).fit(X)
        np.testing.assert_allclose(model.cluster_centers_, X.mean(axis=0, keepdims=True))
    else:
        with pytest.warns(UserWarning, match="only 1 of 2 centroids are distinct"):
            model = EKMeans(2, random_state=0).fit(X)
        assert np.isfinite(model.cluster_centers_).all()


def test_likelihood_is_of_student_clusters():
    rng = np.random.default_rng(0)
    sizes = (3000, 1000)
    y = np.repeat([0, 1], sizes)
    X = np.vstack(
        [
            multivariate_t(mean, np.diag([1.0, 9.0]), df=8, seed=rng).rvs(n)
            for mean, n in zip([(0, 0), (20, 0)], sizes, strict=True)
        ]
    )
    truth = [multivariate_t(mean, np.diag([1.0, 9.0]), df=8) for mean in [(0, 0), (20, 0)]]
    exact = np.mean(
        np.where(
            y == 0,
            truth[0].logpdf(X) + np.log(0.75),
            truth[1].logpdf(X) + np.log(0.25),
        )
    )
    assert classification_likelihood(X, y) == pytest.approx(exact, abs=0.02)
    worse = np.where(rng.random(len(y)) < 0.1, 1 - y, y)
    assert classification_likelihood(X, worse) < classification_likelihood(X, y) - 0.1


@pytest.mark.parametrize(
    ("n", "d", "k"),
    # Of the last one the kernels do not keep a copy of all rows.
    [(40, 1, 2), (300, 3, 4), (900, 13, 6), (400, 61, 3), (140_000, 2, 9)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_likelihoods_are_those_of_the_specification(dtype, n, d, k):
    rng = np.random.default_rng(n)
    labels = rng.integers(0, k, (5, n)).astype(np.int32)
    labels[1] *= 2  # with gaps
    labels[2, :] = 3  # one label
    labels[3, 0] = k + 3  # a cluster of one row
    X = rng.standard_normal((n, d)) * rng.uniform(0.1, 4, d) + labels[0][:, None] + 1e3
    X[0] += 1e5
    X = X.astype(dtype)
    s = rng.uniform(0.2, 3, n).astype(dtype)
    constants = {
        "tail": likelihood.TAIL,
        "scale_prior": likelihood.SCALE_PRIOR,
        "variance_prior": likelihood.VARIANCE_PRIOR,
        "least_variance": likelihood.LEAST_VARIANCE,
        "reweightings": likelihood.REWEIGHTINGS,
    }
    for weight in (None, s):
        given = np.ones(n) if weight is None else (weight / weight.mean(dtype=np.float64))
        given = given.astype(dtype).astype(np.float64)
        found = [
            likelihood.classification_likelihoods(X, labels, weight, n_threads)
            for n_threads in (1, 3)
        ]
        assert_array_equal(found[0], found[1])
        wanted = [
            classification_likelihood_of(X.astype(np.float64), own, given, **constants)
            for own in labels
        ]
        assert found[0][2] == wanted[2] == -np.inf
        several = [0, 1, 3, 4]
        constant = found[0][0] - wanted[0]
        # Sums of at most 256 rows are formed in the dtype, relative to a row amid the others.
        rtol = 1e-10 if dtype == np.float64 else 1e-6
        assert_allclose(found[0][several] - constant, np.array(wanted)[several], rtol=rtol)
        alone = [likelihood.classification_likelihood(X, own, weight) for own in labels]
        assert_array_equal(alone, found[0])


def test_likelihood_does_not_depend_on_units_names_or_order():
    X, y = set_a()
    value = classification_likelihood(X, y)
    order = np.random.default_rng(0).permutation(len(X))
    assert classification_likelihood(X[order], 7 - 2 * y[order]) == pytest.approx(value, rel=1e-9)
    scaled = classification_likelihood(3 * X + 5, y)
    assert scaled == pytest.approx(value - 2 * np.log(3), rel=1e-9)
    weight = np.where(np.arange(len(X)) % 2, 2.0, 1.0)
    twice = np.repeat(np.arange(len(X)), weight.astype(int))
    a, b = classification_likelihood(X, y, weight), classification_likelihood(X[twice], y[twice])
    assert a == pytest.approx(b, abs=0.02)
    assert classification_likelihood(X, np.zeros(len(X), int)) == -np.inf


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"alphas": [1.0, 0.0]}, ValueError, "alphas must be finite and > 0"),
        ({"alphas": [np.nan]}, ValueError, "alphas must be finite and > 0"),
        ({"alphas": [10**400]}, ValueError, "alphas must be finite and > 0"),
        ({"alphas": [10**5000]}, ValueError, "alphas must be finite and > 0"),
        ({"alphas": []}, ValueError, r"alphas must have shape \(A,\)"),
        ({"alphas": 1.0}, ValueError, r"alphas must have shape \(A,\)"),
        ({"alphas": ["a"]}, TypeError, "alphas must be numbers"),
        ({"n_clusters": 0}, ValueError, "n_clusters must be an integer >= 1"),
        ({"n_clusters": 21}, ValueError, "n_samples=20 should be >= n_clusters=21"),
        ({"n_init": 0}, ValueError, "n_init must be 'auto' or an integer >= 1"),
        (
            {"X": np.full((20, 2), np.nan)},
            ValueError,
            "X must be finite, got NaN in row 0, column 0",
        ),
        ({"sample_weight": -np.ones(20)}, ValueError, "[Nn]egative"),
    ],
)
def test_bad_arguments(arguments, error, match):
    good = {"X": np.random.default_rng(0).standard_normal((20, 2)), "n_clusters": 2}
    with pytest.raises(error, match=match):
        alpha_path(**good | arguments)


# --- the search of alpha='auto' ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_auto_on_as_many_different_rows_as_clusters(metric, dtype):
    # Rounding makes J of rows that equal their centroids negative.
    X = np.repeat([[0.1, 0.3], [1, 1], [5, -5]], [2000, 1, 1], axis=0) * 1.4
    model = EKMeans(3, metric=metric, random_state=0).fit(X.astype(dtype))
    assert sorted(np.bincount(model.labels_)) == [1, 1, 2000]


def test_auto_with_more_clusters_than_rows_of_a_search(monkeypatch):
    monkeypatch.setattr(ekmfast.fit.likeliest, "SEARCH_ROWS", 100)
    X = np.random.default_rng(0).normal(size=(800, 2))
    with pytest.warns(ConvergenceWarning, match="without converging"):
        model = EKMeans(300, n_init=1, max_iter=1, random_state=0).fit(X)
    assert model.cluster_centers_.shape == (300, 2)


def test_a_search_of_few_rows_finds_a_tiny_cluster(monkeypatch):
    monkeypatch.setattr(ekmfast.fit.likeliest, "SEARCH_ROWS", 500)
    rng = np.random.default_rng(0)
    parts = (
        rng.normal(0, 1, (6000, 2)),
        rng.normal(9, 1, (3000, 2)),
        rng.normal((-20, 20), 1, (6, 2)),
    )
    X = rng.permutation(np.concatenate(parts))
    for data in (X, blocks.from_arrays(np.split(X, [4000]))):
        labels = EKMeans(3, random_state=0).fit(data).predict(X)
        assert sorted(np.bincount(labels, minlength=3))[0] == 6


def test_a_sketch_stands_for_all_rows():
    rng = np.random.default_rng(0)
    X, s = rng.normal(size=(5000, 3)), rng.uniform(0.5, 2, 5000)
    X[7] = 40
    s[100:200] = 0
    problem = Problem(ArrayRows(X, s), 3, tol=1e-4, max_iter=10)
    sketch = problem.sketch(500, np.random.RandomState(0)).rows
    assert sketch.sample_weight.sum() == pytest.approx(s.sum())
    assert 500 <= sketch.n_rows <= 600
    far = np.flatnonzero((sketch.X == 40).all(axis=1))
    assert sketch.sample_weight[far] == pytest.approx([s[7]])  # it stands for itself alone
    assert np.average(sketch.X[:, 0], weights=sketch.sample_weight) == pytest.approx(
        np.average(X[:, 0], weights=s), abs=0.2
    )
    # All rows with weight may be far ones.
    light = np.zeros(5000)
    light[:4] = 1
    few = Problem(ArrayRows(X, light), 3, tol=1e-4, max_iter=10)
    assert few.sketch(500, np.random.RandomState(0)).rows.sample_weight.sum() == pytest.approx(4)


def test_merge_all_is_merge_coincident_of_each(monkeypatch):
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(6, 5, 3))
    centroids[1, 4] = centroids[1, 0]
    centroids[2] = centroids[2, 0] + 1e-9 * rng.normal(size=(5, 3))
    centroids[3, 1:3] = centroids[3, 3] + 0.01
    # Each coincides with the next one only, in an order that is not theirs.
    centroids[5] = centroids[5, 0] + 0.09 * np.array([[3.0], [0], [2], [4], [1]]) * [1, 0, 0]
    alphas = np.array([1.0, 1.0, 1.0, 0.5, 1e-3, 1.0])
    merged = merge_all(centroids, alphas)
    monkeypatch.setattr(merging, "MERGE_ENTRIES", 1)  # for many centroids
    wanted = [merge_coincident(*pair) for pair in zip(centroids, alphas, strict=True)]
    assert_array_equal(merged, wanted)
    assert_array_equal(merge_all(centroids, alphas), wanted)


def test_auto_ends_at_the_means_of_narrow_clusters():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1e-3, 300), rng.normal(1e6, 1e-3, 300)])[:, None]
    model = EKMeans(2, random_state=0).fit(X)
    means = [X[:300].mean(), X[300:].mean()]
    assert_allclose(np.sort(model.cluster_centers_.ravel()), means, rtol=1e-15, atol=1e-9)
