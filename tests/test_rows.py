"""Every estimator takes every kind of rows, with the same result as for an array."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning

from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
    alpha_path,
    blocks,
    load,
    save,
)
from ekmfast.fit.checkpoint import Checkpoint
from ekmfast.rows import array as array_rows
from ekmfast.rows.array import ArrayRows
from ekmfast.rows.blockwise import BlockRows
from ekmfast.rows.given import rows_of
from ekmfast.rows.source import LocalSource

N = 900
CUTS = (250, 251, 700)


def data(dtype=np.float64):
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 1, (600, 3)), rng.normal(7, 1, (250, 3)), rng.normal(-7, 1, (50, 3))]
    return rng.permutation(np.vstack(parts)).astype(dtype)


X = data()
WEIGHT = np.random.default_rng(1).integers(0, 3, N).astype(np.float64)
LABELS = np.full(N, -1)
LABELS[::40] = (X[::40, 0] > 3.5) + 2 * (X[::40, 0] < -3.5)
START = np.array([[0.0, 0, 0], [6, 6, 6], [-6, -6, -6]])

ESTIMATORS = {
    "EKMeans auto": lambda **kw: EKMeans(3, random_state=0, **kw),
    "EKMeans": lambda **kw: EKMeans(3, alpha="dvariance", init=START, random_state=0, **kw),
    "HardKMeans": lambda **kw: HardKMeans(3, init=START, random_state=0, **kw),
    "FuzzyCMeans": lambda **kw: FuzzyCMeans(3, init=START, random_state=0, **kw),
    "MaximumEntropyKMeans": lambda **kw: MaximumEntropyKMeans(3, init=START, random_state=0, **kw),
    "MiniBatchEKMeans": lambda **kw: MiniBatchEKMeans(
        3, batch_size=200, init=START, random_state=0, **kw
    ),
    "SemiSupervisedEKMeans": lambda **kw: SemiSupervisedEKMeans(3, random_state=0, **kw),
}


def of_blocks(X, weight, tmp_path):
    s = None if weight is None else np.split(weight, CUTS)
    return blocks.from_arrays(np.split(X, CUTS), s), None


def of_one_block(X, weight, tmp_path):
    return blocks.from_arrays([X], None if weight is None else [weight]), None


def of_a_function(X, weight, tmp_path):
    def read():
        for i, part in enumerate(np.split(X, CUTS)):
            yield part if weight is None else (part, np.split(weight, CUTS)[i])

    return blocks.from_factory(read), None


def of_a_memory_map(X, weight, tmp_path):
    np.save(tmp_path / "x.npy", X)
    return np.load(tmp_path / "x.npy", mmap_mode="r"), weight


def of_dask(X, weight, tmp_path):
    da = pytest.importorskip("dask.array")
    chunks = tuple(np.diff([0, *CUTS, N]))
    return da.from_array(X, chunks=(chunks, 3)), weight


def of_a_dask_frame(X, weight, tmp_path):
    dd = pytest.importorskip("dask.dataframe")
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    s = None if weight is None else dd.from_pandas(pd.Series(weight), npartitions=3)
    return dd.from_pandas(frame, npartitions=3), s


def of_a_sparse_matrix(X, weight, tmp_path):
    return csr_matrix(X), weight


KINDS = {
    "blocks": of_blocks,
    "one block": of_one_block,
    "a function": of_a_function,
    "a memory map": of_a_memory_map,
    "dask": of_dask,
    "a dask frame": of_a_dask_frame,
    "a sparse matrix": of_a_sparse_matrix,
}


@pytest.fixture(autouse=True)
def small_memory_maps_are_large(monkeypatch):
    monkeypatch.setattr("ekmfast.rows.given.LARGE_MEMMAP", 1000)
    monkeypatch.setattr("ekmfast.rows.blocks.block.BLOCK_BYTES", 6000)
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler="synchronous"):
        yield


def fitted(name, X, weight, **more):
    model = ESTIMATORS[name]()
    if name == "SemiSupervisedEKMeans":
        return model.fit(X, LABELS, sample_weight=weight, **more)
    return model.fit(X, sample_weight=weight, **more)


def by_first(centroids):
    return centroids[np.argsort(centroids[:, 0])]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fit_is_that_of_the_array(name, kind, weighted, tmp_path):
    weight = WEIGHT if weighted else None
    given, own_weight = KINDS[kind](X, weight, tmp_path)
    model, whole = fitted(name, given, own_weight), fitted(name, X, weight)
    assert model.converged_
    assert model.n_features_in_ == 3
    # Both results are within tol of the same fixed point. Their steps differ, since the order of
    # summation does.
    rtol = 1e-3
    assert_allclose(
        by_first(model.cluster_centers_), by_first(whole.cluster_centers_), rtol=rtol, atol=rtol
    )
    assert model.alpha_ == pytest.approx(whole.alpha_, rel=1e-9)
    assert model.objective_ == pytest.approx(whole.objective_, rel=1e-6)
    same = np.argsort(np.argsort(model.cluster_centers_[:, 0]))
    other = np.argsort(np.argsort(whole.cluster_centers_[:, 0]))
    assert_array_equal(same[np.asarray(model.predict(given))], other[whole.predict(X)])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "MiniBatchEKMeans"])
def test_of_one_block_a_fit_has_the_bits_of_the_array(name, dtype, weighted, tmp_path):
    weight = WEIGHT.astype(dtype) if weighted else None
    given, _ = of_one_block(data(dtype), weight, tmp_path)
    model, whole = fitted(name, given, None), fitted(name, data(dtype), weight)
    assert model.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()
    assert (model.objective_, model.alpha_) == (whole.objective_, whole.alpha_)
    assert model.n_iter_ == whole.n_iter_


@pytest.mark.parametrize("method", ["predict", "transform", "membership", "weights", "score"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fitted_model_tells_the_same_of_rows_wherever_they_are(name, kind, method, tmp_path):
    given, _ = KINDS[kind](X, None, tmp_path)
    named = kind == "a dask frame"
    model = fitted(name, given.compute() if named else X, None)
    found = np.asarray(getattr(model, method)(given))
    if named:
        del model.feature_names_in_
    assert_allclose(found, getattr(model, method)(X), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("kind", ["array", *KINDS])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fit_goes_on_from_its_checkpoint(name, kind, tmp_path, monkeypatch):
    # A smaller limit, so that the search for alpha runs on a sample of the rows.
    monkeypatch.setattr("ekmfast.fit.likeliest.SEARCH_ROWS", 500)
    monkeypatch.setattr("ekmfast.rows.blockwise.SAMPLE_ROWS", 500)
    given, own_weight = (X, WEIGHT) if kind == "array" else KINDS[kind](X, WEIGHT, tmp_path)
    path = tmp_path / "checkpoint"

    def fit(tol=1e-9):
        model = ESTIMATORS[name](tol=tol)
        y = {"y": LABELS} if name == "SemiSupervisedEKMeans" else {}
        return model.fit(given, sample_weight=own_weight, checkpoint=path, checkpoint_every=1, **y)

    whole = fit()
    path.unlink()
    write = Checkpoint.write

    def write_and_die(self, runs):
        write(self, runs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            fit()
    assert path.exists()
    rest = fit()
    assert rest.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()
    assert rest.n_iter_ == whole.n_iter_
    with pytest.raises(ValueError, match="belongs to another fit: it differs in tol"):
        fit(tol=1e-8)


@pytest.mark.parametrize("every", [1, 100])
def test_a_checkpoint_holds_where_max_iter_has_stopped_a_fit(every, tmp_path):
    path = tmp_path / "checkpoint"
    model = EKMeans(3, alpha="dvariance", init=START, random_state=0, tol=1e-9)
    whole = model.fit(X)
    model = EKMeans(3, alpha="dvariance", init=START, random_state=0, tol=1e-9, max_iter=3)
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        model.fit(X, checkpoint=path, checkpoint_every=every)
    rest = model.set_params(max_iter=300).fit(X, checkpoint=path)
    assert rest.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()


class Recorder:
    """A callback of scikit-learn's that counts passes and epochs, and stops after ``most``."""

    def __init__(self, most=np.inf):
        self.most, self.n_tasks = most, 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata=None, fitted_estimator=None):
        self.n_tasks += context.task_name in ("pass", "epoch")
        return self.n_tasks >= self.most


