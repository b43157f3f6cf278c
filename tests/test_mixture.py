"""EquilibriumMixture, and the expectation maximization of Student mixtures."""

import math
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.utils.estimator_checks import check_estimator

import ekmfast
from ekmfast import EKMeans, EquilibriumMixture
from ekmfast._reference import mixture_log_joint, mixture_sums
from ekmfast.fit.mixture import gaussian
from ekmfast.fit.mixture import search as mixture_search
from ekmfast.fit.mixture import shapes as shapes_module
from ekmfast.fit.mixture.blocks import ScaledBlocks
from ekmfast.fit.mixture.gaussian import gaussian_labels
from ekmfast.fit.mixture.iteration import expectation_maximization, quick_maximization
from ekmfast.fit.mixture.kinds import KINDS
from ekmfast.fit.mixture.labelled import from_labels
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.shapes import FAIR, MARGIN, SHORT, SHORT_FAIR, Runs, _far, chosen, compact
from ekmfast.fit.mixture.step import maximization
from ekmfast.fit.mixture.student import StudentMixture, stacked
from ekmfast.fit.mixture.sums import Sums, moments_of_labels
from ekmfast.rows.blockwise import BlockRows
from ekmfast.rows.source import LocalSource

TYPES = ("auto", *KINDS)
SPARSE_CHECKS = "check_estimator_sparse_array", "check_estimator_sparse_matrix"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_check_estimator():
    results = check_estimator(
        EquilibriumMixture(3, random_state=0),  # the checks look for three clusters
        on_skip=None,
        expected_failed_checks={
            f"check_sample_weight_equivalence_on_{kind}_data": (
                "starts are drawn at random from the rows, so repeating rows changes the draw; the "
                "sums agree (test_a_weight_of_zero_is_a_row_that_is_not_there)"
            )
            for kind in ("dense", "sparse")
        }
        # With sparse rows the checks take whatever has `predict_proba` for a classifier.
        | dict.fromkeys(SPARSE_CHECKS, "asks for the classifier tags of a mixture"),
    )
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    # This check runs only where the environment variable SCIPY_ARRAY_API is set.
    assert skipped <= {"check_array_api_input"}


@pytest.fixture(scope="module")
def shapes():
    """A long cluster, a small round one beside it, and a wide one."""
    rng = np.random.default_rng(0)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    long = rng.normal(size=(1500, 2)) * [8, 0.4] @ turn
    small = rng.normal(size=(60, 2)) * 0.3 + [1, 5]
    wide = rng.normal(size=(500, 2)) * 3 + [15, 8]
    y = np.repeat([0, 1, 2], [1500, 60, 500])
    order = rng.permutation(len(y))
    return np.concatenate([long, small, wide])[order], y[order]


def mixture_of(kind, degrees, d=3, k=2):
    rng = np.random.default_rng(1)
    half = rng.normal(size=(k, d, d)) + 2 * np.eye(d)
    full = half @ np.swapaxes(half, 1, 2)
    if kind == "tied":
        full[:] = full[0]
    scatters = full if kind in ("tied", "full") else rng.uniform(0.5, 2, (k, d))
    if kind == "spherical":
        scatters[:] = scatters[:, :1]
    weights = np.linspace(1, 2, k)
    means = rng.normal(size=(k, d))
    return StudentMixture(weights / weights.sum(), means, scatters, kind, degrees, np.ones(k))


def as_they_are(X, s=None):
    """Rows that are not scaled."""
    return ScaledRows(X, s, np.zeros(X.shape[1]), 1.0, n_threads=2)


def specified(mixture):
    """What `ekmfast._reference` takes of a mixture."""
    return mixture.weights, mixture.means, mixture.scatters, mixture.degrees


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degrees", [4.0, 30.0, math.inf])
def test_densities_are_scipys(kind, degrees):
    mixture = mixture_of(kind, degrees)
    X = np.random.default_rng(0).normal(size=(50, 3)) * 3
    got = mixture_log_joint(X, *specified(mixture))
    for k, scatter in enumerate(mixture.scatters):
        matrix = scatter if mixture.full else np.diag(scatter)
        if math.isinf(degrees):
            density = multivariate_normal(mixture.means[k], matrix)
        else:
            density = multivariate_t(mixture.means[k], matrix, df=degrees)
        wanted = density.logpdf(X) + np.log(mixture.weights[k])
        np.testing.assert_allclose(got[:, k], wanted, rtol=1e-12)
    if degrees > 2 and not math.isinf(degrees):
        wanted = mixture.scatters * degrees / (degrees - 2)
        np.testing.assert_allclose(mixture.covariances, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degrees", [5.0, math.inf])
def test_the_sums_of_the_specification_add(kind, degrees):
    mixture = specified(mixture_of(kind, degrees))
    rng = np.random.default_rng(0)
    X, s = rng.normal(size=(40, 3)) * 2, rng.uniform(0.5, 2, 40)
    sums = Sums(*mixture_sums(X, s, *mixture))
    density = np.exp(mixture_log_joint(X, *mixture))
    assert sums.likelihood == pytest.approx(s @ np.log(density.sum(axis=1)))
    assert sums.classified == pytest.approx(s @ np.log(density.max(axis=1)))
    r = density / density.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(sums.mass, s @ r, rtol=1e-12)
    parts = [mixture_sums(X[rows], s[rows], *mixture) for rows in (slice(13), slice(13, None))]
    for field, first, second in zip(fields(Sums), *parts, strict=True):
        np.testing.assert_allclose(
            first + second, getattr(sums, field.name), rtol=1e-12, atol=1e-13, err_msg=field.name
        )


@pytest.mark.parametrize("kind", KINDS)
def test_several_mixtures_become_what_each_becomes_alone(kind):
    rng = np.random.default_rng(0)
    rows = as_they_are(rng.normal(size=(500, 3)) * 2)
    labels = rng.integers(0, 2, (3, 500))
    starts = [
        from_labels(rows, own, kind, v) for own, v in zip(labels, (3.0, 8.0, math.inf), strict=True)
    ]
    settings = {"max_iter": 40, "tol": 1e-3}
    together = expectation_maximization(stacked(starts), rows, **settings)
    assert len({fitted.n_iter for fitted in together}) > 1
    for start, fitted in zip(starts, together, strict=True):
        (alone,) = expectation_maximization(start[None], rows, **settings)
        assert (alone.n_iter, alone.converged) == (fitted.n_iter, fitted.converged)
        assert fitted.likelihood == pytest.approx(alone.likelihood, rel=1e-10)
        assert fitted.mixture.degrees == start.degrees
        np.testing.assert_allclose(fitted.mixture.scatters, alone.mixture.scatters, rtol=1e-8)
        np.testing.assert_allclose(fitted.mixture.means, alone.mixture.means, rtol=1e-8, atol=1e-10)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(4))
