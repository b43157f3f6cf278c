"""Detectors: scores, thresholds, attributes as in scikit-learn and PyOD, and bad arguments."""

import warnings
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from ekmfast import EKMeans, blocks
from ekmfast.anomaly import AutoencoderDetector, EKMeansDetector, reconstruction_loss
from ekmfast.anomaly._normals import _whitener, fit_normals
from ekmfast.autoencoder import ConvAutoencoder, DeepEKM, export, finetune, load, pretrain
from ekmfast.autoencoder.seen import digests, unseen
from ekmfast.datasets import open_image_folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- features ------------------------------------------------------------------------------


def two_clusters_and_strangers(seed=0, n_strangers=10):
    rng = np.random.default_rng(seed)
    normal = np.vstack([rng.normal(0, 1, (400, 2)), rng.normal(10, 1, (200, 2))])
    strangers = rng.normal((0, 10), 0.3, (n_strangers, 2))
    return np.vstack([normal, strangers]), np.repeat([0, 1], [600, n_strangers])


# These checks want fit(X).predict(X) to mark exactly a share `contamination` of the fitted rows.
# With such a threshold, a larger share of new rows would be called outliers.
THRESHOLD_ON_FITTED_ROWS = {"check_outliers_train", "check_outliers_fit_predict"}


def test_check_estimator():
    results = check_estimator(EKMeansDetector(2, random_state=0), on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert set(failed) <= THRESHOLD_ON_FITTED_ROWS
    for error in failed.values():
        assert isinstance(error, AssertionError)
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}


def test_a_small_cluster_is_abnormal_though_it_has_a_centroid():
    X, truth = two_clusters_and_strangers()
    detector = EKMeansDetector(3, contamination=0.05, random_state=0).fit(X)
    # These rows have their own centroid, so by distance to the nearest centroid they are normal.
    distance = EKMeans(3, random_state=0).fit(X).transform(X).min(axis=1)
    assert roc_auc_score(truth, distance) < 0.1
    assert len(detector.large_) == 2
    assert roc_auc_score(truth, -detector.score_samples(X)) == 1
    assert (detector.predict(X[truth == 1]) == -1).all()
    # If contamination is less than their share, they count as a normal cluster.
    tolerant = EKMeansDetector(3, contamination=0.01, random_state=0).fit(X)
    assert len(tolerant.large_) == 3


def test_the_score_is_the_formula():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(0, 1, (300, 3)), rng.normal(8, 2, (100, 3))])
    detector = EKMeansDetector(2, random_state=0).fit(X)
    fitted = detector.clustering_
    residuals = X - fitted.cluster_centers_[fitted.labels_]
    S = residuals.T @ residuals / len(X)
    S = 0.7 * S + 0.3 * np.diag(np.diag(S))
    share = np.bincount(fitted.labels_) / len(X)
    total = 0
    for c, q in zip(fitted.cluster_centers_, share, strict=True):
        total += q * np.exp(-0.5 * np.einsum("ni,ij,nj->n", X - c, np.linalg.inv(S), X - c))
    kept = total > 1e-300
    np.testing.assert_allclose(detector.score_samples(X)[kept], np.log(total[kept]), rtol=1e-6)


def test_thresholds_in_both_ways_of_naming():
    X, _ = two_clusters_and_strangers()
    detector = EKMeansDetector(3, contamination=0.1, random_state=0)
    found = detector.fit_predict(X)
    fresh, _ = two_clusters_and_strangers(seed=1)
    scores = detector.score_samples(fresh)
    assert (found == -1).sum() == round(0.1 * len(X))
    np.testing.assert_array_equal(detector.decision_function(fresh), scores - detector.offset_)
    np.testing.assert_array_equal(detector.predict(fresh) == -1, scores < detector.offset_)
    np.testing.assert_array_equal(detector.labels_, (found == -1).astype(int))
    assert detector.threshold_ == -detector.offset_
    np.testing.assert_array_equal(detector.labels_, detector.decision_scores_ > detector.threshold_)


