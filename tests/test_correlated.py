"""The search of alpha='auto' where features are strongly correlated: in their components."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans
from ekmfast.fit import likeliest
from ekmfast.fit.evidence import components_of, evidence_features

SIZES = (600, 60, 20)


def codes(seed=0, n_features=64, sizes=SIZES):
    """Clusters in four dimensions, of which each feature is a mixture."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.normal(size=(len(sizes), 4))
    centres *= 8 / np.linalg.norm(centres, axis=1, keepdims=True)
    Z = centres[y] + rng.normal(size=(len(y), 4))
    X = Z @ rng.normal(size=(4, n_features)) + 0.1 * rng.normal(size=(len(y), n_features))
    return X, y


def test_components_hold_the_variance_in_descending_order():
    X, _ = codes()
    found = components_of(X)
    assert_allclose(found.directions.T @ found.directions, np.eye(len(found.held)), atol=1e-9)
    variance = found.of_rows(X).var(axis=0)
    assert (np.diff(variance) <= 0).all()
    assert_allclose(np.cumsum(variance) / X.var(axis=0).sum(), found.held)
    few = found.first(0.9)
    assert few.held[-1] >= 0.9 > (few.held[-2] if len(few.held) > 1 else 0)
    assert_array_equal(few.of_rows(X), evidence_features(X, part=0.9))
    # Of the variance that the components do not hold nothing comes back.
    lost = ((few.rows_of(few.of_rows(X)) - X) ** 2).sum(axis=1).mean() / X.var(axis=0).sum()
    assert_allclose(lost, 1 - few.held[-1])
    assert components_of(np.random.default_rng(0).normal(size=(500, 6))) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("weighted", [False, True])
def test_small_clusters_are_found(dtype, metric, weighted):
    X, y = codes()
    X = (X + (50 if metric == "euclidean" else 0)).astype(dtype)
    weight = np.random.default_rng(1).uniform(0.5, 2, len(X)).astype(dtype) if weighted else None
    model = EKMeans(3, metric=metric, random_state=0).fit(X, sample_weight=weight)
    assert model.cluster_centers_.dtype == dtype
    assert adjusted_rand_score(y, model.labels_) > 0.95
    # The centroids are those of the fit in all features at the alpha that was found.
    again = EKMeans(
        3, alpha=model.alpha_, metric=metric, init=model.cluster_centers_, random_state=0
    ).fit(X, sample_weight=weight)
    assert_allclose(again.objective_, model.objective_, rtol=1e-5)


def test_runs_iterate_in_components_on_some_of_the_rows(monkeypatch):
    X, y = codes(sizes=(14_000, 900, 100))
    shapes = []
    search = likeliest.find_in_components

    def watched(problem, components, *given):
        solve = type(problem).solve

        def counted(self, starts, *options, **more):
            shapes.append((self.rows.n_rows, starts.shape))
            return solve(self, starts, *options, **more)

        monkeypatch.setattr(type(problem), "solve", counted)
        return search(problem, components, *given)

    monkeypatch.setattr(likeliest, "find_in_components", watched)
    model = EKMeans(3, random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    (n_rows, runs), others, chosen, polished, last = shapes
    assert n_rows < 3000
    assert runs == (16 * 4, 3, 4)
    # At seven more alphas from the best ends at the next alphas: six of them are between two.
    assert others == (n_rows, (6 * 2 + 1, 3, 4))
    assert chosen == (polished[0], (1, 3, 4))
    assert polished[0] < 13_000
    assert polished[1] == (1, 3, 64)
    assert last == (15_000, (1, 3, 64))


@pytest.mark.parametrize("seed", [95, 113, 123, 238, 346])
def test_a_run_whose_centroids_would_coincide_is_not_chosen(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(4, size=2000)
    Z = rng.normal(size=(2000, 3)) + 1.5 * rng.normal(size=(4, 3))[y]
    X = Z @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(2000, 12))
    assert EKMeans(4, random_state=0).fit(X).n_clusters_effective_ == 4


def test_starts_that_are_given():
    X, y = codes()
    centres = np.stack([X[y == k].mean(axis=0) for k in range(3)])
    given = EKMeans(3, init=centres, random_state=0).fit(X)
    called = EKMeans(3, init=lambda X, k, random_state: centres, n_init=1, random_state=0).fit(X)
    assert_array_equal(given.labels_, called.labels_)
    assert adjusted_rand_score(y, given.labels_) > 0.95


def test_the_same_bits_for_any_number_of_threads():
    X, _ = codes()
    one, four = (EKMeans(3, random_state=0, n_threads=n).fit(X) for n in (1, 4))
    assert_array_equal(one.cluster_centers_, four.cluster_centers_)
