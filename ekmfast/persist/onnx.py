"""Write fitted models as ONNX files, which run without ekmfast and scikit-learn, or Python."""

from __future__ import annotations

import copy
import json
import math
import os
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ekmfast._arguments import shown
from ekmfast._files import replace_file
from ekmfast._optional import require
from ekmfast._parameters import PATH
from ekmfast._version import __version__
from ekmfast.persist import onnx_graph as nodes
from ekmfast.persist import onnx_images as images
from ekmfast.persist.detectors import is_autoencoder
from ekmfast.persist.file import CLASSES, KINDS, PIPELINE, _class
from ekmfast.persist.state import FLOATING

__all__ = ["export_onnx"]

DETECTOR = "EKMeansDetector"
MIXTURE = "EquilibriumMixture"
OF_IMAGES = "AutoencoderDetector"
MODELS_OF_IMAGES = ("ConvAutoencoder", "ExportedAutoencoder", "ExportedPipeline", OF_IMAGES)
SCALER = "StandardScaler"
# A file of protobuf holds less than 2 GiB. The rest of the graph needs less than this margin.
MOST_BYTES = 2**31 - 2**20


def export_onnx(estimator: Any, path: str | os.PathLike[str], *, dtype: Any = None) -> None:
    """Write a fitted model to an ONNX file, which other programs run without ekmfast.

    The file needs a runtime of ONNX such as onnxruntime, and no ekmfast, scikit-learn, PyTorch or
    Python. Like `save`, this writes a temporary file and renames it. The same model gives the same
    bytes.

    Parameters
    ----------
    estimator : estimator, detector, Pipeline, or model of images
        A fitted `EKMeans`, `MiniBatchEKMeans`, `SemiSupervisedEKMeans`, `HardKMeans`,
        `FuzzyCMeans`, `MaximumEntropyKMeans`, `EquilibriumMixture` or
        `ekmfast.anomaly.EKMeansDetector`, not of a subclass. In a `sklearn.pipeline.Pipeline` it
        may follow a `sklearn.preprocessing.StandardScaler`; the file then takes rows in their
        original units. Models of images are `ekmfast.autoencoder.ConvAutoencoder`, what
        `ekmfast.autoencoder.load` returns (with clusters if `ekmfast.autoencoder.export_pipeline`
        wrote the file), and a fitted `ekmfast.anomaly.AutoencoderDetector`.
    path : str or os.PathLike
        The file to write, usually named ``.onnx``.
    dtype : {numpy.float32, numpy.float64, numpy.uint8}, default=None
        Of tables: dtype of the input and of the outputs that are not labels, float32 or float64;
        None is that of the rows of ``fit``. Of images: dtype of the input, float32 (None) for
        numbers in [0, 1] or uint8 for bytes.

    Raises
    ------
    TypeError
        If ``estimator`` is none of those above, or ``dtype`` is no dtype.
    ValueError
        If ``dtype`` is another dtype; if ``estimator`` is not fitted (as NotFittedError), or its
        attributes are inconsistent; if it was loaded in bfloat16; or if its arrays need 2 GiB,
        which an ONNX file cannot hold.
    ImportError
        If onnx is not installed.
    OSError
        If the file cannot be written.

    See Also
    --------
    save : A file from which `ekmfast.load` reads the estimator itself.
    ekmfast.autoencoder.export_pipeline : A file of PyTorch for an autoencoder and its clusters.

    Notes
    -----
    Of tables, the input is ``X`` of shape (n, D), for any n. Outputs of clusterings are

    ``label`` (n,), int64
        As `predict`.
    ``distances`` (n, K)
        As `transform`.
    ``membership`` (n, K)
        As `membership`.

    of a mixture

    ``label`` (n,), int64
        As `predict`: -1 for the background.
    ``membership`` (n, K), or (n, K + 1) with a background
        As `predict_proba`.
    ``log_density`` (n,), float64
        As `score_samples`.

    and of a detector

    ``score`` (n,)
        As `score_samples`.
    ``label`` (n,), int64
        As `predict`: +1 for inliers, -1 for outliers.

    Of images, the input is ``images`` of shape (n, C, S, S), for any n. Outputs of an autoencoder
    are

    ``codes`` (n, latent_dim), float32
        As `encode`.
    ``reconstructions`` (n, C, S, S), float32
        As `reconstruct`; not if there are clusters.
    ``labels`` (n,), int64, and ``memberships`` (n, K), float32
        As `predict` and `membership`, if there are clusters.
    ``anomaly_loss`` (n,), float32
        As `anomaly_loss`.

    An AutoencoderDetector takes images of any height and width, which the graph resizes as Python
    does, and has the outputs of a detector, in float32.

    The metadata has ``ekmfast_version`` and ``class``, and as far as the model has them ``alpha``,
    ``n_clusters``, ``feature_names`` and ``steps`` (as JSON), ``fuzzifier``, ``metric`` (if it is
    ``cosine``), ``zero_rows`` (if it is ``label``: then a row of zeros has the label -1),
    ``missing`` (if it is ``partial``: then NaN in ``X`` is a missing number),
    ``covariance_type``, ``degrees_of_freedom``, ``background_weight``, ``score``, ``offset``,
    ``image_size``, ``in_channels`` and ``latent_dim``.

    The file is of opset 17 and IR version 8. As in Python, distances are summed from differences in
    float64, also for float32 rows; networks compute in float32. Where two clusters are equally near
    or likely up to rounding in the dtype of the rows, ``label`` may be the other one than that of
    `predict`. A graph cannot raise errors: for rows that are not finite, or so far away that Python
    says that distances overflow, distances, memberships and densities may be infinite or NaN, as
    for a row of zeros if the metric is ``'cosine'`` and zero_rows is ``'error'``, and for a row
    without numbers if missing is ``'partial'``. A detector of rows calls such rows outliers. A
    detector of images does not, nor is it said if numbers lie outside of [0, 1].

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from onnxruntime import InferenceSession
    >>> from ekmfast import EKMeans, export_onnx
    >>> model = EKMeans(2, random_state=0).fit([[0.0], [1.0], [9.0], [10.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(model, os.path.join(folder, "model.onnx"))
    ...     session = InferenceSession(os.path.join(folder, "model.onnx"))
    >>> X = np.array([[2.0], [8.0]])
    >>> label, distances = session.run(["label", "distances"], {"X": X})
    >>> bool((label == model.predict(X)).all())
    True
    """
    path = PATH.check("path", path)
    scalers, model = _steps(estimator)
    of_images = type(model).__name__ in MODELS_OF_IMAGES
    dtype = _dtype(dtype, model, of_images)
    checker = require("onnx.checker", "onnx")
    if of_images:
        graph = _graph_of_images(model, dtype)
        metadata = _fill_images(graph, model)
    else:
        graph = nodes.Graph("X", [model.n_features_in_], dtype)
        metadata = _fill(graph, scalers, estimator, model)
    if graph.n_bytes > MOST_BYTES:
        raise ValueError(
            f"the arrays of estimator need {graph.n_bytes} bytes: an ONNX file holds at most "
            f"{MOST_BYTES}"
        )
    description = f"{metadata['class']}; ekmfast.export_onnx describes its input and outputs"
    exported = graph.model(description, metadata, __version__)
    checker.check_model(exported, full_check=True)
    content = exported.SerializeToString(deterministic=True)
    replace_file(path, lambda file: file.write(content))


