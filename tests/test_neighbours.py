"""HardKMeans, MaximumEntropyKMeans, FuzzyCMeans: their formulas, the contract, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from data import set_a
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from ekmfast import EKMeans, FuzzyCMeans, HardKMeans, MaximumEntropyKMeans

NEIGHBOURS = [HardKMeans, MaximumEntropyKMeans, FuzzyCMeans]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("cls", NEIGHBOURS)
def test_check_estimator(cls):
    results = check_estimator(
        cls(),
        on_skip=None,
        expected_failed_checks=dict.fromkeys(
            (
                "check_sample_weight_equivalence_on_dense_data",
                "check_sample_weight_equivalence_on_sparse_data",
            ),
            "restarts are drawn at random from the rows, so repeating rows changes the draw, as "
            "for KMeans; from one start they agree (test_weight_two_is_the_row_twice)",
        ),
    )
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}


def distances(X, C):
    return 0.5 * ((X[:, None] - C) ** 2).sum(axis=2)


@pytest.mark.parametrize(
    "model",
    [
        HardKMeans(3),
        MaximumEntropyKMeans(3, alpha=3.0),
        FuzzyCMeans(3),
        FuzzyCMeans(3, fuzzifier=1.4),
    ],
)
def test_fit_ends_where_its_own_update_ends(model):
    X = set_a()[0]
    model.set_params(tol=1e-9, random_state=0, max_iter=2000).fit(X)
    assert model.converged_
    w = model.weights(X)
    update = (w.T @ X) / w.sum(axis=0)[:, None]
    np.testing.assert_allclose(model.cluster_centers_, update, atol=1e-7)
    np.testing.assert_allclose(model.membership(X).sum(axis=1), 1, atol=1e-12)
    assert model.score(X) == pytest.approx(-model.objective_, rel=1e-10)
    assert (np.diff(model.objective_history_) <= 1e-10 * np.abs(model.objective_history_[1:])).all()


def test_objectives_and_memberships_by_their_formulas():
    X = set_a()[0]
    hard = HardKMeans(3, random_state=0).fit(X)
    d = distances(X, hard.cluster_centers_)
    assert hard.objective_ == pytest.approx(d.min(axis=1).sum(), rel=1e-10)
    np.testing.assert_array_equal(hard.membership(X).argmax(axis=1), d.argmin(axis=1))

    soft = MaximumEntropyKMeans(3, alpha=2.0, random_state=0).fit(X)
    d = distances(X, soft.cluster_centers_)
    partition = np.exp(-2.0 * d).sum(axis=1)
    assert soft.objective_ == pytest.approx(-np.log(partition).sum() / 2.0, rel=1e-10)
    np.testing.assert_allclose(soft.membership(X), np.exp(-2.0 * d) / partition[:, None], atol=1e-9)

    fuzzy = FuzzyCMeans(3, fuzzifier=1.7, random_state=0).fit(X)
    d = distances(X, fuzzy.cluster_centers_)
    u = d ** (-1 / 0.7)
    u /= u.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fuzzy.membership(X), u, atol=1e-9)
    assert fuzzy.objective_ == pytest.approx((u**1.7 * d).sum(), rel=1e-8)


def test_hard_agrees_with_scikit_learn_from_the_same_start():
    X = set_a()[0]
    start = X[[0, 700, 2200]]
    ours = HardKMeans(3, init=start, tol=0, max_iter=1000).fit(X)
    theirs = KMeans(3, init=start, n_init=1, tol=0, max_iter=1000).fit(X)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-10)
    assert 2 * ours.objective_ == pytest.approx(theirs.inertia_, rel=1e-10)


def test_equilibrium_tends_to_hard_as_alpha_grows():
    X = set_a()[0]
    start = X[[0, 700, 2200]]
    hard = HardKMeans(3, init=start, tol=1e-8, max_iter=1000).fit(X)
    sharp = EKMeans(3, alpha=1e5, init=hard.cluster_centers_, tol=1e-8).fit(X)
    np.testing.assert_allclose(sharp.cluster_centers_, hard.cluster_centers_, atol=5e-3)


def test_sample_on_a_centroid_belongs_to_it_alone():
    X = np.array([[0.0], [0.0], [4.0], [5.0]])
    model = FuzzyCMeans(2, init=[[0.0], [4.0]], max_iter=1)
    with pytest.warns(ConvergenceWarning, match="FuzzyCMeans stopped after 1 pass without"):
        model.fit(X)
    np.testing.assert_array_equal(model.membership(X)[:3], [[1, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize("cls", NEIGHBOURS)
def test_weight_two_is_the_row_twice(cls):
    X = set_a()[0]
    start = X[[0, 2010, 2200]]
    weight = np.where(np.arange(len(X)) % 3 == 0, 2.0, 1.0)
    a = cls(3, init=start, tol=1e-10, max_iter=2000).fit(X, sample_weight=weight)
    b = cls(3, init=start, tol=1e-10, max_iter=2000).fit(np.repeat(X, weight.astype(int), axis=0))
    np.testing.assert_allclose(a.cluster_centers_, b.cluster_centers_, atol=1e-8)
    assert a.objective_ == pytest.approx(b.objective_, rel=1e-10)


@pytest.mark.parametrize("cls", NEIGHBOURS)
def test_float32_is_kept_and_threads_change_no_bit(cls):
    X = np.random.default_rng(0).standard_normal((30_000, 4)).astype(np.float32)
    a, b = (cls(3, n_init=2, random_state=0, n_threads=n, tol=1e-3).fit(X) for n in (1, 3))
    np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)
    assert a.cluster_centers_.dtype == a.membership(X).dtype == a.weights(X).dtype == np.float32


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [
        (FuzzyCMeans(fuzzifier=1.0), ValueError, "fuzzifier must be a finite number > 1, got 1.0"),
        (FuzzyCMeans(fuzzifier=np.nan), ValueError, "fuzzifier must be a finite number"),
        (FuzzyCMeans(fuzzifier="2"), TypeError, "fuzzifier must be a finite number"),
        (MaximumEntropyKMeans(alpha="auto"), ValueError, "must be 'dvariance' or a finite number"),
        (MaximumEntropyKMeans(alpha=0), ValueError, "alpha must be"),
        (HardKMeans(init="best"), ValueError, "init must be 'auto', .* got str 'best'"),
    ],
)
def test_bad_parameters(model, error, match):
    with pytest.raises(error, match=match):
        model.fit(np.random.default_rng(0).standard_normal((20, 2)))
