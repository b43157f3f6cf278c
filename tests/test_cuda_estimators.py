# ruff: noqa: E402
"""Estimators and functions on CUDA arrays: run as test_cuda.py is."""

import os
import sys
import types

import numpy as np
import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
if not SIMULATED:
    from ekmfast.rows.device import cuda_status

    if cuda_status() is not None:
        pytest.skip(f"no card: {cuda_status()}", allow_module_level=True)
else:
    import simulator

    simulator.patch()

from numba import cuda
from sklearn.exceptions import ConvergenceWarning

import ekmfast
from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
)
from ekmfast.rows.cuda.arrays import as_device

pytestmark = [] if SIMULATED else [pytest.mark.gpu]


class OnCard:
    """An array of some library that offers ``__cuda_array_interface__``."""

    def __init__(self, array):
        self.array = cuda.to_device(array)
        self.shape, self.dtype = array.shape, array.dtype

    @property
    def __cuda_array_interface__(self):
        if SIMULATED:
            return self.array._ary.__array_interface__
        return self.array.__cuda_array_interface__


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(0, 1, (40, 2)), rng.normal(9, 1, (8, 2)), rng.normal(-9, 1, (12, 2))])
    return X[rng.permutation(len(X))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [OnCard, cuda.to_device])
def test_step_statistics_and_assign(data, dtype, kind):
    X = data.astype(dtype)
    C = X[:3].astype(np.float64)
    new, objective = ekmfast.ekm_step(kind(X), C, 0.7)
    wanted, wanted_objective = ekmfast.ekm_step(X, C, 0.7)
    rtol = 1e-5 if dtype is np.float32 else 1e-12
    assert new.dtype == dtype
    np.testing.assert_allclose(new.copy_to_host(), wanted, rtol=rtol)
    assert objective == pytest.approx(wanted_objective, rel=rtol)
    sums, wanted = (ekmfast.ekm_statistics(a, C, 0.7) for a in (kind(X), X))
    np.testing.assert_allclose(sums.sum_p, wanted.sum_p, rtol=rtol)
    labels, distances = ekmfast.assign(kind(X), C)
    wanted, wanted_distances = ekmfast.assign(X, C)
    np.testing.assert_array_equal(labels.copy_to_host(), wanted)
    # Sums of two squares in double, with one rounding or two each.
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(distances.copy_to_host(), wanted_distances, rtol=2 * eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_and_update(data, dtype):
    X = data.astype(dtype)
    C = X[:3].astype(np.float64)
    w = ekmfast.compute_weights(OnCard(X), C, 0.7)
    wanted = ekmfast.compute_weights(X, C, 0.7)
    atol = 1e-5 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(w.copy_to_host(), wanted, atol=atol)
    out = cuda.device_array((len(X), 3), dtype)
    assert ekmfast.compute_weights(OnCard(X), C, 0.7, out=out) is out
    np.testing.assert_array_equal(out.copy_to_host(), w.copy_to_host())
    new = ekmfast.update_centroids(OnCard(X), w)
    np.testing.assert_allclose(
        new.copy_to_host(), ekmfast.update_centroids(X, wanted), rtol=10 * atol
    )


def test_several_problems_weights_of_rows_and_no_rows(data):
    C = np.stack([data[:3], data[3:6]])
    s = np.linspace(0, 2, len(data))
    got = ekmfast.ekm_step(OnCard(data), C, [0.5, 1.0], sample_weight=OnCard(s))
    wanted = ekmfast.ekm_step(data, C, [0.5, 1.0], sample_weight=s)
    np.testing.assert_allclose(got[0].copy_to_host(), wanted[0], rtol=1e-11)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-12)
    none = ekmfast.ekm_statistics(OnCard(np.empty((0, 2))), data[:3], 1.0)
    assert not none.sum_wx.any()
    with pytest.raises(ValueError, match="at least one row"):
        ekmfast.ekm_step(OnCard(np.empty((0, 2))), data[:3], 1.0)