def test_gaussian_labels_are_those_of_gaussian_mixture(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    k, d = int(rng.integers(2, 5)), int(rng.integers(1, 5))
    X = np.concatenate([rng.normal(size=(200, d)) @ rng.normal(size=(d, d)) for _ in range(k)])
    X += np.repeat(rng.normal(size=(k, d)) * 2, 200, axis=0)
    peer = GaussianMixture(k, random_state=np.random.RandomState(seed))
    random_state = np.random.RandomState(seed)  # it begins from the labels of a fit of KMeans
    means = KMeans(k, n_init=1, random_state=random_state).fit(X).labels_
    monkeypatch.setattr(gaussian, "MAX_ITER", 100)  # as many as the peer's
    labels = gaussian_labels(as_they_are(X), k, means)
    np.testing.assert_array_equal(labels, peer.fit(X).predict(X))


def test_a_component_without_shrinkage_is_the_maximum(monkeypatch):
    # One Gaussian component: the sample's mean and covariance.
    monkeypatch.setattr("ekmfast.fit.mixture.kinds.MATRIX_PRIOR", 0.0)
    X = np.random.default_rng(0).normal(size=(300, 3)) @ np.array(
        [[2, 0, 0], [1, 1, 0], [0, 1, 3.0]]
    )
    start = from_labels(as_they_are(X), np.zeros(300, int), "full", math.inf)
    mixture = maximization(start[None], as_they_are(X).expectation(start[None]))[0]
    np.testing.assert_allclose(mixture.means[0], X.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(mixture.scatters[0], np.cov(X.T, ddof=0), rtol=1e-10)


@pytest.mark.parametrize("degrees", [4.0, math.inf])
def test_each_iteration_raises_the_likelihood_where_shrinkage_hardly_matters(degrees):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(20_000, 2)), rng.normal(size=(20_000, 2)) * 2 + 4])
    s = np.ones(len(X))
    mixture = from_labels(as_they_are(X, s), (X[:, 0] > 1).astype(int), "full", degrees)[None]
    likelihoods = []
    for _ in range(15):
        sums = as_they_are(X).expectation(mixture)
        likelihoods.append(sums.likelihood[0] / len(X))
        mixture = maximization(mixture, sums)
    assert (np.diff(likelihoods) > -1e-5).all()
    assert likelihoods[-1] > likelihoods[0] + 0.01


