"""`EKMeansDetector` of sparse rows is that of dense ones, without a dense copy."""

from __future__ import annotations

import pickle
from functools import cache, partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.sparse import csr_array, csr_matrix
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import get_tags
from test_sparse import EXACT, LABELS, D, N, X, data, frame_of, indices, makers, of, peak

from ekmfast import EKMeans, load, save
from ekmfast.anomaly import EKMeansDetector, _normals, features

METHODS = "score_samples", "decision_function", "predict"
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def detector(**options):
    return EKMeansDetector(**{"n_clusters": 3, "random_state": 0} | options)


@cache
def of_arrays(dtype, **options):
    """Detectors of the dense rows, and of the same rows in float64.

    As in `test_sparse`: sparse rows are clustered in float64 whatever their dtype is.
    """
    return [detector(**options).fit(data(dtype).astype(kind)) for kind in (dtype, np.float64)]


@pytest.fixture
def exact(monkeypatch):
    """Passes over arrays compute in float64 from the first one on: see `test_sparse`."""
    monkeypatch.setattr(features, "EKMeans", partial(EKMeans, **EXACT))


def assert_same(found, wanted, rtol):
    """Rounding may change the numbers of the clusters, but nothing else."""
    assert_array_equal(found.labels_, wanted.labels_)
    assert len(found.large_) == len(wanted.large_)
    assert_allclose(found.decision_scores_, wanted.decision_scores_, rtol=rtol)
    for name in ("offset_", "threshold_"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=rtol)


