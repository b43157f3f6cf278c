"""Fits to data in blocks give the same result as in memory, and use bounded memory."""

import io
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import closing

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import ekmfast
from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    blocks,
)
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.blockwise import BlockBatches, BlockRows
from ekmfast.rows.source import LocalSource, read_ahead
from ekmfast.rows.tree import tree_sum


def clusters(n, d=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    sizes = [n - n // 5 - n // 20, n // 5, n // 20]
    X = np.vstack([rng.normal(6 * i, 1, (size, d)) for i, size in enumerate(sizes)])
    return rng.permutation(X).astype(dtype)


START = np.array([[1.0] * 3, [5.0] * 3, [11.0] * 3])


def split(X, *at):
    return [np.ascontiguousarray(part) for part in np.split(X, at)]


# --- sums ---


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 33, 100])
@pytest.mark.parametrize("arity", [2, 16])
def test_sums_of_aligned_groups_add_up_to_the_same_bits(n, arity):
    parts = (np.random.default_rng(n).normal(size=n) * 10.0 ** np.arange(n)).tolist()
    levels = parts
    while len(levels) > 1:
        levels = [tree_sum(levels[i : i + arity]) for i in range(0, len(levels), arity)]
    assert levels[0] == tree_sum(parts)


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to add"):
        tree_sum([])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighting", ["equilibrium", "maximum-entropy", "hard", "fuzzy"])
@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_of_blocks_are_those_of_the_whole(dtype, weighting, weighted):
    rng = np.random.default_rng(1)
    X = clusters(1000, dtype=dtype)
    s = rng.random(1000).astype(dtype) if weighted else None
    C, alpha = rng.normal(4, 4, (3, 4, 3)), np.array([0.01, 0.3, 4.0])
    whole = ArrayRows(X, s, 1, weighting, 2.0).statistics(C, alpha)
    parts = blocks.from_arrays(
        split(X, 10, 400, 401), None if s is None else split(s, 10, 400, 401)
    )
    rows = BlockRows(LocalSource(parts, 1), 1, weighting, 2.0)
    rows.survey()
    sums = rows.statistics(C, alpha)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(sums.objective, whole.objective, rtol=rtol)
    np.testing.assert_allclose(sums.ratio(C), whole.ratio(C), rtol=20 * rtol, atol=20 * rtol)


def test_a_column_that_underflows_in_every_block_has_its_exact_ratio():
    X = np.array([[100.0], [101.0], [102.0], [110.0], [111.0]])
    C = np.array([[[105.0], [1000.0]]])
    rows = BlockRows(LocalSource(blocks.from_arrays(split(X, 2, 4)), 1))
    for survey in (False, True):  # with no survey the blocks rescue by themselves
        if survey:
            rows.survey()
        step = rows.statistics(C, np.array([2.0])).ratio(C)[0]
        np.testing.assert_allclose(step, [[104.8], [111]])


def test_a_column_that_underflows_in_one_block_alone_needs_no_second_pass():
    passes = []

    def read():
        passes.append(1)
        yield np.zeros((50, 2))
        yield np.full((50, 2), 100.0)

    rows = BlockRows(LocalSource(blocks.from_factory(read), 1))
    rows.survey()
    passes.clear()
    C = np.array([[[0.0, 0.0], [100.0, 100.0]]])
    np.testing.assert_allclose(rows.statistics(C, np.array([1.0])).ratio(C), C, atol=1e-12)
    assert len(passes) == 1


# --- fits ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", ["auto", "dvariance", 0.5])
def test_the_fit_is_that_of_the_array(dtype, alpha):
    X = clusters(3000, dtype=dtype)
    whole = EKMeans(3, alpha=alpha, random_state=0, tol=1e-6).fit(X)
    model = EKMeans(3, alpha=alpha, random_state=0, tol=1e-6)
    model.fit(blocks.from_arrays(split(X, 700, 701, 2500)))
    rtol = 1e-4 if dtype == np.float32 else 1e-6
    assert model.cluster_centers_.dtype == dtype
    assert model.alpha_ == pytest.approx(whole.alpha_, rel=rtol)
    assert model.objective_ == pytest.approx(whole.objective_, rel=rtol)
    order = np.argsort(model.cluster_centers_[:, 0]), np.argsort(whole.cluster_centers_[:, 0])
    np.testing.assert_allclose(
        model.cluster_centers_[order[0]], whole.cluster_centers_[order[1]], rtol=10 * rtol
    )
    np.testing.assert_array_equal(order[0][model.predict(X)], order[0][model.predict(X)])
    assert model.converged_
    assert not hasattr(model, "labels_")


def test_from_the_same_start_the_iteration_is_that_of_the_array():
    X = clusters(5000)
    whole = EKMeans(3, alpha=0.3, init=START, tol=1e-8).fit(X)
    model = EKMeans(3, alpha=0.3, init=START, tol=1e-8).fit(blocks.from_arrays(split(X, 1234)))
    assert model.n_iter_ == whole.n_iter_
    np.testing.assert_allclose(model.cluster_centers_, whole.cluster_centers_, rtol=1e-9)
    np.testing.assert_allclose(model.objective_history_, whole.objective_history_, rtol=1e-11)