def _fill(graph: nodes.Graph, scalers: list[Any], estimator: Any, model: Any) -> dict[str, str]:
    """Add nodes and outputs for a table; return the metadata."""
    rows = "X"
    for scaler in scalers:
        rows = nodes.scaled(graph, rows, scaler)
    rows = rows if graph.dtype == nodes.DOUBLE else graph.cast(rows, nodes.DOUBLE)
    fill = {DETECTOR: _detector, MIXTURE: _mixture}.get(type(model).__name__, _clusters)
    return _metadata(estimator, model) | fill(graph, rows, model)


def _graph_of_images(model: Any, dtype: np.dtype[Any]) -> nodes.Graph:
    is_detector = type(model).__name__ == OF_IMAGES
    network = model.autoencoder_ if is_detector else model
    sizes: list[str | int] = ["height", "width"] if is_detector else [network.image_size] * 2
    return nodes.Graph("images", [network.in_channels, *sizes], images.SINGLE, dtype)


def _fill_images(graph: nodes.Graph, model: Any) -> dict[str, str]:
    """Add nodes and outputs for images; return the metadata."""
    name = type(model).__name__
    fill = images.detector if name == OF_IMAGES else images.autoencoder
    metadata = {"ekmfast_version": __version__, "class": name}
    return metadata | fill(graph, "images", model)


