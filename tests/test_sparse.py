"""Sparse rows give the results of dense ones, without a dense copy."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.sparse import csr_array, csr_matrix
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
    _core,
    alpha_path,
    assign,
    blocks,
    compute_weights,
    ekm_statistics,
    ekm_step,
    load,
    save,
    update_centroids,
)
from ekmfast.fit import problem
from ekmfast.fit.evidence import MAX_SPARSE, evidence_features
from ekmfast.fit.likelihood import classification_likelihood
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.sparse import SparseRows

N, D = 600, 30
SIZES = 400, 160, 40


def data(dtype=np.float64):
    """Three clusters of sparse rows, one of them small; rows 0 to 2 and two columns are zero."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random((N, D)) < 0.15, rng.normal(1, 0.3, (N, D)), 0)
    for first, last, columns, value in ((0, 400, 5, 1), (400, 560, 11, 2), (560, N, 22, 3)):
        X[first:last, columns : columns + 5] += value * (rng.random((last - first, 5)) < 0.9)
    X[:3] = 0
    X[:, [4, 29]] = 0
    return X.astype(dtype)


X = data()
LABELS = np.repeat([0, 1, 2], SIZES)
WEIGHT = np.random.default_rng(1).integers(0, 3, N).astype(np.float64)
KNOWN = np.where(np.arange(N) % 40 == 5, LABELS, -1)

# With so small a tol, passes over arrays compute in float64 from the first one on, as those over
# sparse rows do. Rounding decides which of several runs with the same J or labels is kept, but all
# them end at the same centroids.
EXACT = {"tol": 1e-11}
ESTIMATORS = {
    "EKMeans auto": lambda **kw: EKMeans(3, random_state=0, **EXACT | kw),
    "EKMeans": lambda **kw: EKMeans(3, alpha="dvariance", random_state=0, **EXACT | kw),
    "HardKMeans": lambda **kw: HardKMeans(3, random_state=0, **EXACT | kw),
    "FuzzyCMeans": lambda **kw: FuzzyCMeans(3, fuzzifier=1.3, random_state=0, **EXACT | kw),
    "MaximumEntropyKMeans": lambda **kw: MaximumEntropyKMeans(3, random_state=0, **EXACT | kw),
    "MiniBatchEKMeans": lambda **kw: MiniBatchEKMeans(3, batch_size=100, random_state=0, **kw),
    "SemiSupervisedEKMeans": lambda **kw: SemiSupervisedEKMeans(3, random_state=0, **kw),
}
METHODS = "predict", "transform", "membership", "weights", "score"

by_name = pytest.mark.parametrize("name", ESTIMATORS)
makers = pytest.mark.parametrize("make", [csr_matrix, csr_array])
indices = pytest.mark.parametrize("index", [np.int32, np.int64])


def fitted(name, X, weight=None, **options):
    y = {"y": KNOWN} if name == "SemiSupervisedEKMeans" else {}
    return ESTIMATORS[name](**options).fit(X, sample_weight=weight, **y)


def of(X, make=csr_matrix, index=np.int32):
    """X in compressed form, with indices of a dtype."""
    rows = make(X)
    rows.indices, rows.indptr = rows.indices.astype(index), rows.indptr.astype(index)
    return rows


def numbered_alike(model):
    """Centroids and labels, with the clusters of rows 10, 410 and 570 as clusters 0, 1 and 2."""
    order = model.labels_[[10, 410, 570]]
    assert sorted(order) == [0, 1, 2]
    return model.cluster_centers_[order], np.argsort(order)[model.labels_]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@indices
