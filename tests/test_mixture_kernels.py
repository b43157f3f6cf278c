"""The kernels of EquilibriumMixture: sums, steps and densities, compared with the reference."""

import math
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from ekmfast import _core
from ekmfast._reference import mixture_log_joint, mixture_step, mixture_sums
from ekmfast.fit.mixture.iteration import Race, expectation_maximization
from ekmfast.fit.mixture.kinds import KINDS
from ekmfast.fit.mixture.rows import ScaledRows, densities, label
from ekmfast.fit.mixture.step import SHRUNK, Step
from ekmfast.fit.mixture.student import PARAMETERS, StudentMixture, stacked
from ekmfast.fit.mixture.sums import Sums, moments_of_labels

NAMES = ("mass", "weight", "first", "second", "background", "likelihood", "classified")
# Around the edges of panels (24, 48), slices (1536) and vectors of features.
ROWS = (1, 7, 24, 25, 48, 49, 1535, 3001)
SHAPES = ((1, 1), (2, 3), (3, 5), (5, 8), (3, 9), (4, 16), (10, 20), (2, 33))
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def mixture_of(kind, degrees, k, d, seed=0):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(k, d, d)) / (2 * np.sqrt(d)) + np.eye(d)
    scatters = half @ np.swapaxes(half, 1, 2)
    if kind == "tied":
        scatters[:] = scatters[0]
    if kind in ("diag", "spherical"):
        scatters = rng.uniform(0.5, 2, (k, d))
    if kind == "spherical":
        scatters[:] = scatters[:, :1]
    weights = rng.uniform(1, 2, k)
    means = rng.normal(size=(k, d))
    return StudentMixture(weights / weights.sum(), means, scatters, kind, degrees, np.ones(k))


def rows_of(n, d, dtype="float64", *, weighted=False, seed=1):
    """Rows as the kernels take them, and (X - centre) / unit with their weights in float64."""
    rng = np.random.default_rng(seed)
    centre, unit = 3 * rng.normal(size=d), 1.7
    X = (centre + unit * 1.5 * rng.normal(size=(n, d))).astype(dtype)
    s = rng.uniform(0, 2, n).astype(dtype) if weighted else None
    scaled = (X.astype(np.float64) - centre) / unit
    weights = np.ones(n) if s is None else s.astype(np.float64)
    return ScaledRows(X, s, centre, unit, n_threads=2), scaled, weights


def specified(mixture):
    beside = float(mixture.log_background)
    return mixture.weights, mixture.means, mixture.scatters, mixture.degrees, beside


def with_background(mixture, share=0.3):
    """The mixture and a background, which is the likeliest of some rows."""
    d = mixture.means.shape[1]
    return replace(
        mixture, weights=(1 - share) * mixture.weights, background=share, log_volume=1.5 * d
    )