@pytest.mark.parametrize("kind", ["array", *KINDS])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_callbacks_see_every_pass_and_may_stop_it(name, kind, tmp_path):
    pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9 brought callbacks")
    given, own_weight = (X, None) if kind == "array" else KINDS[kind](X, None, tmp_path)
    y = {"y": LABELS} if name == "SemiSupervisedEKMeans" else {}
    whole, stopped = Recorder(), Recorder(most=1)
    ESTIMATORS[name]().set_callbacks(whole).fit(given, sample_weight=own_weight, **y)
    assert whole.n_tasks > 1
    with pytest.warns(match="a callback stopped it"):
        ESTIMATORS[name]().set_callbacks(stopped).fit(given, sample_weight=own_weight, **y)
    assert stopped.n_tasks < whole.n_tasks


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_path_is_that_of_the_array(kind, weighted, tmp_path):
    weight = WEIGHT if weighted else None
    given, own_weight = KINDS[kind](X, weight, tmp_path)
    found = alpha_path(given, 3, sample_weight=own_weight, random_state=0)
    whole = alpha_path(X, 3, sample_weight=weight, random_state=0)
    assert found.rows is None
    assert_allclose(found.alphas, whole.alphas, rtol=1e-9)
    assert_allclose(found.objective, whole.objective, rtol=1e-6)
    assert found.best == whole.best
    assert_array_equal(found.labels.shape, whole.labels.shape)
    assert_allclose(np.sort(found.sizes, axis=1), np.sort(whole.sizes, axis=1))


