"""Files of `export_onnx` give in onnxruntime what the estimators give in Python."""

import errno
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import ekmfast
from ekmfast import (
    EKMeans,
    EquilibriumMixture,
    FuzzyCMeans,
    HardKMeans,
    MiniBatchEKMeans,
    export_onnx,
    load,
    save,
)
from ekmfast.anomaly import AutoencoderDetector, EKMeansDetector
from ekmfast.persist import onnx_graph
from ekmfast.persist.file import CLASSES

onnx = pytest.importorskip("onnx", reason="it is an extra")
ort = pytest.importorskip("onnxruntime", reason="it is in the extra test only")

EPS64 = float(np.finfo(np.float64).eps)
DTYPES = [np.float64, np.float32]
SCALERS = {
    "unscaled": None,
    "scaled": {},
    "only-centred": {"with_std": False},
    "only-divided": {"with_mean": False},
    "neither": {"with_mean": False, "with_std": False},
}
# Offset and scale of the rows that a model is fitted to, for float64 and float32.
ROWS = {
    "plain": ((0, 1), (0, 1)),
    "offset": ((1.7e9, 1), (1e4, 1)),
    "tiny": ((0, 1e-20), (0, 1e-12)),
    "huge": ((0, 1e20), (0, 1e8)),
    "tiny-at-an-offset": ((1, 1e-9), (1, 1e-3)),
}


def rows_of(kind, dtype, n_features=3):
    """Three clusters of different sizes."""
    offset, scale = ROWS[kind][DTYPES.index(dtype)]
    rng = np.random.default_rng(0)
    centres = 6 * np.eye(3, n_features)
    X = np.vstack(
        [rng.normal(c, 1, (n, n_features)) for c, n in zip(centres, (300, 60, 20), strict=True)]
    )
    return (offset + scale * X).astype(dtype)


def fitted(name, X, scaler=None):
    cls = EKMeansDetector if name == "EKMeansDetector" else getattr(ekmfast, name)
    model = cls(3, random_state=0)
    if scaler is not None:
        model = make_pipeline(StandardScaler(**scaler), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # how good the fit is, is not tested
        return model.fit(X)


def session_of(model, folder, **options):
    export_onnx(model, folder / "m.onnx", **options)
    return ort.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])


def run(session, X):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": X}), strict=True))


def metadata_of(session):
    return session.get_modelmeta().custom_metadata_map


def python(model, X):
    """What the methods give, and the squared distances in float64, from which tolerances follow."""
    last = model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        if isinstance(model, Pipeline):
            *scalers, last = [step for _, step in model.steps]
            for scaler in scalers:
                X = scaler.transform(X)
        if isinstance(last, EKMeansDetector):
            return {"score": last.score_samples(X), "label": last.predict(X)}, None
        expected = {
            "label": last.predict(X),
            "distances": last.transform(X),
            "membership": last.membership(X),
        }
    differences = X[:, None].astype(np.float64) - last.cluster_centers_.astype(np.float64)
    return expected, (differences**2).sum(axis=2)


def gap(d2, labels):
    """How much farther than the nearest centroid the nearest one with another label is."""
    other = labels != labels[d2.argmin(axis=1)][:, None]
    return np.where(other, d2, np.inf).min(axis=1) - d2.min(axis=1)