def test_it_finds_shapes_that_centroids_do_not(shapes):
    X, y = shapes
    model = EquilibriumMixture(3, random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    assert adjusted_rand_score(y, EKMeans(3, random_state=0).fit(X).labels_) < 0.7
    assert model.covariance_type_ == "full"
    np.testing.assert_allclose(
        np.sort(model.weights_), [60 / 2060, 500 / 2060, 1500 / 2060], atol=0.02
    )
    small = np.argmin(model.weights_)
    np.testing.assert_allclose(model.means_[small], [1, 5], atol=0.2)
    assert model.converged_
    assert model.lower_bound_ == pytest.approx(model.score(X), rel=1e-3)


@pytest.mark.parametrize("tol", [1e-4, 1e-7])
def test_a_run_that_fell_behind_and_is_chosen_goes_on_to_its_end(shapes, tol, monkeypatch):
    monkeypatch.setattr(shapes_module, "MARGIN", -np.inf)  # all fall behind
    X, y = shapes
    model = EquilibriumMixture(len(np.unique(y)), tol=tol, max_iter=2_000, random_state=0).fit(X)
    assert model.converged_
    assert model.n_iter_ > FAIR


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("degrees", ["auto", 5.0, math.inf])
def test_the_interface_is_that_of_gaussian_mixture(shapes, kind, degrees):
    X, _ = shapes
    X = X[::4]
    model = EquilibriumMixture(
        3, covariance_type=kind, degrees_of_freedom=degrees, n_init=2, random_state=0
    ).fit(X)
    used = model.covariance_type_
    peer = GaussianMixture(3, covariance_type=used, random_state=0).fit(X)
    for name in ("weights_", "means_", "covariances_"):
        assert getattr(model, name).shape == getattr(peer, name).shape, name
    assert kind in ("auto", used)
    assert degrees in ("auto", model.degrees_of_freedom_)
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(p.argmax(axis=1), model.predict(X))
    np.testing.assert_array_equal(model.labels_, model.predict(X))
    assert model.score(X) == pytest.approx(model.score_samples(X).mean())
    n_parameters = peer._n_parameters() + (degrees == "auto")
    assert model.bic(X) == pytest.approx(
        -2 * model.score(X) * len(X) + n_parameters * np.log(len(X))
    )
    assert model.aic(X) == pytest.approx(-2 * model.score(X) * len(X) + 2 * n_parameters)
    assert model.icl(X) >= model.bic(X)


def test_densities_have_the_units_of_the_rows(shapes):
    X, _ = shapes
    model = EquilibriumMixture(2, covariance_type="full", degrees_of_freedom=6.0, n_init=2)
    model.set_params(random_state=0).fit(X)
    at = X[:50]
    density = sum(
        weight * multivariate_t(mean, covariance * 4 / 6, df=6).pdf(at)
        for weight, mean, covariance in zip(
            model.weights_, model.means_, model.covariances_, strict=True
        )
    )
    np.testing.assert_allclose(model.score_samples(at), np.log(density), rtol=1e-9)


def test_samples_have_the_moments_of_the_mixture(shapes):
    X, _ = shapes
    model = EquilibriumMixture(2, degrees_of_freedom=10.0, random_state=0, n_init=2).fit(X)
    drawn, labels = model.sample(40_000)
    assert drawn.shape == (40_000, 2)
    np.testing.assert_allclose(np.bincount(labels) / 40_000, model.weights_, atol=0.01)
    for k in range(2):
        own = drawn[labels == k]
        scale = np.sqrt(np.diag(model.covariances_[k]))
        np.testing.assert_allclose(own.mean(axis=0), model.means_[k], atol=0.05 * scale.max())
        error = np.abs(np.cov(own.T) - model.covariances_[k]) / np.outer(scale, scale)
        assert error.max() < 0.06
    X32 = X.astype(np.float32)
    assert EquilibriumMixture(2, random_state=0, n_init=1).fit(X32).sample(3)[0].dtype == np.float32


def test_the_result_moves_and_scales_with_the_rows(shapes):
    X, _ = shapes
    model = EquilibriumMixture(3, n_init=3, random_state=0)
    first = model.fit(X)
    means, covariances = first.means_, first.covariances_
    labels, bound = first.labels_, first.lower_bound_
    other = EquilibriumMixture(3, n_init=3, random_state=0).fit(1e6 + 1e-3 * X)
    np.testing.assert_array_equal(other.labels_, labels)
    np.testing.assert_allclose((other.means_ - 1e6) * 1e3, means, atol=1e-4)
    np.testing.assert_allclose(other.covariances_ * 1e6, covariances, rtol=1e-4, atol=1e-6)
    assert other.lower_bound_ == pytest.approx(bound - 2 * np.log(1e-3), rel=1e-6)


def test_a_weight_of_zero_is_a_row_that_is_not_there(shapes):
    X, _ = shapes
    X = X[:400]
    s = np.ones(len(X))
    s[::5] = 0
    labels = np.where(X[:, 0] > 10, 1, 0)
    some = s > 0
    start = from_labels(as_they_are(X[some], s[some]), labels[some], "full", 8.0)[None]
    settings = {"max_iter": 20, "tol": 0}
    (whole,) = expectation_maximization(start, as_they_are(X, s), **settings)
    (part,) = expectation_maximization(start, as_they_are(X[some], s[some]), **settings)
    np.testing.assert_allclose(whole.mixture.means, part.mixture.means, rtol=1e-9)
    twice = np.repeat(X, 2, axis=0)
    by_weight = from_labels(as_they_are(X, 2 * np.ones(len(X))), labels, "diag", 8.0)
    by_rows = from_labels(as_they_are(twice), np.repeat(labels, 2), "diag", 8.0)
    np.testing.assert_allclose(by_weight.scatters, by_rows.scatters, rtol=1e-12)
    model = EquilibriumMixture(2, n_init=2, random_state=0).fit(X, sample_weight=s)
    assert model.labels_.shape == (400,)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_nothing_is_singular_on_tiny_data():
    rng = np.random.default_rng(0)
    for i in range(150):
        n, d = int(rng.integers(1, 12)), int(rng.integers(1, 4))
        k = int(rng.integers(1, min(n, 4) + 1))
        X = rng.integers(0, 3, (n, d)) * 10.0 ** rng.integers(-8, 9)
        kind = TYPES[i % len(TYPES)]
        model = EquilibriumMixture(k, covariance_type=kind, n_init=2, max_iter=20, random_state=i)
        labels = model.fit_predict(X)
        assert labels.max() < len(model.weights_) <= k
        for name in ("weights_", "means_", "covariances_"):
            assert np.isfinite(getattr(model, name)).all(), (name, X)
        assert np.isfinite(model.score_samples(X)).all()
        assert np.isfinite(model.score_samples(X + 1e3 * np.abs(X).max() + 1)).all()


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(shapes):
    X, _ = shapes
    one, two = (
        EquilibriumMixture(3, n_init=3, random_state=3, n_threads=t).fit(X[:600]) for t in (1, 2)
    )
    np.testing.assert_array_equal(one.means_, two.means_)
    np.testing.assert_array_equal(one.covariances_, two.covariances_)


def test_many_rows_are_searched_in_a_sample(shapes, monkeypatch):
    X, y = shapes
    monkeypatch.setattr("ekmfast.estimators.mixture.SEARCH_ROWS", 1000)
    model = EquilibriumMixture(3, n_init=4, random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    assert model.weights_.sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("degrees", ["auto", math.inf])
def test_a_file_keeps_the_mixture(shapes, tmp_path, kind, degrees):
    X = shapes[0][:300].astype(np.float32)
    model = EquilibriumMixture(
        2, covariance_type=kind, degrees_of_freedom=degrees, n_init=2, random_state=0
    ).fit(X)
    for saved in (model, EquilibriumMixture(4)):
        ekmfast.save(saved, tmp_path / "model")
        loaded = ekmfast.load(tmp_path / "model")
        assert loaded.get_params() == saved.get_params()
    ekmfast.save(model, tmp_path / "model")
    loaded = ekmfast.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(loaded.labels_, model.labels_)
    assert loaded.means_.dtype == np.float32


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("scatters", -np.ones((2, 2, 2)), "scatters must be positive definite"),
        ("scatters", np.ones((2, 3, 3)), "scatters has shape"),
        ("weights", np.array([np.nan, 1]), "weights holds values that are not finite"),
        ("kind", "round", "covariance_type_ is 'full'"),
        ("degrees", -1.0, "degrees is -1.0: must be above 0"),
    ],
)
def test_a_file_that_was_made_by_hand_is_refused(shapes, tmp_path, attribute, value, message):
    model = EquilibriumMixture(2, covariance_type="full", n_init=1, random_state=0)
    model.fit(shapes[0][:300])
    model._mixture = replace(model._mixture, **{attribute: value})
    ekmfast.save(model, tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        ekmfast.load(tmp_path / "model")


def test_a_fit_that_ends_early_says_so(shapes):
    X, _ = shapes
    with pytest.warns(ConvergenceWarning, match=r"did not converge \(max_iter=2\)"):
        EquilibriumMixture(3, n_init=1, max_iter=2, random_state=0).fit(X)


def test_verbose_prints_a_line_for_each_run(shapes, capsys):
    EquilibriumMixture(2, n_init=1, random_state=0, verbose=1).fit(shapes[0][:200])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4
    assert all(line.startswith("EquilibriumMixture: ") for line in lines)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 0}, "n_components must be 'auto' or an integer >= 1, got 0"),
        ({"covariance_type": "round"}, "covariance_type must be 'auto', .* got 'round'"),
        ({"degrees_of_freedom": 2.0}, "degrees_of_freedom must be 'auto', .* or inf, got 2.0"),
        ({"n_components": 9}, "n_samples=5 should be >= n_components=9"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        EquilibriumMixture(**settings).fit(np.arange(10.0).reshape(5, 2))


def test_methods_before_fit_and_other_columns(shapes):
    X, _ = shapes
    with pytest.raises(NotFittedError):
        EquilibriumMixture().predict(X)
    model = EquilibriumMixture(random_state=0).fit(X)
    with pytest.raises(ValueError, match="X has 3 features, but EquilibriumMixture is expecting 2"):
        model.score_samples(np.zeros((2, 3)))


def test_bad_rows_are_named_as_by_ekmeans(shapes):
    X = shapes[0][:30]
    wild = X.copy()
    wild[7, 1] = np.inf
    for rows, error, message in (
        (wild, ValueError, "X must be finite, got infinity in row 7, column 1"),
        (np.ma.masked_array(X, X > 5), ValueError, "masked entries"),
        (pd.DataFrame({"a": ["x"] * 30, "b": X[:, 0]}), TypeError, "column 'a' must hold"),
    ):
        with pytest.raises(error, match=message):
            EquilibriumMixture(2).fit(rows)


def test_a_sample_by_weight_counts_its_rows_as_they_are(shapes, monkeypatch):
    # Weights that are all 1 are no weights, also where the search takes a sample.
    X, _ = shapes
    monkeypatch.setattr("ekmfast.estimators.mixture.SEARCH_ROWS", 700)
    settings = {"n_init": 2, "random_state": 0}
    plain = EquilibriumMixture(3, **settings).fit(X)
    weighted = EquilibriumMixture(3, **settings).fit(X, sample_weight=np.ones(len(X)))
    np.testing.assert_allclose(weighted.means_, plain.means_, rtol=1e-6, atol=1e-6)


# --- blocks -----------------------------------------------------------------------------------


def in_blocks(X, **options):
    return ekmfast.blocks.from_arrays(np.array_split(X, 7), **options)


def test_sums_of_blocks_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    X, s = rng.normal(size=(700, 3)) * 2, rng.uniform(0.5, 2, 700)
    mixtures = stacked([mixture_of("full", v) for v in (4.0, math.inf)])
    blocks = ekmfast.blocks.from_arrays(np.array_split(X, 7), np.array_split(s, 7))
    rows = BlockRows(LocalSource(blocks, 1))
    centre = np.array([1.0, 0, 2])
    got = ScaledBlocks(rows, s.sum(), centre, 0.5).expectation(mixtures)
    wanted = ScaledRows(X, s, centre, 0.5, 1).expectation(mixtures)
    for field in fields(Sums):
        np.testing.assert_allclose(
            getattr(got, field.name), getattr(wanted, field.name), rtol=1e-10, atol=1e-10
        )


def test_blocks_give_the_mixture_of_the_array(shapes, monkeypatch):
    X, y = shapes
    monkeypatch.setattr("ekmfast.estimators.mixture.SEARCH_ROWS", 1000)
    settings = {"n_init": 4, "random_state": 0, "tol": 1e-6, "max_iter": 300}
    whole = EquilibriumMixture(3, **settings).fit(X)
    model = EquilibriumMixture(3, **settings)
    labels = model.fit_predict(in_blocks(X))
    assert not hasattr(model, "labels_")
    assert adjusted_rand_score(y, labels) > 0.95
    assert adjusted_rand_score(whole.labels_, labels) > 0.99
    # Both end in the same maximum, from samples of their own.
    order, other = np.argsort(model.weights_), np.argsort(whole.weights_)
    np.testing.assert_allclose(model.means_[order], whole.means_[other], atol=1e-3)
    assert model.lower_bound_ == pytest.approx(whole.lower_bound_, abs=1e-5)
    for method in ("predict", "predict_proba", "score_samples"):
        got = getattr(model, method)(in_blocks(X))
        np.testing.assert_allclose(got, getattr(model, method)(X), rtol=1e-9, atol=1e-9)
    for method in ("score", "bic", "aic", "icl"):
        assert getattr(model, method)(in_blocks(X)) == pytest.approx(getattr(model, method)(X))


def test_blocks_with_weights_and_columns(shapes, tmp_path):
    X, y = shapes
    s = np.random.default_rng(0).uniform(0.5, 2, len(X))
    blocks = ekmfast.blocks.from_arrays(np.array_split(X, 7), np.array_split(s, 7))
    model = EquilibriumMixture(3, n_init=4, random_state=0).fit(blocks)
    assert adjusted_rand_score(y, model.predict(X)) > 0.95
    assert model.score(blocks) == pytest.approx(np.average(model.score_samples(X), weights=s))
    ekmfast.save(model, tmp_path / "model")
    loaded = ekmfast.load(tmp_path / "model")
    assert not hasattr(loaded, "labels_")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    with pytest.raises(ValueError, match="X has 3 features, but EquilibriumMixture is expecting 2"):
        model.predict(in_blocks(np.zeros((10, 3))))
    with pytest.raises(ValueError, match="sample_weight must be None for Blocks"):
        model.fit(in_blocks(X), sample_weight=s)


def test_memory_maps_and_dask(shapes, tmp_path, monkeypatch):
    X, y = shapes
    settings = {"n_init": 4, "random_state": 0}
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr("ekmfast.rows.given.LARGE_MEMMAP", 1)
    model = EquilibriumMixture(3, **settings).fit(mapped)
    assert not hasattr(model, "labels_")
    assert adjusted_rand_score(y, model.predict(mapped)) > 0.95
    da = pytest.importorskip("dask.array", reason="an extra")
    lazy = da.from_array(X, chunks=(500, 2))
    model = EquilibriumMixture(3, **settings).fit(lazy)
    labels = model.predict(lazy)
    assert isinstance(labels, da.Array)
    assert adjusted_rand_score(y, labels.compute()) > 0.95
    assert model.predict_proba(lazy).shape == (len(X), 3)
    assert model.score(lazy) == pytest.approx(model.score(X))
    assert EquilibriumMixture("auto", max_clusters=4, **settings).fit(lazy).weights_.shape == (3,)


def test_blocks_with_nan_are_named(shapes):
    X = shapes[0][:100].copy()
    X[60, 0] = np.nan
    with pytest.raises(ValueError, match="its row 2 holds NaN in column 0"):
        EquilibriumMixture(2).fit(in_blocks(X))


def test_runs_race_and_moves_are_made_unless_features_are_correlated(monkeypatch):
    called, races = [], []
    far, moved = shapes_module._far, shapes_module.moved_labels
    monkeypatch.setattr(
        shapes_module,
        "moved_labels",
        lambda *of, **how: called.append(of) or moved(*of, **how),
    )
    monkeypatch.setattr(
        shapes_module, "_far", lambda *of, **how: races.append(of) or far(*of, **how)
    )
    rng = np.random.default_rng(0)
    few = rng.normal(size=(300, 3)) * [8, 0.5, 0.5] + [0, 6, 0] * rng.integers(0, 2, (300, 1))
    correlated = few @ rng.normal(size=(3, 30)) + 0.1 * rng.normal(size=(300, 30))
    EquilibriumMixture(2, background=True, random_state=0, max_iter=300).fit(correlated)
    assert not called
    assert not races
    EquilibriumMixture(2, random_state=0).fit(few)
    assert called
    assert races


# --- clusters of EKMeans that are kept where features are strongly correlated --------------------


def correlated_clusters(seed):
    """Like codes of a neural network: three separated clusters, 60 features of three factors."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [300, 20, 20])
    factors = 6 * np.eye(3)[y] + rng.normal(size=(340, 3)) * rng.uniform(0.5, 1.5, (3, 1))[y]
    return np.maximum(factors @ rng.normal(size=(3, 60)), 0) + 0.1 * rng.normal(size=(340, 60)), y


@pytest.mark.parametrize("seed", range(6))
def test_separated_clusters_of_correlated_features_are_those_of_ekmeans(seed):
    # With full matrices, which have a larger likelihood, the ARI is .29 for the seed 3.
    X, y = correlated_clusters(seed)
    model = EquilibriumMixture(3, random_state=0).fit(X)
    assert model.covariance_type_ == "diag"
    nearest = EKMeans(3, random_state=0).fit(X).labels_
    assert adjusted_rand_score(nearest, y) > 0.95
    assert adjusted_rand_score(nearest, model.labels_) >= mixture_search.CONFIRMED
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    np.testing.assert_array_equal(model.predict_proba(X).argmax(axis=1), model.labels_)


def test_a_given_kind_keeps_the_clusters_of_ekmeans():
    X, y = correlated_clusters(3)
    model = EquilibriumMixture(3, covariance_type="spherical", random_state=0).fit(X)
    assert model.covariance_type_ == "spherical"
    assert adjusted_rand_score(y, model.labels_) > 0.95


def long_clusters(seed, n_features=40, sizes=(250, 100, 40)):
    """Long clusters that EKMeans cuts, in features of four factors."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    factors = rng.normal(size=(len(y), 4)) * [4, 0.5, 0.5, 0.5]
    factors[:, 1] += 5 * y
    mixed = factors @ rng.normal(size=(4, n_features))
    return mixed + 0.1 * rng.normal(size=mixed.shape), y


@pytest.mark.parametrize("kind", ["auto", "full", "tied"])
@pytest.mark.parametrize("seed", range(3))
def test_correlated_features_are_searched_in_their_components(kind, seed):
    X, y = long_clusters(seed)
    weight = np.random.default_rng(seed).integers(1, 3, len(X))
    model = EquilibriumMixture(3, covariance_type=kind, random_state=0)
    model.fit(X, sample_weight=weight)
    assert adjusted_rand_score(y, EKMeans(3, random_state=0).fit(X).labels_) < 0.9
    assert adjusted_rand_score(y, model.labels_) > 0.99
    assert model.means_.shape == (3, 40)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    # Rows of no weight change nothing but the order of sums.
    none = np.concatenate([weight, np.zeros(20, int)])
    again = clone(model).fit(np.concatenate([X, X[:20] + 100]), sample_weight=none)
    np.testing.assert_array_equal(again.labels_[: len(X)], model.labels_)


def test_components_that_lose_a_component_are_not_used(monkeypatch):
    X, _ = long_clusters(0)
    lost = mixture_search.MixtureSearch._searched
    used = []

    def fewer(self, k, further):
        inside = self.rows.X.shape[1] < X.shape[1]
        used.append(inside)
        return lost(self, k - 1 if inside else k, further)

    monkeypatch.setattr(mixture_search.MixtureSearch, "_searched", fewer)
    EquilibriumMixture(3, random_state=0).fit(X)
    assert used == [True, False]


@pytest.mark.parametrize("heavy", [False, True])
def test_heavier_tails_are_tried_while_the_likelihood_rises(heavy):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(900, 4)), np.repeat([0, 1, 2], 300)
    if heavy:
        X /= np.sqrt(rng.chisquare(2, (900, 1)) / 2)
    X[:, 0] += 20 * y
    fits = []
    rows = ScaledRows(X, None, np.zeros(4), 1.0, 1)
    runs = Runs(rows, ("full",), (3.0, 6.0, 20.0, np.inf), 50, 1e-4, fits.append)
    found = runs.from_labels(y)
    degrees = [one.mixture.degrees for one in fits]
    criteria = [one.mixture_criterion for one in fits]
    assert degrees == ([np.inf, 20.0, 6.0, 3.0] if heavy else [np.inf, 20.0])
    assert found.mixture.degrees == degrees[np.argmax(criteria)]


