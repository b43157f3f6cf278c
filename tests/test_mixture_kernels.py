"""The kernels of EquilibriumMixture: sums and densities, compared with `ekmfast._reference`."""

import math
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from ekmfast import _core
from ekmfast._reference import mixture_log_joint, mixture_sums
from ekmfast.fit.mixture import (
    KINDS,
    ScaledRows,
    StudentMixture,
    densities,
    label,
    stacked,
)

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
    halves = np.linalg.cholesky(scatters)
    whiteners = _core.invert_halves(halves)
    assert (np.triu(whiteners) == whiteners).all()
    wanted = np.swapaxes(np.linalg.inv(halves), -1, -2)
    np.testing.assert_allclose(whiteners, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 0, 0)])
def test_cholesky_factors_must_be_square(shape):
    with pytest.raises(ValueError, match="halves must have shape"):
        _core.invert_halves(np.ones(shape))


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
