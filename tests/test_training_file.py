"""A training continues from its checkpoint to the same result; other trainings refuse it."""

import copy
import hashlib
import io
from collections import deque
from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch", reason="the autoencoder is an extra")

import kornia.augmentation
import torch
from PIL import Image

from ekmfast.autoencoder import ConvAutoencoder, _fingerprint, finetune, pretrain, torchscript
from ekmfast.autoencoder._fingerprint import of_change, of_images
from ekmfast.autoencoder._training_file import MARK
from ekmfast.autoencoder.augmentation import Augmentation
from ekmfast.autoencoder.images import as_images
from ekmfast.datasets import open_image_folder

SIZE = 16
N = 60
IMAGES = np.random.default_rng(0).random((N, 1, SIZE, SIZE), np.float32)
LABELS = np.arange(N) % 3
OPTIONS = {"epochs": 4, "batch_size": 20, "random_state": 3, "verbose": 0}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(seed=0, **parameters):
    given = {"image_size": SIZE, "in_channels": 1, "latent_dim": 8, "n_classes": 3}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConvAutoencoder(**{**given, "width": 0.0625, **parameters})


def train(kind, model, images=IMAGES, labels=LABELS, **options):
    given = (images, labels) if kind is finetune else (images,)
    return kind(model, *given, **(OPTIONS | options))


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def interrupted(monkeypatch, kind, model, at=9, **options):
    """Raise Ctrl-C at a step. An epoch has three steps, so by default the third is incomplete."""
    step, calls = torch.optim.AdamW.step, []

    def falling(optimizer, *arguments):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return step(optimizer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", falling)
        with pytest.raises(KeyboardInterrupt):
            train(kind, model, **options)


@pytest.mark.parametrize("kind", [pretrain, finetune])
def test_an_interrupted_training_resumes_to_the_same_weights(kind, tmp_path, monkeypatch):
    whole = tiny()
    straight = train(kind, whole, augment=True)
    options = {"augment": Augmentation(), "checkpoint": tmp_path / "training.pt"}
    left = tiny()
    interrupted(monkeypatch, kind, left, **options)
    noted = options["checkpoint"].read_bytes()
    torch.rand(5)
    for resumed in (tiny(), left):  # a model with initial weights, and the interrupted model
        options["checkpoint"].write_bytes(noted)
        assert train(kind, resumed, **options) == straight
        assert same_weights(whole, resumed)
    for again in (tiny(), resumed):  # a finished one is read
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", None)
            assert train(kind, again, **options) == straight
        assert same_weights(whole, again)


def first_changed(values, at):
    changed = values.copy()
    changed[at] = 1 - changed[at]
    return changed


def frozen():
    model = tiny()
    model.encoder.requires_grad_(False)
    return model


MODEL = r"model \(its layers, or the weights at the beginning\)"
VALIDATION = (IMAGES[:9], LABELS[:9])


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"augment": True}, r"augment \(None in the file, Augmentation \w+ now\)"),
        ({"epochs": 5}, r"epochs \(4 in the file, 5 now\)"),
        ({"batch_size": 30}, r"batch_size \(20 in the file, 30 now\)"),
        ({"learning_rate": 1e-4}, r"learning_rate \(0\.003 in the file, 0\.0001 now\)"),
        ({"schedule": "cosine"}, r"schedule \(one-cycle in the file, cosine now\)"),
        ({"weight_decay": 0.5}, r"weight_decay \(0\.0001 in the file, 0\.5 now\)"),
        ({"max_grad_norm": 1.0}, r"max_grad_norm \(None in the file, 1\.0 now\)"),
        ({"patience": 3}, r"patience \(None in the file, 3 now\)"),
        ({"precision": "bfloat16"}, r"precision \(float32 in the file, bfloat16 now\)"),
        ({"random_state": 4}, r"random_state \(3 in the file, 4 now\)"),
        ({"validation_split": 0.2}, r"validation_split \(0\.1 in the file, 0\.2 now\)"),
        ({"validation_data": VALIDATION}, "validation_split .*, validation_data"),
        ({"images": first_changed(IMAGES, 1)}, "images"),  # was not among those looked at
        ({"images": IMAGES[::-1]}, "images"),
        ({"model": tiny(seed=1)}, MODEL),
        ({"model": tiny(dropout=0.1)}, MODEL),
        ({"model": tiny(width=0.125)}, MODEL),
        ({"model": frozen()}, MODEL),
        # pretrain alone
        ({"corruption": 0.1}, r"corruption \(None in the file, 0\.1 now\)"),
        # finetune alone
        ({"reconstruction_weight": 2.0}, r"reconstruction_weight \(1\.0 in the file, 2\.0 now\)"),
        ({"labels": first_changed(LABELS, 1)}, "labels"),
    ],
)
def test_another_training_is_refused_with_what_differs(changed, difference, tmp_path, noted):
    for kind, content in noted.items():
        if {"corruption": finetune, "reconstruction_weight": pretrain, "labels": pretrain}.get(
            next(iter(changed))
        ) is kind:
            continue
        path = tmp_path / "training.pt"
        path.write_bytes(content)
        given = {"model": tiny(), "checkpoint": path} | changed
        if kind is pretrain and "validation_data" in given:
            given["validation_data"] = given["validation_data"][0]
        given["model"] = copy.deepcopy(given["model"])
        before = copy.deepcopy(given["model"])
        with pytest.raises(
            ValueError, match=f"is of another training, with other {difference}; remove"
        ):
            train(kind, **given)
        assert path.read_bytes() == content
        assert same_weights(given["model"], before)


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    """The files of two finished trainings."""
    folder = tmp_path_factory.mktemp("noted")
    files = {pretrain: folder / "pretrain.pt", finetune: folder / "finetune.pt"}
    for kind, path in files.items():
        train(kind, tiny(), checkpoint=path)
    return {kind: path.read_bytes() for kind, path in files.items()}