# A component has as many rows as the others, or few.
@pytest.mark.parametrize(("kind", "few"), [("diag", 200), ("full", 200), ("full", 40)])
def test_directions_without_variance_do_not_move_scales(kind, few):
    # In most directions the common scatter has its least variance. Scales fell there with each step
    # of full matrices, and large components were narrower than small ones.
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [250, 200, few])
    X = np.concatenate([rng.normal(size=(len(y), 4)), 1e-3 * rng.normal(size=(len(y), 36))], axis=1)
    X[:, 0] += 8 * y
    rows = ScaledRows(X, None, np.zeros(40), 1.0, 1)
    start = from_labels(rows, y, kind, np.inf)
    first, last = (
        expectation_maximization(start[None], rows, max_iter=n, tol=1e-9)[0] for n in (1, 200)
    )
    np.testing.assert_allclose(start.scales, 1, rtol=0.1)
    np.testing.assert_allclose(last.mixture.scales, 1, rtol=0.1)
    np.testing.assert_array_equal(label(last.mixture, rows), y)
    assert last.likelihood > first.likelihood - 0.1


# --- the time of the search ---------------------------------------------------------------------


@pytest.fixture
def dtypes_read(monkeypatch):
    """The dtypes of the rows in each pass, in order."""
    read, whole, iterations = [], ScaledRows.expectation, ScaledRows.iterate

    def expectation(self, mixtures):
        read.append(self.X.dtype)
        return whole(self, mixtures)

    def iterate(self, mixtures, step, *, first, **settings):
        found = iterations(self, mixtures, step, first=first, **settings)
        last = found[5]
        read.extend([self.X.dtype] * (last - first + 1))
        return found

    monkeypatch.setattr(ScaledRows, "expectation", expectation)
    monkeypatch.setattr(ScaledRows, "iterate", iterate)
    return read