@pytest.mark.parametrize(
    "estimator", [HardKMeans(3), MaximumEntropyKMeans(3, alpha=1.0), FuzzyCMeans(3)]
)
def test_the_neighbours_take_blocks_too(estimator):
    X = clusters(2000)
    whole = clone(estimator).set_params(random_state=0).fit(X)
    model = clone(estimator).set_params(random_state=0).fit(blocks.from_arrays(split(X, 900)))
    assert model.objective_ == pytest.approx(whole.objective_, rel=1e-4)


def test_bits_depend_on_neither_threads_nor_the_kind_of_blocks(tmp_path):
    X = clusters(3000)
    np.save(tmp_path / "X.npy", X)
    found = []
    for threads in (1, 2):
        for data in (
            blocks.from_npy(tmp_path / "X.npy", block_rows=500),
            blocks.from_arrays(split(X, *range(500, 3000, 500))),
            blocks.from_factory(lambda: iter(split(X, *range(500, 3000, 500)))),
        ):
            model = EKMeans(3, random_state=0, n_threads=threads).fit(data)
            found.append(model.cluster_centers_.tobytes())
    assert len(set(found)) == 1


def test_sample_weight_of_blocks_is_that_of_the_array():
    X, s = clusters(2000), np.random.default_rng(0).integers(0, 3, 2000).astype(float)
    whole = EKMeans(3, alpha=0.3, init=START).fit(X, sample_weight=s)
    parts = blocks.from_arrays(split(X, 77, 1500), split(s, 77, 1500))
    model = EKMeans(3, alpha=0.3, init=START).fit(parts)
    np.testing.assert_allclose(model.cluster_centers_, whole.cluster_centers_, rtol=1e-9)
    assert model.score(parts) == pytest.approx(whole.score(X, sample_weight=s), rel=1e-12)


def test_predict_and_fit_predict_give_the_labels_of_all_rows():
    X = clusters(2000)
    parts = blocks.from_arrays(split(X, 77, 1500))
    model = EKMeans(3, random_state=0)
    labels = model.fit_predict(parts)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, model.predict(X))
    np.testing.assert_array_equal(labels, model.predict(parts))
    assert model.score(parts) == pytest.approx(model.score(X))


def test_a_small_cluster_that_the_sample_has_no_row_of_is_found(monkeypatch):
    # 20,000 rows and 40 far away; the sample of 200 holds less than one of these on average.
    monkeypatch.setattr("ekmfast.rows.blockwise.SAMPLE_ROWS", 200)
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(0, 1, (20_000, 2)), rng.normal(30, 0.1, (40, 2))])
    X = rng.permutation(X)
    for seed in range(5):
        model = EKMeans(2, alpha="dvariance", random_state=seed)
        model.fit(blocks.from_arrays(split(X, 5000, 12_000)))
        assert np.bincount(model.predict(X)).min() == 40


def test_zero_rows_of_a_block_are_left_out():
    X = clusters(300)
    model = EKMeans(2, random_state=0).fit(blocks.from_arrays([X[:0], X[:100], X[:0], X[100:]]))
    assert model.objective_ == pytest.approx(EKMeans(2, random_state=0).fit(X).objective_, rel=1e-4)


def test_a_refit_to_blocks_forgets_labels_and_names():
    pd = pytest.importorskip("pandas")
    X = clusters(300)
    model = EKMeans(2, random_state=0).fit(pd.DataFrame(X, columns=list("abc")))
    model.fit(blocks.from_arrays([X]))
    assert not hasattr(model, "labels_")
    assert not hasattr(model, "feature_names_in_")


# --- files ---


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "<i4", ">f8", "u1"])
def test_npy_is_read_whole_in_every_dtype(tmp_path, dtype):
    X = np.random.default_rng(0).integers(0, 100, (103, 4)).astype(dtype)
    np.save(tmp_path / "X.npy", X)
    read = list(blocks.from_npy(tmp_path / "X.npy", block_rows=10))
    assert [len(block.X) for block in read] == [10] * 10 + [3]
    assert {block.X.dtype for block in read} == {np.dtype("f4" if dtype == "<f4" else "f8")}
    np.testing.assert_array_equal(np.vstack([block.X for block in read]), X)


def test_a_truncated_npy_is_refused(tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, clusters(100))
    os.truncate(path, os.path.getsize(path) - 5)
    with pytest.raises(ValueError, match=r"X\.npy: truncated: it has 2,523 bytes.* 2,528"):
        EKMeans(2).fit(blocks.from_npy(path))