def test_validation_data_are_compared(tmp_path):
    path = tmp_path / "training.pt"
    train(finetune, tiny(), validation_data=VALIDATION, checkpoint=path)
    images, labels = VALIDATION
    for changed in ((first_changed(images, 4), labels), (images, first_changed(labels, 1))):
        with pytest.raises(ValueError, match="with other validation_data; remove"):
            train(finetune, tiny(), validation_data=changed, checkpoint=path)
    train(finetune, tiny(), validation_data=VALIDATION, checkpoint=path)


def test_what_does_not_shape_the_result_may_change(tmp_path, noted):
    path = tmp_path / "training.pt"
    path.write_bytes(noted[pretrain])
    for changed in (
        {"checkpoint_every": 2},
        {"verbose": 1},
        {"random_state": np.int64(3)},
        {"learning_rate": np.float64(3e-3)},
        {"images": torch.from_numpy(IMAGES)},
        {"images": IMAGES[:, 0].astype(np.float64)},
    ):
        train(pretrain, **({"model": tiny(), "checkpoint": path} | changed))
    assert path.read_bytes() == noted[pretrain]


def test_pretraining_and_finetuning_are_told_apart(tmp_path, noted):
    path = tmp_path / "training.pt"
    path.write_bytes(noted[finetune])
    difference = r"training \(finetune in the file, pretrain now\)"
    with pytest.raises(ValueError, match=difference):
        train(pretrain, tiny(), checkpoint=path)


def test_more_epochs_may_follow_at_a_constant_learning_rate(tmp_path):
    options = {"schedule": "constant", "checkpoint": tmp_path / "training.pt"}
    train(pretrain, tiny(), **options)
    more, whole = tiny(), tiny()
    history = train(pretrain, more, **options, epochs=6)
    assert len(history.train_loss) == 6
    options["checkpoint"] = None
    assert train(pretrain, whole, **options, epochs=6) == history
    assert same_weights(more, whole)
    options["checkpoint"] = tmp_path / "training.pt"
    message = r"epochs=5: checkpoint=.*training\.pt' has already trained 6"
    with pytest.raises(ValueError, match=message):
        train(pretrain, more, **options, epochs=5)
    assert same_weights(more, whole)


def test_a_training_that_patience_ended_stays_so(tmp_path, monkeypatch):
    # Nothing is learned: the first epoch is the best.
    options = {"schedule": "constant", "patience": 2, "learning_rate": 1e-30}
    options |= {"weight_decay": 0.0, "validation_data": IMAGES[:10], "batch_size": 60}
    path = tmp_path / "training.pt"
    model = tiny()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    options |= {"checkpoint": path, "checkpoint_every": 10}
    first = train(pretrain, copy.deepcopy(model), **options, epochs=3)
    assert (len(first.train_loss), first.stopped_early) == (3, False)
    history = train(pretrain, copy.deepcopy(model), **options, epochs=6)
    assert (len(history.train_loss), history.stopped_early) == (3, True)
    path.unlink()
    assert train(pretrain, copy.deepcopy(model), **options, epochs=6) == history
    with monkeypatch.context() as patch:  # it was written at the end of the training
        patch.setattr(torch.optim.AdamW, "step", None)
        assert train(pretrain, copy.deepcopy(model), **options, epochs=6) == history


