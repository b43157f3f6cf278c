"""Exported autoencoders: both formats, with clusters, in half precision, without ekmfast."""

import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch

from ekmfast import EKMeans, HardKMeans, MaximumEntropyKMeans, MiniBatchEKMeans, cli, export_onnx
from ekmfast.autoencoder import (
    ConvAutoencoder,
    ExportedPipeline,
    encode,
    export,
    export_pipeline,
    load,
    pretrain,
    torchscript,
)
from ekmfast.autoencoder._folding import as_convolution, folded
from ekmfast.autoencoder.export import METADATA

SIZE, LATENT = 16, 8


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images(n, seed=0):
    """Bright bars, vertical or horizontal, of three brightnesses."""
    rng = np.random.default_rng(seed)
    pictures = rng.random((n, 1, SIZE, SIZE), np.float32) * np.float32(0.1)
    for i, picture in enumerate(pictures[:, 0]):
        at = rng.integers(2, SIZE - 5)
        bar = picture[at : at + 3] if i % 2 else picture[:, at : at + 3]
        bar += np.float32(0.3 * (i % 3 + 1))
    return pictures.clip(0, 1)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConvAutoencoder(SIZE, 1, LATENT, n_classes=2, width=0.125)
    pretrain(model, images(60), epochs=5, random_state=0, verbose=0)
    return model


def scripted(path):
    return torchscript.load(path)


def run_alone(code, *arguments):
    """Run code in another process, in which this package cannot be imported."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# --- folding -------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_transposed_convolution_as_a_plain_one(channels, size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = torch.nn.ConvTranspose2d(6, channels, 4, 2, 1)
        x = torch.randn(2, 6, size, size + 1)
    torch.testing.assert_close(as_convolution(layer)(x), layer(x))


def test_folding_keeps_what_is_computed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConvAutoencoder(SIZE, 3, LATENT, width=0.125)
        model(torch.rand(20, 3, SIZE, SIZE))  # so that BatchNorm has averages
        x = torch.rand(5, 3, SIZE, SIZE)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    z = folded(model.encoder)(x.clone())
    torch.testing.assert_close(z, model.encode(x))
    torch.testing.assert_close(folded(model.decoder)(z), model.decode(z))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# --- torch.export --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("program") / "model.pt2")


@pytest.mark.parametrize("n", [0, 1, 2, 7, 300])
def test_both_formats_compute_the_same(model, program, tmp_path, n):
    script = load(export(model, tmp_path / "model.ts"))
    loaded = load(program)
    x = images(n)
    for name in ("encode", "reconstruct", "anomaly_loss", "anomaly_map"):
        np.testing.assert_allclose(
            getattr(loaded, name)(x), getattr(script, name)(x), rtol=1e-4, atol=1e-5
        )
    for name in ("image_size", "in_channels", "latent_dim", "n_classes", "version"):
        assert getattr(loaded, name) == getattr(script, name)


def test_a_program_runs_with_pytorch_alone(program):
    code = """
