"""The background of EquilibriumMixture: a component of constant density, for rows of no cluster."""

import json
import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_t
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

import ekmfast
from ekmfast import EquilibriumMixture, cluster_path
from ekmfast.fit.mixture.background import MOST_BACKGROUND, Box
from ekmfast.fit.mixture.joining import joined_labels
from ekmfast.fit.mixture.kinds import KINDS
from ekmfast.fit.mixture.labelled import from_labels
from ekmfast.fit.mixture.rows import ScaledRows
from ekmfast.fit.mixture.step import maximization

TYPES = ("auto", *KINDS)

SPARSE_CHECKS = "check_estimator_sparse_array", "check_estimator_sparse_matrix"


@pytest.fixture(scope="module")
def noisy():
    """Two clusters, the larger one long, and a tenth of all rows between and around them."""
    rng = np.random.default_rng(0)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    long = rng.normal(size=(800, 2)) * [4, 0.5] @ turn
    small = rng.normal(size=(100, 2)) * 0.5 + [2, 8]
    beside = rng.uniform(-20, 20, (100, 2))
    y = np.repeat([0, 1, -1], [800, 100, 100])
    order = rng.permutation(1000)
    return np.concatenate([long, small, beside])[order], y[order]


@pytest.fixture(scope="module")
def fitted(noisy):
    return EquilibriumMixture(2, background=True, random_state=0).fit(noisy[0])


def precision_and_recall(y, labels):
    both = ((y == -1) & (labels == -1)).sum()
    return both / (labels == -1).sum(), both / (y == -1).sum()


def test_rows_of_no_cluster_are_found(noisy, fitted):
    X, y = noisy
    precision, recall = precision_and_recall(y, fitted.labels_)
    assert precision > 0.9
    assert recall > 0.85  # some are within the clusters
    assert adjusted_rand_score(y[y >= 0], fitted.labels_[y >= 0]) > 0.97
    assert fitted.background_weight_ == pytest.approx(0.1, abs=0.02)
    assert fitted.weights_.sum() + fitted.background_weight_ == pytest.approx(1)
    assert fitted.predict([[100, -100]]) == [-1]
    # Without it, their rows are members of clusters, or a cluster of their own.
    plain = EquilibriumMixture(2, random_state=0).fit(X)
    assert plain.background_weight_ == 0
    assert plain.labels_.min() == 0


def test_the_background_family_of_the_benchmark():
    problems = pytest.importorskip("bench.problems", reason="needs the source tree")
    found = []
    for seed in (10_000, 10_001, 10_003, 10_004, 10_006, 10_009):  # no published ones
        problem = problems.make_problem("background", seed)
        model = EquilibriumMixture(problem.k, background=True, random_state=0).fit(problem.X)
        share = abs(model.background_weight_ - problem.facts["background"])
        ari = problem.ari(model.labels_)
        found.append((*precision_and_recall(problem.y, model.labels_), share, ari))
    precision, recall, share, ari = np.mean(found, axis=0)
    assert precision > 0.95
    assert recall > 0.9
    assert share < 0.01
    assert ari > 0.95


def test_rows_without_a_background_have_nearly_none(noisy):
    X, y = noisy
    model = EquilibriumMixture(2, background=True, random_state=0).fit(X[y >= 0])
    assert model.background_weight_ < 0.01
    assert (model.labels_ == -1).mean() < 0.01


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_probabilities_densities_and_criteria(noisy, kind, dtype):
    X = noisy[0].astype(dtype)
    settings = {"covariance_type": kind, "n_init": 2, "random_state": 0}
    model = EquilibriumMixture(2, background=True, **settings).fit(X)
    p = model.predict_proba(X)
    assert p.shape == (1000, 3)
    assert p.dtype == dtype
    assert model.means_.dtype == dtype
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    labels = model.predict(X)
    np.testing.assert_array_equal(np.array([0, 1, -1])[p.argmax(axis=1)], labels)
    np.testing.assert_array_equal(model.labels_, labels)
    np.testing.assert_array_equal(p[np.arange(1000), labels], p.max(axis=1))
    plain = EquilibriumMixture(2, **settings | {"covariance_type": model.covariance_type_}).fit(X)
    # One parameter more than without it.
    n, score = len(X), model.score(X)
    parameters = (plain.aic(X) / n / 2 + plain.score(X)) * n
    assert (model.aic(X) / n / 2 + score) * n == pytest.approx(parameters + 1, abs=1e-3)
    assert model.bic(X) == pytest.approx(-2 * n * score + (parameters + 1) * np.log(n), rel=1e-6)
    assert model.icl(X) >= model.bic(X)
    assert model.lower_bound_ == pytest.approx(score, rel=1e-3)


