"""The safeguarded and accelerated iteration, which converges where the plain iteration does not."""

from __future__ import annotations

import re
import threading
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
from data import set_a, set_c, set_d
from numpy.testing import assert_allclose
from scipy.sparse import random as sparse_random
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import kmeans_plusplus
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
    _core,
    alpha_path,
    blocks,
    ekm_step,
)
from ekmfast.fit import merging
from ekmfast.fit.problem import Problem
from ekmfast.fit.rand import adjusted_rand
from ekmfast.fit.solver import WINDOW, Run, solve
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.sparse import SparseRows
from ekmfast.rows.unit import UnitRows, unit_sparse_rows


def problem_of(X, tol=1e-6, max_iter=2000):
    return Problem(ArrayRows(np.ascontiguousarray(X)), 1, tol=tol, max_iter=max_iter)


def runs_of(X, k, window, tol=1e-6, n_starts=6):
    problem = problem_of(X)
    seed = np.random.RandomState(0)
    starts = np.stack([kmeans_plusplus(X, k, random_state=seed)[0] for _ in range(n_starts)])
    return problem, solve(
        problem.rows,
        starts,
        2 / problem.dispersion,
        tol=tol,
        radius=np.sqrt(2 * problem.dispersion),
        resolution=1e-13,
        max_iter=2000,
        window=window,
    )


SETS = {
    "A": (lambda: set_a()[0], 3),
    "C": (lambda: set_c()[0], 2),
    "wine": (lambda: np.log1p(load_wine(return_X_y=True)[0]), 3),
}


def test_acceleration_finds_the_same_fixed_points_in_fewer_passes():
    passes = {0: 0, WINDOW: 0}
    for data, k in SETS.values():
        X = data()
        best = []
        for window in passes:
            problem, runs = runs_of(X, k, window)
            assert all(run.converged for run in runs)
            passes[window] += sum(run.n_iter for run in runs)
            best.append(min(run.objective for run in runs))
            for run in runs:
                stepped, _ = ekm_step(X, run.centroids, run.alpha)
                unit = np.sqrt(2 * problem.dispersion)
                np.testing.assert_allclose(stepped, run.centroids, atol=1e-5 * unit)
        assert best[0] == pytest.approx(best[1], rel=1e-9)
    assert 1.7 * passes[WINDOW] <= passes[0]


@pytest.mark.parametrize("window", [0, WINDOW])
def test_objective_never_rises_without_a_weak_column(window):
    for run in runs_of(set_a()[0], 3, window)[1]:
        if run.n_jumps == 0:
            history = np.array(run.history)
            assert (np.diff(history) <= 1e-12 * history[:-1]).all()


def test_runs_do_not_depend_on_their_neighbours():
    X = set_a()[0]
    problem = problem_of(X)
    starts = np.stack([X[[0, 2010, 2200]], X[[5, 6, 7]], X[[0, 1, 2100]]])
    alphas = np.array([0.5, 1.0, 4.0])
    together = solve(
        problem.rows, starts, alphas, tol=1e-6, radius=1.0, resolution=1e-13, max_iter=500
    )
    for start, alpha, run in zip(starts, alphas, together, strict=True):
        [alone] = solve(
            problem.rows,
            start[None],
            alpha,
            tol=1e-6,
            radius=1.0,
            resolution=1e-13,
            max_iter=500,
        )
        np.testing.assert_array_equal(alone.centroids, run.centroids)
        assert alone.history == run.history


def test_giving_up_restarts_does_not_change_the_best():
    X = set_d()[0]
    seed = np.random.RandomState(0)
    starts = np.stack([kmeans_plusplus(X, 9, random_state=seed)[0] for _ in range(12)])
    problem = problem_of(X, tol=1e-5)
    options = {"tol": 1e-5, "radius": 1.4, "resolution": 1e-13, "max_iter": 1000}
    patient = solve(problem.rows, starts, 2.0, **options)
    hasty = solve(problem.rows, starts, 2.0, compete=True, **options)
    assert any(run.given_up for run in hasty)
    best = min(run.objective for run in patient)
    assert min(run.objective for run in hasty) == pytest.approx(best, rel=1e-6)
    assert sum(run.n_iter for run in hasty) < sum(run.n_iter for run in patient)
    assert all(run.objective > best for run in hasty if run.given_up)


