"""Constraints on parameters: what each allows, what it says, and the table of every estimator."""

import inspect
import math
import re
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import ekmfast
from ekmfast._parameters import (
    COUNT,
    GENERATOR_SEED,
    NONE,
    PATH,
    POSITIVE,
    SEED,
    AnyOf,
    Integer,
    Kind,
    Number,
    OneOf,
    SequenceOf,
    check_parameters,
    check_seed,
)
from ekmfast.anomaly import EKMeansDetector

HUGE = 10**400  # no float holds it


class Long:
    def __repr__(self):
        return "long" * 100


# Values that are wrong for most parameters, by a name for the tests' own.
VALUES = {
    "text": "no such name",
    "None": None,
    "True": True,
    "list": [1],
    "complex": 1j,
    "long": Long(),
    "-1": -1,
    "0": 0,
    "nan": math.nan,
    "inf": math.inf,
    "huge": HUGE,
}
NO_NUMBER = dict.fromkeys(("text", "None", "True", "list", "complex", "long"), TypeError)
INTEGER = NO_NUMBER | {
    "-1": ValueError,
    "0": ValueError,
    "nan": TypeError,
    "inf": TypeError,
    "huge": ValueError,
}
NUMBER = NO_NUMBER | dict.fromkeys(("-1", "0", "nan", "inf", "huge"), ValueError)
NAME = dict.fromkeys(VALUES, TypeError) | {"text": ValueError}
OTHER = dict.fromkeys(VALUES, TypeError)
TEXT_TOO = {"text": ValueError}
FROM_0 = {"0": None}
OR_NONE = {"None": None}
# What becomes of each value, None where it is allowed, and a part of what the message allows.
EXPECTED = {
    "n_clusters": (INTEGER, "an integer >= 1"),
    "max_clusters": (INTEGER, "an integer >= 1"),
    "alpha": (NUMBER | TEXT_TOO, "'dvariance' or a finite number > 0"),
    "scale": (NUMBER, "a finite number > 0"),
    "init": (
        dict.fromkeys(VALUES, TypeError) | {"text": ValueError, "list": ValueError},
        "an array of real numbers of shape (n_clusters, n_features) or a callable",
    ),
    "n_init": (INTEGER | TEXT_TOO, "'auto' or an integer >= 1"),
    "metric": (NAME, "'euclidean' or 'cosine'"),
    "zero_rows": (NAME, "'error' or 'label'"),
    "missing": (NAME, "'error' or 'partial'"),
    "max_iter": (INTEGER, "an integer >= 1"),
    "tol": (NUMBER | FROM_0, "a finite number >= 0"),
    "random_state": (
        INTEGER | FROM_0 | OR_NONE,
        "None, an integer >= 0 and <= 4294967295 or a numpy.random.RandomState",
    ),
    "device": (NAME, "'cpu'"),
    "n_threads": (INTEGER | OR_NONE, "None or an integer >= 1"),
    "verbose": (INTEGER | FROM_0 | {"True": None}, "True, False or an integer >= 0"),
    "fuzzifier": (NUMBER, "a finite number > 1"),
    "batch_size": (INTEGER, "an integer >= "),
    "forgetting": (NUMBER | FROM_0, "a number in [0, 1]"),
    "theta": (NUMBER | TEXT_TOO | FROM_0, "'auto' or a finite number >= 0"),
    "contamination": (NUMBER, "a number in (0, 0.5]"),
    "score": (NAME, "'reconstruction', 'codes' or 'both'"),
    "model": (OTHER | OR_NONE, "None"),
    "image_size": (INTEGER, "a multiple of 16"),
    "latent_dim": (INTEGER, "an integer >= 1"),
    "width": (NUMBER, "a finite number > 0"),
    "epochs": (INTEGER, "an integer >= "),
    "learning_rate": (NUMBER, "a finite number > 0"),
    "corruption": (NUMBER | OR_NONE | FROM_0, "None, a finite number >= 0 or a callable"),
    "clustering": (NAME, "'equilibrium' or 'hard'"),
    "warmup_epochs": (INTEGER | FROM_0, "an integer >= 0"),
    **dict.fromkeys(
        ("reconstruction_weight", "contrastive_weight", "clustering_weight"),
        (NUMBER | FROM_0, "a finite number >= 0"),
    ),
    "temperature": (NUMBER, "a finite number > 0"),
    "augment": (OTHER | {"True": None}, "True or a callable"),
}
# Where an estimator differs from the others. PyTorch also counts its devices.
TORCH_DEVICE = dict.fromkeys(("-1", "huge"), ValueError) | {"0": None}
DIFFERENT = {
    ("EKMeans", "n_clusters"): TEXT_TOO,
    ("EKMeansDetector", "contamination"): TEXT_TOO,
    ("DeepEKM", "epochs"): FROM_0,
    ("DeepEKM", "device"): TORCH_DEVICE,
    ("AutoencoderDetector", "device"): TORCH_DEVICE,
}
ESTIMATORS = [
    ekmfast.EKMeans,
    ekmfast.FuzzyCMeans,
    ekmfast.HardKMeans,
    ekmfast.MaximumEntropyKMeans,
    ekmfast.MiniBatchEKMeans,
    ekmfast.SemiSupervisedEKMeans,
    EKMeansDetector,
]
if find_spec("torch"):  # an extra
    from ekmfast.anomaly import AutoencoderDetector
    from ekmfast.autoencoder import DeepEKM

    ESTIMATORS += [AutoencoderDetector, DeepEKM]