def two_clusters(scale=1.0):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, scale, (300, 3)), rng.normal(6, scale, (100, 3))])
    return X, np.repeat([0, 1], [300, 100])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_float32_give_nearly_the_same_mixture(kind, dtypes_read):
    X, y = two_clusters(1.5)
    start = from_labels(as_they_are(X), y, kind, 6.0)[None]
    settings = {"max_iter": 100, "tol": 1e-5}
    (quick,) = quick_maximization(start, as_they_are(X), **settings)
    assert set(dtypes_read) == {np.dtype(np.float32)}
    (exact,) = expectation_maximization(start, as_they_are(X), **settings)
    assert dtypes_read[-1] == np.float64
    assert quick.likelihood == pytest.approx(exact.likelihood, abs=1e-5)
    np.testing.assert_allclose(quick.mixture.means, exact.mixture.means, atol=1e-4)
    np.testing.assert_allclose(quick.mixture.scatters, exact.mixture.scatters, atol=1e-4)


@pytest.mark.parametrize(
    ("scale", "weight", "tol"),
    [
        (1e-4, None, 1e-4),  # narrow beside the rounding errors of values near 6
        (1.0, 1e-50, 1e-4),
        (1.0, 1e37, 1e-4),  # of which the sum is too large
        (1.0, None, 1e-6),
    ],
)
def test_rows_stay_float64_where_float32_is_not_enough(scale, weight, tol, dtypes_read):
    X, y = two_clusters(scale)
    s = None if weight is None else np.full(400, weight)
    start = from_labels(as_they_are(X), y, "full", 6.0)[None]
    rows = ScaledRows(X, s, np.zeros(3), 1.0, 1)
    (fitted,) = quick_maximization(start, rows, max_iter=100, tol=tol)
    assert set(dtypes_read) == {np.dtype(np.float64)}
    assert fitted.converged


