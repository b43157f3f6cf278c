"""The layers, the training and the exported files of the autoencoder."""

import copy
import math
import os
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import torch
from torch import nn

import ekmfast.autoencoder
from ekmfast.autoencoder import (
    ConvAutoencoder,
    ExportedAutoencoder,
    History,
    export,
    finetune,
    load,
    pretrain,
    torchscript,
)
from ekmfast.autoencoder.augmentation import Augmentation
from ekmfast.autoencoder.images import as_images
from ekmfast.autoencoder.seen import unseen
from ekmfast.autoencoder.training import _split

SIZE, LATENT = 16, 8


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(seed=0, **parameters):
    given = {
        "image_size": SIZE,
        "in_channels": 1,
        "latent_dim": LATENT,
        "n_classes": 3,
        "width": 0.0625,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConvAutoencoder(**{**given, **parameters})


def bars(n=60, seed=0):
    """Three easy classes: a bright horizontal bar, a vertical bar, or no bar, on noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.random((n, 1, SIZE, SIZE), np.float32) * np.float32(0.2)
    for image, label in zip(images[:, 0], labels, strict=True):
        at = rng.integers(2, SIZE - 5)
        if label == 0:
            image[at : at + 3] += 0.7
        elif label == 1:
            image[:, at : at + 3] += 0.7
    return images, labels


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = tiny()
    images, _ = bars()
    pretrain(model, images, epochs=1, random_state=0, verbose=0)  # so that BatchNorm has averages
    path = export(model, tmp_path_factory.mktemp("export") / "model.pt")
    return model, path, load(path)


# --- model ---------------------------------------------------------------------------------


def test_layers_and_shapes_at_the_defaults():
    with torch.device("meta"):
        model = ConvAutoencoder()
    down = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    up = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]
    assert [type(x) for x in model.encoder] == down * 4 + [nn.Flatten, nn.Linear]
    assert [type(x) for x in model.decoder] == (
        [nn.Linear, nn.Unflatten, *up * 3, nn.ConvTranspose2d, nn.Sigmoid]
    )
    hidden = [nn.Linear, nn.ReLU, nn.Dropout]
    assert [type(x) for x in model.predictor] == hidden * 2 + [nn.Linear]
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
            assert layer.groups == 1
        if isinstance(layer, nn.Dropout):
            assert layer.p == 0.3

    def shapes(part):
        # weight and bias of every layer that has any, batch normalisations included
        return [tuple(p.shape) for p in part.parameters()]

    assert shapes(model.encoder) == [
        *((128, 3, 4, 4), (128,), (128,), (128,)),
        *((128, 128, 4, 4), (128,), (128,), (128,)),
        *((256, 128, 4, 4), (256,), (256,), (256,)),
        *((512, 256, 4, 4), (512,), (512,), (512,)),
        *((1024, 512 * 4 * 4), (1024,)),
    ]
    assert shapes(model.decoder) == [
        *((512 * 4 * 4, 1024), (512 * 4 * 4,)),
        *((512, 256, 4, 4), (256,), (256,), (256,)),
        *((256, 128, 4, 4), (128,), (128,), (128,)),
        *((128, 64, 4, 4), (64,), (64,), (64,)),
        *((64, 3, 4, 4), (3,)),
    ]
    assert shapes(model.predictor) == [
        *((1024, 1024), (1024,)),
        *((256, 1024), (256,)),
        *((10, 256), (10,)),
    ]


def test_forward_gives_reconstruction_logits_and_code():
    model = tiny().eval()
    x = torch.rand(4, 1, SIZE, SIZE)
    x_prime, y, z = model(x)
    assert (x_prime.shape, y.shape, z.shape) == (x.shape, (4, 3), (4, LATENT))
    assert x_prime.min() >= 0
    assert x_prime.max() <= 1
    torch.testing.assert_close(z, model.encode(x))
    torch.testing.assert_close(x_prime, model.decode(z))
    torch.testing.assert_close(y, model.predictor(z))


@pytest.mark.parametrize(
    "parameters",
    [
        {"image_size": 48, "in_channels": 3},
        {"image_size": 32, "in_channels": 2, "latent_dim": 5, "n_classes": 2, "width": 0.1},
        {"width": 1e-3},
    ],
)
def test_other_sizes(parameters):
    model = tiny(**parameters).eval()
    x = torch.rand(2, model.in_channels, model.image_size, model.image_size)
    x_prime, y, z = model(x)
    assert (x_prime.shape, y.shape, z.shape) == (
        (x.shape),
        (2, model.n_classes),
        (2, model.latent_dim),
    )


def test_width_scales_channels_down_to_a_minimum():
    half, least = tiny(width=0.5), tiny(width=1e-3)
    assert [x.out_channels for x in half.encoder if hasattr(x, "stride")] == [64, 64, 128, 256]
    assert half.predictor[3].out_features == 128
    assert [x.out_channels for x in least.encoder if hasattr(x, "stride")] == [8] * 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 40),
        ("image_size", 0),
        ("image_size", 32.0),
        ("in_channels", 0),
        ("in_channels", True),
        ("latent_dim", -1),
        ("n_classes", "ten"),
        ("width", 0),
        ("width", float("nan")),
        ("width", "wide"),
        ("dropout", 1.0),
        ("dropout", -0.1),
    ],
)
def test_constructor_names_the_bad_parameter(name, value):
    error = TypeError if isinstance(value, bool | str) or value == 32.0 else ValueError
    with pytest.raises(error, match=rf"^{name} must be .*, got {value!r}$"):
        tiny(**{name: value})


def test_methods_check_shapes():
    model = tiny()
    with pytest.raises(ValueError, match=r"x has shape \[2, 1, 8, 16\]: must be \(N, 1, 16, 16\)"):
        model.encode(torch.zeros(2, 1, 8, 16))
    with pytest.raises(ValueError, match=r"z has shape \[2, 3\]: must be \(N, 8\)"):
        model.decode(torch.zeros(2, 3))


def test_the_model_scripts_and_keeps_its_methods():
    model = tiny().eval()
    scripted = torchscript.script(model)
    x = torch.rand(3, 1, SIZE, SIZE)
    for ours, theirs in zip(model(x), scripted(x), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(scripted.decode(scripted.encode(x)), model(x)[0])


# --- training ------------------------------------------------------------------------------


def test_pretraining_lowers_the_loss_and_keeps_the_best_epoch():
    model = tiny()
    images, _ = bars(90)
    history = pretrain(
        model, images[:60], validation_data=images[60:], epochs=6, random_state=0, verbose=0
    )
    assert isinstance(history, History)
    assert len(history.train_loss) == len(history.val_loss) == 6
    assert history.train_loss[-1] < history.train_loss[0]
    assert history.val_accuracy == []
    assert history.best_accuracy is None
    assert history.best_loss == min(history.val_loss) == history.val_loss[history.best_epoch]
    x = torch.from_numpy(images[60:])
    kept = nn.functional.mse_loss(model(x)[0], x).item()
    assert kept == pytest.approx(history.best_loss, rel=1e-4)


def test_the_best_epoch_is_kept_when_later_ones_are_worse():
    model = tiny()
    images, labels = bars(90)
    held = images[60:], labels[60:]
    finetune(model, images[:60], labels[:60], epochs=5, random_state=0, verbose=0)
    calls = 0

    def spoil(x):
        nonlocal calls
        calls += 1
        return x if calls <= 3 else torch.zeros_like(x)  # useless after the first epoch

    history = finetune(
        model,
        images[:60],
        labels[:60],
        validation_data=held,
        augment=spoil,
        epochs=8,
        batch_size=20,
        learning_rate=0.03,
        random_state=0,
        verbose=0,
    )
    assert history.best_epoch < 7
    keys = list(zip(np.negative(history.val_accuracy), history.val_loss, strict=True))
    assert history.best_epoch == keys.index(min(keys))
    x_prime, y, _ = model(torch.from_numpy(held[0]))
    target = torch.from_numpy(held[1])
    assert (y.argmax(1) == target).double().mean() == pytest.approx(history.best_accuracy)
    loss = nn.functional.cross_entropy(y, target)
    loss += nn.functional.mse_loss(x_prime, torch.from_numpy(held[0]))
    assert loss.item() == pytest.approx(history.best_loss, rel=1e-4)
    assert history.best_loss != history.val_loss[-1]


@pytest.mark.parametrize("augment", [None, True])
def test_finetuning_learns_the_classes(augment):
    model = tiny(width=0.125)
    images, labels = bars(300)
    history = finetune(
        model,
        images,
        labels,
        augment=augment,
        epochs=12,
        batch_size=32,
        random_state=0,
        verbose=0,
    )
    assert history.best_accuracy == max(history.val_accuracy)
    assert history.best_accuracy > 0.9
    assert history.val_loss[history.best_epoch] == history.best_loss
    test_images, test_labels = bars(90, seed=1)
    predicted = model(torch.from_numpy(test_images))[1].argmax(1).numpy()
    assert (predicted == test_labels).mean() > 0.9


def run(kind, seed, data):
    images, labels = data
    model = tiny()
    if kind == "pretrain":
        history = pretrain(model, images, epochs=2, random_state=seed, verbose=0)
    else:
        history = finetune(
            model,
            images,
            labels,
            augment=kind == "augmented",
            epochs=2,
            random_state=seed,
            verbose=0,
        )
    return history, weights(model)


@pytest.mark.parametrize("kind", ["pretrain", "finetune", "augmented"])
def test_a_seed_gives_the_same_run_and_leaves_the_global_states_alone(kind):
    data = bars()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    history, first = run(kind, 7, data)
    again, second = run(kind, 7, data)
    assert history == again
    assert same_weights(first, second)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    assert not same_weights(first, run(kind, 8, data)[1])


def test_the_global_state_does_not_change_a_seeded_run():
    data = bars()
    torch.manual_seed(1)
    first = run("augmented", 7, data)[1]
    torch.manual_seed(2)
    assert same_weights(first, run("augmented", 7, data)[1])


def test_trainings_in_two_threads_are_as_each_alone():
    images, labels = bars()

    def train(seed, model):
        finetune(model, images, labels, epochs=3, random_state=seed, verbose=0)
        return weights(model)

    # Made here, since making them seeds the global generators without the lock of the package.
    models = [tiny() for _ in range(4)]
    alone = [train(seed, model) for seed, model in zip((1, 2), models[:2], strict=True)]
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(train, (1, 2), models[2:]))
    for one, other in zip(alone, at_once, strict=True):
        assert same_weights(one, other)


def test_unseeded_runs_differ():
    data = bars()
    assert not same_weights(run("finetune", None, data)[1], run("finetune", None, data)[1])


def test_the_validation_split_is_stratified():
    seen = []

    def note(x):
        seen.append(len(x))
        return x

    images, _ = bars(60)
    labels = np.array([0] * 40 + [1] * 17 + [2] * 3)
    history = finetune(
        tiny(),
        images,
        labels,
        augment=note,
        epochs=1,
        batch_size=20,
        validation_split=0.1,
        random_state=0,
        verbose=0,
    )
    # 4 of 40, 2 of 17 and 1 of 3 images are held out, though a tenth of 3 rounds to 0.
    assert sum(seen) == 60 - 7
    assert max(seen) - min(seen) <= 1
    assert round(history.val_accuracy[0] * 7, 6).is_integer()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("n_classes", [None, 1, 3, 50])
def test_each_class_holds_out_its_first_rows_of_one_order(share, n_classes):
    n_rows = 120
    labels = (
        None if n_classes is None else np.random.default_rng(0).integers(n_classes, size=n_rows)
    )
    rows, held = _split(n_rows, labels, share, np.random.default_rng(1))
    order = np.random.default_rng(1).permutation(n_rows).tolist()
    expected = []
    for label in [0] if labels is None else set(labels.tolist()):
        of_class = [i for i in order if labels is None or labels[i] == label]
        n_held = min(max(round(share * len(of_class)), 1), len(of_class) - 1)
        expected += of_class[:n_held] if share else []
    assert held.tolist() == sorted(expected)
    assert rows.tolist() == sorted(set(range(n_rows)) - set(expected))


def test_a_class_with_one_image_is_trained_on():
    images, _ = bars(20)
    labels = np.array([0] * 10 + [1] * 9 + [2])
    history = finetune(tiny(), images, labels, epochs=1, random_state=0, verbose=0)
    assert len(history.val_loss) == 1


def test_without_validation_the_training_loss_decides():
    images, labels = bars()
    history = finetune(
        tiny(), images, labels, epochs=3, validation_split=0, random_state=0, verbose=0
    )
    assert history.val_loss == history.val_accuracy == []
    assert history.best_accuracy is None
    assert history.best_loss == min(history.train_loss)


def test_bytes_floats_tensors_and_missing_channel_train_alike():
    images, labels = bars()
    pixels = (images * 255).round().astype(np.uint8)
    floats = pixels.astype(np.float32) / np.float32(255)
    frozen = floats.copy()
    frozen.flags.writeable = False
    forms = [pixels, floats, torch.from_numpy(pixels), pixels[:, 0], floats[::-1][::-1], frozen]
    results = [run("finetune", 0, (form, labels))[1] for form in forms]
    for result in results[1:]:
        assert same_weights(results[0], result)


def test_pretraining_leaves_the_predictor_alone():
    model = tiny()
    before = copy.deepcopy(model.predictor.state_dict())
    pretrain(model, bars()[0], epochs=1, random_state=0, verbose=0)
    assert same_weights(before, model.predictor.state_dict())


def test_reconstruction_weight_zero_leaves_the_decoder_unpulled():
    images, labels = bars()
    losses = [
        finetune(
            tiny(),
            images,
            labels,
            reconstruction_weight=weight,
            epochs=1,
            random_state=0,
            verbose=0,
        ).train_loss[0]
        for weight in (0.0, 10.0)
    ]
    assert losses[1] > losses[0] + 0.1


@pytest.mark.parametrize("at", [1, 9])
def test_an_interrupt_leaves_the_best_weights(at):
    images, labels = bars()
    model = tiny()
    before = weights(model)
    calls = 0

    def interrupt(x):
        nonlocal calls
        calls += 1
        if calls > at:
            raise KeyboardInterrupt
        return x

    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        finetune(
            model,
            images,
            labels,
            augment=interrupt,
            epochs=50,
            batch_size=20,  # three steps an epoch
            random_state=0,
            verbose=0,
        )
    assert same_weights(before, weights(model)) == (at < 3)
    assert unseen(model, images).all() == (at < 3)
    assert not model.training
    assert torch.isfinite(model.encode(torch.from_numpy(images))).all()
    assert torch.equal(state, torch.get_rng_state())


def test_a_batch_of_a_dataset_asks_for_its_rows():
    class Items:
        """A million images; making a batch must not create an array with the index of each."""

        asked: ClassVar = []

        def __len__(self):
            return 1_000_000

        def __getitems__(self, rows):
            self.asked.append(rows)
            return np.zeros((len(rows), 1, 16, 16), np.float32)

        __getitem__ = None

    images, device = as_images(Items(), 1, 16), torch.device("cpu")
    tracemalloc.start()
    rows = [slice(2), slice(999_998, 1_000_009), slice(5, 5), np.array([7, 3])]
    assert [len(batch) for batch in images.batches(rows, device)] == [2, 2, 0, 2]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert Items.asked == [[0, 1], [999_998, 999_999], [], [7, 3]]
    assert most < 1_000_000


def test_divergence_is_told():
    images, _ = bars()
    model = tiny()
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        finetune(
            model,
            images,
            np.arange(len(images)) % 3,
            augment=lambda x: x * float("nan"),
            epochs=1,
            verbose=0,
        )
    assert all(torch.isfinite(value).all() for value in model.parameters())


def test_the_progress_bar(capfd):
    images, labels = bars()
    pretrain(tiny(), images, epochs=1, random_state=0, verbose=0)
    assert capfd.readouterr() == ("", "")
    finetune(tiny(), images, labels, epochs=1, random_state=0)
    shown = capfd.readouterr().err
    assert "finetune" in shown
    assert "val_accuracy" in shown


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be .*, got 0"),
        ({"batch_size": 1}, ValueError, "batch_size must be .*, got 1"),
        ({"learning_rate": 0.0}, ValueError, r"learning_rate must be .*, got 0\.0"),
        ({"weight_decay": -1.0}, ValueError, r"weight_decay must be .*, got -1\.0"),
        ({"schedule": "step"}, ValueError, "schedule must be 'one-cycle', .* got 'step'"),
        (
            {"precision": "int8"},
            ValueError,
            "precision must be 'float32' or 'bfloat16', got 'int8'",
        ),
        ({"patience": 0}, ValueError, "patience must be None or an integer >= 1, got 0"),
        ({"max_grad_norm": 0.0}, ValueError, r"max_grad_norm must be .*, got 0\.0"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be .*, got 0"),
        ({"validation_split": 1.0}, ValueError, r"validation_split must be .*, got 1\.0"),
        ({"random_state": -1}, ValueError, "random_state must be .*, got -1"),
        ({"reconstruction_weight": -1}, ValueError, "reconstruction_weight must be .*, got -1"),
        ({"augment": 3}, TypeError, "augment must be .*, got 3"),
        ({"augment": lambda x: x[:, :, ::2]}, ValueError, "augment returned"),
        ({"augment": lambda x: None}, ValueError, "augment returned NoneType"),
        (
            {"validation_data": 3},
            TypeError,
            r"validation_data must be None or a tuple \(images, labels\), got 3",
        ),
        ({"labels": np.arange(60)}, ValueError, "labels has values from 0 to 59: must be"),
        ({"labels": np.full(60, -1)}, ValueError, "labels has values from -1 to -1"),
        ({"labels": np.zeros(60)}, TypeError, "labels has dtype float64: must be integer"),
        ({"labels": [0, 1]}, ValueError, r"labels has shape \(2,\): must be \(60,\)"),
        ({"model": nn.Identity()}, TypeError, r"model must be a ConvAutoencoder, got Identity\(\)"),
        ({"images": np.zeros((1, 1, 16, 16)), "labels": [0]}, ValueError, "1 left to train"),
        ({"images": np.zeros((0, 1, 16, 16)), "labels": []}, TypeError, "labels has dtype"),
    ],
)
def test_finetune_refuses(parameters, error, message):
    images, labels = bars()
    given = {"model": tiny(), "images": images, "labels": labels, "epochs": 1, "verbose": 0}
    with pytest.raises(error, match=message):
        finetune(**{**given, **parameters})


def test_pretrain_names_bad_validation_data():
    images, _ = bars()
    with pytest.raises(ValueError, match="validation_data has shape"):
        pretrain(tiny(), images, validation_data=images[:, :, :8], epochs=1, verbose=0)


# --- augmentation --------------------------------------------------------------------------


class Items:
    """A dataset as PyTorch uses it: its items are tuples of an image and its label."""

    def __init__(self, images, labels):
        self.images, self.data_labels = images, labels
        self.read = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.read.append(i)
        return torch.from_numpy(self.images[i]), int(self.data_labels[i])


def test_a_dataset_trains_as_its_array_does():
    images, labels = bars()
    by_array, by_items, by_attribute = tiny(), tiny(), tiny()
    finetune(by_array, images, labels, epochs=2, random_state=0, verbose=0)
    items = Items(images, labels)
    finetune(by_items, items, epochs=2, random_state=0, verbose=0)
    assert same_weights(weights(by_array), weights(by_items))
    items.targets = labels
    finetune(by_attribute, items, epochs=2, random_state=0, verbose=0)
    assert same_weights(weights(by_array), weights(by_attribute))
    # The validation images are read with the others, each once an epoch.
    items.read.clear()
    pretrain(tiny(), items, epochs=2, random_state=0, verbose=0)
    assert sorted(items.read) == sorted(2 * list(range(len(images))))


def test_a_folder_trains_as_its_array_does(tmp_path):
    from PIL import Image

    from ekmfast.datasets import load_image_folder, open_image_folder

    images, labels = bars(24)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / f"class {label}"
        folder.mkdir(exist_ok=True)
        Image.fromarray((255 * image[0].clip(0, 1)).astype(np.uint8)).save(folder / f"{i}.png")
    data = load_image_folder(tmp_path, SIZE, channels=1)
    files = open_image_folder(tmp_path, SIZE, channels=1)
    by_array, by_files = tiny(), tiny()
    finetune(by_array, data.images, data.labels, epochs=1, random_state=0, verbose=0)
    finetune(by_files, files, epochs=1, random_state=0, verbose=0)
    assert same_weights(weights(by_array), weights(by_files))
    with pytest.raises(ValueError, match=r"images has images of shape \(1, 16, 16\)"):
        pretrain(tiny(image_size=32), files, epochs=1, verbose=0)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((1, 8, 8), np.float32), ValueError, r"images \(rows .*has shape"),
        (np.full((1, SIZE, SIZE), 2.0, np.float32), ValueError, "values from 2 to 2"),
        ("cat.png", TypeError, r"images\[\d+\] is a str: must be an array"),
    ],
)
def test_a_bad_item_of_a_dataset_is_told(image, error, message):
    class Bad:
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return image

    with pytest.raises(error, match=message):
        pretrain(tiny(), Bad(), epochs=1, verbose=0)
    with pytest.raises(ValueError, match=r"labels must be given, .* got None"):
        finetune(tiny(), Bad(), epochs=1, verbose=0)


def test_items_of_different_shapes_are_told():
    class Ragged:
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return np.zeros((1, SIZE, SIZE + i), np.float32)

    with pytest.raises(ValueError, match=r"images\[\d\] has shape .*, others have"):
        pretrain(tiny(), Ragged(), epochs=1, verbose=0)


def test_denoising_brings_the_image_back():
    images, _ = bars(120)

    def hide(x):
        return x * (torch.rand_like(x) > 0.7)

    hidden = hide(torch.from_numpy(images))
    errors = []
    for corruption in (None, hide):
        model = tiny(latent_dim=16, width=0.125)
        options = {"epochs": 15, "batch_size": 8, "random_state": 0, "verbose": 0}
        pretrain(model, images, corruption=corruption, **options)
        with torch.no_grad():
            restored = model.decode(model.encode(hidden)).numpy()
        errors.append(float(((restored - images) ** 2).mean()))
    assert errors[1] < 0.5 * errors[0]
    given = []

    def corruption(x):
        given.append(x.clone())
        return torch.zeros_like(x)

    pretrain(tiny(), images[:10], corruption=corruption, epochs=1, verbose=0)
    assert len(given) == 1
    assert given[0].max() > 0.5
    pretrain(tiny(), images[:10], corruption=0.1, epochs=1, verbose=0)
    said = "^corruption must be None, a finite number >= 0 or a callable, got"
    for error, wrong in (
        (ValueError, -1.0),
        (TypeError, "noise"),
        (TypeError, True),
        (ValueError, 10**400),
        (ValueError, math.nan),
    ):
        with pytest.raises(error, match=said):
            pretrain(tiny(), images, corruption=wrong, epochs=1, verbose=0)


def test_schedules():
    images, _ = bars(20)
    options = {"epochs": 4, "batch_size": 10, "learning_rate": 1e-3, "verbose": 0}
    rates = {
        name: pretrain(tiny(), images, schedule=name, **options).learning_rate
        for name in ("one-cycle", "cosine", "constant")
    }
    assert rates["constant"] == [1e-3] * 4
    assert rates["cosine"] == sorted(rates["cosine"], reverse=True)
    assert rates["cosine"][0] < 1e-3
    assert 0 < rates["cosine"][-1] < 1e-4
    assert max(rates["one-cycle"]) > rates["one-cycle"][-1]
    assert rates["one-cycle"][-1] < 1e-6


def test_patience_ends_a_training_that_gets_no_better():
    images, labels = bars()
    worse = 1 - images
    history = pretrain(
        tiny(), images, validation_data=worse, epochs=40, patience=2, random_state=0, verbose=0
    )
    assert history.stopped_early
    assert len(history.train_loss) == history.best_epoch + 1 + 2 < 40
    whole = finetune(tiny(), images, labels, epochs=2, patience=2, random_state=0, verbose=0)
    assert not whole.stopped_early


def test_a_long_gradient_is_shortened():
    images, _ = bars(20)
    moved = []
    for norm in (1e-12, None):
        model = tiny()
        before = weights(model)
        options = {"schedule": "constant", "weight_decay": 0.0, "random_state": 0, "verbose": 0}
        pretrain(model, images, max_grad_norm=norm, epochs=1, validation_split=0, **options)
        after = model.state_dict()
        moved.append(
            max(float((after[n] - before[n]).abs().max()) for n, _ in model.named_parameters())
        )
    # Adam's step does not depend on the gradient's length until that is below its epsilon.
    assert moved[0] < 0.1 * moved[1]


def test_bfloat16_trains_to_nearly_the_same():
    images, labels = bars()
    exact, coarse = tiny(), tiny()
    options = {"epochs": 3, "random_state": 0, "verbose": 0}
    a = finetune(exact, images, labels, **options)
    b = finetune(coarse, images, labels, precision="bfloat16", **options)
    assert b.train_loss == pytest.approx(a.train_loss, rel=0.02)
    assert b.train_loss != a.train_loss
    assert all(value.dtype == torch.float32 for value in coarse.parameters())


def test_augmentation_keeps_shape_dtype_and_range_and_changes_the_images():
    x = torch.rand(8, 3, 32, 32)
    kept = x.clone()
    view = Augmentation(horizontal_flip=0.5)(x)
    assert (view.shape, view.dtype) == (x.shape, x.dtype)
    assert view.min() >= 0
    assert view.max() <= 1
    assert (view != x).any(dim=(1, 2, 3)).all()
    assert torch.equal(x, kept)


def test_augmentation_follows_the_seed_and_does_not_mirror():
    x = torch.zeros(64, 1, 32, 32)
    x[:, :, 4:28, 4:10] = 1  # a bar on the left
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = Augmentation()(x)
        torch.manual_seed(0)
        assert torch.equal(first, Augmentation()(x))
    left, right = first[..., :16].sum(dim=(1, 2, 3)), first[..., 16:].sum(dim=(1, 2, 3))
    assert (left > right).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotation", -1),
        ("translation", 1.5),
        ("scale", (1.1, 0.9)),
        ("noise", -0.1),
        ("erasing", 2),
        ("horizontal_flip", -1),
    ],
)
def test_augmentation_names_the_bad_parameter(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        Augmentation(**{name: value})


# --- export and loading --------------------------------------------------------------------


def test_the_file_computes_what_the_model_does(exported):
    model, _, loaded = exported
    images, _ = bars()
    x = torch.from_numpy(images)
    with torch.no_grad():
        x_prime, _, z = model(x)
    np.testing.assert_allclose(loaded.encode(images), z.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loaded.reconstruct(images), x_prime.numpy(), rtol=1e-4, atol=1e-5)
    loss = (x_prime - x).square().mean(dim=(1, 2, 3)).numpy()
    np.testing.assert_allclose(loaded.anomaly_loss(images), loss, rtol=1e-4)


def test_results_are_contiguous_float32_arrays_for_arrays_and_tensors_for_tensors(exported):
    loaded = exported[2]
    images, _ = bars(7)
    for method, shape in [
        (loaded.encode, (7, LATENT)),
        (loaded.reconstruct, (7, 1, SIZE, SIZE)),
        (loaded.anomaly_loss, (7,)),
    ]:
        result = method(images, batch_size=3)
        assert isinstance(result, np.ndarray)
        assert (result.shape, result.dtype) == (shape, np.float32)
        assert result.flags.c_contiguous
        assert result.flags.writeable
        tensor = method(torch.from_numpy(images), batch_size=3)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), result)
        np.testing.assert_allclose(method(images, batch_size=100), result, rtol=1e-4, atol=1e-6)
        assert not tensor.is_inference()


def test_an_empty_batch(exported):
    loaded = exported[2]
    for empty in (np.zeros((0, 1, SIZE, SIZE), np.float32), torch.zeros(0, 1, SIZE, SIZE)):
        assert tuple(loaded.encode(empty).shape) == (0, LATENT)
        assert tuple(loaded.reconstruct(empty).shape) == (0, 1, SIZE, SIZE)
        assert tuple(loaded.anomaly_loss(empty).shape) == (0,)


def test_the_forms_of_images_agree(exported):
    loaded = exported[2]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, SIZE, SIZE), np.uint8)
    codes = loaded.encode(pixels)
    floats = pixels / 255
    frozen = floats.astype(np.float32)
    frozen.flags.writeable = False
    turned = np.ascontiguousarray(floats.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    for form in (floats, frozen, turned, floats[:, 0], floats.astype(">f4"), floats[::-1][::-1]):
        np.testing.assert_allclose(loaded.encode(form), codes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 3, 16, 16)), ValueError, r"images has shape \(2, 3, 16, 16\): must be"),
        (np.zeros((2, 1, 16, 15)), ValueError, r"must be \(N, 1, 16, 16\) or \(N, 16, 16\)"),
        (np.zeros((16, 16)), ValueError, "images has shape"),
        (np.zeros((2, 16, 16, 1)), ValueError, r"use images\.transpose\(0, 3, 1, 2\)"),
        (torch.zeros(2, 16, 16, 1), ValueError, r"use images\.permute\(0, 3, 1, 2\)"),
        (np.full((2, 1, 16, 16), np.nan), ValueError, "images contains NaN"),
        (np.full((2, 1, 16, 16), np.inf), ValueError, "values from inf to inf"),
        (np.full((2, 1, 16, 16), 255.0), ValueError, r"floats must be in \[0, 1\]"),
        (torch.full((2, 1, 16, 16), -0.5), ValueError, r"floats must be in \[0, 1\]"),
        (torch.full((2, 1, 16, 16), torch.nan), ValueError, "images contains NaN"),
        (np.zeros((2, 1, 16, 16), int), TypeError, "images has dtype int64: must be uint8"),
        (np.zeros((2, 1, 16, 16), bool), TypeError, "images has dtype bool"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.int32), TypeError, r"dtype torch\.int32"),
    ],
)
def test_bad_images_are_refused(exported, images, error, message):
    with pytest.raises(error, match=message):
        exported[2].encode(images)


@pytest.mark.parametrize(
    ("batch_size", "error"), [(0, ValueError), (-3, ValueError), (True, TypeError)]
)
def test_bad_batch_size(exported, batch_size, error):
    with pytest.raises(error, match=f"batch_size must be .*, got {batch_size}"):
        exported[2].encode(np.zeros((2, 1, SIZE, SIZE)), batch_size=batch_size)


def test_metadata(exported):
    from ekmfast._version import __version__

    model, _, loaded = exported
    assert isinstance(loaded, ExportedAutoencoder)
    for name in ("image_size", "in_channels", "latent_dim", "n_classes"):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.version == __version__
    assert "latent_dim=8" in repr(loaded)


def test_the_file_runs_with_pytorch_alone(exported):
    _, path, loaded = exported
    code = """
import sys, torch
module = torch.jit.load(sys.argv[1])
x = torch.linspace(0, 1, 5 * 16 * 16).reshape(5, 1, 16, 16)
with torch.inference_mode():
    print(module.format, module.latent_dim, module.training, "ekmfast" in sys.modules)
    print(*module.encode(x).flatten().tolist())
    print(*module.anomaly_loss(x).tolist())
    assert module.reconstruct(x).shape == x.shape
    try:
        module.encode(x[:, :, :8])
    except torch.jit.Error as error:
        assert "must be (N, 1, 16, 16)" in str(error)
    else:
        raise SystemExit("a wrong shape went through")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
    )
    assert done.returncode == 0, done.stderr
    head, codes, losses = done.stdout.splitlines()
    assert head == "ekmfast-autoencoder 8 False False"
    x = np.linspace(0, 1, 5 * 16 * 16, dtype=np.float32).reshape(5, 1, 16, 16)
    codes, losses = np.array(codes.split(), float), np.array(losses.split(), float)
    np.testing.assert_allclose(codes, loaded.encode(x).ravel(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses, loaded.anomaly_loss(x), rtol=1e-4)


def test_exporting_changes_nothing_of_the_model(tmp_path):
    model = tiny().train()
    before = weights(model)
    path = export(model, tmp_path / "model.pt")
    assert path == tmp_path / "model.pt"
    assert model.training
    assert same_weights(before, weights(model))
    assert [type(x) for x in model.encoder[:3]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_the_same_model_gives_the_same_bytes_under_any_name(tmp_path):
    one, two = export(tiny(), tmp_path / "one.pt"), export(tiny(), str(tmp_path / "two.pt"))
    assert one.read_bytes() == two.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.pt", "two.pt"]


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    path = export(tiny(), tmp_path / "model.pt")
    old = path.read_bytes()

    def fail(module, buffer):
        buffer.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torchscript, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        export(tiny(seed=1), path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_what_does_not_fit_on_the_disk_leaves_the_old_file(tmp_path):
    # This runs in another process, since PyTorch's own writer would end it, and since the limit on
    # the size of files cannot be removed.
    code = """
import resource
import sys
from pathlib import Path

import numpy as np
from ekmfast import EKMeans
from ekmfast.autoencoder import ConvAutoencoder, encode, export, export_pipeline, pretrain

folder = Path(sys.argv[1])
model = ConvAutoencoder(16, 1, 8, 3, 0.0625)
images = np.random.default_rng(0).random((20, 1, 16, 16), np.float32)
clusters = EKMeans(2, alpha="dvariance", random_state=0).fit(encode(model, images))
options = {"epochs": 1, "random_state": 0, "verbose": 0}
writers = {
    "model.ts": lambda path: export(model, path),
    "model.pt2": lambda path: export(model, path),
    "pipeline.ts": lambda path: export_pipeline(model, clusters, path),
    "training.pt": lambda path: pretrain(model, images, checkpoint=path, **options),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name, write in writers.items():
    path = folder / name
    if name != "training.pt":
        path.write_bytes(b"old")
    try:
        write(path)
    except OSError as error:
        print(name, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    names = ["model.ts", "model.pt2", "pipeline.ts", "training.pt"]
    assert [line.split()[0] for line in lines] == names
    assert all(f"{tmp_path}/{name}" in line for name, line in zip(names, lines, strict=True))
    assert all("File too large" in line for line in lines)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == dict.fromkeys(names[:3], b"old")


def test_export_refuses(tmp_path):
    with pytest.raises(TypeError, match=r"model must be a ConvAutoencoder, got Identity\(\)"):
        export(nn.Identity(), tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        export(tiny(), tmp_path / "nowhere" / "model.pt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export(tiny(), tmp_path)


def test_load_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load(tmp_path / "missing.pt")
    path = tmp_path / "model.pt"
    for junk in (b"", b"hello", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(junk)
        with pytest.raises(ValueError, match="is not a readable file of TorchScript or"):
            load(path)
    torch.save(tiny().state_dict(), path)
    with pytest.raises(ValueError, match="is not a readable file of TorchScript or"):
        load(path)
    with path.open("wb") as file:
        torchscript.save(torchscript.script(nn.Linear(2, 2)), file)
    with pytest.raises(ValueError, match="is not an autoencoder that"):
        load(path)


def test_load_refuses_a_truncated_file(exported, tmp_path):
    whole = exported[1].read_bytes()
    path = tmp_path / "model.pt"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a readable file of TorchScript or"):
        load(path)


def test_load_refuses_a_newer_format(tmp_path, monkeypatch):
    import importlib

    module = importlib.import_module("ekmfast.autoencoder.export")
    monkeypatch.setattr(module, "FORMAT_VERSION", 99)
    path = export(tiny(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="format version 99"):
        load(path)


def test_the_silence_covers_torchscript_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torchscript.quiet(), pytest.raises(DeprecationWarning):
            warnings.warn("something else", DeprecationWarning, stacklevel=1)


def test_a_missing_torch_is_told_plainly():
    code = """
import importlib
import sys


class NoTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name=name)


sys.meta_path.insert(0, NoTorch())
import numpy as np
import ekmfast
from ekmfast import anomaly, datasets

images = np.zeros((4, 16, 16), np.float32)
tries = [lambda: ekmfast.autoencoder, lambda: anomaly.AutoencoderDetector().fit(images)]
for function in (anomaly.reconstruction_loss, anomaly.anomaly_map):
    tries.append(lambda function=function: function(None, images))
for name in sys.argv[1].split():
    tries.append(lambda name=name: exec(f"from ekmfast.autoencoder import {name}"))
for name in ("augmentation", "training", "deep", "export", "loading"):
    name = f"ekmfast.autoencoder.{name}"
    tries.append(lambda name=name: importlib.import_module(name))
for attempt in tries:
    try:
        attempt()
    except ImportError as error:
        assert str(error).endswith('is not installed: pip install "ekmfast[torch]"'), error
    else:
        raise AssertionError("there was no error")
print(len(tries))
"""
    names = " ".join(ekmfast.autoencoder.__all__)
    done = subprocess.run(
        [sys.executable, "-c", code, names], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 9 + len(names.split())
