"""Distances, memberships, weights and scores far from the origin and at the ends of the range."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
    blocks,
)
from ekmfast.rows import distances as _distances
from ekmfast.rows.distances import CHUNK_BYTES, squared_distances

ESTIMATORS = [
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
]
# Seconds since 1970, of two bursts three seconds apart.
TIMES = (1.7e9 + np.r_[np.arange(20) * 0.01, 3 + np.arange(5) * 0.01])[:, None]


def fitted(cls, X, **parameters):
    model = cls(2, random_state=0, **parameters)
    return model.fit(X, np.full(len(X), -1)) if cls is SemiSupervisedEKMeans else model.fit(X)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_timestamps_are_told_apart_by_every_method(cls):
    model = fitted(cls, TIMES)
    C = model.cluster_centers_
    near = TIMES - TIMES[0]  # exact, as are the differences of the centroids
    same = fitted(cls, near)
    same.cluster_centers_ = C - TIMES[0]
    same.alpha_ = model.alpha_
    for name in ("transform", "membership", "weights"):
        found = getattr(model, name)(TIMES)
        assert found.shape == (25, 2)
        np.testing.assert_allclose(found, getattr(same, name)(near), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(model.transform(TIMES), np.abs(TIMES - C.T))
    assert model.score(TIMES) == pytest.approx(same.score(near), rel=1e-9)
    labels = model.predict(TIMES)
    assert (labels == np.repeat([labels[0], labels[-1]], [20, 5])).all()
    np.testing.assert_array_equal(model.membership(TIMES).argmax(axis=1), labels)
    np.testing.assert_array_equal(np.diag(model.transform(C)), 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_on_its_centroid_is_at_distance_zero(dtype):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(300, 40)) + 1000).astype(dtype)
    C = X[:7]
    d2 = squared_distances(X, C)
    assert d2.dtype == X.dtype
    np.testing.assert_array_equal(d2[np.arange(7), np.arange(7)], 0)
    exact = ((X.astype(float)[:, None] - C.astype(float)) ** 2).sum(axis=2)
    np.testing.assert_allclose(d2, exact, rtol=1e-6 if dtype == "float32" else 1e-13)


def test_chunks_and_threads_change_no_bit():
    rng = np.random.default_rng(0)
    X, C = rng.normal(size=(3 * CHUNK_BYTES // (8 * 68), 60)), rng.normal(size=(8, 60))
    d2 = squared_distances(X, C, n_threads=1)
    np.testing.assert_array_equal(d2, squared_distances(X, C, n_threads=2))
    rows = rng.permutation(len(X))[:50]
    np.testing.assert_array_equal(d2[rows], squared_distances(X[rows], C))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["transform", "membership"])
def test_many_clusters_cost_no_second_matrix_and_no_call_each(dtype, method, monkeypatch):
    """Chunks of rows meet all centroids at once; any number of threads gives the same bits."""
    rng = np.random.default_rng(0)
    X, C = rng.normal(size=(8000, 3)).astype(dtype), rng.normal(size=(500, 3)).astype(dtype)
    model = fitted(EKMeans, X[:50])
    model.cluster_centers_, model.alpha_, model.n_threads = C, 2.0, 1
    tracemalloc.start()
    alone = getattr(model, method)(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * alone.nbytes
    calls = []

    def counted(*arguments):
        calls.append(len(arguments[0]))
        return cdist(*arguments)

    monkeypatch.setattr(_distances, "cdist", counted)
    model.n_threads = 3
    np.testing.assert_array_equal(getattr(model, method)(X), alone)
    assert sum(calls) == len(X)
    assert alone.dtype == dtype
    one = [getattr(model, method)(X[n : n + 1])[0] for n in range(20)]
    np.testing.assert_array_equal(one, alone[:20])


def test_one_function_that_fails_in_a_thread_fails_the_call():
    def function(d2):
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        squared_distances(np.zeros((2 * CHUNK_BYTES // 16, 1)), [[0.0]], function, n_threads=2)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_float32_squares_outside_of_its_range_do_not_spoil_distances(cls):
    model = fitted(cls, np.array([[0.0], [1], [9], [10]], np.float32))
    model.cluster_centers_ = np.array([[0.0], [2e-25]], np.float32)
    model.alpha_ = 1e50
    far = np.array([[3e20]], np.float32)
    np.testing.assert_allclose(model.transform(far), [[3e20, 3e20]], rtol=1e-6)
    tiny = np.array([[1e-25], [2e-25]], np.float32)
    np.testing.assert_allclose(model.transform(tiny), [[1e-25, 1e-25], [2e-25, 0]], rtol=1e-6)
    if cls is not HardKMeans:  # whose memberships are predict's labels
        np.testing.assert_allclose(model.membership(tiny)[1], [0, 1], atol=0.13)


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("method", ["transform", "membership", "weights", "score"])
def test_what_overflows_is_predicts_error(cls, method):
    model = fitted(cls, np.array([[0.0], [1], [9], [10]]))
    with pytest.raises(ValueError, match="squared distances overflow float64"):
        model.predict([[1e200]])
    with pytest.raises(ValueError, match="squared distances overflow float64"):
        getattr(model, method)([[1e200]])


def test_squares_that_float32_cannot_hold_are_an_error():
    with pytest.raises(ValueError, match="squared distances overflow float32"):
        squared_distances(np.array([[1e25]], np.float32), [[0.0]])


@pytest.mark.parametrize("alpha", [1e-300, 1.0, 1e300])
def test_memberships_at_any_alpha_sum_to_one(alpha):
    model = fitted(EKMeans, np.array([[0.0], [1], [9], [10]]))
    model.alpha_ = alpha
    p = model.membership([[-1e150], [0.0], [5.0], [1e100]])
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_weights_that_overflow_the_score_are_named(cls):
    X = np.array([[0.0], [1], [9], [10]])
    with pytest.raises(ValueError, match="sample_weight times squared distances overflow"):
        fitted(cls, X).score(X + 100, sample_weight=np.full(4, 1e305))


CLUSTERS = np.r_[np.random.default_rng(0).normal(0, 1, (40, 2)), np.full((4, 2), 9.0)]


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize(
    ("dtype", "held", "lost"), [("float32", 1e-20, 1e-25), ("float64", 1e-150, 1e-170)]
)
def test_units_in_which_squares_underflow_are_an_error_not_one_cluster(cls, dtype, held, lost):
    fitted(cls, CLUSTERS)
    model = fitted(cls, (CLUSTERS * held).astype(dtype))
    assert sorted(np.bincount(model.labels_).tolist()) == [4, 40]
    with pytest.raises(ValueError, match=f"squared distances underflow {dtype}: scale X up"):
        fitted(cls, (CLUSTERS * lost).astype(dtype))


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-28), ("float64", 1e-160)])
def test_rows_all_but_on_a_centroid_are_served_one_by_one(cls, dtype, near):
    """Squares that underflow, of the nearest centroid alone, leave no label in doubt."""
    model = fitted(cls, np.array([[0.0], [0.1], [1.0], [1.1]], dtype))
    model.cluster_centers_ = np.array([[near], [1.0]], dtype)
    for rows in (
        np.zeros((1, 1), dtype),
        np.zeros((7, 1), dtype),
        np.full((1, 1), near / 2, dtype),
    ):
        np.testing.assert_array_equal(model.predict(rows), 0)
        np.testing.assert_array_equal(model.transform(rows).argmin(axis=1), 0)
        np.testing.assert_array_equal(model.membership(rows).argmax(axis=1), 0)
        np.testing.assert_array_equal(model.weights(rows).argmax(axis=1), 0)
        assert model.score(rows) == pytest.approx(0, abs=0.1)


def test_a_fit_that_puts_a_centroid_beside_zeros_labels_each_of_them():
    X = np.zeros((205, 2), np.float32)
    X[200:] = np.random.default_rng(0).normal(1, 0.1, (5, 2))
    model = EKMeans(2, alpha="dvariance", random_state=0).fit(X)
    for n in (1, 7):
        np.testing.assert_array_equal(model.predict(X[:n]), model.labels_[:n])
        assert model.transform(X[:n]).min() < 1e-3


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize(("dtype", "size"), [("float32", 3e-21), ("float64", 2e-153)])
def test_units_that_a_fit_accepts_are_those_that_predict_does(cls, dtype, size):
    """One limit for both, also in many columns, whose squares add up."""
    for X in (CLUSTERS, np.tile(CLUSTERS, 50)):
        X = (X * size).astype(dtype)
        model = fitted(cls, X)
        assert sorted(np.bincount(model.labels_).tolist()) == [4, 40]
        np.testing.assert_array_equal(model.predict(X[:1]), model.labels_[:1])


@pytest.mark.parametrize("weight", [None, 1.0, 1e306])
@pytest.mark.parametrize("unit", [1e-170, 1.0, 1e160])
@pytest.mark.parametrize("cls", ESTIMATORS[:4])
def test_arrays_and_blocks_are_refused_in_the_same_words(cls, unit, weight):
    X = CLUSTERS * unit
    weight = None if weight is None else np.full(44, weight)
    in_blocks = blocks.from_arrays(
        [X[:20], X[20:]], None if weight is None else [weight[:20], weight[20:]]
    )
    said = []
    for data, given in ((X, weight), (in_blocks, None)):
        try:
            cls(2, random_state=0).fit(data, sample_weight=given)
            said.append("")
        except ValueError as error:
            said.append(str(error))
    assert said[0] == said[1]
    heavy = unit == 1 and weight is not None and weight[0] > 1
    assert bool(said[0]) == (unit in (1e-170, 1e160) or heavy)


@pytest.mark.filterwarnings("ignore:only 1 of 2 centroids")
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_equal_rows_in_such_units_are_one_cluster(cls):
    assert fitted(cls, np.full((9, 2), 1e-170)).n_clusters_effective_ == 1


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("size", [1e306, 1e307, 1e308])
def test_weights_are_named_where_they_are_to_blame(cls, size):
    y = {"y": np.full(44, -1)} if cls is SemiSupervisedEKMeans else {}
    with pytest.raises(ValueError, match=r"^sample_weight times squared distances overflow"):
        cls(2, random_state=0).fit(CLUSTERS, sample_weight=np.full(44, size), **y)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_weights_of_any_other_size_change_no_label(cls):
    for size in (1e-320, 1e-250, 1e250):
        y = {"y": np.full(44, -1)} if cls is SemiSupervisedEKMeans else {}
        model = cls(2, random_state=0).fit(CLUSTERS, sample_weight=np.full(44, size), **y)
        assert sorted(np.bincount(model.labels_).tolist()) == [4, 40]