def test_any_damage_is_told(tmp_path, noted):
    path = tmp_path / "training.pt"
    content = noted[pretrain]
    rng = np.random.default_rng(0)
    damaged = [b"", b"junk", content[:1000], content[:-1], content + b"\n", content[1:]]
    for at in rng.integers(len(content), size=60).tolist():
        damaged.append(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
    for whole in damaged:
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=rf"checkpoint='{path}': is damaged, or is not a"):
            train(pretrain, tiny(), checkpoint=path)
    torch.save({"a": 1}, path)
    with pytest.raises(ValueError, match="is not a checkpoint of a training by this version"):
        train(pretrain, tiny(), checkpoint=path)


def test_a_checkpoint_runs_no_code(tmp_path, capfd):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    buffer = io.BytesIO()
    torch.save({"format": Evil()}, buffer)
    content = buffer.getvalue()
    path = tmp_path / "training.pt"
    path.write_bytes(content + MARK + hashlib.sha256(content).hexdigest().encode())
    with pytest.raises(ValueError, match="is damaged, or is not a checkpoint"):
        train(pretrain, tiny(), checkpoint=path)
    assert capfd.readouterr().out == ""


def test_pytorch_reads_the_file(tmp_path, noted):
    path = tmp_path / "training.pt"
    path.write_bytes(noted[pretrain])
    assert "encoder.conv1.weight" in torch.load(path, weights_only=True)["best"]


def test_bad_places_are_told_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", None)
    with pytest.raises(FileNotFoundError, match=r"no such folder .*no'"):
        train(pretrain, tiny(), checkpoint=tmp_path / "no" / "t.pt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        train(pretrain, tiny(), checkpoint=tmp_path)
    with pytest.raises(
        ValueError, match="random_state must be an integer with checkpoint, got None"
    ):
        train(pretrain, tiny(), checkpoint=tmp_path / "t.pt", random_state=None)


def test_another_number_of_threads_is_told(tmp_path, monkeypatch):
    path = tmp_path / "training.pt"
    interrupted(monkeypatch, pretrain, tiny(), checkpoint=path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.warns(UserWarning, match="number of threads was 1, is 2") as caught:
        train(pretrain, tiny(), checkpoint=path)
    assert caught[0].filename == __file__
    monkeypatch.undo()
    train(pretrain, tiny(), checkpoint=path)  # it is done: nothing is computed any more


def test_a_folder_is_known_by_what_its_files_hold(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), np.uint8)).save(folder / f"{i:02}.png")

    def files():
        return open_image_folder(folder, SIZE, channels=1)

    path = tmp_path / "training.pt"
    history = train(pretrain, tiny(), files(), checkpoint=path)
    folder = folder.rename(tmp_path / "elsewhere")
    assert train(pretrain, tiny(), files(), checkpoint=path) == history
    Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), np.uint8)).save(folder / "01.png")
    with pytest.raises(ValueError, match="with other images; remove"):
        train(pretrain, tiny(), files(), checkpoint=path)


def test_datasets_are_known_by_all_their_images():
    class Items:
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return len(self.images)

        def __getitem__(self, i):
            return self.images[i], 0

    def digest(images):
        return of_images(as_images(images, 1, SIZE))

    many = np.tile(IMAGES, (10, 1, 1, 1))
    known = digest(many)
    assert digest(Items(many)) == digest(torch.from_numpy(many)) == known
    assert digest(Items(first_changed(many, 300))) != known
    assert digest(many[:-1]) != known
    assert len(digest(many[:0])) == 64


# --- functions that change images ----------------------------------------------------------

SIGMA = 0.1


def noise(x, sigma=0.1):
    return x + sigma * torch.randn_like(x)


def with_global(x):
    return noise(x, SIGMA)


def scaled(by):
    return lambda x: x * by


class Scaled:
    def __init__(self, by):
        self.by = by
        self.itself = self

    def __call__(self, x):
        return self.changed(x)

    def changed(self, x):
        return x * self.by


class Faded(Scaled):
    def changed(self, x):
        return x / self.by