def test_rows_apart_are_read_where_they_lie(data):
    wide = np.hstack([data, data])
    X = cuda.to_device(wide)[:, :2]
    got, _ = ekmfast.ekm_step(X, data[:3], 0.7)
    wanted, _ = ekmfast.ekm_step(np.ascontiguousarray(wide[:, :2]), data[:3], 0.7)
    np.testing.assert_allclose(got.copy_to_host(), wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros((3, 2), np.int32), TypeError, "X must be float32 or float64, got int32"),
        (np.zeros(3), ValueError, "X must have 2 dimensions"),
        (np.array([[0.0, 1], [np.nan, 2], [3, 4]]), ValueError, "NaN in row 1, column 0"),
        (np.full((3, 2), 1e200), ValueError, "squared distances overflow float64"),
    ],
)
def test_errors_name_what_is_wrong(X, error, message):
    with pytest.raises(error, match=message):
        ekmfast.ekm_step(OnCard(X), [[0.0, 0.0], [1.0, 1.0]], 1.0)


@pytest.mark.parametrize("kind", [OnCard, np.asarray], ids=["on the card", "on the host"])
@pytest.mark.parametrize("cls", [EKMeans, HardKMeans])
def test_a_fit_refuses_what_it_refuses_on_the_host(data, kind, cls):
    data = data[:12]
    X = data.astype(np.float32)
    wild = X.copy()
    wild[7, 1] = np.nan
    heavy = np.full(len(X), 1e306)
    model = cls(3, init=data[:3], device="cuda", max_iter=3)
    for rows, weight, message in (
        (X * np.float32(1e-25), None, "squared distances underflow float32: scale X up"),
        (X * np.float32(1e25), None, "squared distances overflow float32: scale X down"),
        (data * 1e-170, None, "squared distances underflow float64: scale X up"),
        (data, heavy, "sample_weight times squared distances overflow"),
        (wild, None, "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(kind(rows), sample_weight=weight)
    equal = np.full((9, 2), 1e-25, np.float32)
    with pytest.warns(ConvergenceWarning, match="only 1 of 3 centroids"):
        cls(3, init=equal[:3], device="cuda").fit(kind(equal))


def test_what_lies_elsewhere_is_refused(data):
    X = OnCard(data)
    with pytest.raises(TypeError, match="weights must lie on the GPU"):
        ekmfast.update_centroids(X, np.ones((len(data), 2)))
    with pytest.raises(TypeError, match="out must lie on the GPU"):
        ekmfast.compute_weights(X, data[:2], 1.0, out=np.empty((len(data), 2)))
    with pytest.raises(ValueError, match="X lies on a CUDA device but device='cpu'"):
        EKMeans(3).fit(X)


SETTINGS = [
    (EKMeans, {"alpha": 1.0}),
    (EKMeans, {"alpha": "dvariance", "init": "random"}),
    (HardKMeans, {"init": "k-means++"}),
    (FuzzyCMeans, {"init": "farthest"}),
    (MaximumEntropyKMeans, {"alpha": 1.0}),
]


@pytest.mark.parametrize(("estimator", "settings"), SETTINGS)
def test_estimators_find_what_they_find_on_the_cpu(data, estimator, settings):
    make = lambda device: estimator(  # noqa: E731
        3, n_init=2, max_iter=6, tol=1e-2, random_state=0, device=device, **settings
    )
    wanted = make("cpu").fit(data)
    got = make("cuda").fit(OnCard(data))
    assert got.n_iter_ == wanted.n_iter_
    np.testing.assert_allclose(got.cluster_centers_, wanted.cluster_centers_, rtol=1e-9)
    np.testing.assert_array_equal(got.labels_.copy_to_host(), wanted.labels_)
    np.testing.assert_array_equal(got.predict(OnCard(data)).copy_to_host(), wanted.predict(data))
    assert got.score(OnCard(data)) == pytest.approx(wanted.score(data), rel=1e-10)
    assert isinstance(got.cluster_centers_, np.ndarray)


START = np.array([[0.0, 0], [9, 9], [-9, -9]])
LABELS = np.where(np.arange(60) % 5, -1, 0)


@pytest.mark.parametrize(
    ("name", "where", "weighted"),
    [
        ("mini-batches", OnCard, True),
        ("mini-batches", np.asarray, False),
        ("labels", OnCard, True),
        ("labels", np.asarray, False),
        ("labels alone", OnCard, True),
    ],
)
def test_so_do_batches_and_labels(data, name, where, weighted, tmp_path):
    known = np.where(LABELS == 0, (data[:, 0] > 4) + 2 * (data[:, 0] < -4), -1)
    if name == "labels alone":
        known[known == 2] = -1  # whose cluster is sought among the rest
    s = np.linspace(0.5, 2, len(data)) if weighted else None

    def fit(X, device):
        if name == "mini-batches":
            model = MiniBatchEKMeans(3, batch_size=25, init=START, tol=1e-3, device=device)
            return model.set_params(random_state=0).fit(X, sample_weight=s)
        model = SemiSupervisedEKMeans(3, random_state=0, tol=1e-3, device=device)
        return model.fit(X, known, sample_weight=s)

    wanted, got = fit(data, "cpu"), fit(where(data), "cuda")
    assert got.n_iter_ == wanted.n_iter_
    np.testing.assert_allclose(got.cluster_centers_, wanted.cluster_centers_, rtol=1e-8)
    labels = got.labels_ if where is np.asarray else got.labels_.copy_to_host()
    np.testing.assert_array_equal(labels, wanted.labels_)


def test_so_does_a_stream_of_batches(data):
    card, host = (MiniBatchEKMeans(3, init=START, device=d) for d in ("cuda", "cpu"))
    for part in np.split(data, 3):
        card.partial_fit(OnCard(part))
        host.partial_fit(part)
    np.testing.assert_allclose(card.cluster_centers_, host.cluster_centers_, rtol=1e-8)


def test_so_does_a_path(data):
    settings = {"alphas": [0.1, 1.0], "init": START, "tol": 1e-2}
    got = ekmfast.alpha_path(OnCard(data), 3, device="cuda", **settings)
    wanted = ekmfast.alpha_path(data, 3, **settings)
    np.testing.assert_allclose(got.centroids, wanted.centroids, rtol=1e-8)
    np.testing.assert_array_equal(got.labels, wanted.labels)
    assert got.best == wanted.best


def test_a_fit_on_a_card_goes_on_from_its_checkpoint(data, tmp_path):
    def fit(**more):
        settings = {"alpha": 1.0, "init": START, "random_state": 0, "device": "cuda"} | more
        return EKMeans(3, tol=1e-4, **settings).fit(OnCard(data), checkpoint=tmp_path / "fit")

    with pytest.warns(ConvergenceWarning):
        fit(max_iter=1)
    rest = fit()
    (tmp_path / "fit").unlink()
    np.testing.assert_array_equal(rest.cluster_centers_, fit().cluster_centers_)


def test_numpy_rows_streamed_and_resident_give_the_same_bits(data, monkeypatch):
    def fit():
        model = EKMeans(3, alpha=1.0, n_init=1, max_iter=5, random_state=0, device="cuda", tol=1e-2)
        return model.fit(np.vstack([data, data]))

    resident = fit()
    monkeypatch.setenv("EKMFAST_CUDA_MEMORY", "1000")
    streamed = fit()
    assert isinstance(streamed.labels_, np.ndarray)
    np.testing.assert_array_equal(streamed.labels_, resident.labels_)
    np.testing.assert_array_equal(streamed.cluster_centers_, resident.cluster_centers_)


def test_alpha_is_found_on_the_card(data):
    settings = {"n_init": 1, "max_iter": 3, "random_state": 0, "tol": 0.1}
    wanted = EKMeans(2, **settings).fit(data)
    got = EKMeans(2, device="cuda", **settings).fit(OnCard(data))
    assert got.alpha_ == pytest.approx(wanted.alpha_, rel=1e-12)
    np.testing.assert_allclose(got.cluster_centers_, wanted.cluster_centers_, rtol=1e-6)


@pytest.mark.parametrize("kind", [OnCard, np.asarray], ids=["on the card", "on the host"])
def test_so_it_is_in_a_part_of_the_rows(data, kind, monkeypatch):
    monkeypatch.setattr("ekmfast.fit.likeliest.SEARCH_ROWS", 30)
    monkeypatch.setattr("ekmfast.fit.likeliest.ROWS_PER_CLUSTER", 1)
    settings = {"n_init": 1, "max_iter": 3, "random_state": 0, "tol": 0.1}
    wanted = EKMeans(2, **settings).fit(data)
    got = EKMeans(2, device="cuda", **settings).fit(kind(data))
    assert got.alpha_ == pytest.approx(wanted.alpha_, rel=1e-12)
    np.testing.assert_allclose(got.cluster_centers_, wanted.cluster_centers_, rtol=1e-6)


def test_other_methods_and_features(data):
    model = EKMeans(3, alpha=1.0, n_init=1, max_iter=5, tol=1e-1, random_state=0, device="auto")
    model.fit(OnCard(data))
    w = model.weights(OnCard(data))
    np.testing.assert_allclose(w.copy_to_host(), model.weights(data), atol=1e-12)
    for method in ("transform", "membership"):
        values = getattr(model, method)(OnCard(data))
        np.testing.assert_array_equal(values.copy_to_host(), getattr(model, method)(data))
    with pytest.raises(ValueError, match="X has 3 features, but EKMeans is expecting 2"):
        model.predict(OnCard(np.zeros((4, 3))))


def test_labels_on_the_card_are_saved(data, tmp_path):
    model = EKMeans(3, alpha=1.0, n_init=1, max_iter=2, tol=1.0, random_state=0, device="cuda")
    model.fit(OnCard(data))
    ekmfast.save(model, tmp_path / "model.npz")
    loaded = ekmfast.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.labels_, model.labels_.copy_to_host())


def test_dlpack_alone_needs_a_library(data, monkeypatch):
    class ByDlpack:
        def __dlpack_device__(self):
            return 2, 0

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        TypeError, match="X can be read by DLPack only, for which torch or CuPy is needed"
    ):
        ekmfast.assign(ByDlpack(), data[:2])