@makers
@by_name
def test_a_fit_is_that_of_the_array(name, make, index, dtype, weighted):
    weight = WEIGHT.astype(dtype) if weighted else None
    rows = of(data(dtype), make, index)
    # Sparse rows are summed in float64 whatever their dtype is: the result is that of float64 rows
    # with the same numbers. Starts are chosen alike, so that both take the same steps.
    whole = data(dtype).astype(np.float64)
    model, other = fitted(name, rows, weight), fitted(name, whole, weight)
    assert model.converged_
    # Of several restarts that reach the same J, rounding decides which one is kept, and with it the
    # numbers of the clusters.
    found, wanted = numbered_alike(model), numbered_alike(other)
    assert_array_equal(found[1], wanted[1])
    if dtype == np.float64:
        assert_allclose(found[0], wanted[0], rtol=1e-10, atol=1e-10)
        assert_allclose(model.objective_, other.objective_, rtol=1e-10)
    else:  # float32 has its own tolerances, so that the number of steps may differ
        assert_allclose(found[0], wanted[0], rtol=1e-3, atol=1e-3)
        assert_allclose(model.objective_, other.objective_, rtol=1e-5)
    assert_allclose(model.alpha_, other.alpha_, rtol=1e-10)
    assert model.cluster_centers_.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
@by_name
def test_methods_tell_the_same_of_sparse_rows(name, method, dtype):
    model = fitted(name, X)
    given = data(dtype)
    found = getattr(model, method)(of(given, csr_array, np.int64))
    wanted = getattr(model, method)(given.astype(np.float64))
    assert_allclose(found, wanted, rtol=1e-10 if dtype == np.float64 else 1e-6, atol=1e-7)
    if method != "score":
        assert found.dtype == getattr(model, method)(given).dtype