def test_the_density_is_that_of_a_uniform_distribution(noisy):
    X, _ = noisy
    settings = {"covariance_type": "full", "degrees_of_freedom": 6.0, "random_state": 0}
    model = EquilibriumMixture(2, background=True, **settings).fit(X)
    density = model.background_weight_ / np.prod(np.ptp(X, axis=0))
    assert model.score_samples([[1e5, 1e5]]) == pytest.approx(np.log(density), rel=1e-3)
    for k in range(2):
        scatter = model.covariances_[k] * 4 / 6
        own = multivariate_t(model.means_[k], scatter, df=6)
        density = density + model.weights_[k] * own.pdf(X[:50])
    np.testing.assert_allclose(model.score_samples(X[:50]), np.log(density), rtol=1e-9)


def test_samples(fitted, noisy):
    drawn, labels = fitted.sample(20_000)
    beside = labels == -1
    assert beside.mean() == pytest.approx(fitted.background_weight_, abs=0.01)
    low, high = noisy[0].min(axis=0), noisy[0].max(axis=0)
    middle = drawn[beside].mean(axis=0)
    np.testing.assert_allclose(middle, (low + high) / 2, atol=0.04 * (high - low).max())
    edge = 1e-9 * (high - low)
    assert ((low - edge <= drawn[beside]) & (drawn[beside] <= high + edge)).all()
    np.testing.assert_allclose(drawn[labels == 0].mean(axis=0), fitted.means_[0], atol=0.3)


# --- the box ----------------------------------------------------------------------------------


def box(*sides):
    return Box(np.ones(len(sides)), 1 + np.array(sides))


def test_volumes_of_boxes():
    assert box(2.0, 3.0).log_volume(0.01, round_=False) == pytest.approx(math.log(6))
    # A constant feature: the density is that of a Gaussian of the least variance at its mean.
    least = 0.5 * math.log(2 * math.pi * 0.01)
    assert box(3.0, 0.0).log_volume(0.01, round_=False) == pytest.approx(math.log(3) + least)
    assert box(0.0, 0.0).log_volume(0.01, round_=False) == pytest.approx(2 * least)
    assert box(0.0, 0.0).log_volume(0.01, round_=True) == pytest.approx(2 * least)
    assert box(1.0, 7.0).log_volume(0.01, round_=True) == pytest.approx(math.log(25))


def test_the_share_stays_below_its_limit_and_the_likelihood_rises():
    X = np.random.default_rng(0).uniform(size=(3000, 2))
    rows = ScaledRows(X, None, np.zeros(2), 1.0, 2)
    labels = (X[:, 0] > 0.5).astype(int)
    whole = Box(np.zeros(2), np.ones(2))
    mixture = from_labels(rows, labels, "full", math.inf, whole)[None]
    assert mixture.background[0] == pytest.approx(0.05)
    likelihoods = []
    for _ in range(200):
        sums = rows.expectation(mixture)
        likelihoods.append(float(sums.likelihood[0]))
        mixture = maximization(mixture, sums)
    # Rows that fill the box: without a limit the background would take nearly all of them.
    assert mixture.background[0] == MOST_BACKGROUND
    assert mixture.weights.sum() == pytest.approx(1 - MOST_BACKGROUND)
    assert likelihoods[-1] > likelihoods[0] + 100
    assert (np.diff(likelihoods) > -0.03).all()  # but for the shrinkage of scatter matrices


