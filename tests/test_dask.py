"""Dask: the fit of blocks on a cluster of two processes, one of which may be killed."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator
from test_blocks import START, clusters, split

import ekmfast
from ekmfast import blocks

pytest.importorskip("dask.array")
pytest.importorskip("distributed")
pytest.importorskip("dask.dataframe")

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import pandas as pd
from distributed import Client, LocalCluster

from ekmfast.dask import EKMeans

# Warnings of Dask's own processes and sockets, which no code of ours can prevent.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Dask 2025.1, where a client of another test is active.
    pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler when a distributed"),
]


@pytest.fixture(scope="module")
def cluster():
    settings = {
        "distributed.scheduler.allowed-failures": 10,
        "distributed.comm.timeouts.connect": "60s",
        "distributed.admin.tick.limit": "1h",
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            memory_limit=0,
        ) as made,
        Client(made),
    ):
        yield made


@pytest.fixture(params=["cluster", "threads"])
def engine(request, cluster):
    """With the cluster's client, and as one would be without any."""
    if request.param == "threads":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ekmfast.rows.dask._client", lambda: None)
            with dask.config.set(scheduler="threads"):
                yield request.param
    else:
        yield request.param


def test_bits_are_those_of_the_same_chunks_on_one_machine(engine):
    X = clusters(3000)
    chunks = (500, 1, 999, 1500)
    local = ekmfast.EKMeans(3, random_state=0).fit(blocks.from_arrays(split(X, 500, 501, 1500)))
    model = EKMeans(3, random_state=0).fit(da.from_array(X, chunks=(chunks, 3)))
    assert model.cluster_centers_.tobytes() == local.cluster_centers_.tobytes()
    assert model.objective_ == local.objective_
    assert model.alpha_ == local.alpha_


def test_many_chunks_and_split_columns_give_the_fit_of_the_array(cluster):
    X = clusters(4000, dtype=np.float32)
    model = EKMeans(3, alpha=0.3, init=START).fit(da.from_array(X, chunks=(100, 2)).persist())
    local = ekmfast.EKMeans(3, alpha=0.3, init=START).fit(X)
    assert model.cluster_centers_.dtype == np.float32
    np.testing.assert_allclose(model.cluster_centers_, local.cluster_centers_, rtol=1e-5, atol=1e-6)


def test_a_small_cluster_that_the_sample_may_miss_is_found(cluster, monkeypatch):
    monkeypatch.setattr("ekmfast.rows.blockwise.SAMPLE_ROWS", 200)
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(0, 1, (20_000, 2)), rng.normal(30, 0.1, (40, 2))])
    X = rng.permutation(X)
    model = EKMeans(2, alpha="dvariance", random_state=0).fit(da.from_array(X, chunks=(2000, 2)))
    assert np.bincount(model.predict(X)).min() == 40
    local = ekmfast.EKMeans(2, alpha="dvariance", random_state=0)
    local.fit(blocks.from_arrays(split(X, *range(2000, 20_040, 2000))))
    assert model.cluster_centers_.tobytes() == local.cluster_centers_.tobytes()


