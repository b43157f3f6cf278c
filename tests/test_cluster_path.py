"""cluster_path, and the number of clusters that EKMeans and EquilibriumMixture choose from it."""

import math
import warnings

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

import ekmfast
import ekmfast.fit.cluster_path
from ekmfast import EKMeans, EquilibriumMixture, cluster_path
from ekmfast.fit.apart import APART, PARTS, least_distance, preferring_apart
from ekmfast.fit.cluster_path import relaxed
from ekmfast.fit.mixture.joining import joined_labels
from ekmfast.fit.mixture.labelled import from_labels
from ekmfast.fit.mixture.rows import ScaledRows
from ekmfast.fit.mixture.search import MixtureSearch
from ekmfast.fit.mixture.step import maximization

ONE_THREAD = {"random_state": 0, "n_threads": 1}


@pytest.fixture(scope="module")
def shapes():
    """Two long clusters and a small round one."""
    rng = np.random.default_rng(0)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    long = rng.normal(size=(500, 2)) * [3, 1] @ turn
    other = rng.normal(size=(300, 2)) * [1, 2.5] + [15, 5]
    small = rng.normal(size=(40, 2)) * 0.4 + [1, 8]
    y = np.repeat([0, 1, 2], [500, 300, 40])
    order = rng.permutation(len(y))
    return np.concatenate([long, other, small])[order], y[order]


@pytest.fixture(scope="module")
def path(shapes):
    return cluster_path(shapes[0], 6, **ONE_THREAD)


def test_the_path_finds_the_number(shapes, path):
    X, y = shapes
    assert path.n_clusters.tolist() == [1, 2, 3, 4, 5, 6]
    assert path.n_clusters[path.best] == 3
    assert adjusted_rand_score(y, path.labels[path.best]) > 0.98
    assert path.stability[0] == 1
    assert path.stability[path.best] > 0.98
    assert path.stability[-1] < 0.9
    assert path.rows is None
    assert path.n_components is None
    np.testing.assert_array_equal(path.sizes[2, :3], np.bincount(path.labels[2]))
    assert path.labels.shape == (6, len(X))
    assert (path.sizes.sum(axis=1) == len(X)).all()


def test_the_criteria_are_those_of_the_mixture(shapes, path):
    X, _ = shapes
    # One component of one kind and given degrees of freedom has no search, so it is the same one.
    settings = {"covariance_type": "full", "degrees_of_freedom": 5.0} | ONE_THREAD
    one = cluster_path(X, 1, **settings)
    model = EquilibriumMixture(1, **settings).fit(X)
    assert one.likelihood[0] == pytest.approx(model.score(X))
    assert one.bic[0] == pytest.approx(model.bic(X))
    assert one.icl[0] == pytest.approx(model.icl(X))
    assert one.covariance_types == ["full"]
    assert one.degrees_of_freedom.tolist() == [5.0]
    np.testing.assert_allclose(path.icl >= path.bic - 1e-6, True)
    for i, kind in enumerate(path.covariance_types):
        k = i + 1
        shapes = k * (3 if kind == "full" else 2)
        places = k - 1 + 2 * k + 1  # the last for the degrees of freedom
        misfit = -2 * len(X) * path.likelihood[i]
        assert path.bic[i] == pytest.approx(misfit + (places + shapes) * np.log(len(X)))
        # Scatters that are shrunk less are likelier, and cost .35 of the penalty.
        penalty = (places + 0.35 * shapes) * np.log(len(X))
        assert path.criterion[i] < misfit + penalty + 1
    assert path.best == path.criterion.argmin()


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_the_criterion_is_of_scatters_that_are_shrunk_less(kind):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(40, 2)) * (9, 1), rng.normal((0, 9), 1, (40, 2))])
    rows = ScaledRows(X, None, np.zeros(2), 1.0, 1)
    mixture = from_labels(rows, np.repeat([0, 1], 40), kind, 6.0)
    before = float(rows.expectation(mixture[None]).likelihood[0]) / 80
    after = relaxed(mixture, rows)
    assert after > before + 0.02
    # Without any shrinkage one iteration of expectation maximization would be the maximum.
    again = float(relaxed(maximization(mixture, rows.expectation(mixture[None])[0], 0.1), rows))
    assert after < again < after + 0.1