def test_a_path_of_many_rows_has_labels_of_a_sample(monkeypatch):
    monkeypatch.setattr("ekmfast.rows.blockwise.SAMPLE_ROWS", 300)
    given, _ = of_blocks(X, WEIGHT, None)
    path = alpha_path(given, 3, random_state=0)
    assert path.labels.shape == (11, 300)
    assert (np.diff(path.rows) > 0).all()
    best = path.labels[path.best]
    model = EKMeans(3, alpha=path.alphas[path.best], init=path.centroids[path.best])
    labels = model.fit(X, sample_weight=WEIGHT).labels_
    assert_array_equal(best, labels[path.rows])
    # The sizes are nevertheless those of all rows.
    assert_allclose(path.sizes[path.best], np.bincount(labels, WEIGHT, 3))


def test_labels_and_priors_may_come_block_by_block():
    given, _ = of_blocks(X, None, None)
    whole = SemiSupervisedEKMeans(3, random_state=0).fit(X, LABELS)
    by_block = SemiSupervisedEKMeans(3, random_state=0).fit(given, np.split(LABELS, CUTS))
    assert_allclose(by_block.cluster_centers_, whole.cluster_centers_, rtol=1e-9)
    prior = np.zeros((N, 3))
    prior[LABELS >= 0, LABELS[LABELS >= 0]] = 1
    for form in (prior, np.split(prior, CUTS), csr_matrix(prior)):
        model = SemiSupervisedEKMeans(3, random_state=0).fit(given, prior=form)
        assert_allclose(model.cluster_centers_, by_block.cluster_centers_, rtol=1e-9)
    with pytest.raises(ValueError, match=r"y must have shape \(n_samples,\) = \(900,\), got"):
        SemiSupervisedEKMeans(3).fit(given, np.split(LABELS, CUTS)[:2])


def test_clusters_without_labels_are_found_in_the_sample(monkeypatch):
    monkeypatch.setattr("ekmfast.rows.blockwise.SAMPLE_ROWS", 300)
    given, _ = of_blocks(X, None, None)
    known = np.where(LABELS == 2, -1, LABELS)
    model = SemiSupervisedEKMeans(3, random_state=0).fit(given, known)
    assert np.sort(np.bincount(model.predict(given))).tolist() == [50, 250, 600]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_partial_fit_may_be_any_kind_of_rows(kind, tmp_path):
    given, own_weight = KINDS[kind](X, WEIGHT, tmp_path)
    stream = MiniBatchEKMeans(3, init=START, random_state=0)
    plain = MiniBatchEKMeans(3, init=START, random_state=0)
    for _ in range(2):
        stream.partial_fit(given, sample_weight=own_weight)
        plain.partial_fit(X, sample_weight=WEIGHT)
    if kind == "a sparse matrix":  # its sums are relative to another point
        assert_allclose(stream.cluster_centers_, plain.cluster_centers_, rtol=1e-12)
    else:
        assert stream.cluster_centers_.tobytes() == plain.cluster_centers_.tobytes()
    assert isinstance(stream.labels_, np.ndarray)
    assert_array_equal(stream.labels_, plain.labels_)
    save(stream, tmp_path / "stream.ekm")
    assert_array_equal(load(tmp_path / "stream.ekm").labels_, plain.labels_)