@pytest.mark.parametrize("method", ["predict", "transform", "membership", "weights"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_methods_are_lazy_and_equal(cluster, method, dtype):
    X = clusters(1000, dtype=dtype)
    data = da.from_array(X, chunks=(300, 2))
    model = EKMeans(3, random_state=0).fit(data)
    lazy = getattr(model, method)(data)
    assert isinstance(lazy, da.Array)
    expected = getattr(model, method)(X)
    assert isinstance(expected, np.ndarray)
    assert lazy.dtype == expected.dtype
    assert lazy.shape == expected.shape
    # Weights are computed about a point amid the rows given, so each block rounds its own way.
    rtol = {np.float32: 1e-4, np.float64: 1e-11}[dtype] if method == "weights" else 0
    np.testing.assert_allclose(lazy.compute(), expected, rtol=rtol)
    assert model.score(data) == pytest.approx(model.score(X), rel=1e-6)


def test_fit_predict_is_lazy(cluster):
    data = da.from_array(clusters(1000), chunks=(300, 3))
    model = EKMeans(3, random_state=0)
    labels = model.fit_predict(data)
    assert isinstance(labels, da.Array)
    assert not hasattr(model, "labels_")
    assert np.bincount(labels.compute()).min() > 40


def test_dataframes_with_weights_and_an_empty_partition(engine):
    X, s = clusters(1000), np.arange(1000.0) % 3
    table = pd.DataFrame(X, columns=list("abc")).assign(s=s)
    parts = dd.concat([dd.from_pandas(table[:600], 3), dd.from_pandas(table[600:], 2)])
    empty = parts[parts["s"] > -1].map_partitions(_without_the_first, meta=table)
    model = EKMeans(3, alpha=0.3, init=START).fit(empty[list("abc")], sample_weight=empty["s"])
    first = len(parts.partitions[0])
    local = ekmfast.EKMeans(3, alpha=0.3, init=START).fit(X[first:], sample_weight=s[first:])
    np.testing.assert_allclose(model.cluster_centers_, local.cluster_centers_, rtol=1e-9)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    labels = model.predict(empty[list("abc")]).compute()
    np.testing.assert_array_equal(labels, local.predict(X[first:]))
    score = model.score(empty[list("abc")], sample_weight=empty["s"])
    assert score == pytest.approx(local.score(X[first:], sample_weight=s[first:]))
    with pytest.raises(ValueError, match="names must be in the same order as they were in fit"):
        model.predict(empty[["b", "a", "c"]])


def _without_the_first(part):
    return part[:0] if 0 in part.index else part


def test_sample_weight_of_arrays(cluster):
    X, s = clusters(1000), np.arange(1000.0) % 3
    data = da.from_array(X, chunks=(300, 3))
    local = ekmfast.EKMeans(3, alpha=0.3, init=START).fit(X, sample_weight=s)
    for weight in (s, da.from_array(s, chunks=250)):
        model = EKMeans(3, alpha=0.3, init=START).fit(data, sample_weight=weight)
        np.testing.assert_allclose(model.cluster_centers_, local.cluster_centers_, rtol=1e-9)
    with pytest.raises(ValueError, match="sample_weight has 999 rows, but X has 1000"):
        EKMeans(3).fit(data, sample_weight=s[1:])
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(rows,\)"):
        EKMeans(3).fit(data, sample_weight=X)
    with pytest.raises(ValueError, match=r"block 0 .*sample_weight must be finite and >= 0"):
        EKMeans(3).fit(data, sample_weight=-1 - s)
    with pytest.raises(TypeError, match="sample_weight is a Dask collection, but X is not"):
        EKMeans(3).fit(X, sample_weight=da.from_array(s))


# --- faults ---


def file_block(i, path, slow):
    """A block read from a file, taking its time, so that a worker can be killed amid a pass."""
    time.sleep(slow)
    return np.load(f"{path}/{i}.npy")


def from_files(path, X, n, slow):
    for i, part in enumerate(np.split(X, n)):
        np.save(path / f"{i}.npy", part)
    parts = [
        da.from_delayed(
            dask.delayed(file_block)(i, str(path), slow), (len(X) // n, X.shape[1]), X.dtype
        )
        for i in range(n)
    ]
    return da.concatenate(parts)


@pytest.mark.parametrize("persisted", [False, True])
def test_a_worker_killed_in_mid_fit_costs_time_alone(cluster, tmp_path, persisted):
    X = clusters(4000)
    data = from_files(tmp_path, X, 8, 0.02)
    whole = EKMeans(3, random_state=0, alpha=0.1, tol=1e-12).fit(data)
    if persisted:
        data = data.persist()
    victims = [worker.pid for worker in cluster.workers.values()]
    killed = []

    def kill():
        pid = victims[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    class Saboteur(EKMeans):
        def _find(self, problem, random_state):
            assert problem.report is None  # nobody else wants to know
            passes = [0]

            def count(runs):
                passes[0] += 1
                if passes[0] == 2:  # amid the third pass
                    threading.Timer(0.03, kill).start()
                return False

            problem.report = count
            return super()._find(problem, random_state)

    model = Saboteur(3, random_state=0, alpha=0.1, tol=1e-12).fit(data)
    assert killed
    assert model.n_iter_ > 4
    assert model.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()
    deadline = time.monotonic() + 60
    while set(victims) == {w.pid for w in cluster.workers.values()} and time.monotonic() < deadline:
        time.sleep(0.05)  # the nanny starts another
    assert killed[0] not in {worker.pid for worker in cluster.workers.values()}


def test_a_block_with_nan_or_another_width_is_named(cluster):
    X = clusters(1000)
    X[777, 1] = np.nan
    with pytest.raises(
        ValueError, match=r"block 3 of the dask array \(from row 750 on\): its row 27"
    ):
        EKMeans(3).fit(da.from_array(X, chunks=(250, 3)))
    data = da.from_array(clusters(1000), chunks=(250, 3)).map_blocks(_narrow, dtype=float)
    with pytest.raises(ValueError, match=r"block 2 of the dask array.*: has 2 features"):
        EKMeans(3).fit(data)


@pytest.mark.parametrize("kind", ["text", "date", "category"])
def test_a_column_that_holds_no_numbers_is_named(engine, kind):
    values = {
        "text": "1.5",
        "date": pd.Timestamp("2024-05-01"),
        "category": pd.Categorical(["x", "y"] * 50),
    }
    table = pd.DataFrame(clusters(100), columns=list("abc"))
    model = EKMeans(3, alpha=0.3, init=START).fit(dd.from_pandas(table, 2))
    bad = dd.from_pandas(table.assign(b=values[kind]), 2)
    for method in (model.fit, model.predict, model.score):
        with pytest.raises(TypeError, match="the dask dataframe: column 'b' must hold numbers, it"):
            method(bad)
    with pytest.raises(TypeError, match="sample_weight must hold numbers, it holds"):
        model.fit(dd.from_pandas(table, 2), sample_weight=bad["b"])


def test_nullable_columns_are_numbers(engine):
    table = pd.DataFrame(clusters(100), columns=list("abc"))
    nullable = table.convert_dtypes()
    assert nullable["a"].dtype == "Float64"
    arrow = table.astype({"a": "float64[pyarrow]"}).assign(b=table["b"] > 5)
    plain = arrow.astype(np.float64)
    s = pd.Series(np.arange(100) % 3, dtype="Int64")
    for given, expected in ((nullable, table), (arrow, plain)):
        model = EKMeans(3, alpha=0.3, init=START)
        model.fit(dd.from_pandas(given, 2), sample_weight=dd.from_pandas(s, 2))
        local = ekmfast.EKMeans(3, alpha=0.3, init=START)
        local.fit(expected, sample_weight=s.to_numpy(float))
        np.testing.assert_allclose(model.cluster_centers_, local.cluster_centers_, rtol=1e-9)
        labels = model.predict(dd.from_pandas(given, 2)).compute()
        np.testing.assert_array_equal(labels, local.predict(expected))
    nullable.loc[63, "b"] = pd.NA
    with pytest.raises(ValueError, match=r"block 1 of the dask dataframe.*: its row 13 holds NaN"):
        EKMeans(3).fit(dd.from_pandas(nullable, 2))


@pytest.mark.parametrize("method", ["transform", "membership", "weights"])
def test_a_large_offset_costs_nothing(cluster, method):
    t = (1.7e9 + np.r_[np.arange(20) * 0.01, 3 + np.arange(5) * 0.01])[:, None]
    near = t - 1.7e9  # exact
    data = da.from_array(t, chunks=(10, 1))
    model = EKMeans(2, alpha=1.0, init=[[1.7e9], [1.7e9 + 3]]).fit(data)
    local = ekmfast.EKMeans(2, alpha=1.0, init=[[0.0], [3.0]]).fit(near)
    # Centroids are rounded to the spacing of numbers about 1.7e9, 2.4e-7.
    np.testing.assert_allclose(model.cluster_centers_ - 1.7e9, local.cluster_centers_, atol=3e-7)
    found = getattr(model, method)(data).compute()
    np.testing.assert_allclose(found, getattr(local, method)(near), atol=5e-7)
    assert model.score(data) == pytest.approx(local.score(near), rel=1e-5)


def _narrow(X, block_info=None):
    where = block_info[0]["chunk-location"] if block_info else (0, 0)
    return X[:, :2] if where == (2, 0) else X


def test_an_error_of_reading_comes_through(cluster, tmp_path):
    data = from_files(tmp_path, clusters(400), 4, 0)
    (tmp_path / "2.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.npy"):
        EKMeans(3).fit(data)


def test_a_checkpoint_resumes_to_the_same_bits(cluster, tmp_path):
    X = clusters(3000)
    data = da.from_array(X, chunks=(1000, 3))
    whole = EKMeans(3, alpha=0.1, random_state=0, tol=1e-12).fit(data)

    class Quitter(EKMeans):
        def _find(self, problem, random_state):
            assert problem.report is None  # nobody else wants to know
            passes = [0]

            def count(runs):
                passes[0] += 1
                if passes[0] == 5:
                    raise KeyboardInterrupt
                return False

            problem.report = count
            return super()._find(problem, random_state)

    path = tmp_path / "fit.ckpt"
    with pytest.raises(KeyboardInterrupt):
        Quitter(3, alpha=0.1, random_state=0, tol=1e-12).fit(
            data, checkpoint=path, checkpoint_every=2
        )
    assert path.exists()
    model = EKMeans(3, alpha=0.1, random_state=0, tol=1e-12).fit(data, checkpoint=path)
    assert model.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()


# --- the rest ---


def test_tasks_run_on_one_thread_unless_told(cluster):
    data = da.from_array(clusters(100), chunks=(50, 3))
    for n_threads, used in ((None, 1), (2, 2)):
        assert EKMeans(n_threads=n_threads)._rows(data, fit=True).source.n_threads == used


def test_a_fitted_model_is_saved_as_the_local_one(cluster, tmp_path):
    X = clusters(1000)
    model = EKMeans(3, random_state=0).fit(da.from_array(X, chunks=(300, 3)))
    local = model.to_local()
    assert type(local) is ekmfast.EKMeans
    ekmfast.save(local, tmp_path / "model")
    np.testing.assert_array_equal(ekmfast.load(tmp_path / "model").predict(X), model.predict(X))
    with pytest.raises(TypeError, match="to_local"):
        ekmfast.save(model, tmp_path / "model")


def test_arrays_that_are_not_dasks_are_fitted_as_ever(cluster):
    X = clusters(500)
    model = EKMeans(3, random_state=0).fit(X)
    local = ekmfast.EKMeans(3, random_state=0).fit(X)
    assert model.cluster_centers_.tobytes() == local.cluster_centers_.tobytes()
    np.testing.assert_array_equal(model.labels_, local.labels_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_check_estimator():
    reason = "as for EKMeans: repeating rows changes what restarts draw"
    results = check_estimator(
        EKMeans(),
        on_skip=None,
        expected_failed_checks={
            "check_sample_weight_equivalence_on_dense_data": reason,
            "check_sample_weight_equivalence_on_sparse_data": reason,
        },
    )
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}


def test_bad_input_is_refused(cluster):
    data = da.from_array(clusters(100), chunks=(50, 3))
    with pytest.raises(NotFittedError):
        EKMeans(3).predict(data)
    with pytest.raises(ValueError, match="n_samples=100 should be >= n_clusters=101"):
        EKMeans(101).fit(data)
    with pytest.raises(ValueError, match=r"X must have shape \(rows, features\)"):
        EKMeans(3).fit(data[:, 0])
    with pytest.raises(TypeError, match="X must be a dask array or dataframe, got Bag"):
        EKMeans(3).fit(dask.bag.from_sequence([1, 2]))
    model = EKMeans(3, random_state=0).fit(data)
    with pytest.raises(ValueError, match="X has 2 features, but EKMeans is expecting 3"):
        model.predict(data[:, :2])
    with pytest.raises(ValueError, match="the dask array has no rows"):
        EKMeans(1).fit(data[:0])
