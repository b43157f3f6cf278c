"""Mixtures of sparse rows are those of dense ones, without a dense copy."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.sparse import csr_array, csr_matrix
from sklearn.metrics import adjusted_rand_score
from test_sparse import LABELS, WEIGHT, N, X, data, frame_of, indices, makers, of, peak, wide

from ekmfast import EKMeans, EquilibriumMixture, _core, cluster_path, load, save
from ekmfast.fit import directions
from ekmfast.fit.mixture.rows import ScaledRows, densities
from ekmfast.fit.mixture.search import MixtureSearch
from ekmfast.fit.mixture.sparse import ScaledSparseRows
from ekmfast.fit.mixture.student import StudentMixture

METHODS = "predict", "predict_proba", "score_samples", "score", "bic", "aic", "icl"
KINDS = "diag", "spherical"
OPTIONS = {
    "auto": {},
    "Gaussian": {"degrees_of_freedom": math.inf},
    "given degrees": {"degrees_of_freedom": 5.0},
    "background": {"background": True},
}
by_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def fit(rows, kind="diag", weight=None, **options):
    model = EquilibriumMixture(3, covariance_type=kind, random_state=0, **options)
    return model.fit(rows, sample_weight=weight)


def assert_same(found, wanted, atol=1e-10):
    assert_array_equal(found.labels_, wanted.labels_)
    for name in ("weights_", "means_", "covariances_", "lower_bound_", "background_weight_"):
        assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=atol)
    assert found.degrees_of_freedom_ == wanted.degrees_of_freedom_
    assert found.n_iter_ == wanted.n_iter_


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@by_options
def test_a_fit_is_that_of_the_array(options, kind, weighted):
    weight = WEIGHT if weighted else None
    found, wanted = (fit(rows, kind, weight, **options) for rows in (csr_matrix(X), X))
    assert_same(found, wanted)
    if not weighted and not options:
        assert adjusted_rand_score(found.labels_, LABELS) > 0.95


@pytest.mark.parametrize("kind", KINDS)
@by_options
def test_wide_rows_end_at_the_maximum_of_the_array(options, kind, monkeypatch):
    """Without a dense sample the start is another one, but the ends are the same.

    Beside a background the array's search may find a likelier mixture.
    """
    wanted = fit(X, kind, tol=1e-5, max_iter=1000, **options)
    monkeypatch.setattr(directions, "WIDE", 0)
    found = fit(csr_matrix(X), kind, tol=1e-5, max_iter=1000, **options)
    assert found.converged_
    if "background" in options:
        assert adjusted_rand_score(found.labels_, LABELS) > 0.9
        assert wanted.lower_bound_ > found.lower_bound_ - 1e-6
        return
    assert adjusted_rand_score(found.labels_, wanted.labels_) > 0.99
    order = [int(np.abs(found.means_ - mean).sum(axis=1).argmin()) for mean in wanted.means_]
    assert sorted(order) == [0, 1, 2]
    if found.degrees_of_freedom_ == wanted.degrees_of_freedom_:
        assert_allclose(found.means_[order], wanted.means_, atol=1e-3)


@makers
@indices
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_and_indices(make, index, dtype):
    found = fit(of(data(dtype), make, index))
    assert found.means_.dtype == found.covariances_.dtype == dtype
    assert found.covariance_type_ == "diag"
    assert_allclose(found.means_, fit(data(dtype)).means_, atol=1e-5)
    close = 1e-12 if dtype == np.float64 else 1e-4
    whole = data(dtype).astype(np.float64)
    assert_allclose(
        found.predict_proba(of(data(dtype), make, index)), found.predict_proba(whole), atol=close
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("trained", ["sparse", "dense"])
@by_options
def test_methods_tell_the_same_of_sparse_rows(options, trained, method):
    model = fit(X if trained == "dense" else csr_matrix(X), **options)
    found, wanted = getattr(model, method)(csr_array(X)), getattr(model, method)(X)
    assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)
    assert np.asarray(found).dtype == np.asarray(wanted).dtype
    other = model.sample(5)[0]
    assert other.shape == (5, X.shape[1])


def test_more_rows_than_the_search_reads():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 12_000)
    rows = rng.poisson(0.2 + 2.0 * (np.arange(9) // 3 == y[:, None])).astype(float)
    found, wanted = fit(csr_matrix(rows), tol=1e-6), fit(rows, tol=1e-6)
    assert_same(found, wanted)


def test_auto_is_diag_and_matrices_are_refused():
    rows = csr_matrix(X)
    assert fit(rows, "auto").covariance_type_ == "diag"
    for kind in ("full", "tied"):
        with pytest.raises(
            ValueError,
            match=f"sparse rows need variances, but covariance_type='{kind}'.*"
            "'diag' or 'spherical'.*TruncatedSVD.*toarray",
        ):
            fit(rows, kind)
    dense = np.random.default_rng(0).normal(size=(100, 3)) + 5 * (np.arange(100) % 2)[:, None]
    full = EquilibriumMixture(2, covariance_type="full", random_state=0).fit(dense)
    with pytest.raises(ValueError, match="this mixture has covariance_type_='full'"):
        full.predict(rows[:, :3])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named(value):
    bad = csr_matrix(X)
    bad.data[bad.indptr[300]] = value
    said = f"X must be finite, got {'NaN' if np.isnan(value) else 'infinity'} in row 300, column"
    with pytest.raises(ValueError, match=said):
        fit(bad)
    model = fit(csr_matrix(X))
    for method in METHODS:
        with pytest.raises(ValueError, match=said):
            getattr(model, method)(bad)


def test_rows_whose_squares_overflow_are_refused():
    model = fit(csr_matrix(X), degrees_of_freedom=math.inf)
    for method in ("predict", "predict_proba", "score_samples", "icl"):
        with pytest.raises(ValueError, match="overflow"):
            getattr(model, method)(csr_matrix(X[:5] * 1e200))


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("k", [1, 3, 8, 9, 20, 41])
@pytest.mark.parametrize("degrees", [4.0, math.inf])
def test_kernels_agree_with_the_dense_ones(isa, k, degrees):
    rng = np.random.default_rng(k)
    rows = sparse.random(300, 70, 0.2, "csr", random_state=rng)
    s, centre, unit = rng.uniform(0, 2, 300), rng.uniform(0, 0.2, 70), 0.7
    several = StudentMixture(
        rng.dirichlet(np.ones(k), 2),
        rng.normal(0, 0.3, (2, k, 70)),
        rng.uniform(0.5, 2, (2, k, 70)),
        "diag",
        np.full(2, degrees),
        np.ones((2, k)),
        np.array([0.1, 0.2]),
        3.0,
    )
    before = _core.isa()
    try:
        _core.set_isa(isa)
        found = ScaledSparseRows(rows, s, centre, unit, 2).expectation(several)
        joint, density = np.empty((300, k)), np.empty(300)
        densities(
            several[0], ScaledSparseRows(rows, None, centre, unit, 2), joint=joint, density=density
        )
    finally:
        _core.set_isa(before)
    dense = ScaledRows(rows.toarray(), s, centre, unit, 2)
    wanted = dense.expectation(several)
    for name in ("mass", "weight", "first", "second", "background", "likelihood", "classified"):
        assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-10, atol=1e-9)
    other, same = np.empty((300, k)), np.empty(300)
    densities(several[0], dense, joint=other, density=same)
    assert_allclose(joint, other, rtol=1e-11)
    assert_allclose(density, same, rtol=1e-11)


# A narrow matrix has sums for chunks of rows, a wide one sums for strips of columns, in slabs.
@pytest.mark.parametrize(("n_features", "k"), [(50, 4), (9000, 20), (9000, 70)])
def test_the_number_of_threads_does_not_change_a_bit(n_features, k):
    rng = np.random.default_rng(0)
    rows = sparse.random(20_000, n_features, 20 / n_features, "csr", random_state=rng)
    shape = 1, k, n_features
    one = StudentMixture(
        np.full((1, k), 1 / k),
        rng.uniform(0, 0.1, shape),
        np.ones(shape),
        "diag",
        np.array([6.0]),
        np.ones((1, k)),
        np.zeros(1),
    )
    centre = np.zeros(n_features)
    first, *others = (
        ScaledSparseRows(rows, None, centre, 1.0, t).expectation(one) for t in (1, 2, 3, 7)
    )
    dense = (
        ScaledRows(rows[:, :].toarray(), None, centre, 1.0, 2).expectation(one) if k < 20 else None
    )
    for other in others:
        for name in ("mass", "weight", "first", "second", "likelihood"):
            assert getattr(first, name).tobytes() == getattr(other, name).tobytes()
    if dense is not None:
        assert_allclose(first.second, dense.second, rtol=1e-9)


def test_the_compiled_class_checks_its_arguments():
    csr = _core.Csr(X[:0].ravel(), np.zeros(0, np.int32), np.zeros(4, np.int32), 2, None)
    ones = np.ones((1, 3, 2))
    good = np.zeros(2), 1.0, ones, ones, np.zeros((1, 3)), np.ones(1), np.zeros(1)
    assert csr.expectation(*good, 1)[0].shape == (1, 3)
    with pytest.raises(ValueError, match=r"whiteners must have shape \(s, k, d\) for sparse rows"):
        csr.expectation(*good[:3], np.ones((1, 3, 2, 2)), *good[4:], 1)
    with pytest.raises(ValueError, match=r"means must have shape"):
        csr.expectation(np.zeros(2), 1.0, np.ones((1, 3, 5)), *good[3:], 1)
    two = (
        np.zeros(2),
        1.0,
        np.ones((2, 3, 2)),
        np.ones((2, 3, 2)),
        np.zeros((2, 3)),
        np.ones(2),
        np.zeros(2),
    )
    with pytest.raises(ValueError, match="must be those of one mixture"):
        csr.densities(*two, None, None, None, None, 1)
    unordered = _core.Csr(np.ones(2), np.array([1, 0], np.int32), np.array([0, 2]), 2, None)
    with pytest.raises(ValueError, match="must ascend"):
        unordered.expectation(*good, 1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_dense_copy_is_made(monkeypatch):
    rows = wide()
    # Those of `EKMeans` take memory for several runs, which `test_sparse` bounds.
    monkeypatch.setattr(MixtureSearch, "_clusters", lambda self, k: np.arange(rows.shape[0]) % k)
    model = EquilibriumMixture(3, random_state=0, max_iter=3)
    components = 8 * 3 * rows.shape[1]
    size = rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes

    def use():
        model.fit(rows)
        for method in METHODS:
            getattr(model, method)(rows)

    # Means, scatters, whiteners and sums are (K, D), and several exist at a time.
    most = 2 * size + 40 * components
    assert peak(use) < most < 8 * rows.shape[0] * rows.shape[1] / 20


def test_the_number_of_components_is_that_of_the_array():
    found, wanted = (
        EquilibriumMixture("auto", covariance_type="diag", max_clusters=4, random_state=0).fit(rows)
        for rows in (csr_matrix(X), X)
    )
    assert_same(found, wanted)
    path, other = (
        cluster_path(rows, 3, covariance_type="diag", random_state=0) for rows in (csr_matrix(X), X)
    )
    assert_allclose(path.criterion, other.criterion, rtol=1e-9)


def test_saved_pickled_and_given_as_a_frame(tmp_path):
    rows = csr_matrix(X)
    model = fit(rows)
    save(model, tmp_path / "model.ekm")
    for other in (load(tmp_path / "model.ekm"), pickle.loads(pickle.dumps(model))):
        assert_array_equal(other.predict(rows), model.labels_)
    assert_same(fit(frame_of(X)), model)
    assert_array_equal(
        EquilibriumMixture(3, covariance_type="diag", random_state=0).fit_predict(rows.tocsc()),
        model.labels_,
    )


@pytest.mark.parametrize(
    "rows", [csr_matrix((20, 6)), sparse.random(20, 300_000, 1e-4, "csr", random_state=0)]
)
def test_one_component(rows):
    model = EquilibriumMixture(1, degrees_of_freedom=math.inf).fit(rows)
    assert_array_equal(model.labels_, np.zeros(20))
    assert_allclose(model.means_[0], np.asarray(rows.mean(axis=0)).ravel(), atol=1e-12)
    assert model.covariance_type_ == ("diag" if rows.shape[1] == 6 else "spherical")


def test_labels_of_equilibrium_k_means_are_kept_in_wide_rows(monkeypatch):
    monkeypatch.setattr(directions, "WIDE", 0)
    model, other = fit(csr_matrix(X)), EKMeans(3, random_state=0).fit(csr_matrix(X))
    assert adjusted_rand_score(model.labels_, other.labels_) > 0.95
    assert len(model.labels_) == N