@pytest.mark.parametrize(("size", "seed"), [(100, 3), (60, 2)])
def test_parts_of_long_clusters_are_not_counted(size, seed):
    # With the likelihood of scatters that are shrunk fully these were 15 and 13 clusters.
    rng = np.random.default_rng(seed)
    parts = []
    for centre in 40 * np.eye(5)[:4]:
        turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        parts.append(rng.normal(size=(size, 5)) * (20, 1, 1, 1, 1) @ turn + centre)
    path = cluster_path(np.vstack(parts), 15, **ONE_THREAD)
    assert path.n_clusters[path.best] == 4
    y = np.repeat(range(4), size)
    assert adjusted_rand_score(y, path.labels[path.best]) > 0.98


def test_the_estimators_use_it(shapes, path):
    X, y = shapes
    model = EKMeans("auto", max_clusters=6, alpha="dvariance", **ONE_THREAD).fit(X)
    assert len(model.cluster_centers_) == 3
    given = EKMeans(3, alpha="dvariance", **ONE_THREAD).fit(X)
    assert model.objective_ == pytest.approx(given.objective_, rel=1e-3)
    mixture = EquilibriumMixture("auto", max_clusters=6, **ONE_THREAD).fit(X)
    assert len(mixture.weights_) == path.n_clusters[path.best]
    assert adjusted_rand_score(y, mixture.labels_) > 0.98
    assert len(EquilibriumMixture("auto", max_clusters=2, **ONE_THREAD).fit(X).weights_) == 2


