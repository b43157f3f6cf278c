"""The kernel that seeding rests on: squared distances to the nearest seed, for many seedings."""

import numpy as np
import pytest

from ekmfast import _core, _reference
from ekmfast.fit.seeding import _choose_rows
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.unit import UnitRows

DTYPES = [np.float32, np.float64]
# One row, tails of every panel, several blocks and chunks; few and many features; tiles of
# candidates that are whole, narrower, or shared by seedings.
SHAPES = [
    # n, d, seedings, candidates
    (1, 1, 1, 1),
    (7, 2, 3, 2),
    (23, 3, 1, 5),
    (49, 16, 4, 1),
    (1000, 5, 12, 3),
    (5001, 2, 2, 4),
    (3001, 33, 5, 3),
    (500, 257, 2, 2),
]


def problem(n, d, seedings, candidates, dtype, offset=0.0):
    rng = np.random.default_rng([n, d, seedings])
    X = (rng.normal(size=(n, d)) + offset).astype(dtype)
    C = X[rng.integers(0, n, size=(seedings, candidates))].astype(float)
    C[::2] += rng.normal(size=C[::2].shape)  # rows of X, and points that are none
    s = rng.integers(0, 3, size=n).astype(dtype)
    closest = rng.chisquare(d, size=(seedings, n)).astype(dtype)
    return X, C, s, closest


def distances(X, C):
    """(S, L, N) in double, from differences."""
    return np.stack([_reference.squared_distances(X.astype(float), c).T for c in C])


def tolerance(X, C, d2):
    """How far a squared distance may be off: sums of d terms as large as ||y||^2 + ||c||^2, until
    half their digits cancel; from there on sums of the differences' own squares."""
    eps, half = (1.2e-7, 2.0**-12) if X.dtype == np.float32 else (2.3e-16, 2.0**-26)
    d = X.shape[1]
    rows = np.arange(min(15, len(X))) * len(X) // min(15, len(X))
    origin = np.sort(X[rows].astype(float), axis=0)[len(rows) // 2]
    size = ((X - origin) ** 2).sum(1) + ((C - origin) ** 2).sum(-1)[..., None]
    # A difference is formed from two centred numbers, each rounded once.
    near = (4 + np.sqrt(d)) * eps * d2 + 4 * eps * np.sqrt(size * d2) + 4 * eps**2 * size
    far = (4 + np.sqrt(d)) * eps * size
    return np.where(d2 < half * size / 2, near, far)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_potentials_and_update(shape, offset, dtype, isa):
    n, _, seedings, candidates = shape
    X, C, s, closest = problem(*shape, dtype, offset)
    d2 = distances(X, C)
    error = tolerance(X, C, d2)
    # A block of up to 1536 rows is summed in the dtype.
    adding = 4 * np.finfo(dtype).eps * np.sqrt(min(n, 1536)) + 4 * np.finfo(dtype).eps
    for weight in (None, s):
        before = closest.copy()
        got = _core.closest(X, C, closest, weight, None, 2)
        np.testing.assert_array_equal(closest, before)
        assert (got.shape, got.dtype) == ((seedings, candidates), np.float64)
        w = np.ones(n) if weight is None else weight.astype(float)
        expected = np.minimum(closest.astype(float)[:, None], d2) @ w
        assert (np.abs(got - expected) <= error @ w + adding * expected).all()

    for i in range(candidates):
        updated = closest.copy()
        one = np.ascontiguousarray(C[:, i : i + 1])
        potential = _core.closest(X, one, updated, s, None, 2, True)
        expected = np.minimum(closest, d2[:, i])
        assert (np.abs(updated - expected) <= error[:, i]).all()
        # The sum of the stored numbers, to the rounding of its additions.
        total = updated.astype(float) @ s.astype(float)
        np.testing.assert_allclose(potential[:, 0], total, rtol=adding)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_seed_replaces_infinity(dtype, isa):
    X, C, _, _ = problem(1000, 5, 3, 1, dtype)
    closest = np.full((3, 1000), np.inf, dtype)
    _core.closest(X, C, closest, None, None, 1, True)
    assert np.isfinite(closest).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 7, 40])
