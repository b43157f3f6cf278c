"""MiniBatchEKMeans: the fixed point of the full data from batches, streams, bad input."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from data import set_a, set_c
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from ekmfast import EKMeans, MiniBatchEKMeans, ekm_step
from ekmfast.rows.array import ArrayRows

SETS = pytest.mark.parametrize(("data", "k"), [(set_a, 3), (set_c, 2)], ids=["A", "C"])


def one_of_each(y):
    """A row of every cluster, to start in the basin of the best optimum."""
    return np.unique(y, return_index=True)[1]


# The checks' tiny data lets centroids coincide, and the estimator says so with a warning.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("batch_size", [4096, 7])
def test_check_estimator(batch_size):
    results = check_estimator(
        MiniBatchEKMeans(batch_size=batch_size),
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
    assert skipped <= {"check_array_api_input"}  # runs only where SCIPY_ARRAY_API is set


@SETS
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("batch_size", [9, 100, 1500])
def test_fit_reaches_the_fixed_point_of_the_full_data(data, k, order, batch_size):
    X, y = data()
    start = X[one_of_each(y)]
    if order == "shuffled":
        X = np.random.default_rng(1).permutation(X)
    model = MiniBatchEKMeans(
        k, alpha=1.0, init=start, batch_size=batch_size, tol=1e-6, random_state=0
    ).fit(X)
    assert model.converged_
    assert model.n_steps_ >= model.n_iter_ - 1 + -(-len(X) // batch_size)
    # tol is the root mean square step in units of the data's, here 1.41, spread over k centroids.
    step = ekm_step(X, model.cluster_centers_, 1.0)[0] - model.cluster_centers_
    assert np.linalg.norm(step) <= 1e-6 * np.sqrt(2 * k)
    full = EKMeans(k, alpha=1.0, init=start, tol=1e-8, max_iter=1000).fit(X)
    np.testing.assert_allclose(model.cluster_centers_, full.cluster_centers_, atol=1e-5)
    assert model.objective_ == pytest.approx(full.objective_, rel=1e-10)
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_default_call_finds_the_small_cluster():
    X, y = set_c()
    model = MiniBatchEKMeans(2, alpha=1.0, random_state=0).fit(X)
    assert model.converged_
    assert model.objective_ <= 1.0001 * 3900.59
    assert adjusted_rand_score(y, model.labels_) >= 0.97


def test_batches_as_long_as_the_data_are_ekmeans():
    X, _ = set_a()
    weight = np.linspace(0.5, 2, len(X))
    parameters = {"n_clusters": 3, "n_init": 3, "random_state": 5, "tol": 1e-5, "max_iter": 200}
    for size in (len(X), len(X) + 1):
        mini = MiniBatchEKMeans(**parameters, batch_size=size).fit(X, sample_weight=weight)
        full = EKMeans(**parameters, alpha="dvariance").fit(X, sample_weight=weight)
        np.testing.assert_array_equal(mini.cluster_centers_, full.cluster_centers_)
        np.testing.assert_array_equal(mini.labels_, full.labels_)
        np.testing.assert_array_equal(mini.objective_history_, full.objective_history_)
        assert mini.objective_ == full.objective_
        assert mini.alpha_ == full.alpha_
        assert (mini.n_iter_, mini.converged_) == (full.n_iter_, full.converged_)
        assert mini.n_steps_ == mini.n_iter_


@pytest.mark.parametrize("batch_size", [100, 10_000])
def test_weight_two_is_the_row_twice(batch_size):
    X, y = set_a()
    start = X[one_of_each(y)]
    weight = np.where(np.arange(len(X)) % 3 == 0, 2.0, 1.0)
    model = MiniBatchEKMeans(3, init=start, tol=1e-9, batch_size=batch_size, max_iter=500)
    a = model.fit(X, sample_weight=weight)
    b = MiniBatchEKMeans(**model.get_params()).fit(np.repeat(X, weight.astype(int), axis=0))
    assert a.converged_
    np.testing.assert_allclose(a.cluster_centers_, b.cluster_centers_, atol=1e-7)
    assert a.objective_ == pytest.approx(b.objective_, rel=1e-10)
    assert a.alpha_ == pytest.approx(b.alpha_, rel=1e-12)


@SETS
@pytest.mark.parametrize("seed", range(3))
def test_stream_settles_at_the_fixed_point_of_the_full_data(data, k, seed):
    X, y = data()
    start = X[one_of_each(y)]
    full = EKMeans(k, alpha=1.0, init=start, tol=1e-8).fit(X)
    model = MiniBatchEKMeans(k, alpha=1.0, init=start)
    X = np.random.default_rng(seed).permutation(X)
    objectives = []
    for _ in range(4):
        for first in range(0, len(X), 250):
            model.partial_fit(X[first : first + 250])
        objectives.append(-model.score(X) / full.objective_)
    assert model.n_steps_ == 4 * -(-len(X) // 250)
    # A batch of 250 holds about 6 (A) or 10 (C) rows of the smallest cluster, of variance below
    # 1.5; the memory is of 1 / eta > 10 batches, so 0.1 is two standard errors and more.
    np.testing.assert_allclose(model.cluster_centers_, full.cluster_centers_, atol=0.1)
    assert objectives[-1] <= 1.001
    assert objectives[-1] < objectives[0]


def test_sums_are_averaged_and_not_ratios():
    """Two batches that alternate: the sums' ratio is the full data's, the ratios' mean is not."""
    g = np.random.default_rng(0)
    a = g.standard_normal((300, 1))
    b = np.vstack([g.standard_normal((100, 1)), 5 + g.standard_normal((50, 1))])
    start = np.array([[0.0], [5.0]])
    full = EKMeans(2, alpha=0.5, init=start, tol=1e-8).fit(np.vstack([a, b]))
    model = MiniBatchEKMeans(2, alpha=0.5, init=start, forgetting=1.0)
    for _ in range(150):
        model.partial_fit(a)
        model.partial_fit(b)
    np.testing.assert_allclose(model.cluster_centers_, full.cluster_centers_, atol=0.02)
    steps = [ekm_step(X, full.cluster_centers_, 0.5)[0] for X in (a, b)]
    assert np.abs(np.mean(steps, axis=0) - full.cluster_centers_).max() > 0.1