def test_a_matrix_that_is_lost_in_rounding_errors_is_computed_again(dtypes_read):
    X, y = two_clusters()
    start = from_labels(as_they_are(X), y, "full", 6.0)[None]

    def step(mixtures, sums):
        after = maximization(mixtures, sums)
        if dtypes_read[-1] == np.float64:
            return after
        return replace(after, scatters=1e-10 * after.scatters)

    (fitted,) = quick_maximization(start, as_they_are(X), max_iter=100, tol=1e-4, step=step)
    (exact,) = expectation_maximization(start, as_they_are(X), max_iter=100, tol=1e-4)
    assert fitted.likelihood == exact.likelihood
    assert dtypes_read[0] == np.float32


def test_far_rows_of_tiny_weight_on_one_line():
    # The Gaussian mixture among the starts has no weights: its matrices are those of the line.
    X, _ = two_clusters()
    line = np.random.default_rng(1).normal(size=(200, 1)) * [1e7, 1e7, 1e7]
    weight = np.repeat([1.0, 1e-17], [400, 200])
    model = EquilibriumMixture(2, random_state=0).fit(np.concatenate([X, line]), None, weight)
    assert sorted(np.bincount(model.labels_[:400]).tolist()) == [100, 300]


def test_a_fit_ends_with_the_rows_in_float64(dtypes_read):
    X, _ = two_clusters()
    model = EquilibriumMixture(2, random_state=0).fit(X)
    assert dtypes_read.count(np.dtype(np.float32)) > 0.8 * len(dtypes_read)
    assert dtypes_read[-2:] == [np.float64, np.float64]
    assert model.converged_
    assert model.n_iter_ <= 100
    assert model.lower_bound_ == pytest.approx(model.score(X), abs=1e-12)