def test_an_npy_that_shrinks_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, clusters(100))
    reading = iter(blocks.from_npy(path, block_rows=50))
    next(reading)
    os.truncate(path, 1000)
    with pytest.raises(ValueError, match=r"row 50: the file ended while it was read"):
        next(reading)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros(5), ValueError, r"expected shape \(rows, features\), got \(5,\)"),
        (np.zeros((5, 2), complex), TypeError, "expected numbers, got dtype complex128"),
        (np.zeros((5, 2), "U3"), TypeError, "expected numbers, got dtype"),
        (np.asfortranarray(np.zeros((5, 2))), ValueError, "Fortran order"),
        (np.zeros((0, 2)), ValueError, "has no rows"),
        (np.zeros((5, 0)), ValueError, r"expected shape \(rows, features\), got \(5, 0\)"),
    ],
)
def test_an_npy_of_something_else_is_refused(tmp_path, X, error, message):
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(error, match=message):
        EKMeans(2).fit(blocks.from_npy(tmp_path / "X.npy"))


def test_a_file_that_is_no_npy_is_refused(tmp_path):
    (tmp_path / "X.npy").write_bytes(b"rows and columns")
    with pytest.raises(ValueError, match=r"X\.npy: not a \.npy file"):
        blocks.from_npy(tmp_path / "X.npy")


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_large_memmap_is_read_in_blocks(tmp_path, monkeypatch, mode):
    monkeypatch.setattr("ekmfast.rows.given.LARGE_MEMMAP", 1000)
    X = clusters(500)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode=mode)
    model = EKMeans(3, random_state=0).fit(mapped)
    assert hasattr(model, "labels_") == (mode == "c")  # changes of such a map are not in the file
    whole = EKMeans(3, random_state=0).fit(X)
    assert model.objective_ == pytest.approx(whole.objective_, rel=1e-4)
    np.testing.assert_array_equal(model.predict(mapped), model.predict(X))


def test_parts_of_a_memmap_are_read_where_they_lie(tmp_path):
    X = clusters(50_000)
    X.tofile(tmp_path / "raw")
    mapped = np.memmap(tmp_path / "raw", np.float64, "r", offset=24 * 10, shape=(49_990, 3))
    for view, expected in ((mapped, X[10:]), (mapped[20_000:30_000], X[20_010:30_010])):
        found = ekmfast.rows.blocks.from_memmap(view)
        assert found is not None
        np.testing.assert_array_equal(np.vstack([block.X for block in found]), expected)
    assert ekmfast.rows.blocks.from_memmap(mapped[:, :2]) is None
    assert ekmfast.rows.blocks.from_memmap(mapped[::2]) is None


def test_changes_to_a_writable_memmap_are_seen(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float64, (100, 2))
    mapped[:] = 7
    read = ekmfast.rows.blocks.from_memmap(mapped)
    assert read is not None
    np.testing.assert_array_equal(np.vstack([block.X for block in read]), np.full((100, 2), 7.0))


def test_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    X = clusters(1000, dtype=np.float32)
    array = zarr.create_array(tmp_path / "X.zarr", data=X, chunks=(100, 2))
    for source in (array, tmp_path / "X.zarr", str(tmp_path / "X.zarr")):
        read = list(blocks.from_zarr(source, block_rows=300))
        assert [len(block.X) for block in read] == [300, 300, 300, 100]
        np.testing.assert_array_equal(np.vstack([block.X for block in read]), X)
    model = EKMeans(3, random_state=0).fit(blocks.from_zarr(array))
    assert model.cluster_centers_.dtype == np.float32
    with pytest.raises(ValueError, match=r"expected shape \(rows, features\), got \(5,\)"):
        blocks.from_zarr(zarr.create_array(tmp_path / "y.zarr", data=np.zeros(5)))
    for weight in (np.ones(3), [1.0] * 3):
        with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\)"):
            blocks.from_zarr(array, sample_weight=weight)
    zarr.open_group(tmp_path / "group", mode="w")
    with pytest.raises(ValueError, match="group: not a Zarr array"):
        blocks.from_zarr(tmp_path / "group")


def test_parquet(tmp_path):
    pd, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    X = clusters(1000)
    table = pd.DataFrame(X, columns=list("abc"))
    table["s"], table["name"] = np.arange(1000) % 3, "x"
    (tmp_path / "rows").mkdir()
    table[:600].to_parquet(tmp_path / "rows" / "0.parquet")
    table[600:].to_parquet(tmp_path / "rows" / "1.parquet")
    data = blocks.from_parquet(
        tmp_path / "rows", columns=["c", "a"], sample_weight="s", block_rows=250
    )
    read = list(data)
    assert [len(block.X) for block in read] == [250, 250, 100, 250, 150]
    np.testing.assert_array_equal(np.vstack([block.X for block in read]), X[:, [2, 0]])
    weight = np.concatenate([block.sample_weight for block in read])
    np.testing.assert_array_equal(weight, np.arange(1000) % 3)
    model = EKMeans(2, random_state=0).fit(data)
    assert model.feature_names_in_.tolist() == ["c", "a"]
    whole = EKMeans(2, random_state=0).fit(table[["c", "a"]], sample_weight=table["s"])
    assert model.objective_ == pytest.approx(whole.objective_, rel=1e-4)
    with pytest.raises(TypeError, match="column 'name' must hold numbers"):
        blocks.from_parquet(tmp_path / "rows")
    with pytest.raises(ValueError, match="has no column 'z', only a, b, c"):
        blocks.from_parquet(tmp_path / "rows", columns=["z"])
    with pytest.raises(ValueError, match=r"rows/0\.parquet and .* in subfolders \(2 files"):
        blocks.from_parquet(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no \.parquet file"):
        blocks.from_parquet(tmp_path / "empty")


def test_no_parquet_file_of_a_folder_is_left_out(tmp_path):
    pd, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    parts = split(clusters(40, dtype=np.float32), 10, 20, 30)
    frames = [pd.DataFrame(part, columns=list("abc")) for part in parts]
    for frame, name in zip(frames, ["0.parquet", "1.PARQUET", "2.pq", "3.Parq"], strict=True):
        frame.to_parquet(tmp_path / name)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "notes.txt").touch()
    read = [block.X for block in blocks.from_parquet(tmp_path)]
    np.testing.assert_array_equal(np.concatenate(read), np.concatenate(parts))
    assert read[0].dtype == np.float32
    (tmp_path / "4.parquet").symlink_to(tmp_path / "gone")
    message = r"4\.parquet: a link to a file that does not exist"
    with pytest.raises(FileNotFoundError, match=message):
        blocks.from_parquet(tmp_path)


