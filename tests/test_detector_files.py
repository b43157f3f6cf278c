"""Loaded and unpickled detectors score as before, and damaged files are refused."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ekmfast import load, save
from ekmfast.anomaly import AutoencoderDetector, EKMeansDetector
from ekmfast.autoencoder import export, export_pipeline, pretrain
from ekmfast.autoencoder import load as load_model
from ekmfast.autoencoder.model import ConvAutoencoder

GOLDEN = sorted((Path(__file__).parent / "golden" / "detectors").glob("*.npz"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    X = np.vstack([rng.normal(0, 1, (200, 3)), rng.normal(8, 1, (100, 3))])
    return X.astype(dtype)


def images(n, seed=0):
    return np.random.default_rng(seed).random((n, 1, 16, 16), np.float32)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConvAutoencoder(16, 1, latent_dim=4, n_classes=2, width=0.0625)
    pretrain(model, images(60), epochs=2, batch_size=16, random_state=0, verbose=0)
    return model


def assert_same_detector(again, detector, X):
    assert type(again) is type(detector)
    assert again.score_samples(X).tobytes() == detector.score_samples(X).tobytes()
    assert (again.offset_, again.threshold_) == (detector.offset_, detector.threshold_)
    for name in ("decision_scores_", "labels_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(detector, name))
        assert getattr(again, name).dtype == getattr(detector, name).dtype
    np.testing.assert_array_equal(again.predict(X), detector.predict(X))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_detector_of_features_comes_back(tmp_path, dtype):
    X, fresh = rows(dtype=dtype), rows(1, dtype)
    detector = EKMeansDetector(3, contamination=0.05, random_state=0).fit(X)
    save(detector, tmp_path / "a")
    again = load(tmp_path / "a")
    assert_same_detector(again, detector, fresh)
    assert again.get_params() == detector.get_params()
    np.testing.assert_array_equal(again.clustering_.predict(X), detector.clustering_.predict(X))
    assert_same_detector(pickle.loads(pickle.dumps(detector)), detector, fresh)
    save(again, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with np.load(tmp_path / "a", allow_pickle=False) as file:  # arrays and JSON, no pickle
        assert "attributes/_normals/whitener" in file.files
    save(EKMeansDetector(contamination=0.2), tmp_path / "unfitted")
    assert load(tmp_path / "unfitted").contamination == 0.2


def test_a_pipeline_keeps_its_scaling(tmp_path):
    X = rows() * [1, 1000, 1e-3]
    chain = make_pipeline(StandardScaler(), EKMeansDetector(2, random_state=0)).fit(X)
    save(chain, tmp_path / "chain")
    np.testing.assert_array_equal(load(tmp_path / "chain").score_samples(X), chain.score_samples(X))


@pytest.mark.parametrize("score", ["reconstruction", "codes", "both"])
def test_a_detector_of_images_comes_back(model, tmp_path, score):
    X, fresh = images(60), images(10, seed=1)
    options = {"score": score, "n_clusters": 2, "contamination": 0.2, "random_state": 0}
    for detector in (
        AutoencoderDetector(
            **options, image_size=16, latent_dim=4, width=0.0625, epochs=1, batch_size=16
        ),
        AutoencoderDetector(model, **options),
    ):
        detector.fit(X)
        save(detector, tmp_path / "a")
        again = load(tmp_path / "a")
        assert_same_detector(again, detector, fresh)
        assert again.history_ is None
        np.testing.assert_array_equal(again.held_out_, detector.held_out_)
        assert_same_detector(pickle.loads(pickle.dumps(detector)), detector, fresh)
        # The digests of the training images are kept.
        np.testing.assert_array_equal(
            AutoencoderDetector(again.autoencoder_, contamination=0.2).fit(X).held_out_,
            detector.held_out_,
        )


def test_a_given_model_is_stored_once_and_comes_back_as_one(model, tmp_path):
    X = images(60)
    detector = AutoencoderDetector(model, contamination=0.2).fit(X)
    save(detector, tmp_path / "a")
    with np.load(tmp_path / "a", allow_pickle=False) as file:
        assert not any(name.startswith("attributes/autoencoder_") for name in file.files)
    again = load(tmp_path / "a")
    assert again.autoencoder_ is again.model
    save(again, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    # If the parameter was replaced after the fit, there are two models, and both are loaded.
    other = ConvAutoencoder(16, 1, latent_dim=4, width=0.0625)
    save(detector.set_params(model=other), tmp_path / "a")
    again = load(tmp_path / "a")
    assert again.autoencoder_ is not again.model
    assert_same_detector(again, detector, images(10, seed=1))
    save(AutoencoderDetector(model), tmp_path / "a")
    assert not hasattr(load(tmp_path / "a"), "autoencoder_")


@pytest.mark.parametrize("suffix", ["ts", "pt2"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_detector_that_holds_an_exported_model_comes_back(model, tmp_path, suffix, precision):
    exported = load_model(export(model, tmp_path / f"m.{suffix}"), precision=precision)
    X, fresh = images(60), images(10, seed=1)
    detector = AutoencoderDetector(exported, contamination=0.2).fit(X)
    (tmp_path / f"m.{suffix}").unlink()
    assert_same_detector(pickle.loads(pickle.dumps(detector)), detector, fresh)
    save(detector, tmp_path / "a")
    again = load(tmp_path / "a")
    assert_same_detector(again, detector, fresh)
    assert again.autoencoder_.precision == precision


def test_an_exported_pipeline_can_be_pickled(model, tmp_path):
    from ekmfast import EKMeans
    from ekmfast.autoencoder import encode

    X = images(60)
    clusters = EKMeans(2, random_state=0).fit(encode(model, X))
    exported = load_model(export_pipeline(model, clusters, tmp_path / "m.ts"))
    again = pickle.loads(pickle.dumps(exported))
    assert type(again) is type(exported)
    np.testing.assert_array_equal(again.predict(X), exported.predict(X))
    np.testing.assert_array_equal(again.membership(X), exported.membership(X))


def test_what_cannot_be_saved_is_named(model, tmp_path):
    class Odd(ConvAutoencoder):
        pass

    odd = AutoencoderDetector(Odd(16, 1, latent_dim=4, width=0.0625))
    with pytest.raises(TypeError, match="parameter model is Odd"):
        save(odd, tmp_path / "a")
    with pytest.raises(TypeError, match="parameter corruption is <function"):
        save(AutoencoderDetector(corruption=lambda x: x), tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_files_of_older_versions_score_the_same(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    detector = load(path)
    X = np.array(expected["X"])
    if isinstance(detector, AutoencoderDetector):
        X = X.astype(np.uint8)
    np.testing.assert_allclose(detector.score_samples(X), expected["scores"], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(detector.predict(X), expected["found"])


def test_there_are_files_of_older_versions():
    assert {path.name.split("-")[0] for path in GOLDEN} == {
        "autoencoderdetector",
        "ekmeansdetector",
    }


def rewritten(path, out, change):
    """Change the header or arrays of a file; its checksums are correct again."""
    with zipfile.ZipFile(path) as file:
        header = json.loads(file.read("header.json"))
        arrays = {
            name.removesuffix(".npy"): np.load(io.BytesIO(file.read(name)))
            for name in file.namelist()
            if name != "header.json"
        }
    change(header, arrays)
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("header.json", json.dumps(header))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            file.writestr(f"{name}.npy", buffer.getvalue())
    return out


def put(name, change):
    return lambda header, arrays: arrays.update({name: change(arrays[name])})


def put_plain(name, value):
    return lambda header, arrays: header["attributes"].update({name: value})


FEATURES = [
    (put("attributes/_normals/whitener", lambda a: a[:, :2]), "whitener has shape"),
    (put("attributes/_normals/whitener", lambda a: a * np.nan), "whitener holds values"),
    (put("attributes/_normals/whitener", lambda a: a.astype(np.float32)), "whitener has dtype"),
    (put("attributes/_normals/means", lambda a: a[:1]), "must be"),
    (put("attributes/_normals/sizes", lambda a: 0 * a), "sizes holds 0"),
    (put("attributes/_normals/centre", lambda a: a[:2]), "centre has shape"),
    (put("attributes/large_", lambda a: a[::-1]), "large_ is"),
    (put("attributes/large_", lambda a: a + 7), "large_ is"),
    (put("attributes/labels_", lambda a: 1 - a), "labels_ must say"),
    (put("attributes/labels_", lambda a: a[:-1]), "labels_ has shape"),
    (put("attributes/labels_", lambda a: a * 0.5), "labels_ has dtype"),
    (put_plain("offset_", float("nan")), "offset_ is nan"),
    (put_plain("offset_", -1e9), "offset_ is"),
    (put_plain("n_features_in_", 5), "n_features_in_ is 5"),
    (put_plain("clustering_", 3), "cannot be loaded"),
    (lambda header, arrays: header["attributes"].pop("_normals"), "_normals is not"),
]


@pytest.mark.parametrize(("change", "message"), FEATURES)
def test_crafted_files_of_detectors_of_features(tmp_path, change, message):
    save(EKMeansDetector(3, random_state=0).fit(rows()), tmp_path / "a")
    out = rewritten(tmp_path / "a", tmp_path / "b", change)
    with pytest.raises(ValueError, match=message):
        load(out)


IMAGES = [
    (put("attributes/_units", lambda a: a[:1]), "_units has shape"),
    (put("attributes/_units", lambda a: 0 * a), "deviation that is not above 0"),
    (put("attributes/held_out_", lambda a: a[:-1]), "must be"),
    (put("attributes/held_out_", lambda a: a.astype(float)), "held_out_ has dtype"),
    (put_plain("clusters_", None), "score='both' does not go"),
    (put_plain("autoencoder_", None), "autoencoder_ is none"),
    (
        put("attributes/autoencoder_/weights/encoder.conv1.weight", lambda a: a[:, :, :2]),
        "encoder.conv1.weight",
    ),
    (
        put("attributes/autoencoder_/weights/encoder.conv1.weight", lambda a: a.astype(float)),
        "has dtype torch.float64",
    ),
    (
        put("attributes/autoencoder_/weights/encoder.conv1.weight", lambda a: a * np.inf),
        "not finite",
    ),
    (
        put("attributes/autoencoder_/weights/encoder.norm1.running_var", lambda a: a - 9),
        "negative variance",
    ),
    (
        lambda header, arrays: header["attributes"]["autoencoder_"]["autoencoder"].update(
            {"latent_dim": 10**9}
        ),
        "cannot be loaded",
    ),
    (
        lambda header, arrays: header["attributes"]["autoencoder_"]["autoencoder"].pop(
            "weights/encoder.conv1.weight"
        ),
        "Missing key",
    ),
]


@pytest.mark.parametrize(("change", "message"), IMAGES)
def test_crafted_files_of_detectors_of_images(model, tmp_path, change, message):
    detector = AutoencoderDetector(model, score="both", n_clusters=2, contamination=0.2)
    # The model is only an attribute, as if fit had trained it.
    save(detector.fit(images(60)).set_params(model=None), tmp_path / "a")
    out = rewritten(tmp_path / "a", tmp_path / "b", change)
    with pytest.raises(ValueError, match=message):
        load(out)


def test_a_crafted_archive_is_refused(model, tmp_path):
    exported = load_model(export(model, tmp_path / "m.ts"))
    save(AutoencoderDetector(exported, contamination=0.2).fit(images(60)), tmp_path / "a")
    name = "parameters/model/archive"
    for change in (lambda a: a[:-99], lambda a: a.astype(np.int32)):
        out = rewritten(tmp_path / "a", tmp_path / "b", put(name, change))
        with pytest.raises(ValueError, match="cannot be loaded"):
            load(out)