@pytest.fixture
def narrowed_passes(monkeypatch):
    """Whether passes over all rows computed in float32, in order."""
    found, iterate = [], ScaledRows.iterate

    def recording(self, *args, **settings):
        if self.n_rows == 400:
            found.append(self.narrowed)
        return iterate(self, *args, **settings)

    monkeypatch.setattr(ScaledRows, "iterate", recording)
    monkeypatch.setattr("ekmfast.estimators.mixture.SEARCH_ROWS", 200)
    return found


@pytest.mark.parametrize("covariance_type", KINDS)
def test_a_fit_of_more_rows_than_the_search_ends_in_float64(covariance_type, narrowed_passes):
    X, y = two_clusters()
    weight = np.random.default_rng(0).integers(0, 3, 400).astype(float)
    parameters = {"covariance_type": covariance_type, "tol": 1e-4, "random_state": 0}
    for s in (None, weight):
        model = EquilibriumMixture(2, **parameters).fit(1e6 + X, sample_weight=s)
        assert narrowed_passes == [True, False]
        narrowed_passes.clear()
        assert model.converged_
        assert adjusted_rand_score(y, model.labels_) == 1
        densities = model.score_samples(1e6 + X)
        assert model.lower_bound_ == pytest.approx(np.average(densities, weights=s), rel=1e-9)