def test_all_parquet_files_are_looked_at_before_a_pass(tmp_path):
    pd, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    first = pd.DataFrame(clusters(20, dtype=np.float32), columns=list("abc"))
    first.to_parquet(tmp_path / "0.parquet")
    # Columns in another order are found by name; a column of another dtype makes all float64.
    second = first[["c", "a", "b"]].astype({"a": np.float64}) + 1e-12
    second.to_parquet(tmp_path / "1.parquet")
    read = [block.X for block in blocks.from_parquet(tmp_path)]
    assert {X.dtype for X in read} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(read[1], second[list("abc")].to_numpy(np.float64))
    for bad, error, match in (
        (first[["a", "b"]], ValueError, r"1\.parquet: has no column 'c', only a, b"),
        (first.assign(b="1.5"), TypeError, r"1\.parquet: column 'b' must hold numbers, it holds"),
    ):
        bad.to_parquet(tmp_path / "1.parquet")
        with pytest.raises(error, match=match):
            blocks.from_parquet(tmp_path)
    (tmp_path / "1.parquet").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"1\.parquet: not a Parquet file"):
        blocks.from_parquet(tmp_path)


def test_an_index_of_pandas_is_no_feature(tmp_path):
    pd, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    table = pd.DataFrame(clusters(100), columns=list("abc"))
    for frame in (table, table[table["a"] > 0], table.rename_axis("day")[::2]):
        frame.to_parquet(tmp_path / "X.parquet")
        data = blocks.from_parquet(tmp_path / "X.parquet")
        assert data.feature_names == ["a", "b", "c"]
        np.testing.assert_array_equal(next(iter(data)).X, frame.to_numpy())


def test_rows_behind_the_array_of_an_npy_are_not_left_out(tmp_path):
    with (tmp_path / "X.npy").open("wb") as file:
        np.save(file, clusters(100))
        np.save(file, clusters(50))
    with pytest.raises(
        ValueError,
        match=r"X\.npy: 1,328 bytes follow the array of shape \(100, 3\) that its header",
    ):
        blocks.from_npy(tmp_path / "X.npy")


def frames_of(library, X, columns):
    """X as a data frame of the given library."""
    data = {name: X[:, j] for j, name in enumerate(columns)}
    if library == "pandas":
        return pytest.importorskip("pandas").DataFrame(data)
    if library == "nullable":
        pd = pytest.importorskip("pandas")
        return pd.DataFrame(data).convert_dtypes()
    if library == "polars":
        return pytest.importorskip("polars").DataFrame(data)
    return pytest.importorskip("pyarrow").table(data)


@pytest.mark.parametrize("library", ["pandas", "nullable", "polars", "arrow"])
@pytest.mark.parametrize("make", ["arrays", "factory"])
def test_frames_bring_their_names(library, make):
    X = clusters(300)

    def data(*names):
        frames = [frames_of(library, part, n) for part, n in zip(split(X, 100), names, strict=True)]
        if make == "arrays":
            return blocks.from_arrays(frames)
        return blocks.from_factory(lambda: iter(frames), name="frames")

    assert data("abc", "abc").feature_names == ["a", "b", "c"]
    model = EKMeans(3, alpha=0.3, init=START, random_state=0).fit(data("abc", "abc"))
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    plain = EKMeans(3, alpha=0.3, init=START, random_state=0).fit(blocks.from_arrays(split(X, 100)))
    assert model.cluster_centers_.tobytes() == plain.cluster_centers_.tobytes()
    with pytest.raises(
        ValueError, match=r"block 1 of .*: has columns \['b', 'a', 'c'\], but the first"
    ):
        model.fit(data("abc", "bac"))


def test_names_may_be_given_to_a_file_that_has_none(tmp_path):
    np.save(tmp_path / "X.npy", clusters(100))
    data = blocks.from_npy(tmp_path / "X.npy")
    assert data.feature_names is None
    data.feature_names = ("a", "b", "c")
    model = EKMeans(2, init=START[:2]).fit(data)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert blocks.from_factory(lambda: [clusters(100)]).feature_names is None


