"""Fits to many rows at one alpha: restarts run on some rows, and the best of them on all."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans, FuzzyCMeans, HardKMeans, MaximumEntropyKMeans
from ekmfast.blocks import from_arrays
from ekmfast.estimators import fullbatch
from ekmfast.fit.coarse import MOST
from ekmfast.fit.problem import Problem

ALPHA = 0.5
ESTIMATORS = [
    EKMeans(4, alpha=ALPHA, random_state=0),
    HardKMeans(4, random_state=0),
    MaximumEntropyKMeans(4, alpha=ALPHA, random_state=0),
    FuzzyCMeans(4, fuzzifier=1.5, random_state=0),
]


def clusters(n_rows=30_000, small=30):
    rng = np.random.default_rng(0)
    y = np.r_[rng.choice(3, n_rows - small, p=[0.7, 0.2, 0.1]), np.full(small, 3)]
    centres = rng.normal(size=(4, 5)) * 6
    return centres[y] + rng.normal(size=(n_rows, 5)), y


@pytest.fixture
def shapes(monkeypatch):
    """The number of rows and of runs of each iteration."""
    found, solve = [], Problem.solve

    def watched(self, starts, *args, **more):
        found.append((self.survey.n_rows, len(starts)))
        return solve(self, starts, *args, **more)

    monkeypatch.setattr(Problem, "solve", watched)
    return found


# The lowest J of maximum entropy has three clusters: the small one is not worth its entropy.
@pytest.mark.filterwarnings("ignore:only 3 of 4 centroids are distinct")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_the_objective_is_that_of_runs_over_all_rows(estimator, shapes, monkeypatch):
    X, _ = clusters()
    model = estimator.fit(X)
    least = model.objective_
    (sample, n_runs), (all_rows, n_kept), *last = shapes
    assert sample < 13_000
    assert n_runs == 16
    assert all_rows == len(X)
    assert 1 <= n_kept <= MOST
    # If there are several, they compute in float32, and the best of them goes on in float64.
    assert last == ([(len(X), 1)] if n_kept > 1 else [])
    alone = [
        type(estimator)(**estimator.get_params() | {"n_init": 1, "random_state": i})
        for i in range(16)
    ]
    assert least <= min(one.fit(X).objective_ for one in alone) * (1 + 1e-6)
    # Other rows are drawn as starts than in a fit whose restarts read all rows.
    monkeypatch.setattr(fullbatch, "is_worth_a_sample", lambda *_: False)
    shapes.clear()
    assert least <= estimator.fit(X).objective_ * (1 + 1e-3)
    assert shapes == [(len(X), 16), (len(X), 1)]


# Some of these rows have fewer clusters at this alpha (in the cosine most have), which is no matter
# here: the runs of the sample and of all rows are compared by their settings.
@pytest.mark.filterwarnings("ignore:only . of 4 centroids are distinct")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("kind", ["dense", "sparse", "cosine", "partial", "blocks"])
def test_runs_on_the_sample_have_the_weights_of_the_estimator(estimator, kind, monkeypatch):
    X, _ = clusters()
    more = {"cosine": {"metric": "cosine"}, "partial": {"missing": "partial"}}.get(kind, {})
    if kind == "sparse":
        X = csr_matrix(X)
    elif kind == "partial":
        X[::7, 1] = np.nan
    elif kind == "blocks":
        X = from_arrays([X[:20_000], X[20_000:]])
    found, solve = [], Problem.solve

    def watched(self, *args, **options):
        found.append((self.rows.weighting, self.rows.fuzzifier))
        return solve(self, *args, **options)

    monkeypatch.setattr(Problem, "solve", watched)
    type(estimator)(**estimator.get_params() | more).fit(X)
    of_sample, *of_all = found
    assert set(of_all) == {of_sample}


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e17], ids=str)
@pytest.mark.parametrize("estimator", [HardKMeans, FuzzyCMeans])
def test_the_labels_do_not_depend_on_the_unit_of_the_rows(estimator, scale):
    X, y = clusters(small=3000)
    labels = estimator(4, random_state=0).fit((X * scale).astype(np.float32)).labels_
    assert adjusted_rand_score(y, labels) > 0.99


def test_a_small_cluster_that_the_sample_hardly_has_is_found():
    X, y = clusters(200_000, small=20)
    labels = EKMeans(4, alpha=ALPHA, random_state=0).fit(X).labels_
    (own,) = np.unique(labels[y == 3])
    assert_array_equal(labels == own, y == 3)


def test_few_rows_and_single_starts_are_not_sampled(shapes):
    X, _ = clusters()
    EKMeans(4, alpha=ALPHA, random_state=0).fit(X[:14_000])
    EKMeans(4, alpha=ALPHA, n_init=1, random_state=0).fit(X)
    EKMeans(4, alpha=ALPHA, init=X[:4], n_init=3, random_state=0).fit(X)
    # Of several runs the best goes on in float64.
    assert shapes == [(14_000, 16), (14_000, 1), (30_000, 1), (30_000, 3), (30_000, 1)]


def test_blocks_and_weights_are_sampled_too():
    X, _ = clusters()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(X))
    estimator = EKMeans(4, alpha=ALPHA, random_state=0)
    model = estimator.fit(X, sample_weight=weight)
    kept = model.cluster_centers_
    blocks = from_arrays([X[:20_000], X[20_000:]], sample_weight=[weight[:20_000], weight[20_000:]])
    again = estimator.fit(blocks).cluster_centers_
    order, other = kept[:, 0].argsort(), again[:, 0].argsort()
    assert_allclose(again[other], kept[order], atol=1e-3)


def test_a_fit_goes_on_from_its_file_with_a_larger_max_iter(tmp_path):
    X, _ = clusters()
    X += np.random.default_rng(2).normal(size=X.shape) * 4
    path = tmp_path / "fit.npz"
    parameters = {"alpha": ALPHA, "random_state": 0, "tol": 1e-9}
    with pytest.warns(ConvergenceWarning, match="stopped after 3 passes"):
        EKMeans(5, max_iter=3, **parameters).fit(X, checkpoint=path, checkpoint_every=1)
    went_on = EKMeans(5, **parameters).fit(X, checkpoint=path)
    whole = EKMeans(5, **parameters).fit(X)
    assert_array_equal(went_on.cluster_centers_, whole.cluster_centers_)