def test_a_row_that_is_a_seed_is_at_zero_and_its_neighbour_is_not(d, dtype, isa):
    # Two groups so far apart that inside a group ||y||^2 + ||c||^2 - 2 y.c has no digit left.
    rng = np.random.default_rng(d)
    X = rng.normal(size=(600, d))
    X[300:] += 3e3 if dtype is np.float32 else 1e8
    X[50] = X[20]
    X[333] = X[310]
    X = X.astype(dtype)
    seeds = np.array([20, 310])
    closest = np.full((2, 600), np.inf, dtype)
    _core.closest(X, X[seeds][:, None].astype(float), closest, None, None, 1, True)
    d2 = distances(X, X[seeds][:, None].astype(float))[:, 0]
    np.testing.assert_array_equal(closest == 0, d2 == 0)
    assert (closest[[0, 0, 1, 1], [20, 50, 310, 333]] == 0).all()
    # Centred numbers are as large as the gap: their own rounding is what is left.
    rounding = np.finfo(dtype).eps * np.abs(X).max() * np.sqrt(d)
    inside = (np.abs(np.sqrt(closest) - np.sqrt(d2)))[[0, 1], :]
    assert (inside[0, :300] <= rounding).all()
    assert (inside[1, 300:] <= rounding).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_threads(dtype, isa):
    X, C, s, _ = problem(20_011, 5, 6, 3, dtype)
    closest = np.full((6, len(X)), np.inf, dtype)
    one, two = closest.copy(), closest.copy()
    first = C[:, :1].copy()
    a = _core.closest(X, first, one, s, None, 1, True)
    b = _core.closest(X, first, two, s, None, 3, True)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one, two)
    for n_threads in (2, 3):
        np.testing.assert_array_equal(
            _core.closest(X, C, one, s, None, n_threads), _core.closest(X, C, one, s, None, 1)
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_seedings_do_not_touch_each_other(dtype, isa):
    X, C, s, closest = problem(1000, 5, 12, 3, dtype)
    together = _core.closest(X, C, closest, s, None, 1)
    for i in range(12):
        alone = _core.closest(X, C[i : i + 1].copy(), closest[i : i + 1].copy(), s, None, 1)
        # Tiles of other widths may fuse a multiply and an add elsewhere.
        np.testing.assert_allclose(together[i], alone[0], rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_shows(dtype, bad, isa):
    X, C, s, closest = problem(100, 3, 2, 2, dtype)
    X[41, 1] = bad
    s[41] = 0
    assert not np.isfinite(_core.closest(X, C, closest, s, None, 1)).any()


def test_a_candidate_beyond_float32_shows(isa):
    X, _, _, closest = problem(100, 3, 2, 2, np.float32)
    C = np.full((2, 1, 3), 1e300)
    assert not np.isfinite(_core.closest(X, C, closest, None, None, 1)).any()


def test_views_of_rows(isa):
    X, C, _, closest = problem(100, 6, 2, 2, np.float64)
    wide = np.zeros((100, 9))
    wide[:, :6] = X
    np.testing.assert_array_equal(
        _core.closest(wide[:, :6], C, closest, None, None, 1),
        _core.closest(X, C, closest, None, None, 1),
    )


def test_no_rows(isa):
    X = np.empty((0, 3))
    got = _core.closest(X, np.zeros((2, 2, 3)), np.empty((2, 0)), None, None, 1)
    np.testing.assert_array_equal(got, np.zeros((2, 2)))


def test_wrong_arguments_are_refused():
    X, C, s, closest = problem(10, 3, 2, 2, np.float64)
    with pytest.raises(ValueError, match="one candidate"):
        _core.closest(X, C, closest, None, None, 1, True)
    with pytest.raises(ValueError, match="candidates must have shape"):
        _core.closest(X, C[..., :2].copy(), closest, None, None, 1)
    with pytest.raises(ValueError, match="closest must be"):
        _core.closest(X, C, closest[:, :9].copy(), None, None, 1)
    with pytest.raises(ValueError, match="closest must be"):
        _core.closest(X, C, closest.astype(np.float32), None, None, 1)
    with pytest.raises(ValueError, match="sample_weight must be"):
        _core.closest(X, C, closest, s[:4], None, 1)
    with pytest.raises(ValueError, match="n_threads"):
        _core.closest(X, C, closest, None, None, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_backend_passes_on_its_data(dtype):
    X, C, s, closest = problem(1000, 5, 3, 2, dtype, offset=1000.0)
    backend = ArrayRows(X, s, 2)
    expected = _core.closest(X, C, closest, s, None, 1)
    np.testing.assert_array_equal(backend.closest(C, closest), expected)
    backend.statistics(C, np.ones(3))  # keeps the reference
    np.testing.assert_array_equal(backend.closest(C, closest), expected)
    updated = closest.copy()
    backend.closest(C[:, :1].copy(), updated, update=True)
    assert (updated <= closest).all()
    assert (updated < closest).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [1, 7, 3001, 70_001])
def test_rows_are_drawn_by_their_shares_of_the_sum(n, weighted, dtype):
    rng = np.random.default_rng(n)
    closest = rng.chisquare(3, size=(5, n)).astype(dtype)
    closest[1] = 0  # all rows are equally likely then
    closest[2, n // 2 :] = 0
    s = rng.integers(0, 3, size=n).astype(float) if weighted else None
    uniform = rng.uniform(size=(5, 4))
    uniform[:, 0] = 0
    total = (closest * (np.ones(n) if s is None else s)).cumsum(axis=1)
    expected = [
        (u * n).astype(int) if not t[-1] > 0 else np.searchsorted(t, u * t[-1], side="right")
        for t, u in zip(total, uniform, strict=True)
    ]
    for n_threads in (1, 4):
        np.testing.assert_array_equal(_core.draw_rows(closest, s, uniform, n_threads), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["rows", "weights", "cosine"])
@pytest.mark.parametrize("farthest", [False, True])
@pytest.mark.parametrize(
    ("n", "d", "seedings", "k"),
    [(9, 1, 1, 4), (1000, 5, 7, 1), (2500, 6, 3, 5), (5001, 33, 5, 6)],  # few rows are kept packed
)
def test_rows_are_chosen_as_by_single_passes(n, d, seedings, k, farthest, kind, dtype, isa):
    X = problem(n, d, 1, 1, dtype, offset=3.0)[0]
    s = np.arange(n).astype(dtype) % 3 if kind == "weights" else None
    found = []
    for n_threads in (0, 1, 2, 4):
        rows = (UnitRows if kind == "cosine" else ArrayRows)(X, s, max(n_threads, 1))
        rows.survey()
        rows.compiled = n_threads > 0
        random_state = np.random.RandomState(0)
        found.append(_choose_rows(rows, k, farthest, seedings, random_state))
        found.append(random_state.uniform())
        assert found[-2].shape == (seedings, k)
        np.testing.assert_array_equal(found[-2], found[0])
        assert found[-1] == found[1]  # as many random numbers are drawn


def test_rows_to_choose_that_do_not_fit_are_refused():
    X, first, uniform = np.ones((5, 2)), np.zeros(3), np.zeros((1, 3, 2))
    for bad, message in (
        ({"first": np.ones(3)}, "first must be >= 0 and < 1"),
        ({"first": np.zeros(0)}, r"first must have shape \(s,\)"),
        ({"uniform": np.full((1, 3, 2), np.nan)}, "uniform must be >= 0 and < 1"),
        ({"uniform": np.zeros((1, 2, 2))}, r"uniform must have shape \(k - 1, s, l\)"),
        ({"X": np.ones((0, 2))}, "X must have a row"),
    ):
        given = {"X": X, "sample_weight": None, "first": first, "uniform": uniform}
        with pytest.raises(ValueError, match=message):
            _core.choose_rows(**given | bad, reference=None, n_threads=1)
    # Where nothing has a mass all rows are equally likely. The product with n is rounded up here.
    last = np.full((1, 1, 1), np.nextafter(1, 0))
    chosen = _core.choose_rows(np.ones((3, 1)), np.zeros(3), last[0, 0], last, None, 1)
    np.testing.assert_array_equal(chosen, [[2, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_of_several_results_are_those_of_each(shape, dtype, isa):
    n, _, n_results, k = shape
    X, C, *_ = problem(*shape, dtype)
    names = np.arange(k, 0, -1, np.int32) * np.arange(1, n_results + 1, dtype=np.int32)[:, None]
    for factor in (None, np.linspace(0.5, 2, n).astype(dtype)):
        labels, squared = np.empty(n, np.int32), np.empty(n, dtype)
        for n_threads in (1, 3):
            found = _core.label_each(X, C, names, n_threads, factor)
            for own, name, centroids in zip(found, names, C, strict=True):
                _core.assign(X, centroids, labels, squared, 1, factor)
                np.testing.assert_array_equal(own, name[labels])
