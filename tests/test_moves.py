"""Moves of the search for a mixture: two components become one, and another becomes two."""

import math

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ekmfast import EquilibriumMixture, _core
from ekmfast._reference import halves_of_labels
from ekmfast.fit.mixture import classified, moves, shapes
from ekmfast.fit.mixture.classified import Groups
from ekmfast.fit.mixture.labelled import from_labels
from ekmfast.fit.mixture.moves import moved_labels
from ekmfast.fit.mixture.rows import ScaledRows, label
from ekmfast.fit.mixture.shapes import Runs

KINDS = ["spherical", "diag", "tied", "full"]


def rows_of(X, weight=None):
    return ScaledRows(np.ascontiguousarray(X), weight, np.zeros(X.shape[1]), 1.0, 1)


def clusters(rng, far=8.0, d=4):
    """Two clusters beside each other, one of them small, and a large one elsewhere."""
    y = np.repeat([0, 1, 2], [200, 40, 400])
    centres = np.zeros((3, d))
    centres[1, 0], centres[2, 1] = far, 5 * far
    return rng.normal(size=(len(y), d)) + centres[y], y


def wrong(X, y):
    """Labels with both small clusters in one, and with the large one cut into two."""
    return np.where(y < 2, 0, 1 + (X[:, 2] > 0))


