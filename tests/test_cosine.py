"""`metric="cosine"`: fits to rows of length 1 with centroids of length 1, without a copy."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import cosine_distances
from sklearn.utils.estimator_checks import check_estimator

from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
    alpha_path,
    blocks,
    export_onnx,
    load,
    save,
)
from ekmfast._reference import weights as reference_weights
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.unit import UnitRows, inverse_lengths

SIZES = (600, 200, 100)
DIRECTIONS = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 3)))[0].T


def data(dtype=np.float64):
    """Rows of three directions, whose lengths differ by orders of magnitude."""
    rng = np.random.default_rng(1)
    X = np.repeat(DIRECTIONS, SIZES, axis=0) + 0.15 * rng.normal(size=(sum(SIZES), 12))
    X *= rng.lognormal(0, 2, (len(X), 1))
    order = rng.permutation(len(X))
    return X[order].astype(dtype), np.repeat(np.arange(3), SIZES)[order]


X, Y = data()
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)
START = UNIT[[np.flatnonzero(k == Y)[0] for k in range(3)]]
KNOWN = np.where(np.arange(len(Y)) % 30 == 0, Y, -1)

ESTIMATORS = {
    "EKMeans": EKMeans,
    "HardKMeans": HardKMeans,
    "FuzzyCMeans": FuzzyCMeans,
    "MaximumEntropyKMeans": lambda *a, **kw: MaximumEntropyKMeans(*a, alpha=30.0, **kw),
    "MiniBatchEKMeans": lambda *a, **kw: MiniBatchEKMeans(*a, batch_size=200, **kw),
    "SemiSupervisedEKMeans": SemiSupervisedEKMeans,
}


def of_dask(X):
    return pytest.importorskip("dask.array").from_array(X, chunks=(250, X.shape[1]))


KINDS = {
    "array": lambda X: X,
    "sparse": csr_matrix,
    "blocks": lambda X: blocks.from_arrays(np.split(X, [300, 301])),
    "dask": of_dask,
}


@pytest.fixture(autouse=True)
def one_dask_thread():
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler="synchronous"):
        yield


def fitted(name, rows, **more):
    model = ESTIMATORS[name](3, metric="cosine", init=START, random_state=0, **more)
    return model.fit(rows, KNOWN) if name == "SemiSupervisedEKMeans" else model.fit(rows)


# --------------------------------------------------------------------------------------------------
# The same as for rows of length 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fit_is_that_of_rows_of_length_one(name, kind):
    model, unit = fitted(name, KINDS[kind](X)), fitted(name, UNIT)
    assert model.converged_
    assert unit.converged_
    assert_allclose(model.cluster_centers_, unit.cluster_centers_, atol=1e-4)
    assert_allclose(model.objective_, unit.objective_, rtol=1e-6)
    assert_allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, rtol=1e-14)
    assert_array_equal(np.asarray(model.predict(KINDS[kind](X))), unit.predict(UNIT))
    assert adjusted_rand_score(Y, unit.predict(X)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighting", ["equilibrium", "maximum-entropy", "fuzzy", "hard"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (700, 3, 4), (3000, 130, 3), (5000, 20, 40)])
def test_sums_have_the_bits_of_those_of_a_copy(n, d, k, weighting, dtype):
    rng = np.random.default_rng(n)
    wide = (rng.normal(size=(n, d + 2)) * rng.lognormal(0, 1, (n, 1))).astype(dtype)
    rows = wide[:, :d]  # with a gap behind each row
    s = rng.uniform(0.5, 2, n).astype(dtype)
    unit = UnitRows(rows, s, 2, weighting)
    copy = ArrayRows(rows * inverse_lengths(rows)[:, None], s, 2, weighting)
    C, alpha = rng.normal(size=(2, k, d)), np.array([1.0, 7.0])
    mine, other = unit.survey(), copy.survey()
    for name in ("total_weight", "mean", "dispersion", "low", "high"):
        assert_array_equal(getattr(mine, name), getattr(other, name))
    sums, wanted = unit.statistics(C, alpha), copy.statistics(C, alpha)
    for name in ("sum_wx", "sum_w", "sum_p", "exponent", "objective", "reference"):
        assert_array_equal(getattr(sums, name), getattr(wanted, name))
    for one, two in zip(unit.nearest(C[0]), copy.nearest(C[0]), strict=True):
        assert_array_equal(one, two)
    assert_array_equal(unit.weights(C[0], 1.0), copy.weights(C[0], 1.0))
    near, far = unit.distances(2), copy.distances(2)
    assert_array_equal(
        unit.closest(C[:, :1].copy(), near, True), copy.closest(C[:, :1].copy(), far, True)
    )
    assert_array_equal(near, far)
    assert_array_equal(unit.map(np.abs, d), np.abs(copy.X))


def test_a_column_that_underflows_is_that_of_a_copy():
    C = np.stack([START[:2], START[:2]]) * 1.0
    C[0, 1] *= -40  # far from every row
    alpha = np.array([50.0, 50.0])
    for dtype in (np.float32, np.float64):
        rows = X.astype(dtype)
        unit = UnitRows(rows).statistics(C, alpha)
        copy = ArrayRows(rows * inverse_lengths(rows)[:, None]).statistics(C, alpha)
        assert unit.exponent[0, 1] < -1000
        assert_array_equal(unit.sum_wx, copy.sum_wx)
        assert_array_equal(unit.exponent, copy.exponent)


def test_factors_of_two_do_not_change_a_bit():
    scaled = UNIT * 2.0 ** np.random.default_rng(0).integers(-30, 30, (len(UNIT), 1))
    for name in ESTIMATORS:
        model, unit = fitted(name, scaled), fitted(name, UNIT)
        assert_array_equal(model.cluster_centers_, unit.cluster_centers_)
        assert model.objective_ == unit.objective_


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_extreme_lengths(dtype):
    largest = 30 if dtype == np.float32 else 200
    scaled = UNIT * 10.0 ** np.linspace(-largest, largest, len(UNIT))[:, None]
    model = EKMeans(3, metric="cosine", random_state=0).fit(scaled.astype(dtype))
    assert adjusted_rand_score(Y, model.labels_) == 1
    wide = csr_matrix(scaled.astype(dtype))
    assert_array_equal(model.predict(wide), model.labels_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_direction_are_one_cluster(kind, dtype):
    rng = np.random.default_rng(0)
    rows = rng.lognormal(0, 1, (600, 1)) * rng.normal(size=(1, 12))
    model = EKMeans(2, metric="cosine", random_state=0)
    with pytest.warns(ConvergenceWarning, match="only 1 of 2 centroids are distinct"):
        model.fit(KINDS[kind](rows.astype(dtype)))
    assert model.converged_
    one = EKMeans(1, metric="cosine", random_state=0).fit(rows)
    assert_allclose(np.abs(one.cluster_centers_ @ rows.T), np.linalg.norm(rows, axis=1)[None])


def test_weights_are_repetitions():
    s = np.random.default_rng(0).integers(0, 3, len(X))
    weighted = EKMeans(3, metric="cosine", alpha=40.0, init=START).fit(X, sample_weight=s)
    repeated = EKMeans(3, metric="cosine", alpha=40.0, init=START).fit(np.repeat(X, s, axis=0))
    assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, atol=1e-12)


def test_no_copy_of_the_rows_is_made():
    rows = np.random.default_rng(0).normal(size=(60_000, 200))
    model = EKMeans(4, metric="cosine", alpha="dvariance", n_init=1, max_iter=3, n_threads=1)
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        model.fit(rows)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 0.3 * rows.nbytes


# --------------------------------------------------------------------------------------------------
# The objective and its steps


def tangent_forces(model):
    """The forces on the centroids that are tangent to the sphere, by the formulas."""
    w = reference_weights(UNIT, model.cluster_centers_, model.alpha_)
    A, C = w.T @ UNIT, model.cluster_centers_
    return A - (A * C).sum(axis=1, keepdims=True) * C


def test_the_objective_is_the_mean_cosine_distance_under_the_memberships():
    model = EKMeans(3, metric="cosine", random_state=0).fit(X)
    d = cosine_distances(X, model.cluster_centers_)
    assert_allclose(model.transform(X), d, atol=1e-14)
    p = np.exp(-model.alpha_ * (d - d.min(axis=1, keepdims=True)))
    p /= p.sum(axis=1, keepdims=True)
    assert_allclose(model.membership(X), p, atol=1e-12)
    assert_allclose(model.objective_, (p * d).sum(), rtol=1e-6)
    assert_allclose(model.score(X), -model.objective_, rtol=1e-12)
    w = p * (1 - model.alpha_ * (d - (p * d).sum(axis=1, keepdims=True)))
    assert_allclose(model.weights(X), w, atol=1e-10)
    assert_array_equal(model.predict(X), d.argmin(axis=1))


@pytest.mark.parametrize("alpha", [3.0, 10.0, 40.0])
@pytest.mark.parametrize("seed", range(5))
def test_j_falls_and_the_forces_vanish_on_the_sphere(alpha, seed):
    model = EKMeans(4, metric="cosine", alpha=alpha, init="random", n_init=1, tol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at the smallest alpha centroids coincide
        model.set_params(random_state=seed).fit(X)
    assert model.converged_
    rises = np.diff(model.objective_history_)
    assert rises.max() <= 1e-12 * model.objective_
    assert np.abs(tangent_forces(model)).max() < 1e-5 * len(X)


def test_the_fixed_point_is_that_of_the_plain_iteration():
    model = EKMeans(3, metric="cosine", alpha=20.0, init=START, tol=1e-10).fit(X)
    C = START
    for _ in range(200):
        A = reference_weights(UNIT, C, 20.0).T @ UNIT
        C = A / np.linalg.norm(A, axis=1, keepdims=True)
    assert_allclose(model.cluster_centers_, C, atol=1e-9)


def test_a_centroid_without_members_returns_to_the_data():
    start = np.vstack([START[:2], -UNIT.mean(axis=0)])
    model = EKMeans(3, metric="cosine", alpha=60.0, init=start).fit(X)
    assert adjusted_rand_score(Y, model.labels_) == 1


def test_starts_need_not_have_length_one():
    model = EKMeans(3, metric="cosine", alpha=20.0, init=START)
    longer = EKMeans(3, metric="cosine", alpha=20.0, init=START * 2)
    batches = MiniBatchEKMeans(3, metric="cosine", alpha=20.0, init=START * 2, batch_size=300)
    assert_array_equal(model.fit(X).cluster_centers_, longer.fit(X).cluster_centers_)
    assert_allclose(batches.fit(X).cluster_centers_, model.cluster_centers_, atol=1e-4)


def test_partial_fit_keeps_centroids_on_the_sphere():
    stream = MiniBatchEKMeans(3, metric="cosine", random_state=0)
    for batch in np.array_split(X, 6):
        stream.partial_fit(batch)
        assert_allclose(np.linalg.norm(stream.cluster_centers_, axis=1), 1, rtol=1e-14)
    assert adjusted_rand_score(Y, stream.predict(X)) == 1


def test_alpha_is_found_as_for_rows_of_length_one():
    path, unit = (alpha_path(x, 3, metric="cosine", random_state=0) for x in (X, UNIT))
    assert_allclose(path.alphas, unit.alphas)
    assert_allclose(path.likelihood, unit.likelihood, rtol=1e-6)
    assert path.best == unit.best
    models = [EKMeans(3, metric="cosine", random_state=0).fit(x) for x in (X, UNIT)]
    assert models[0].alpha_ == pytest.approx(models[1].alpha_)
    # Rounding decides which of several runs with the same clusters is kept, and so their numbers.
    assert adjusted_rand_score(models[0].labels_, models[1].labels_) == 1
    assert adjusted_rand_score(models[0].labels_, path.labels[path.best]) > 0.95


# --------------------------------------------------------------------------------------------------
# Rows of zeros

ZEROS = np.array([0, 3, 300, 700, 701, len(X) + 4])
OTHERS = np.setdiff1d(np.arange(len(X) + 6), ZEROS)


def with_zeros():
    """The rows of X and, at the places of `ZEROS`, rows of zeros; and what labels are known."""
    rows, known = np.zeros((len(X) + 6, 12)), np.full(len(X) + 6, -1)
    rows[OTHERS], known[OTHERS] = X, KNOWN
    known[3] = 1  # the label of a row of zeros says nothing
    return rows, known


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_rows_of_zeros_take_no_part_and_get_the_label_minus_one(name, kind):
    mixed, known = with_zeros()
    rows = KINDS[kind](mixed)
    options = {"metric": "cosine", "init": START, "random_state": 0}
    if name == "EKMeans":
        options["alpha"] = 38.0  # rounding decides which of several alphas the search keeps
    model = ESTIMATORS[name](3, zero_rows="label", **options)
    alone = ESTIMATORS[name](3, **options)
    if name == "SemiSupervisedEKMeans":
        model.fit(rows, known)
        alone.fit(X, KNOWN)
    else:
        model.fit(rows)
        alone.fit(X)
    assert model.converged_
    assert_allclose(model.cluster_centers_, alone.cluster_centers_, atol=1e-4)
    assert_allclose(model.objective_, alone.objective_, rtol=1e-6)
    labels = np.asarray(model.predict(rows))
    assert_array_equal(labels[ZEROS], -1)
    assert_array_equal(labels[OTHERS], model.predict(X))
    if kind in ("array", "sparse"):
        assert_array_equal(model.labels_, labels)
    for method, value in (("transform", 1), ("membership", 0), ("weights", 0)):
        found = np.asarray(getattr(model, method)(rows))
        assert_array_equal(found[ZEROS], value)
        assert_allclose(found[OTHERS], getattr(model, method)(X), atol=1e-12)
    assert model.score(rows) == pytest.approx(model.score(X), rel=1e-12)


@pytest.mark.parametrize("kind", ["array", "sparse"])
def test_without_rows_of_zeros_the_bits_are_those_of_an_error(kind):
    one, two = (
        EKMeans(3, metric="cosine", zero_rows=z, random_state=0).fit(KINDS[kind](X))
        for z in ("error", "label")
    )
    assert_array_equal(one.cluster_centers_, two.cluster_centers_)
    assert one.objective_ == two.objective_


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_with_rows_of_zeros(kind):
    """Half of the rows are zero: no start is chosen from them, and no likelihood counts them."""
    rows = np.zeros((2 * len(X), 12))
    rows[::2] = X
    model = EKMeans(3, metric="cosine", zero_rows="label", random_state=0).fit(KINDS[kind](rows))
    labels = np.asarray(model.predict(rows))
    assert_array_equal(labels[1::2], -1)
    assert adjusted_rand_score(Y, labels[::2]) == 1
    path = alpha_path(KINDS[kind](rows), 3, metric="cosine", zero_rows="label", random_state=0)
    assert_array_equal(path.labels[:, 1::2], -1)
    assert adjusted_rand_score(Y, path.labels[path.best][::2]) == 1
    assert path.sizes[path.best].sum() == len(X)
    if kind != "sparse":  # of which the number of clusters is not found
        one, two = (
            EKMeans("auto", metric="cosine", zero_rows="label", random_state=0).fit(given)
            for given in (KINDS[kind](rows), X)
        )
        assert len(one.cluster_centers_) == len(two.cluster_centers_)


def test_a_stream_with_rows_of_zeros():
    mixed, _ = with_zeros()
    options = {"metric": "cosine", "init": START}
    stream = MiniBatchEKMeans(3, zero_rows="label", **options)
    alone = MiniBatchEKMeans(3, **options)
    for part in np.array_split(mixed, 4):
        stream.partial_fit(part)
        alone.partial_fit(part[part.any(axis=1)])
        assert_array_equal(stream.labels_ == -1, ~part.any(axis=1))
    assert_allclose(stream.cluster_centers_, alone.cluster_centers_, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_zeros_alone_leaves_a_stream_as_it_is(kind):
    zeros = KINDS[kind](np.zeros((900, 12)))
    stream = MiniBatchEKMeans(3, metric="cosine", zero_rows="label", init=START)
    with pytest.raises(ValueError, match="needs a row with weight that is not zero"):
        stream.partial_fit(zeros)
    before = dict(vars(stream.partial_fit(X)))
    after = vars(stream.partial_fit(zeros))
    assert_array_equal(after["labels_"], np.full(900, -1))
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before if name != "labels_")
    assert_array_equal(stream.partial_fit(X).labels_, stream.predict(X))


def test_more_clusters_than_rows_with_a_direction():
    rows = np.zeros((9, 12))
    rows[[2, 5]] = START[:2]
    with pytest.warns(ConvergenceWarning, match="distinct"):
        model = HardKMeans(3, metric="cosine", zero_rows="label", random_state=0).fit(rows)
    assert_allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1, rtol=1e-14)
    assert_array_equal(model.labels_ >= 0, rows.any(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_alone_are_refused(kind):
    rows = KINDS[kind](np.zeros((900, 12)))
    with pytest.raises(ValueError, match=r"needs a row with weight that is not zero"):
        EKMeans(3, metric="cosine", zero_rows="label").fit(rows)
    rows = np.zeros((900, 12))
    rows[4, 2] = np.inf
    with pytest.raises(ValueError, match=r"(inf|infinity) in (row 4, )?column 2"):
        EKMeans(3, metric="cosine", zero_rows="label").fit(KINDS[kind](rows))


def test_a_sparse_row_may_store_its_zeros():
    mixed, _ = with_zeros()
    rows = csr_matrix(mixed)
    stored = csr_matrix((np.append(rows.data, [0.0, -0.0]), np.append(rows.indices, [1, 4]),
                         np.append(rows.indptr[:-1], rows.nnz + 2)), rows.shape)  # fmt: skip
    model = EKMeans(3, metric="cosine", zero_rows="label", init=START).fit(stored)
    assert model.labels_[-1] == model.predict(stored[-1])[0]
    assert_array_equal(model.labels_ == -1, ~stored.toarray().any(axis=1))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_loaded_model_labels_rows_of_zeros(name, tmp_path):
    mixed, known = with_zeros()
    model = ESTIMATORS[name](3, metric="cosine", zero_rows="label", init=START, random_state=0)
    model.fit(mixed, known if name == "SemiSupervisedEKMeans" else None)
    save(model, tmp_path / "model.npz")
    again = load(tmp_path / "model.npz")
    assert again.get_params()["zero_rows"] == "label"
    assert_array_equal(again.labels_, model.labels_)
    assert_array_equal(again.predict(mixed), model.labels_)


def test_a_model_is_saved_after_zero_rows_was_set_to_error(tmp_path):
    mixed, _ = with_zeros()
    model = EKMeans(3, metric="cosine", zero_rows="label", init=START).fit(mixed)
    save(model.set_params(zero_rows="error"), tmp_path / "model.npz")
    assert_array_equal(load(tmp_path / "model.npz").labels_, model.labels_)
    assert -1 in model.labels_


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_onnx_file_labels_rows_of_zeros(name, dtype, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    rows = with_zeros()[0].astype(dtype)
    model = fitted(name, X.astype(dtype), zero_rows="label")
    export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    label, distances, p = session.run(["label", "distances", "membership"], {"X": rows})
    atol = 1e-5 if dtype == np.float32 else 1e-12
    assert_array_equal(label, model.predict(rows))
    assert_array_equal(label[ZEROS], -1)
    assert_allclose(distances, model.transform(rows), atol=atol)
    assert_allclose(p, model.membership(rows), atol=10 * atol)
    assert session.get_modelmeta().custom_metadata_map["zero_rows"] == "label"


# --------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_zeros_is_named(kind):
    rows = X.copy()
    rows[700] = 0
    message = "row 700 of X is zero"
    if kind in ("blocks", "dask"):  # the number within the block
        message = "row 399 of .* is zero" if kind == "blocks" else "row 200 of .* is zero"
    with pytest.raises(ValueError, match=message):
        EKMeans(3, metric="cosine").fit(KINDS[kind](rows))
    model = EKMeans(3, metric="cosine", random_state=0).fit(X)
    with pytest.raises(ValueError, match="is zero"):
        np.asarray(model.predict(KINDS[kind](rows)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_not_finite_is_named(kind):
    rows = X.copy()
    rows[0, 5] = np.nan
    with pytest.raises(ValueError, match=r"NaN in (row 0, )?column 5"):
        EKMeans(3, metric="cosine").fit(KINDS[kind](rows))


def test_rows_that_are_too_short_to_be_divided_by_their_length():
    rows = X.astype(np.float32)
    rows[3] = 1e-42
    with pytest.raises(ValueError, match=r"row 3 of X has the length .*scale the row up"):
        EKMeans(3, metric="cosine").fit(rows)


def test_other_faults():
    with pytest.raises(ValueError, match="metric must be 'euclidean' or 'cosine', got 'cos'"):
        EKMeans(metric="cos").fit(X)
    with pytest.raises(ValueError, match="metric='cosine' is computed by the CPU"):
        EKMeans(3, metric="cosine", device="cuda").fit(X)
    start = START.copy()
    start[1] = 0
    with pytest.raises(ValueError, match=r"init must not hold zeros alone .* got row 1"):
        EKMeans(3, metric="cosine", init=start).fit(X)


def test_a_checkpoint_of_the_other_metric_is_refused(tmp_path):
    options = {"alpha": 20.0, "init": START, "random_state": 0}
    EKMeans(3, metric="cosine", **options).fit(UNIT, checkpoint=tmp_path / "fit")
    with pytest.raises(ValueError, match="metric"):
        EKMeans(3, **options).fit(UNIT, checkpoint=tmp_path / "fit")


# --------------------------------------------------------------------------------------------------
# Files and scikit-learn


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_loaded_model_predicts_the_same(name, tmp_path):
    model = fitted(name, X)
    save(model, tmp_path / "model.npz")
    again = load(tmp_path / "model.npz")
    assert again.metric == "cosine"
    assert_array_equal(again.predict(X), model.predict(X))
    assert_array_equal(again.transform(X), model.transform(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_onnx_file_divides_rows_by_their_lengths(name, dtype, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    rows = X.astype(dtype)
    rows[0] *= dtype(1e30 if dtype == np.float32 else 1e200)
    model = fitted(name, rows)
    export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    label, distances, p = session.run(["label", "distances", "membership"], {"X": rows})
    atol = 1e-5 if dtype == np.float32 else 1e-12
    assert_array_equal(label, model.predict(rows))
    assert_allclose(distances, model.transform(rows), atol=atol)
    assert_allclose(p, model.membership(rows), atol=10 * atol)
    assert session.get_modelmeta().custom_metadata_map["metric"] == "cosine"


def test_it_is_an_estimator_of_scikit_learn():
    draws = "as for the Euclidean metric: repeating rows changes what restarts draw"
    zeros = ("estimators_dtypes", "estimator_sparse_tag", "estimator_sparse_array")
    results = check_estimator(
        EKMeans(2, metric="cosine", n_init=2),
        on_skip=None,
        expected_failed_checks={
            **{f"check_{name}": "some rows are zero" for name in zeros},
            "check_estimator_sparse_matrix": "some rows are zero",
            "check_sample_weight_equivalence_on_dense_data": draws,
            "check_sample_weight_equivalence_on_sparse_data": draws,
        },
    )
    assert sum(result["status"] == "passed" for result in results) >= 40


def test_the_number_of_clusters_is_that_of_directions():
    assert len(EKMeans("auto", metric="cosine", random_state=0).fit(X).cluster_centers_) == len(
        EKMeans("auto", metric="cosine", random_state=0).fit(UNIT).cluster_centers_
    )
    one = np.arange(1, 20)[:, None] * [[0.1, 0.2, 0.3]]
    assert len(EKMeans("auto", metric="cosine", random_state=0).fit(one).cluster_centers_) == 1


@pytest.mark.parametrize("cls", [EKMeans, HardKMeans, MiniBatchEKMeans, SemiSupervisedEKMeans])
def test_a_metric_that_has_become_the_cosine_since_the_fit_is_refused(cls):
    rows = np.random.default_rng(0).normal(3, 1, (40, 3))
    model = cls(2, random_state=0).fit(rows).set_params(metric="cosine")
    methods = [model.predict, model.transform, model.membership, model.weights, model.score]
    for method in [*methods, *([model.partial_fit] if cls is MiniBatchEKMeans else [])]:
        with pytest.raises(ValueError, match="metric has become 'cosine' since the fit"):
            method(rows)
    assert np.isfinite(model.fit(rows).transform(rows)).all()