def test_no_density_is_infinite_where_features_are_constant(noisy):
    X, y = noisy
    wide = np.column_stack([X, np.full(1000, 3.0), np.zeros(1000)])
    for kind in KINDS:
        model = EquilibriumMixture(
            2, covariance_type=kind, background=True, random_state=0, max_iter=300
        )
        labels = model.fit_predict(wide)
        assert np.isfinite(model.score_samples(wide)).all()
        assert (model.weights_ > 0.05).all()  # none is emptied
        if kind == "full":  # which fits these clusters
            precision, recall = precision_and_recall(y, labels)
            assert precision > 0.9
            assert recall > 0.85


@pytest.mark.parametrize(("share", "degrees"), [(0.1, np.inf), (0.2, "auto"), (0.4, "auto")])
def test_no_component_is_spent_on_noise_where_clusters_lie_apart(share, degrees):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        k = 2 + seed % 3
        centres = np.zeros((k, 2))
        while (cdist(centres, centres) + 8 * np.eye(k)).min() < 8:
            centres = rng.uniform(-20, 20, (k, 2))
        X = (rng.normal(size=(k, 300, 2)) + centres[:, None]).reshape(-1, 2)
        y = np.repeat(range(k), 300)
        noise = rng.uniform(-30, 30, (int(300 * k * share / (1 - share)), 2))
        model = EquilibriumMixture(k, background=True, degrees_of_freedom=degrees, random_state=0)
        labels = model.fit_predict(np.vstack([X, noise]))
        # Rows of clusters that lie in the noise may have the label -1.
        assert adjusted_rand_score(y, labels[: len(y)]) > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degrees", [3.0, np.inf])
def test_rows_at_any_distance_are_of_the_background(noisy, kind, degrees):
    model = EquilibriumMixture(
        2, covariance_type=kind, degrees_of_freedom=degrees, background=True, random_state=0
    ).fit(noisy[0])
    far = np.array([[1e3, 0], [1e100, -1e100], [1e155, 0], [0, -1e250]])
    assert (model.predict(far) == -1).all()
    probabilities = model.predict_proba(far)
    np.testing.assert_allclose(probabilities[:, -1], 1, rtol=1e-6)
    np.testing.assert_allclose(probabilities[:, :-1], 0, atol=1e-6)
    assert np.ptp(model.score_samples(far)) < 1e-6


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_nothing_is_singular_on_tiny_data():
    rng = np.random.default_rng(1)
    for i in range(300):
        n, d = int(rng.integers(1, 12)), int(rng.integers(1, 4))
        k = int(rng.integers(1, min(n, 4) + 1))
        X = rng.integers(0, 3, (n, d)) * 10.0 ** rng.integers(-8, 9)
        model = EquilibriumMixture(
            k,
            covariance_type=TYPES[i % len(TYPES)],
            background=True,
            n_init=1,
            max_iter=20,
            random_state=i,
        )
        labels = model.fit_predict(X)
        assert labels.min() >= -1
        assert labels.max() < len(model.weights_) <= k
        assert 0 <= model.background_weight_ <= MOST_BACKGROUND
        assert model.weights_.sum() + model.background_weight_ == pytest.approx(1)
        for name in ("weights_", "means_", "covariances_"):
            assert np.isfinite(getattr(model, name)).all(), (name, X)
        assert np.isfinite(model.score_samples(X)).all()
        assert np.isfinite(model.predict_proba(X + 1e3 * np.abs(X).max() + 1)).all()


# --- rows, weights, files ---------------------------------------------------------------------


def test_a_row_without_weight_does_not_widen_the_box(noisy):
    X, _ = noisy
    far = np.concatenate([X, [[1e4, 1e4]]])
    s = np.append(np.ones(1000), 0.0)
    settings = {"background": True, "n_init": 2, "random_state": 0}
    plain = EquilibriumMixture(2, **settings).fit(X)
    weighted = EquilibriumMixture(2, **settings).fit(far, sample_weight=s)
    assert weighted.background_weight_ == pytest.approx(plain.background_weight_, abs=1e-3)
    assert weighted.labels_[-1] == -1
    # A row of the background that counts twice is two rows.
    heavy = EquilibriumMixture(2, **settings).fit(X, sample_weight=1.0 + (plain.labels_ < 0))
    share = plain.background_weight_
    assert heavy.background_weight_ == pytest.approx(2 * share / (1 + share), abs=0.01)