def test_alpha_of_a_stream_is_that_of_all_rows():
    X, _ = set_a()
    X = 1e4 + np.random.default_rng(0).permutation(X)
    weight = np.linspace(1, 2, len(X))
    model = MiniBatchEKMeans(3, random_state=0)
    for rows in np.array_split(np.arange(len(X)), 7):
        model.partial_fit(X[rows], sample_weight=weight[rows])
    whole = EKMeans(3, alpha="dvariance", random_state=0).fit(X, sample_weight=weight)
    assert model.alpha_ == pytest.approx(whole.alpha_, rel=1e-10)


def test_partial_fit_says_what_it_did():
    X, _ = set_c()
    X = np.random.default_rng(0).permutation(X)
    model = MiniBatchEKMeans(2, alpha=1.0, random_state=0)
    assert model.partial_fit(X[:1000]) is model
    before = model.cluster_centers_
    batch = X[1000:1300]
    model.partial_fit(batch)
    assert model.n_steps_ == 2
    assert model.objective_ == pytest.approx(ekm_step(batch, before, 1.0)[1], rel=1e-12)
    assert model.labels_.shape == (300,)
    np.testing.assert_array_equal(model.labels_, model.predict(batch))
    assert model.n_clusters_effective_ == 2


def test_partial_fit_after_fit_goes_on():
    X, _ = set_c()
    for size in (500, 10_000):
        model = MiniBatchEKMeans(2, alpha=1.0, random_state=0, batch_size=size).fit(X)
        before, steps = model.cluster_centers_, model.n_steps_
        model.partial_fit(X)
        assert model.n_steps_ == steps + 1
        # The full data's step at its fixed point is nil, whatever was forgotten.
        np.testing.assert_allclose(model.cluster_centers_, before, atol=1e-3)
        again = pickle.loads(pickle.dumps(model)).partial_fit(X[:100])
        np.testing.assert_array_equal(
            again.cluster_centers_, model.partial_fit(X[:100]).cluster_centers_
        )


def test_fit_starts_anew():
    X, _ = set_c()
    model = MiniBatchEKMeans(2, random_state=0, batch_size=1000).fit(X)
    expected = model.cluster_centers_
    model.partial_fit(X + 100.0)
    np.testing.assert_array_equal(model.fit(X).cluster_centers_, expected)


def test_forgetting_zero_is_the_last_batch_alone():
    X, y = set_a()
    model = MiniBatchEKMeans(3, alpha=1.0, init=X[one_of_each(y)], forgetting=0.0)
    model.partial_fit(X + 0.1)
    met = model.cluster_centers_
    model.partial_fit(X)
    np.testing.assert_allclose(model.cluster_centers_, ekm_step(X, met, 1.0)[0], atol=1e-10)


