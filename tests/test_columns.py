"""Names of columns of all kinds of data are compared with those of the fit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ekmfast import EKMeans, HardKMeans, blocks

X = np.random.default_rng(0).normal(size=(60, 2))
X[:30] += 9


def as_blocks(values, names):
    made = blocks.from_arrays(np.array_split(values, 3))
    made.feature_names = names
    return made


def as_pandas(values, names):
    if names is None:
        return values
    return pytest.importorskip("pandas").DataFrame(values, columns=names)


def as_polars(values, names):
    if names is None:
        return values
    return pytest.importorskip("polars").DataFrame(values, schema=names)


def as_dask(values, names):
    dask_array = pytest.importorskip("dask.array")
    if names is None:
        return dask_array.from_array(values, chunks=(20, 2))
    frames = pytest.importorskip("dask.dataframe")
    return frames.from_pandas(as_pandas(values, names), npartitions=2)


KINDS = {"blocks": as_blocks, "pandas": as_pandas, "polars": as_polars, "dask": as_dask}


def fitted(kind, names):
    cls = EKMeans
    if kind == "dask":
        pytest.importorskip("dask")
        from ekmfast.dask import EKMeans as cls  # noqa: N813
    return cls(2, alpha=1.0, random_state=0, n_init=2).fit(KINDS[kind](X, names))


@pytest.mark.parametrize("method", ["predict", "score"])
@pytest.mark.parametrize("kind", KINDS)
def test_names_must_be_those_of_the_fit(kind, method):
    make, model = KINDS[kind], fitted(kind, ["a", "b"])
    assert list(model.feature_names_in_) == ["a", "b"]
    assert model.n_features_in_ == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(model, method)(make(X, ["a", "b"]))
    with pytest.raises(ValueError, match=r"The feature names should match .*\n.*in the same order"):
        getattr(model, method)(make(X, ["b", "a"]))
    with pytest.raises(
        ValueError,
        match=r"The feature names should match .*\n.*unseen at fit time:\n- c\n.*now missing:\n- b",
    ):
        getattr(model, method)(make(X, ["a", "c"]))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but EKMeans was"):
        getattr(model, method)(make(X, None))


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_the_fit_has_not_seen_are_warned_of(kind):
    model = fitted(kind, None)
    assert not hasattr(model, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but EKMeans was fitted without"):
        model.predict(KINDS[kind](X, ["a", "b"]))


def test_frames_and_blocks_know_each_others_names():
    frame = as_pandas(X, ["a", "b"])
    model = HardKMeans(2, random_state=0).fit(frame)
    np.testing.assert_array_equal(model.predict(as_blocks(X, ["a", "b"])), model.labels_)
    with pytest.raises(ValueError, match="in the same order"):
        model.predict(as_blocks(X, ["b", "a"]))
    model = HardKMeans(2, random_state=0).fit(as_blocks(X, ["a", "b"]))
    with pytest.raises(ValueError, match="in the same order"):
        model.transform(frame[["b", "a"]])


def test_many_names_are_not_all_listed():
    names = [f"f{i:02}" for i in range(40)]
    wide = np.random.default_rng(0).normal(size=(30, 40))
    model = HardKMeans(2, random_state=0).fit(as_blocks(wide, names))
    with pytest.raises(ValueError, match=r"- g00\n(- g0\d\n){4}- \.\.\.\n"):
        model.predict(as_blocks(wide, [name.replace("f", "g") for name in names]))