def kinds_of_rows(kind, n_rows, n_features, rng):
    if kind == "normal":
        return rng.normal(size=(n_rows, n_features))
    if kind == "heavy tails":
        return rng.standard_t(3, (n_rows, n_features))
    centres = np.random.default_rng(5).normal(0, 3, (4, n_features))
    which = rng.choice(4, n_rows, p=[0.7, 0.2, 0.07, 0.03])
    return centres[which] + rng.normal(size=(n_rows, n_features))


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "unequal clusters"])
@pytest.mark.parametrize(
    ("n_rows", "n_features"), [(200, 2), (2000, 2), (500, 8), (500, 64), (200, 256)]
)
def test_contamination_is_the_share_of_fresh_rows(kind, n_rows, n_features):
    """The promise, within what the two samples can tell.

    Were the scores of the n fitted rows and of a fresh one exchangeable, the share p of fresh rows
    below the order statistic number c (n + 1) would have the distribution Beta(c (n + 1),
    (1 - c) (n + 1)): mean c, variance c (1 - c) / (n + 2). Of m fresh rows a Binomial(m, p) / m
    lies below, which adds c (1 - c) / m. The mean over the fits has the variance of one by their
    number; four standard deviations are allowed. On the rows of the fit themselves the threshold
    errs by up to a hundred of them.
    """
    c, n_fits, n_fresh = 0.05, 3, 3000
    shares = []
    for seed in range(n_fits):
        rng = np.random.default_rng(seed)
        X = kinds_of_rows(kind, n_rows, n_features, rng)
        detector = EKMeansDetector(contamination=c, random_state=seed).fit(X)
        fresh = kinds_of_rows(kind, n_fresh, n_features, rng)
        shares.append((detector.predict(fresh) == -1).mean())
        # Scores of fitted and new rows are comparable: their medians differ only by chance.
        below = (-detector.decision_scores_ < np.median(detector.score_samples(fresh))).mean()
        assert abs(below - 0.5) < 5 * np.sqrt(0.25 / n_rows + 0.25 / n_fresh)
    deviation = np.sqrt(c * (1 - c) * (1 / (n_rows + 2) + 1 / n_fresh) / n_fits)
    assert abs(np.mean(shares) - c) < 4 * deviation


@pytest.mark.parametrize(
    ("kind", "n_features", "precision"),
    # The change of the diagonal is treated approximately, which matters where one row has a large
    # share of a feature's variance.
    [("unequal clusters", 5, 1e-4), ("normal", 90, 1e-3), ("heavy tails", 90, 0.02)],
)
def test_held_out_scores_are_those_of_a_fit_without_the_row(kind, n_features, precision):
    X = kinds_of_rows(kind, 120, n_features, np.random.default_rng(0))
    members = EKMeans(3, random_state=0).fit_predict(X)
    members[5] = -1  # a row of a cluster that counts as abnormal

    def centres(keep):
        return np.array([X[keep & (members == k)].mean(axis=0) for k in range(3)])

    def normals(keep):
        return fit_normals(X[keep], members[keep], centres(keep))

    everything = np.full(120, True)
    held_out = normals(everything).held_out_scores(X, members, centres(everything))
    for i in range(0, 120, 5):
        if (members == members[i]).sum() == 1:
            continue
        keep = np.arange(120) != i
        expected = normals(keep).scores(X[i : i + 1])[0]
        assert held_out[i] == pytest.approx(expected, rel=precision, abs=precision)


@pytest.mark.parametrize("case", ["plain", "constant features", "correlated"])
def test_the_whitener_is_a_root_of_the_inverse(case):
    """Also where eigenvalues are below the floor, so that Cholesky's factor cannot be used."""
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(50, 12)) * np.geomspace(0.1, 1, 12)
    if case == "constant features":
        Y[:, 1::3] = 0
    if case == "correlated":
        Y[:, 2:] = 0.005 * Y[:, :1] + 1e-4 * Y[:, 2:]
    S = Y.T @ Y / len(Y)
    floor = 1e-4 * np.diag(S).mean()
    M = 0.7 * S
    np.fill_diagonal(M, np.maximum(np.diag(S), floor))
    values, vectors = np.linalg.eigh(M)
    assert (values[0] < 0.9 * floor) == (case == "correlated")
    inverse = vectors / np.maximum(values, floor) @ vectors.T
    W = _whitener(S)
    np.testing.assert_allclose(W @ W.T, inverse, rtol=1e-7, atol=1e-10 * inverse.max())
    assert np.allclose(W, np.triu(W)) == (case != "correlated")