@pytest.mark.parametrize("contamination", [0.05, "auto"])
@pytest.mark.parametrize("alpha", ["auto", "dvariance", 1.0])
@dtypes
@indices
@makers
def test_a_fit_is_that_of_the_array(make, index, dtype, alpha, contamination, exact):
    options = {"alpha": alpha, "contamination": contamination}
    found = detector(**options).fit(of(data(dtype), make, index))
    same, wanted = of_arrays(dtype, **options)
    assert found.decision_scores_.dtype == dtype
    assert 0 < found.labels_.sum() < N / 8
    assert_array_equal(found.labels_, same.labels_)
    # Centroids and scores are rounded to dtype. The run that is kept, which rounding decides, ends
    # within its tolerance, 1e-11, of where all of them lead.
    assert_same(found, wanted, 1e-6 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("trained", ["sparse", "dense"])
@dtypes
@indices
@makers
def test_methods_tell_the_same_of_sparse_rows(make, index, dtype, trained, method):
    model = detector().fit(X if trained == "dense" else csr_matrix(X))
    rows = data(dtype)[::-1] * dtype(1.5)
    found, wanted = getattr(model, method)(of(rows, make, index)), getattr(model, method)(rows)
    assert found.dtype == wanted.dtype
    if method == "predict":
        assert set(found) == {-1, 1}
    assert_array_equal(found, wanted)


def test_several_chunks_are_one(monkeypatch):
    wanted = detector().fit(csr_matrix(X))
    monkeypatch.setattr(_normals, "CHUNK", 7 * D)
    found = detector().fit(csr_matrix(X))
    assert_same(found, wanted, 1e-12)
    assert_allclose(found.score_samples(csr_array(X)), wanted.score_samples(X), rtol=1e-12)


def test_fit_predict_marks_the_rows_that_labels_mark():
    model = detector(contamination=0.05)
    marked = model.fit_predict(csr_array(X))
    assert_array_equal(marked == -1, model.labels_ == 1)
    assert_array_equal(marked, detector(contamination=0.05).fit_predict(X))


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@pytest.mark.parametrize("to", ["csc", "coo", "lil", "dok", "bsr", "dia"])
def test_other_formats_are_converted(to):
    rows = csr_matrix(X)
    other, wanted = rows.asformat(to), detector().fit(rows)
    assert_array_equal(detector().fit(other).decision_scores_, wanted.decision_scores_)
    assert_array_equal(wanted.score_samples(other), wanted.score_samples(rows))


@pytest.mark.parametrize("dtype", [np.int64, bool])
def test_integers_and_booleans_become_float64(dtype):
    counts = np.rint(X).astype(dtype)
    found, wanted = (detector().fit(rows) for rows in (csr_matrix(counts), counts.astype(float)))
    assert found.decision_scores_.dtype == np.float64
    assert_same(found, wanted, 1e-8)


def test_order_duplicates_and_explicit_zeros():
    rows = csr_matrix(X)
    wanted = detector().fit(rows)
    halves = csr_matrix((N, D))
    halves.indptr = 2 * rows.indptr
    halves.indices = np.repeat(rows.indices, 2)
    halves.data = np.repeat(rows.data / 2, 2)
    backwards = rows.copy()
    for first, last in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        for part in (backwards.indices, backwards.data):
            part[first:last] = part[first:last][::-1].copy()
    zeros = csr_matrix(np.where(X == 0, 1, X))
    zeros.data[X.ravel() == 0] = 0
    for given in (halves, backwards, zeros):
        before = [part.copy() for part in (given.data, given.indices, given.indptr)]
        for part in (given.data, given.indices, given.indptr):
            part.setflags(write=False)
        assert_same(detector().fit(given), wanted, 1e-12)
        assert_allclose(wanted.score_samples(given), wanted.score_samples(rows), rtol=1e-12)
        for part, old in zip((given.data, given.indices, given.indptr), before, strict=True):
            assert_array_equal(part, old)


def test_no_dense_copy_is_made(monkeypatch):
    rows = sparse.random(20_000, 300, 0.02, "csr", random_state=0)
    rows.data[:] += np.repeat([0, 3], rows.nnz // 2)
    dense = 8 * rows.shape[0] * rows.shape[1]
    monkeypatch.setattr(_normals, "CHUNK", 1 << 16)
    model = detector(n_clusters=2, alpha=1.0)

    def use():
        model.fit(rows)
        model.predict(rows)

    assert peak(use) < dense / 4


def test_a_full_column_far_from_zero_costs_no_digits():
    rows = np.column_stack([X, 1e6 + 1e-3 * np.random.default_rng(0).normal(size=N)])
    centres = np.array([rows[k == LABELS].mean(axis=0) for k in range(3)])
    given, whole = (csr_matrix(rows), LABELS, centres), (rows, LABELS, centres)
    found, wanted = _normals.fit_normals(*given), _normals.fit_normals(*whole)
    assert_allclose(found.scores(csr_matrix(rows)), wanted.scores(rows), rtol=1e-9)
    assert_allclose(found.held_out_scores(*given), wanted.held_out_scores(*whole), rtol=1e-9)


# --- what is not valid ---


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_named(value):
    bad = csr_matrix(X)
    at = bad.indptr[300] + 1
    bad.data[at] = value
    shown = {"nan": "NaN", "inf": "infinity", "-inf": "-infinity"}[str(value)]
    said = f"X must be finite, got {shown} in row 300, column {bad.indices[at]}$"
    with pytest.raises(ValueError, match=said):
        detector().fit(bad)
    model = detector().fit(X)
    for method in METHODS:
        with pytest.raises(ValueError, match=said):
            getattr(model, method)(bad)


def test_a_broken_matrix_is_refused():
    broken = csr_matrix(X)
    broken.indices[5] = D
    model = detector().fit(X)
    for call in (detector().fit, model.score_samples):
        with pytest.raises(ValueError, match=r"X is no valid sparse matrix: row 3 has a column"):
            call(broken)


def test_other_columns_are_refused():
    model = detector().fit(csr_matrix(X))
    with pytest.raises(ValueError, match="X has 29 features, but EKMeansDetector is expecting 30"):
        model.predict(csr_matrix(X)[:, :29])
    with pytest.raises(ValueError, match=r"1 sample\(s\) .* minimum of 2 is required"):
        detector(n_clusters=1).fit(csr_matrix(X)[:1])


@pytest.mark.parametrize("make", [np.zeros, csr_matrix, csr_array])
def test_more_features_than_a_covariance_has_room_for(make):
    """Refused before anything is computed; the advice is good for the same rows."""
    said = (
        r"X has 20000 features, of which EKMeansDetector takes at most 16384.*"
        r"make_pipeline\(TruncatedSVD\(50\), EKMeansDetector\(\)\)"
    )
    with pytest.raises(ValueError, match=said):
        detector().fit(make((60, 20_000)))
    rows = sparse.hstack([csr_matrix(X), csr_matrix((N, 20_000))])
    chain = make_pipeline(TruncatedSVD(20, random_state=0), detector(contamination=0.05)).fit(rows)
    assert len(chain.predict(rows)) == N


def test_the_limit_can_be_reached(monkeypatch):
    monkeypatch.setattr(features, "MAX_FEATURES", D)
    detector().fit(csr_matrix(X))
    with pytest.raises(ValueError, match="X has 31 features"):
        detector().fit(np.hstack([X, X[:, :1]]))


# --- as others use it ---


def test_scikit_learn_is_told():
    assert get_tags(EKMeansDetector()).input_tags.sparse


@pytest.mark.parametrize("dtype", [np.float64, bool])
def test_a_frame_of_sparse_columns_is_taken_as_its_matrix(dtype):
    rows = np.rint(X).astype(dtype)
    frame, matrix = frame_of(rows), csr_matrix(rows)
    found, wanted = detector().fit(frame), detector().fit(matrix)
    assert list(found.feature_names_in_) == list(frame.columns)
    assert_same(found, wanted, 0)
    assert_array_equal(found.score_samples(frame), wanted.score_samples(matrix))


def test_saved_and_pickled(tmp_path):
    rows = csr_matrix(X)
    model = detector().fit(rows)
    save(model, tmp_path / "model.ekm")
    for other in (load(tmp_path / "model.ekm"), pickle.loads(pickle.dumps(model))):
        assert_array_equal(other.score_samples(rows), model.score_samples(rows))
        assert_array_equal(other.labels_, model.labels_)


def test_a_pipeline_of_categories():
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], [300, 100])
    colours = np.where(kind, rng.choice(["red", "pink"], 400), rng.choice(["blue", "navy"], 400))
    table = np.column_stack([colours, np.where(kind, "round", "square")])
    table[:5] = ["red", "square"]  # each value is common, the pair is not
    encoders = OneHotEncoder(), OneHotEncoder(sparse_output=False)
    found, dense = (make_pipeline(e, detector(contamination=0.02)).fit(table) for e in encoders)
    assert found[-1].labels_[:5].all()
    assert not found[-1].labels_[5:].any()
    assert_same(found[-1], dense[-1], 1e-6)
    assert found.predict([["red", "square"], ["blue", "square"]]).tolist() == [-1, 1]
    assert_allclose(found.score_samples(table), dense.score_samples(table), rtol=1e-6)


def test_a_pipeline_of_text():
    words = ["ship", "sea", "wind", "sail", "harbour"], ["bread", "oven", "salt", "flour"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words[k], 12)) for k in np.repeat([0, 1], [200, 80])]
    odd = [f"{' '.join(words[0])} {' '.join(words[1])}", " ".join(["salt"] * 12)]
    last = detector(n_clusters=2, contamination=0.03)
    model = make_pipeline(TfidfVectorizer(), last).fit(texts + odd)
    assert model.predict(odd).tolist() == [-1, -1]
    assert (model.predict(texts) == 1).mean() > 0.95
    rows = model[0].transform(texts + odd)
    # The search may end elsewhere within the tolerance of a run.
    assert_same(model[-1], clone(last).fit(rows.toarray()), 1e-5)