def assert_same(model, session, X):
    """Outputs equal Python's up to rounding; returns the share of rows with certain labels."""
    found, (expected, d2) = run(session, X), python(model, X)
    assert set(found) == set(expected)
    eps = float(np.finfo(X.dtype).eps)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert found[name].dtype == (np.int64 if name == "label" else X.dtype)
    if d2 is None:
        # Products of some features, whitened, in float64; then one rounding to the dtype.
        tolerance = (2 * eps + 1e3 * EPS64) * (1 + np.abs(expected["score"]))
        assert (np.abs(found["score"] - expected["score"]) <= tolerance).all()
        last = model.steps[-1][1] if isinstance(model, Pipeline) else model
        certain = np.abs(expected["score"] - last.offset_) > tolerance
    else:
        n_features = X.shape[1]
        np.testing.assert_allclose(
            found["distances"], expected["distances"], rtol=2 * eps + n_features * EPS64
        )
        last = model.steps[-1][1] if isinstance(model, Pipeline) else model
        # The error of d2 is that of a sum in float64, and alpha multiplies it in the exponent.
        alpha = last.alpha_ if np.isfinite(last.alpha_) else 0
        tolerance = 4 * eps + 4 * (n_features + 4) * EPS64 * (1 + alpha * d2.max(axis=1))
        error = np.abs(found["membership"] - expected["membership"]).max(axis=1)
        if not isinstance(last, HardKMeans):
            assert (error <= tolerance).all()
        np.testing.assert_allclose(found["membership"].sum(axis=1), 1, rtol=8 * eps)
        # `predict` computes in the dtype of X, where two centroids may be equally near.
        error_of_d2 = 16 * n_features * eps * (d2.max(axis=1) + d2.max(axis=1).min())
        if isinstance(last, HardKMeans):
            assert (error[gap(d2, np.arange(d2.shape[1])) > error_of_d2] == 0).all()
        certain = gap(d2, last._merged_) > error_of_d2
    np.testing.assert_array_equal(found["label"][certain], expected["label"][certain])
    return certain.mean()


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*CLASSES, "EKMeansDetector"])
def test_every_estimator(name, dtype, scaler, tmp_path):
    X = rows_of("plain", dtype)
    model = fitted(name, X, SCALERS[scaler])
    session = session_of(model, tmp_path)
    assert session.get_inputs()[0].shape == ["n", 3]
    new = np.random.default_rng(1).uniform(-5, 10, (1000, 3)).astype(dtype)
    assert assert_same(model, session, X) > 0.99
    assert assert_same(model, session, new) > 0.99
    for n in (0, 1, 2):  # Python takes no empty batch
        outputs = run(session, new[:n])
        assert all(len(values) == n for values in outputs.values())
        for name, values in run(session, new).items():
            np.testing.assert_allclose(outputs[name], values[:n], rtol=1e-5)


