"""Files of `export_onnx` give in onnxruntime what models of images give in Python."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")
pytest.importorskip("onnx", reason="it is an extra")
pytest.importorskip("onnxruntime", reason="it is in the extra test only")

import onnxruntime as ort
import torch

import ekmfast
from ekmfast import EKMeans, MaximumEntropyKMeans, export_onnx, load, save
from ekmfast.anomaly import AutoencoderDetector
from ekmfast.autoencoder import ConvAutoencoder, encode, export, export_pipeline, pretrain
from ekmfast.autoencoder import load as load_model
from ekmfast.autoencoder.resize import resized
from ekmfast.persist import onnx_graph, onnx_images
from ekmfast.persist.onnx_images import SINGLE

SIZE, LATENT = 32, 8


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pictures(n, channels=3, size=SIZE, seed=0):
    """Bright bars, vertical or horizontal, of three brightnesses."""
    rng = np.random.default_rng(seed)
    images = rng.random((n, channels, size, size), np.float32) * np.float32(0.1)
    for i, image in enumerate(images):
        at = rng.integers(2, size - 5)
        bar = image[:, at : at + 3] if i % 2 else image[:, :, at : at + 3]
        bar += np.float32(0.3 * (i % 3 + 1))
    return images.clip(0, 1)


def trained(channels=3, size=SIZE, **parameters):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConvAutoencoder(size, channels, LATENT, n_classes=2, width=0.125, **parameters)
    pretrain(model, pictures(60, channels, size), epochs=3, random_state=0, verbose=0)
    return model


@pytest.fixture(scope="module")
def model():
    return trained()


def session_of(model, folder, **options):
    export_onnx(model, folder / "m.onnx", **options)
    return ort.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])


def run(session, images):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


def metadata_of(session):
    return session.get_modelmeta().custom_metadata_map


def close(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def hard_images(channels, size):
    """Black, white and striped images, and noise."""
    rng = np.random.default_rng(1)
    images = rng.random((8, channels, size, size), np.float32)
    images[0], images[1] = 0, 1
    images[2] = np.arange(size) % 2
    images[3] = images[2].transpose(0, 2, 1)
    return images


# --- autoencoders --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "size", "parameters"),
    [(1, 16, {}), (3, 32, {}), (3, 48, {"normalize_codes": True}), (6, 16, {})],
)
def test_autoencoders(channels, size, parameters, tmp_path):
    """With more than four channels, the last layer stays a transposed convolution."""
    model = trained(channels, size, **parameters)
    session = session_of(model, tmp_path)
    expected = load_model(export(model, tmp_path / "m.pt2"))
    x = np.concatenate([pictures(9, channels, size, 1), hard_images(channels, size)])
    for n in (0, 1, 2, len(x)):
        found = run(session, x[:n])
        close(found["codes"], expected.encode(x[:n]))
        close(found["reconstructions"], expected.reconstruct(x[:n]))
        close(found["anomaly_loss"], expected.anomaly_loss(x[:n]))
    assert list(found) == ["codes", "reconstructions", "anomaly_loss"]
    assert metadata_of(session) == {
        "ekmfast_version": ekmfast.__version__,
        "class": "ConvAutoencoder",
        "image_size": str(size),
        "in_channels": str(channels),
        "latent_dim": str(LATENT),
    }
    assert session.get_inputs()[0].shape == ["n", channels, size, size]


def test_the_model_is_not_changed_and_bytes_repeat(model, tmp_path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    export_onnx(model, tmp_path / "a")
    assert model.training
    model.eval()
    export_onnx(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("suffix", ["ts", "pt2"])
def test_files_of_pytorch_become_files_of_onnx(model, suffix, tmp_path):
    if suffix == "ts" and sys.version_info >= (3, 14):
        pytest.skip("PyTorch does not support TorchScript from Python 3.14 on")
    loaded = load_model(export(model, tmp_path / f"m.{suffix}"))
    x = pictures(5, seed=1)
    close(run(session_of(loaded, tmp_path), x)["codes"], encode(model, x))
    half = load_model(tmp_path / f"m.{suffix}", precision="bfloat16")
    with pytest.raises(ValueError, match="was loaded in bfloat16: load it in float32"):
        export_onnx(half, tmp_path / "half")
    with pytest.raises(ValueError, match="was loaded in bfloat16: load it in float32"):
        export_onnx(AutoencoderDetector(half).fit(pictures(20)), tmp_path / "half")


def test_bytes(model, tmp_path):
    x = (pictures(7, seed=1) * 255).astype(np.uint8)
    session = session_of(model, tmp_path, dtype=np.uint8)
    assert session.get_inputs()[0].type == "tensor(uint8)"
    close(run(session, x)["codes"], encode(model, x))
    for dtype, error in ((np.float64, ValueError), ("pixels", TypeError)):
        with pytest.raises(error, match="dtype must be None, float32 or uint8, got"):
            export_onnx(model, tmp_path / "m", dtype=dtype)


# --- with clusters -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("suffix", ["ts", "pt2"])
@pytest.mark.parametrize("estimator", [EKMeans, MaximumEntropyKMeans])
def test_pipelines(model, estimator, suffix, tmp_path):
    if suffix == "ts" and sys.version_info >= (3, 14):
        pytest.skip("PyTorch does not support TorchScript from Python 3.14 on")
    clusters = estimator(3, alpha="dvariance", random_state=0).fit(encode(model, pictures(60)))
    clusters._merged_ = np.array([0, 1, 0])  # as if two centroids coincided
    pipeline = load_model(export_pipeline(model, clusters, tmp_path / f"p.{suffix}"))
    session = session_of(pipeline, tmp_path)
    x = np.concatenate([pictures(60), hard_images(3, SIZE)])
    for n in (0, 1, len(x)):
        found = run(session, x[:n])
        assert list(found) == ["codes", "labels", "memberships", "anomaly_loss"]
        close(found["codes"], pipeline.encode(x[:n]))
        np.testing.assert_array_equal(found["labels"], pipeline.predict(x[:n]))
        assert found["labels"].dtype == np.int64
        close(found["memberships"], pipeline.membership(x[:n]))
        close(found["anomaly_loss"], pipeline.anomaly_loss(x[:n]))
    assert set(found["labels"]) == {0, 1}
    metadata = metadata_of(session)
    assert float(metadata["alpha"]) == clusters.alpha_
    assert metadata["n_clusters"] == "3"
    assert metadata["class"] == "ExportedPipeline"


# --- detectors -----------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["reconstruction", "codes", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_detectors(model, score, dtype, tmp_path):
    rng = np.random.default_rng(2)
    detector = AutoencoderDetector(model, score=score, random_state=0).fit(pictures(80, seed=2))
    session = session_of(detector, tmp_path, dtype=dtype)
    labels = []
    for height, width in ((SIZE, SIZE), (64, 64), (100, 37), (20, 20), (17, 200), (1, 1)):
        x = rng.random((6, 3, height, width), np.float32) ** 3
        x[:3] = resized(pictures(3, seed=3), 64)[:, :, :1, :1]
        if (height, width) == (SIZE, SIZE):
            x[:3] = pictures(3, seed=3)
        x = (x * 255).astype(np.uint8) if dtype == np.uint8 else x
        found, expected = run(session, x), detector.score_samples(x)
        assert found["score"].dtype == np.float32
        # The scores of codes are quadratic in codes, whose errors are those of the network.
        np.testing.assert_allclose(found["score"], expected, rtol=1e-3, atol=1e-3)
        certain = np.abs(expected - detector.offset_) > 2e-3 * (1 + np.abs(expected))
        np.testing.assert_array_equal(found["label"][certain], detector.predict(x)[certain])
        labels += found["label"][certain].tolist()
    assert set(labels) == {-1, 1}
    metadata = metadata_of(session)
    assert float(metadata["offset"]) == detector.offset_
    assert metadata["score"] == score
    assert ("alpha" in metadata) == (score != "reconstruction")
    assert session.get_inputs()[0].shape == ["n", 3, "height", "width"]


def test_a_detector_keeps_its_history_and_may_come_from_a_file(tmp_path):
    detector = AutoencoderDetector(
        image_size=16, latent_dim=4, width=0.0625, epochs=1, random_state=0
    ).fit(pictures(40, 1, 16))
    export_onnx(detector, tmp_path / "a")
    assert detector.history_ is not None
    save(detector, tmp_path / "saved")
    export_onnx(load(tmp_path / "saved"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("size", [16, 48])
def test_images_are_resized_as_in_python(size, tmp_path):
    """Exactly where the size is right, and up to rounding at every other size."""
    graph = onnx_graph.Graph("images", [2, "height", "width"], SINGLE)
    graph.output("resized", onnx_images.resized(graph, "images", size), SINGLE, 2, size, size)
    content = graph.model("", {}, "").SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for height in (size, 1, 2, 7, size - 1, size + 1, 2 * size, 333):
        for width in (size, 3, 5 * size, 250):
            x = rng.random((2, 2, height, width), np.float32)
            (found,) = session.run(None, {"images": x})
            if (height, width) == (size, size):
                np.testing.assert_array_equal(found, x)
            # PyTorch computes the places of pixels in float32.
            atol = float(np.finfo(np.float32).eps) * max(height, width, size)
            np.testing.assert_allclose(found, resized(x, size), atol=atol)


# --- elsewhere -----------------------------------------------------------------------------

PROGRAM = """
import json, sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
codes, labels = session.run(["codes", "labels"], {"images": np.load("x.npy")})
names = [m for m in ("ekmfast", "sklearn", "torch", "onnx") if m in sys.modules]
print(json.dumps([codes.tolist(), labels.tolist(), names]))
"""


def test_a_process_with_onnxruntime_alone(model, tmp_path):
    x = pictures(60)
    clusters = EKMeans(3, random_state=0).fit(encode(model, x))
    pipeline = load_model(export_pipeline(model, clusters, tmp_path / "p.pt2"))
    export_onnx(pipeline, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes, labels, imported = json.loads(done.stdout)
    assert imported == []
    np.testing.assert_allclose(codes, encode(model, x), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labels, clusters.labels_)


def test_arrays_of_2_gib_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr("ekmfast.persist.onnx.MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match="bytes: an ONNX file holds at most 10000"):
        export_onnx(model, tmp_path / "m")
    with pytest.raises(TypeError, match=r"estimator must be one of EKMeans, .*AutoencoderDetector"):
        export_onnx(torch.nn.Linear(1, 1), tmp_path / "m")
    assert not list(tmp_path.iterdir())
