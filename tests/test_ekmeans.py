"""EKMeans: the scikit-learn contract, the published recipes, invariances and bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from data import set_a
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ekmfast
from ekmfast import EKMeans, ekm_step
from ekmfast._reference import memberships, weights


# The tiny data of the checks lets centroids coincide or leaves a run short of its tolerance, and
# EKMeans says so with a ConvergenceWarning; that it says so is tested below.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_check_estimator():
    results = check_estimator(
        EKMeans(),
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
    # This check runs only where the environment variable SCIPY_ARRAY_API is set.
    allowed = {"check_array_api_input"}
    if find_spec("pandas") is None:
        allowed.add("check_sample_weights_pandas_series")
    assert skipped <= allowed


@pytest.mark.parametrize(("load", "least"), [(load_wine, 0.91), (load_breast_cancer, 0.64)])
def test_published_sets_at_dvariance(load, least):
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = EKMeans(len(np.unique(y)), alpha="dvariance", random_state=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) >= least


def test_limit_cycle_of_the_plain_map_converges():
    X = np.array([0.0, 2, 2, 2, 10])[:, None]
    model = EKMeans(2, alpha=1 / 12.16, init=[[0.0], [2.0]], tol=1e-7).fit(X)
    assert model.converged_
    np.testing.assert_allclose(model.cluster_centers_.ravel(), [1.32996, 11.71722], atol=2e-5)
    assert model.objective_ == pytest.approx(15.89697 / 2, abs=1e-5)


def test_vanishing_column_sum_converges():
    X = np.array([[3.0, 6], [5, 4], [5, 5], [0, 1]])
    model = EKMeans(3, alpha=1.0406504065040652, init=X[:3]).fit(X)
    assert model.converged_
    assert np.abs(model.cluster_centers_).max() < 100


def test_objective_history_falls_where_no_column_is_weak():
    X, _ = set_a()
    history = EKMeans(3, alpha=1.0, random_state=0).fit(X).objective_history_
    assert len(history) > 3
    assert (np.diff(history) <= 1e-12 * history[:-1]).all()


def test_fixed_point_of_the_exact_step():
    X, _ = set_a()
    model = EKMeans(3, alpha=1.0, tol=1e-9, random_state=0, max_iter=1000).fit(X)
    stepped, objective = ekm_step(X, model.cluster_centers_, 1.0)
    np.testing.assert_allclose(stepped, model.cluster_centers_, atol=1e-8)
    assert objective == pytest.approx(model.objective_, rel=1e-12)


def test_methods_agree_with_the_formulas():
    X, _ = set_a()
    model = EKMeans(3, alpha="dvariance", random_state=0).fit(X)
    C, alpha = model.cluster_centers_, model.alpha_
    assert alpha == pytest.approx(2 / np.mean(0.5 * ((X - X.mean(axis=0)) ** 2).sum(axis=1)))
    distances = np.linalg.norm(X[:, None] - C, axis=2)
    np.testing.assert_allclose(model.transform(X), distances, atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), distances.argmin(axis=1))
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    np.testing.assert_allclose(model.membership(X), memberships(X, C, alpha), atol=1e-12)
    np.testing.assert_allclose(model.weights(X), weights(X, C, alpha), atol=1e-12)
    assert model.score(X) == pytest.approx(-model.objective_, rel=1e-12)
    assert list(model.get_feature_names_out()) == ["ekmeans0", "ekmeans1", "ekmeans2"]


def test_weight_two_is_the_row_twice():
    X, _ = set_a()
    start = X[[0, 2010, 2200]]
    weight = np.where(np.arange(len(X)) % 3 == 0, 2.0, 1.0)
    a = EKMeans(3, init=start, tol=1e-10).fit(X, sample_weight=weight)
    b = EKMeans(3, init=start, tol=1e-10).fit(np.repeat(X, weight.astype(int), axis=0))
    np.testing.assert_allclose(a.cluster_centers_, b.cluster_centers_, atol=1e-8)
    assert a.objective_ == pytest.approx(b.objective_, rel=1e-10)
    assert a.alpha_ == pytest.approx(b.alpha_, rel=1e-12)


def test_shift_and_scale_equivariance():
    X, _ = set_a()
    plain = EKMeans(3, random_state=0).fit(X)
    moved = EKMeans(3, random_state=0).fit(X * 1e6 + 1e8)
    np.testing.assert_array_equal(plain.labels_, moved.labels_)
    back = (moved.cluster_centers_ - 1e8) / 1e6
    np.testing.assert_allclose(back, plain.cluster_centers_, atol=1e-6)


def test_same_bits_for_any_number_of_threads():
    X = np.random.default_rng(0).standard_normal((30_000, 5)).astype(np.float32)
    fits = [
        EKMeans(4, alpha="dvariance", random_state=1, n_init=2, n_threads=n).fit(X)
        for n in (1, 2, 4)
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.cluster_centers_, fits[0].cluster_centers_)
        assert other.objective_ == fits[0].objective_


def test_float32_is_kept():
    X = set_a()[0].astype(np.float32)
    model = EKMeans(3, alpha=1.0, random_state=0).fit(X)
    assert model.cluster_centers_.dtype == np.float32
    assert model.transform(X).dtype == np.float32
    assert model.membership(X).dtype == np.float32
    assert model.weights(X).dtype == np.float32
    assert model.objective_ == pytest.approx(1024.0255, rel=1e-5)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_works_with_scikit_learn_and_data_frames(library):
    frames = pytest.importorskip(library)
    X, _ = set_a()
    frame = frames.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    pipe = make_pipeline(StandardScaler(), EKMeans(3, random_state=0))
    labels = pipe.fit_predict(frame)
    assert labels.shape == (len(X),)
    model = clone(EKMeans(3, alpha=1.0, random_state=0)).set_output(transform=library).fit(frame)
    assert list(model.transform(frame).columns) == ["ekmeans0", "ekmeans1", "ekmeans2"]
    assert list(model.feature_names_in_) == ["a", "b"]
    grid = GridSearchCV(EKMeans(random_state=0, n_init=2), {"n_clusters": [2, 3]}, cv=2).fit(X)
    assert set(grid.best_params_) == {"n_clusters"}


def test_init_choices():
    X, _ = set_a()

    def first_rows(X, n_clusters, random_state):
        return X[:n_clusters]

    for init in ("random", "k-means++", X[:3], first_rows):
        model = EKMeans(3, init=init, random_state=0, n_init=2).fit(X)
        assert np.isfinite(model.cluster_centers_).all()


def test_says_when_it_did_not_converge():
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        model = EKMeans(3, max_iter=2, random_state=0).fit(set_a()[0])
    assert not model.converged_
    assert model.n_iter_ == 2


def test_says_when_centroids_coincide():
    X, _ = set_a()
    with pytest.warns(ConvergenceWarning, match="only 1 of 3 centroids are distinct"):
        model = EKMeans(3, alpha=0.01, random_state=0, max_iter=1000).fit(X)
    assert model.n_clusters_effective_ == 1
    assert set(model.labels_) == {model.labels_[0]}
    np.testing.assert_allclose(model.cluster_centers_, np.zeros((3, 2)), atol=1e-2)


def test_equal_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the centroids do coincide
        model = EKMeans(2, random_state=0).fit(np.full((10, 3), 7.0))
    np.testing.assert_array_equal(model.cluster_centers_, np.full((2, 3), 7.0))
    assert model.objective_ == 0


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"n_clusters": 0}, ValueError, "n_clusters must be 'auto' or an integer >= 1, got 0"),
        ({"n_clusters": 2.5}, TypeError, "n_clusters must be 'auto' or an integer"),
        ({"n_clusters": 11}, ValueError, "n_samples=10 should be >= n_clusters=11"),
        (
            {"alpha": 0},
            ValueError,
            "alpha must be 'auto', 'dvariance' or a finite number > 0, got 0",
        ),
        ({"alpha": -1.0}, ValueError, "alpha must be"),
        ({"alpha": np.nan}, ValueError, "alpha must be"),
        ({"alpha": np.inf}, ValueError, "alpha must be"),
        ({"alpha": "variance"}, ValueError, "got 'variance'"),
        ({"alpha": None}, TypeError, "alpha must be"),
        ({"scale": 0}, ValueError, "scale must be a finite number > 0, got 0"),
        ({"init": "best"}, ValueError, "init must be 'auto', .* got str 'best'"),
        ({"init": np.zeros((3, 2))}, ValueError, r"init must have shape .* = \(2, 2\)"),
        ({"init": np.full((2, 2), np.nan)}, ValueError, "init must be finite"),
        ({"n_init": 0}, ValueError, "n_init must be 'auto' or an integer >= 1"),
        ({"max_iter": 0}, ValueError, "max_iter must be an integer >= 1"),
        ({"tol": -1}, ValueError, "tol must be a finite number >= 0"),
        ({"device": "tpu"}, ValueError, "device must be 'cpu', 'cuda' or 'auto', got 'tpu'"),
        ({"n_threads": 0}, ValueError, "n_threads must be None or an integer >= 1"),
    ],
)
def test_bad_parameters(parameters, error, match):
    X = np.random.default_rng(0).standard_normal((10, 2))
    with pytest.raises(error, match=match):
        EKMeans(**{"n_clusters": 2, **parameters}).fit(X)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.array([[0.0], [np.nan], [1.0]]), "NaN"),
        (np.array([[0.0], [np.inf], [1.0]]), "infinity"),
        (np.empty((0, 2)), "0 sample"),
        (np.empty((5, 0)), "0 feature"),
        (np.zeros(5), "2D array"),
        ([["a"], ["b"], ["c"]], "could not convert string"),
        (np.array([[1e200], [-1e200], [0.0]]), "overflow"),
    ],
)
def test_bad_data(X, match):
    with pytest.raises(ValueError, match=match):
        EKMeans(2).fit(X)


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        ([1.0, 1.0], "sample_weight"),
        ([1.0, -1.0, 1.0], "[Nn]egative"),
        ([0.0, 0.0, 0.0], "non-zero"),
        ([1.0, np.nan, 1.0], "NaN"),
    ],
)
def test_bad_sample_weight(weight, match):
    with pytest.raises(ValueError, match=match):
        EKMeans(1).fit([[0.0], [1.0], [2.0]], sample_weight=weight)


def test_verbose_prints_progress(capsys):
    EKMeans(3, random_state=0, verbose=1).fit(set_a()[0])
    assert "pass 1: best objective" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_stops_a_fit():
    code = (
        "import numpy as np, ekmfast\n"
        "X = np.random.default_rng(0).standard_normal((200_000, 16))\n"
        "print('ready', flush=True)\n"
        "ekmfast.EKMeans(8, tol=0, max_iter=10**6, n_init=2).fit(X)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    time.sleep(1)
    assert run.poll() is None, "the fit ended before it could be interrupted"
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=30)
    assert run.returncode != 0
    assert "KeyboardInterrupt" in error


def test_show_config(capsys):
    config = ekmfast.show_config("dict")
    assert config["isa"] in config["isa_available"]
    ekmfast.show_config()
    assert ekmfast.__version__ in capsys.readouterr().out
    with pytest.raises(ValueError, match="mode must be"):
        ekmfast.show_config("xml")  # type: ignore[call-overload]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("cls", "edge"),
    [
        (EKMeans, max),
        (ekmfast.MiniBatchEKMeans, max),
        (ekmfast.SemiSupervisedEKMeans, max),
        (ekmfast.MaximumEntropyKMeans, min),
    ],
)
def test_a_search_by_score_ends_at_an_edge_and_the_documentation_says_so(cls, edge):
    X, y = set_a()
    rows = np.random.default_rng(0).permutation(len(X))[:1000]
    X, y = X[rows], y[rows]
    grid = {"alpha": [0.5, 1.0, 2.0, 50.0]}
    model = cls(3, random_state=0, n_init=4)
    if cls is EKMeans:  # what the documentation says to do where labels are known
        known = GridSearchCV(model, grid, cv=2, scoring="adjusted_rand_score").fit(X, y)
        assert known.best_params_["alpha"] < 50
        assert adjusted_rand_score(y, known.predict(X)) > 0.95
    assert GridSearchCV(model, grid, cv=2).fit(X).best_params_["alpha"] == edge(grid["alpha"])
    assert "GridSearchCV" in cls.__doc__.split("scale :")[0]
    assert "GridSearchCV" in cls.score.__doc__