def test_passes_stay_in_float64_where_float32_saves_or_loses_too_much(narrowed_passes):
    X, _ = two_clusters(scale=1e-5)
    EquilibriumMixture(2, random_state=0).fit(X)
    assert narrowed_passes == [False]
    narrowed_passes.clear()
    X, _ = two_clusters()
    EquilibriumMixture(2, tol=1e-6, random_state=0).fit(X)
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        EquilibriumMixture(2, max_iter=1, random_state=0).fit(X)
    EquilibriumMixture(2, random_state=0).fit(X.astype(np.float32))
    assert narrowed_passes == [False] * 3
    narrowed_passes.clear()
    model = EquilibriumMixture(2, max_iter=2, tol=1e-5, random_state=0).fit(X)
    assert narrowed_passes == [True, False]
    assert model.n_iter_ == 2


def test_runs_that_are_far_behind_end_early():
    X, y = two_clusters()
    other = (X[:, 0] > X[:, 0].mean()) * (np.arange(400) % 2)
    rows = as_they_are(X)
    runs = Runs(rows, ("full",), (np.inf,), 50, 1e-12)
    starts = stacked([from_labels(as_they_are(X), labels, "full", np.inf) for labels in (y, other)])
    first, second = expectation_maximization(
        starts, rows, max_iter=50, tol=0.0, behind=_far(starts, rows.total, [])
    )
    assert first.n_iter == 50
    assert second.n_iter >= FAIR
    assert second.n_iter < 50 or second.criterion > first.criterion - MARGIN
    # A result of another group counts, too: none of these can be as good.
    better = replace(first, classified=first.classified + 1)
    best = replace(better, likelihood=first.likelihood + 1)
    for other, tails, last in ((best, True, FAIR), (better, True, 50), (better, False, FAIR)):
        behind = _far(starts, rows.total, [other], tails=tails)
        ended = expectation_maximization(starts, rows, max_iter=50, tol=0.0, behind=behind)
        assert ended[0].n_iter == last
    assert runs.search([first]).criterion >= first.criterion - 1e-6


def test_short_runs_that_do_the_same_as_another_end_early():
    X, _ = two_clusters(4.0)
    halves = (X[:, 0] > 1).astype(int)
    moved = np.where(np.arange(400) == 399, 0, halves)  # one row is in the other half
    runs = Runs(as_they_are(X), ("diag",), (8.0,), 50, 0.0)
    whole = runs.short([halves, moved], race=False)
    first, second = runs.short([halves, moved])
    assert SHORT_FAIR < whole[0].n_iter == first.n_iter <= SHORT
    assert second.n_iter == SHORT_FAIR < whole[1].n_iter
    assert second.likelihood < first.likelihood


def test_the_likelihood_decides_among_heavy_tails_and_the_classification_likelihood_else():
    X, y = two_clusters()
    rows = as_they_are(X)

    def fitted(degrees, likelihood, classified):
        start = from_labels(as_they_are(X), y, "full", degrees)[None]
        (one,) = expectation_maximization(start, rows, max_iter=2, tol=0.0)
        return replace(one, likelihood=likelihood, classified=classified)

    heavy = fitted(3.0, -1.0, -9.0)
    round_, clear = fitted(np.inf, -2.0, -4.0), fitted(np.inf, -3.0, -3.5)
    assert chosen([round_, heavy, clear]) is heavy
    worse = replace(heavy, likelihood=-2.5, classified=-2.6)
    assert chosen([round_, worse, clear]) is clear
    light = fitted(20.0, -1.0, -4.5)
    assert chosen([round_, worse, light, clear]) is clear
    assert chosen([worse, replace(worse, likelihood=-2.6, classified=-2.5)]) is worse


@pytest.mark.parametrize("dtype", [np.int32, np.intp])
def test_labels_are_numbered_in_the_order_of_their_first_rows(dtype):
    assert compact(np.array([7, 2, 7, 0, 2], dtype)).tolist() == [0, 1, 0, 2, 1]
    assert compact(np.array([-1, 4, -1, 0], dtype)).tolist() == [-1, 0, -1, 1]
    assert compact(np.array([3, -1], dtype)).tolist() == [0, -1]
    assert compact(np.array([-1, -1], dtype)).tolist() == [-1, -1]
    assert compact(np.array([0], dtype)).dtype == np.intp


@pytest.mark.parametrize("full", [True, False])
def test_moments_of_labels(full):
    rng = np.random.default_rng(0)
    X, s = rng.normal(size=(60, 3)), rng.uniform(0.5, 2, 60)
    labels = rng.integers(-1, 3, 60)  # no row has the label 3
    means, sums = moments_of_labels(X, s, labels, 4, full=full)
    for k in range(3):
        own = labels == k
        np.testing.assert_allclose(means[k], np.average(X[own], axis=0, weights=s[own]))
        scatter = np.cov(X[own].T, aweights=s[own], ddof=0) * s[own].sum()
        np.testing.assert_allclose(sums.second[k], scatter if full else np.diag(scatter))
    np.testing.assert_allclose(sums.mass, np.bincount(labels + 1, s, 5)[1:])
    assert not means[3].any()
    assert not sums.second[3].any()