class Module(torch.nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x * self.by


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Augmentation(), Augmentation(rotation=10.0), Augmentation(rotation=11.0)),
        (Augmentation(), Augmentation(), Augmentation(erasing=0.1)),
        (Augmentation(), Augmentation(), torch.nn.Sequential(Augmentation())),
        (scaled(2), scaled(2), scaled(3)),
        (partial(noise, sigma=2), partial(noise, sigma=2), partial(noise, sigma=3)),
        (noise, noise, lambda x: x + 0.1 * torch.randn_like(x)),
        (Scaled(2), Scaled(2), Scaled(3)),
        (Scaled(2), Scaled(2), Faded(2)),
        (Scaled(2).changed, Scaled(2).changed, Scaled(3).changed),
        (Scaled(torch.ones(2)), Scaled(torch.ones(2)), Scaled(torch.zeros(2))),
        (Scaled(np.ones(2)), Scaled(np.ones(2)), Scaled(np.zeros(2))),
        (Scaled({"a": {1, 2}}), Scaled({"a": {2, 1}}), Scaled({"a": {1, 3}})),
        (Scaled(set([0, 8])), Scaled(set([8, 0])), Scaled({0, 16})),  # noqa: C405
        (Module(1.0), Module(1.0), Module(2.0)),
        (torch.relu, torch.relu, torch.tanh),
        (None, None, torch.relu),
    ],
)
def test_functions_are_told_apart(one, same, other):
    assert of_change(one) == of_change(same)
    assert of_change(one) != of_change(other)


def test_an_augmentation_stays_itself_when_used():
    augment = Augmentation(horizontal_flip=0.5)
    before = of_change(augment)
    augment(torch.rand(4, 1, SIZE, SIZE))
    assert of_change(augment) == before


def test_a_global_that_a_function_uses_is_seen(monkeypatch):
    before = of_change(with_global)
    assert of_change(with_global) == before
    monkeypatch.setitem(globals(), "SIGMA", 0.2)
    assert of_change(with_global) != before
    monkeypatch.undo()
    monkeypatch.setitem(globals(), "noise", lambda x, sigma: x)
    assert of_change(with_global) != before


class Noise:
    """Noise of a private standard deviation."""

    def __init__(self, sigma):
        self._sigma = sigma

    def __call__(self, x):
        return x + self._sigma * torch.randn_like(x)


class NoiseModule(torch.nn.Module):
    def __init__(self, sigma):
        super().__init__()
        self._sigma = sigma

    def forward(self, x):
        return x + self._sigma * torch.randn_like(x)


class NoiseOfKornia(kornia.augmentation.RandomGaussianNoise):
    def __init__(self, sigma):
        super().__init__()
        self._sigma = sigma


class Slots:
    __slots__ = ("__by", "other")

    def __init__(self, by):
        self.__by = by

    def __call__(self, x):
        return x * self.__by


class SlotsBelow(Slots):
    __slots__ = "below"


class Labelled(float):
    def __init__(self, value):
        self.label = "the same"


@torch.no_grad()
def without_gradients(x, by=2):
    return x * by


def of_class(**contents):
    contents["__call__"] = lambda self, x: x
    return type("Change", (), contents)()


def executed(source):
    return eval(source, {})


@pytest.mark.parametrize(
    "made",
    [
        Noise,
        NoiseModule,
        NoiseOfKornia,
        Slots,
        SlotsBelow,
        lambda by: of_class(by=by),
        lambda by: of_class(by=property(scaled(by))),
        lambda by: of_class(by=staticmethod(scaled(by))),
        lambda by: of_class(by=classmethod(scaled(by))),
        lambda by: of_class(__getitem__=scaled(by)),
        lambda by: Scaled(of_class(by=by)),
        lambda by: Scaled(type(of_class(by=by))),
        lambda by: Scaled(deque([0, np.full(2000, by)])),
        lambda by: Scaled(Labelled(by)),
        lambda by: Scaled(np.ma.masked_array([1, 2], [by == 0, False])),
        lambda by: Scaled(np.array([by, None])),
        lambda by: Scaled({frozenset({by, "a"}), 1}),
        lambda by: Scaled(torch.eye(2).to_sparse() * by),
        lambda by: torch.full((2,), by).mul,
        lambda by: torchscript.script(NoiseModule(by)),
        lambda by: torch.no_grad()(scaled(by)),
        lambda by: executed(f"lambda x: x * {by}"),
    ],
)
def test_whatever_a_callable_holds_is_seen(made):
    assert of_change(made(0.0)) == of_change(made(0.0))
    assert of_change(made(0.0)) != of_change(made(0.5))