@pytest.mark.parametrize(
    ("n_zeros", "stepped_to", "fixed_point"),
    [(22, 684.4105, (-0.00812859, 1.42256407)), (23, -22.7650, (-0.00771174, 1.42940065))],
)
@pytest.mark.parametrize("start", [[[0.0], [1.0]], [[1.0], [0.0]], None])
def test_fit_finds_the_fixed_point_where_the_exact_step_flies_past(
    n_zeros, stepped_to, fixed_point, start
):
    X = np.r_[np.zeros(n_zeros), np.ones(2)][:, None]
    stepped, _ = ekm_step(X, [[0.0], [1.0]], 4.8)
    assert stepped[1, 0] == pytest.approx(stepped_to, abs=5e-5)
    init = "auto" if start is None else start
    model = EKMeans(2, alpha=4.8, init=init, tol=1e-8, random_state=0).fit(X)
    assert model.converged_
    np.testing.assert_allclose(np.sort(model.cluster_centers_.ravel()), fixed_point, atol=1e-6)
    again, _ = ekm_step(X, model.cluster_centers_, 4.8)
    np.testing.assert_allclose(again, model.cluster_centers_, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_centroids_stay_near_the_data(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_t(2, (60, int(rng.integers(1, 6))))
    k = int(rng.integers(2, 7))
    problem = problem_of(X)
    low, high = problem.bounds
    for alpha in 2 / problem.dispersion * np.array([0.5, 2, 10]):
        starts = X[rng.integers(0, len(X), (5, k))] * rng.choice([1, 1.5, 1.9], (5, k, 1))
        for run in problem.solve(np.clip(starts, low, high), alpha):
            assert np.isfinite(run.objective)
            assert ((run.centroids >= low) & (run.centroids <= high)).all()
            if run.converged:
                stepped, _ = ekm_step(X, run.centroids, alpha)
                step = np.linalg.norm(stepped - run.centroids)
                assert step <= 1e-4 * np.sqrt(k * 2 * problem.dispersion)


@pytest.mark.parametrize("start", [[[2.0], [0.0]], None])
def test_rising_plain_objective_converges(start):
    X = np.array([2.0, 2, 7, 0])[:, None]
    init = "auto" if start is None else start
    model = EKMeans(2, alpha="dvariance", scale=8, init=init, tol=1e-8, random_state=0).fit(X)
    assert model.converged_
    again, _ = ekm_step(X, model.cluster_centers_, model.alpha_)
    np.testing.assert_allclose(again, model.cluster_centers_, atol=1e-6)


def test_a_report_can_stop_the_iteration():
    X = set_a()[0]
    problem = problem_of(X)
    seen = []

    def report(runs):
        seen.append(min(run.objective for run in runs))
        return len(seen) == 3

    [run] = solve(
        problem.rows,
        X[None, :3],
        1.0,
        tol=0.0,
        radius=1.0,
        resolution=1e-13,
        max_iter=100,
        report=report,
    )
    assert len(seen) == run.n_iter == 3
    assert not run.converged


@pytest.mark.parametrize("entries", [1 << 19, 5])
@pytest.mark.parametrize("alpha", [1.1e-4, 1.1e-2, 1.1, np.inf])
def test_coincident_centroids_are_merged_as_a_full_matrix_says(monkeypatch, alpha, entries):
    monkeypatch.setattr(merging, "MERGE_ENTRIES", entries)
    rng = np.random.default_rng(0)
    for i in range(50):
        k, d = int(rng.integers(1, 30)), int(rng.integers(1, 5))
        centroids = rng.normal(size=(k, d)) * 10 ** rng.uniform(-2, 3)
        if i % 2:
            centroids = np.round(centroids[rng.integers(0, k, k)])
        d2 = ((centroids[:, None] - centroids) ** 2).sum(axis=2)
        group = connected_components(0.5 * d2 <= merging.COINCIDENT / alpha, directed=False)[1]
        first = [int(np.flatnonzero(group == g)[0]) for g in group]
        merged = merging.merge_coincident(centroids, alpha)
        assert merged.tolist() == first
        assert merging.count_distinct(merged) == len(set(first))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("far", [1e9, 1e14])
@pytest.mark.parametrize(
    ("cls", "parameters"),
    [(HardKMeans, {}), (FuzzyCMeans, {}), (EKMeans, {"alpha": 1.0})],
)
def test_few_far_rows_do_not_make_clusters_amid_the_others_one(cls, parameters, far, dtype):
    rng = np.random.default_rng(0)
    X = np.repeat([0.0, 5.0, 10.0], 50)[:, None] + rng.normal(0, 0.5, (150, 2))
    X = np.concatenate([X, np.full((3, 2), far)]).astype(dtype)
    model = cls(4, init=X[[0, 50, 100, 150]], **parameters).fit(X)
    assert model.n_clusters_effective_ == 4
    np.testing.assert_array_equal(model.labels_, np.repeat([0, 1, 2, 3], [50, 50, 50, 3]))


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_merging_many_centroids_takes_memory_in_proportion_to_them(apart):
    centroids = apart * np.arange(40_000.0)[:, None] * [1.0, 0.0]
    tracemalloc.start()
    merged = merging.merge_coincident(centroids, np.inf)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert merging.count_distinct(merged) == (40_000 if apart else 1)
    assert peak < 100e6


def test_the_adjusted_rand_index_is_scikit_learns_bit_by_bit():
    rng = np.random.default_rng(0)
    for n, k in ((1, 1), (2, 2), (50, 1), (50, 3), (1000, 7), (1000, 900)):
        for _ in range(10):
            a, b = rng.integers(0, k, (2, n)).astype(np.int32)
            assert adjusted_rand(a, b) == adjusted_rand_score(a, b)
            assert adjusted_rand(a, k - 1 - a) == 1.0


@pytest.mark.parametrize("cls", [EKMeans, HardKMeans, MiniBatchEKMeans, SemiSupervisedEKMeans])
def test_no_fit_enters_the_unique_that_aborts_at_the_interpreters_exit(monkeypatch, tmp_path, cls):
    where = pytest.importorskip("numpy.lib._arraysetops_impl")
    if not hasattr(where, "_unique_hash"):
        pytest.skip("this NumPy has no unique by hashing, which is what aborts")

    def entered(*args, **kwargs):
        raise AssertionError("a fit called numpy.unique")

    monkeypatch.setattr(where, "_unique_hash", entered)
    monkeypatch.setattr("ekmfast.fit.likeliest.SEARCH_ROWS", 200)  # a sample is taken
    X = set_a()[0][::10]
    cls(3, random_state=0).fit(X).predict(X)
    cls(3, random_state=0).fit(blocks.from_arrays(np.split(X, [100])), checkpoint=tmp_path / "fit")
    alpha_path(X[::5], 3, [1.0, 2.0], random_state=0)


THREE_POINTS = [
    np.repeat([[0.0], [1.0], [5.0]], 5, axis=0),
    np.repeat([[0.3, 0.1], [-1.2, 0.7], [0.9, -2.1]], 5, axis=0),
    set_a()[0][::20],
]


@pytest.mark.filterwarnings("ignore:only .* centroids are distinct")
@pytest.mark.parametrize("X", THREE_POINTS, ids=["1 feature", "2 features", "set A"])
@pytest.mark.parametrize(
    "cls",
    [
        EKMeans,
        FuzzyCMeans,
        HardKMeans,
        MaximumEntropyKMeans,
        MiniBatchEKMeans,
        SemiSupervisedEKMeans,
    ],
)
def test_a_fit_ends_where_its_steps_are_rounding(X, cls):
    model = cls(5, tol=0, max_iter=100_000, random_state=0).fit(X)
    assert model.converged_
    assert model.n_iter_ < 500
    near = cls(5, tol=1e-9, max_iter=100_000, random_state=0).fit(X)
    assert model.objective_ <= near.objective_ + 1e-12 * abs(near.objective_)


@pytest.mark.parametrize(("offset", "tol"), [(0.0, 0.0), (1e6, 0.0), (0.0, 1e-14)])
def test_float32_that_cannot_reach_its_tolerance_ends_too(offset, tol):
    X = (load_wine(return_X_y=True)[0][:, :5] + offset).astype(np.float32)
    model = FuzzyCMeans(3, tol=tol, max_iter=100_000, n_init=3, random_state=0).fit(X)
    assert model.converged_
    assert model.n_iter_ < 2000


def a_run(**fields):
    run = Run(np.zeros((2, 1)), 1.0, objective=1.0)
    for name, value in {"n_iter": 63, "done": True, **fields}.items():
        setattr(run, name, value)
    return run


@pytest.mark.parametrize(
    ("run", "said", "unsaid"),
    [
        (a_run(n_iter=300), r"\(max_iter=300\): raise max_iter or tol", "rounding"),
        (a_run(n_halvings=99), "no longer lowers the objective .* float64: raise tol", "max_iter"),
        (a_run(held=True), "as far from the data as is allowed: lower n_clusters", "max_iter"),
        (a_run(), "would not be finite", "max_iter"),
        (a_run(done=False), "a callback stopped it", "max_iter"),
    ],
)
@pytest.mark.parametrize("cls", [EKMeans, FuzzyCMeans, HardKMeans])
def test_a_warning_says_why_a_run_did_not_converge(cls, run, said, unsaid):
    model = cls(2)
    model._keep(run, np.dtype(np.float64), 1.0)
    with pytest.warns(ConvergenceWarning) as caught:
        model._warn_of_the_fit()
    stopped = next(str(w.message) for w in caught if "stopped" in str(w.message))
    assert re.search(
        rf"{cls.__name__} stopped after \d+ pass(es)? without converging.*{said}", stopped
    )
    assert unsaid not in stopped
    for warning in caught:
        assert ("alpha" in str(warning.message)) <= (cls is EKMeans)


# --- the compiled solver ---


@pytest.mark.parametrize(("seed", "n_features", "k"), [*((i, 3, 4) for i in range(5)), (5, 1, 3)])
def test_a_proposal_is_andersons_where_the_step_points_and_that_of_momentum_elsewhere(
    seed, n_features, k
):
    """The compiled solver and LAPACK find the same least-squares solution of least norm.

    There are more earlier steps than numbers in three centroids of one feature.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_t(4, (200, n_features))
    problem = problem_of(X)
    compared = {"Anderson": 0, "momentum": 0, "dependent": 0}

    def report(runs):
        for run in runs.wholes():
            if run.leap is None or not 2 <= len(run.past) <= 6:
                continue
            *past, (centroids, step) = run.past
            moves = np.stack([(centroids - c).ravel() for c, _ in past], axis=1)
            turns = np.stack([(step - g).ravel() for _, g in past], axis=1)
            scale = np.linalg.norm(turns, axis=0)
            gamma = np.linalg.lstsq(turns / scale, step.ravel(), rcond=1e-6)[0] / scale
            move = step - ((moves + turns) @ gamma).reshape(step.shape)
            unit = np.abs(gamma).max() * np.abs(moves + turns).max() + 1
            cosine = np.sum(move * step) / np.linalg.norm(move) / np.linalg.norm(step)
            kind = "Anderson" if cosine >= 0.5 else "momentum"
            if kind == "momentum":
                move = step + 0.9 * (moves + turns)[:, -1].reshape(step.shape)
                assert np.sum(step.ravel() * moves[:, -1]) > 0
            leap = np.clip(centroids + move, *problem.bounds)
            np.testing.assert_allclose(run.leap, leap, atol=1e-9 * unit)
            compared[kind] += 1
            compared["dependent"] += turns.shape[1] > turns.shape[0]
        return False

    starts = np.stack([X[rng.integers(0, 200, k)] for _ in range(12)])
    solve(
        problem.rows,
        starts,
        2 / problem.dispersion,
        tol=1e-5,
        radius=problem.radius,
        resolution=1e-13,
        max_iter=40,
        bounds=problem.bounds,
        report=report,
        window=30,  # so that `past` still holds all steps from which a proposal was computed
    )
    assert compared["Anderson"] > 5
    assert compared["momentum"] > 5
    assert compared["dependent"] > 5 or n_features > 1


def test_a_run_that_was_copied_goes_on_to_the_same_bits():
    X = set_a()[0]
    problem = problem_of(X)
    starts = np.stack([X[[0, 2010, 2200]], X[[5, 6, 7]]])
    options = {"tol": 1e-8, "radius": 1.0, "resolution": 1e-13, "max_iter": 200}
    whole = solve(problem.rows, starts, 1.0, **options)
    some = solve(problem.rows, starts, 1.0, **options | {"max_iter": 7})
    rest = solve(problem.rows, starts, 1.0, runs=list(some.wholes()), **options)
    for a, b in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(a.centroids, b.centroids)
        assert a.history == b.history


def test_threads_do_not_change_what_runs_do():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 40))
    starts = np.stack([X[rng.integers(0, 300, 60)] for _ in range(12)])  # 28,800 numbers
    one, two = (
        solve(
            ArrayRows(X),
            starts,
            0.1,
            tol=1e-6,
            radius=6.0,
            resolution=1e-13,
            max_iter=15,
            n_threads=n_threads,
        )
        for n_threads in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.centroids, b.centroids)


def same_runs(some, others):
    for a, b in zip(some.wholes(), others.wholes(), strict=True):
        for name, value in asdict(a).items():
            np.testing.assert_equal(asdict(b)[name], value, err_msg=name)


def iterated(rows, starts, alphas, *, compiled, n_threads=1, max_iter=40):
    """Runs of compiled passes, or of passes made one by one, since somebody watches them."""
    rows.n_threads = n_threads
    return solve(
        rows,
        starts,
        alphas,
        tol=1e-5,
        radius=2.0,
        resolution=1e-13 if rows.dtype == float else 1e-6,
        max_iter=max_iter,
        window=WINDOW,
        compete=True,
        space=rows.space,
        n_threads=n_threads,
        report=None if compiled else lambda runs: False,
    )


@pytest.mark.parametrize("kind", ["float64", "float32", "rounded", "weights", "cosine"])
@pytest.mark.parametrize("weighting", ["equilibrium", "maximum-entropy", "hard", "fuzzy"])
@pytest.mark.parametrize("n_rows", [300, 9_000])  # one slice of rows, and several chunks
def test_passes_of_compiled_code_end_with_the_bits_of_single_ones(n_rows, weighting, kind):
    rng = np.random.default_rng(n_rows)
    X = rng.normal(size=(n_rows, 9)) + 4 * rng.normal(size=(6, 9))[rng.integers(0, 6, n_rows)]
    X = X.astype(np.float32) if kind == "float32" else X
    weight = rng.integers(0, 3, n_rows).astype(X.dtype) if kind == "weights" else None
    of = UnitRows if kind == "cosine" else ArrayRows
    rows = of(X, weight, 1, weighting, 1.5)
    rows.survey()
    rows = rows.rounded() if kind == "rounded" else rows
    starts = rows.take(np.stack([rng.choice(n_rows, 4, replace=False) for _ in range(15)]))
    alphas = np.repeat([0.05, 0.2, 1.0], 5)
    starts[4] += 1e3  # a centroid whose memberships underflow
    if kind == "cosine":
        starts /= np.linalg.norm(starts, axis=-1, keepdims=True)
    single = iterated(rows, starts, alphas, compiled=False)
    assert len({run.n_iter for run in single}) > 1
    for n_threads in (1, 2, 5):
        compiled = iterated(rows, starts, alphas, compiled=True, n_threads=n_threads)
        same_runs(compiled, single)
        few = iterated(rows, starts, alphas, compiled=True, n_threads=n_threads, max_iter=3)
        assert max(run.n_iter for run in few) == 3
        same_runs(few, iterated(rows, starts, alphas, compiled=False, max_iter=3))


@pytest.mark.parametrize(("n_features", "k"), [(2, 3), (3, 6), (40, 5), (33, 70), (300, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_kept_in_panels_change_no_bit(n_features, k, dtype, isa):
    """Of every way in which kernels read rows, with a last panel that is not full."""
    n_rows = 300
    rng = np.random.default_rng(k)
    centres = 3 * rng.normal(size=(k, n_features))
    X = (centres[rng.integers(0, k, n_rows)] + rng.normal(size=(n_rows, n_features))).astype(dtype)
    rows = ArrayRows(X, rng.integers(0, 3, n_rows).astype(dtype))
    rows.survey()
    starts = rows.take(np.stack([rng.choice(n_rows, k, replace=False) for _ in range(3)]))
    alphas = np.array([0.1, 0.1, 2.0]) / n_features
    single = iterated(rows, starts, alphas, compiled=False, max_iter=10)
    assert single[0].n_iter > 2
    same_runs(iterated(rows, starts, alphas, compiled=True, max_iter=10), single)


def test_passes_of_compiled_code_do_not_depend_on_the_runs_beside_them():
    """Not even where so many runs share a pass that their chunks of rows are other ones."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3_000, 150))
    rows = ArrayRows(X)
    starts = X[np.stack([rng.choice(3_000, 60, replace=False) for _ in range(80)])]
    alphas = np.repeat([0.05, 0.1], 40)
    single = iterated(rows, starts, alphas, compiled=False, max_iter=4)
    for n_threads in (1, 2):
        same_runs(
            iterated(rows, starts, alphas, compiled=True, n_threads=n_threads, max_iter=4), single
        )


@pytest.mark.parametrize("weighting", ["equilibrium", "maximum-entropy", "hard", "fuzzy"])
@pytest.mark.parametrize("space", ["free", "unit"])
@pytest.mark.parametrize("n_features", [40, 5_000, 50_000])
def test_compiled_passes_over_sparse_rows_end_with_the_bits_of_single_ones(
    n_features, space, weighting
):
    """Of narrow and wide rows, and of so wide ones that centroids are long."""
    rng = np.random.default_rng(n_features)
    X = sparse_random(400, n_features, 12 / n_features, "csr", random_state=rng)
    X = X[np.flatnonzero(np.diff(X.indptr))]
    weight = rng.integers(1, 3, X.shape[0]).astype(float)
    options = weight, 1, weighting, 1.5
    rows = unit_sparse_rows(X, *options) if space == "unit" else SparseRows(X, *options)
    rows.survey()
    starts = rows.take(np.stack([rng.choice(X.shape[0], 4, replace=False) for _ in range(4)]))
    alphas = np.repeat([0.5, 5.0], 2)
    if space == "free":
        starts[1] += 1e3  # a centroid whose memberships underflow
    single = iterated(rows, starts, alphas, compiled=False, max_iter=15)
    for n_threads in (1, 2, 5):
        compiled = iterated(rows, starts, alphas, compiled=True, n_threads=n_threads, max_iter=15)
        same_runs(compiled, single)
        few = iterated(rows, starts, alphas, compiled=True, n_threads=n_threads, max_iter=3)
        same_runs(few, iterated(rows, starts, alphas, compiled=False, max_iter=3))


def test_the_extension_refuses_what_does_not_fit():
    rules = (1e-4, 1e-9, 1e-13, 5, True, None, None)
    with pytest.raises(ValueError, match=r"starts must have shape \(s, k, d\)"):
        _core.Solver(np.zeros((3, 2)), np.ones(3), *rules)
    with pytest.raises(ValueError, match=r"alpha must have shape \(s,\)"):
        _core.Solver(np.zeros((3, 2, 2)), np.ones(2), *rules)
    with pytest.raises(ValueError, match="low and high belong together"):
        _core.Solver(np.zeros((3, 2, 2)), np.ones(3), *rules[:5], np.zeros(2), None)
    with pytest.raises(ValueError, match="low has the wrong size"):
        _core.Solver(np.zeros((3, 2, 2)), np.ones(3), *rules[:5], np.zeros(3), np.zeros(3))
    solver = _core.Solver(np.zeros((3, 2, 2)), np.ones(3), *rules)
    sums = np.zeros((3, 2, 2)), np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3), np.zeros(2)
    with pytest.raises(ValueError, match="sums must be those of the candidates"):
        solver.advance(*(part[:2] for part in sums), 1)
    for method in (solver.get_run, solver.result):
        with pytest.raises(ValueError, match="no such run"):
            method(3)
    whole = solver.get_run(0)
    with pytest.raises(ValueError, match=r"step must have shape \(k, d\)"):
        solver.set_run(0, whole | {"step": np.zeros(3)})
    with pytest.raises(ValueError, match=r"centroids must have shape \(k, d\)"):
        solver.set_run(0, whole | {"centroids": np.ones((4, 1)), "n_iter": 9})
    assert solver.get_run(0)["n_iter"] == 0  # an error leaves the run as it was
    with pytest.raises(ValueError, match="low must not be above high"):
        _core.Solver(np.zeros((3, 2, 2)), np.ones(3), *rules[:5], np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match="window must be >= 0"):
        _core.Solver(np.zeros((3, 2, 2)), np.ones(3), 1.0, 1.0, 1.0, -1, True, None, None)
    rows = np.ones((5, 2)), None, None, 1, 1
    with pytest.raises(ValueError, match="X must have the features of the centroids"):
        solver.iterate(np.ones((5, 3)), None, None, 1, 1)
    with pytest.raises(ValueError, match="only rows in float64 can be rounded"):
        solver.iterate(np.ones((5, 2), np.float32), None, None, 1, 1, rounded=True)
    with pytest.raises(ValueError, match=r"fuzzifier must be finite and > 1"):
        solver.iterate(*rows, weighting="fuzzy", fuzzifier=1.0)
    csr = [_core.Csr(np.ones(1), np.zeros(1, np.int32), np.array([0, 1]), d, None) for d in (2, 3)]
    with pytest.raises(ValueError, match="X must have the features of the centroids"):
        solver.iterate_sparse(csr[1], 1, 1, "equilibrium", 2.0)
    with pytest.raises(ValueError, match=r"fuzzifier must be finite and > 1"):
        solver.iterate_sparse(csr[0], 1, 1, "fuzzy", 1.0)
    features = _core.Solver(np.zeros((3, 2, 2)), np.ones(3), *rules, "features")
    with pytest.raises(ValueError, match="the weights of these rows have one sum"):
        features.iterate_sparse(csr[0], 1, 1, "equilibrium", 2.0)
    with pytest.raises(ValueError, match="the weights of these rows have one sum"):
        features.iterate(*rows)
    assert len(solver) == solver.n_going == 3
    assert solver.get_run(0)["n_iter"] == 0


def test_a_solver_that_two_threads_share_refuses_one_of_them():
    """Or serves both in turns; it never reads what the other thread is changing."""
    starts = np.random.default_rng(0).normal(size=(8, 60, 60))
    solver = _core.Solver(starts, np.ones(8), 0.0, 0.0, 1e-13, 5, False, None, None)
    sums = np.ones((8, 60, 60)), np.ones((8, 60)), np.ones((8, 60)), np.ones(8), np.zeros(60)

    refusals = []

    def use():
        for i in range(200):
            try:
                solver.candidates()
                solver.get_run(i % 8)
                solver.advance(*sums, 2)
            except ValueError as error:
                refusals.append(str(error))

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(solver) == 8
    # Runs that have ended in between leave fewer candidates than there are sums.
    assert {text for text in refusals if "by another thread" not in text} <= {
        "sums must be those of the candidates"
    }


# --- samples in place of all rows ---


@pytest.mark.parametrize("n_rows", [200, 6000])
def test_fewer_rows_with_weight_than_clusters(n_rows, monkeypatch):
    monkeypatch.setattr("ekmfast.fit.likeliest.SEARCH_ROWS", 5000)
    X = np.random.default_rng(0).normal(size=(n_rows, 2))
    weight = np.zeros(n_rows)
    weight[:5] = 1
    with pytest.warns(ConvergenceWarning, match="centroids are distinct"):
        model = EKMeans(8, random_state=0).fit(X, sample_weight=weight)
    assert np.isfinite(model.cluster_centers_).all()


@pytest.mark.parametrize("n_rows", [2000, 8000])
def test_a_checkpoint_of_few_rows_in_blocks_is_written_too(n_rows, tmp_path, monkeypatch):
    monkeypatch.setattr("ekmfast.fit.likeliest.SEARCH_ROWS", 5000)
    X = np.random.default_rng(0).normal(size=(n_rows, 2))
    data, path = blocks.from_arrays(np.split(X, 4)), tmp_path / "fit"
    whole = EKMeans(3, random_state=0).fit(data, checkpoint=path)
    assert path.exists()
    again = EKMeans(3, random_state=0).fit(data, checkpoint=path)
    np.testing.assert_array_equal(whole.cluster_centers_, again.cluster_centers_)
    with pytest.raises(ValueError, match="belongs to another fit"):
        EKMeans(3, random_state=0, tol=1e-3).fit(data, checkpoint=path)


def test_a_run_leaves_a_saddle_point_faster_than_by_its_steps():
    """The steps shrink in all directions but one, in which they grow. The fixed point is at 0."""
    rng = np.random.default_rng(0)
    rate = np.append(rng.uniform(0, 0.9, 11), 1.05).reshape(1, 4, 3)
    start = np.append(rng.normal(size=11), 1e-3).reshape(1, 4, 3)
    solver = _core.Solver(start, np.ones(1), 0.0, 0.0, 1e-13, 5, False, None, None, "free")
    n_passes = 30
    for i in range(n_passes):
        centroids, _ = solver.candidates()
        ones = np.ones((1, 4))
        solver.advance(rate * centroids, ones, ones, np.array([100.0 - i]), np.zeros(3), 1)
    by_steps = 1e-3 * 1.05**n_passes
    assert abs(solver.get_run(0)["centroids"][-1, -1]) > 5 * by_steps


@pytest.mark.parametrize("space", ["free", "unit"])
def test_long_centroids_take_the_steps_of_short_ones(space):
    """Products of repeated features are multiples of those of the features, so gamma is the same.

    The steps of more than 2^17 numbers are computed by other code, which keeps their changes in
    float32, of which no more than three. No vector of the kernels ends with a centroid.
    """
    k, d, times = 3, 41, 1171
    rng = np.random.default_rng(0)
    target, start = rng.normal(size=(2, 1, k, d))
    rate = rng.uniform(-0.5, 0.97, (1, k, d))
    ends = []
    for n, window in ((1, 3), (times, 5)):
        T, R, C = (np.tile(part, n) for part in (target, rate, start))
        T, C = T / np.sqrt(n), C / np.sqrt(n)  # so that lengths are the same
        bounds = (np.full(d * n, -9.0), np.full(d * n, 9.0))
        solver = _core.Solver(C, np.ones(1), 0.0, 0.0, 1e-13, window, False, *bounds, space)
        ones = np.ones((1, k))
        found = []
        for i in range(14):
            centroids, _ = solver.candidates()
            found.append(centroids * np.sqrt(n))
            sums = T + R * (centroids - T)
            solver.advance(sums, ones, ones, np.array([100.0 - i]), np.zeros(d * n), 1)
        # Long ones keep the three changes, and the last centroids with their step beside them.
        assert len(solver.get_run(0)["past"]) == (3 if n == 1 else 4)
        ends.append(np.stack(found))
    short, long = ends
    assert_allclose(long, np.tile(short, times), atol=1e-6)
    if space == "free":  # Anderson's proposals are nearer to the fixed point than plain steps
        left, plain = long[-1] - np.tile(target, times), rate**13 * (start - target)
        assert np.sqrt(np.mean(left**2)) < 0.5 * np.sqrt(np.mean(plain**2))


@pytest.mark.parametrize("window", [0, 5])
def test_a_long_run_that_was_copied_goes_on_to_the_same_bits(window):
    """After passes whose proposal or step was refused, too, since J rises in some."""
    k, d = 3, 43_700
    rng = np.random.default_rng(0)
    target, start = rng.normal(size=(2, 1, k, d))
    rate, ones = rng.uniform(-0.9, 0.97, (1, k, d)), np.ones((1, k))
    bounds = (np.full(d, -2.0), np.full(d, 2.0))

    def new():
        return _core.Solver(start, np.ones(1), 0.0, 0.0, 1e-13, window, False, *bounds, "free")

    whole, copied = new(), new()
    leaps = []
    for i in range(16):
        state = copied.get_run(0)
        leaps.append(state["leap"] is not None)
        copied = new()
        copied.set_run(0, state)
        J = np.array([100.0 - i + 5 * (i in (5, 9, 10))])
        for solver in (whole, copied):
            centroids, _ = solver.candidates()
            sums = np.clip(target + rate * (centroids - target), -2, 2)
            solver.advance(sums, ones, ones, J, np.zeros(d), 1)
        np.testing.assert_array_equal(*(solver.candidates()[0] for solver in (whole, copied)))
    assert (leaps[5] and leaps[9]) == (window > 0)
    assert not leaps[6]


def test_a_long_run_takes_no_longer_past_than_it_keeps():
    solver = _core.Solver(
        np.zeros((1, 2, 70_000)), np.ones(1), 0.0, 0.0, 1e-13, 5, False, None, None
    )
    pair = (np.ones((2, 70_000)), np.ones((2, 70_000)))
    solver.set_run(0, solver.get_run(0) | {"past": [pair] * 3})
    assert len(solver.get_run(0)["past"]) == 3
    with pytest.raises(ValueError, match="past must not have more pairs"):
        solver.set_run(0, solver.get_run(0) | {"past": [pair] * 4})