def parameters_of(cls):
    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_every_parameter_is_in_the_table(cls):
    assert set(cls._constraints) == set(parameters_of(cls))
    cls()._check_parameters()


@pytest.mark.parametrize(
    ("cls", "name"), [(cls, name) for cls in ESTIMATORS for name in parameters_of(cls)]
)
def test_wrong_kinds_and_wrong_values_are_refused(cls, name):
    errors, allowed = EXPECTED[name]
    errors = errors | DIFFERENT.get((cls.__name__, name), {})
    for key, value in VALUES.items():
        model = cls(**{name: value})
        if errors[key] is None:
            model._check_parameters()
            continue
        # X is None: what is wrong with the parameter is told before anything is done with X.
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be ") as caught:
            model.fit(None)
        assert caught.type is errors[key], key
        said = str(caught.value)
        assert allowed in said or "a device's name, such as" in said
        assert re.search(r", got .{1,90}$", said), said


def test_what_a_table_takes_is_in_the_types_of_the_code():
    table = {"n": COUNT, "x": POSITIVE, "which": OneOf("a", "b"), "path": PATH}
    checked = check_parameters(
        {"n": np.int8(3), "x": np.float32(2), "which": "b", "path": "f", "more": 0}, table
    )
    assert checked == {"n": 3, "x": 2.0, "which": "b", "path": Path("f")}
    assert (type(checked["n"]), type(checked["x"])) == (int, float)


@pytest.mark.parametrize(
    ("constraint", "value", "error", "said"),
    [
        (Integer(1, 64), 70, ValueError, "an integer >= 1 and <= 64"),
        (Integer(1, 64), 0, ValueError, "an integer >= 1 and <= 64"),
        (COUNT, 2**31, ValueError, "an integer >= 1 and <= 2147483647"),
        (COUNT, 0, ValueError, "an integer >= 1"),
        (COUNT, np.array([1]), TypeError, "an integer >= 1"),
        (COUNT, np.True_, TypeError, "an integer >= 1"),
        (Integer(16, multiple_of=16), 24, ValueError, "a multiple of 16 that is >= 16"),
        (AnyOf(Integer(1, 1), Integer(3, 3)), 2, ValueError, "1 or 3"),
        (Number(0), math.inf, ValueError, "a finite number >= 0"),
        (Number(0, 1, open_high=True), 1, ValueError, "a number in [0, 1)"),
        (Number(0, 1), np.bool_(True), TypeError, "a number in [0, 1]"),
        (POSITIVE, 0, ValueError, "a finite number > 0"),
        (POSITIVE, Fraction(1, HUGE), ValueError, "a finite number > 0"),
        (AnyOf(NONE, POSITIVE), "a", TypeError, "None or a finite number > 0"),
        (AnyOf(OneOf("a", "b"), POSITIVE), "c", ValueError, "'a', 'b' or a finite number > 0"),
        (PATH, 3, TypeError, "a str or a path"),
        (Kind(callable, "a callable"), 3, TypeError, "a callable"),
        (SequenceOf(COUNT), (), ValueError, "a sequence of one or more, each an integer >= 1"),
        (SequenceOf(COUNT), (1, -1), ValueError, "a sequence of one or more, each an integer >= 1"),
        (
            SequenceOf(COUNT),
            (-1, "a"),
            TypeError,
            "a sequence of one or more, each an integer >= 1",
        ),
        (SequenceOf(COUNT), "12", TypeError, "a sequence of one or more, each an integer >= 1"),
        (SequenceOf(COUNT), np.array(1), TypeError, "a sequence of one or more"),
        (SequenceOf(POSITIVE, 2), (1, 2, 3), ValueError, "a sequence of 2, each a finite"),
        (GENERATOR_SEED, -1, ValueError, "None or an integer >= 0"),
        (GENERATOR_SEED, True, TypeError, "None or an integer >= 0"),
    ],
)
def test_bounds(constraint, value, error, said):
    with pytest.raises(error, match=rf"^x must be {re.escape(said)}.*, got ") as caught:
        constraint.check("x", value)
    assert caught.type is error


def test_what_is_allowed_is_taken():
    assert Number(0, 1, open_high=True).check("x", 0) == 0
    assert GENERATOR_SEED.check("x", None) is None
    assert GENERATOR_SEED.check("x", HUGE) == HUGE
    assert GENERATOR_SEED.check("x", np.uint8(3)) == 3
    assert SequenceOf(COUNT).check("x", (i for i in (1, 2))) == [1, 2]
    assert SequenceOf(POSITIVE, 2).check("x", np.array([1, 2])) == [1.0, 2.0]
    state = np.random.RandomState(0)
    assert SEED.check("x", state) is state
    assert check_seed(state) is state
    assert check_seed(np.random) is check_seed(None)
