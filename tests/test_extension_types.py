"""Columns of pandas, polars and Arrow are taken as numbers or labels, or refused by name.

Refused are dates and masked entries, which would otherwise be converted to numbers silently.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.pipeline import make_pipeline

from ekmfast import (
    EKMeans,
    EquilibriumMixture,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
    blocks,
    metrics,
)

ESTIMATORS = [
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
]
rng = np.random.default_rng(0)
X = rng.integers(0, 5, (40, 2)).astype(float)
X[:20] += 20
TEXT = ["dog"] * 30 + ["cat"] * 10
CODES = [1] * 30 + [0] * 10
PRED = [0] * 28 + [1] * 12


def pandas(values, dtype, **kwargs):
    return pytest.importorskip("pandas").Series(values, dtype=dtype, **kwargs)


def arrow(values):
    return pytest.importorskip("pyarrow").array(values)


def arrow_backed(values, dtype):
    pytest.importorskip("pyarrow")
    return pandas(values, dtype)


LABELS = {
    "text": lambda: pandas(TEXT, "str"),
    "objects": lambda: pandas(TEXT, object),
    "NumPy objects": lambda: np.array(TEXT, object),
    "category": lambda: pandas(TEXT, "category"),
    "ordered category": lambda: pandas(TEXT, "category").cat.as_ordered(),
    "category of integers": lambda: pandas(CODES, "category"),
    "string": lambda: pandas(TEXT, "string"),
    "Arrow's string": lambda: arrow_backed(TEXT, "string[pyarrow]"),
    "Int64": lambda: pandas(CODES, "Int64"),
    "UInt8": lambda: pandas(CODES, "UInt8"),
    "boolean": lambda: pandas(np.array(CODES) > 0, "boolean"),
    "Arrow's integers": lambda: arrow_backed(CODES, "int64[pyarrow]"),
    "an index": lambda: pytest.importorskip("pandas").Index(TEXT),
    "a categorical": lambda: pytest.importorskip("pandas").Categorical(TEXT),
    "an Arrow array": lambda: arrow(TEXT),
    "a dictionary array": lambda: arrow(TEXT).dictionary_encode(),
    "polars' text": lambda: pytest.importorskip("polars").Series(TEXT),
    "polars' category": lambda: (pl := pytest.importorskip("polars")).Series(
        TEXT, dtype=pl.Categorical
    ),
    "StringDType": lambda: np.array(TEXT, np.dtypes.StringDType()),
}


@pytest.mark.parametrize("kind", LABELS)
def test_metrics_take_labels_of_every_kind(kind):
    labels = LABELS[kind]()
    assert metrics.clustering_accuracy(labels, PRED) == metrics.clustering_accuracy(CODES, PRED)
    assert metrics.clustering_accuracy(PRED, labels) == metrics.clustering_accuracy(PRED, CODES)
    assert metrics.class_recall(labels, PRED).tolist() == metrics.class_recall(CODES, PRED).tolist()
    assert metrics.cv_difference(labels, PRED) == metrics.cv_difference(CODES, PRED)
    assert metrics.imbalance_ratio(labels) == 3


@pytest.mark.parametrize("kind", ["Int64", "UInt8", "category of integers", "Arrow's integers"])
def test_sizes_of_clusters_in_columns_of_integers(kind):
    assert metrics.cluster_sizes(LABELS[kind]()).tolist() == [10, 30]


@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        (["a", None], TypeError, "labels has the value None in row 1"),
        (["a", 1], TypeError, "labels has the value 1 in row 1"),
        ([1, True], TypeError, "labels has the value True in row 1"),
        ([1, float("nan")], TypeError, "labels has the value nan in row 1"),
        ([0.5, 1], TypeError, "labels has the value 0.5 in row 0"),
        ([1, 10**30], TypeError, "labels has integers beyond 64 bits"),
    ],
)
def test_objects_that_are_no_labels_are_named_with_their_row(labels, error, match):
    with pytest.raises(error, match=match):
        metrics.imbalance_ratio(np.array(labels, object))


def test_missing_and_masked_labels_are_refused():
    with pytest.raises(TypeError, match=r"labels has (the value <NA> in row 1|dtype float64)"):
        metrics.imbalance_ratio(pandas([1, None, 2], "Int64"))
    with pytest.raises(TypeError, match="labels has the value nan in row 1"):
        metrics.imbalance_ratio(pandas(["a", None], "category"))
    with pytest.raises(ValueError, match="labels has masked entries"):
        metrics.imbalance_ratio(np.ma.masked_array([1, 2], [False, True]))


def frame(**columns):
    return pytest.importorskip("pandas").DataFrame(columns)


def days():
    return pytest.importorskip("pandas").date_range("2024-01-01", periods=40)


@pytest.mark.parametrize(
    "kind", ["Int64", "Float64", "Float32", "category", "object", "boolean", "double[pyarrow]"]
)
def test_frames_of_extension_types_are_taken_as_their_numbers(kind):
    if kind.endswith("[pyarrow]"):
        pytest.importorskip("pyarrow")
    values = X > 10 if kind == "boolean" else X.astype(int) if kind == "Int64" else X
    plain = HardKMeans(2, init=X[[0, -1]], random_state=0).fit(np.asarray(values, float))
    given = frame(a=values[:, 0], b=values[:, 1]).astype(kind)
    model = HardKMeans(2, init=frame(a=X[[0, -1], 0], b=X[[0, -1], 1]), random_state=0).fit(given)
    np.testing.assert_array_equal(model.labels_, plain.labels_)
    np.testing.assert_allclose(model.cluster_centers_, plain.cluster_centers_)


REFUSED = {
    "text": (
        lambda: frame(a=X[:, 0], colour=["red"] * 40),
        "'colour' must hold numbers, it holds .*, such as 'red'",
    ),
    "a category": (
        lambda: frame(a=X[:, 0], c=pandas(TEXT, "category")),
        "'c' must hold numbers, it holds category, such as 'dog': drop it, encode it",
    ),
    "a date": (
        lambda: frame(a=X[:, 0], when=days()),
        r"'when' must hold numbers, it holds datetime64\[..\]: drop it",
    ),
    "dates alone": (lambda: frame(when=days()), "'when' must hold numbers, it holds datetime64"),
    "a zone": (
        lambda: frame(a=X[:, 0], when=days().tz_localize("UTC")),
        "'when' must hold numbers, it holds datetime64",
    ),
    "durations": (
        lambda: frame(when=days() - days()[0]),
        "'when' must hold numbers, it holds timedelta64",
    ),
    "complex": (
        lambda: frame(a=X[:, 0], z=X[:, 1] + 1j),
        "'z' must hold numbers, it holds complex128, such as",
    ),
    "polars' text": (
        lambda: pytest.importorskip("polars").DataFrame({"a": X[:, 0], "colour": ["red"] * 40}),
        "'colour' must hold numbers, it holds String, such as 'red'",
    ),
    "polars' date": (
        lambda: pytest.importorskip("polars").DataFrame(
            {"a": X[:, 0], "when": days().to_numpy().astype("datetime64[us]")}
        ),
        "'when' must hold numbers, it holds Datetime",
    ),
    "NumPy's dates": (lambda: days().to_numpy()[:, None], r"got datetime64\["),
}


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("kind", REFUSED)
def test_columns_that_are_no_numbers_are_named(kind):
    make, match = REFUSED[kind]
    given = make()
    for cls in ESTIMATORS:
        with pytest.raises(TypeError, match=f"X.*{match}"):
            cls(2).fit(given)
    model = EKMeans(2, random_state=0).fit(np.zeros(np.shape(given)) + X[:, :1])
    with pytest.raises(TypeError, match=f"X.*{match}"):
        model.predict(given)


def mixed(values):
    """A frame whose second column holds these values."""
    return frame(a=X[:, 0], b=values)


def typed(dtype):
    return lambda: frame(a=X[:, 0], b=X[:, 1]).astype(dtype)


ALIKE = {
    "plain": (typed(float), None),
    "nullable": (typed("Float64"), None),
    "Arrow": (typed("double[pyarrow]"), None),
    "booleans": (lambda: mixed(X[:, 1] > 0), None),
    "categories of numbers": (lambda: mixed(pandas(X[:, 1], "category")), None),
    "missing": (lambda: mixed(pandas([None, *X[1:, 1]], "Float64")), "NaN"),
    "missing, Arrow": (lambda: mixed(pandas([None, *X[1:, 1]], "double[pyarrow]")), "NaN"),
    "text": (lambda: mixed(["red"] * 40), "'b' must hold numbers, .*OneHotEncoder"),
    "text of digits": (lambda: mixed(["1.5"] * 40), "'b' must hold numbers, .*OneHotEncoder"),
    "categories of digits": (
        lambda: mixed(pandas(["1", "2"] * 20, "category")),
        "'b' must hold numbers, it holds category.*OneHotEncoder",
    ),
    "dates": (lambda: mixed(days()), "'b' must hold numbers, .* days from a fixed date"),
    "complex": (lambda: mixed(X[:, 1] + 1j), "'b' must hold numbers, .* its real"),
    "one name twice": (
        lambda: frame(a=X[:, 0], b=X[:, 1]).set_axis(["a", "a"], axis=1),
        "more than one column 'a'",
    ),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_columns_are_taken_or_refused_alike_as_an_array_in_blocks_and_by_dask(kind):
    dask_frames = pytest.importorskip("dask.dataframe")
    pytest.importorskip("pyarrow")
    make, refused = ALIKE[kind]
    given = make()
    fits = [
        lambda: HardKMeans(2, init=X[[0, -1]]).fit(given),
        lambda: HardKMeans(2, init=X[[0, -1]]).fit(blocks.from_arrays([given[:20], given[20:]])),
        lambda: HardKMeans(2, init=X[[0, -1]]).fit(dask_frames.from_pandas(given, npartitions=2)),
    ]
    if refused is None:
        models = [fit() for fit in fits]
        for model in models:
            assert list(model.feature_names_in_) == ["a", "b"]
            np.testing.assert_allclose(model.cluster_centers_, models[0].cluster_centers_)
    else:
        error = ValueError if "NaN" in refused or "twice" in kind else TypeError
        for fit in fits:
            with pytest.raises(error, match=refused):
                fit()


def test_objects_that_are_numbers_are_taken_in_blocks_too():
    given = frame(a=X[:, 0], b=X[:, 1]).astype(object)
    whole = HardKMeans(2, init=X[[0, -1]]).fit(given)
    parts = HardKMeans(2, init=X[[0, -1]]).fit(blocks.from_arrays([given[:20], given[20:]]))
    np.testing.assert_allclose(parts.cluster_centers_, whole.cluster_centers_)
    given.iloc[3, 1] = "3"
    with pytest.raises(TypeError, match=r"block 0 .*'b' must hold numbers, it holds object.*'3'"):
        HardKMeans(2).fit(blocks.from_arrays([given]))


def test_missing_entries_are_told_as_such():
    given = frame(a=X[:, 0], b=pandas([None, *X[1:, 1].astype(int)], "Int64"))
    with pytest.raises(ValueError, match="NaN"):
        EKMeans(2).fit(given)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_masked_entries_are_refused(cls):
    mask = np.zeros(X.shape, bool)
    mask[3] = True
    with pytest.raises(ValueError, match="X has 2 masked entries"):
        cls(2).fit(np.ma.masked_array(X, mask))
    with pytest.raises(ValueError, match="sample_weight has 1 masked entries"):
        cls(2).fit(X, sample_weight=np.ma.masked_array(np.ones(40), mask[:, 0]))
    with pytest.raises(ValueError, match="init has 1 masked entries"):
        cls(2, init=np.ma.masked_array(X[:2], [[True, False], [False, False]])).fit(X)
    unmasked = np.ma.masked_array(X, False)
    assert cls(2, random_state=0).fit(unmasked).labels_.shape == (40,)


@pytest.mark.parametrize("kind", ["Int64", "Float64", "category", "object"])
def test_weights_of_extension_types_are_taken(kind):
    weight = np.arange(40) % 3
    plain = HardKMeans(2, random_state=0).fit(X, sample_weight=weight)
    model = HardKMeans(2, random_state=0).fit(X, sample_weight=pandas(weight, kind))
    assert model.objective_ == plain.objective_


@pytest.mark.parametrize("weight", [["a"] * 40, np.ones(40) + 1j, pytest])
def test_weights_that_are_no_numbers_are_named(weight):
    with pytest.raises((TypeError, ValueError), match="sample_weight"):
        EKMeans(2).fit(X, sample_weight=weight)


@pytest.mark.parametrize("make", [csr_matrix, csr_array])
def test_the_advice_for_wide_sparse_rows_works(make):
    advised = make_pipeline(TruncatedSVD(1, random_state=0), EquilibriumMixture(2, random_state=0))
    labels = clone(advised).fit_predict(make(X))
    assert sorted(np.bincount(labels).tolist()) == [20, 20]