@pytest.mark.parametrize("library", ["pandas", "nullable", "polars", "arrow"])
@pytest.mark.parametrize("kind", ["text", "date"])
def test_a_column_that_holds_no_numbers_is_named(library, kind):
    import datetime

    value = {"text": "1.5", "date": datetime.datetime(2024, 5, 1)}[kind]
    X = clusters(10).astype(object)
    X[:, 1] = value
    X = [[float(a), b, float(c)] for a, b, c in X]
    columns = {name: [row[j] for row in X] for j, name in enumerate("abc")}
    library, maker = {
        "pandas": ("pandas", "DataFrame"),
        "nullable": ("pandas", "DataFrame"),
        "polars": ("polars", "DataFrame"),
        "arrow": ("pyarrow", "table"),
    }[library]
    frame = getattr(pytest.importorskip(library), maker)(columns)
    with pytest.raises(TypeError, match=r"block 0 of .*: column 'b' must hold numbers, it holds"):
        EKMeans(2).fit(blocks.from_arrays([frame]))


def test_what_is_missing_in_a_frame_or_masked_is_refused():
    pd = pytest.importorskip("pandas")
    X = clusters(20)
    frame = pd.DataFrame(X, columns=list("abc")).convert_dtypes()
    frame.loc[7, "b"] = pd.NA
    with pytest.raises(ValueError, match="its row 7 holds NaN"):
        EKMeans(2).fit(blocks.from_arrays([frame]))
    with pytest.raises(ValueError, match=r"block 0 of .* masked entries: drop"):
        EKMeans(2).fit(blocks.from_arrays([np.ma.array(X, mask=X > 5)]))
    assert EKMeans(2, init=START[:2]).fit(blocks.from_arrays([np.ma.array(X)])).n_features_in_ == 3
    for weight in (pd.Series([1, pd.NA] * 10, dtype="Int64"), np.ma.array(np.ones(20), mask=1)):
        with pytest.raises(ValueError, match="sample_weight must be finite and >= 0, got nan in"):
            EKMeans(2).fit(blocks.from_arrays([X], [weight]))


def test_parquet_of_float32_columns_is_float32_and_a_null_is_refused(tmp_path):
    pd, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    table = pd.DataFrame(clusters(100, dtype=np.float32), columns=list("abc"))
    table.to_parquet(tmp_path / "X.parquet")
    model = EKMeans(2, random_state=0).fit(blocks.from_parquet(tmp_path / "X.parquet"))
    assert model.cluster_centers_.dtype == np.float32
    table = table.astype("Float32")
    table.loc[42, "b"] = None
    table.to_parquet(tmp_path / "X.parquet")
    with pytest.raises(ValueError, match=r"block 0 of .*X\.parquet.*its row 42 holds NaN"):
        EKMeans(2).fit(blocks.from_parquet(tmp_path / "X.parquet"))


# --- bad input ---


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (
            np.full((5, 3), np.nan),
            ValueError,
            r"block 1 of .* \(from row 100 on\): its row 0 holds",
        ),
        (np.full((5, 3), np.inf), ValueError, "holds infinity in column 0"),
        (np.zeros((5, 2)), ValueError, r"block 1 of .*: has 2 features, but the first block has 3"),
        (np.zeros((5, 3), "f"), TypeError, "has dtype float32, but the first block has float64"),
        (np.zeros(3), ValueError, r"block 1 of .*: expected shape \(rows, features\), got \(3,\)"),
        (np.zeros((5, 3), "U1"), TypeError, "expected numbers"),
        ((np.zeros((5, 3)), [1] * 5), ValueError, "it has sample_weight, but the first block has"),
        ((np.zeros((5, 3)),) * 3, ValueError, r"expected \(array, sample_weight\), got 3 items"),
    ],
)
def test_a_bad_block_is_named(bad, error, message):
    X = clusters(100)
    with pytest.raises(error, match=message):
        EKMeans(2).fit(blocks.from_factory(lambda: [X, bad, X]))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(99), r"block 0 of .*: sample_weight has shape \(99,\), but X has \(100, 3\)"),
        (-np.ones(100), "sample_weight must be finite and >= 0"),
        (np.full(100, np.nan), "sample_weight must be finite and >= 0"),
        (np.zeros(100), "sample_weight must have a positive sum"),
        (["1"] * 100, "sample_weight must hold numbers, got dtype <U1"),
        (np.ones(100, complex), "sample_weight must hold numbers, got dtype complex128"),
    ],
)
def test_bad_weights_are_refused(weight, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EKMeans(2).fit(blocks.from_arrays([clusters(100)], [weight]))


def test_an_overflow_is_blamed_on_what_overflows():
    X = 1e5 * clusters(100)
    for factor, weight, match in (
        (1, 1e307, "scale sample_weight down"),
        (1e200, 1.0, "squared distances overflow float64: scale X down"),
    ):
        with pytest.raises(ValueError, match=match):
            EKMeans(2).fit(blocks.from_arrays([factor * X], [np.full(100, weight)]))


def test_a_weight_that_float32_cannot_hold_is_named():
    X = clusters(100, dtype=np.float32)
    with pytest.raises(ValueError, match=r"got 1e\+300 in row 3, which float32 cannot hold"):
        EKMeans(2).fit(blocks.from_arrays([X], [np.r_[1, 1, 1, 1e300, np.ones(96)]]))


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1e-25), (np.float64, 1e-170)])
def test_units_in_which_squares_underflow_are_named(dtype, scale):
    X = (scale * clusters(100)).astype(dtype)
    s = np.ones(100)
    for data in (blocks.from_arrays(split(X, 50)), blocks.from_arrays(split(X, 50), split(s, 50))):
        with pytest.raises(ValueError, match=f"distances underflow {X.dtype}: scale X up"):
            EKMeans(2).fit(data)


