"""`missing="partial"`: distances over the features that a row has, and sums for each feature."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.datasets import load_iris, load_wine
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import nan_euclidean_distances
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    alpha_path,
    blocks,
    export_onnx,
    load,
    save,
)
from ekmfast.datasets import make_imbalanced_blobs
from ekmfast.fit import likelihood
from ekmfast.rows import blockwise, given
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.partial import PartialRows
from ekmfast.rows.partial_blocks import PartialBlockRows
from ekmfast.rows.source import LocalSource

ESTIMATORS = [EKMeans, HardKMeans, FuzzyCMeans, MaximumEntropyKMeans]


def without_some(X, share, seed):
    """X without a random share of its numbers; each row keeps one."""
    rng = np.random.default_rng(seed)
    missing = rng.random(X.shape) < share
    missing[np.arange(len(X)), rng.integers(0, X.shape[1], len(X))] = False
    return np.where(missing, np.nan, X).astype(X.dtype)


def blobs(dtype=np.float64):
    rng = np.random.default_rng(0)
    means = np.array([[0.0] * 6, [6.0] * 6, [-6, -6, -6, 6, 6, 6]])
    y = np.repeat([0, 1, 2], [500, 120, 60])
    order = rng.permutation(len(y))
    X = means[y] + rng.normal(size=(len(y), 6)) + 100
    return X[order].astype(dtype), y[order]


COMPLETE, Y = blobs()
X = without_some(COMPLETE, 0.25, 1)
START = COMPLETE[[np.flatnonzero(k == Y)[0] for k in range(3)]]


# --------------------------------------------------------------------------------------------------
# The sums


def formulas(X, C, alpha, s, weighting, m):
    """A, B and P for each feature, and J, as they are written in docs/mathematics.md."""
    there = ~np.isnan(X)
    a = X.shape[1] / there.sum(axis=1)
    d = 0.5 * nan_euclidean_distances(X, C, squared=True)
    if weighting == "hard":
        p = np.eye(len(C))[d.argmin(axis=1)]
        w, cost = p, d.min(axis=1)
    elif weighting == "fuzzy":
        p = d ** (-1 / (m - 1))
        p /= p.sum(axis=1, keepdims=True)
        w, cost = p**m, (p**m * d).sum(axis=1)
    else:
        p = np.exp(-alpha * d)
        p /= p.sum(axis=1, keepdims=True)
        mean = (p * d).sum(axis=1)
        w, cost = p * (1 - alpha * (d - mean[:, None])), mean
        if weighting == "maximum-entropy":
            w, cost = p, -np.log(np.exp(-alpha * d).sum(axis=1)) / alpha
    factor = (s * a)[:, None]
    x = np.where(there, X, 0)
    return (w * factor).T @ x, (w * factor).T @ there, (p * factor).T @ there, s @ cost


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighting", ["equilibrium", "maximum-entropy", "fuzzy", "hard"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (300, 5, 3), (2000, 20, 11)])
def test_the_sums_are_those_of_the_formulas(n, d, k, weighting, dtype):
    rng = np.random.default_rng(n)
    rows = without_some(rng.normal(size=(n, d)).astype(dtype), 0.3, n)
    s = rng.uniform(0.5, 2, n).astype(dtype)
    C, alpha = rng.normal(size=(2, k, d)), np.array([0.5, 2.0])
    made = PartialRows(rows, s, 2, weighting, 2.5)
    sums = made.statistics(C, alpha)
    for i in range(2):
        A, B, P, J = formulas(rows.astype(float), C[i], alpha[i], s.astype(float), weighting, 2.5)
        assert_allclose(sums.sum_w[i], B, atol=1e-10 * n)
        assert_allclose(sums.sum_p[i], P, atol=1e-10 * n)
        assert_allclose(sums.sum_wx[i] + sums.reference * sums.sum_w[i], A, atol=1e-10 * n)
        assert_allclose(sums.objective[i], J, rtol=1e-10)


def test_the_bits_do_not_depend_on_the_threads():
    rows = without_some(np.random.default_rng(0).normal(size=(40_000, 7)), 0.2, 0)
    C = np.random.default_rng(1).normal(size=(1, 5, 7))
    one, three = (PartialRows(rows, None, n).statistics(C, np.ones(1)) for n in (1, 3))
    for name in ("sum_wx", "sum_w", "sum_p", "objective"):
        assert_array_equal(getattr(one, name), getattr(three, name))


def test_the_sums_of_complete_rows_are_those_of_the_other_kernels():
    C, alpha = COMPLETE[None, :4].copy(), np.array([0.3])
    partial, whole = PartialRows(COMPLETE), ArrayRows(COMPLETE)
    one, other = partial.survey(), whole.survey()
    assert_allclose(one.mean, other.mean)
    assert_allclose(one.dispersion, other.dispersion)
    assert_array_equal(one.low, other.low)
    one, other = partial.statistics(C, alpha), whole.statistics(C, alpha)
    B = np.broadcast_to(other.sum_w[..., None], one.sum_w.shape)
    assert_allclose(one.sum_w, B, atol=1e-9)
    assert_allclose(one.objective, other.objective, rtol=1e-12)
    assert_allclose(
        one.sum_wx + one.reference * one.sum_w, other.sum_wx + other.reference * B, atol=1e-7
    )


# --------------------------------------------------------------------------------------------------
# Fits


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_where_nothing_is_missing_the_fit_has_the_same_bits(cls):
    model, other = cls(3, missing="partial", random_state=0), cls(3, random_state=0)
    assert_array_equal(model.fit(COMPLETE).cluster_centers_, other.fit(COMPLETE).cluster_centers_)
    assert_array_equal(model.transform(COMPLETE), other.transform(COMPLETE))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_methods_use_distances_over_the_features_that_are_there(cls, dtype):
    rows = X.astype(dtype)
    model = cls(3, missing="partial", random_state=0).fit(rows)
    assert model.converged_
    assert model.cluster_centers_.dtype == dtype
    assert np.isfinite(model.cluster_centers_).all()
    # About a point among the rows, since scikit-learn computes differences of large squares.
    moved = rows.astype(float) - 100, model.cluster_centers_.astype(float) - 100
    wanted = nan_euclidean_distances(*moved)
    rtol = 1e-5 if dtype == np.float32 else 1e-10
    assert_allclose(model.transform(rows), wanted, rtol=rtol)
    assert_array_equal(model.predict(rows), wanted.argmin(axis=1))
    assert_array_equal(model.labels_, model.predict(rows))
    assert_allclose(model.membership(rows).sum(axis=1), 1, rtol=1e-5)
    if cls is EKMeans:
        d = 0.5 * wanted**2
        p = np.exp(-model.alpha_ * (d - d.min(axis=1, keepdims=True)))
        p /= p.sum(axis=1, keepdims=True)
        w = p * (1 - model.alpha_ * (d - (p * d).sum(axis=1, keepdims=True)))
        atol = 1e-4 if dtype == np.float32 else 1e-9
        assert_allclose(model.membership(rows), p, atol=atol)
        assert_allclose(model.weights(rows), w, atol=atol)
        assert_allclose(model.score(rows), -(p * d).sum(), rtol=1e-4)
        assert_allclose(model.objective_, -model.score(rows), rtol=1e-4)


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("seed", range(3))
def test_j_falls_until_the_forces_on_each_feature_vanish(cls, seed):
    options = {"alpha": 0.2} if cls in (EKMeans, MaximumEntropyKMeans) else {}
    weighting = cls._weighting
    model = cls(4, missing="partial", n_init=1, init="random", tol=1e-9, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "only 3 of 4 centroids are distinct")
        model.set_params(random_state=seed).fit(X)
    assert model.converged_
    assert np.diff(model.objective_history_).max(initial=-1) <= 1e-12 * model.objective_
    C = model.cluster_centers_
    A, B, _, J = formulas(X, C, 0.2, np.ones(len(X)), weighting, 2.0)
    assert_allclose(J, model.objective_, rtol=1e-9)
    assert np.abs(A - B * C).max() < 1e-4 * len(X)


SETS = {
    "blobs": (COMPLETE, Y),
    "iris": load_iris(return_X_y=True),
    "wine": load_wine(return_X_y=True),
}


@pytest.mark.parametrize("name", SETS)
def test_a_tenth_missing_at_random_lowers_the_ari_by_less_than_5_percent(name):
    rows, y = SETS[name]
    rows = StandardScaler().fit_transform(rows)
    n_clusters = len(set(y))
    options = {"n_clusters": n_clusters, "random_state": 0, "missing": "partial"}

    def ari(rows):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return adjusted_rand_score(y, EKMeans(**options).fit_predict(rows))

    found = np.mean([ari(without_some(rows, 0.1, seed)) for seed in range(6)])
    assert found > ari(rows) - 0.05


def test_with_two_features_labels_are_as_good_as_by_the_centroids_of_complete_rows():
    # A row with one of two features may be near two clusters: the ARI of these labels is .79, that
    # of complete rows .98. The centroids are found as well as from complete rows.
    rows, y = make_imbalanced_blobs(sizes=(900, 90, 60), random_state=0)
    some = without_some(rows, 0.1, 0)
    whole = EKMeans(3, random_state=0).fit(rows)
    model = EKMeans(3, missing="partial", random_state=0).fit(some)
    best = nan_euclidean_distances(some, whole.cluster_centers_).argmin(axis=1)
    wanted = adjusted_rand_score(y, best)
    assert wanted < adjusted_rand_score(y, whole.labels_) - 0.1
    assert adjusted_rand_score(y, model.labels_) > wanted - 0.03


def test_weights_are_repetitions():
    s = np.random.default_rng(0).integers(0, 3, len(X))
    options = {"missing": "partial", "alpha": 0.2, "init": COMPLETE[:3]}
    weighted = EKMeans(3, **options).fit(X, sample_weight=s)
    repeated = EKMeans(3, **options).fit(np.repeat(X, s, axis=0))
    assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, atol=1e-9)


def test_shifts_and_units_do_not_matter():
    model = EKMeans(3, missing="partial", random_state=0).fit(X)
    other = EKMeans(3, missing="partial", random_state=0).fit(8 * X - 4000)
    assert_array_equal(other.labels_, model.labels_)
    assert_allclose(other.cluster_centers_, 8 * model.cluster_centers_ - 4000, rtol=1e-6)


def test_a_centroid_so_far_from_all_rows_that_its_memberships_underflow_has_no_sums():
    C = np.vstack([COMPLETE[:2], np.full(6, 1e6)])[None]
    sums = PartialRows(X).statistics(C, np.ones(1))
    for part in (sums.sum_wx, sums.sum_w, sums.sum_p):
        assert not part[0, 2].any()
        assert np.isfinite(part).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = EKMeans(3, missing="partial", alpha=1.0, init=C[0]).fit(X)
    low, high = np.nanmin(X, axis=0), np.nanmax(X, axis=0)
    assert (np.abs(model.cluster_centers_ - (low + high) / 2) <= 1.5 * (high - low)).all()


def test_alpha_path():
    path = alpha_path(X, 3, missing="partial", random_state=0)
    model = EKMeans(3, missing="partial", random_state=0).fit(X)
    for labels in (path.labels[path.best], model.labels_):
        assert adjusted_rand_score(Y, labels) > 0.99


# --------------------------------------------------------------------------------------------------
# The likelihood


def test_the_likelihood_of_complete_rows_is_the_same():
    weight = np.random.default_rng(0).uniform(0.5, 2, len(Y))
    weight[0] = 1e-12
    whole = likelihood.classification_likelihood(COMPLETE, Y, weight)
    rows = COMPLETE.copy()
    rows[0, 0] = np.nan  # in a row that hardly counts
    assert_allclose(likelihood.classification_likelihood(rows, Y, weight), whole, rtol=1e-11)


def test_the_likelihood_of_features_that_few_rows_have_is_theirs():
    # A further feature, which no row of a cluster has, changes nothing but its few terms.
    wide = np.hstack([COMPLETE, np.full((len(Y), 1), np.nan)])
    first = [int(np.flatnonzero(k == Y)[0]) for k in range(3)]
    wide[first, 6] = 0.0
    whole = likelihood.classification_likelihood(COMPLETE, Y)
    assert_allclose(likelihood.classification_likelihood(wide, Y), whole, rtol=0.02)


def test_the_likelihood_prefers_the_true_labels():
    good = likelihood.classification_likelihood(X, Y)
    rng = np.random.default_rng(0)
    for share in (0.05, 0.2):
        some = rng.random(len(Y)) < share
        worse = np.where(some, rng.permutation(Y), Y)
        assert likelihood.classification_likelihood(X, worse) < good


# --------------------------------------------------------------------------------------------------
# Blocks, memory maps and Dask


def of_dask(rows):
    return pytest.importorskip("dask.array").from_array(rows, chunks=(250, rows.shape[1]))


KINDS = {
    "blocks": lambda rows: blocks.from_arrays(np.split(rows, [1, 300])),
    "weighted blocks": lambda rows: blocks.from_arrays(
        np.split(rows, [1, 300]), np.split(np.ones(len(rows), rows.dtype), [1, 300])
    ),
    "dask": of_dask,
}


@pytest.fixture
def one_dask_thread():
    with pytest.importorskip("dask").config.set(scheduler="synchronous"):
        yield


@pytest.mark.usefixtures("one_dask_thread")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", [*ESTIMATORS, MiniBatchEKMeans])
def test_a_fit_to_blocks_is_that_to_the_array(cls, kind, dtype):
    array = X.astype(dtype)
    rows = KINDS[kind](array)
    options = {"missing": "partial", "init": START, "tol": 1e-8}
    model, other = cls(3, **options).fit(rows), cls(3, **options).fit(array)
    assert model.converged_
    assert other.converged_
    atol = 1e-3 if dtype == np.float32 else 1e-6
    assert_allclose(model.cluster_centers_, other.cluster_centers_, atol=atol)
    assert_allclose(model.objective_, other.objective_, rtol=1e-6)
    assert_array_equal(np.asarray(model.predict(rows)), other.labels_)
    for method in ("transform", "membership", "weights"):
        found = np.asarray(getattr(model, method)(rows))
        assert found.dtype == dtype
        assert_allclose(found, getattr(model, method)(array), atol=1e-12)
    assert_allclose(model.score(rows), model.score(array), rtol=1e-12)


def test_the_survey_of_blocks_is_that_of_the_array():
    s = np.random.default_rng(3).uniform(0.5, 2, len(X))
    parts = blocks.from_arrays(np.split(X, [1, 300]), np.split(s, [1, 300]))
    one = PartialBlockRows(LocalSource(parts, 2), 2).survey(checksum=True)
    other = PartialRows(X, s).survey()
    for name in ("total_weight", "mean", "dispersion", "mass"):
        assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-13)
    for name in ("n_rows", "low", "high"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    assert_array_equal(one.sample.X, X)
    assert one.checksum != PartialBlockRows(LocalSource(parts, 2), 2).survey().checksum


@pytest.mark.usefixtures("one_dask_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_a_search_in_blocks(kind, monkeypatch):
    monkeypatch.setattr(blockwise, "SAMPLE_ROWS", 200)  # so that the sample is not all rows
    rows = KINDS[kind](X)
    model = EKMeans(3, missing="partial", random_state=0).fit(rows)
    assert adjusted_rand_score(Y, np.asarray(model.predict(rows))) > 0.98
    path = alpha_path(rows, 3, missing="partial", random_state=0)
    assert path.labels.shape[1] == 200
    assert path.sizes[path.best].sum() == pytest.approx(len(X))
    hard = HardKMeans(3, missing="partial", init=path.centroids[path.best], max_iter=1)
    labels = hard.set_params(tol=1e9).fit(X).labels_
    assert_allclose(np.sort(path.sizes[path.best]), np.sort(np.bincount(labels)), atol=5)


def test_a_block_may_lack_a_feature():
    rows = X.copy()
    rows[:200, 2] = np.nan
    rows[:200, 3] = 100.0
    options = {"missing": "partial", "init": START, "alpha": 0.2, "tol": 1e-8}
    wanted = EKMeans(3, **options).fit(rows).cluster_centers_
    parts = blocks.from_arrays(np.split(rows, [200, 400]))
    for model in (EKMeans(3, **options), MiniBatchEKMeans(3, batch_size=1, **options)):
        assert_allclose(model.fit(parts).cluster_centers_, wanted, atol=1e-6)


def test_a_memory_map_is_read_in_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(given, "LARGE_MEMMAP", 1)
    np.save(tmp_path / "X.npy", X)
    rows = np.load(tmp_path / "X.npy", mmap_mode="r")
    options = {"missing": "partial", "init": START}
    model = EKMeans(3, **options).fit(rows)
    assert not hasattr(model, "labels_")
    assert_array_equal(model.predict(rows), EKMeans(3, **options).fit(X).labels_)


def test_nulls_of_a_parquet_file_are_missing_numbers(tmp_path):
    pd, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    pd.DataFrame(X, columns=list("abcdef")).astype("Float64").to_parquet(tmp_path / "X.parquet")
    rows = blocks.from_parquet(tmp_path / "X.parquet")
    options = {"missing": "partial", "init": START}
    model = EKMeans(3, **options).fit(rows)
    assert_array_equal(model.predict(rows), EKMeans(3, **options).fit(X).labels_)


@pytest.mark.usefixtures("one_dask_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_faults_of_blocks_are_named(kind):
    def fit(rows):
        return EKMeans(3, missing="partial", random_state=0).fit(KINDS[kind](rows))

    model = fit(X)
    row = 150 if kind == "dask" else 100  # the number within the block
    empty = X.copy()
    empty[400] = np.nan
    infinite = X.copy()
    infinite[400, 3] = -np.inf
    for rows, message in (
        (empty, f"all numbers of row {row} of block . of .* are missing"),
        (infinite, f"block . of .* must be finite or NaN, got -infinity in row {row}, column 3"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(rows)
        with pytest.raises(ValueError, match=message):
            np.asarray(model.predict(KINDS[kind](rows)))
    rows = X.copy()
    rows[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"all numbers in column 2 of .* are missing"):
        fit(rows)


# --------------------------------------------------------------------------------------------------
# Batches


def test_a_fit_in_batches_ends_at_a_fixed_point_of_all_rows():
    options = {"missing": "partial", "alpha": 0.2, "random_state": 0, "tol": 1e-9}
    model = MiniBatchEKMeans(3, batch_size=100, **options).fit(X)
    assert model.converged_
    assert adjusted_rand_score(Y, model.labels_) > 0.98
    C = model.cluster_centers_
    A, B, _, J = formulas(X, C, 0.2, np.ones(len(X)), "equilibrium", 2.0)
    assert_allclose(J, model.objective_, rtol=1e-9)
    assert np.abs(A - B * C).max() < 1e-4 * len(X)


def test_a_stream_of_one_batch_after_another():
    """With ``forgetting=1`` the sums are the mean of those of the batches."""
    parts = np.split(X.copy(), [300, 500])
    parts[1] = COMPLETE[300:500]  # a batch in which nothing is missing
    parts[2][:, 4] = np.nan  # and one in which a feature is missing
    parts[2][:, 0] = 100.0
    stream = MiniBatchEKMeans(3, missing="partial", init=START, forgetting=1.0)
    for part in parts:
        stream.partial_fit(part)
    assert stream.labels_.shape == (len(parts[2]),)
    # alpha is that of all rows so far.
    everything = PartialRows(np.concatenate(parts)).survey()
    assert stream.alpha_ == pytest.approx(2 / everything.dispersion, rel=1e-12)
    assert_allclose(stream._stream_.mean, everything.mean, rtol=1e-13)
    assert_allclose(stream._stream_.mass, everything.mass, rtol=1e-13)
    assert stream._stream_.packed.shape == (3, 18)
    assert adjusted_rand_score(Y, stream.predict(X)) > 0.98


@pytest.mark.usefixtures("one_dask_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_batch_of_a_stream_has_numbers_in_each_column(kind):
    rows = COMPLETE.copy()
    rows[:, 4] = np.nan
    one, two = (MiniBatchEKMeans(3, missing="partial", init=START) for _ in range(2))
    with pytest.raises(ValueError, match=r"every feature must have .* in column 4 of X"):
        two.partial_fit(KINDS[kind](rows))
    for batch in (X, rows):  # after the first batch the mean of the feature is known
        one.partial_fit(batch)
        two.partial_fit(KINDS[kind](batch))
        assert_array_equal(one.cluster_centers_, two.cluster_centers_)


def test_a_stream_in_which_nothing_is_missing_has_the_same_bits():
    one, two = (
        MiniBatchEKMeans(3, init=START, missing=missing) for missing in ("error", "partial")
    )
    for part in np.split(COMPLETE, [300, 500]):
        one.partial_fit(part)
        two.partial_fit(part)
    assert_array_equal(one.cluster_centers_, two.cluster_centers_)


def test_a_stream_goes_on_after_loading(tmp_path):
    stream = MiniBatchEKMeans(3, missing="partial", init=START).partial_fit(X[:300])
    save(stream, tmp_path / "stream.npz")
    again = load(tmp_path / "stream.npz")
    for one in (stream, again):
        one.partial_fit(X[300:])
    assert_array_equal(again.cluster_centers_, stream.cluster_centers_)
    assert again.alpha_ == stream.alpha_


# --------------------------------------------------------------------------------------------------
# What is refused


def test_missing_numbers_are_refused_unless_asked_for():
    with pytest.raises(ValueError, match=r"NaN in row \d+, column \d+; .*missing='partial'"):
        EKMeans(3).fit(X)
    with pytest.raises(ValueError, match="missing must be 'error' or 'partial', got 'mean'"):
        EKMeans(3, missing="mean").fit(X)


def test_rows_and_columns_without_numbers_are_named():
    rows = X.copy()
    rows[41] = np.nan
    with pytest.raises(ValueError, match="all numbers of row 41 of X are missing"):
        EKMeans(3, missing="partial").fit(rows)
    model = EKMeans(3, missing="partial", random_state=0).fit(X)
    for method in (model.predict, model.transform, model.membership, model.weights):
        with pytest.raises(ValueError, match="all numbers of row 41 of X are missing"):
            method(rows)
    rows = X.copy()
    rows[:, 2] = np.nan
    with pytest.raises(ValueError, match="all numbers in column 2 of X are missing"):
        EKMeans(3, missing="partial").fit(rows)
    rows = X.copy()
    rows[7, 3] = -np.inf
    for method in (EKMeans(3, missing="partial").fit, model.predict):
        with pytest.raises(ValueError, match="got -infinity in row 7, column 3"):
            method(rows)


def test_numbers_too_large_for_their_squares():
    with pytest.raises(ValueError, match="squared distances overflow float32"):
        EKMeans(3, missing="partial").fit((X * 1e20).astype(np.float32))
    with pytest.raises(ValueError, match="squared distances overflow float64"):
        EKMeans(3, missing="partial").fit(X * 1e160)


def test_other_kinds_of_rows_are_refused():
    model = EKMeans(3, missing="partial", random_state=0)
    with pytest.raises(TypeError, match="takes dense arrays, got a sparse matrix"):
        model.fit(csr_matrix(COMPLETE))
    with pytest.raises(ValueError, match="computed by the CPU"):
        EKMeans(3, missing="partial", device="cuda").fit(blocks.from_arrays([X]))
    with pytest.raises(ValueError, match="computed by the CPU"):
        EKMeans(3, missing="partial", device="cuda").fit(X)
    with pytest.raises(ValueError, match="missing='partial' needs metric='euclidean'"):
        EKMeans(3, missing="partial", metric="cosine").fit(X)


def test_columns_of_a_frame_with_missing_values():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcdef")).astype("Float64")
    assert frame.isna().to_numpy().any()
    model = EKMeans(3, missing="partial", random_state=0).fit(frame)
    other = EKMeans(3, missing="partial", random_state=0).fit(X)
    assert_array_equal(model.labels_, other.labels_)
    assert_array_equal(model.predict(frame), other.labels_)


# --------------------------------------------------------------------------------------------------
# Files and scikit-learn


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_a_loaded_model_predicts_the_same(cls, tmp_path):
    model = cls(3, missing="partial", random_state=0).fit(X)
    save(model, tmp_path / "model.npz")
    again = load(tmp_path / "model.npz")
    assert_array_equal(again.transform(X), model.transform(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_an_onnx_file_takes_missing_numbers(cls, dtype, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    rows = X.astype(dtype)
    model = cls(3, missing="partial", random_state=0).fit(rows)
    export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    label, distances, p = session.run(["label", "distances", "membership"], {"X": rows})
    assert_array_equal(label, model.predict(rows))
    rtol = 1e-5 if dtype == np.float32 else 1e-10
    assert_allclose(distances, model.transform(rows), rtol=rtol)
    assert_allclose(p, model.membership(rows), atol=rtol)


def test_it_is_an_estimator_of_scikit_learn():
    draws = "as without missing numbers: repeating rows changes what restarts draw"
    results = check_estimator(
        EKMeans(2, missing="partial", n_init=2),
        on_skip=None,
        expected_failed_checks={"check_sample_weight_equivalence_on_dense_data": draws},
    )
    assert sum(result["status"] == "passed" for result in results) >= 40


def test_a_feature_of_three_rows_does_not_stop_a_search():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12_500, 3))
    rows[3:, 2] = np.nan
    model = EKMeans(3, missing="partial", random_state=0).fit(rows)
    assert np.isfinite(model.cluster_centers_).all()


@pytest.mark.filterwarnings("ignore:only .* centroids are distinct")
def test_rows_without_weight_do_not_say_how_many_features_are_enough():
    rows = np.array([[1, 2, 3.0]] * 4 + [[1, np.nan, np.nan], [9, np.nan, np.nan]])
    weight = np.array([0.0, 0, 0, 0, 1, 1])
    model = EKMeans(2, missing="partial", random_state=0).fit(rows, sample_weight=weight)
    assert model.labels_[4] != model.labels_[5]


def test_the_number_of_clusters_must_be_given():
    with pytest.raises(ValueError, match="n_clusters must be a number with missing='partial'"):
        EKMeans("auto", missing="partial").fit(np.array([[1, np.nan], [1, 2], [3, 4]]))
