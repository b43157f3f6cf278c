"""Parameters of every estimator: unusual values are accepted, wrong ones are named in errors."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from data import set_a

import ekmfast
from ekmfast import (
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
    alpha_path,
)

ESTIMATORS = [
    EKMeans,
    FuzzyCMeans,
    HardKMeans,
    MaximumEntropyKMeans,
    MiniBatchEKMeans,
    SemiSupervisedEKMeans,
]
WITH_ALPHA = [EKMeans, MaximumEntropyKMeans, MiniBatchEKMeans, SemiSupervisedEKMeans]
X = set_a()[0][::20]
START = X[[0, 102, 110]]
HUGE = 10**400  # no float holds it


def frame(library, values):
    return pytest.importorskip(library).DataFrame({"a": values[:, 0], "b": values[:, 1]})


GIVEN = {
    "list": lambda start: start.tolist(),
    "Fortran order": np.asfortranarray,
    "a view": lambda start: np.repeat(start, 2, axis=1)[:, ::2],
    "objects": lambda start: start.astype(object),
    "pandas": lambda start: frame("pandas", start),
    "polars": lambda start: frame("polars", start),
    "a callable's Fortran order": lambda start: lambda X, k, seed: np.asfortranarray(start),
    "a callable's frame": lambda start: lambda X, k, seed: frame("pandas", start),
}


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("kind", GIVEN)
def test_init_is_taken_from_whatever_holds_it(cls, kind):
    plain = cls(3, init=START, tol=1e-2).fit(X)
    given = cls(3, init=GIVEN[kind](START), n_init=1, tol=1e-2).fit(X)
    np.testing.assert_array_equal(given.cluster_centers_, plain.cluster_centers_)


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize(
    ("init", "shown"),
    [
        ([["a", "b"], ["c", "d"], ["e", "f"]], "list \\[\\['a', 'b'\\]"),
        (START + 1j, "ndarray"),
        (START.astype("datetime64[s]"), "1970-01-01"),
        ([[0.0, 1.0], [2.0]], "list"),
        ([[HUGE, 0]] * 3, "list"),
        (None, "got shape \\(\\): NoneType None"),
        (7, "got shape \\(\\): int 7"),
        (lambda X, k, seed: "none", "str 'none'"),
        (lambda X, k, seed: START[0], "got shape \\(2,\\)"),
    ],
)
def test_init_that_holds_no_matrix_of_numbers_is_named(cls, init, shown):
    with pytest.raises(
        (TypeError, ValueError), match=f"init must be .*array of real numbers.*{shown}"
    ):
        cls(3, init=init).fit(X)


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize(
    ("seed", "error"),
    [
        ("seed", TypeError),
        (1.5, TypeError),
        (-1, ValueError),
        (2**32, ValueError),
        (HUGE, ValueError),
        (np.random.default_rng(0), TypeError),
        (object(), TypeError),
    ],
    ids="abcdefg",
)
def test_a_random_state_that_is_none_is_named(cls, seed, error):
    said = "random_state must be None, an integer >= 0 and <= 4294967295 or a numpy.* got"
    with pytest.raises(error, match=said):
        cls(3, random_state=seed).fit(X)


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        *((cls, "tol") for cls in ESTIMATORS),
        *(
            (c, n)
            for c in ESTIMATORS
            if c not in (HardKMeans, FuzzyCMeans)
            for n in ("alpha", "scale")
        ),
        (FuzzyCMeans, "fuzzifier"),
        (MiniBatchEKMeans, "forgetting"),
        (SemiSupervisedEKMeans, "theta"),
    ],
)
@pytest.mark.parametrize("value", [HUGE, -HUGE, 10**5000, Fraction(HUGE, 3)], ids="abcd")
def test_numbers_that_no_float_holds_are_refused_by_name(cls, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, got .{{1,110}}$"):
        cls(3, **{name: value}).fit(X)


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        *((cls, name) for cls in ESTIMATORS for name in ("n_clusters", "n_init", "max_iter")),
        (MiniBatchEKMeans, "batch_size"),
    ],
)
@pytest.mark.parametrize("value", [2**31, HUGE, 10**5000], ids="abc")
def test_integers_that_nothing_can_be_counted_to_are_refused_by_name(cls, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .* and <= {2**31 - 1}, got .{{1,70}}$"):
        cls(**{"n_clusters": 3, name: value}).fit(X)


@pytest.mark.parametrize("name", ["n_clusters", "n_init", "max_iter"])
def test_so_does_a_path_refuse_them(name):
    with pytest.raises(ValueError, match=f"^{name} must be .* and <= {2**31 - 1}, got .{{1,70}}$"):
        alpha_path(X, **{"n_clusters": 3, name: HUGE})


def test_checkpoint_every_that_nothing_can_be_counted_to_is_refused_by_name(tmp_path):
    model, data = EKMeans(3, random_state=0), ekmfast.blocks.from_arrays([X])
    for path in (None, tmp_path / "fit"):
        with pytest.raises(ValueError, match=r"^checkpoint_every must be .* and <= 2147483647"):
            model.fit(data, checkpoint=path, checkpoint_every=HUGE)
    assert not list(tmp_path.iterdir())


def test_small_integers_of_numpy_do_not_overflow():
    sizes = {"n_clusters": np.int8(20), "batch_size": np.int8(100), "max_iter": np.int8(127)}
    models = [
        MiniBatchEKMeans(**parameters, alpha=10.0, tol=0.1, n_init=1, random_state=0)
        for parameters in (sizes, {name: int(size) for name, size in sizes.items()})
    ]
    narrow, plain = (model.fit(X).cluster_centers_ for model in models)
    np.testing.assert_array_equal(narrow, plain)


@pytest.mark.parametrize("cls", [EKMeans, MaximumEntropyKMeans, MiniBatchEKMeans])
def test_an_alpha_that_underflows_is_refused(cls):
    with pytest.raises(ValueError, match="alpha must be"):
        cls(3, alpha=Fraction(1, HUGE)).fit(X)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_weights_that_are_all_zero_are_refused(cls):
    zeros = np.zeros(len(X))
    with pytest.raises(ValueError, match=r"weight.*non-zero"):
        cls(3).fit(X, sample_weight=zeros)
    model = cls(3, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"weight.*non-zero"):
        model.score(X, sample_weight=zeros)


def test_the_path_refuses_what_a_fit_refuses():
    with pytest.raises(ValueError, match=r"weight.*non-zero"):
        alpha_path(X, 3, sample_weight=np.zeros(len(X)))
    with pytest.raises(TypeError, match="random_state must be None"):
        alpha_path(X, 3, random_state="seed")
    with pytest.raises(ValueError, match="n_threads must be None"):
        alpha_path(X, 3, n_threads=0)


def test_star_import_needs_no_extra():
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'dask', 'numba', 'matplotlib', 'pandas',"
        " 'pyarrow', 'zarr', 'PIL'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from ekmfast import *\n"
        "print(EKMeans.__name__, blocks.__name__, metrics.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "EKMeans ekmfast.blocks ekmfast.metrics\n", done.stderr
    assert {"autoencoder", "dask"} <= set(dir(ekmfast))
    assert not {"autoencoder", "dask"} & set(ekmfast.__all__)


@pytest.mark.filterwarnings("ignore:.*(stopped after|are distinct)")
@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("tol", [5e-324, 1e308])
def test_tolerances_at_the_ends_of_the_range_are_taken(cls, tol):
    assert np.isfinite(cls(3, tol=tol, max_iter=30, random_state=0).fit(X).objective_)


@pytest.mark.filterwarnings("ignore:.*(stopped after|are distinct)")
@pytest.mark.parametrize("cls", WITH_ALPHA)
@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e300])
def test_alphas_at_the_ends_of_the_range_give_finite_results(cls, alpha):
    model = cls(3, alpha=alpha, random_state=0).fit(X)
    for result in (model.cluster_centers_, model.membership(X), model.weights(X), model.score(X)):
        assert np.isfinite(result).all()
    scaled = cls(3, alpha="dvariance", scale=5e-324, random_state=0).fit(X * 1e6)
    assert scaled.alpha_ > 0


@pytest.mark.parametrize("cls", WITH_ALPHA)
def test_an_alpha_for_which_nothing_is_finite_is_named(cls):
    with pytest.raises(ValueError, match=r"no start gave a finite objective: .* alpha=1\.7e\+308"):
        cls(3, alpha=1.7e308, random_state=0).fit(X)


def test_a_fuzzifier_beyond_the_kernels_range_is_named():
    with pytest.raises(ValueError, match=r"fuzzifier must be at most 505\.\d+ with .*=3, got 600"):
        FuzzyCMeans(3, fuzzifier=600).fit(X)
    assert np.isfinite(FuzzyCMeans(3, fuzzifier=505, random_state=0).fit(X).objective_)