def test_same_seed_same_bits_for_any_number_of_threads():
    g = np.random.default_rng(0)
    X = (g.standard_normal((20_000, 5)) + 3 * np.eye(5)[g.integers(0, 3, 20_000)]).astype("f4")
    fits, streams = [], []
    for n_threads in (1, 2, 3):
        model = MiniBatchEKMeans(3, random_state=1, n_init=2, n_threads=n_threads)
        fits.append(model.set_params(batch_size=3000).fit(X))
        stream = MiniBatchEKMeans(**model.get_params()).partial_fit(X[:9000])
        streams.append(stream.partial_fit(X[9000:]))
    for group in (fits, streams):
        for other in group[1:]:
            np.testing.assert_array_equal(other.cluster_centers_, group[0].cluster_centers_)
            assert other.objective_ == group[0].objective_
    other = MiniBatchEKMeans(**fits[0].get_params()).set_params(random_state=2).fit(X)
    assert (other.cluster_centers_ != fits[0].cluster_centers_).any()


def test_float32_is_kept():
    X = set_a()[0].astype(np.float32)
    fitted = MiniBatchEKMeans(3, alpha=1.0, random_state=0, batch_size=500).fit(X)
    streamed = MiniBatchEKMeans(3, alpha=1.0, random_state=0).partial_fit(X).partial_fit(X)
    for model in (fitted, streamed):
        assert model.cluster_centers_.dtype == np.float32
        assert model.transform(X).dtype == np.float32
        assert model.labels_.dtype == np.int32


def test_shift_and_scale_equivariance():
    X, y = set_a()
    start = X[one_of_each(y)]
    parameters = {"n_clusters": 3, "batch_size": 300, "random_state": 0}
    plain = MiniBatchEKMeans(**parameters, init=start).fit(X)
    moved = MiniBatchEKMeans(**parameters, init=start * 1e6 + 1e8).fit(X * 1e6 + 1e8)
    np.testing.assert_array_equal(plain.labels_, moved.labels_)
    back = (moved.cluster_centers_ - 1e8) / 1e6
    np.testing.assert_allclose(back, plain.cluster_centers_, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "start", "parameters", "expected"),
    [
        # The plain map alternates for ever on the first, has sum w < 0 on its way on the second.
        ([[0.0], [2], [2], [2], [10]], [[0.0], [2]], {"alpha": 1 / 12.16}, [[1.32996], [11.71722]]),
        ([[2.0], [2], [7], [0]], [[2.0], [0]], {"scale": 8.0}, None),
        ([[3.0, 6], [5, 4], [5, 5], [0, 1]], [[3.0, 6], [5, 4], [5, 5]], {"alpha": 1.04065}, None),
    ],
)
@pytest.mark.parametrize("batch_size", [7, 19])
def test_data_on_which_the_plain_map_fails(rows, start, parameters, expected, batch_size):
    X = np.tile(rows, (10, 1))
    model = MiniBatchEKMeans(
        len(start), init=start, batch_size=batch_size, tol=1e-7, random_state=0, **parameters
    ).fit(X)
    assert model.converged_
    step = ekm_step(X, model.cluster_centers_, model.alpha_)[0] - model.cluster_centers_
    assert np.abs(step).max() < 1e-5 * np.ptp(X)
    if expected is not None:
        np.testing.assert_allclose(model.cluster_centers_, expected, atol=2e-5)


@pytest.mark.parametrize("alpha", [0.05, 1.0, 30.0])
def test_hostile_streams_do_not_throw_a_centroid_away(alpha):
    """Tiny heavy-tailed batches of drifting places and sizes, where column sums change sign."""
    g = np.random.default_rng(0)
    model = MiniBatchEKMeans(4, alpha=alpha, random_state=0).partial_fit(g.standard_normal((20, 2)))
    furthest = 0.0
    for t in range(250):
        batch = np.clip(g.standard_t(2, (g.integers(1, 9), 2)), -20, 20) + 3 * np.sin(t / 25)
        furthest = max(furthest, np.abs(batch).max())
        model.partial_fit(batch)
        assert np.isfinite(model.cluster_centers_).all()
        assert np.abs(model.cluster_centers_).max() <= 2 * furthest