def test_the_result_does_not_depend_on_units_or_threads(shapes, path):
    X, _ = shapes
    moved = cluster_path(1e6 + 1e-3 * X, 6, random_state=0, n_threads=2)
    assert moved.best == path.best
    np.testing.assert_array_equal(moved.labels[2], path.labels[2])
    np.testing.assert_allclose(moved.likelihood, path.likelihood - 2 * np.log(1e-3), rtol=1e-3)
    again = cluster_path(X, 6, random_state=0, n_threads=2)
    for name in ("criterion", "stability", "labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(path, name))


def test_what_the_search_for_one_more_finds_is_not_missed():
    """With four components alone, the small cluster is merged and the long one is split."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2, 3], [900, 400, 200, 40])
    X = np.vstack(
        [
            rng.normal(size=(900, 3)) * (4, 1, 1),
            rng.normal((0, 6, 0), 1.2, (400, 3)),
            rng.normal((7, 6, 3), 1.0, (200, 3)),
            rng.normal((-6, 6, 4), 0.6, (40, 3)),
        ]
    )
    path = cluster_path(X, 6, **ONE_THREAD)
    assert path.n_clusters[path.best] == 4
    assert adjusted_rand_score(y, path.labels[3]) > 0.98
    # The fit begins from what the path has found, too.
    model = EquilibriumMixture("auto", max_clusters=6, **ONE_THREAD).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.98


def test_a_mixture_with_a_component_of_no_row_is_not_the_best(monkeypatch, shapes):
    X = shapes[0]
    path = cluster_path(X, 5, **ONE_THREAD)
    best, clusters = path.best, ekmfast.fit.cluster_path._clusters

    def fewer(mixture, rows):
        return clusters(mixture, rows) - (len(mixture.weights) == best + 1)

    monkeypatch.setattr(ekmfast.fit.cluster_path, "_clusters", fewer)
    other = cluster_path(X, 5, **ONE_THREAD)
    np.testing.assert_array_equal(other.criterion, path.criterion)
    assert other.best == np.delete(np.arange(5), best)[np.delete(path.criterion, best).argmin()]


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_the_pairs_that_are_joined_are_halves_of_one_cluster(kind):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(300, 2)) * (3, 1), rng.normal((0, 8), 1, (200, 2))])
    y = np.repeat([0, 1], [300, 200])
    split = np.where(y == 1, 2, X[:, 0] > 0)  # the first cluster is cut into two
    rows = ScaledRows(X, None, np.zeros(2), 1.0, 1)
    mixture = from_labels(rows, split, kind, math.inf)
    (best,) = joined_labels(mixture, rows, 1)
    assert adjusted_rand_score(y, best) > 0.98
    assert len(joined_labels(mixture, rows, 5)) == 3  # all pairs
    weighted = ScaledRows(X, np.full(500, 2.0), np.zeros(2), 1.0, 1)
    np.testing.assert_array_equal(joined_labels(mixture, weighted, 1)[0], best)


def test_the_dtype_is_kept(shapes):
    X = shapes[0].astype(np.float32)
    assert EKMeans("auto", max_clusters=4, **ONE_THREAD).fit(X).cluster_centers_.dtype == X.dtype
    mixture = EquilibriumMixture("auto", max_clusters=4, **ONE_THREAD).fit(X)
    assert mixture.means_.dtype == X.dtype


def test_a_sample_of_many_rows(shapes, path, monkeypatch):
    X, y = shapes
    monkeypatch.setattr(ekmfast.fit.cluster_path, "SEARCH_ROWS", 600)
    monkeypatch.setattr(ekmfast.fit.cluster_path, "LEAST_ROWS", 10)
    some = cluster_path(X, 6, **ONE_THREAD)
    assert some.labels.shape == (6, 600)
    assert (np.diff(some.rows) > 0).all()
    assert some.n_clusters[some.best] == 3
    assert adjusted_rand_score(y[some.rows], some.labels[2]) > 0.98
    blocks = ekmfast.blocks.from_arrays([X[:400], X[400:]])
    read = cluster_path(blocks, 6, **ONE_THREAD)
    assert read.n_clusters[read.best] == 3
    assert len(EKMeans("auto", max_clusters=6, **ONE_THREAD).fit(blocks).cluster_centers_) == 3


def test_weights_count_rows(shapes):
    X, _ = shapes
    s = np.ones(len(X))
    s[::2] = 0
    settings = {"covariance_type": "full", "degrees_of_freedom": math.inf} | ONE_THREAD
    weighted = cluster_path(X, 3, sample_weight=s, **settings)
    half = cluster_path(X[1::2], 3, **settings)
    assert weighted.labels.shape == (3, len(X))
    np.testing.assert_allclose(weighted.bic[0], half.bic[0])
    np.testing.assert_array_equal(weighted.sizes.sum(axis=1), len(X) / 2)
    twice = cluster_path(X[1::2], 3, sample_weight=np.full(len(X) // 2, 2.0), **settings)
    np.testing.assert_allclose(twice.likelihood[0], half.likelihood[0])
    rows = len(X)  # their total weight
    assert twice.bic[0] == pytest.approx(-2 * rows * twice.likelihood[0] + 5 * np.log(rows))


def test_correlated_features_are_reduced():
    rng = np.random.default_rng(0)
    centres = np.repeat(np.array([[0.0, 0, 0], [6, 0, 0], [0, 6, 0]]), [200, 100, 40], axis=0)
    codes = centres + rng.normal(size=centres.shape)
    X = codes @ rng.normal(size=(3, 60)) + 0.3 * rng.normal(size=(340, 60))
    path = cluster_path(X, 6, **ONE_THREAD)
    assert path.n_components < 5
    assert path.n_clusters[path.best] == 3


@pytest.mark.parametrize("n", [1, 2, 3, 5, 40])
def test_equal_rows_are_one_cluster(n):
    X = np.full((n, 3), 7.0)
    path = cluster_path(X, **ONE_THREAD)
    assert path.n_clusters.tolist() == [1]
    assert path.best == 0
    assert np.isfinite(path.criterion).all()
    model = EKMeans("auto", **ONE_THREAD).fit(X)
    np.testing.assert_array_equal(model.cluster_centers_, [[7.0, 7, 7]])
    mixture = EquilibriumMixture("auto", **ONE_THREAD).fit(X)
    np.testing.assert_array_equal(mixture.means_, [[7.0, 7, 7]])
    assert np.isfinite(mixture.covariances_).all()


def test_few_different_rows_are_as_many_clusters():
    X = np.repeat(np.array([[0.0, 0], [1, 0], [5, 5]]), [30, 20, 10], axis=0)
    path = cluster_path(X, **ONE_THREAD)
    assert path.n_clusters.tolist() == [1, 2, 3]
    assert path.sizes[2].tolist() == [30, 20, 10]
    assert path.best == 2


def test_rows_of_one_cluster_are_one_cluster():
    numbers = []
    for seed in range(5):
        X = np.random.default_rng(seed).normal(size=(200, 3))
        numbers.append(len(EKMeans("auto", **ONE_THREAD).fit(X).cluster_centers_))
    assert numbers == [1] * 5


def test_tiny_data_never_give_nan():
    rng = np.random.default_rng(0)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(60):
            n, d = int(rng.integers(1, 30)), int(rng.integers(1, 4))
            X = rng.integers(0, 3, (n, d)) * 10.0 ** rng.integers(-8, 9)
            path = cluster_path(X, n_init=2, random_state=seed, n_threads=1)
            assert len(path.n_clusters) <= max(1, math.isqrt(n))
            for name in ("likelihood", "bic", "icl", "criterion", "stability", "sizes"):
                assert np.isfinite(getattr(path, name)).all(), (name, X)
            assert (path.sizes.sum(axis=1) == n).all()


def test_one_search_serves_all_numbers(shapes, monkeypatch):
    """A fit with 'auto' searches for each number once, in the sample, and then fits once."""
    counted = []
    best = MixtureSearch.best

    def count(self, k, *further):
        counted.append(k)
        return best(self, k, *further)

    monkeypatch.setattr(MixtureSearch, "best", count)
    EquilibriumMixture("auto", max_clusters=4, **ONE_THREAD).fit(shapes[0][:300])
    assert counted == [1, 2, 3, 4, counted[-1]]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_clusters": 0}, ValueError, "max_clusters must be an integer >= 1, got 0"),
        ({"max_clusters": "15"}, TypeError, "max_clusters must be an integer >= 1, got '15'"),
        ({"covariance_type": "round"}, ValueError, "covariance_type must be 'auto', "),
        ({"degrees_of_freedom": 1}, ValueError, "degrees_of_freedom must be 'auto', "),
        ({"background": 1}, TypeError, "background must be True or False, got 1"),
        ({"n_init": 0}, ValueError, "n_init must be 'auto' or an integer >= 1, got 0"),
    ],
)
def test_bad_parameters_are_named(shapes, settings, error, message):
    with pytest.raises(error, match=message):
        cluster_path(shapes[0], **settings)


def test_bad_rows_are_named(shapes):
    X = shapes[0][:50].copy()
    X[3, 1] = np.nan
    for fit in (cluster_path, EKMeans("auto").fit, EquilibriumMixture("auto").fit):
        with pytest.raises(ValueError, match="X must be finite, got NaN in row 3, column 1"):
            fit(X)
    with pytest.raises(ValueError, match="init must not be an array if n_clusters is 'auto'"):
        EKMeans("auto", init=X[:2]).fit(shapes[0])


def test_a_file_keeps_auto(shapes, tmp_path):
    X = shapes[0][:200]
    for model in (EKMeans("auto", max_clusters=3), EquilibriumMixture("auto", max_clusters=3)):
        model.set_params(**ONE_THREAD).fit(X)
        ekmfast.save(model, tmp_path / "model")
        loaded = ekmfast.load(tmp_path / "model")
        assert loaded.get_params() == model.get_params()
        np.testing.assert_array_equal(loaded.predict(X), model.labels_)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("cls", [EKMeans, EquilibriumMixture])
def test_weights_of_float32_rows_with_correlated_features_are_taken(cls, sparse):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [150, 50])
    along = rng.normal(size=(200, 1)) + 8 * y[:, None]
    X = along @ rng.uniform(1, 2, size=(1, 12)) + 0.05 * rng.normal(size=(200, 12))
    X, s = X.astype(np.float32), rng.uniform(0.5, 2, 200)
    for dtype in (np.float32, np.float64):
        rows = csr_matrix(X.astype(dtype)) if sparse else X.astype(dtype)
        assert adjusted_rand_score(y, cls("auto", random_state=0).fit_predict(rows, None, s)) > 0.9


def skewed_classes(seed, sizes):
    """Rows of 60 correlated features in which classes have one long tail in each direction."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), 6)) * 9 / np.sqrt(6)
    parts = [
        rng.exponential(size=(n, 6)) * rng.uniform(0.3, 1.5, size=6) + centre
        for n, centre in zip(sizes, centres, strict=True)
    ]
    rows = np.concatenate(parts) @ rng.normal(size=(6, 60))
    return rows + 0.1 * rng.normal(size=rows.shape), np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize("seed", [0, 5, 11, 12, 15])
def test_a_skewed_class_of_correlated_features_is_not_split(seed):
    X, y = skewed_classes(seed, (400, 20, 20))
    path = cluster_path(X, 6, **ONE_THREAD)
    assert path.distances is not None
    model = EKMeans("auto", **ONE_THREAD).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.9


def test_clusters_that_stand_apart_are_chosen():
    X, y = skewed_classes(11, (400, 20, 20))
    path = cluster_path(X, 6, **ONE_THREAD)
    assert path.n_clusters[path.best] == 3
    assert adjusted_rand_score(y, path.labels[2]) > 0.9
    assert path.distances[0] == 0
    assert path.distances[2] > 5
    assert (path.distances[3:] < 5).all()
    assert path.criterion[2] == path.icl[2]
    others = np.delete(path.criterion - path.icl, 2)
    assert (others >= 0.5 * len(X) * (1 - 1e-12)).all()
    assert path.best == path.criterion.argmin()


def test_there_are_no_distances_without_correlations(path):
    assert path.distances is None


def scaled_rows(X, weights=None):
    return ScaledRows(np.ascontiguousarray(X), weights, np.zeros(X.shape[1]), 1.0, 1)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_the_least_distance_is_that_of_mahalanobis(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 3)) @ rng.normal(size=(3, 3))
    y = rng.integers(0, 3, size=3000)
    X[:, 0] += 9.0 * (y == 2)
    X[:, 1] += 30.0 * (y == 1)
    shapes = from_labels(scaled_rows(X), y, kind, math.inf)
    pairs = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        between = shapes.means[i] - shapes.means[j]
        scatter = (shapes.scatters[i] + shapes.scatters[j]) / 2
        scatter = np.diag(scatter) if kind == "diag" else scatter
        pairs.append(math.sqrt(between @ np.linalg.inv(scatter) @ between))
    assert least_distance(scaled_rows(X), y, kind) == pytest.approx(min(pairs))