def test_blocks_memory_maps_and_dask(noisy, monkeypatch, tmp_path):
    X, y = noisy
    monkeypatch.setattr("ekmfast.estimators.mixture.SEARCH_ROWS", 600)
    settings = {"background": True, "n_init": 4, "tol": 1e-6, "max_iter": 300, "random_state": 0}
    whole = EquilibriumMixture(2, **settings).fit(X)
    blocks = ekmfast.blocks.from_arrays(np.array_split(X, 7))
    model = EquilibriumMixture(2, **settings).fit(blocks)
    assert model.background_weight_ == pytest.approx(whole.background_weight_, abs=1e-3)
    labels = model.predict(blocks)
    assert (labels != model.predict(X)).sum() == 0
    assert precision_and_recall(y, labels)[0] > 0.9
    for method in ("predict_proba", "score_samples"):
        got = getattr(model, method)(blocks)
        np.testing.assert_allclose(got, getattr(model, method)(X), rtol=1e-9, atol=1e-9)
    for method in ("score", "bic", "aic", "icl"):
        assert getattr(model, method)(blocks) == pytest.approx(getattr(model, method)(X))
    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr("ekmfast.rows.given.LARGE_MEMMAP", 1)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = EquilibriumMixture(2, **settings).fit(mapped)
    assert model.background_weight_ == pytest.approx(whole.background_weight_, abs=1e-3)
    da = pytest.importorskip("dask.array", reason="an extra")
    lazy = da.from_array(X, chunks=(300, 2))
    model = EquilibriumMixture(2, **settings).fit(lazy)
    assert model.background_weight_ == pytest.approx(whole.background_weight_, abs=1e-3)
    assert model.predict_proba(lazy).shape == (1000, 3)
    assert (model.predict(lazy).compute() == -1).any()


def test_the_number_of_clusters_beside_a_background(noisy):
    X, y = noisy
    model = EquilibriumMixture("auto", max_clusters=5, background=True, random_state=0).fit(X)
    assert len(model.weights_) == 2
    assert precision_and_recall(y, model.labels_)[0] > 0.9


def test_the_path_of_numbers_beside_a_background(noisy):
    X, y = noisy
    path = cluster_path(X, 4, background=True, random_state=0)
    assert path.n_clusters[path.best] == 2
    labels = path.labels[path.best]
    assert adjusted_rand_score(y[y >= 0], labels[y >= 0]) > 0.97
    assert precision_and_recall(y, labels)[0] > 0.9
    assert path.background_weights.shape == (4,)
    assert path.background_weights[path.best] == pytest.approx(0.1, abs=0.02)
    np.testing.assert_array_equal(path.background_sizes, (path.labels == -1).sum(axis=1))
    np.testing.assert_array_equal(path.sizes[1, :2], np.bincount(labels[labels >= 0]))
    np.testing.assert_array_equal(path.sizes.sum(axis=1) + path.background_sizes, 1000)
    assert path.stability[path.best] > 0.9
    # The noise is a cluster of its own without it.
    plain = cluster_path(X, 4, random_state=0)
    assert plain.n_clusters[plain.best] == 3
    np.testing.assert_array_equal(plain.background_weights, 0)
    np.testing.assert_array_equal(plain.background_sizes, 0)


def test_the_criterion_of_the_path_counts_the_share_of_the_background(noisy):
    settings = {"covariance_type": "full", "degrees_of_freedom": 6.0, "background": True}
    X, _ = noisy
    path = cluster_path(X, 1, random_state=0, **settings)
    model = EquilibriumMixture(1, random_state=0, **settings).fit(X)
    assert path.background_weights[0] == pytest.approx(model.background_weight_, rel=1e-9)
    assert path.likelihood[0] == pytest.approx(model.score(X))
    assert path.bic[0] == pytest.approx(model.bic(X))
    assert path.icl[0] == pytest.approx(model.icl(X))
    weighted = cluster_path(X, 1, sample_weight=np.full(1000, 2.0), random_state=0, **settings)
    np.testing.assert_allclose(weighted.background_sizes, 2 * path.background_sizes)
    np.testing.assert_allclose(weighted.sizes, 2 * path.sizes)


