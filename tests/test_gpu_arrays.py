"""Arrays of other libraries on a GPU are read where they lie, and results are of their kind."""

import warnings
from threading import Thread

import numpy as np
import pytest

import ekmfast
from ekmfast import EKMeans
from ekmfast.rows.device import cuda_status, describe_card

if cuda_status() is not None or "simulates" in describe_card():
    pytest.skip(f"no card: {cuda_status() or describe_card()}", allow_module_level=True)

from ekmfast.rows.cuda.arrays import as_device
from ekmfast.rows.cuda.layer import address
from ekmfast.rows.cuda.locked import lock
from ekmfast.rows.cuda.memory import StreamedRows
from ekmfast.rows.cuda.rows import CudaRows

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA")
    return torch


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = np.vstack(
        [rng.normal(0, 1, (9000, 4)), rng.normal(9, 1, (60, 4)), rng.normal(-9, 1, (300, 4))]
    )
    return X[rng.permutation(len(X))].astype(np.float32)


def fit(X, **settings):
    return EKMeans(3, alpha=1.0, n_init=4, random_state=0, device="cuda", **settings).fit(X)


def test_a_tensor_is_read_where_it_lies(torch, data):
    X = torch.as_tensor(data, device="cuda")
    assert address(as_device(X)) == X.data_ptr()
    before = X.clone()
    model, wanted = fit(X), EKMeans(3, alpha=1.0, n_init=4, random_state=0).fit(data)
    assert isinstance(model.labels_, torch.Tensor)
    assert model.labels_.is_cuda
    np.testing.assert_array_equal(model.labels_.cpu().numpy(), wanted.labels_)
    np.testing.assert_allclose(model.cluster_centers_, wanted.cluster_centers_, atol=1e-4)
    for method in ("predict", "transform", "membership", "weights"):
        result = getattr(model, method)(X)
        assert isinstance(result, torch.Tensor)
        assert result.is_cuda
        host = getattr(model, method)(data)
        np.testing.assert_allclose(result.cpu().numpy(), host, atol=1e-4)
    assert torch.equal(X, before)


def test_a_tensor_that_is_still_being_computed_is_waited_for(torch, data):
    X = torch.as_tensor(data, device="cuda")
    C = data[:3].astype(float)
    wanted, _ = ekmfast.ekm_step(X, C, 0.5)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        busy = torch.randn(4000, 4000, device="cuda")
        for _ in range(20):
            busy = busy @ busy / 4000
        later = X + 0 * busy.flatten()[: X.numel()].reshape(X.shape)
        got, _ = ekmfast.ekm_step(later, C, 0.5)
    assert torch.equal(got, wanted)


def test_a_part_of_a_tensor_that_begins_anywhere_gives_the_same(torch, data):
    X = torch.as_tensor(data, device="cuda")
    flat = torch.empty(X.numel() + 1, device="cuda")
    flat[1:] = X.flatten()
    shifted = flat[1:].reshape(X.shape)
    assert address(as_device(shifted)) % 16 != 0
    C = data[:3].astype(float)
    got, wanted = (ekmfast.ekm_statistics(a, C, 0.5) for a in (shifted, data))
    np.testing.assert_allclose(got.sum_wx, wanted.sum_wx, rtol=0, atol=1e-6 * len(data))
    np.testing.assert_allclose(got.sum_p, wanted.sum_p, rtol=1e-5)


def test_arrays_of_cupy_are_read_where_they_lie(data):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    X = cupy.asarray(data)
    assert address(as_device(X)) == X.data.ptr
    model = fit(X)
    assert isinstance(model.labels_, cupy.ndarray)
    np.testing.assert_array_equal(model.labels_.get(), fit(data).labels_)


def test_arrays_that_offer_only_dlpack_are_read_where_they_lie(torch, data):
    X = torch.as_tensor(data, device="cuda")

    class ByDlpack:
        def __dlpack__(self, **arguments):
            return X.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return X.__dlpack_device__()

    assert address(as_device(ByDlpack())) == X.data_ptr()
    np.testing.assert_array_equal(fit(ByDlpack()).cluster_centers_, fit(X).cluster_centers_)


def test_codes_of_a_torchscript_encoder_never_leave_the_gpu(torch):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 4, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten()
    encoder = torch.nn.Sequential(*layers, torch.nn.Linear(4 * 13 * 13, 8)).cuda().eval()
    images = torch.rand(600, 1, 28, 28, device="cuda")
    images[:40] = 1 - images[:40] / 4
    with warnings.catch_warnings():  # TorchScript is deprecated, and still what models are saved as
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(encoder, images)
    with torch.no_grad():
        codes = 20 * scripted(images)
    model = fit(codes)
    assert model.labels_.is_cuda
    np.testing.assert_array_equal(model.labels_.cpu().numpy(), fit(codes.cpu().numpy()).labels_)


def is_locked(array):
    from cuda.bindings import driver

    kind = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
    return not driver.cuPointerGetAttribute(kind, array.ctypes.data)[0]


def test_rows_of_the_host_are_locked_and_freed(data):
    X = np.tile(data, (40, 1))
    assert not is_locked(X)
    rows = StreamedRows(X, None)
    assert rows._locked
    assert is_locked(X)
    C = data[:3].astype(float)[None]
    got = CudaRows(X, held=rows).statistics(C, np.ones(1))
    del rows
    assert not is_locked(X)
    wanted = CudaRows(X).statistics(C, np.ones(1))
    np.testing.assert_array_equal(got.sum_wx, wanted.sum_wx)

    class Owner:
        pass

    first, second = Owner(), Owner()
    assert lock(first, X)
    assert lock(second, X)  # as memory that the program has locked itself
    del second
    assert is_locked(X)
    del first
    assert not is_locked(X)


def test_rows_are_freed_by_a_thread_that_has_used_no_gpu(data):
    X = np.tile(data, (40, 1))
    rows = [StreamedRows(X, None)]
    assert is_locked(X)
    thread = Thread(target=rows.clear)
    thread.start()
    thread.join()
    assert not is_locked(X)


def test_rows_with_gaps_are_copied_through_pinned_memory(data):
    X = np.tile(data, (4, 1))
    C = data[:3].astype(float)[None]
    gaps = X[::2]
    assert not StreamedRows(gaps, None)._locked
    s = np.ones(len(gaps), np.float32)
    apart = CudaRows(gaps, s, held=StreamedRows(gaps, s)).statistics(C, np.ones(1))
    np.testing.assert_allclose(
        apart.sum_wx, CudaRows(gaps.copy()).statistics(C, np.ones(1)).sum_wx, rtol=1e-6, atol=1e-3
    )


def test_two_threads_fit_at_once(torch, data):
    from concurrent.futures import ThreadPoolExecutor

    X = torch.as_tensor(data, device="cuda")
    wanted = fit(X).cluster_centers_
    with ThreadPoolExecutor(4) as pool:
        for model in pool.map(lambda _: fit(X), range(8)):
            np.testing.assert_array_equal(model.cluster_centers_, wanted)