@pytest.mark.parametrize("scaler", ["unscaled", "scaled"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["EKMeans", "HardKMeans", "FuzzyCMeans", "EKMeansDetector"])
def test_offsets_scales_and_far_rows(name, dtype, rows, scaler, tmp_path):
    X = rows_of(rows, dtype)
    model = fitted(name, X, SCALERS[scaler])
    session = session_of(model, tmp_path)
    assert assert_same(model, session, X) > 0.9
    far = X.mean(axis=0, dtype=np.float64) + np.outer([1e3, 1e6, -1e9], X.std(axis=0) * [1, -2, 3])
    assert_same(model, session, far.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_equal_centroids_have_distance_0(dtype, tmp_path):
    X = rows_of("offset", dtype)
    for name in ("EKMeans", "FuzzyCMeans", "HardKMeans"):
        model = fitted(name, X)
        found = run(session_of(model, tmp_path), model.cluster_centers_)
        assert (np.diag(found["distances"]) == 0).all()
        np.testing.assert_array_equal(found["label"], [0, 1, 2])
        if name == "FuzzyCMeans":
            np.testing.assert_array_equal(found["membership"], np.eye(3))


@pytest.mark.parametrize("fuzzifier", [1.05, 3.0])
def test_fuzzifier(fuzzifier, tmp_path):
    X = rows_of("plain", np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = FuzzyCMeans(3, fuzzifier=fuzzifier, random_state=0).fit(X)
    # Two equal centroids share the row that equals both.
    model.cluster_centers_[1] = model.cluster_centers_[0]
    session = session_of(model, tmp_path)
    assert metadata_of(session)["fuzzifier"] == repr(fuzzifier)
    both = np.vstack([X, model.cluster_centers_])
    found = run(session, both)["membership"]
    # A power of 1 / (m - 1) multiplies the relative error of its base.
    rtol = 100 * EPS64 / (fuzzifier - 1)
    np.testing.assert_allclose(found, model.membership(both), rtol=rtol, atol=1e-300)
    np.testing.assert_array_equal(found[-3], [0.5, 0.5, 0])
    with pytest.raises(ValueError, match="fuzzifier must be"):
        export_onnx(model.set_params(fuzzifier=1), tmp_path / "m")


@pytest.mark.parametrize("shape", [(300, 7), (9, 1500), (2000, 1), (1, 2), (2, 1)])
def test_many_centroids_and_features(shape, tmp_path):
    """Differences are computed for some centroids at a time."""
    centroids = np.random.default_rng(0).normal(size=shape)
    model = HardKMeans(shape[0], init=centroids, n_init=1).fit(centroids)
    session = session_of(model, tmp_path)
    X = np.random.default_rng(1).normal(size=(50, shape[1]))
    assert assert_same(model, session, X) == 1


def test_parts_bound_the_size_of_the_graph(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_graph, "PARTS", 4)
    X = np.random.default_rng(0).normal(size=(99, 1025))
    model = HardKMeans(99, init=X, n_init=1).fit(X)
    session = session_of(model, tmp_path)
    operators = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert operators.count("Sub") == operators.count("ReduceSumSquare") == 4
    assert assert_same(model, session, X) == 1


@pytest.mark.parametrize("name", ["EKMeans", "HardKMeans"])
def test_merged_centroids_share_a_label(name, tmp_path):
    X = rows_of("plain", np.float64)
    model = fitted(name, X)
    # As if the last centroid coincided with the first up to a little less than `fit` tells apart.
    model.cluster_centers_[2] = model.cluster_centers_[0] + [1e-6, 0, 0]
    model._merged_ = np.array([0, 1, 0])
    model.n_clusters_effective_ = 2
    session = session_of(model, tmp_path)
    assert assert_same(model, session, X) > 0.5
    found = run(session, X)
    assert (found["distances"].argmin(axis=1) == 2).any()
    assert set(found["label"]) == {0, 1}
    np.testing.assert_array_equal(found["label"], model.predict(X))


def test_a_fit_that_merges(tmp_path):
    X = np.repeat([[0.0], [9.0]], 20, axis=0)
    with pytest.warns(ConvergenceWarning, match="only 2 of 4"):
        model = EKMeans(4, alpha=1.0, random_state=0).fit(X)
    found = run(session_of(model, tmp_path), X)
    np.testing.assert_array_equal(found["label"], model.labels_)
    assert found["membership"].shape == (40, 4)


@pytest.mark.parametrize("fit", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["EKMeans", "EKMeansDetector"])
def test_dtype_may_differ_from_that_of_the_fit(name, dtype, fit, tmp_path):
    X = rows_of("plain", fit)
    model = fitted(name, X, {})
    session = session_of(model, tmp_path, dtype=dtype)
    assert session.get_inputs()[0].type == f"tensor({'float' if dtype == np.float32 else 'double'})"
    assert_same(model, session, X.astype(dtype))
    for spelling in (np.dtype(dtype), np.dtype(dtype).name):
        export_onnx(model, tmp_path / "again", dtype=spelling)
        assert (tmp_path / "again").read_bytes() == (tmp_path / "m.onnx").read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lowest_score(dtype, tmp_path):
    model = fitted("EKMeansDetector", rows_of("plain", dtype))
    session = session_of(model, tmp_path)
    most = np.finfo(dtype).max
    X = np.array([[most, 0, 0], [most, -most, most], [-most / 2, 1, 1]], dtype)
    found, (expected, _) = run(session, X), python(model, X)
    np.testing.assert_array_equal(found["score"], expected["score"])
    np.testing.assert_array_equal(found["label"], [-1, -1, -1])
    X = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [0, -np.inf, np.inf]], dtype)
    found = run(session, X)
    np.testing.assert_array_equal(found["score"], np.full(3, np.finfo(dtype).min))
    np.testing.assert_array_equal(found["label"], [-1, -1, -1])


@pytest.mark.parametrize("rounded", [False, True])
def test_roundings_of_both_kinds_of_scalers(rounded, tmp_path, monkeypatch):
    """Older versions of scikit-learn subtract the mean in float64."""
    X = rows_of("offset", np.float32)
    model = fitted("EKMeans", X, {})
    scaler, clusters = model[0], model[1]
    mean, scale = scaler.mean_, scaler.scale_
    monkeypatch.setattr(onnx_graph, "subtracts_rounded_mean", lambda: rounded)
    Z = X - mean.astype(np.float32) if rounded else (X - mean).astype(np.float32)
    Z = Z / scale.astype(np.float32) if rounded else (Z / scale).astype(np.float32)
    assert Z.dtype == np.float32
    found = run(session_of(model, tmp_path), X)["distances"]
    rtol = 2 * float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(found, clusters.transform(Z), rtol=rtol)
    other = (X - mean) / scale if rounded else (X - mean.astype(np.float32)) / scale
    assert np.abs(found - clusters.transform(other)).max() > 10 * rtol


# --- mixtures ------------------------------------------------------------------------------


def fitted_mixture(X, scaler=None, **parameters):
    model = EquilibriumMixture(3, random_state=0, **parameters)
    if scaler is not None:
        model = make_pipeline(StandardScaler(**scaler), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # how good the fit is, is not tested
        return model.fit(X)


def assert_same_mixture(model, session, X):
    """Outputs equal Python's up to rounding; returns the share of rows with certain labels."""
    found, last, Z = run(session, X), model, X
    if isinstance(model, Pipeline):
        Z, last = model[0].transform(X), model[1]
    expected = {
        "label": last.predict(Z),
        "membership": last.predict_proba(Z),
        "log_density": last.score_samples(Z),
    }
    assert set(found) == set(expected)
    assert found["label"].dtype == np.int64
    assert found["membership"].dtype == X.dtype
    assert found["log_density"].dtype == np.float64
    # Python computes densities in the dtype of X. The error of d2 is that of a sum of squares of
    # rounded differences, and log densities grow at most as d2 does.
    eps = float(np.finfo(X.dtype).eps)
    z = (Z.astype(np.float64) - last._centre) / last._unit
    mixture = last._mixture
    d2 = np.stack(
        [
            (((z - m) @ w if mixture.full else (z - m) * w) ** 2).sum(axis=1)
            for m, w in zip(mixture.means, mixture.whiteners, strict=True)
        ],
        axis=1,
    )
    moved = eps * (1 + np.abs(z).max(axis=1)) * np.abs(mixture.whiteners).max()
    moved = np.sqrt(X.shape[1]) * moved[:, None]
    error = 4 * moved * (np.sqrt(d2) + moved)
    v = mixture.degrees
    slope = 0.5 if np.isinf(v) else (v + X.shape[1]) / 2 / (v + d2)
    tolerance = (slope * error).max(axis=1) + 16 * eps * (1 + np.abs(expected["log_density"]))
    tolerance += 16 * eps * np.abs(mixture.offsets).max()
    assert (np.abs(found["log_density"] - expected["log_density"]) <= tolerance).all()
    off = np.abs(found["membership"] - expected["membership"]).max(axis=1)
    assert (off <= 2 * tolerance).all()
    np.testing.assert_allclose(found["membership"].sum(axis=1), 1, rtol=8 * eps)
    if mixture.has_background:  # the last column is that of label -1
        np.testing.assert_array_equal(found["membership"].argmax(axis=1) == 3, found["label"] == -1)
    ordered = np.sort(expected["membership"], axis=1)
    certain = ordered[:, -1] - ordered[:, -2] > 4 * tolerance
    np.testing.assert_array_equal(found["label"][certain], expected["label"][certain])
    return certain.mean()


@pytest.mark.parametrize("degrees", [3, np.inf])
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mixtures(dtype, kind, degrees, tmp_path):
    X = rows_of("plain", dtype)
    model = fitted_mixture(X, covariance_type=kind, degrees_of_freedom=degrees)
    session = session_of(model, tmp_path)
    new = np.random.default_rng(1).uniform(-5, 10, (1000, 3)).astype(dtype)
    assert assert_same_mixture(model, session, X) > 0.99
    assert assert_same_mixture(model, session, new) > 0.98
    metadata = metadata_of(session)
    assert metadata == {
        "ekmfast_version": ekmfast.__version__,
        "class": "EquilibriumMixture",
        "n_clusters": "3",
        "covariance_type": kind,
        "degrees_of_freedom": repr(float(degrees)),
    }
    for n in (0, 1, 2):
        for name, values in run(session, new).items():
            np.testing.assert_allclose(run(session, new[:n])[name], values[:n], rtol=1e-5)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mixtures_with_a_background(dtype, kind, tmp_path):
    beside = np.random.default_rng(2).uniform(-9, 12, (60, 3))
    X = np.concatenate([rows_of("plain", np.float64), beside]).astype(dtype)
    model = fitted_mixture(X, covariance_type=kind, background=True)
    session = session_of(model, tmp_path)
    new = np.random.default_rng(1).uniform(-15, 20, (1000, 3)).astype(dtype)
    assert assert_same_mixture(model, session, X) > 0.99
    assert assert_same_mixture(model, session, new) > 0.98
    assert 100 < (run(session, new)["label"] == -1).sum() < 1000
    assert metadata_of(session)["background_weight"] == repr(model.background_weight_)
    for n in (0, 1):
        assert run(session, new[:n])["membership"].shape == (n, 4)


@pytest.mark.parametrize("scaler", ["unscaled", "scaled"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_mixtures_at_offsets_and_scales(dtype, rows, scaler, tmp_path):
    X = rows_of(rows, dtype)
    model = fitted_mixture(X, SCALERS[scaler])
    session = session_of(model, tmp_path)
    assert assert_same_mixture(model, session, X) > 0.9
    far = X.mean(axis=0, dtype=np.float64) + np.outer([1e3, -1e6], X.std(axis=0) * [1, -2, 3])
    assert_same_mixture(model, session, far.astype(dtype))


def test_mixtures_of_one_component_and_without_weight(tmp_path):
    X = rows_of("plain", np.float64)
    model = EquilibriumMixture(1, random_state=0).fit(X)
    found = run(session_of(model, tmp_path), X)
    np.testing.assert_array_equal(found["membership"], np.ones((len(X), 1)))
    np.testing.assert_allclose(found["log_density"], model.score_samples(X), rtol=1e-12)
    model = fitted_mixture(X)
    model._mixture.weights[1] = 0
    found = run(session_of(model, tmp_path), X)
    np.testing.assert_allclose(found["membership"], model.predict_proba(X), atol=1e-12)
    assert (found["membership"][:, 1] == 0).all()


# --- what the file holds -------------------------------------------------------------------


def test_metadata(tmp_path):
    X = rows_of("plain", np.float64)
    model = fitted("EKMeans", X)
    session = session_of(model, tmp_path)
    assert metadata_of(session) == {
        "ekmfast_version": ekmfast.__version__,
        "class": "EKMeans",
        "alpha": repr(float(model.alpha_)),
        "n_clusters": "3",
    }
    assert session.get_modelmeta().producer_name == "ekmfast"
    model = fitted("EKMeansDetector", X, {})
    metadata = metadata_of(session_of(model, tmp_path))
    assert float(metadata["offset"]) == model[1].offset_
    assert float(metadata["alpha"]) == model[1].clustering_.alpha_
    assert json.loads(metadata["steps"]) == ["StandardScaler", "EKMeansDetector"]
    assert metadata["class"] == "EKMeansDetector"


@pytest.mark.parametrize("scaler", ["unscaled", "scaled"])
@pytest.mark.parametrize("name", ["EKMeans", "EKMeansDetector"])
def test_feature_names(name, scaler, tmp_path):
    pandas = pytest.importorskip("pandas")
    X = rows_of("plain", np.float64)
    names = ["größe", "a,b\0", "height"]
    model = fitted(name, pandas.DataFrame(X, columns=names), SCALERS[scaler])
    session = session_of(model, tmp_path)
    assert json.loads(metadata_of(session)["feature_names"]) == names
    assert_same(model, session, X)


def test_versions_and_bytes(tmp_path):
    X = rows_of("plain", np.float32)
    for name in (*CLASSES, "EKMeansDetector"):
        model = fitted(name, X, {})
        export_onnx(model, tmp_path / "a.onnx")
        export_onnx(model, str(tmp_path / "b.onnx"))
        assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
        read = onnx.load(tmp_path / "a.onnx")
        onnx.checker.check_model(read, full_check=True)
        assert [(opset.domain, opset.version) for opset in read.opset_import] == [("", 17)]
        assert read.ir_version == 8


def test_loaded_and_streamed_estimators(tmp_path):
    X = rows_of("plain", np.float64)
    model = MiniBatchEKMeans(3, random_state=0).partial_fit(X[::2]).partial_fit(X[1::2])
    assert_same(model, session_of(model, tmp_path), X)
    for name in ("MaximumEntropyKMeans", "EKMeansDetector"):
        model = fitted(name, X, {})
        save(model, tmp_path / "saved")
        export_onnx(model, tmp_path / "a")
        export_onnx(load(tmp_path / "saved"), tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


CHECK = """
import sys
print(json.dumps([m for m in ("ekmfast", "sklearn", "scipy", "onnx") if m in sys.modules]))
"""
PROGRAM = """
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
(label,) = session.run(["label"], {"X": np.load("X.npy")})
print(json.dumps(label.tolist()))
"""


def run_elsewhere(program, folder):
    """The lines that a program prints, which must not import ekmfast."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program + CHECK],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, imported = done.stdout.splitlines()
    assert json.loads(imported) == []
    return lines


@pytest.mark.parametrize("name", ["EKMeans", "EKMeansDetector"])
def test_a_process_without_ekmfast(name, tmp_path):
    X = rows_of("plain", np.float64)
    model = fitted(name, X, {})
    export_onnx(model, tmp_path / "model.onnx")
    np.save(tmp_path / "X.npy", X)
    (label,) = run_elsewhere(PROGRAM, tmp_path)
    np.testing.assert_array_equal(json.loads(label), model.predict(X))


def test_the_program_of_the_docs(tmp_path):
    docs = Path(__file__).parent.parent / "docs" / "deployment.md"
    section = docs.read_text().split("## ONNX")[1]
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    export_onnx(fitted("EKMeans", rows_of("plain", np.float64)), tmp_path / "model.onnx")
    assert any(
        "ekmfast_version" in line for line in run_elsewhere("import json\n" + program, tmp_path)
    )


# --- what is refused -----------------------------------------------------------------------


def test_the_file_is_whole_or_not_there(tmp_path, monkeypatch):
    model = fitted("EKMeans", rows_of("plain", np.float64))
    path = tmp_path / "m.onnx"
    assert export_onnx(model, path) is None
    before = path.read_bytes()

    def full(path, fill, **_):
        def half(file):
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        return ekmfast._files.replace_file(path, half)

    with monkeypatch.context() as patched:
        patched.setattr("ekmfast.persist.onnx.replace_file", full)
        with pytest.raises(OSError, match="No space left"):
            export_onnx(fitted("HardKMeans", rows_of("plain", np.float32)), path)
    assert path.read_bytes() == before
    with pytest.raises(TypeError):
        export_onnx(PCA(), path)
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="none"):
        export_onnx(model, tmp_path / "none" / "m.onnx")
    with pytest.raises(OSError, match="regular file"):
        export_onnx(model, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def other_estimators():
    class EKMeansToo(EKMeans):
        pass

    class LikeDask(EKMeans):
        def to_local(self):
            return self

    X = rows_of("plain", np.float64)
    return {
        "subclass": EKMeansToo(3).fit(X),
        "scikit-learn": KMeans(3, n_init=1).fit(X),
        "no estimator": {"a": 1},
        "class": EKMeans,
        "scaler": StandardScaler().fit(X),
        "pca": make_pipeline(PCA(2), EKMeans(3)).fit(X),
        "min-max": make_pipeline(MinMaxScaler(), EKMeans(3)).fit(X),
        "nested": make_pipeline(make_pipeline(StandardScaler(), EKMeans(3))).fit(X),
        "passthrough": make_pipeline("passthrough", EKMeans(3)).fit(X),
        "only scaled": make_pipeline(StandardScaler()).fit(X),
        "empty": Pipeline([]),
        "images": make_pipeline(AutoencoderDetector()),
        "dask": LikeDask(3).fit(X),
    }


MESSAGES = {
    "images": r"last step of the Pipeline must be one of .*, got AutoencoderDetector",
    "dask": r"got ekmfast.dask.LikeDask; export what its to_local\(\) returns",
    "pca": r"steps before the last must be StandardScaler, got PCA",
    "min-max": r"steps before the last must be StandardScaler, got MinMaxScaler",
    "passthrough": r"steps before the last must be StandardScaler, got 'passthrough'",
    "nested": r"last step of the Pipeline must be one of EKMeans, .*Detector, got Pipeline",
    "only scaled": r"last step of the Pipeline must be one of EKMeans",
    "empty": r"last step of the Pipeline must be one of EKMeans",
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_other_estimators_are_refused(tmp_path):
    for name, estimator in other_estimators().items():
        match = MESSAGES.get(name, "estimator must be one of EKMeans, .*StandardScaler and one of")
        with pytest.raises(TypeError, match=match):
            export_onnx(estimator, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dtype", "error"),
    [
        (np.float16, ValueError),
        ("int64", ValueError),
        (np.dtype(np.float64).newbyteorder(), ValueError),
        ("double precision", TypeError),
        (1.5, TypeError),
    ],
)
def test_other_dtypes_are_refused(dtype, error, tmp_path):
    model = fitted("EKMeans", rows_of("plain", np.float64))
    with pytest.raises(error, match="dtype must be None, float32 or float64, got"):
        export_onnx(model, tmp_path / "m", dtype=dtype)


def test_estimators_without_a_fit_are_refused(tmp_path):
    X = rows_of("plain", np.float64)
    unfitted = [EKMeans(), EKMeansDetector(), make_pipeline(StandardScaler(), EKMeans())]
    unfitted.append(Pipeline([("a", StandardScaler()), ("b", fitted("EKMeans", X))]))
    for model in unfitted:
        with pytest.raises(NotFittedError):
            export_onnx(model, tmp_path / "m")
    pair = Pipeline([("a", StandardScaler().fit(X[:, :2])), ("b", fitted("EKMeans", X))])
    with pytest.raises(ValueError, match=r"have \[2, 3\] features"):
        export_onnx(pair, tmp_path / "m")
    model = fitted("EKMeans", X)
    model._merged_ = np.array([0, 2, 2])
    with pytest.raises(ValueError, match="_merged_ is"):
        export_onnx(model, tmp_path / "m")
    model = fitted("EKMeansDetector", X)
    model.offset_ = 1.0
    with pytest.raises(ValueError, match="offset_ is"):
        export_onnx(model, tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "least"), [("EKMeans", 8 * 3 * 30), ("EKMeansDetector", 8 * 30**2)]
)
def test_arrays_of_2_gib_are_refused(name, least, tmp_path, monkeypatch):
    model = fitted(name, rows_of("plain", np.float32, 30))
    monkeypatch.setattr("ekmfast.persist.onnx.MOST_BYTES", least)
    with pytest.raises(ValueError, match=f"bytes: an ONNX file holds at most {least}"):
        export_onnx(model, tmp_path / "m")
    monkeypatch.setattr("ekmfast.persist.onnx.MOST_BYTES", 2 * least)
    export_onnx(model, tmp_path / "m")


def test_without_onnx_the_error_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "ekmfast\[onnx\]"'):
        export_onnx(fitted("EKMeans", rows_of("plain", np.float64)), tmp_path / "m")
    assert not list(tmp_path.iterdir())