def test_a_row_that_is_a_cluster_of_its_own_is_abnormal_when_held_out():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(60, 2)), [[50.0, 50.0]]])
    detector = EKMeansDetector(2, contamination=0.03, random_state=0)
    members = np.repeat([0, 1], [60, 1])
    fitted = X, members, np.array([X[:60].mean(axis=0), X[60]])
    held_out = fit_normals(*fitted).held_out_scores(*fitted)
    assert held_out.argmin() == 60
    assert held_out[60] < held_out[:60].min() - 100
    assert detector.fit(X).labels_[60] == 1


def test_far_rows_have_finite_scores_in_order():
    X, _ = two_clusters_and_strangers()
    detector = EKMeansDetector(3, random_state=0).fit(X)
    scores = detector.score_samples(np.array([[0, 0], [1e3, 0], [1e6, 0], [1e150, 0]]))
    assert np.isfinite(scores).all()
    assert (np.diff(scores) < 0).all()
    farther = detector.score_samples(np.array([[1e200, 0], [-1.7e308, 1.7e308]]))
    np.testing.assert_array_equal(farther, np.finfo(np.float64).min)
    single = EKMeansDetector(3, random_state=0).fit(X.astype(np.float32))
    farther = single.score_samples(np.array([[1e30, 0], [0, -3e38]], np.float32))
    np.testing.assert_array_equal(farther, np.finfo(np.float32).min)


def test_timestamps_and_other_offsets():
    rng = np.random.default_rng(0)
    t = 1.7e9 + np.concatenate([rng.normal(0, 0.01, 300), rng.normal(3, 0.01, 100)])[:, None]
    detector = EKMeansDetector(2, contamination=0.05, random_state=0).fit(t)
    assert 0.01 <= (detector.labels_ == 1).mean() <= 0.06
    found = detector.predict(1.7e9 + np.array([[0], [3], [0.1], [1.5], [3.1]]))
    assert found.tolist() == [1, 1, -1, -1, -1]


