"""What every estimator says of input that is no table of numbers, and of rows on its centroids."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.exceptions import NotFittedError

from ekmfast import (
    EKMeans,
    EquilibriumMixture,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
    alpha_path,
    cluster_path,
)
from ekmfast.anomaly import EKMeansDetector
from ekmfast.estimators.base import check_data

CENTROIDS = [
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
]
ESTIMATORS = [*CENTROIDS, EquilibriumMixture, EKMeansDetector]
METHODS = [
    *("predict", "transform", "membership", "weights", "score"),
    *("predict_proba", "score_samples", "decision_function", "bic", "aic", "icl"),
]
X = np.random.default_rng(0).normal(size=(60, 3))
X[:20] += 9


def methods_of(estimator):
    return [name for name in METHODS if hasattr(estimator, name)]


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_methods_say_that_an_estimator_is_not_fitted(cls):
    estimator = cls()
    assert len(methods_of(estimator)) >= 3
    for name in methods_of(estimator):
        with pytest.raises(NotFittedError, match=f"This {cls.__name__} instance is not fitted"):
            getattr(estimator, name)(X)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_a_number_that_is_not_finite_is_named_by_its_row_and_column(cls, value):
    bad = X.copy()
    bad[7, 1] = bad[9, 0] = value
    shown = {"nan": "NaN", "inf": "infinity", "-inf": "-infinity"}[str(value)]
    said = f"X must be finite, got {shown} in row 7, column 1"
    with pytest.raises(ValueError, match=said):
        cls(2, random_state=0).fit(bad)
    model = cls(2, random_state=0).fit(X)
    for name in methods_of(model):
        with pytest.raises(ValueError, match=said):
            getattr(model, name)(bad)


def test_finite_rows_whose_sum_overflows_are_finite():
    model = EKMeans(2, random_state=0).fit(X)
    far = X.copy()
    far[:2, 0] = 1.5e308
    np.testing.assert_array_equal(check_data(model, far, reset=False), far)


NO_TABLES = {
    "None": None,
    "the path of a file": "rows.csv",
    "a path": Path("rows.csv"),
    "bytes": b"1,2",
    "a dict of columns": {"a": [1.0, 2.0], "b": [3.0, 4.0]},
    "a set": {1.0, 2.0},
    "a generator": (row for row in X),
    "a file": io.StringIO("1,2"),
}
FITS = {cls.__name__: lambda X, cls=cls: cls(2).fit(X) for cls in ESTIMATORS} | {
    "alpha_path": lambda X: alpha_path(X, 2),
    "cluster_path": lambda X: cluster_path(X, 2),
    "predict": lambda given: EKMeans(2, random_state=0).fit(X).predict(given),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("given", NO_TABLES.values(), ids=NO_TABLES)
def test_what_is_no_table_is_named(given, fit):
    with pytest.raises(TypeError, match=r"^X must be an array or a table of numbers, not .*, got "):
        fit(given)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_a_frame_without_columns_is_named(cls):
    frame = pytest.importorskip("pandas").DataFrame(index=range(5))
    with pytest.raises(ValueError, match="X: has no columns"):
        cls(2).fit(frame)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_lazy_frame_is_to_be_collected(fit):
    lazy = pytest.importorskip("polars").DataFrame({"a": X[:, 0], "b": X[:, 1]}).lazy()
    with pytest.raises(TypeError, match=r"^X is a LazyFrame: give X\.collect\(\)$"):
        fit(lazy)


# J is a difference of large numbers, whose rounding was negative for some of these seeds.
@pytest.mark.filterwarnings("ignore:only 2 of 3 centroids")
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("cls", [EKMeans, FuzzyCMeans, HardKMeans])
def test_the_objective_of_rows_on_centroids_is_not_negative(cls, metric, sparse):
    for seed in range(8):
        two = np.repeat(np.random.default_rng(seed).normal(size=(2, 3)), 10, axis=0)
        rows = csr_matrix(two) if sparse else two
        model = cls(3, metric=metric, random_state=0).fit(rows)
        assert 0 <= model.objective_ < 1e-9
        assert (model.objective_history_ >= 0).all()
        assert -1e-9 < model.score(rows) <= 0


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_so_far_away_that_densities_overflow_are_refused(dtype, background):
    mixture = EquilibriumMixture(
        2, degrees_of_freedom=np.inf, background=background, random_state=0
    ).fit(X.astype(dtype))
    largest = np.finfo(dtype).max
    far = np.full((1, 3), largest**0.4, dtype)
    assert np.isfinite(mixture.score_samples(far)).all()
    for name in ("predict", "predict_proba", "score_samples", "score"):
        method = getattr(mixture, name)
        if background:  # beside which all other densities vanish
            assert np.isfinite(method(np.full((1, 3), largest / 4, dtype))).all()
            continue
        with pytest.raises(ValueError, match=f"squared distances overflow {np.dtype(dtype)}"):
            method(np.full((1, 3), largest / 4, dtype))


@pytest.mark.filterwarnings("ignore:EquilibriumMixture did not converge", "ignore:.*are distinct")
@pytest.mark.parametrize("scale", [1e5, 1e12, 1e30])
@pytest.mark.parametrize(
    "estimator",
    [
        EquilibriumMixture(2, covariance_type="full", random_state=0),
        EquilibriumMixture("auto", background=True, random_state=0),
        EKMeans("auto", random_state=0),
    ],
)
def test_weights_may_be_large_and_differ_by_orders_of_magnitude(estimator, scale):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for rows in (X, X[:9, :1]):
            s = scale * 10.0 ** rng.uniform(-20, 0, len(rows))
            model = estimator.fit(rows, sample_weight=s)
            assert np.isfinite(model.score(rows))
            assert model.labels_.min() >= -1