def test_the_halves_of_a_cluster_do_not_stand_apart():
    rng = np.random.default_rng(0)
    for draw, expected in ((rng.normal, 2.65), (rng.random, PARTS)):
        X = draw(size=(20_000, 1))
        halves = (X[:, 0] > np.median(X)).astype(np.intp)
        assert least_distance(scaled_rows(X), halves, "full") == pytest.approx(expected, rel=0.02)
    assert PARTS < APART


def test_few_rows_do_not_stand_apart_and_weights_count_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(103, 2))
    X[100:] += 50
    y = np.repeat([0, 1], [100, 3])
    assert least_distance(scaled_rows(X), np.zeros(103, np.intp), "full") == 0
    assert least_distance(scaled_rows(X), y, "full") == 0
    weights = np.full(103, 2.0)
    twice = least_distance(scaled_rows(np.repeat(X, 2, axis=0)), np.repeat(y, 2), "full")
    assert twice > APART
    assert least_distance(scaled_rows(X, weights), y, "full") == pytest.approx(twice)


@pytest.mark.parametrize(
    ("distances", "criteria", "best"),
    [
        ([0, 9, 8, 4], [50, 20, 10, -60], 2),  # not lower by .75 a row
        ([0, 9, 8, 4], [50, 20, 10, -70], 3),
        ([0, 9, 8, 3], [50, 20, 10, -999], 2),  # parts of one cluster
        ([0, 9, 8, 4], [50, -90, 10, -20], 2),  # a smaller number is not chosen
        ([0, 9, 4, 4], [50, 20, 10, -60], 3),
        ([0, 4, 4, 3], [50, 20, 10, 30], 2),  # none stands apart
        ([0, 4, 4, 3], [50, 20, 10, -60], 2),
        ([0, 4, 4, 3], [50, 20, 10, -70], 3),
        ([0, 3, 3, 3], [50, 20, 10, 30], 0),
        ([0, 3, 3, 3], [90, 20, 10, 30], 2),
        ([0], [7], 0),
    ],
)
def test_criteria_prefer_clusters_that_stand_apart(distances, criteria, best):
    before = np.array(criteria, float)
    raised = preferring_apart(before.copy(), np.array(distances, float), 100.0)
    assert raised.argmin() == best
    assert (raised >= before).all()