def test_narrow_clusters_far_from_each_other():
    """At 1e9 standard deviations the expanded form of a distance has no correct digit left."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1e-3, 300), rng.normal(1e6, 1e-3, 300)])[:, None]
    detector = EKMeansDetector(2, contamination=0.05, random_state=0).fit(X)
    clustering = detector.clustering_
    near = clustering.cluster_centers_.min()
    variance = np.mean((X - clustering.cluster_centers_[clustering.labels_]) ** 2)
    middle, edge = detector.score_samples(np.array([[0.0], [0.002]]))
    exact = ((0.002 - near) ** 2 - near**2) / (2 * variance)
    # Rows and centroids are rounded when the mean of X is subtracted, and once more when they are
    # whitened: a difference of two of them errs by two units in the last place of that mean.
    error = 2 * np.spacing(X.mean()) * (abs(0.002 - near) + abs(near)) / variance
    assert error < 1e-6 * exact
    assert abs(middle - edge - exact) <= error
    assert near == pytest.approx(X[:300].mean(), abs=1e-9)
    assert variance == pytest.approx((X[:300].var() + X[300:].var()) / 2, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-140, 1e-30, 1e140])
def test_units_do_not_matter(unit):
    X, _ = two_clusters_and_strangers()
    near = EKMeansDetector(3, random_state=0).fit(X)
    far = EKMeansDetector(3, random_state=0).fit(X * unit)
    np.testing.assert_allclose(far.decision_scores_, near.decision_scores_, rtol=1e-6)
    assert far.offset_ == pytest.approx(near.offset_, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept_and_the_origin_does_not_matter(dtype):
    X, truth = two_clusters_and_strangers()
    X = X.astype(dtype)
    near = EKMeansDetector(3, contamination=0.05, random_state=0).fit(X).score_samples(X)
    assert near.dtype == dtype
    far = EKMeansDetector(3, contamination=0.05, random_state=0).fit(X + dtype(1000))
    np.testing.assert_allclose(far.score_samples(X + dtype(1000)), near, rtol=2e-2, atol=2e-2)
    assert roc_auc_score(truth, far.decision_scores_) == 1


def test_constant_features_and_more_features_than_rows():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(50, 2)), np.full(50, 3.0)])
    detector = EKMeansDetector(2, random_state=0).fit(X)
    scores = detector.score_samples(np.array([[0, 0, 3.0], [0, 0, 4.0]]))
    assert scores[1] < scores[0] - 10  # a change in a constant feature is abnormal
    wide = rng.normal(size=(30, 200))
    assert np.isfinite(EKMeansDetector(2, random_state=0).fit(wide).score_samples(wide)).all()
    same = np.ones((20, 3))
    assert (EKMeansDetector(1, random_state=0).fit_predict(same) == 1).all()
    as_many = rng.normal(size=(4, 3))  # as many clusters as rows
    few = EKMeansDetector(4, contamination=0.3, alpha=1e3, random_state=0).fit(as_many)
    assert np.isfinite(few.decision_scores_).all()
    two = EKMeansDetector(2, contamination=0.5, random_state=0).fit(as_many[:2])
    assert np.isfinite(two.decision_scores_).all()
    with pytest.raises(ValueError, match=r"1 sample\(s\) .* minimum of 2 is required"):
        EKMeansDetector(1).fit(as_many[:1])


def test_an_unknown_share_is_found():
    X, y = two_clusters_and_strangers(n_strangers=12)
    detector = EKMeansDetector(3, contamination="auto", random_state=0).fit(X)
    assert detector.labels_[y == 1].all()
    assert detector.labels_[y == 0].mean() < 0.02
    assert (detector.predict(X[y == 1]) == -1).all()
    normal = np.random.default_rng(1).normal(size=(2000, 8))
    assert (
        EKMeansDetector(2, contamination="auto", random_state=0).fit(normal).labels_.mean() < 0.01
    )
    # It depends neither on the units nor on the origin.
    moved = EKMeansDetector(3, contamination="auto", random_state=0).fit(1e4 + 1e-3 * X)
    np.testing.assert_array_equal(moved.labels_, detector.labels_)
    same = EKMeansDetector(contamination="auto", random_state=0).fit(np.ones((30, 2)))
    assert np.isfinite(same.offset_)
    assert not same.labels_.any()


def test_a_share_that_so_few_rows_cannot_show():
    X, _ = two_clusters_and_strangers(n_strangers=0)
    message = r"contamination=0\.001 is less than one in 600.*about one in 601 normal samples"
    with pytest.warns(UserWarning, match=message):
        detector = EKMeansDetector(2, contamination=0.001, random_state=0).fit(X)
    assert detector.threshold_ == detector.decision_scores_.max()


def test_a_search_needs_a_scoring():
    X, truth = two_clusters_and_strangers()
    y = 1 - 2 * truth
    search = GridSearchCV(
        EKMeansDetector(contamination=0.05, random_state=0),
        {"n_clusters": [1, 3]},
        scoring="roc_auc",
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    )
    assert search.fit(X, y).best_score_ > 0.9
    with pytest.raises(TypeError, match="scor"):
        GridSearchCV(EKMeansDetector(), {"n_clusters": [3]}).fit(X, y)


def test_fewer_clusters_than_asked_for_are_no_cause_for_alarm():
    X, truth = two_clusters_and_strangers()
    detector = EKMeansDetector(4, alpha="dvariance", contamination=0.05, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.fit(X)
    assert detector.clustering_.n_clusters_effective_ < 4
    assert len(detector.large_) == 2
    assert roc_auc_score(truth, detector.decision_scores_) == 1


def test_in_a_pipeline_and_as_a_clone():
    X, truth = two_clusters_and_strangers()
    X = X * [1, 1000]
    chain = make_pipeline(StandardScaler(), EKMeansDetector(3, contamination=0.05, random_state=0))
    assert roc_auc_score(truth, -clone(chain).fit(X).score_samples(X)) == 1


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (
            {"contamination": 0},
            ValueError,
            r"contamination must be 'auto' or a number in \(0, 0\.5\], got 0",
        ),
        ({"contamination": 0.6}, ValueError, "contamination must be"),
        ({"contamination": "most"}, ValueError, "contamination must be"),
        ({"contamination": None}, TypeError, "contamination must be"),
        ({"contamination": float("nan")}, ValueError, "contamination must be"),
        ({"contamination": 10**400}, ValueError, r"contamination must be.*got 1000"),
        ({"contamination": Fraction(1, 10**400)}, ValueError, "contamination must be"),
        ({"contamination": True}, TypeError, "contamination must be"),
        (
            {"random_state": "one"},
            TypeError,
            "random_state must be None, .* got 'one'",
        ),
        ({"random_state": -1}, ValueError, "random_state must be None, .* got -1"),
        ({"n_clusters": 0}, ValueError, "n_clusters"),
        ({"n_clusters": 1000}, ValueError, "n_clusters"),
        ({"alpha": -1.0}, ValueError, "alpha"),
    ],
)
def test_bad_parameters(parameters, error, message):
    X, _ = two_clusters_and_strangers()
    with pytest.raises(error, match=message):
        EKMeansDetector(**parameters).fit(X)


# --- images --------------------------------------------------------------------------------


def blobs(n, seed=0, size=16):
    """Images with one soft bright spot each."""
    rng = np.random.default_rng(seed)
    grid = np.arange(size)
    at = rng.uniform(size / 4, 3 * size / 4, (n, 2, 1))
    rows, columns = np.exp(-((grid - at) ** 2) * 32 / size**2).transpose(1, 0, 2)
    return (rows[:, None, :, None] * columns[:, None, None, :]).astype(np.float32)


def noise(n, seed=0, size=16):
    return np.random.default_rng(seed).random((n, 1, size, size), np.float32)


SMALL = {"image_size": 16, "latent_dim": 8, "width": 0.125, "epochs": 15, "batch_size": 32}


@pytest.fixture(scope="module")
def detectors():
    X = blobs(300)
    fitted = {"reconstruction": AutoencoderDetector(**SMALL, random_state=0).fit(X)}
    for score in ("codes", "both"):
        model = fitted["reconstruction"].autoencoder_
        fitted[score] = AutoencoderDetector(model, score=score, n_clusters=3, random_state=0).fit(X)
    return fitted


@pytest.mark.parametrize(
    ("score", "strangers", "auc"),
    # Codes of noise may be ordinary (an AUC of .3 to .9 over eight models). Codes of inverted
    # images are abnormal (.7 to 1).
    [
        ("reconstruction", noise(20), 0.99),
        ("codes", 1 - blobs(20, seed=2), 0.85),
        ("both", noise(20), 0.99),
    ],
    ids=["reconstruction", "codes", "both"],
)
def test_strange_images_are_told(detectors, score, strangers, auc):
    detector = detectors[score]
    X = np.concatenate([blobs(50, seed=1), strangers])
    truth = np.repeat([0, 1], [50, 20])
    scores = detector.score_samples(X)
    assert (scores.shape, scores.dtype) == ((70,), np.float32)
    assert roc_auc_score(truth, -scores) > auc
    if score != "codes":
        assert (detector.predict(X)[truth == 1] == -1).all()
    assert (detector.clusters_ is None) == (score == "reconstruction")
    assert detector.held_out_.sum() == 30
    assert detector.labels_[detector.held_out_].sum() == 3
    assert detector.threshold_ == -detector.offset_


def few_digits(n_rows, seed=0):
    """Digits of 16 x 16 pixels, so few that an autoencoder can overfit them."""
    digits = load_digits().images[np.random.default_rng(seed).permutation(1797)] / 16
    return np.repeat(np.repeat(digits, 2, 1), 2, 2)[:n_rows, None].astype(np.float32)


LARGE = SMALL | {"latent_dim": 32, "width": 0.25}


@pytest.fixture(scope="module")
def overfitted():
    """A model that reconstructs its training images much better than others."""
    X = few_digits(240)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConvAutoencoder(16, 1, latent_dim=32, n_classes=1, width=0.25)
    pretrain(model, X, epochs=40, batch_size=32, validation_split=0.25, random_state=0, verbose=0)
    return model, X, few_digits(1797)[240:]


def allowed(c, n_held_out, n_fresh):
    """Four standard deviations, as in `test_contamination_is_the_share_of_fresh_rows`."""
    return c + 4 * np.sqrt(c * (1 - c) * (1 / (n_held_out + 2) + 1 / n_fresh))


@pytest.mark.parametrize("score", ["reconstruction", "codes", "both"])
def test_contamination_is_the_share_of_fresh_images(overfitted, score):
    """If all images of the fit determined the threshold, 40 % of new images would be outliers."""
    model, X, fresh = overfitted
    # Only an upper bound, since four deviations below the mean is less than zero.
    detector = AutoencoderDetector(model, score=score, contamination=0.1, random_state=0).fit(X)
    assert detector.held_out_.sum() == 60
    assert detector.labels_[detector.held_out_].sum() == 6
    found = detector.predict(fresh) == -1
    assert 0.01 < found.mean() < allowed(0.1, 60, len(fresh))
    if score == "reconstruction":
        on_all = np.quantile(reconstruction_loss(model, X), 0.9)
        assert (reconstruction_loss(model, fresh) > on_all).mean() > 0.25


def test_a_new_model_is_not_trained_on_what_the_threshold_comes_from():
    X, fresh = few_digits(240), few_digits(1797)[240:]
    met = []

    def note(x):
        met.append(digests(x))
        return x

    detector = AutoencoderDetector(**LARGE, corruption=note, random_state=0).fit(X)
    assert detector.held_out_.sum() == 24
    trained_on = np.isin(digests(torch.from_numpy(X)), np.concatenate(met))
    np.testing.assert_array_equal(trained_on, ~detector.held_out_)
    scores = -reconstruction_loss(detector.autoencoder_, X[detector.held_out_])
    # The rank is 0.1 * (24 + 1) = 2.5, between the second and the third of the 24 scores.
    assert detector.offset_ == pytest.approx(np.sort(scores)[1:3].mean(), rel=1e-5)
    held_out = reconstruction_loss(detector.autoencoder_, X[detector.held_out_])
    assert held_out.mean() == pytest.approx(detector.history_.best_loss, rel=1e-4)
    assert (detector.predict(fresh) == -1).mean() < allowed(0.1, 24, len(fresh))
    # A small contamination holds out more images, but at most half of them.
    options = SMALL | {"epochs": 1}
    small = AutoencoderDetector(**options, contamination=0.01, random_state=0).fit(X)
    assert small.held_out_.sum() == 100
    with pytest.warns(UserWarning, match=r"contamination=0\.001 is less than one in 120"):
        AutoencoderDetector(**options, contamination=0.001, random_state=0).fit(X)
    with pytest.warns(UserWarning, match="contamination=5e-324 is less than one in 120"):
        AutoencoderDetector(**options, contamination=5e-324, random_state=0).fit(X)


@pytest.mark.parametrize("score", ["codes", "both"])
def test_too_small_a_contamination_is_told_once(overfitted, score):
    model, X, _ = overfitted
    with pytest.warns(UserWarning, match=r"is less than one in") as caught:
        AutoencoderDetector(model, score=score, contamination=1e-3, random_state=0).fit(X)
    assert [str(w.message)[:48] for w in caught] == [
        "contamination=0.001 is less than one in 60, the "
    ]


@pytest.mark.parametrize("suffix", ["ts", "pt2"])
def test_files_remember_what_the_model_was_trained_on(overfitted, tmp_path, suffix):
    model, X, fresh = overfitted
    exported = load(export(model, tmp_path / f"model.{suffix}"))
    as_bytes = np.rint(255 * X).astype(np.uint8)
    by_model = AutoencoderDetector(model).fit(X)
    by_file = AutoencoderDetector(exported).fit(as_bytes)
    np.testing.assert_array_equal(by_file.held_out_, by_model.held_out_)
    assert AutoencoderDetector(exported).fit(fresh[:50]).held_out_.all()
    again = export(model, tmp_path / f"again.{suffix}")
    assert again.read_bytes() == (tmp_path / f"model.{suffix}").read_bytes()


def test_images_that_were_all_trained_on_are_no_measure(overfitted):
    model, X, _ = overfitted
    seen = X[~AutoencoderDetector(model).fit(X).held_out_]
    message = r"trained on all 180 images of X.*more than contamination=0\.1 of them will be called"
    with pytest.warns(UserWarning, match=message):
        detector = AutoencoderDetector(model).fit(seen)
    assert detector.held_out_.all()


def test_pretraining_and_finetuning_hold_out_much_the_same_images():
    X = few_digits(200)
    labels = np.arange(200) % 3
    model = ConvAutoencoder(16, 1, latent_dim=4, n_classes=3, width=0.0625)
    options = {"epochs": 1, "validation_split": 0.2, "random_state": 3, "verbose": 0}
    pretrain(model, X, **options)
    assert unseen(model, X).sum() == 40
    finetune(model, X, labels, **options)
    assert unseen(model, X).sum() >= 30  # 8 by chance


def test_the_training_file_and_deep_clusters_remember_too(tmp_path):
    X = few_digits(40)
    options = {"epochs": 2, "random_state": 0, "verbose": 0, "checkpoint": tmp_path / "state.pt"}
    for _ in range(2):  # the second call continues from the result of the first
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ConvAutoencoder(16, 1, latent_dim=4, n_classes=1, width=0.0625)
        pretrain(model, X, **options)
        assert unseen(model, X).sum() == 4
        assert unseen(model, few_digits(60)[40:]).all()
    deep = DeepEKM(2, image_size=16, latent_dim=4, width=0.0625, epochs=2, random_state=0).fit(X)
    assert not unseen(deep.autoencoder_, X).any()


def test_the_score_is_the_reconstruction_loss(detectors):
    detector = detectors["reconstruction"]
    X = blobs(10, seed=2)
    loss = reconstruction_loss(detector.autoencoder_, X)
    np.testing.assert_allclose(detector.score_samples(X), -loss, rtol=1e-6)


def test_a_given_model_is_left_alone(detectors, tmp_path):
    model = detectors["reconstruction"].autoencoder_
    before = {name: value.clone() for name, value in model.state_dict().items()}
    by_model = AutoencoderDetector(model).fit(blobs(40, seed=7))
    by_file = AutoencoderDetector(load(export(model, tmp_path / "model.ts"))).fit(blobs(40, seed=7))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert by_model.autoencoder_ is model
    assert by_model.history_ is None
    np.testing.assert_allclose(by_file.decision_scores_, by_model.decision_scores_, rtol=1e-3)
    copied = clone(by_model)
    assert copied.model is model
    assert not hasattr(copied, "offset_")


def test_the_seed_decides():
    X = blobs(60)
    options = SMALL | {"epochs": 2}
    first = AutoencoderDetector(**options, random_state=1).fit(X)
    again = AutoencoderDetector(**options, random_state=1).fit(X)
    other = AutoencoderDetector(**options, random_state=2).fit(X)
    np.testing.assert_array_equal(first.decision_scores_, again.decision_scores_)
    assert (first.decision_scores_ != other.decision_scores_).any()


def test_other_sizes_forms_and_folders_are_taken(tmp_path):
    from PIL import Image

    large = blobs(40, size=24)
    options = SMALL | {"epochs": 2}
    detector = AutoencoderDetector(**options, random_state=0).fit(large)
    np.testing.assert_array_equal(detector.score_samples(large), -detector.decision_scores_)
    without_channel = detector.score_samples(large[:, 0])
    np.testing.assert_array_equal(without_channel, -detector.decision_scores_)
    as_bytes = (255 * large).astype(np.uint8)
    np.testing.assert_allclose(detector.score_samples(as_bytes), without_channel, atol=2e-3)
    for i, image in enumerate(blobs(40)):
        Image.fromarray((255 * image[0]).astype(np.uint8)).save(tmp_path / f"{i:02}.png")
    files = open_image_folder(tmp_path, 16, channels=1)
    by_files = AutoencoderDetector(**options, score="both", n_clusters=2, random_state=0).fit(files)
    array = files.__getitems__(range(40))
    np.testing.assert_array_equal(by_files.score_samples(array), by_files.score_samples(files))


@pytest.mark.parametrize(
    ("parameters", "X", "error", "message"),
    [
        ({"score": "loss"}, blobs(4), ValueError, "score must be 'reconstruction', .* got 'loss'"),
        (
            {"model": "model.ts"},
            blobs(4),
            TypeError,
            "model must be None, a ConvAutoencoder or an .* got 'model.ts'",
        ),
        ({"contamination": 2}, blobs(4), ValueError, "contamination must be"),
        ({}, blobs(3), ValueError, "X has 3 images, at least 4"),
        ({}, np.zeros((5, 16)), ValueError, r"X has shape \(5, 16\): must be"),
        ({}, np.zeros((5, 24, 24, 3)), ValueError, "its channels last"),
        ({}, np.full((5, 1, 16, 16), np.nan), ValueError, "NaN"),
        (
            {"image_size": 20},
            blobs(4),
            ValueError,
            "image_size must be a multiple of 16 .*, got 20",
        ),
        ({"epochs": 0}, blobs(4), ValueError, "epochs must be .*, got 0"),
        (
            {"random_state": "one"},
            blobs(4),
            TypeError,
            "random_state must be None, .* got 'one'",
        ),
        ({"score": "codes", "n_clusters": 9}, blobs(4), ValueError, "n_clusters"),
    ],
)
def test_what_an_autoencoder_detector_refuses(parameters, X, error, message):
    with pytest.raises(error, match=message):
        AutoencoderDetector(**(SMALL | {"epochs": 1} | parameters)).fit(X)


def test_a_fitted_detector_checks_what_it_gets(detectors):
    with pytest.raises(ValueError, match=r"has shape \(2, 3, 16, 16\)"):
        detectors["reconstruction"].score_samples(np.zeros((2, 3, 16, 16), np.float32))
    for detector in (AutoencoderDetector(), EKMeansDetector()):
        with pytest.raises(NotFittedError):
            detector.score_samples(blobs(2))


def test_masked_rows_and_blocks_are_refused():
    X = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(ValueError, match="masked entries"):
        EKMeansDetector(2).fit(np.ma.masked_array(X, X > 1))
    with pytest.raises(TypeError, match="EKMeansDetector takes arrays in the memory of the host"):
        EKMeansDetector(2).fit(blocks.from_arrays([X]))


@pytest.mark.filterwarnings("ignore:contamination=0.1 is less than one in 5")
@pytest.mark.parametrize("contamination", [0.1, 0.3, "auto"])
def test_a_row_whose_distance_overflows_is_infinitely_far_away(contamination):
    rows = np.array([[1, 2, 1, 1], [2, 1, 1, 1], [2, 0, 2, 0], [0, 0, 2e82, 2e82], [0, 1, 1, 0]])
    detector = EKMeansDetector(2, contamination=contamination, random_state=90).fit(rows)
    assert detector.decision_scores_.argmax() == 3
    assert np.isfinite(detector.threshold_)
    for found in (detector.decision_scores_, detector.decision_function(rows)):
        assert np.isfinite(found).all()