def _steps(estimator: Any) -> tuple[list[Any], Any]:
    """The scalers before an estimator, and the estimator, all fitted and consistent."""
    is_pipeline = type(estimator) is _class(PIPELINE)
    steps = [step for _, step in estimator.steps] if is_pipeline else [estimator]
    *scalers, model = steps or [None]
    for scaler in scalers:
        _check_class(scaler, (SCALER,), f"the Pipeline's steps before the last must be {SCALER}")
    if not is_pipeline and is_autoencoder(model):
        _check_precision(model)
        return [], model
    allowed: tuple[str, ...] = (*CLASSES, MIXTURE, DETECTOR)
    if is_pipeline:
        words = f"the last step of the Pipeline must be one of {', '.join(allowed)}"
    else:
        words = f"estimator must be one of {', '.join(allowed)}, or a Pipeline of {SCALER} and one"
        words += f" of them, or one of {', '.join(MODELS_OF_IMAGES)}"
        allowed = (*allowed, OF_IMAGES)
    _check_class(model, allowed, words)
    for step in steps:
        check_is_fitted(step)
        KINDS[type(step).__name__].check(copy.copy(step))  # a check of a file may set attributes
    if type(model).__name__ == OF_IMAGES:
        _check_precision(model.autoencoder_)
    sizes = {step.n_features_in_ for step in steps if hasattr(step, "n_features_in_")}
    if len(sizes) > 1:
        raise ValueError(f"the steps of the Pipeline have {sorted(sizes)} features: must be equal")
    return scalers, model


def _check_precision(model: Any) -> None:
    if getattr(model, "precision", "float32") != "float32":
        raise ValueError("the autoencoder was loaded in bfloat16: load it in float32")


def _check_class(value: Any, allowed: tuple[str, ...], words: str) -> None:
    name = type(value).__name__
    if name in allowed and type(value) is _class(name):
        return
    if hasattr(value, "to_local"):
        raise TypeError(f"{words}, got ekmfast.dask.{name}; export what its to_local() returns")
    raise TypeError(f"{words}, got {shown(value)}")


def _centres(model: Any) -> Any:
    """Array of the model that has the dtype of the rows of its fit."""
    if type(model).__name__ == MIXTURE:
        return model.means_
    return vars(model).get("clustering_", model).cluster_centers_


def _dtype(dtype: Any, model: Any, of_images: bool) -> np.dtype[Any]:
    """dtype of the input."""
    if dtype is None:
        found: np.dtype[Any] = images.SINGLE if of_images else _centres(model).dtype
        return found
    allowed = (images.SINGLE, images.BYTES) if of_images else FLOATING
    names = " or ".join(map(str, allowed))
    words = f"dtype must be None, {names}, got {shown(dtype)}"
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(words) from None
    if found not in allowed:
        raise ValueError(words)
    return found


def _metadata(estimator: Any, model: Any) -> dict[str, str]:
    """What the file says of any model; numbers have all their digits."""
    clustering = vars(model).get("clustering_", model)
    metadata = {"ekmfast_version": __version__, "class": type(model).__name__}
    if hasattr(clustering, "alpha_"):
        metadata["alpha"] = repr(float(clustering.alpha_))
    metadata["n_clusters"] = str(len(_centres(model)))
    first = model
    if estimator is not model:
        steps = [step for _, step in estimator.steps]
        metadata["steps"] = json.dumps([type(step).__name__ for step in steps])
        first = steps[0]
    if hasattr(first, "feature_names_in_"):
        metadata["feature_names"] = json.dumps(first.feature_names_in_.tolist())
    return metadata


