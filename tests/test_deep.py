"""Deep clustering: the training loop, the results, and bad arguments."""

import copy
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score

from ekmfast import EKMeans, HardKMeans
from ekmfast.autoencoder import ConvAutoencoder, DeepEKM, encode, export, export_pipeline, load
from ekmfast.autoencoder._contrast import nt_xent
from ekmfast.autoencoder._deep_training import calibrated_codes
from ekmfast.autoencoder.augmentation import Augmentation
from ekmfast.autoencoder.images import as_images
from ekmfast.datasets import open_image_folder

SIZES = (60, 15, 15)


def bars(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bar at the top, at the left, or both; most have a bar at the top."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.3, (sum(SIZES), 16, 16)).astype(np.float32)
    classes = np.repeat(np.arange(3), SIZES)
    images[classes != 1, 2:6] += 0.7
    images[classes != 0, :, 2:6] += 0.7
    order = rng.permutation(len(images))
    return images.clip(0, 1)[order], classes[order]


def numpy_global_state() -> np.ndarray:
    return np.random.get_state()[1].copy()  # noqa: NPY002 - the state that must be left alone


def small(**changes) -> DeepEKM:
    parameters = {
        "n_clusters": 3,
        "image_size": 16,
        "latent_dim": 8,
        "width": 0.0625,
        "warmup_epochs": 12,
        "epochs": 4,
        "batch_size": 30,
        "random_state": 0,
    }
    return DeepEKM(**(parameters | changes))


@pytest.fixture(scope="module")
def fitted() -> DeepEKM:
    return small().fit(bars()[0])


@pytest.mark.parametrize("clustering", ["equilibrium", "hard"])
def test_it_finds_imbalanced_classes(clustering):
    images, classes = bars()
    deep = small(clustering=clustering).fit(images)
    assert adjusted_rand_score(classes, deep.labels_) > 0.95
    fresh, classes = bars(seed=1)
    assert adjusted_rand_score(classes, deep.predict(fresh)) > 0.95
    assert deep.n_clusters_effective_ == 3
    assert isinstance(deep.clusterer_, HardKMeans if clustering == "hard" else EKMeans)
    assert math.isinf(deep.alpha_) == (clustering == "hard")


def test_what_it_returns_belongs_together(fitted):
    images, _ = bars()
    codes = fitted.encode(images)
    assert codes.dtype == np.float32
    assert codes.shape == (90, 8)
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(codes.var(axis=0), 1, atol=1e-3)
    assert (fitted.predict(images) == fitted.labels_).all()
    distances = np.linalg.norm(codes[:, None] - fitted.cluster_centers_[None], axis=2)
    np.testing.assert_allclose(fitted.transform(images), distances, rtol=1e-3)
    np.testing.assert_allclose(fitted.membership(images).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(fitted.score(images), -fitted.objective_, rtol=1e-3)
    assert fitted.get_feature_names_out().tolist() == ["deepekm0", "deepekm1", "deepekm2"]
    assert not fitted.autoencoder_.training


def test_the_history_tells_of_every_epoch(fitted):
    history = fitted.history_
    assert len(history.reconstruction_loss) == len(history.contrastive_loss) == 16
    assert history.reconstruction_loss[-1] < history.reconstruction_loss[0]
    assert history.contrastive_loss[-1] < history.contrastive_loss[0]
    assert np.isnan(history.clustering_loss[:12]).all()
    assert np.isfinite(history.clustering_loss[12:]).all()
    assert history.n_clusters == [0] * 12 + [3] * 4
    assert np.isnan(history.labels_changed[:13]).all()
    assert all(0 <= share <= 1 for share in history.labels_changed[13:])


def test_the_loss_draws_the_codes_to_the_centroids(fitted):
    images, _ = bars()
    spread = {}
    for weight in (0.0, 3.0):
        deep = small(
            model=fitted.autoencoder_, warmup_epochs=0, epochs=10, clustering_weight=weight
        ).fit(images)
        spread[weight] = deep.objective_ / len(images)
    assert spread[3.0] < 0.8 * spread[0.0]


def test_parts_of_the_loss_can_be_left_out():
    images, _ = bars()
    deep = small(reconstruction_weight=0, contrastive_weight=0, warmup_epochs=0, epochs=2)
    history = deep.fit(images).history_
    assert np.isnan(history.reconstruction_loss).all()
    assert np.isnan(history.contrastive_loss).all()
    assert np.isfinite(history.clustering_loss).all()


@pytest.mark.parametrize("alpha", ["auto", "dvariance", 0.75])
def test_alpha_follows_the_codes(alpha):
    images, _ = bars()
    deep = small(alpha=alpha, scale=4.0, epochs=2).fit(images)
    dispersion = 0.5 * deep.encode(images).var(axis=0).sum()
    if alpha == "dvariance":
        assert deep.alpha_ * dispersion == pytest.approx(4.0, rel=1e-3)
    elif alpha == 0.75:
        assert deep.alpha_ == 0.75
    else:
        # The rule's candidates are sqrt(2) apart.
        steps = 2 * np.log2(deep.alpha_ * dispersion)
        assert steps == pytest.approx(round(float(steps)), abs=0.01)
        assert deep.clusterer_.alpha == "auto"


def test_the_same_seed_gives_the_same_bits_and_leaves_global_states_alone(fitted):
    images, _ = bars()
    torch_state, numpy_state = torch.get_rng_state(), numpy_global_state()
    again = small().fit(images)
    assert (again.cluster_centers_ == fitted.cluster_centers_).all()
    assert (again.labels_ == fitted.labels_).all()
    assert (torch.get_rng_state() == torch_state).all()
    assert (numpy_global_state() == numpy_state).all()
    other = small(random_state=1).fit(images)
    assert (other.cluster_centers_ != fitted.cluster_centers_).any()


def test_a_given_model_is_copied_and_shared_by_clones(fitted):
    images, _ = bars()
    model = fitted.autoencoder_
    before = copy.deepcopy(model.state_dict())
    deep = small(model=model, warmup_epochs=0, epochs=1)
    assert clone(deep).model is model
    deep.fit(images)
    assert all((before[name] == value).all() for name, value in model.state_dict().items())
    assert deep.autoencoder_ is not model


def test_without_epochs_the_codes_of_the_model_are_clustered(fitted):
    images, _ = bars()
    deep = small(model=fitted.autoencoder_, warmup_epochs=0, epochs=0).fit(images)
    # Restarts with the same clusters differ only by rounding, so the numbers of the clusters may
    # differ.
    assert adjusted_rand_score(fitted.labels_, deep.labels_) == 1
    assert deep.history_.reconstruction_loss == []
    # The same as EKMeans with default parameters.
    usual = EKMeans(deep.n_clusters, random_state=0).fit(deep.encode(images))
    assert deep.clusterer_.alpha == usual.alpha
    assert deep.alpha_ == pytest.approx(usual.alpha_, rel=1e-3)


def test_images_of_other_kinds(fitted, tmp_path):
    images, _ = bars()
    as_bytes = (images * 255).round().astype(np.uint8)
    labels = fitted.predict(as_bytes)
    assert (labels == fitted.labels_).mean() > 0.95
    larger = images.repeat(2, axis=1).repeat(2, axis=2)
    assert (fitted.predict(larger) == fitted.labels_).mean() > 0.95
    assert (fitted.predict(torch.from_numpy(images)) == fitted.labels_).all()
    for i, image in enumerate(as_bytes):
        Image.fromarray(image).save(tmp_path / f"{i:03}.png")
    folder = open_image_folder(tmp_path, image_size=16, channels=1)
    assert (fitted.predict(folder) == labels).all()
    deep = small(warmup_epochs=1, epochs=1)
    assert deep.fit(folder).labels_.shape == (90,)
    found = deep.fit(images).labels_
    assert (deep.fit(torch.from_numpy(images)).labels_ == found).all()


def test_images_that_are_all_equal_are_one_cluster():
    images = np.repeat(bars()[0][:1], 20, axis=0)
    with pytest.warns(ConvergenceWarning, match="only 1 of 3 centroids are distinct"):
        deep = small(warmup_epochs=1, epochs=2, augment=lambda x: x).fit(images)
    assert deep.n_clusters_effective_ == 1
    assert (deep.labels_ == 0).all()


@pytest.mark.parametrize("method", ["predict", "transform", "membership", "score", "encode"])
def test_it_must_be_fitted(method):
    with pytest.raises(NotFittedError):
        getattr(small(), method)(bars()[0])


def test_one_file_holds_encoder_and_clusters(fitted, tmp_path):
    images, _ = bars()
    path = export_pipeline(fitted.autoencoder_, fitted.clusterer_, tmp_path / "pipeline.ts")
    pipeline = load(path)
    assert (pipeline.predict(images) == fitted.labels_).all()
    np.testing.assert_allclose(pipeline.encode(images), fitted.encode(images), atol=2e-5)


@pytest.mark.parametrize("suffix", [".ts", ".pt2"])
def test_the_normalisation_of_codes_is_exported(fitted, tmp_path, suffix):
    images, _ = bars()
    model = fitted.autoencoder_
    assert any(isinstance(layer, torch.nn.BatchNorm1d) for layer in model.encoder)
    loaded = load(export(model, tmp_path / f"model{suffix}"))
    np.testing.assert_allclose(loaded.encode(images), encode(model, images), atol=2e-5)


def test_calibration_gives_codes_mean_0_and_variance_1():
    images, _ = bars()
    torch.manual_seed(0)
    model = ConvAutoencoder(16, 1, 4, width=0.0625, normalize_codes=True)
    with torch.no_grad():
        model.encoder.linear.weight *= 100  # variances well above the normalisation's epsilon
    checked = as_images(images, 1, 16)
    assert abs(encode(model.eval(), images).var(axis=0) - 1).max() > 0.1
    calibrated = calibrated_codes(model, checked)
    np.testing.assert_allclose(calibrated.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(calibrated.var(axis=0), 1, rtol=1e-3)
    # After the correction, the model computes the same codes.
    np.testing.assert_allclose(encode(model, images), calibrated, atol=1e-4)


def test_nt_xent_is_its_formula():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3))
    u = np.concatenate([a, b])
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    expected = []
    for i in range(10):
        s = {m: u[i] @ u[m] / 0.5 for m in range(10) if m != i}
        expected.append(-s[(i + 5) % 10] + math.log(sum(math.exp(v) for v in s.values())))
    got = nt_xent(torch.from_numpy(a), torch.from_numpy(b), 0.5)
    assert float(got) == pytest.approx(np.mean(expected), rel=1e-12)


def test_an_augmentation_of_ones_own_is_used():
    images, _ = bars()
    seen = []

    def shifted(x):
        seen.append(len(x))
        return x.roll(1, dims=3)

    small(augment=shifted, warmup_epochs=1, epochs=1).fit(images)
    assert sum(seen) == 2 * 2 * 90  # epochs, views
    with pytest.raises(ValueError, match="augment returned"):
        small(augment=lambda x: x[:, :, :8]).fit(images)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"n_clusters": 0}, ValueError, "n_clusters must be an integer >= 1, got 0"),
        ({"n_clusters": 91}, ValueError, "X has 90 images, at least 91 are needed"),
        (
            {"clustering": "soft"},
            ValueError,
            "clustering must be 'equilibrium' or 'hard', got 'soft'",
        ),
        ({"alpha": -1.0}, ValueError, "alpha must be 'auto', 'dvariance' or a finite number > 0"),
        ({"alpha": "best"}, ValueError, "alpha must be .* got 'best'"),
        ({"scale": 0.0}, ValueError, "scale must be"),
        ({"temperature": 0}, ValueError, "temperature must be"),
        ({"clustering_weight": -1}, ValueError, "clustering_weight must be"),
        ({"contrastive_weight": math.nan}, ValueError, "contrastive_weight must be"),
        ({"warmup_epochs": -1}, ValueError, "warmup_epochs must be"),
        ({"epochs": 1.5}, TypeError, "epochs must be an integer"),
        ({"batch_size": 1}, ValueError, "batch_size must be .* got 1"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be .* got 0"),
        ({"augment": False}, TypeError, "augment must be True or a callable, got False"),
        ({"model": "resnet"}, TypeError, "model must be None or a ConvAutoencoder, got 'resnet'"),
        ({"image_size": 20}, ValueError, "image_size must be a multiple of 16 .*, got 20"),
        ({"device": "gpu9"}, ValueError, "device must be .*, got 'gpu9'"),
        (
            {"reconstruction_weight": 0, "contrastive_weight": 0},
            ValueError,
            "one must be above 0",
        ),
    ],
)
def test_bad_parameters_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        small(**changes).fit(bars()[0])