def test_a_prior_is_not_changed():
    indptr = np.zeros(N + 1, np.int32)
    indptr[1:], indptr[41:] = 2, 4
    prior = csr_matrix((np.array([0.5, 0.5, 1.0, 0.0]), [0, 0, 1, 2], indptr), shape=(N, 3))
    for part in (prior.data, prior.indices, prior.indptr):
        part.setflags(write=False)
    SemiSupervisedEKMeans(3, random_state=0).fit(X, prior=prior)
    assert prior.nnz == 4
    assert prior.data.tolist() == [0.5, 0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("known", "match"),
    [
        ({"y": [[0, 1], [2]]}, r"y must be an array of shape \(n_samples,\), or a list of such"),
        ({"prior": [np.zeros((400, 2)), np.zeros((500, 3))]}, "prior must be an array of shape"),
        ({"prior": np.full((N, 3), 0.5)}, "sum to at most 1, got a sum of 1.5 in row 0"),
        ({"prior": np.eye(N, 3) * -1}, "prior must hold probabilities >= 0, got -1.0 in row 0"),
        ({"y": np.zeros(5)}, r"y must have shape \(n_samples,\) = \(900,\), got \(5,\)"),
    ],
)
def test_labels_that_are_not_valid(known, match):
    with pytest.raises(ValueError, match=match):
        SemiSupervisedEKMeans(3).fit(X, **known)


# --- how often a fit reads the rows, and which errors they raise ---