def _clusters(graph: nodes.Graph, rows: str, model: Any) -> dict[str, str]:
    """Add the outputs of a clustering; return further metadata."""
    centroids, dtype = model.cluster_centers_, graph.dtype
    n_clusters = len(centroids)
    metadata = {}
    cosine = model.metric == "cosine"
    zero = None
    if cosine:
        metadata["metric"] = model.metric
        if model.zero_rows == "label":
            metadata["zero_rows"] = model.zero_rows
            zero = nodes.zero_rows(graph, rows)
        rows = nodes.unit_rows(graph, rows)
    partial = model.missing == "partial"
    if partial:
        metadata["missing"] = model.missing
    d2 = nodes.squared_distances(graph, rows, centroids, partial=partial)
    index = nodes.nearest(graph, d2)
    if type(model).__name__ == "HardKMeans":
        membership = nodes.hard_memberships(graph, index, n_clusters)
    elif type(model).__name__ == "FuzzyCMeans":
        model._check_parameters()  # set_params may have changed fuzzifier after the fit
        fuzzifier = float(model.fuzzifier)
        metadata["fuzzifier"] = repr(fuzzifier)
        membership = graph.cast(nodes.fuzzy_memberships(graph, d2, fuzzifier), dtype)
    else:
        membership = graph.cast(nodes.boltzmann_memberships(graph, d2, model.alpha_), dtype)
    label = nodes.merged_label(graph, index, model._merged_)
    distances = graph.add("Mul", d2, graph.constant(0.5)) if cosine else graph.add("Sqrt", d2)
    distances = graph.cast(distances, dtype)
    if zero is not None:
        label = nodes.replaced(graph, zero, -1, label, np.int64)
        zero = graph.add("Unsqueeze", zero, graph.constant([1], np.int64))
        distances = nodes.replaced(graph, zero, 1, distances, dtype)
        membership = nodes.replaced(graph, zero, 0, membership, dtype)
    graph.output("label", label, np.int64)
    graph.output("distances", distances, dtype, n_clusters)
    graph.output("membership", membership, dtype, n_clusters)
    return metadata


def _mixture(graph: nodes.Graph, rows: str, model: Any) -> dict[str, str]:
    """Add the outputs of a mixture; return further metadata."""
    joint = nodes.log_joint(graph, rows, model._mixture, model._centre, model._unit)
    membership, log_density = nodes.softmax_and_log_sum(graph, joint)
    per_unit = graph.constant(model.n_features_in_ * math.log(model._unit))
    k, background = len(model.means_), model._mixture.has_background
    label = graph.add("ArgMax", joint, axis=1, keepdims=0)
    if background:
        beside = graph.add("Equal", label, graph.constant(k, np.int64))
        label = graph.add("Where", beside, graph.constant(-1, np.int64), label)
    graph.output("label", label, np.int64)
    columns = k + background
    graph.output("membership", graph.cast(membership, graph.dtype), graph.dtype, columns)
    graph.output("log_density", graph.add("Sub", log_density, per_unit), np.float64)
    return {
        "covariance_type": model.covariance_type_,
        "degrees_of_freedom": repr(float(model.degrees_of_freedom_)),
        **({"background_weight": repr(model.background_weight_)} if background else {}),
    }


def _detector(graph: nodes.Graph, rows: str, model: Any) -> dict[str, str]:
    """Add the outputs of a detector; return further metadata."""
    score = nodes.scores(graph, rows, model._normals)
    graph.output("score", score, graph.dtype)
    graph.output("label", nodes.inlier_label(graph, score, model.offset_), np.int64)
    return {"offset": repr(float(model.offset_))}