import json, sys, torch
extra = {"ekmfast.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra)
about = json.loads(extra["ekmfast.json"])
x = torch.linspace(0, 1, 5 * 16 * 16).reshape(5, 1, 16, 16)
with torch.inference_mode():
    codes, x_prime, losses = program.module()(x)
    halves = torch.export.unflatten(program)
    assert torch.equal(halves.encoder(x), codes)
    assert torch.equal(halves.decoder(codes), x_prime)
print(about["format"], about["image_size"], about["normalisation"])
print(*codes.flatten().tolist())
print(*losses.tolist(), "ekmfast" in sys.modules)
"""
    head, codes, losses = run_alone(code, program)
    assert head == "ekmfast-autoencoder 16 bytes / 255, or floats in [0, 1]"
    x = np.linspace(0, 1, 5 * 16 * 16, dtype=np.float32).reshape(5, 1, 16, 16)
    loaded = load(program)
    codes = np.array(codes.split(), float)
    np.testing.assert_allclose(codes, loaded.encode(x).ravel(), rtol=1e-4, atol=1e-5)
    *losses, package = losses.split()
    assert package == "False"
    np.testing.assert_allclose(np.array(losses, float), loaded.anomaly_loss(x), rtol=1e-4)


def test_a_loaded_program_is_code(program):
    # PyTorch would interpret it node by node, which takes longer than a small model computes.
    loaded = load(program)._module
    for part in (loaded.encoder, loaded.decoder):
        kinds = {type(module).__name__ for module in part.modules()}
        assert not any("Interpreter" in kind for kind in kinds), kinds
        assert isinstance(part, torch.fx.GraphModule)


def test_the_suffix_or_the_format_decides(model, tmp_path):
    scripted(export(model, tmp_path / "a.pt2", format="torchscript"))
    assert load(tmp_path / "a.pt2").latent_dim == LATENT
    assert load(export(model, tmp_path / "b.bin", format="pt2")).latent_dim == LATENT
    with pytest.raises(ValueError, match="format must be None, 'torchscript' or 'pt2', got 'onnx'"):
        export(model, tmp_path / "c", format="onnx")
    with pytest.raises(ValueError, match=r"path='.*c\.onnx': ekmfast\.export_onnx writes files"):
        export(model, tmp_path / "c.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt2", "b.bin"]


def test_a_foreign_or_damaged_program_is_refused(program, tmp_path):
    whole = program.read_bytes()
    path = tmp_path / "model.pt2"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a readable file of TorchScript or"):
        load(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(4096) + whole[middle + 4096 :])
    with pytest.raises(ValueError, match="is not a readable file of TorchScript or"):
        load(path)
    with torchscript.quiet():
        foreign = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(3, 2),))
        torch.export.save(foreign, path)
    with pytest.raises(ValueError, match="is not an autoencoder that"):
        load(path)


@pytest.mark.parametrize("changed", [{"trained_on": "abc"}, {"trained_on": 1}, [1]])
def test_a_program_with_bad_metadata_is_refused_by_name(program, tmp_path, changed):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(program) as whole, zipfile.ZipFile(path, "w") as crafted:
        for name in whole.namelist():
            content = whole.read(name)
            if name.endswith(METADATA):
                known = json.loads(content)
                content = json.dumps(known | changed if isinstance(changed, dict) else changed)
            crafted.writestr(name, content)
    with pytest.raises(ValueError, match=rf"path='{path}': is not a readable file"):
        load(path)


# --- what goes in and out ------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["ts", "pt2"])
def test_bytes_go_in_as_they_are(model, tmp_path, suffix):
    path = export(model, tmp_path / f"model.{suffix}")
    loaded = load(path)
    x = images(9)
    as_bytes = (255 * x).astype(np.uint8)
    exact = as_bytes / np.float32(255)
    np.testing.assert_array_equal(loaded.encode(as_bytes), loaded.encode(exact))
    if suffix == "ts":
        module = scripted(path)
        tensors = torch.from_numpy(as_bytes), torch.from_numpy(exact)
        for name in ("encode", "reconstruct", "anomaly_loss"):
            a, b = (getattr(module, name)(tensor) for tensor in tensors)
            assert a.dtype == torch.float32
            assert torch.equal(a, b)


@pytest.mark.parametrize("suffix", ["ts", "pt2"])
def test_half_precision_is_near(model, tmp_path, suffix):
    path = export(model, tmp_path / f"model.{suffix}")
    exact, coarse = load(path), load(path, precision="bfloat16")
    x = images(40)
    for name in ("encode", "reconstruct", "anomaly_loss"):
        a, b = getattr(exact, name)(x), getattr(coarse, name)(x)
        assert b.dtype == np.float32
        assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()
    with pytest.raises(ValueError, match=r"precision must be .*, got 'float16'"):
        load(path, precision="float16")


@pytest.mark.parametrize("exported", [False, True])
def test_codes_are_written_where_they_are_wanted(model, tmp_path, exported):
    coder = load(export(model, tmp_path / "model.ts")) if exported else model
    x = images(20)
    codes = encode(coder, x)
    assert (codes.dtype, codes.shape, codes.flags.c_contiguous) == (np.float32, (20, LATENT), True)
    out = np.lib.format.open_memmap(tmp_path / "codes.npy", "w+", np.float32, (20, LATENT))
    assert encode(coder, x, batch_size=6, out=out) is out
    out.flush()
    np.testing.assert_allclose(np.load(tmp_path / "codes.npy"), codes, rtol=1e-4, atol=1e-5)
    for wrong, error, message in (
        (np.empty((20, 3), np.float32), ValueError, r"out has shape \(20, 3\): must be"),
        (np.empty((20, LATENT)), TypeError, "out has dtype float64: must be float32"),
        ([], TypeError, r"out must be an array or a tensor, got \[\]"),
        (np.load(tmp_path / "codes.npy", mmap_mode="r"), ValueError, "out is read-only"),
    ):
        with pytest.raises(error, match=message):
            encode(coder, x, out=wrong)
    with pytest.raises(TypeError, match=r"model must be .*, got 'model\.ts'"):
        encode("model.ts", x)


def test_the_clusters_take_the_codes_without_a_copy(model):
    codes = encode(model, images(30))
    assert EKMeans(2)._check_data(codes, reset=True) is codes


def test_a_model_that_was_training_still_is(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = encode(model, images(8))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()
    np.testing.assert_array_equal(first, encode(model, images(8)))


# --- with the clusters ---------------------------------------------------------------------


def clusterings(codes):
    return [
        EKMeans(3, alpha="dvariance", random_state=0).fit(codes),
        EKMeans(3, alpha="dvariance", random_state=0).fit(codes.astype(np.float64)),
        EKMeans(2, alpha="dvariance", init=codes[[0, 0]]).fit(codes),
        MiniBatchEKMeans(3, alpha="dvariance", random_state=0).fit(codes),
        MaximumEntropyKMeans(3, alpha="dvariance", random_state=0).fit(codes),
    ]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("suffix", ["ts", "pt2"])
@pytest.mark.parametrize("which", range(5))
def test_the_pipeline_is_the_chain(model, tmp_path, which, suffix):
    x = images(90)
    clusters = clusterings(encode(model, x))[which]
    path = export_pipeline(model, clusters, tmp_path / f"pipeline.{suffix}")
    loaded = load(path)
    assert isinstance(loaded, ExportedPipeline)
    assert (loaded.n_clusters, loaded.alpha) == (clusters.n_clusters, clusters.alpha_)
    np.testing.assert_array_equal(loaded.cluster_centers, clusters.cluster_centers_)
    codes = loaded.encode(x)
    np.testing.assert_allclose(codes, encode(model, x), rtol=1e-4, atol=1e-5)
    labels = loaded.predict(x)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(
        labels, clusters.predict(codes.astype(clusters.cluster_centers_.dtype))
    )
    wanted = clusters.membership(codes.astype(clusters.cluster_centers_.dtype))
    np.testing.assert_allclose(loaded.membership(x), wanted, atol=1e-4)
    with torchscript.quiet():
        module = scripted(path) if suffix == "ts" else torch.export.load(path).module()
    with torch.no_grad():
        together = module(torch.from_numpy(x))
    assert sorted(together) == ["anomaly_loss", "codes", "labels", "memberships"]
    np.testing.assert_array_equal(together["labels"].numpy(), labels)
    np.testing.assert_allclose(together["memberships"].numpy(), wanted, atol=1e-4)
    np.testing.assert_allclose(together["codes"].numpy(), codes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        together["anomaly_loss"].numpy(), loaded.anomaly_loss(x), rtol=1e-4, atol=1e-6
    )


def test_a_pipeline_runs_with_pytorch_alone(model, tmp_path):
    x = images(50)
    clusters = EKMeans(3, alpha="dvariance", random_state=0).fit(encode(model, x))
    path = export_pipeline(model, clusters, tmp_path / "pipeline.ts")
    np.save(tmp_path / "x.npy", (255 * x).astype(np.uint8))
    code = """
import sys, numpy, torch
module = torch.jit.load(sys.argv[1])
out = module(torch.from_numpy(numpy.load(sys.argv[2])))
print(*out["labels"].tolist())
print(out["memberships"].sum(1).sub(1).abs().max().item() < 1e-6, module.n_clusters)
print(any(name.startswith(("ekmfast", "sklearn")) for name in sys.modules))
"""
    labels, rest, packages = run_alone(code, path, tmp_path / "x.npy")
    assert rest == "True 3"
    assert packages == "False"
    expected = load(path).predict((255 * x).astype(np.uint8))
    np.testing.assert_array_equal(np.array(labels.split(), int), expected)


def test_a_program_of_a_pipeline_runs_with_pytorch_alone(model, tmp_path):
    """Of batches of any size; its metadata are in the file."""
    x = images(50)
    clusters = EKMeans(3, alpha="dvariance", random_state=0).fit(encode(model, x))
    path = export_pipeline(model, clusters, tmp_path / "pipeline.pt2")
    np.save(tmp_path / "x.npy", x)
    code = """
import json, sys, numpy, torch
extra = {"ekmfast.json": ""}
module = torch.export.load(sys.argv[1], extra_files=extra).module()
about = json.loads(extra["ekmfast.json"])
x = torch.from_numpy(numpy.load(sys.argv[2]))
with torch.inference_mode():
    out = module(x)
    for n in (0, 1, 3):
        assert torch.equal(module(x[:n])["labels"], out["labels"][:n])
print(*out["labels"].tolist())
print(out["memberships"].sum(1).sub(1).abs().max().item() < 1e-6, about["n_clusters"])
print(about["alpha"], any(name.startswith(("ekmfast", "sklearn")) for name in sys.modules))
"""
    labels, rest, last = run_alone(code, path, tmp_path / "x.npy")
    assert rest == "True 3"
    assert last == f"{clusters.alpha_} False"
    np.testing.assert_array_equal(np.array(labels.split(), int), load(path).predict(x))


def test_a_program_of_a_pipeline_is_pickled_and_takes_bytes(model, tmp_path):
    x = images(20)
    clusters = EKMeans(2, random_state=0).fit(encode(model, x))
    loaded = load(export_pipeline(model, clusters, tmp_path / "pipeline.pt2"))
    again = pickle.loads(pickle.dumps(loaded))
    assert isinstance(again, ExportedPipeline)
    np.testing.assert_array_equal(again.predict(x), loaded.predict(x))
    np.testing.assert_array_equal(again.cluster_centers, clusters.cluster_centers_)
    as_bytes = (255 * x).astype(np.uint8)
    np.testing.assert_array_equal(
        loaded.membership(as_bytes), loaded.membership(as_bytes / np.float32(255))
    )
    scripted(export_pipeline(model, clusters, tmp_path / "b.pt2", format="torchscript"))
    with pytest.raises(ValueError, match="format must be None, 'torchscript' or 'pt2', got 'onnx'"):
        export_pipeline(model, clusters, tmp_path / "c", format="onnx")


@pytest.mark.parametrize("suffix", ["ts", "pt2"])
def test_a_pipeline_by_the_cosine(model, suffix, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    x = images(60)
    codes = encode(model, x)
    clusters = EKMeans(2, metric="cosine", random_state=0).fit(codes)
    loaded = load(export_pipeline(model, clusters, tmp_path / f"pipeline.{suffix}"))
    export_onnx(loaded, tmp_path / "pipeline.onnx")
    session = runtime.InferenceSession(tmp_path / "pipeline.onnx")
    labels, memberships = session.run(["labels", "memberships"], {"images": x})
    wanted = clusters.membership(codes)
    assert np.abs(np.linalg.norm(codes, axis=1) - 1).min() > 0.05
    for found in (loaded.membership(x), memberships):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    for given in (loaded.predict(x), labels):
        np.testing.assert_array_equal(given, clusters.labels_)


@pytest.mark.parametrize("suffix", ["ts", "pt2"])
def test_a_pipeline_cannot_label_codes_of_zeros(model, suffix, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    x = images(60)
    codes = encode(model, x)
    clusters = EKMeans(2, metric="cosine", zero_rows="label", alpha="dvariance", random_state=0)
    clusters.fit(codes)
    path = tmp_path / f"pipeline.{suffix}"
    with pytest.raises(ValueError, match=r"zero_rows='label', .*use ekmfast\.export_onnx"):
        export_pipeline(model, clusters, path)
    assert not path.exists()
    # Both ways out that the error names.
    export_onnx(clusters, tmp_path / "clusters.onnx")
    session = runtime.InferenceSession(tmp_path / "clusters.onnx")
    (labels,) = session.run(["label"], {"X": np.concatenate([codes, 0 * codes[:1]])})
    np.testing.assert_array_equal(labels, [*clusters.labels_, -1])
    loaded = load(export_pipeline(model, clusters.set_params(zero_rows="error"), path))
    np.testing.assert_array_equal(loaded.predict(x), clusters.labels_)
    np.testing.assert_allclose(loaded.membership(x), clusters.membership(codes), atol=1e-4)


def test_what_is_no_pipeline_is_refused(model, tmp_path):
    codes = encode(model, images(30))
    path = tmp_path / "pipeline.ts"
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        export_pipeline(model, EKMeans(2), path)
    with pytest.raises(TypeError, match=r"clustering must be an EKMeans, .* got HardKMeans"):
        export_pipeline(model, HardKMeans(2, random_state=0).fit(codes), path)
    with pytest.raises(TypeError, match=r"clustering must be .*, got 'clusters'"):
        export_pipeline(model, "clusters", path)
    with pytest.raises(TypeError, match="autoencoder must be a ConvAutoencoder, got 'model'"):
        export_pipeline("model", EKMeans(2), path)
    clusters = EKMeans(2, alpha=1e6, random_state=0)
    with pytest.raises(ValueError, match="was fitted to 2 features: must be fitted to the codes"):
        export_pipeline(model, clusters.fit(codes[:, :2]), path)
    clusters.fit(codes)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        export_pipeline(model, clusters, tmp_path / "no" / "pipeline.ts")
    assert list(tmp_path.iterdir()) == []


# --- memory --------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        coder = ConvAutoencoder(64, 3, 4, width=0.0625)
    path = export(coder, tmp_path / "model.ts")
    code = """
import sys
from pathlib import Path

import numpy as np
import torch
from ekmfast.autoencoder import load


class Many:
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitems__(self, rows):
        return np.full((len(rows), 3, 64, 64), 0.5, np.float32)

    def __getitem__(self, i):
        return self.__getitems__([i])[0]


def peak():
    Path("/proc/self/clear_refs").write_text("5")
    yield
    status = Path("/proc/self/status").read_text()
    yield int(status.split("VmHWM:")[1].split()[0]) // 1024


torch.set_num_threads(1)
model = load(sys.argv[1])
peaks = []
for n in (1_000, 1_000, 6_000):  # the first warms up
    watch = peak()
    next(watch)
    assert model.anomaly_loss(Many(n), batch_size=64).shape == (n,)
    peaks.append(next(watch))
print(*peaks)
"""
    (peaks,) = run_alone(code, path)
    _, few, many = map(int, peaks.split())
    assert many < few + 40, peaks  # MiB; 6,000 images are 280


# --- Python 3.14, where PyTorch does not support TorchScript ---


@pytest.fixture
def python_3_14(monkeypatch):
    monkeypatch.setattr(torchscript, "is_supported", lambda: False)


def test_without_torchscript_the_error_offers_pt2(model, tmp_path, python_3_14):
    with pytest.raises(NotImplementedError, match=r"from Python 3\.14 on: .*path='model\.pt2'"):
        export(model, tmp_path / "model.ts")
    clusters = EKMeans(2, random_state=0).fit(encode(model, images(20)))
    with pytest.raises(NotImplementedError, match=r"on: .*path='pipeline\.pt2'"):
        export_pipeline(model, clusters, tmp_path / "pipeline.ts")
    assert list(tmp_path.iterdir()) == []
    loaded = load(export_pipeline(model, clusters, tmp_path / "pipeline.pt2"))
    np.testing.assert_array_equal(loaded.predict(images(20)), clusters.labels_)


def test_without_torchscript_a_file_of_it_is_no_damaged_file(model, tmp_path, monkeypatch):
    path = export(model, tmp_path / "model.ts")
    monkeypatch.setattr(torchscript, "is_supported", lambda: False)
    with pytest.raises(NotImplementedError, match=r"load .*model\.ts with an older Python, or"):
        load(path)


def test_the_commands_tell_it_before_they_train(tmp_path, python_3_14, capsys):
    arguments = ["train", str(tmp_path), "-o", str(tmp_path / "m.ts"), "--clusters", "2"]
    assert cli.main(arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith("ekmfast: error: PyTorch does not support TorchScript from Python 3.14")
    assert told.endswith("m.pt2\n")