def test_says_when_it_did_not_converge():
    X, _ = set_a()
    with pytest.warns(ConvergenceWarning, match=r"MiniBatchEKMeans .*\(max_iter=1\)"):
        model = MiniBatchEKMeans(3, alpha=1.0, max_iter=1, tol=0, batch_size=500).fit(X)
    assert not model.converged_
    assert model.n_iter_ == 1
    assert np.isfinite(model.objective_)


def test_equal_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the centroids do coincide
        model = MiniBatchEKMeans(2, random_state=0, batch_size=4).fit(np.full((10, 3), 7.0))
    np.testing.assert_array_equal(model.cluster_centers_, np.full((2, 3), 7.0))
    model.partial_fit(np.full((1, 3), 7.0))
    np.testing.assert_array_equal(model.cluster_centers_, np.full((2, 3), 7.0))


@pytest.mark.filterwarnings("ignore:only 1 of 2:sklearn.exceptions.ConvergenceWarning")
def test_equal_rows_whose_centroids_are_rounded():
    X = np.full((9, 3), 0.1) * [1, 3, 7]
    model = MiniBatchEKMeans(2, random_state=0).partial_fit(X)
    model._stream_.centroids[0] += 1e-17  # as by rounding
    model.partial_fit(X)
    np.testing.assert_allclose(model.cluster_centers_, X[:2], rtol=1e-15)


