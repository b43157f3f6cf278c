"""The search of alpha='auto': the rows on which its runs iterate."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ekmfast import EKMeans
from ekmfast.fit import likeliest
from ekmfast.fit.problem import Problem
from ekmfast.rows.array import ArrayRows


def problem_of(X, sample_weight=None):
    return Problem(ArrayRows(X, sample_weight), 3, tol=1e-4, max_iter=100)


@pytest.mark.parametrize("weighted", [False, True])
def test_runs_read_rows_in_float32_about_their_mean(weighted):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)) + 1e8
    weight = rng.integers(0, 3, 200).astype(float) if weighted else None
    problem = problem_of(X, weight)
    rounded, centre = likeliest.in_float32(problem)
    assert rounded.dtype == np.float32
    assert_allclose(centre, np.average(X, axis=0, weights=weight))
    starts = X[:3][None]
    exact = problem.rows.statistics(starts, np.ones(1))
    near = rounded.rows.statistics(starts - centre, np.ones(1))
    assert_allclose(near.objective, exact.objective, rtol=1e-5)
    assert_allclose(near.ratio(starts - centre) + centre, exact.ratio(starts), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_squared_distances_stay_within_float32(scale):
    problem = problem_of(np.random.default_rng(0).normal(size=(50, 2)) * scale)
    rounded, centre = likeliest.in_float32(problem)
    assert rounded is problem
    assert not centre.any()


@pytest.mark.parametrize("weight", [1e-40, 1e38])
def test_weights_stay_within_float32(weight):
    X = np.random.default_rng(0).normal(size=(50, 2))
    problem = problem_of(X, np.full(50, weight))
    assert likeliest.in_float32(problem)[0] is problem


@pytest.mark.parametrize(("far", "weight"), [(1e25, 0.0), (1e45, 0.0), (1e19, 1e-37)])
def test_rows_of_little_weight_may_be_too_far_away_for_float32(far, weight):
    X = np.random.default_rng(0).normal(size=(60, 2)) + np.repeat([[0], [9]], 30, axis=0)
    s = np.ones(60)
    X[0], s[0] = far, weight
    assert likeliest.in_float32(problem_of(X, s))[0].dtype == np.float64
    centroids = EKMeans(2, random_state=0).fit(X, sample_weight=s).cluster_centers_
    expected = [X[1:30].mean(axis=0), X[30:].mean(axis=0)]
    assert_allclose(centroids[centroids[:, 0].argsort()], expected, atol=0.5)


@pytest.mark.parametrize("lost", [False, True])
def test_candidates_with_a_cluster_that_the_part_lacks_are_refined_on_more_rows(lost, monkeypatch):
    label_each, iterate, n_rows = ArrayRows.label_each, likeliest.expectation_maximization, []

    def labels(rows, centroids, names):
        found = label_each(rows, centroids, names)
        if lost and rows.n_rows < 5000 and len(centroids) <= likeliest.KEPT:
            return np.minimum(found, found.max() - 1)
        return found

    def iterations(mixtures, rows, **settings):
        n_rows.append(len(rows.X))
        return iterate(mixtures, rows, **settings)

    monkeypatch.setattr(ArrayRows, "label_each", labels)
    monkeypatch.setattr(likeliest, "expectation_maximization", iterations)
    X = np.random.default_rng(0).normal(size=(5000, 2)) * [3, 1]
    assert len(np.unique(EKMeans(4, random_state=0).fit(X).labels_)) == 4
    assert n_rows[-1] == 5000
    assert (min(n_rows) < 5000) == (not lost)