def test_a_tensor_made_by_dlpack_is_waited_for(data, monkeypatch):
    events = []

    class Tensor(OnCard):
        device = "cuda:0"

        def detach(self):
            return self

    class ByDlpack:
        def __dlpack_device__(self):
            return 2, 0

    def from_dlpack(X):
        events.append("made")
        return Tensor(data)

    def current_stream(device):
        return types.SimpleNamespace(synchronize=lambda: events.append(f"waited for {device}"))

    card = types.SimpleNamespace(is_available=lambda: True, current_stream=current_stream)
    torch = types.SimpleNamespace(Tensor=Tensor, from_dlpack=from_dlpack, cuda=card)
    monkeypatch.setitem(sys.modules, "torch", torch)
    as_device(ByDlpack())
    assert events == ["made", "waited for cuda:0"]


def test_inputs_at_the_end_of_their_range_are_named_as_on_the_host(data):
    X = data.astype(np.float32)
    C, ones = X[:3].astype(np.float64), np.ones(len(X), np.float32)
    step, statistics = ekmfast.ekm_step, ekmfast.ekm_statistics
    with pytest.raises(ValueError, match="centroids must hold at least one problem"):
        step(OnCard(X), C[None][:0], 1.0)
    for call in (lambda X, C: statistics(X, C, 1.0), ekmfast.assign):
        with pytest.raises(ValueError, match="squared distances underflow float32"):
            call(OnCard(X * np.float32(1e-25)), C * 1e-25)
        with pytest.raises(ValueError, match="squared distances overflow float32"):
            call(OnCard(X * np.float32(1e30)), C)
    with pytest.raises(ValueError, match="scale sample_weight down"):
        step(OnCard(X), C, 1.0, sample_weight=3e38 * ones)
    with pytest.raises(ValueError, match="alpha times squared distances overflows float32"):
        step(OnCard(X), C, 1e38)
    with pytest.raises(ValueError, match="cannot tell them apart"):
        step(OnCard(X + np.float32(1e9)), C, 1.0)
    with pytest.raises(ValueError, match="weights of up to"):
        ekmfast.update_centroids(OnCard(X), OnCard(np.full((len(X), 2), 3e38, np.float32)))
    with pytest.raises(ValueError, match="column 1 of weights sums to zero"):
        ekmfast.update_centroids(OnCard(X), OnCard(np.outer(ones, np.float32([1, 0]))))
    with pytest.raises(ValueError, match="X must be finite, got NaN in row 7, column 0"):
        statistics(OnCard(np.where(np.arange(len(X))[:, None] == 7, np.float32(np.nan), X)), C, 1.0)


def test_tiny_alpha_and_huge_centroids_as_on_the_host(data):
    X, C = data.astype(np.float32), 1e30 * np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]])
    got = ekmfast.ekm_statistics(OnCard(X), C, 1e-300)
    np.testing.assert_allclose(got.sum_w, len(X) / 3, rtol=1e-5)
    wanted = ekmfast.ekm_statistics(X, C, 1e-300)
    assert got.objective == pytest.approx(wanted.objective, rel=1e-5)