class Counted:
    """The compiled kernels, with a list of the names of those that were called."""

    def __init__(self, core):
        self.core, self.calls = core, []

    def __getattr__(self, name):
        self.calls.append(name)
        return getattr(self.core, name)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_array_is_read_once_before_seeding(name, weighted, monkeypatch):
    counted = Counted(array_rows._core)
    for module in ("array", "survey", "nearest"):
        monkeypatch.setattr(f"ekmfast.rows.{module}._core", counted)

    def read_again(*args, **kwargs):
        raise AssertionError("scikit-learn reads X once more")

    monkeypatch.setattr("sklearn.utils.validation._assert_all_finite", read_again)
    model = ESTIMATORS[name]()
    model.set_params(init="k-means++")
    monkeypatch.setattr("ekmfast.estimators.base.check_weight", lambda s, X: s)
    y = {"y": np.full(N, -1)} if name == "SemiSupervisedEKMeans" else {}
    model.fit(X, sample_weight=WEIGHT if weighted else None, **y)
    before = counted.calls[: counted.calls.index("choose_rows")]  # the first rows of starts
    # MiniBatchEKMeans first clusters a sample, and the search for alpha reads a copy in float32;
    # each has a survey of its own.
    copies = name in ("MiniBatchEKMeans", "EKMeans auto")
    assert before == ["survey"] * (2 if copies else 1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_blocks_after_the_first_are_read_once_before_the_solver(name):
    reads = []

    def read():
        for i, part in enumerate(np.split(X, CUTS)):
            reads.append(i)
            yield part

    model = ESTIMATORS[name]().set_params(max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted_of_a_pass(model, blocks.from_factory(read))
    # The last block is read by the survey and by the single pass of the solver, which for
    # alpha="auto" uses the rows of the survey's sample instead. SemiSupervisedEKMeans reads the
    # labelled rows in a further pass. The centroids of MiniBatchEKMeans move after the last sums,
    # so that a further pass computes the sums from which partial_fit continues.
    passes = {"EKMeans auto": 1, "SemiSupervisedEKMeans": 3, "MiniBatchEKMeans": 3}.get(name, 2)
    assert len([i for i in reads if i == 3]) == passes


def fitted_of_a_pass(model, given):
    if isinstance(model, SemiSupervisedEKMeans):
        return model.fit(given, LABELS)
    return model.fit(given)


def test_a_survey_with_a_reference_far_from_the_mean_makes_a_second_pass():
    # The reference is the median of a few rows, which are 0, far from all others.
    X = np.concatenate([np.full(1000, 1e8), np.full(1000, 1e8) + 1e-3])[:, None]
    X[:: 2000 // 15] = 0
    exact = X.astype(np.longdouble)
    found = ArrayRows(X).survey().dispersion
    wanted = float(0.5 * np.mean((exact - exact.mean()) ** 2))
    assert found == pytest.approx(wanted, rel=1e-9)


NAMES = {np.nan: "NaN", np.inf: "infinity", -np.inf: "-infinity"}
# How the errors name row 300: in blocks, for example, it is row 49 of the third block.
WHERE = {
    "array": "X must be finite, got {} in row 300, column 1",
    "blocks": r"block 2 of the list of arrays \(from row 251 on\): its row 49 holds {} in "
    "column 1",
    "one block": r"block 0 of the list of arrays .*: its row 300 holds {} in column 1",
    "a function": r"block 2 of read \(from row 251 on\): its row 49 holds {} in column 1",
    "a memory map": r"block 1 of .*x.npy \(from row 250 on\): its row 50 holds {} in column 1",
    "dask": r"block 2 of the dask array.*: its row 49 holds {} in column 1",
    "a sparse matrix": "X must be finite, got {} in row 300, column 1",
    "a dask frame": r"block 1 of the dask dataframe.*: its row 0 holds {} in column 1",
}


@pytest.mark.parametrize("value", NAMES)
@pytest.mark.parametrize("kind", ["array", *KINDS])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_fit_names_the_row_and_column_of_a_number_that_is_not_finite(name, kind, value, tmp_path):
    bad = X.copy()
    bad[300, 1] = value
    given, _ = (bad, None) if kind == "array" else KINDS[kind](bad, None, tmp_path)
    with pytest.raises(ValueError, match=f"^{WHERE[kind].format(NAMES[value])}($|; if numbers)"):
        fitted(name, given, None)


@pytest.mark.parametrize("method", ["predict", "transform", "membership", "weights", "score"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_methods_name_the_row_and_column_too(kind, method, tmp_path):
    bad = X.copy()
    bad[300, 1] = np.nan
    given, _ = KINDS[kind](bad, None, tmp_path)
    model = fitted("EKMeans", given.fillna(0.0) if "frame" in kind else X, None)
    with pytest.raises(ValueError, match=f"^{WHERE[kind].format('NaN')}($|; if numbers)"):
        np.asarray(getattr(model, method)(given))


@pytest.mark.parametrize("kind", ["array", *KINDS])
def test_score_names_weights_that_overflow(kind, tmp_path):
    model = fitted("EKMeans", X, None)
    huge = np.full(N, 1e307)
    given, own_weight = (X, huge) if kind == "array" else KINDS[kind](X, huge, tmp_path)
    if "frame" in kind:
        model = fitted("EKMeans", given, None)
    with pytest.raises(ValueError, match="overflow: scale sample_weight down"):
        model.score(given, sample_weight=own_weight)


def test_weights_whose_products_underflow_are_named():
    with pytest.raises(ValueError, match="underflow: scale sample_weight up"):
        fitted("EKMeans", X * 1e-20, np.full(N, 1e-290))


def test_rows_without_weight_do_not_affect_the_accuracy_for_the_others():
    rng = np.random.default_rng(0)
    far = 1e9 + rng.normal(size=(200, 1))
    Z, weight = np.concatenate([np.zeros((200, 1)), far]), np.repeat([0.0, 1.0], 200)
    wanted = float(0.5 * np.var(far.astype(np.longdouble)))
    for rows in (ArrayRows(Z, weight), BlockRows(of_one(Z, weight)), BlockRows(of_one(Z, weight))):
        assert rows.survey().dispersion == pytest.approx(wanted, rel=1e-6)
    model = EKMeans(2, alpha="dvariance", random_state=0).fit(Z, sample_weight=weight)
    plain = EKMeans(2, alpha="dvariance", random_state=0).fit(far)
    assert model.alpha_ == pytest.approx(plain.alpha_, rel=1e-6)


def of_one(Z, weight):
    return LocalSource(blocks.from_arrays([Z[:100], Z[100:]], [weight[:100], weight[100:]]), 1)


@pytest.mark.parametrize("name", ["MiniBatchEKMeans", "SemiSupervisedEKMeans"])
def test_blocks_that_change_their_length_are_refused(name):
    passes = []

    def read():
        passes.append(1)
        cut = 400 if len(passes) < 3 else 401
        yield X[:cut]
        yield X[cut:]

    with pytest.raises(ValueError, match=r"401 rows, but had 400 in an .*must be the same"):
        fitted(name, blocks.from_factory(read), None)


def first_row(block, index):
    return block.X[0]


def test_the_graph_of_one_dask_block_does_not_contain_the_others():
    da = pytest.importorskip("dask.array")
    source = rows_of(da.from_array(X, chunks=(100, 3)), **UNCHECKED).source
    source.first(first_row)
    assert len(source._graph_of([4])) < len(source._graph_of(range(9))) / 3


UNCHECKED = {"check_array": lambda X: X, "check_weight": lambda s, X: s}


def test_rows_that_are_refused():
    given, _ = of_blocks(X, None, None)
    with pytest.raises(ValueError, match="device='cuda' takes arrays, not Blocks"):
        rows_of(given, device="cuda", **UNCHECKED)
    with pytest.raises(ValueError, match="sample_weight must be None for Blocks"):
        rows_of(given, WEIGHT, **UNCHECKED)
    da = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match="sample_weight is a Dask collection, but X is not"):
        rows_of(X, da.from_array(WEIGHT), **UNCHECKED)