@pytest.mark.filterwarnings("ignore:only 1 of 2:sklearn.exceptions.ConvergenceWarning")
def test_equal_rows_in_blocks_do_not_underflow():
    X, s = clusters(100), np.zeros(100)
    s[7] = 1.0
    for data in (
        blocks.from_arrays([X * 0 + 3.0]),
        blocks.from_arrays(split(X, 50), split(s, 50)),
    ):
        model = EKMeans(2, alpha="dvariance", random_state=0).fit(data)
        assert model.objective_ == pytest.approx(0, abs=1e-12)


def test_what_blocks_cannot_be_or_do_is_said():
    X = clusters(100)
    data = blocks.from_arrays([X])
    with pytest.raises(TypeError, match="a generator can be read only once; got generator"):
        blocks.from_factory(part for part in [X])
    with pytest.raises(ValueError, match="n_samples=100 should be >= n_clusters=101"):
        EKMeans(101).fit(data)
    with pytest.raises(ValueError, match="sample_weight must be None for Blocks"):
        EKMeans(2).fit(data, sample_weight=np.ones(100))
    for arrays in (X, iter([X])):
        with pytest.raises(TypeError, match="arrays must be a sequence of arrays, such as"):
            blocks.from_arrays(arrays)
    with pytest.raises(TypeError, match="rows must return an iterable of arrays, got NoneType"):
        EKMeans(2).fit(blocks.from_factory(lambda: None, name="rows"))
    with pytest.raises(ValueError, match="sample_weight has 2 blocks, but X has 1"):
        blocks.from_arrays([X], [np.ones(50), np.ones(50)])
    with pytest.raises(ValueError, match="the list of arrays has no rows"):
        EKMeans(2).fit(blocks.from_arrays([]))
    with pytest.raises(NotFittedError):
        EKMeans(2).predict(data)
    model = EKMeans(2, random_state=0).fit(data)
    with pytest.raises(ValueError, match="sample_weight must be None for Blocks"):
        model.score(data, sample_weight=np.ones(100))
    with pytest.raises(ValueError, match="has 2 features, but EKMeans is expecting 3"):
        model.predict(blocks.from_arrays([X[:, :2]]))
    for rows in (0, -1):
        with pytest.raises(ValueError, match="block_rows must be an integer >= 1"):
            ekmfast.rows.blocks.block._block_rows(rows, 8)
    for rows in (1.5, True, "a"):
        with pytest.raises(TypeError, match="block_rows must be an integer >= 1"):
            ekmfast.rows.blocks.block._block_rows(rows, 8)


def test_errors_of_the_users_function_come_through_and_no_thread_stays():
    def read():
        yield clusters(100)
        raise OSError("the tape is torn")

    with pytest.raises(OSError, match="the tape is torn"):
        EKMeans(2).fit(blocks.from_factory(read))
    assert not readers()


def readers():
    return [t for t in threading.enumerate() if t.name == "ekmfast-reader"]


def batches_of(source, work):
    """As the epochs of `fit.incremental` go through them."""
    rows = BlockRows(source)
    rows._blocks = np.array([[i, 100, 100.0] for i in range(9)])  # as if they had been surveyed
    C = np.zeros((2, 3))
    batches = BlockBatches(rows, np.ones(9))
    with closing(batches.visit(np.random.RandomState(0))) as visits:
        for _, batch in visits:
            batch.statistics(C[None], np.ones(1))
            work()


WAYS = {
    "sum": lambda source, work: source.sum(lambda block, index: work()),
    "map": lambda source, work: source.map(lambda X: work(), None, None),
    "batches": batches_of,
}


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_leaves_no_reader_while_its_traceback_is_kept(way):
    open_now, calls = [], []

    def read():
        open_now.append(1)
        try:
            while True:
                yield clusters(100)
        finally:
            open_now.pop()

    def work():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt) as kept:
        WAYS[way](LocalSource(blocks.from_factory(read), 1), work)
    assert not readers()
    assert not open_now
    assert kept.tb is not None


