"""Loaded estimators predict as before, and damaged files are refused."""

import errno
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ekmfast
from ekmfast import EKMeans, MiniBatchEKMeans, load, save
from ekmfast.persist import file as _persist

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))


@pytest.fixture(params=[np.float64, np.float32])
def fitted(request):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(0, 1, (300, 3)), rng.normal(5, 1, (20, 3))]).astype(request.param)
    return X, EKMeans(2, random_state=0).fit(X)


def assert_same_state(one, other):
    assert type(one) is type(other)
    mine, others = vars(one), vars(other)
    assert list(mine) == list(others)
    for name, value in mine.items():
        if isinstance(value, np.ndarray):
            assert others[name].dtype == value.dtype
            np.testing.assert_array_equal(others[name], value)
        else:
            assert type(others[name]) is type(value), name
            assert others[name] == value


def test_a_loaded_estimator_is_the_saved_one(fitted, tmp_path):
    X, model = fitted
    path = tmp_path / "model"
    assert save(model, path) is None
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    again = load(str(path))
    assert_same_state(model, again)
    for method in ("predict", "transform", "membership", "weights"):
        assert getattr(again, method)(X).tobytes() == getattr(model, method)(X).tobytes()
    assert again.score(X) == model.score(X)
    assert_same_state(model, clone(again).fit(X))


def test_the_file_is_an_npz_and_the_same_each_time(fitted, tmp_path):
    _, model = fitted
    save(model, tmp_path / "a.npz")
    save(load(tmp_path / "a.npz"), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        centroids = file["attributes/cluster_centers_"]
    np.testing.assert_array_equal(centroids, model.cluster_centers_)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"alpha": np.float64(0.1) + 0.2, "n_init": np.int64(3), "tol": 1e-7, "verbose": True},
        {"alpha": np.float32(0.1)},
        {"init": np.array([[0, 1], [2, 3]], ">i4"), "n_threads": 2},
        {"init": [[0.5, 1], [2, 3]], "random_state": 2**31},
    ],
)
def test_unfitted_estimators_keep_their_parameters(parameters, tmp_path):
    model = EKMeans(2, **parameters)
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    assert not hasattr(again, "cluster_centers_")
    for name, value in model.get_params().items():
        read = again.get_params()[name]
        np.testing.assert_array_equal(read, value)
        if not isinstance(value, (list, np.ndarray)):
            assert type(read) is type(value), name


def test_feature_names_and_output_are_kept(tmp_path):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(np.arange(12.0).reshape(6, 2), columns=["größe", "weight\0"])
    model = EKMeans(2, random_state=0).fit(X).set_output(transform="pandas")
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.feature_names_in_.dtype == object
    assert again.feature_names_in_.tolist() == ["größe", "weight\0"]
    pandas.testing.assert_frame_equal(again.transform(X), model.transform(X))
    with pytest.raises(ValueError, match="feature names"):
        again.predict(X[["weight\0", "größe"]])


@pytest.mark.parametrize("name", _persist.CLASSES)
def test_every_class_is_saved(name, tmp_path):
    cls = getattr(ekmfast, name)
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(c, 1, (30, 2)) for c in (0, 9)])
    y = np.full(60, -1)
    y[[0, -1]] = [1, 0]
    model = cls(2, random_state=0).fit(X, y)
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    for method in ("predict", "transform", "membership", "weights"):
        assert getattr(again, method)(X).tobytes() == getattr(model, method)(X).tobytes()
    assert again.score(X) == model.score(X)
    assert list(vars(again)) == list(vars(model))


def test_a_stream_goes_on_after_loading(tmp_path):
    batches = np.random.default_rng(0).normal(size=(4, 50, 2))
    model = MiniBatchEKMeans(2, random_state=0)
    for batch in batches[:3]:
        model.partial_fit(batch)
    save(model, tmp_path / "m")
    again = load(tmp_path / "m").partial_fit(batches[3])
    model.partial_fit(batches[3])
    np.testing.assert_array_equal(again.cluster_centers_, model.cluster_centers_)
    assert again.n_steps_ == 4


