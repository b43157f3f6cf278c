"""The likelihood of strongly correlated features is computed in their leading components."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans, alpha_path
from ekmfast.fit.evidence import components_of, evidence_features, independent_share
from ekmfast.fit.likelihood import classification_likelihood


def factors(seed, sizes=(400, 20, 20), n_features=64, dtype=np.float64):
    """Three classes in four hidden factors; 64 features are linear functions of the factors."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), 4))
    centres *= 5 / np.linalg.norm(centres, axis=1, keepdims=True)
    y = np.repeat(range(len(sizes)), sizes)
    hidden = centres[y] + rng.normal(size=(len(y), 4))
    X = hidden @ rng.normal(size=(4, n_features)) / 2 + 0.1 * rng.normal(size=(len(y), n_features))
    return X.astype(dtype), y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_classes_are_found_where_features_repeat_each_other(dtype):
    found, by_features = [], []
    for seed in range(8):
        X, y = factors(seed, dtype=dtype)
        path = alpha_path(X, 3, random_state=0)
        assert path.n_components <= 4
        scores = [adjusted_rand_score(y, labels) for labels in path.labels]
        found.append(scores[path.best])
        likelihood = [classification_likelihood(X, labels) for labels in path.labels]
        by_features.append(scores[int(np.argmax(likelihood))])
    assert np.mean(found) >= 0.95
    # On these problems the likelihood of all features would choose a split of the large class.
    assert np.mean(by_features) < 0.7


def test_default_fit_takes_the_alpha_of_the_path():
    X, y = factors(5)
    path = alpha_path(X, 3, random_state=0)
    model = EKMeans(3, random_state=0).fit(X)
    assert model.alpha_ == path.alphas[path.best]
    assert adjusted_rand_score(y, model.labels_) >= 0.95


@pytest.mark.parametrize(("n", "d"), [(60, 300), (300, 60), (20, 12), (2500, 2100)])
def test_independent_features_stay_as_they_are(n, d):
    X = np.random.default_rng(0).normal(size=(n, d))
    assert evidence_features(X) is X
    path_of = X[:200, :20]
    assert alpha_path(path_of, 2, random_state=0).n_components is None


def test_components_are_orthogonal_and_hold_the_share_of_the_variance():
    X, _ = factors(0)
    Z = evidence_features(X)
    covariance = np.cov(Z.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    held = Z.var(axis=0) / X.var(axis=0).sum()
    assert held.sum() >= 0.7 > held[:-1].sum()
    assert (np.diff(held) <= 0).all()


def test_both_products_give_the_same_components():
    X = factors(0, (30, 5, 5))[0]  # fewer rows than features
    assert X.shape == (40, 64)
    few = evidence_features(X)
    _, _, directions = np.linalg.svd(X - X.mean(axis=0))
    expected = (X - X.mean(axis=0)) @ directions[: few.shape[1]].T
    np.testing.assert_allclose(np.abs(few), np.abs(expected), atol=1e-8)


def test_share_counts_groups_of_equal_features():
    rng = np.random.default_rng(0)
    base = np.linalg.qr(rng.normal(size=(1000, 6)) - rng.normal(size=6))[0]
    base = np.linalg.qr(base - base.mean(axis=0))[0]
    assert independent_share(base, np.inf) == pytest.approx(1)
    assert independent_share(np.repeat(base[:, :2], 3, axis=1), np.inf) == pytest.approx(1 / 3)
    assert independent_share(np.repeat(base[:, :1], 6, axis=1), np.inf) == pytest.approx(1 / 6)
    noise = rng.normal(size=(50, 40))
    assert independent_share(noise - noise.mean(axis=0), 50) > 0.9


def test_neither_units_nor_origin_nor_constant_features_decide():
    X, _ = factors(0)
    plain = evidence_features(X)
    moved = evidence_features(1e-3 * X + 1e6)
    np.testing.assert_allclose(np.abs(moved), np.abs(1e-3 * plain), atol=1e-8)
    independent = np.random.default_rng(0).normal(size=(500, 8))
    units = independent * 10.0 ** np.arange(8)
    assert evidence_features(units) is units
    constant = np.hstack([independent, np.full((500, 30), 0.1)])
    assert evidence_features(constant) is constant


def test_weights_are_repetitions():
    X, _ = factors(0)
    weight = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    repeated = np.repeat(np.arange(len(X)), weight.astype(int))
    np.testing.assert_allclose(
        np.abs(evidence_features(X, weight)[repeated]),
        np.abs(evidence_features(X[repeated])),
        atol=1e-9,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_size_of_weights_decides_nothing(dtype):
    X, _ = factors(0, dtype=dtype)
    independent = np.random.default_rng(0).normal(size=(440, 8)).astype(dtype)
    weight = np.random.default_rng(0).uniform(0.5, 1, len(X)).astype(dtype)
    least, most = np.finfo(dtype).minexp, np.finfo(dtype).maxexp
    expected = evidence_features(X, weight)
    assert expected.shape[1] < 5
    for exponent in (least + 20, least // 2 - 20, most // 2 + 20, most - 10):
        sized = np.ldexp(weight, exponent)
        np.testing.assert_array_equal(evidence_features(X, sized), expected)
        assert evidence_features(independent, sized) is independent
    subnormal = np.full(len(X), 3 * np.finfo(dtype).smallest_subnormal)
    of_subnormal = np.abs(evidence_features(X, subnormal))
    np.testing.assert_allclose(of_subnormal, np.abs(evidence_features(X)), rtol=0, atol=1e-9)
    assert evidence_features(independent, subnormal) is independent


def test_components_of_many_rows_come_from_a_sample():
    X, _ = factors(0, (9000, 300, 300))
    plain = np.cov(evidence_features(X).T)
    held = np.trace(plain) / X.var(axis=0).sum()
    assert held == pytest.approx(0.7, abs=0.25)
    assert evidence_features(X).shape[0] == len(X)


def test_rows_that_cannot_tell_stay_as_they_are():
    for X in (np.ones((5, 3)), np.ones((1, 4)), np.arange(6.0)[:, None]):
        assert evidence_features(X) is X
    X = factors(0)[0]
    assert evidence_features(X, np.zeros(len(X))) is X


def test_components_do_not_merge_clusters_that_were_asked_for():
    X = factors(1)[0]
    path = alpha_path(X, 3, random_state=0)
    fewer = path.n_clusters_effective < 3
    assert path.likelihood[fewer].max() > path.likelihood[~fewer].max()  # a problem of the kind
    assert path.n_clusters_effective[path.best] == 3
    assert EKMeans(3, random_state=0).fit(X).n_clusters_effective_ == 3


def test_components_of_rows_so_small_that_squares_underflow():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(10, 1)) @ rng.normal(size=(1, 40)) + 1e-12 * rng.normal(size=(10, 40))
    expected, found = components_of(X), components_of(np.ldexp(X, -500))
    assert_array_equal(found.held, expected.held)
    assert_array_equal(found.directions, expected.directions)
