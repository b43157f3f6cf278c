"""Starts: each rule follows its definition, and their mixture works on the imbalanced sets."""

from __future__ import annotations

import numpy as np
import pytest
from data import set_a, set_b, set_c, set_d
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans
from ekmfast.fit.seeding import AUTO_RULES, initial_centroids
from ekmfast.rows.array import ArrayRows


def is_row(point, X):
    return (point == X).all(axis=1).any()


@pytest.mark.parametrize("init", ["k-means++", "farthest"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_seeds_are_distinct_rows(init, dtype):
    X = np.random.default_rng(0).standard_normal((200, 3)).astype(dtype)
    starts = initial_centroids(ArrayRows(X), 6, init, 5, np.random.RandomState(0))
    assert starts.shape == (5, 6, 3)
    assert starts.dtype == np.float64
    for start in starts:
        assert all(is_row(point, X) for point in start)
        assert len(np.unique(start, axis=0)) == 6


def test_farthest_takes_the_row_farthest_from_the_seeds_so_far():
    X = np.random.default_rng(1).standard_normal((300, 2))
    for start in initial_centroids(ArrayRows(X), 5, "farthest", 4, np.random.RandomState(0)):
        for k in range(1, 5):
            d2 = ((X[:, None] - start[:k]) ** 2).sum(axis=2).min(axis=1)
            np.testing.assert_array_equal(start[k], X[d2.argmax()])


def test_kmeans_plus_plus_draws_in_proportion_to_the_squared_distance():
    X = np.array([[0.0], [1.0], [3.0]])
    starts = initial_centroids(ArrayRows(X), 2, "random", 1, np.random.RandomState(0))
    assert starts.shape == (1, 2, 1)
    # From 0, two candidates are drawn with chances 1/10 (at 1) and 9/10 (at 3), and the better one,
    # at 3, is kept: 1 is taken if both are 1, in 1 of 100 draws.
    n = 4000
    starts = initial_centroids(ArrayRows(X), 2, "k-means++", n, np.random.RandomState(0))[:, :, 0]
    from_zero = starts[starts[:, 0] == 0][:, 1]
    assert len(from_zero) > n / 4
    assert 0.002 < np.mean(from_zero == 1) < 0.025


def test_rows_without_weight_are_no_seeds():
    X = np.random.default_rng(0).standard_normal((100, 2))
    X[:50] += 1000
    weight = np.repeat([0.0, 1.0], 50)
    for init in ("k-means++", "farthest", "k-means", "random"):
        starts = initial_centroids(ArrayRows(X, weight), 4, init, 3, np.random.RandomState(0))
        assert np.abs(starts).max() < 100


def test_more_clusters_than_distinct_rows_still_gives_seeds():
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 5, axis=0)
    for init in ("k-means++", "farthest", "k-means"):
        starts = initial_centroids(ArrayRows(X), 4, init, 3, np.random.RandomState(0))
        assert starts.shape == (3, 4, 2)
        assert all(is_row(point, X) for start in starts for point in start)


def test_kmeans_seeds_are_means_of_their_rows():
    centres = np.array([[0.0, 0], [8, 0], [0, 8]])
    X = np.vstack([np.random.default_rng(0).standard_normal((60, 2)) + c for c in centres])
    for start in initial_centroids(ArrayRows(X), 3, "k-means", 4, np.random.RandomState(0)):
        nearest = ((X[:, None] - start) ** 2).sum(axis=2).argmin(axis=1)
        means = np.array([X[nearest == k].mean(axis=0) for k in range(3)])
        np.testing.assert_allclose(start, means, atol=1e-12)


def test_auto_mixes_the_rules_and_repeats_with_the_seed():
    X = set_a()[0]
    n_init = 2 * len(AUTO_RULES)
    a, b = (
        initial_centroids(ArrayRows(X), 3, "auto", n_init, np.random.RandomState(7)) for _ in "ab"
    )
    np.testing.assert_array_equal(a, b)
    rows = [all(is_row(point, X) for point in start) for start in a]
    assert rows == [rule != "k-means" for rule in AUTO_RULES] * 2


@pytest.mark.parametrize(
    ("data", "k", "best", "least_ari"),
    [
        (set_a, 3, 1024.02, 0.98),
        (set_b, 3, 1048.15, 0.99),
        (set_c, 2, 3900.59, 0.97),
        (set_d, 9, 1260.90, 0.99),
    ],
    ids=["A", "B", "C", "D"],
)
def test_imbalanced_sets_reach_the_known_optimum_from_nine_seeds_of_ten(data, k, best, least_ari):
    X, y = data()
    found = 0
    for seed in range(10):
        model = EKMeans(k, alpha=1.0, random_state=seed).fit(X)
        assert model.converged_
        ari = adjusted_rand_score(y, model.labels_)
        found += model.objective_ <= 1.0001 * best and ari >= least_ari
    assert found >= 9