@pytest.mark.parametrize("begun", [True, False])
def test_ctrl_c_while_the_reader_starts_leaves_none(monkeypatch, begun):
    start = threading.Thread.start

    def interrupted(thread):
        if begun:
            start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt) as kept:
        LocalSource(blocks.from_arrays([clusters(100)] * 9), 1).sum(lambda block, index: 1.0)
    assert not readers()
    assert kept.tb is not None


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
@pytest.mark.parametrize("n_buffers", [1, 2])
def test_a_function_may_refill_its_buffers(dtype, n_buffers):
    X = (10 * clusters(4000)).astype(dtype)
    s = np.random.default_rng(0).random(4000)
    buffers = [(np.empty((100, 3), dtype), np.empty(100)) for _ in range(n_buffers)]

    def read():
        for i in range(40):
            rows, weight = buffers[i % n_buffers]
            rows[:], weight[:] = X[100 * i :][:100], s[100 * i :][:100]
            yield rows, weight

    at = range(100, 4000, 100)
    model = EKMeans(3, alpha="dvariance", init=10 * START, random_state=0)
    expected = model.fit(
        blocks.from_arrays(split(X, *at), split(s, *at))
    ).cluster_centers_.tobytes()
    data = blocks.from_factory(read)
    assert model.fit(data).cluster_centers_.tobytes() == expected
    # Blocks that are kept stay as they were.
    np.testing.assert_array_equal(np.concatenate([block.X for block in list(data)]), X)


def test_blocks_are_read_ahead_and_buffers_used_again(tmp_path):
    np.save(tmp_path / "X.npy", clusters(1000))
    data = blocks.from_npy(tmp_path / "X.npy", block_rows=50)
    seen, sums = set(), 0.0
    for block in read_ahead(data):
        seen.add(block.X.ctypes.data)
        sums += block.X.sum()
    assert len(seen) <= 4
    assert sums == pytest.approx(clusters(1000).sum())


# --- checkpoints ---


class KilledError(Exception):
    pass


