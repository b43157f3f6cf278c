"""Arrays of other libraries: read by DLPack, and results of the kind of X where dispatch is on."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from ekmfast import HardKMeans
from ekmfast.rows.array_api import as_numpy

X = np.random.default_rng(0).normal(size=(60, 2))
X[:20] += 9

# scikit-learn allows dispatch only where SCIPY_ARRAY_API was set before SciPy was imported.
DISPATCH = """
import sys
import numpy as np
import sklearn
from ekmfast import *
library = __import__(sys.argv[1])
X = np.random.default_rng(0).normal(size=(60, 2)).astype(sys.argv[2])
X[:20] += 9
there = library.asarray(X)
weight = np.linspace(1, 2, 60, dtype=X.dtype)
estimators = [
    EKMeans(2, random_state=0), HardKMeans(2, random_state=0), FuzzyCMeans(2, random_state=0),
    MaximumEntropyKMeans(2, alpha=2.0, random_state=0), MiniBatchEKMeans(2, random_state=0),
    SemiSupervisedEKMeans(2, alpha=1.0, random_state=0),
]
for estimator in estimators:
    here = sklearn.clone(estimator).fit(X, sample_weight=weight)
    with sklearn.config_context(array_api_dispatch=True):
        estimator.fit(there, sample_weight=library.asarray(weight))
        assert np.array_equal(estimator.cluster_centers_, here.cluster_centers_)
        for name in ("predict", "transform", "membership", "weights"):
            result = getattr(estimator, name)(there)
            assert type(result) is type(there), (estimator, name, type(result))
            assert np.array_equal(np.from_dlpack(result), getattr(here, name)(X)), name
            assert type(getattr(estimator, name)(X)) is np.ndarray
        assert type(sklearn.clone(estimator).fit_predict(there)) is type(there)
    assert type(estimator.predict(there)) is np.ndarray

mixture = EquilibriumMixture(2, random_state=0).fit(X)
with sklearn.config_context(array_api_dispatch=True):
    for name in ("predict", "predict_proba", "score_samples"):
        result = getattr(mixture, name)(there)
        assert type(result) is type(there), name
        assert np.array_equal(np.from_dlpack(result), getattr(mixture, name)(X)), name
    assert mixture.bic(there) == mixture.bic(X)

from ekmfast.anomaly import EKMeansDetector
detector = EKMeansDetector(2, random_state=0).fit(X)
with sklearn.config_context(array_api_dispatch=True):
    for name in ("predict", "score_samples", "decision_function"):
        result = getattr(detector, name)(there)
        assert type(result) is type(there), name
        assert np.array_equal(np.from_dlpack(result), getattr(detector, name)(X)), name
        assert type(getattr(detector, name)(X)) is np.ndarray, name
    labels = sklearn.clone(detector).fit_predict(there)
    assert type(labels) is type(there)
    assert np.array_equal(np.from_dlpack(labels), sklearn.clone(detector).fit_predict(X))
assert type(detector.predict(there)) is np.ndarray
"""

IMAGES = """
import numpy as np
import sklearn
import torch
from ekmfast.anomaly import AutoencoderDetector
images = np.zeros((30, 16, 16), np.float32)
images[:, 4:12] = np.random.default_rng(0).uniform(0.5, 1, (30, 1, 1))
there = torch.from_numpy(images)
detector = AutoencoderDetector(
    image_size=16, latent_dim=4, width=0.0625, epochs=1, batch_size=20, random_state=0
).fit(images)
with sklearn.config_context(array_api_dispatch=True):
    for name in ("predict", "score_samples", "decision_function"):
        result = getattr(detector, name)(there)
        assert type(result) is torch.Tensor, name
        assert np.array_equal(result.numpy(), getattr(detector, name)(images)), name
        assert type(getattr(detector, name)(images)) is np.ndarray, name
"""

CHECKS = """
import warnings
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator
import ekmfast
warnings.simplefilter("ignore", ConvergenceWarning)
results = check_estimator(getattr(ekmfast, "EKMeans")(), on_skip=None, on_fail=None)
print(*{r["status"] for r in results if "array_api" in r["check_name"]})
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_results_are_of_the_library_of_x(library, dtype):
    pytest.importorskip(library)
    run(DISPATCH, library, dtype)


def test_results_for_images_are_of_the_library_of_x():
    pytest.importorskip("torch")
    run(IMAGES)


def test_the_check_of_sklearn_passes():
    found = run(CHECKS).split()
    if not found:
        pytest.skip("this version of scikit-learn has no such check")
    assert found == ["passed"]


def test_tensors_are_read_without_a_copy():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(X.copy())
    assert np.shares_memory(as_numpy(tensor), tensor.numpy())
    model = HardKMeans(2, init=X[[0, -1]]).fit(tensor)
    assert type(model.predict(tensor)) is np.ndarray
    np.testing.assert_array_equal(model.labels_, HardKMeans(2, init=X[[0, -1]]).fit(X).labels_)


def test_what_dlpack_cannot_lend_is_explained():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match="requires grad"):
        HardKMeans(2).fit(torch.from_numpy(X).requires_grad_())
    with pytest.raises(TypeError, match="BFloat16"):
        HardKMeans(2).fit(torch.from_numpy(X).to(torch.bfloat16))