@pytest.mark.parametrize("n_clusters", [1, 2, 7, 8, 9, 20, 33, 70])
@pytest.mark.parametrize("n_features", [1, 40, 9000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@indices
def test_kernels_agree_with_the_dense_ones(n_clusters, n_features, dtype, index):
    rng = np.random.default_rng(n_clusters)
    rows = sparse.random(500, n_features, 0.1, "csr", dtype, random_state=rng)
    rows.indices, rows.indptr = rows.indices.astype(index), rows.indptr.astype(index)
    dense = rows.toarray().astype(np.float64)
    C, s = rng.uniform(0, 0.2, (2, n_clusters, n_features)), rng.uniform(0, 2, 500)
    alpha = np.array([3.0, 0.5])
    single = s.astype(dtype)
    for weighting in ("equilibrium", "maximum-entropy", "hard", "fuzzy"):
        options = 2, weighting, 1.7
        found = SparseRows(rows, single, *options).statistics(C, alpha)
        wanted = ArrayRows(dense, single.astype(np.float64), *options).statistics(C, alpha)
        shift = wanted.sum_w[..., None] * wanted.reference
        largest = np.abs(wanted.sum_wx).max()
        assert_allclose(found.sum_wx, wanted.sum_wx + shift, rtol=1e-10, atol=1e-12 * largest)
        assert_allclose(found.sum_w, wanted.sum_w, rtol=1e-10, atol=1e-10)
        assert_allclose(found.sum_p, wanted.sum_p, rtol=1e-10, atol=1e-10)
        assert_allclose(found.objective, wanted.objective, rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@makers
def test_functions_agree_with_those_of_arrays(make, dtype):
    rows, dense = make(data(dtype)), data(dtype).astype(np.float64)
    C = dense[[10, 410, 570]] + 0.1
    close = {"rtol": 1e-10 if dtype == np.float64 else 1e-6, "atol": 1e-7}
    given = WEIGHT.astype(dtype)
    sums = ekm_statistics(rows, C, 2.0, sample_weight=given)
    wanted = ekm_statistics(dense, C, 2.0, sample_weight=WEIGHT)
    assert_allclose(sums.sum_wx, wanted.sum_wx, rtol=1e-10, atol=1e-10)
    assert_allclose(sums.objective, wanted.objective, rtol=1e-10)
    assert_allclose(ekm_step(rows, C, 2.0)[0], ekm_step(dense, C, 2.0)[0], **close)
    weights = compute_weights(rows, C, 2.0)
    assert weights.dtype == dtype
    assert_allclose(weights, compute_weights(dense, C, 2.0), **close)
    out = np.empty_like(weights)
    assert compute_weights(rows, C, 2.0, out=out) is out
    assert_array_equal(out, weights)
    assert_allclose(
        update_centroids(rows, weights), update_centroids(dense, weights.astype(float)), **close
    )
    (labels, squared), (other, exact) = assign(rows, C), assign(dense, C)
    assert_array_equal(labels, other)
    assert_allclose(squared, exact, **close)


def test_a_column_that_underflows_is_rescued():
    rows = np.array([[100.0, 0], [101, 0], [102, 0], [110, 1], [111, 0]])
    C = [[105.0, 0], [1000, 0]]
    found, objective = ekm_step(csr_matrix(rows), C, 2.0)
    wanted, same = ekm_step(rows, C, 2.0)
    assert_allclose(found, wanted, rtol=1e-9)
    assert_allclose(objective, same, rtol=1e-12)


@pytest.mark.parametrize("isa", _core.available_isas())
def test_every_instruction_set(isa):
    before = _core.isa()
    wanted = ekm_step(X, X[[10, 410, 570]], 2.0)
    try:
        _core.set_isa(isa)
        found = ekm_step(csr_matrix(X), X[[10, 410, 570]], 2.0)
    finally:
        _core.set_isa(before)
    assert_allclose(found[0], wanted[0], rtol=1e-10, atol=1e-12)
    assert_allclose(found[1], wanted[1], rtol=1e-12)


# A narrow matrix has sums for chunks of rows, a wide one sums for strips of columns; 9,000 columns
# and 70 centroids need several slabs of rows.
@pytest.mark.parametrize(("n_features", "n_clusters"), [(50, 4), (9000, 20), (9000, 70)])
def test_the_number_of_threads_does_not_change_a_bit(n_features, n_clusters):
    rng = np.random.default_rng(0)
    rows = sparse.random(20_000, n_features, 20 / n_features, "csr", random_state=rng)
    C = rng.uniform(0, 0.1, (2, n_clusters, n_features))
    one, *others = (
        SparseRows(rows, None, n_threads).statistics(C, np.array([2.0, 3.0]))
        for n_threads in (1, 2, 3, 7)
    )
    for other in others:
        for part in ("sum_wx", "sum_w", "sum_p", "objective"):
            assert getattr(one, part).tobytes() == getattr(other, part).tobytes()
    few = HardKMeans(4, random_state=0, n_init=2, max_iter=50, tol=1.0)
    one, two = (few.set_params(n_threads=n).fit(rows[:2000]).cluster_centers_ for n in (1, 2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@pytest.mark.parametrize("to", ["csc", "coo", "lil", "dok", "bsr", "dia"])
def test_other_formats_are_converted(to):
    other = csr_matrix(X).asformat(to)
    model = EKMeans(3, alpha=2.0, random_state=0, **EXACT)
    found, wanted = (numbered_alike(model.fit(rows))[1] for rows in (other, X))
    assert_array_equal(found, wanted)
    assert_allclose(ekm_step(other, X[:3], 2.0)[0], ekm_step(X, X[:3], 2.0)[0], atol=1e-12)


def test_integers_become_float64():
    counts = np.rint(X).astype(np.int64)
    model = EKMeans(3, alpha=2.0, random_state=0).fit(csr_matrix(counts))
    assert model.cluster_centers_.dtype == np.float64
    with pytest.raises(TypeError, match=r"X must be float32 or float64 .*got int64; convert it"):
        ekm_step(csr_matrix(counts), X[:3], 2.0)


def test_order_duplicates_and_explicit_zeros():
    rows = csr_matrix(X)
    wanted = ekm_step(rows, X[[10, 410]], 2.0)[0]
    halves = csr_matrix((N, D))
    halves.indptr = 2 * rows.indptr
    halves.indices = np.repeat(rows.indices, 2)
    halves.data = np.repeat(rows.data / 2, 2)
    backwards = rows.copy()
    for first, last in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        for part in (backwards.indices, backwards.data):
            part[first:last] = part[first:last][::-1].copy()
    zeros = rows.copy()
    zeros.data[7::9] = 0
    for given in (halves, backwards):
        before = [part.copy() for part in (given.data, given.indices, given.indptr)]
        assert_allclose(ekm_step(given, X[[10, 410]], 2.0)[0], wanted, rtol=1e-12)
        for part, old in zip((given.data, given.indices, given.indptr), before, strict=True):
            assert_array_equal(part, old)
    assert_allclose(
        ekm_step(zeros, X[:3], 2.0)[0], ekm_step(zeros.toarray(), X[:3], 2.0)[0], atol=1e-12
    )
    survey, dense = SparseRows(zeros).survey(), ArrayRows(zeros.toarray()).survey()
    assert_array_equal(survey.low, dense.low)
    assert_array_equal(survey.high, dense.high)


def test_read_only_rows_are_read_and_not_changed():
    rows = csr_matrix(X)
    before = rows.copy()
    for part in (rows.data, rows.indices, rows.indptr):
        part.setflags(write=False)
    EKMeans(3, alpha=2.0, random_state=0).fit(rows).predict(rows)
    assert (rows != before).nnz == 0


@by_name
def test_more_clusters_than_distinct_rows(name):
    rows = csr_matrix(np.repeat([[0.0, 1, 0, 0], [2, 0, 0, 0]], 10, axis=0))
    model = ESTIMATORS[name]()
    y = {"y": np.repeat([0, 1], 10)} if name == "SemiSupervisedEKMeans" else {}
    with pytest.warns(match="only 2 of 3 centroids are distinct"):
        model.fit(rows, **y)
    labels = model.labels_
    assert len(set(labels[:10])) == len(set(labels[10:])) == 1
    assert labels[0] != labels[10]


def test_weight_two_is_the_row_twice():
    counts = np.random.default_rng(2).integers(1, 4, N)
    twice = csr_matrix(np.repeat(X, counts, axis=0))
    options = {"alpha": 1.0, "init": X[[10, 410, 570]], "tol": 1e-9}
    weighted = EKMeans(3, **options).fit(csr_matrix(X), sample_weight=counts)
    repeated = EKMeans(3, **options).fit(twice)
    assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-9, atol=1e-12)


def test_rows_that_are_all_zero():
    with pytest.warns(match="only 1 of 2"):
        model = EKMeans(2, random_state=0).fit(csr_matrix((20, 6)))
    assert_array_equal(model.cluster_centers_, np.zeros((2, 6)))


def test_a_row_that_equals_a_chosen_one_is_at_distance_zero():
    rows = csr_matrix(np.vstack([X, X]))
    for name in (np.float32, np.float64):
        given = SparseRows(rows.astype(name), n_threads=2)
        closest = given.distances(3)
        given.closest(given.take(np.array([[7], [410], [590]])), closest, update=True)
        for start, row in enumerate((7, 410, 590)):
            assert closest[start, row] == closest[start, row + N] == 0
    assert (np.diag(EKMeans(3, random_state=0).fit(rows).transform(rows)[:3]) >= 0).all()


# --- what is not valid ---


@pytest.mark.parametrize("value", [np.nan, np.inf])
@by_name
def test_numbers_that_are_not_finite_are_named(name, value):
    bad = csr_matrix(X)
    at = np.flatnonzero(bad.indices[bad.indptr[300] : bad.indptr[301]] >= 0)[1]
    bad.data[bad.indptr[300] + at] = value
    column = bad.indices[bad.indptr[300] + at]
    found = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(ValueError, match=f"X must be finite, got {found} in row 300, .*{column}"):
        fitted(name, bad)
    for call in (
        lambda: ekm_step(bad, X[:3], 2.0),
        lambda: compute_weights(bad, X[:3], 2.0),
        lambda: assign(bad, X[:3]),
    ):
        with pytest.raises(ValueError, match=f"{found} in row 300, column {column}"):
            call()
    model = EKMeans(3, alpha=2.0, random_state=0).fit(X)
    for method in METHODS:
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            getattr(model, method)(bad)


@indices
@pytest.mark.parametrize(
    ("part", "at", "value", "said"),
    [
        ("indices", 5, D, r"row 3 has a column index outside of \[0, 30\)"),
        ("indices", 5, -1, r"row 3 has a column index outside of \[0, 30\)"),
        ("indices", 5, 2**31 - 1, "row 3 has a column index outside"),
        ("indptr", 4, 10**6, r"indptr\[4\] is 1000000, but must ascend from 0"),
        ("indptr", 4, -5, r"indptr\[4\] is -5, but must ascend from 0"),
        ("indptr", 0, 2, r"indptr\[0\] is 2, but must ascend from 0"),
    ],
)
def test_a_broken_matrix_is_refused(index, part, at, value, said):
    broken = of(X, csr_matrix, index)
    getattr(broken, part)[at] = value
    with pytest.raises(ValueError, match=f"X is no valid sparse matrix: {said}"):
        ekm_step(broken, X[:3], 2.0)
    with pytest.raises(ValueError, match="X is no valid sparse matrix"):
        EKMeans(3, alpha=2.0).fit(broken)


def test_the_compiled_class_checks_its_arguments():
    rows = csr_matrix(X)
    good = rows.data, rows.indices, rows.indptr, D
    with pytest.raises(ValueError, match="float32 or float64"):
        _core.Csr(rows.data.astype(int), *good[1:], None)
    with pytest.raises(ValueError, match="int32 or int64"):
        _core.Csr(rows.data, rows.indices.astype(np.int16), *good[2:], None)
    with pytest.raises(ValueError, match=r"indptr\[1\] is 8, .* at most 7"):
        _core.Csr(rows.data[:7], rows.indices, np.array([0, 8]), D, None)
    with pytest.raises(ValueError, match="sample_weight has the wrong size"):
        _core.Csr(*good, np.ones(N - 1))
    csr = _core.Csr(*good, None)
    with pytest.raises(ValueError, match=r"centroids must have shape \(s, k, d\)"):
        csr.statistics(np.ones((1, 2, D - 1)), np.ones(1), 1, "hard", 2.0)
    with pytest.raises(ValueError, match="no such rows"):
        csr.distances(0, N + 1, np.ones((2, D)), 1)
    unordered = _core.Csr(rows.data[:2], np.array([1, 0], np.int32), np.array([0, 2]), D, None)
    assert not unordered.ascending
    with pytest.raises(ValueError, match="must ascend in each row"):
        unordered.survey()


def test_what_is_not_supported_says_so():
    rows = csr_matrix(X)
    with pytest.raises(ValueError, match=r"device='cuda' takes arrays, not csr.*use device='cpu'"):
        EKMeans(3, device="cuda").fit(rows)
    assert EKMeans(3, alpha=2.0, device="auto", random_state=0).fit(rows).converged_
    with pytest.raises(
        (TypeError, ValueError), match=r"block 0 .*is a sparse matrix, but blocks must be dense"
    ):
        EKMeans(3).fit(blocks.from_arrays([rows]))
    with pytest.raises(TypeError, match="weights must be a dense array, got csr_matrix"):
        update_centroids(X, csr_matrix(X))
    model = EKMeans(3, alpha=2.0, random_state=0).fit(X)
    with pytest.raises(ValueError, match="X has 29 features, but EKMeans is expecting 30"):
        model.predict(rows[:, :29])


# --- memory ---


def wide(n_rows=3000, n_features=20_000, stored=60):
    return sparse.random(n_rows, n_features, stored / n_features, "csr", random_state=0)


def peak(function):
    """The largest memory that NumPy and SciPy held at a time during a call, in bytes."""
    tracemalloc.start()
    function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


# The rows have no clusters, and only the memory matters.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_dense_copy_is_made():
    rows = wide()
    n_clusters = 3
    centroids = 8 * n_clusters * rows.shape[1]
    dense = 8 * rows.shape[0] * rows.shape[1]
    model = EKMeans(n_clusters, alpha=0.5, init="k-means++", n_init=1, random_state=0, max_iter=5)
    model.tol = 1.0

    def use():
        model.fit(rows)
        for method in METHODS:
            getattr(model, method)(rows)

    size = rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes
    # The sums, starts and centroids of a fit are (K, D), and several exist at a time.
    assert peak(use) < 0.2 * size + 16 * centroids
    assert 0.2 * size + 16 * centroids < dense / 20


def test_runs_of_wide_rows_are_solved_in_groups(monkeypatch):
    rows = csr_matrix(X)
    together = ESTIMATORS["EKMeans"](n_init=6).fit(rows)
    sizes = []
    solve = problem.solve

    def watched(sums, starts, *args, **kwargs):
        sizes.append(len(starts))
        return solve(sums, starts, *args, **kwargs)

    monkeypatch.setattr(problem, "solve", watched)
    monkeypatch.setattr(problem, "RUN_BYTES", 2 * 16 * 8 * 3 * D)
    apart = ESTIMATORS["EKMeans"](n_init=6).fit(rows)
    assert sizes == [2, 2, 2]
    assert_allclose(apart.objective_, together.objective_, rtol=1e-6)
    assert_array_equal(apart.labels_, together.labels_)


def test_runs_converge_where_a_feature_is_constant():
    # Its sums have rounding errors, so that centroids may lie outside the box of the rows.
    rows = X.copy()
    rows[:, [3, 4]] = 3.3, -0.7
    dense, found = (alpha_path(rows, 3, random_state=0) for rows in (rows, csr_matrix(rows)))
    assert_array_equal(found.converged, dense.converged)
    assert_allclose(found.objective, dense.objective, rtol=1e-6)


# --- the choice of alpha ---


@pytest.mark.parametrize("weighted", [False, True])
def test_likelihood_and_evidence_are_those_of_the_array(weighted):
    weight = WEIGHT if weighted else None
    found = classification_likelihood(csr_matrix(X), LABELS, weight)
    assert found == pytest.approx(classification_likelihood(X, LABELS, weight), rel=1e-11)
    rows = csr_matrix(X)
    assert evidence_features(rows, weight) is rows
    rng = np.random.default_rng(0)
    factors = np.repeat(rng.normal(size=(N, 3)), 10, axis=1) * (rng.random((N, 1)) < 0.5)
    factors[:, ::7] = 0
    weight = None if weight is None else weight[:100]
    for correlated in (factors[:100], np.hstack([factors[:100]] * 4)):
        dense = evidence_features(correlated, weight)
        found = evidence_features(csr_array(correlated), weight)
        assert found.shape == dense.shape
        assert dense.shape[1] < D
        # The directions of components are arbitrary.
        assert_allclose(np.abs(found), np.abs(dense), atol=1e-9)


def test_few_components_of_sparse_rows_are_kept():
    rng = np.random.default_rng(0)
    factors = np.repeat(rng.normal(size=(1000, 100)), 6, axis=1)
    factors *= rng.random((1000, 1)) < 0.5
    assert evidence_features(factors).shape[1] > MAX_SPARSE
    assert evidence_features(csr_matrix(factors)).shape[1] == MAX_SPARSE


@pytest.mark.parametrize("weighted", [False, True])
def test_a_path_is_that_of_the_array(weighted):
    weight = WEIGHT if weighted else None
    found = alpha_path(csr_array(X), 3, sample_weight=weight, random_state=0, **EXACT)
    whole = alpha_path(X, 3, sample_weight=weight, random_state=0, **EXACT)
    assert found.best == whole.best
    assert_allclose(found.alphas, whole.alphas, rtol=1e-12)
    assert_allclose(found.likelihood, whole.likelihood, rtol=1e-9)
    assert_allclose(found.objective, whole.objective, rtol=1e-9)
    # At large alphas several restarts reach the same J; they may number the clusters differently.
    for labels, wanted in zip(found.labels, whole.labels, strict=True):
        assert adjusted_rand_score(labels, wanted) == 1


def test_the_dispersion_does_not_cancel():
    # A column that all rows hold, far from zero, with little spread.
    rng = np.random.default_rng(0)
    dense = np.column_stack([1e6 + rng.normal(0, 1e-3, 500), X[:500, 6]])
    exact = dense.astype(np.longdouble)
    wanted = float(0.5 * ((exact - exact.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert SparseRows(csr_matrix(dense)).survey().dispersion == pytest.approx(wanted, rel=1e-9)


# --- as others use it ---


def test_a_checkpoint_belongs_to_its_rows(tmp_path):
    path = tmp_path / "checkpoint"
    model = EKMeans(3, alpha=2.0, random_state=0, tol=1e-9)
    whole = model.fit(csr_matrix(X), checkpoint=path, checkpoint_every=1)
    again = clone(model).fit(csr_matrix(X), checkpoint=path)
    assert again.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()
    other = csr_matrix(X)
    other.indices = other.indices.copy()
    first = np.flatnonzero(np.diff(other.indices) > 1)[0]
    other.indices[first] += 1
    with pytest.raises(ValueError, match="belongs to another fit"):
        clone(model).fit(other, checkpoint=path)


def test_saved_pickled_and_streamed(tmp_path):
    rows = csr_matrix(X)
    model = EKMeans(3, random_state=0).fit(rows)
    save(model, tmp_path / "model.ekm")
    for other in (load(tmp_path / "model.ekm"), pickle.loads(pickle.dumps(model))):
        assert_array_equal(other.predict(rows), model.labels_)
    stream, dense = (MiniBatchEKMeans(3, random_state=0) for _ in range(2))
    for first in range(0, N, 200):
        batch = np.random.default_rng(first).permutation(N)[:200]
        stream, dense = stream.partial_fit(rows[batch]), dense.partial_fit(X[batch])
    assert_allclose(stream.cluster_centers_, dense.cluster_centers_, rtol=1e-9, atol=1e-12)


def test_a_pipeline_of_text():
    words = {0: ["ship", "sea", "wind", "sail", "harbour"], 1: ["bread", "oven", "salt", "flour"]}
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 12])
    texts = [" ".join(rng.choice(words[k], 6)) for k in labels]
    model = make_pipeline(TfidfVectorizer(), EKMeans(2, random_state=0))
    found = model.fit_predict(texts)
    assert_array_equal(found == found[0], labels == 0)
    assert model.transform(texts).shape == (72, 2)
    assert model.predict(["the wind at sea"])[0] == found[0]


def test_a_pipeline_of_categories():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [80, 20])
    colours = np.where(labels, rng.choice(["red", "pink"], 100), rng.choice(["blue", "navy"], 100))
    table = np.column_stack([colours, np.where(labels, "round", "square")])
    model = make_pipeline(OneHotEncoder(), EKMeans(2, random_state=0))
    found = model.fit_predict(table)
    assert_array_equal(found == found[0], labels == 0)
    dense = make_pipeline(OneHotEncoder(sparse_output=False), EKMeans(2, random_state=0))
    assert_array_equal(dense.fit_predict(table), found)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("n_problems", [1, 400])
def test_ctrl_c_ends_a_call(n_problems):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = np.random.default_rng(0)
    rows = sparse.random(100_000, 500, 0.1, "csr", random_state=rng)
    # One call of many seconds, whose parts are shorter than the time between two looks at signals.
    C = rng.uniform(0, 0.1, (n_problems, 3200 // n_problems + 8, 500))
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            ekm_step(rows, C, 1.0, n_threads=2)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert np.isfinite(ekm_step(rows[:100], C[0, :3], 1.0)[0]).all()


def frame_of(X):
    pandas = pytest.importorskip("pandas")
    names = [f"f{j}" for j in range(X.shape[1])]
    return pandas.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X), columns=names)


@pytest.mark.filterwarnings("ignore:only 2 of 3 centroids")  # of MaximumEntropyKMeans, and bool
@pytest.mark.parametrize("dtype", [np.float64, np.int64, bool])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_frame_of_sparse_columns_is_taken_as_its_matrix(name, dtype):
    rows = np.rint(X).astype(dtype)
    frame, matrix = frame_of(rows), sparse.csr_matrix(rows)
    given, expected = ESTIMATORS[name]().fit(frame), ESTIMATORS[name]().fit(matrix)
    assert list(given.feature_names_in_) == list(frame.columns)
    assert_array_equal(given.cluster_centers_, expected.cluster_centers_)
    for method in METHODS:
        assert_array_equal(getattr(given, method)(frame), getattr(expected, method)(matrix))


def test_a_frame_of_sparse_columns_gives_a_path():
    path, expected = (
        alpha_path(rows, 3, random_state=0) for rows in (frame_of(X > 0), sparse.csr_matrix(X > 0))
    )
    assert_array_equal(path.likelihood, expected.likelihood)


def test_a_frame_of_sparse_columns_is_refused_where_its_matrix_is():
    with pytest.raises(TypeError, match="missing='partial' takes dense arrays"):
        EKMeans(2, missing="partial").fit(frame_of(X))
    with pytest.raises(ValueError, match=r"device=.cuda. takes arrays.* for sparse rows"):
        EKMeans(2, device="cuda").fit(frame_of(X))