def test_joined_components_leave_the_background_alone(noisy):
    X, _ = noisy
    rows = ScaledRows(X, None, np.zeros(2), 1.0, 2)
    whole = Box(X.min(axis=0), X.max(axis=0))
    labels = np.where(np.abs(X).max(axis=1) > 12, -1, np.digitize(X[:, 0], [-2, 2]))
    mixture = from_labels(rows, labels, "full", math.inf, whole)
    (joined,) = joined_labels(mixture, rows, 1)
    assert set(joined.tolist()) < {-1, 0, 1, 2}
    assert (joined == -1).any()
    assert len(set(joined.tolist())) == 3


@pytest.mark.parametrize("kind", TYPES)
def test_a_file_keeps_the_background(noisy, tmp_path, kind):
    X = noisy[0].astype(np.float32)
    model = EquilibriumMixture(
        2, covariance_type=kind, background=True, n_init=1, random_state=0
    ).fit(X)
    ekmfast.save(model, tmp_path / "model")
    loaded = ekmfast.load(tmp_path / "model")
    assert loaded.get_params() == model.get_params()
    assert loaded.background_weight_ == model.background_weight_
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(loaded.labels_, model.labels_)
    np.testing.assert_array_equal(loaded.sample(50)[0], model.sample(50)[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"background": 1.0}, "background is 1.0: must be below 1"),
        ({"background": -0.1}, "background is -0.1: must be at least 0"),
        ({"background": math.nan}, "background is nan: must be at least 0"),
        ({"log_volume": -math.inf}, "log_volume is -inf: must be finite"),
        ({"log_volume": math.inf}, "labels_ holds -1, but there is no background"),
    ],
)
def test_a_file_that_was_made_by_hand_is_refused(noisy, tmp_path, changed, message):
    model = EquilibriumMixture(2, background=True, n_init=1, random_state=0).fit(noisy[0])
    model._mixture = replace(model._mixture, **changed)
    ekmfast.save(model, tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        ekmfast.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"low": np.full(2, 9.0)}, "_box has sides of negative lengths"),
        ({"low": np.zeros(3)}, "low has shape"),
        ({"high": np.full(2, math.inf)}, "high holds values that are not finite"),
    ],
)
def test_a_box_that_was_made_by_hand_is_refused(noisy, tmp_path, changed, message):
    model = EquilibriumMixture(2, background=True, n_init=1, random_state=0).fit(noisy[0])
    model._box = replace(model._box, **changed)
    ekmfast.save(model, tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        ekmfast.load(tmp_path / "model")


def test_the_parameter_is_checked():
    with pytest.raises(TypeError, match="background must be True or False, got 'yes'"):
        EquilibriumMixture(background="yes").fit(np.zeros((3, 2)))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_check_estimator():
    check_estimator(
        EquilibriumMixture(3, background=True, random_state=0),
        on_skip=None,
        expected_failed_checks={
            f"check_sample_weight_equivalence_on_{kind}_data": (
                "starts are drawn at random from the rows, so repeating rows changes the draw"
            )
            for kind in ("dense", "sparse")
        }
        # With sparse rows the checks take whatever has `predict_proba` for a classifier.
        | dict.fromkeys(SPARSE_CHECKS, "asks for the classifier tags of a mixture"),
    )


def test_files_of_versions_without_a_background(noisy, tmp_path):
    X, _ = noisy
    model = EquilibriumMixture(2, n_init=1, random_state=0).fit(X)
    ekmfast.save(model, tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as new, zipfile.ZipFile(tmp_path / "old", "w") as old:
        for info in new.infolist():
            content = new.read(info)
            if info.filename.endswith(".json"):
                described = json.loads(content)
                del described["parameters"]["background"]
                del described["attributes"]["_box"]
                fields = described["attributes"]["_mixture"]["fields"]
                del fields["background"], fields["log_volume"]
                content = json.dumps(described).encode()
            old.writestr(info, content)
    loaded = ekmfast.load(tmp_path / "old")
    assert loaded.background_weight_ == 0
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