def test_rows_of_weight_zero_do_not_count():
    X, y = set_a()
    start = X[one_of_each(y)]
    outliers = np.vstack([X, np.full((500, 2), 50.0)])
    weight = np.repeat([1.0, 0.0], [len(X), 500])
    model = MiniBatchEKMeans(3, init=start, batch_size=250, tol=1e-8, random_state=0)
    a = model.fit(outliers, sample_weight=weight).cluster_centers_
    b = MiniBatchEKMeans(**model.get_params()).fit(X).cluster_centers_
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"n_clusters": 0}, ValueError, "n_clusters must be an integer >= 1, got 0"),
        ({"n_clusters": 11}, ValueError, "n_samples=10 should be >= n_clusters=11"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer >= 1, got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be an integer >= 1, got 2.5"),
        ({"forgetting": -0.1}, ValueError, r"forgetting must be a number in \[0, 1\], got -0.1"),
        ({"forgetting": 1.1}, ValueError, r"forgetting must be a number in \[0, 1\], got 1.1"),
        (
            {"alpha": "auto"},
            ValueError,
            "alpha must be 'dvariance' or a finite number > 0, got 'auto'",
        ),
        ({"alpha": -1.0}, ValueError, "alpha must be"),
        ({"scale": 0}, ValueError, "scale must be a finite number > 0, got 0"),
        ({"init": "best"}, ValueError, "init must be 'auto', .* got str 'best'"),
        ({"init": np.zeros((3, 2))}, ValueError, r"init must have shape .* = \(2, 2\)"),
        ({"n_init": 0}, ValueError, "n_init must be 'auto' or an integer >= 1"),
        ({"max_iter": 0}, ValueError, "max_iter must be an integer >= 1"),
        ({"tol": -1}, ValueError, "tol must be a finite number >= 0"),
        ({"device": "tpu"}, ValueError, "device must be 'cpu', 'cuda' or 'auto', got 'tpu'"),
        ({"n_threads": 0}, ValueError, "n_threads must be None or an integer >= 1"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_parameters(parameters, error, match, method):
    X = np.random.default_rng(0).standard_normal((10, 2))
    model = MiniBatchEKMeans(**{"n_clusters": 2, "batch_size": 4, **parameters})
    with pytest.raises(error, match=match):
        getattr(model, method)(X)


@pytest.mark.parametrize(
    ("X", "weight", "match"),
    [
        (np.array([[0.0, np.nan]]), None, "NaN"),
        (np.array([[0.0, np.inf]]), None, "infinity"),
        (np.empty((0, 2)), None, "0 sample"),
        (np.zeros((5, 3)), None, "3 features, but .* 2 features"),
        (np.zeros(5), None, "2D array"),
        (np.array([[1e200, 0.0], [-1e200, 0.0]]), None, "overflow"),
        (np.zeros((3, 2)), [1.0, 1.0], "sample_weight"),
        (np.zeros((3, 2)), [1.0, -1.0, 1.0], "[Nn]egative"),
        (np.zeros((3, 2)), [0.0, 0.0, 0.0], "non-zero"),
    ],
)
def test_a_refused_batch_changes_nothing(X, weight, match):
    model = MiniBatchEKMeans(2, random_state=0).partial_fit([[0.0, 0], [0, 1], [5, 5], [5, 6]])
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match=match):
        model.partial_fit(X, sample_weight=weight)
    assert pickle.dumps(model) == before


def test_a_refused_first_batch_leaves_a_fresh_start():
    model = MiniBatchEKMeans(3, random_state=0)
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_clusters=3"):
        model.partial_fit([[0.0, 1, 2], [1, 2, 3]])
    model.partial_fit([[0.0, 1], [1, 2], [5, 5]])
    assert model.cluster_centers_.shape == (3, 2)


def test_verbose_prints_epochs(capsys):
    MiniBatchEKMeans(2, random_state=0, batch_size=1000, verbose=1).fit(set_c()[0])
    assert "epoch 1: objective about" in capsys.readouterr().out


def test_moments_of_more_float32_ones_than_float32_counts():
    # 2^24 + 1 is no float32: a running sum of ones stops at 2^24.
    X = np.broadcast_to(np.ones((1, 1), np.float32), (17_500_000, 1))
    found = ArrayRows(X.copy()).survey()
    assert (found.total_weight, found.mean, found.dispersion) == (17_500_000.0, np.ones(1), 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [1, 7, 100])
def test_a_survey_is_that_of_extended_precision(dtype, weighted, d):
    X = (1e4 + np.random.default_rng(0).normal(size=(1000, d))).astype(dtype)
    s = np.random.default_rng(1).random(1000).astype(dtype) if weighted else None
    found = ArrayRows(X, s, 2).survey()
    rows, w = X.astype(np.longdouble), np.ones(1000) if s is None else s.astype(np.longdouble)
    expected = (w @ rows) / w.sum()
    scatter = float(w @ ((rows - expected) ** 2).sum(axis=1))
    assert found.total_weight == pytest.approx(float(w.sum()), rel=1e-14)
    np.testing.assert_allclose(found.mean, expected.astype(float), rtol=1e-14)
    assert found.dispersion == pytest.approx(0.5 * scatter / float(w.sum()), rel=1e-10)
    np.testing.assert_array_equal(found.low, X.min(axis=0))
    np.testing.assert_array_equal(found.high, X.max(axis=0))


@pytest.mark.parametrize("init", ["auto", "random"])
@pytest.mark.parametrize("seed", range(3))
def test_one_row_that_weighs_anything_draws_all_centroids(init, seed):
    X = np.random.default_rng(0).normal(size=(20_000, 2))
    weight = np.zeros(20_000)
    weight[777] = 3.0
    model = MiniBatchEKMeans(3, batch_size=500, random_state=seed, init=init)
    with pytest.warns(ConvergenceWarning, match="only 1 of 3 centroids are distinct"):
        model.fit(X, sample_weight=weight)
    np.testing.assert_allclose(model.cluster_centers_, X[[777] * 3], atol=1e-12)


def test_weights_of_batches_are_summed_without_their_rows():
    X, _ = set_a()
    weight = np.random.default_rng(0).random(len(X))
    for size in (100, 3000):
        for s in (weight, None):
            batches = ArrayRows(X, s).batches(size, np.random.RandomState(0))
            for b, rows in batches.visit(np.random.RandomState(1)):
                own = len(rows.X) if s is None else rows.sample_weight.sum()
                assert batches.masses[b] == own


def test_an_overflow_is_blamed_on_what_overflows():
    X = 1e5 * np.random.default_rng(0).normal(size=(50, 2))
    for method in ("fit", "partial_fit"):
        model = MiniBatchEKMeans(2, random_state=0, batch_size=10)
        with pytest.raises(ValueError, match="scale sample_weight down"):
            getattr(model, method)(X, sample_weight=np.full(50, 1e307))
        with pytest.raises(ValueError, match="scale X down"):
            getattr(model, method)(1e200 * X, sample_weight=np.ones(50))


def test_a_float32_batch_that_overflows_changes_nothing():
    X = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model = MiniBatchEKMeans(2, random_state=0).partial_fit(X)
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match="squared distances overflow float32: scale X down"):
        model.partial_fit(X * np.float32(1e30))
    assert pickle.dumps(model) == before


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1e-25), (np.float64, 1e-170)])
def test_units_in_which_squares_underflow_are_named(dtype, scale):
    X = (scale * set_a()[0]).astype(dtype)
    for method in ("fit", "partial_fit"):
        model = MiniBatchEKMeans(3, random_state=0, batch_size=500)
        with pytest.raises(ValueError, match=f"distances underflow {X.dtype}: scale X up"):
            getattr(model, method)(X)