def test_a_model_without_normalisation_is_refused():
    model = ConvAutoencoder(16, 1, 4, width=0.0625)
    with pytest.raises(ValueError, match="normalize_codes=False: must be made with True"):
        small(model=model).fit(bars()[0])
    with pytest.raises(TypeError, match="normalize_codes must be True or False, got 1"):
        ConvAutoencoder(16, 1, 4, normalize_codes=1)


def test_bad_images_are_refused():
    images, _ = bars()
    with pytest.raises(ValueError, match="X has shape"):
        small().fit(images[0])
    with pytest.raises(ValueError, match="X contains NaN"):
        small().fit(np.where(images > 0.9, np.nan, images))
    with pytest.raises(ValueError, match="X has 0 images"):
        small().fit(images[:0])


def test_a_loss_that_overflows_is_told():
    with pytest.raises(FloatingPointError, match="lower learning_rate=1e\\+30"):
        small(learning_rate=1e30).fit(bars()[0])


def test_the_default_views_are_the_augmentation(monkeypatch):
    calls = []
    forward = Augmentation.forward
    monkeypatch.setattr(
        Augmentation, "forward", lambda self, x: (calls.append(len(x)), forward(self, x))[1]
    )
    small(warmup_epochs=1, epochs=0).fit(bars()[0])
    assert sum(calls) == 2 * 90