VALUES = {"sigma": 0.1}
FACTORS = torch.ones(3)
OBJECT = Noise(0.1)


class Own:
    by = 2


def in_a_comprehension(x):
    return sum([v * x for v in [SIGMA]])


def in_a_lambda(x):
    return (lambda y: y * SIGMA)(x)


def with_all(x):
    return x * VALUES["sigma"] * FACTORS[0] * OBJECT(x) * Own.by


@pytest.mark.parametrize(
    ("change", "place", "name", "value"),
    [
        (in_a_comprehension, globals(), "SIGMA", 0.2),
        (in_a_lambda, globals(), "SIGMA", 0.2),
        (with_all, VALUES, "sigma", 0.2),
        (with_all, globals(), "FACTORS", torch.zeros(3)),
        (with_all, vars(OBJECT), "_sigma", 0.2),
    ],
)
def test_whatever_global_a_function_uses_is_seen(change, place, name, value, monkeypatch):
    before = of_change(change)
    assert of_change(change) == before
    monkeypatch.setitem(place, name, value)
    assert of_change(change) != before


def test_a_class_that_a_function_uses_is_seen(monkeypatch):
    before = of_change(with_all)
    monkeypatch.setattr(Own, "by", 3)
    assert of_change(with_all) != before


def test_what_cannot_be_looked_into_is_passed_over():
    """As the docstring of `pretrain` says."""
    assert of_change(Scaled(i for i in (1, 2))) == of_change(Scaled(i for i in (1, 2)))
    held = [iter([1, 2]), open(__file__), np.random.default_rng(0)]  # noqa: SIM115
    before = of_change(Scaled(held))
    assert of_change(Scaled(held)) == before  # nothing was taken from them
    assert next(held[0]) == 1
    held[1].close()


def test_another_private_value_is_refused_to_go_on(tmp_path):
    path = tmp_path / "training.pt"
    train(pretrain, tiny(), corruption=Noise(0.0), checkpoint=path)
    with pytest.raises(ValueError, match=r"with other corruption \(Noise \w+ in the file, Noise"):
        train(pretrain, tiny(), corruption=Noise(0.5), checkpoint=path)
    train(pretrain, tiny(), corruption=Noise(0.0), checkpoint=path)


def visited(change, monkeypatch):
    """Values that the digest must cover."""
    seen = []
    described = _fingerprint._described
    with monkeypatch.context() as patch:
        patch.setattr(_fingerprint, "_described", lambda v: seen.append(1) or described(v))
        of_change(change)
    return len(seen)


def calling_each_other(n):
    names = [f"f{i}" for i in range(n)]
    called = "+".join(f"{name}(x)" for name in names)
    place = {"__name__": "calling"}
    exec("\n".join(f"def {name}(x): return {called}" for name in names), place)
    return place["f0"]


def test_each_value_is_visited_once(monkeypatch):
    assert visited(calling_each_other(60), monkeypatch) < 60 * 10
    assert of_change(calling_each_other(9)) == of_change(calling_each_other(9))
    assert of_change(calling_each_other(9)) != of_change(calling_each_other(8))
    shared = [1.5]
    for _ in range(60):
        shared = [shared, shared]
    assert visited(Scaled(shared), monkeypatch) < 200
    deep = []
    for _ in range(1100):  # deeper than Python's stack
        deep = [deep]
    assert visited(Scaled(deep), monkeypatch) < 1200


def ring(*values):
    """Nested lists that hold a value and the next list."""
    lists = [[value] for value in values]
    for one, following in zip(lists, lists[1:] + lists[:1], strict=True):
        one.append(following)
    return lists


def test_what_is_shared_is_of_no_consequence_but_who_is_meant_is():
    shared = Scaled(2)
    assert of_change(Scaled([shared, shared])) == of_change(Scaled([Scaled(2), Scaled(2)]))
    one, other = ring(1, 2)
    one_again, _ = ring(1, 2)
    assert of_change(Scaled([one, other])) == of_change(Scaled([one_again, other]))
    assert of_change(Scaled([one, other])) != of_change(Scaled([other, one]))
    assert of_change(Scaled(ring(1, 2)[0])) != of_change(Scaled(ring(1, 2, 2)[0]))
    # B behind C holds C, or A.
    a, b = ["a"], ["b"]
    a.append(b)
    b.append(a)
    c, d = ["c"], ["b"]
    c.append(d)
    d.append(c)
    assert of_change(Scaled([a, c])) != of_change(Scaled([a, ["c", b]]))