def killed_after(n_reads, X):
    """Blocks whose n-th reading raises an error."""
    count = [0]

    def read():
        count[0] += 1
        if count[0] > n_reads:
            raise KilledError
        yield from split(X, len(X) // 2)

    made = blocks.from_factory(read, "blocks")
    made.count = count
    return made


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("reads", [5, 8, 11])
def test_a_killed_fit_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path, every, reads):
    X = clusters(3000, seed=3)
    path = tmp_path / "fit.ckpt"
    model = EKMeans(3, alpha=0.1, random_state=0, tol=1e-12)
    data = killed_after(1000, X)
    whole = model.fit(data).cluster_centers_.tobytes()
    n_passes = data.count[0] - 2  # the first two readings are the first block and the survey
    with pytest.raises(KilledError):
        model.fit(killed_after(reads, X), checkpoint=path, checkpoint_every=every)
    assert path.exists()
    data = killed_after(1000, X)
    model.fit(data, checkpoint=path, checkpoint_every=every)
    assert model.cluster_centers_.tobytes() == whole
    assert data.count[0] == 2 + n_passes - (reads - 2) // every * every
    # A checkpoint of a finished fit gives its result without a pass over the data.
    data = killed_after(2, X)
    model.fit(data, checkpoint=path)
    assert model.cluster_centers_.tobytes() == whole


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    X, path = clusters(500), tmp_path / "fit.ckpt"
    EKMeans(3, alpha=0.3, random_state=0).fit(blocks.from_arrays([X]), checkpoint=path)
    for model, data in (
        (EKMeans(3, alpha=0.3, random_state=1, init="random"), X),
        (EKMeans(3, alpha=0.3, random_state=0, tol=1e-3), X),
        (EKMeans(3, alpha=0.3, random_state=0), X[1:]),
        (EKMeans(2, alpha=0.3, random_state=0), X),
        (EKMeans(3, alpha=0.123, random_state=0), X),
        (HardKMeans(3, random_state=0), X),
    ):
        with pytest.raises(ValueError, match=r"fit\.ckpt belongs to another fit"):
            model.fit(blocks.from_arrays([data]), checkpoint=path)
    with pytest.raises(ValueError, match="checkpoint needs a random_state"):
        EKMeans(3).fit(blocks.from_arrays([X]), checkpoint=path)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    X, path = clusters(500), tmp_path / "fit.ckpt"
    model = EKMeans(3, alpha=0.3, random_state=0).fit(blocks.from_arrays([X]), checkpoint=path)
    good = path.read_bytes()
    archive = io.BytesIO()
    np.savez(archive, header=np.zeros(3))
    for bad in (b"", b"text", good[: len(good) // 2], archive.getvalue()):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"checkpoint .*fit\.ckpt cannot be read"):
            model.fit(blocks.from_arrays([X]), checkpoint=path)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    X, path = clusters(500), tmp_path / "fit.ckpt"
    model = EKMeans(3, random_state=0, alpha=0.3)
    model.fit(blocks.from_arrays([X]), checkpoint=path, checkpoint_every=1)
    good = path.read_bytes()
    path.unlink()
    write = np.savez
    count = [0]

    def full(*args, **kwargs):
        count[0] += 1
        if count[0] > 2:
            args[0].write(b"half of ")
            raise OSError(28, "No space left on device")
        write(*args, **kwargs)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        model.fit(blocks.from_arrays([X]), checkpoint=path, checkpoint_every=1)
    assert os.listdir(tmp_path) == ["fit.ckpt"]
    monkeypatch.undo()
    model.fit(blocks.from_arrays([X]), checkpoint=path, checkpoint_every=1)
    assert path.read_bytes() == good


def test_a_process_that_is_killed_leaves_a_whole_checkpoint(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        import numpy as np
        from ekmfast import EKMeans, blocks
        from test_blocks import clusters, split
        kill, path = int(sys.argv[1]), sys.argv[2]
        X, count = clusters(3000, seed=3), [0]
        def read():
            count[0] += 1
            yield X[:1500]
            if count[0] == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            yield X[1500:]
        model = EKMeans(3, alpha=0.1, random_state=0, tol=1e-12)
        model.fit(blocks.from_factory(read), checkpoint=path, checkpoint_every=2)
        print(model.cluster_centers_.tobytes().hex(), count[0])
    """)

    def run(kill, path):
        return subprocess.run(
            [sys.executable, "-c", script, str(kill), str(path)],
            capture_output=True,
            text=True,
            cwd=os.path.dirname(__file__),
            check=False,
        )

    whole = run(0, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed = run(9, tmp_path / "fit")
    assert killed.returncode == -9
    resumed = run(0, tmp_path / "fit")
    assert resumed.returncode == 0, resumed.stderr
    (bits, reads), (expected, all_reads) = resumed.stdout.split(), whole.stdout.split()
    assert bits == expected
    assert int(reads) < int(all_reads)


# --- memory ---


def test_memory_is_bounded_by_blocks(tmp_path):
    # 1.2 GB of float32 in a sparse file of 16 columns: 18.75 M rows, in blocks of 16 MiB.
    path = tmp_path / "X.npy"
    header = io.BytesIO()
    shape = (18_750_000, 16)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with path.open("wb") as file:
        file.write(header.getvalue())
        rng = np.random.default_rng(0)
        file.write(clusters(100_000, 16, dtype=np.float32).tobytes())
        file.seek(-1600, os.SEEK_CUR)
        file.truncate(len(header.getvalue()) + 4 * shape[0] * shape[1])
        assert rng is not None
    script = textwrap.dedent("""
        import resource, sys
        import numpy as np
        from ekmfast import EKMeans, blocks
        small = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
        init = small[:3]
        model = EKMeans(3, alpha=0.1, init=init, max_iter=2, tol=0)
        import warnings
        warnings.simplefilter("ignore")
        model.fit(blocks.from_arrays([small]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model.fit(blocks.from_npy(sys.argv[1]))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    """)
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    # Five blocks of 16 MiB are read into; the sample of 50,000 rows is 3 MB, drawn pairwise.
    assert float(run.stdout) < 150
    assert path.stat().st_size > 1.19e9


def test_blocks_is_a_module_of_the_package():
    assert ekmfast.blocks is blocks
    assert "blocks" in dir(ekmfast)
    assert repr(blocks.from_arrays([])) == "Blocks('the list of arrays')"


@pytest.mark.parametrize(
    ("package", "call", "extra"),
    [
        ("zarr", "blocks.from_zarr('x.zarr')", "zarr"),
        ("pyarrow", "blocks.from_parquet('x.parquet')", "parquet"),
        ("dask", "ekmfast.dask", "dask"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package, call, extra):
    script = f"""
import sys
sys.modules[{package!r}] = None
import ekmfast
from ekmfast import *
try:
    {call}
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f'pip install "ekmfast[{extra}]"' in run.stdout


def test_a_factory_must_give_the_same_each_time():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 3))
    once = iter([X[:500], X[500:]])
    with pytest.raises(TypeError, match="returned the same iterator twice"):
        EKMeans(2, random_state=0).fit(blocks.from_factory(lambda: once, name="rows"))
    passes = 0

    def shrinking():
        nonlocal passes
        passes += 1
        yield X[:500]
        yield X[500 : 1000 - passes]

    data = blocks.from_factory(shrinking)
    assert sum(len(block.X) for block in data) == 999
    with pytest.raises(ValueError, match="shrinking gave 998 rows, but 999 in an earlier pass"):
        list(data)


def test_a_list_that_is_returned_again_is_no_iterator():
    given = [np.arange(20.0).reshape(10, 2), np.arange(20.0, 40).reshape(10, 2)]
    data = blocks.from_factory(lambda: given)
    assert [len(block.X) for _ in range(2) for block in data] == [10, 10, 10, 10]


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    path = tmp_path / "junk.parquet"
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.parquet: not a Parquet file"):
        blocks.from_parquet(path)


def test_a_checkpoint_needs_its_folder(tmp_path):
    data = blocks.from_arrays([np.random.default_rng(0).normal(size=(50, 2))])
    with pytest.raises(FileNotFoundError, match=r"checkpoint=.*no such folder"):
        EKMeans(2, random_state=0).fit(data, checkpoint=tmp_path / "no" / "fit")