def assert_near(got, wanted, dtype, name=""):
    """Errors relative to the largest number of the array, whose sums may cancel elsewhere."""
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("degrees", [3.0, 1e7, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_the_reference(kind, degrees, dtype, isa):
    for i, (k, d) in enumerate(SHAPES):
        mixture = mixture_of(kind, degrees, k, d)
        for n in ROWS[i % 2 :: 2]:
            rows, scaled, s = rows_of(n, d, dtype, weighted=n % 3 > 0)
            got = rows.expectation(mixture[None])[0]
            wanted = mixture_sums(scaled, s, *specified(mixture))
            for name, value in zip(NAMES, wanted, strict=True):
                assert_near(getattr(got, name), value, dtype, f"{name}, {n} x {k} x {d}")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("degrees", [3.0, 1e7, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_densities_are_those_of_the_reference(kind, degrees, dtype, isa):
    for i, (k, d) in enumerate(SHAPES):
        mixture = mixture_of(kind, degrees, k, d)
        for n in ROWS[i % 2 :: 2]:
            rows, scaled, _ = rows_of(n, d, dtype)
            out = {name: np.empty(n, dtype) for name in ("largest", "density")}
            out |= {"joint": np.empty((n, k), dtype), "labels": np.empty(n, np.int32)}
            densities(mixture, rows, **out)
            wanted = mixture_log_joint(scaled, *specified(mixture)[:4])
            assert_near(out["joint"], wanted, dtype)
            assert_near(out["density"], np.logaddexp.reduce(wanted, axis=1), dtype)
            np.testing.assert_array_equal(out["largest"], out["joint"].max(axis=1))
            np.testing.assert_array_equal(out["labels"], out["joint"].argmax(axis=1))
            np.testing.assert_array_equal(label(mixture, rows), out["labels"])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("degrees", [3.0, math.inf])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_background_takes_part(kind, degrees, dtype, isa):
    seen = set()
    for k, d in SHAPES:
        mixture = with_background(mixture_of(kind, degrees, k, d))
        constant = float(mixture.log_background)
        for n in ROWS[:6]:
            rows, scaled, s = rows_of(n, d, dtype, weighted=n % 3 > 0)
            got = rows.expectation(mixture[None])[0]
            wanted = mixture_sums(scaled, s, *specified(mixture))
            for name, value in zip(NAMES, wanted, strict=True):
                assert_near(getattr(got, name), value, dtype, f"{name}, {n} x {k} x {d}")
            assert got.mass.sum() + got.background == pytest.approx(s.sum(), rel=1e-5)
            out = {name: np.empty(n, dtype) for name in ("largest", "density")}
            out |= {"joint": np.empty((n, k), dtype), "labels": np.empty(n, np.int32)}
            densities(mixture, rows, **out)
            every = np.column_stack([out["joint"], np.full(n, constant, dtype)])
            np.testing.assert_array_equal(out["labels"], np.r_[:k, -1][every.argmax(axis=1)])
            assert_near(out["largest"], every.max(axis=1), dtype)
            exact = mixture_log_joint(scaled, *specified(mixture)[:4])
            exact = np.column_stack([exact, np.full(n, constant)])
            assert_near(out["density"], np.logaddexp.reduce(exact, axis=1), dtype)
            seen |= set(out["labels"].tolist())
    assert {-1, 0, 1} <= seen


def test_small_distances_and_many_degrees_lose_no_digits(isa):
    # (v + D)/2 log(1 + q/v) with q/v down to 1e-18, where 1 + q/v has no digit of it left.
    X = np.array([[0.0], [1e-3], [1.0], [30.0]])
    for v in (1e6, 1e12):
        mixture = StudentMixture(
            np.ones(1), np.zeros((1, 1)), np.ones((1, 1)), "diag", v, np.ones(1)
        )
        joint = np.empty((4, 1))
        densities(mixture, ScaledRows(X, None, np.zeros(1), 1.0, 1), joint=joint)
        wanted = -(v + 1) / 2 * np.log1p(X**2 / v)
        np.testing.assert_allclose((joint - joint[0])[1:], wanted[1:], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_bits_do_not_depend_on_the_threads(kind, dtype, isa):
    mixtures = stacked([mixture_of(kind, v, 7, 11, seed=i) for i, v in enumerate((4.0, math.inf))])
    rows, _, _ = rows_of(40_001, 11, dtype, weighted=True)
    sums = [
        ScaledRows(rows.X, rows.sample_weight, rows.centre, rows.unit, t).expectation(mixtures)
        for t in (1, 2, 5)
    ]
    for other in sums[1:]:
        for name in NAMES:
            np.testing.assert_array_equal(getattr(other, name), getattr(sums[0], name), name)


def test_a_row_of_weight_two_is_the_row_twice():
    mixture = mixture_of("full", 6.0, 3, 4)[None]
    rows, _, _ = rows_of(500, 4)
    X = rows.X
    weighted = ScaledRows(X, np.full(500, 2.0), rows.centre, rows.unit, 1).expectation(mixture)
    twice = ScaledRows(np.concatenate([X, X]), None, rows.centre, rows.unit, 1)
    repeated = twice.expectation(mixture)
    for name in NAMES:
        wanted = getattr(repeated, name)
        np.testing.assert_allclose(getattr(weighted, name), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("degrees", [5.0, math.inf])
def test_a_component_without_weight_gets_none(degrees, isa):
    mixture = mixture_of("full", degrees, 3, 4)
    mixture.weights[1] = 0
    rows, scaled, s = rows_of(100, 4)
    got = rows.expectation(mixture[None])[0]
    assert got.mass[1] == got.weight[1] == 0
    assert not got.second[1].any()
    with np.errstate(divide="ignore"):
        wanted = mixture_sums(scaled, s, *specified(mixture))
    for name, value in zip(NAMES, wanted, strict=True):
        assert_near(getattr(got, name), value, "float64", name)


@pytest.mark.parametrize("degrees", [5.0, math.inf])
def test_rows_whose_distances_float32_cannot_hold(degrees, isa):
    # Their squares overflow in float32, so that the pass is computed in float64.
    mixture = mixture_of("full", degrees, 2, 3)
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    X[7] = 1e25
    rows = ScaledRows(X, None, np.zeros(3), 1.0, 1)
    wanted = mixture_sums(X.astype(np.float64), np.ones(60), *specified(mixture))
    got = rows.expectation(mixture[None])[0]
    for name, value in zip(NAMES, wanted, strict=True):
        assert_near(getattr(got, name), value, "float64", name)
    joint, density = np.empty((60, 2), np.float32), np.empty(60, np.float32)
    labels, largest = np.empty(60, np.int32), np.empty(60, np.float32)
    densities(mixture, rows, joint=joint, density=density, labels=labels, largest=largest)
    exact = mixture_log_joint(X.astype(np.float64), *specified(mixture)[:4])
    with np.errstate(over="ignore"):  # infinite degrees: below the least number of float32
        np.testing.assert_allclose(joint, exact.astype(np.float32), rtol=1e-6)
        wanted = np.logaddexp.reduce(exact, axis=1).astype(np.float32)
    np.testing.assert_allclose(density, wanted, rtol=1e-6)
    np.testing.assert_array_equal(labels, exact.argmax(axis=1))
    np.testing.assert_array_equal(largest, joint.max(axis=1))


def test_units_that_float32_cannot_hold():
    mixture = mixture_of("diag", 5.0, 2, 3)
    X = (np.random.default_rng(0).normal(size=(60, 3)) * 1e-41).astype(np.float32)
    got = ScaledRows(X, None, np.zeros(3), 1e-41, 1).expectation(mixture[None])[0]
    wanted = mixture_sums(X.astype(np.float64) / 1e-41, np.ones(60), *specified(mixture))
    for name, value in zip(NAMES, wanted, strict=True):
        assert_near(getattr(got, name), value, "float64", name)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_ends_a_pass(n_threads):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # Some 400 Gflop in one call: seconds.
        mixtures = stacked([mixture_of("full", 4.0, 20, 64)] * 25)
        X = np.random.default_rng(0).normal(size=(100_000, 64))
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ScaledRows(X, None, np.zeros(64), 1.0, n_threads).expectation(mixtures)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


GOOD = {
    "X": np.zeros((5, 2)),
    "centre": np.zeros(2),
    "unit": 1.0,
    "means": np.zeros((1, 3, 2)),
    "whiteners": np.ones((1, 3, 2)),
    "offsets": np.zeros((1, 3)),
    "degrees": np.ones(1),
    "background": np.full(1, -math.inf),
    "n_threads": 1,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": np.zeros(5)}, "X must be 2-d"),
        ({"X": np.zeros((5, 4))[:, ::2]}, "rows of X must be contiguous"),
        ({"centre": np.zeros(3)}, r"centre must have shape \(d,\)"),
        ({"unit": 0.0}, "unit must be finite and above 0"),
        ({"unit": math.nan}, "unit must be finite and above 0"),
        ({"means": np.zeros((3, 2))}, r"means must have shape \(s, k, d\)"),
        ({"means": np.zeros((1, 3, 3))}, r"means must have shape \(s, k, d\)"),
        ({"means": np.zeros((1, 0, 2))}, r"means must have shape \(s, k, d\)"),
        ({"whiteners": np.zeros((1, 2, 2))}, "whiteners must have shape"),
        ({"whiteners": np.zeros((1, 3, 2, 3))}, "whiteners must have shape"),
        ({"whiteners": np.zeros((1, 3))}, "whiteners must have shape"),
        ({"offsets": np.zeros((1, 2))}, r"offsets must have shape \(s, k\)"),
        ({"degrees": np.zeros(1)}, "degrees must be above 0"),
        ({"degrees": np.full(1, math.nan)}, "degrees must be above 0"),
        ({"degrees": np.ones(2)}, r"degrees must have shape \(s,\)"),
        ({"background": np.zeros(2)}, r"background must have shape \(s,\)"),
        ({"background": np.full(1, math.inf)}, "background must be finite, or -inf"),
        ({"background": np.full(1, math.nan)}, "background must be finite, or -inf"),
        ({"n_threads": 0}, "n_threads must be >= 1"),
    ],
)
def test_bad_arguments_of_the_extension(changed, message):
    nothing = dict.fromkeys(("joint", "labels", "largest", "density"))
    with pytest.raises(ValueError, match=message):
        _core.expectation(**GOOD | {"sample_weight": None} | changed)
    with pytest.raises(ValueError, match=message):
        _core.densities(**GOOD | nothing | changed)


@pytest.mark.parametrize("d", [1, 2, 5, 33])
def test_whiteners_are_inverses_of_cholesky_factors(d):
    scatters = mixture_of("full", 4.0, 6, d).scatters.reshape(2, 3, d, d)
    whiteners = _core.whiteners(scatters)
    assert (np.triu(whiteners) == whiteners).all()
    wanted = np.swapaxes(np.linalg.inv(np.linalg.cholesky(scatters)), -1, -2)
    np.testing.assert_allclose(whiteners, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_matrices_that_are_not_positive_definite_have_no_whiteners(wrong):
    scatters = np.stack([np.eye(3)] * 2)
    scatters[1, 2, 2] = wrong
    assert _core.whiteners(scatters) is None
    mixture = StudentMixture(np.ones(2), np.zeros((2, 3)), scatters, "full", 5.0, np.ones(2))
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        mixture.whiteners  # noqa: B018


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 0, 0)])
def test_scatter_matrices_must_be_square(shape):
    with pytest.raises(ValueError, match="scatters must have shape"):
        _core.whiteners(np.ones(shape))


# --------------------------------------------------------------------------------------------------
# Maximization


def sums_of(kind, k, d, scale=1.0, *, beside=0.0, empty=False, seed=0):
    """Sums of a pass over some rows in units of ``scale``, and the mixture before the step."""
    rng = np.random.default_rng(seed)
    before = mixture_of(kind, 5.0, k, d, seed)
    before = replace(
        before,
        means=scale * before.means,
        scatters=scale**2 * before.scatters,
        scales=np.ones(k) if kind == "tied" else rng.uniform(0.3, 3, k),
        log_volume=1.0 if beside else math.inf,
    )
    if empty:
        before.weights[0] = 0
    X, s = scale * 2 * rng.normal(size=(40 * d, d)), rng.uniform(0, 2, 40 * d)
    with np.errstate(divide="ignore"):
        found = mixture_sums(X, s, *specified(before)[:4])
    parts = (np.asarray(part)[None] for part in found)
    return before, replace(Sums(*parts), background=np.array([beside]))


def step_of_reference(before, sums, step=SHRUNK):
    settings = step.settings(before.kind, before.means.shape[-1])
    assert settings.pop("regularization") is None
    moments = tuple(getattr(sums, name)[0] for name in NAMES[:5])
    return mixture_step(moments, before.means, before.scales, settings.pop("kind"), **settings)


def assert_same_mixture(got, wanted, rtol=1e-11):
    for name, value in zip(PARAMETERS, wanted, strict=True):
        size = np.abs(value).max()
        np.testing.assert_allclose(
            getattr(got, name), value, rtol=rtol, atol=rtol * size, err_msg=name
        )


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_the_reference(kind, scale):
    for seed, (k, d) in enumerate(SHAPES):
        for beside, empty in ((0.0, False), (3.0, False), (1e5, k > 1), (0.0, k > 1)):
            before, sums = sums_of(kind, k, d, scale, beside=beside, empty=empty, seed=seed)
            wanted = step_of_reference(before, sums)
            assert_same_mixture(SHRUNK(before[None], sums)[0], wanted)
            assert_same_mixture(SHRUNK.by_eigenvectors(before[None], sums)[0], wanted)
            assert_same_mixture(SHRUNK(before, sums[0]), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_common_scatter_without_variance_in_a_direction(kind, monkeypatch):
    before, sums = sums_of(kind, 3, 4)
    flat = np.diag([1.0, 1.0, 1e-9, 0.0]) if before.full else np.array([1.0, 1.0, 1e-9, 0.0])
    second = flat @ sums.second @ flat if before.full else flat * sums.second
    sums = replace(sums, second=second, first=sums.first * [1.0, 1.0, 1e-9, 0.0])
    used = []
    by_eigenvectors = Step.by_eigenvectors
    monkeypatch.setattr(
        Step, "by_eigenvectors", lambda *all_: used.append(1) or by_eigenvectors(*all_)
    )
    after = SHRUNK(before[None], sums)[0]
    assert_same_mixture(after, step_of_reference(before, sums))
    assert np.isfinite(after.whiteners).all()
    assert bool(used) == before.full


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_several_mixtures_are_those_of_each(kind):
    some = [sums_of(kind, 3, 4, beside=b, seed=i) for i, b in enumerate((0.0, 2.0, 9.0))]
    before = stacked([one for one, _ in some])
    sums = Sums.stacked([own[0] for _, own in some])
    after = SHRUNK(before, sums)
    for i, (one, own) in enumerate(some):
        alone = SHRUNK(one, own[0])
        for name in PARAMETERS:
            np.testing.assert_array_equal(getattr(after[i], name), getattr(alone, name), name)


def test_a_step_that_only_regularizes():
    before, sums = sums_of("full", 3, 4)
    before = replace(before, scales=np.ones(3))
    step = Step(regularization=1e-3)
    after = step(before, sums[0])
    moved = sums.first[0] / sums.weight[0][:, None]
    outer = sums.weight[0][:, None, None] * moved[:, :, None] * moved[:, None]
    scatters = (sums.second[0] - outer) / sums.mass[0][:, None, None] + 1e-3 * np.eye(4)
    weights = sums.mass[0] / sums.mass.sum()
    wanted = weights, 0.0, before.means + moved, scatters, np.ones(3)
    assert_same_mixture(after, wanted)
    assert_same_mixture(step.by_eigenvectors(before[None], sums)[0], wanted)


# --------------------------------------------------------------------------------------------------
# Iterations


def one_by_one(mixtures, sums):
    """A step that the compiled iterations do not know."""
    return SHRUNK(mixtures, sums)


def assert_same_fits(got, wanted, rtol=1e-9):
    for one, other in zip(got, wanted, strict=True):
        assert (one.n_iter, one.converged) == (other.n_iter, other.converged)
        assert one.likelihood == pytest.approx(other.likelihood, rel=rtol)
        assert one.classified == pytest.approx(other.classified, rel=rtol)
        assert_same_mixture(
            one.mixture, [getattr(other.mixture, name) for name in PARAMETERS], rtol
        )


def starts_of(kind, k=3, d=4, beside=0.0):
    rows, _, _ = rows_of(600, d, weighted=True)
    mixtures = [mixture_of(kind, v, k, d, seed=i) for i, v in enumerate((3.0, 8.0, math.inf))]
    if beside:
        mixtures = [with_background(one, beside) for one in mixtures]
    return rows, stacked(mixtures)


@pytest.mark.parametrize("beside", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_iterations_are_those_of_single_passes(kind, beside):
    rows, mixtures = starts_of(kind, beside=beside)
    for settings in ({"max_iter": 1, "tol": 1e-3}, {"max_iter": 60, "tol": 1e-3}):
        single = expectation_maximization(mixtures, rows, step=one_by_one, **settings)
        assert_same_fits(expectation_maximization(mixtures, rows, **settings), single)


@pytest.mark.parametrize(
    ("race", "ends"),
    [
        (Race(4, 1e-4, math.inf, -math.inf), {4, 9}),  # the classification likelihood decides
        (Race(4, 1e-4, -math.inf, math.inf), {4, 9}),  # the likelihood decides
        (Race(2, 100.0, -math.inf, -math.inf), {9}),
        (Race(2, 0.0, math.inf, math.inf), {2}),
        (Race(4, 100.0, -math.inf, -math.inf, same=100.0), {4, 9}),  # the first one goes on
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_races_are_those_of_single_passes(kind, race, ends):
    rows, mixtures = starts_of(kind)
    settings = {"max_iter": 9, "tol": 0.0, "behind": race}
    single = expectation_maximization(mixtures, rows, step=one_by_one, **settings)
    assert_same_fits(expectation_maximization(mixtures, rows, **settings), single)
    assert ends <= {fitted.n_iter for fitted in single}


@pytest.mark.parametrize("offset", [0.0, 1e7])
@pytest.mark.parametrize("kind", KINDS)
def test_narrowed_iterations_are_those_of_float64_to_the_digits_of_float32(kind, offset, isa):
    """Also far from the origin, since rows are centred before they are rounded."""
    rows, _, _ = rows_of(3_001, 9, weighted=True)
    rows = replace(rows, X=rows.X + offset, centre=rows.centre + offset)
    mixtures = stacked([mixture_of(kind, v, 4, 9, seed=i) for i, v in enumerate((5.0, math.inf))])
    settings = {"max_iter": 4, "tol": 0.0}
    exact = expectation_maximization(mixtures, rows, **settings)
    narrowed = replace(rows, narrowed=True)
    found = expectation_maximization(mixtures, narrowed, **settings)
    for one, other in zip(found, exact, strict=True):
        assert one.likelihood != other.likelihood
        assert one.likelihood == pytest.approx(other.likelihood, rel=1e-5)
        assert one.classified == pytest.approx(other.classified, rel=1e-5)
        for name in PARAMETERS:
            wanted = getattr(other.mixture, name)
            atol = 1e-4 * np.abs(wanted).max()
            np.testing.assert_allclose(getattr(one.mixture, name), wanted, atol=atol, err_msg=name)
    for threads in (1, 5):
        again = expectation_maximization(mixtures, replace(narrowed, n_threads=threads), **settings)
        assert [one.likelihood for one in again] == [one.likelihood for one in found]


def test_sums_that_float32_cannot_hold_are_those_of_float64():
    X = np.random.default_rng(0).normal(size=(500, 3))
    X[7] = 1e30
    mixtures = mixture_of("diag", 5.0, 2, 3)[None]
    rows = ScaledRows(X, None, np.zeros(3), 1.0, n_threads=2)
    (exact,), (found,) = (
        expectation_maximization(mixtures, replace(rows, narrowed=narrowed), max_iter=1, tol=0.0)
        for narrowed in (False, True)
    )
    assert found.likelihood == exact.likelihood


@pytest.mark.parametrize("kind", ["tied", "full"])
def test_iterations_go_on_after_a_step_by_eigenvectors(kind):
    rows, mixtures = starts_of(kind)
    rows.X[:, 1] = rows.X[:, 0]  # so that the common scatter has no variance in a direction
    settings = {"max_iter": 40, "tol": 1e-3}
    single = expectation_maximization(mixtures, rows, step=one_by_one, **settings)
    assert_same_fits(expectation_maximization(mixtures, rows, **settings), single, rtol=1e-7)


def test_more_iterations_than_one_call_makes(monkeypatch):
    rows, mixtures = starts_of("full")
    settings = {"max_iter": 23, "tol": 0.0}
    whole = expectation_maximization(mixtures, rows, **settings)
    monkeypatch.setattr("ekmfast.fit.mixture.iteration.MOST_PASSES", 5)
    parts = expectation_maximization(mixtures, rows, **settings)
    assert [one.n_iter for one in parts] == [23, 23, 23]
    assert [one.likelihood for one in parts] == [one.likelihood for one in whole]


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_bits_of_iterations_do_not_depend_on_the_threads(kind):
    mixtures = stacked([mixture_of(kind, v, 7, 11, seed=i) for i, v in enumerate((4.0, math.inf))])
    rows, _, _ = rows_of(20_001, 11)
    first, *others = (
        expectation_maximization(mixtures, replace(rows, n_threads=t), max_iter=4, tol=0.0)
        for t in (1, 2, 5)
    )
    for fits in others:
        for one, other in zip(first, fits, strict=True):
            assert one.likelihood == other.likelihood
            for name in PARAMETERS:
                a, b = getattr(one.mixture, name), getattr(other.mixture, name)
                np.testing.assert_array_equal(a, b, name)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("n", [50, 20_000])
def test_ctrl_c_ends_iterations(n):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        mixtures = stacked([mixture_of("full", 4.0, 20, 32)] * 4)
        X = np.random.default_rng(0).normal(size=(n, 32))
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            expectation_maximization(
                mixtures, ScaledRows(X, None, np.zeros(32), 1.0, 2), max_iter=10**6, tol=0.0
            )
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


GOOD_STEP = {
    "mass": np.ones((1, 3)),
    "weight": np.ones((1, 3)),
    "first": np.zeros((1, 3, 2)),
    "second": np.ones((1, 3, 2)),
    "background": np.zeros(1),
    "means": np.zeros((1, 3, 2)),
    "scales": np.ones((1, 3)),
}
GOOD_MODEL = {**SHRUNK.settings("diag", 2), "n_threads": 1}
GOOD_ITERATIONS = {
    "X": np.zeros((5, 2)),
    "sample_weight": None,
    "centre": np.zeros(2),
    "unit": 1.0,
    "weights": np.ones((1, 3)),
    "background": np.zeros(1),
    "means": np.zeros((1, 3, 2)),
    "scatters": np.ones((1, 3, 2)),
    "scales": np.ones((1, 3)),
    "whiteners": np.ones((1, 3, 2)),
    "degrees": np.ones(1),
    "constants": np.zeros(1),
    "rounded": False,
    "log_volume": math.inf,
    "likelihood": np.zeros(1),
    "first": 1,
    "last": 3,
    "max_iter": 3,
    "total": 5.0,
    "tol": 0.0,
    "race": 9,
    "margin": 0.0,
    "least_likelihood": 0.0,
    "least_classified": 0.0,
    "same": 0.0,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mass": np.ones((1, 2))}, "mass must be C-contiguous"),
        ({"weight": np.ones((1, 3), np.float32)}, "weight must be C-contiguous"),
        ({"first": np.ones((1, 3))}, "first must be C-contiguous"),
        ({"second": np.ones((1, 3, 2, 2))}, "second must be C-contiguous"),
        ({"background": np.ones(2)}, "background must be C-contiguous"),
        ({"scales": np.ones((1, 6))[:, ::2]}, "scales must be C-contiguous"),
        ({"means": np.zeros((3, 2))}, r"means must have shape \(s, k, d\)"),
        ({"kind": "round"}, "kind must be spherical, diag, tied or full, got 'round'"),
        ({"n_threads": 0}, "n_threads must be >= 1"),
    ],
)
def test_bad_arguments_of_a_step(changed, message):
    assert _core.maximization(**GOOD_STEP | GOOD_MODEL) is not None
    with pytest.raises(ValueError, match=message):
        _core.maximization(**GOOD_STEP | GOOD_MODEL | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": np.zeros((5, 3))}, r"means must have shape \(s, k, d\)"),
        ({"centre": np.zeros(3)}, "centre must be C-contiguous"),
        ({"unit": 0.0}, "unit must be finite and above 0"),
        ({"weights": np.ones((1, 2))}, "weights must be C-contiguous"),
        ({"background": np.ones(2)}, "background must be C-contiguous"),
        ({"means": np.zeros((1, 3, 0))}, r"means must have shape \(s, k, d\)"),
        ({"scatters": np.ones((1, 3, 2, 2))}, "scatters must be C-contiguous"),
        ({"kind": "full"}, "scatters must be C-contiguous"),
        ({"scales": np.ones(3)}, "scales must be C-contiguous"),
        ({"whiteners": np.ones((1, 3))}, "whiteners must be C-contiguous"),
        ({"degrees": np.zeros(1)}, "degrees must be above 0"),
        ({"constants": np.zeros(2)}, "constants must be C-contiguous"),
        ({"likelihood": np.zeros(2)}, "likelihood must be C-contiguous"),
        ({"first": 0}, "first and last must be >= 1"),
        ({"last": 1001, "max_iter": 1001}, "at most 1000 passes apart"),
        ({"max_iter": 2}, "last must be at most max_iter"),
        ({"log_volume": math.nan}, "log_volume must be a number"),
        (
            {"X": np.zeros((5, 2), np.float32), "rounded": True},
            "only rows in float64 can be rounded",
        ),
        ({"n_threads": 0}, "n_threads must be >= 1"),
    ],
)
def test_bad_arguments_of_iterations(changed, message):
    _core.expectation_maximization(**GOOD_ITERATIONS | GOOD_MODEL)
    with pytest.raises(ValueError, match=message):
        _core.expectation_maximization(**GOOD_ITERATIONS | GOOD_MODEL | changed)


# --------------------------------------------------------------------------------------------------
# Moments of rows with labels


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_moments_of_labels_are_those_of_the_rows(full, n_threads):
    rng = np.random.default_rng(0)
    for n, d, k in ((1, 1, 1), (7, 2, 3), (200, 5, 4), (3000, 17, 2)):
        X, s = 5 + rng.normal(size=(n, d)), rng.uniform(0, 2, n)
        labels = rng.integers(-1, k, (2, n))
        labels[1] = np.minimum(labels[1], max(k - 2, 0))  # the last label has no rows
        means, sums = moments_of_labels(X, s, labels, k, full=full, n_threads=n_threads)
        for own, mean, found in zip(labels, means, [sums[0], sums[1]], strict=True):
            for c in range(k):
                rows, weight = X[own == c], s[own == c]
                wanted = weight @ rows / weight.sum() if len(rows) else np.zeros(d)
                y = rows - wanted
                second = (weight[:, None] * y).T @ y if full else weight @ y**2
                np.testing.assert_allclose(mean[c], wanted, rtol=1e-13)
                assert found.mass[c] == pytest.approx(weight.sum(), rel=1e-13)
                size = 1e-13 * (1 + weight.sum())
                np.testing.assert_allclose(found.second[c], second, rtol=1e-12, atol=size)
        alone, own = moments_of_labels(X, s, labels[0], k, full=full)
        np.testing.assert_array_equal(alone, means[0])
        np.testing.assert_array_equal(own.second, sums.second[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": np.zeros(5)}, r"X must have shape \(n, d\)"),
        ({"X": np.zeros((5, 4))[:, ::2]}, "X must be C-contiguous"),
        ({"sample_weight": np.ones(4)}, "sample_weight must be C-contiguous"),
        ({"labels": np.zeros(5, np.int32)}, r"labels must have shape \(l, n\)"),
        ({"labels": np.zeros((1, 5))}, "labels must be C-contiguous"),
        ({"labels": np.full((1, 5), 3, np.int32)}, "labels must be >= -1 and < n_clusters"),
        ({"labels": np.full((1, 5), -2, np.int32)}, "labels must be >= -1 and < n_clusters"),
        ({"n_clusters": 0}, "n_clusters must be >= 1"),
        ({"n_threads": 0}, "n_threads must be >= 1"),
    ],
)
def test_bad_arguments_of_moments(changed, message):
    good = {"X": np.zeros((5, 2)), "sample_weight": np.ones(5), "n_clusters": 3}
    good |= {"labels": np.zeros((1, 5), np.int32), "full": False, "n_threads": 1}
    _core.moments_of_labels(**good)
    with pytest.raises(ValueError, match=message):
        _core.moments_of_labels(**good | changed)


def test_more_components_than_float32_counts():
    k = 2**24 + 1  # the check comes before these are read, so that they take no memory
    many = {"means": np.zeros((1, k, 2)), "whiteners": np.zeros((1, k, 2))}
    many |= {"offsets": np.zeros((1, k)), "X": np.zeros((5, 2), np.float32)}
    nothing = dict.fromkeys(("joint", "labels", "largest", "density"))
    with pytest.raises(ValueError, match="2\\^24"):
        _core.densities(**GOOD | nothing | many)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("joint", np.zeros((5, 2))),
        ("joint", np.zeros((5, 3), np.float32)),
        ("labels", np.zeros(5)),
        ("labels", np.zeros(4, np.int32)),
        ("largest", np.zeros(10)[::2]),
        ("density", np.zeros(6)),
    ],
)
def test_arrays_for_results_must_fit(name, value):
    nothing = dict.fromkeys(("joint", "labels", "largest", "density"))
    with pytest.raises(ValueError, match=f"{name} must be C-contiguous"):
        _core.densities(**GOOD | nothing | {name: value})
    two = {"means": np.zeros((2, 3, 2)), "whiteners": np.ones((2, 3, 2))}
    two |= {"offsets": np.zeros((2, 3)), "degrees": np.ones(2), "background": np.zeros(2)}
    with pytest.raises(ValueError, match="means must be those of one mixture"):
        _core.densities(**GOOD | nothing | two)
    with pytest.raises(ValueError, match="sample_weight must be contiguous"):
        _core.expectation(**GOOD, sample_weight=np.ones(4))