@pytest.mark.parametrize("degrees", [3.0, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_the_best_move_mends_a_wrong_mixture(kind, degrees):
    X, y = clusters(np.random.default_rng(0))
    mixture = from_labels(rows_of(X), wrong(X, y), kind, degrees)
    (labels,) = moved_labels(mixture, rows_of(X), 1)
    assert adjusted_rand_score(y, labels) > 0.95
    weighted = rows_of(X, np.full(len(X), 3.0))
    mixture = from_labels(weighted, wrong(X, y), kind, degrees)
    np.testing.assert_array_equal(moved_labels(mixture, weighted, 1)[0], labels)


def test_a_far_row_gives_its_component_up_where_tails_are_heavy():
    X, y = clusters(np.random.default_rng(1))
    X[-1] = 60  # the component of this row alone is needed elsewhere
    labels = np.where(y < 2, 0, 1)
    labels[-1] = 2
    mixture = from_labels(rows_of(X), labels, "diag", 3.0)
    assert np.count_nonzero(label(mixture, rows_of(X)) == 2) == 1
    (moved,) = moved_labels(mixture, rows_of(X), 1)
    assert adjusted_rand_score(y[:-1], moved[:-1]) > 0.95


def test_of_two_components_one_may_be_given_up():
    X, y = clusters(np.random.default_rng(2))
    X, y = np.vstack([X[y < 2], np.full((1, 4), 60.0)]), np.append(y[y < 2], 0)
    mixture = from_labels(rows_of(X), np.repeat([0, 1], [240, 1]), "diag", 3.0)
    (moved,) = moved_labels(mixture, rows_of(X), 1)
    assert adjusted_rand_score(y[:-1], moved[:-1]) > 0.95


def test_there_is_no_move_where_none_can_help():
    X, y = clusters(np.random.default_rng(0), far=12.0)
    for kind in KINDS:
        mixture = from_labels(rows_of(X), y, kind, math.inf)
        assert moved_labels(mixture, rows_of(X), 3) == []
    alone = from_labels(rows_of(X), np.zeros(len(X), np.intp), "diag", math.inf)
    assert moved_labels(alone, rows_of(X), 3) == []


def test_the_search_ends_with_the_mended_mixture():
    X, y = clusters(np.random.default_rng(0))
    rows = rows_of(X)
    runs = Runs(rows, ("diag",), (math.inf,), 100, 1e-4)
    short = runs.short([wrong(X, y)])
    stuck, moved = runs.search(short), runs.search(short, moves=True)
    assert adjusted_rand_score(y, label(stuck.mixture, rows)) < 0.7
    assert adjusted_rand_score(y, label(moved.mixture, rows)) > 0.98
    assert moved.criterion > stuck.criterion + shapes.MOVE_GAIN
    again = runs.search([moved], moves=True)
    assert again.criterion == pytest.approx(moved.criterion, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_moves_never_lower_the_criterion(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 3)) * rng.uniform(0.5, 2, 3) + 3 * rng.integers(0, 3, (300, 1))
    rows = rows_of(X)
    runs = Runs(rows, ("diag", "full"), (4.0, math.inf), 50, 1e-4)
    short = runs.short([rng.integers(0, 4, 300) for _ in range(3)])
    stuck, moved = runs.search(short), runs.search(short, moves=True)
    if moved.mixture.degrees > shapes.HEAVY:
        assert moved.criterion >= stuck.criterion - 1e-9
    else:
        assert moved.mixture_criterion >= stuck.mixture_criterion - 1e-9


@pytest.mark.parametrize("degrees", [3.0, math.inf])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "X",
    [
        np.repeat([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [20, 20, 5], axis=0),  # equal rows
        np.column_stack([np.arange(45.0), np.zeros(45)]),  # a constant feature
        np.arange(90.0).reshape(45, 2) * 1e-9,
        np.random.default_rng(0).normal(size=(45, 2)) * [1.0, 1e-12],
    ],
)
@pytest.mark.parametrize("weights", ["ones", "varied"])
def test_strange_rows_have_moves_without_a_warning(X, kind, degrees, weights):
    s = None if weights == "ones" else np.repeat([1e-300, 1.0, 1e300], 15)
    rows = rows_of(X, s)
    labels = np.arange(45) // 15
    mixture = from_labels(rows, labels, kind, degrees)
    for moved in moved_labels(mixture, rows, 3):
        assert moved.shape == (45,)
        assert set(moved.tolist()) <= {0, 1, 2}


def test_units_of_features_do_not_change_moves():
    X, y = clusters(np.random.default_rng(3), far=4.0)
    found = []
    for units in (np.ones(4), np.array([1.0, 0.5, 3.0, 2.0])):
        mixture = from_labels(rows_of(X * units), wrong(X, y), "diag", math.inf)
        found.append(moved_labels(mixture, rows_of(X * units), 3))
    np.testing.assert_array_equal(found[0], found[1])


HALVING = {"farthest": 1.5, "least": 3, "prior": 20.0, "refined": 5}


@pytest.mark.parametrize(("n", "d", "k"), [(5, 1, 1), (40, 2, 3), (300, 5, 4), (5000, 17, 2)])
def test_halves_are_those_of_the_specification(n, d, k):
    rng = np.random.default_rng(n)
    labels = rng.integers(0, k, n).astype(np.int32)
    X = rng.normal(size=(n, d)) + 4 * rng.integers(0, 2, (n, 1)) * np.eye(d)[0]
    X *= rng.uniform(0.5, 3, (n, 1))
    s, factors = rng.uniform(0, 2, n), rng.uniform(1, 1.2, d)
    want_rows, want_half = halves_of_labels(X * factors, s, labels, k, **HALVING)
    for n_threads in (1, 2):
        rows, half = _core.halves_of_labels(X, s, labels, factors, k, *HALVING.values(), n_threads)
        np.testing.assert_allclose(rows, want_rows, atol=1e-12)
        for c in range(k):  # either half may be the second one
            own = labels == c
            same = (half[own] == want_half[own]).all()
            assert same or (half[own] != want_half[own]).all()
    assert n < 6 or want_half.any()


def test_rows_that_cannot_be_split_have_no_halves():
    def half(X, s=None, **changed):
        s = np.ones(len(X)) if s is None else s
        settings = (HALVING | changed).values()
        zeros = np.zeros(len(X), np.int32)
        return _core.halves_of_labels(X, s, zeros, np.ones(X.shape[1]), 1, *settings, 1)[1]

    X = np.random.default_rng(0).normal(size=(20, 2))
    assert half(X).any()
    assert not half(X[:5]).any()
    assert not half(X, least=11).any()
    assert not half(X, np.zeros(20)).any()
    assert not half(np.ones((20, 2))).any()
    strange = np.where(X > 1, np.nan, X)
    strange[0] = np.inf
    assert half(strange).shape == (20,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": np.zeros(5)}, r"X must have shape \(n, d\)"),
        ({"X": np.zeros((5, 4))[:, ::2]}, "X must be C-contiguous"),
        ({"sample_weight": np.ones(4)}, "sample_weight must be C-contiguous"),
        ({"labels": np.full(5, 3, np.int32)}, "labels must be >= 0 and < n_clusters"),
        ({"labels": np.full(5, -1, np.int32)}, "labels must be >= 0 and < n_clusters"),
        ({"factors": np.ones(3)}, "factors must be C-contiguous"),
        ({"n_clusters": 0}, "n_clusters must be >= 1"),
        ({"farthest": np.nan}, "farthest must be finite and above 0"),
        ({"prior": 0.0}, "prior must be finite and above 0"),
        ({"least": 0}, "least must be >= 1"),
        ({"n_threads": 0}, "n_threads must be >= 1"),
    ],
)
def test_bad_arguments_of_halves(changed, message):
    good = {"X": np.zeros((5, 2)), "sample_weight": np.ones(5), "labels": np.zeros(5, np.int32)}
    good |= {"factors": np.ones(2), "n_clusters": 3, **HALVING, "n_threads": 1}
    with pytest.raises(ValueError, match=message):
        _core.halves_of_labels(**(good | changed))


@pytest.mark.parametrize("full", [False, True])
def test_groups_are_as_likely_as_their_definition_says(full):
    rng = np.random.default_rng(0)
    X, s, y = rng.normal(size=(60, 3)), rng.uniform(0.5, 2, 60), np.arange(60) % 4
    groups = Groups.of(X, s, y, 5, full=full)
    united = groups.united([0, 1, 4], [2, 3, 4])
    both = Groups.of(X, s, y % 2, 2, full=full)
    for name in ("mass", "means", "second"):
        np.testing.assert_allclose(getattr(united, name)[:2], getattr(both, name), atol=1e-12)
        assert not getattr(united, name)[2].any()  # of no rows

    common = groups.common
    prior = 2.0 * 4 if full else 100.0
    expected = []
    for i in range(2):
        own = y % 2 == i
        mass, deviations = s[own].sum(), X[own] - np.average(X[own], axis=0, weights=s[own])
        second = (deviations.T * s[own]) @ deviations
        second = second if full else np.diag(np.diag(second))
        scatter = (second + prior * (common if full else np.diag(common))) / (mass + prior)
        size, inside = np.linalg.slogdet(scatter)[1], np.trace(np.linalg.solve(scatter, second))
        expected.append(mass * np.log(mass) - (mass * size + inside) / 2)
    np.testing.assert_allclose(united.likelihoods(common), [*expected, 0.0], atol=1e-12)


def test_a_fit_with_moves_is_the_same_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    X = np.vstack(
        [rng.standard_t(3, (400, 3)), rng.normal(5, 1, (80, 3)), rng.normal(9, 1, (9, 3))]
    )
    fits = [EquilibriumMixture(4, random_state=0, n_threads=n).fit(X) for n in (1, 2)]
    np.testing.assert_array_equal(fits[0].means_, fits[1].means_)


def test_pairs_are_compared_some_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(70, 3)), np.arange(70) % 7
    groups = Groups.of(X, np.ones(70), y, 7, full=True)
    falls, pairs = groups.joined(groups.common)
    assert pairs.tolist() == [[i, j] for i in range(7) for j in range(i + 1, 7)]
    monkeypatch.setattr(classified, "MOST_NUMBERS", 20)  # two matrices
    np.testing.assert_array_equal(groups.joined(groups.common)[0], falls)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_moves_are_among_the_least_losses(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 8))
    X = rng.normal(size=(200, 2)) + 3 * rng.integers(0, 3, (200, 1))
    mixture = from_labels(rows_of(X), np.arange(200) % k, "diag", 3.0)
    monkeypatch.setattr(moves, "SLACK", math.inf)
    every = moved_labels(mixture, rows_of(X), 1000)  # so many losses are compared
    for count in (1, 2, 5):
        found = moved_labels(mixture, rows_of(X), count)
        np.testing.assert_array_equal(found, every[:count])