def test_attributes_that_a_class_lists_are_saved(fitted, tmp_path, monkeypatch):
    _, model = fitted
    model._extra = np.arange(3)
    save(model, tmp_path / "without")
    assert not hasattr(load(tmp_path / "without"), "_extra")
    monkeypatch.setattr(EKMeans, "_saved_state", ("_extra",), raising=False)
    save(model, tmp_path / "with")
    np.testing.assert_array_equal(load(tmp_path / "with")._extra, [0, 1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init": lambda X, k, random_state: X[:k]}, "parameter init is <function"),
        ({"random_state": np.random.RandomState(0)}, "parameter random_state is RandomState"),
        ({"init": np.array([None, 1])}, "parameter init is array of dtype object"),
        ({"alpha": 1j}, "parameter alpha is 1j"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(change, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        save(EKMeans(2).set_params(**change), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_other_objects_are_refused(fitted, tmp_path):
    class EKMeansToo(EKMeans):
        pass

    nested = make_pipeline(make_pipeline(EKMeans()))
    for other in (make_pipeline(PCA(2), EKMeans()), nested, EKMeansToo(), {"a": 1}):
        with pytest.raises(TypeError, match=r"must be one of .*EKMeans"):
            save(other, tmp_path / "m")
    model = fitted[1]
    model.notes_ = {"a": 1}
    with pytest.raises(TypeError, match="attribute notes_ is"):
        save(model, tmp_path / "m")
    with pytest.raises(OSError, match="regular file"):
        save(EKMeans(), tmp_path)
    with pytest.raises(FileNotFoundError):
        save(EKMeans(), tmp_path / "none" / "m")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(fitted, tmp_path, monkeypatch):
    path = tmp_path / "m"
    save(EKMeans(5), path)
    before = path.read_bytes()

    def full(file, *_, **__):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        save(fitted[1], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full here")
def test_a_device_is_not_replaced():
    with pytest.raises(OSError, match="regular file"):
        save(EKMeans(), "/dev/full")
    assert not os.path.isfile("/dev/full")


def test_links_are_followed_and_permissions_usual(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save(EKMeans(3), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "real").n_clusters == 3
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "real").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- files that are not ours, or no longer -------------------------------------------------


def rewritten(path, change=None, **members):
    """The archive at ``path`` with its header changed and members replaced or added."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if change is not None:
        header = json.loads(content["header.json"])
        change(header)
        content["header.json"] = json.dumps(header).encode()
    content.update(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return path


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f8"])
def test_arrays_that_another_program_wrote_column_by_column_are_read(tmp_path, dtype):
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.dtype(dtype).newbyteorder("="))
    model = EKMeans(4, random_state=0).fit(X)
    save(model, tmp_path / "m")
    content = io.BytesIO()
    np.save(content, np.asfortranarray(model.cluster_centers_, dtype))
    member = "attributes/cluster_centers_.npy"
    again = load(rewritten(tmp_path / "m", **{member: content.getvalue()}))
    assert again.cluster_centers_.flags.c_contiguous
    assert again.cluster_centers_.dtype == model.cluster_centers_.dtype
    np.testing.assert_array_equal(again.predict(X), model.labels_)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))


@pytest.fixture
def saved(tmp_path):
    save(EKMeans(2, random_state=0).fit([[0.0], [1.0], [9.0]]), tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format_version=2, ekmfast="9.1"), "format 2, written by ekmfast 9.1"),
        (lambda h: h.update(format_version="1"), "format '1'"),
        (lambda h: h.update(format="other"), "not a file of ekmfast.save"),
        (lambda h: h.update({"class": "Popen"}), "class 'Popen'"),
        (lambda h: h.update({"class": ["EKMeans"]}), "class"),
        (lambda h: h.pop("class"), "class"),
        (lambda h: h.update(parameters=[1]), "list"),
        (lambda h: h["parameters"].update(colour="red"), "no parameters colour"),
        (lambda h: h["attributes"].update(fit=1), "no attributes fit"),
        (lambda h: h["attributes"].update(__class__=1), "no attributes __class__"),
        (lambda h: h["attributes"].update(a_={"array": "none"}), "none"),
        (lambda h: h["attributes"].update(a_={"eval": "exit()"}), "'exit"),
        (lambda h: h["attributes"].update(a_={"fields": {}}), "fields"),
        (lambda h: h["attributes"].update(a_={"strings": [1]}), "strings"),
    ],
)
def test_headers_that_say_something_else_are_refused(saved, change, message):
    with pytest.raises(ValueError, match=message) as raised:
        load(rewritten(saved, change))
    assert repr(str(saved)) in str(raised.value)


def test_a_parameter_that_the_file_lacks_takes_its_default(saved):
    assert load(rewritten(saved, lambda h: h["parameters"].pop("tol"))).tol == EKMeans().tol


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def test_no_pickle_is_read(saved, tmp_path):
    bomb = npy(np.array([Bomb()]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        load(rewritten(saved, **{"attributes/labels_.npy": bomb}))
    (tmp_path / "p").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a zip file"):
        load(tmp_path / "p")


def test_foreign_files_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    np.savez_compressed(tmp_path / "c.npz", x=np.zeros(3))
    (tmp_path / "d").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "e", "w") as archive:
        archive.writestr("header.json", "[" * 100_000)
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=r"cannot be loaded"):
            load(file)


def test_arrays_of_other_kinds_or_wrong_length_are_refused(saved):
    labels = "attributes/labels_.npy"
    with pytest.raises(ValueError, match="datetime64"):
        load(rewritten(saved, **{labels: npy(np.zeros(3, "M8[s]"))}))
    whole = npy(np.zeros(3))
    for bad in (whole.replace(b"(3,)", b"(3000000000000000,)"), whole.replace(b"(3,)", b"(3,(")):
        assert bad != whole
        with pytest.raises(ValueError, match="cannot be loaded"):
            load(rewritten(saved, **{labels: bad}))


def test_arrays_of_the_other_byte_order_are_read(saved):
    model = load(saved)
    swapped = model.cluster_centers_.astype(">f8")
    assert load(saved).cluster_centers_.dtype == "=f8"
    again = load(rewritten(saved, **{"attributes/cluster_centers_.npy": npy(swapped)}))
    assert_same_state(again, model)


def test_damage_is_told_or_does_no_harm(saved):
    """A truncated file is refused; a file with a changed byte is refused or predicts the same."""
    model, good = load(saved), saved.read_bytes()
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(good), 150):
        saved.write_bytes(good[:length])
        with pytest.raises(ValueError, match="cannot be loaded"):
            load(saved)
    refused = 0
    for at in rng.integers(0, len(good), 600):
        bad = bytearray(good)
        bad[at] ^= 1 << rng.integers(8)
        saved.write_bytes(bad)
        try:
            again = load(saved)
        except ValueError:
            refused += 1
        else:
            assert_same_state(model, again)
    assert refused > 300


# --- complete files of impossible estimators ---------------------------------------------------

K, D, N = 2, 3, 60


@pytest.fixture(scope="module")
def every_class(tmp_path_factory):
    """A file of each class."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(c, 1, (N // K, D)) for c in (0, 9)])
    y = np.full(N, -1)
    y[[0, -1]] = [1, 0]
    for name in _persist.CLASSES:
        save(getattr(ekmfast, name)(K, random_state=0).fit(X, y), folder / name)
    return folder, X


ARRAYS = [
    ("cluster_centers_", np.zeros((K, D, 1))),
    ("cluster_centers_", np.zeros((K, D + 1))),
    ("cluster_centers_", np.zeros((K + 1, D))),
    ("cluster_centers_", np.zeros((0, D))),
    ("cluster_centers_", np.zeros(D)),
    ("cluster_centers_", np.zeros((K, D), np.int64)),
    ("cluster_centers_", np.zeros((K, D), np.float16)),
    ("cluster_centers_", np.full((K, D), "a")),
    ("cluster_centers_", np.full((K, D), np.nan)),
    ("cluster_centers_", np.array(1.0)),
    ("_merged_", np.zeros((K, 3), np.int64)),
    ("_merged_", np.zeros(K + 1, np.int64)),
    ("_merged_", np.zeros(K)),
    ("_merged_", np.zeros(K, bool)),
    ("_merged_", np.array([0, -(2**31)])),
    ("_merged_", np.array([0, 5])),
    ("_merged_", np.array([1, 1])),
    ("_merged_", np.array([1, 0])),
    ("_merged_", np.array([0, 0])),
    ("labels_", np.zeros((N, 1), np.int32)),
    ("labels_", np.full(N, K, np.int32)),
    ("labels_", np.full(N, -1, np.int32)),
    ("labels_", np.zeros(N)),
    ("objective_history_", np.zeros((2, 2))),
]
SCALARS = [
    ("n_features_in_", D + 1),
    ("n_features_in_", "3"),
    ("n_features_in_", True),
    ("n_features_in_", None),
    ("alpha_", 0.0),
    ("alpha_", -1),
    ("alpha_", float("nan")),
    ("alpha_", "auto"),
    ("alpha_", {"array": "attributes/labels_"}),
    ("objective_", "low"),
    ("n_iter_", 1.5),
    ("n_iter_", -1),
    ("converged_", 1),
    ("n_clusters_effective_", K + 1),
    ("feature_names_in_", {"strings": ["a"]}),
    ("feature_names_in_", "abc"),
]


@pytest.mark.parametrize("name", _persist.CLASSES)
def test_state_that_cannot_be_is_refused(every_class, tmp_path, name):
    folder, X = every_class
    path = tmp_path / "m"

    def refused(attribute, change=None, **members):
        path.write_bytes((folder / name).read_bytes())
        with pytest.raises(ValueError, match=f"cannot be loaded.*{attribute}"):
            load(rewritten(path, change, **members))

    for attribute, array in ARRAYS:
        which = (
            "_merged_|cluster_centers_|n_features_in_"
            if attribute == "cluster_centers_"
            else attribute
        )
        refused(f"({which})", **{f"attributes/{attribute}.npy": npy(array)})
    for attribute, value in SCALARS:
        refused(attribute, lambda h, a=attribute, v=value: h["attributes"].update({a: v}))
    for attribute in ("n_features_in_", "alpha_", "_merged_"):
        refused(attribute, lambda h, a=attribute: h["attributes"].pop(a))
    if name not in ("HardKMeans", "FuzzyCMeans"):
        refused("alpha_", lambda h: h["attributes"].update(alpha_=float("inf")))
    assert load(folder / name).predict(X).shape == (N,)


@pytest.mark.parametrize(
    ("field", "array"),
    [
        ("centroids", np.zeros((K, D), np.float32)),
        ("centroids", np.zeros((K, D + 1))),
        ("packed", np.zeros((K, D))),
        ("packed", np.zeros((K + 1, D + 2))),
        ("reference", np.zeros((D, 1))),
        ("mean", np.full(D, np.inf)),
    ],
)
def test_the_state_of_a_stream_is_looked_at(every_class, tmp_path, field, array):
    path = tmp_path / "m"
    path.write_bytes((every_class[0] / "MiniBatchEKMeans").read_bytes())
    with pytest.raises(ValueError, match=field):
        load(rewritten(path, **{f"attributes/_stream_/{field}.npy": npy(array)}))


def test_what_was_never_fitted_needs_no_state(tmp_path):
    for name in _persist.CLASSES:
        save(getattr(ekmfast, name)(3), tmp_path / "m")
        assert load(tmp_path / "m").n_clusters == 3


# --- pipelines -------------------------------------------------------------------------------


@pytest.fixture
def scaled(fitted):
    X = fitted[0] * np.array([1, 1000, 0.01], fitted[0].dtype) + 5
    return X, make_pipeline(StandardScaler(), EKMeans(2, random_state=0)).fit(X)


def test_a_pipeline_keeps_its_scaling(scaled, tmp_path):
    X, model = scaled
    save(model, tmp_path / "m")
    again = load(tmp_path / "m")
    assert [name for name, _ in again.steps] == ["standardscaler", "ekmeans"]
    for one, other in zip(model, again, strict=True):
        assert_same_state(one, other)
    np.testing.assert_array_equal(again.predict(X), model[-1].labels_)
    assert again.transform(X).tobytes() == model.transform(X).tobytes()
    assert again.score(X) == model.score(X)
    save(again, tmp_path / "n")
    assert (tmp_path / "m").read_bytes() == (tmp_path / "n").read_bytes()
    assert clone(again).fit(X).predict(X).tolist() == model.predict(X).tolist()


@pytest.mark.parametrize("options", [{"with_mean": False}, {"with_std": False}])
def test_other_scalings_are_kept(fitted, tmp_path, options):
    X = fitted[0] * 7 + 3
    model = make_pipeline(StandardScaler(**options), EKMeans(2, random_state=0)).fit(X)
    save(model, tmp_path / "m")
    assert load(tmp_path / "m").predict(X).tolist() == model.predict(X).tolist()


@pytest.mark.parametrize(
    ("attribute", "array"),
    [
        ("scale_", np.zeros(3)),
        ("scale_", np.ones(2)),
        ("scale_", np.ones((3, 1))),
        ("mean_", np.full(3, np.nan)),
        ("mean_", np.zeros(3, "<U1")),
        ("var_", -np.ones(3)),
    ],
)
def test_a_scaling_that_cannot_be_is_refused(scaled, tmp_path, attribute, array):
    path = tmp_path / "m"
    save(scaled[1], path)
    with pytest.raises(ValueError, match=attribute):
        load(rewritten(path, **{f"steps/standardscaler/attributes/{attribute}.npy": npy(array)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["steps"].clear(), "do not go together"),
        (lambda h: h["steps"].insert(0, ["a", json.loads(json.dumps(h))]), "steps"),
        (lambda h: h["steps"][0][1].update({"class": "Popen"}), "class 'Popen'"),
        (lambda h: h["steps"][0][1]["attributes"].pop("scale_"), "lacks scale_"),
        (lambda h: h["steps"][0][1]["parameters"].update(n=1), "no parameters n"),
        (lambda h: h.pop("steps"), "steps"),
    ],
)
def test_pipelines_that_cannot_be_are_refused(scaled, tmp_path, change, message):
    path = tmp_path / "m"
    save(scaled[1], path)
    with pytest.raises(ValueError, match=f"cannot be loaded.*{message}"):
        load(rewritten(path, change))


def test_an_estimator_within_another_is_kept(fitted, tmp_path):
    X, model = fitted
    outer = EKMeans(2, random_state=0).fit(X)
    outer.inner_ = model
    save(outer, tmp_path / "m")
    assert_same_state(load(tmp_path / "m").inner_, model)


# --- files of released versions ------------------------------------------------------------


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_still_say_what_they_said(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    model = load(path)
    assert type(model).__name__.lower() == path.stem.partition("-")[0]
    assert model.predict(expected["X"]).tolist() == expected["labels"]
    assert len(set(expected["labels"])) == 3
    np.testing.assert_allclose(
        model.transform(expected["X"]), expected["distances"], rtol=1e-12, atol=1e-12
    )


def test_every_class_has_a_golden_file():
    assert {f"{name.lower()}-0.1.0" for name in _persist.CLASSES} <= {path.stem for path in GOLDEN}


def test_every_class_that_can_be_saved_is_known_by_name():
    assert _persist._class("EKMeans") is EKMeans
    public = [getattr(ekmfast, name) for name in ekmfast.__all__]
    estimators = [
        thing for thing in public if isinstance(thing, type) and issubclass(thing, BaseEstimator)
    ]
    known = {name for name, kind in _persist.KINDS.items() if kind.module == "ekmfast"}
    assert {cls.__name__ for cls in estimators} == known
