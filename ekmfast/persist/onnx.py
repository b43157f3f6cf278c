"""Write fitted models as ONNX files, which run without ekmfast and scikit-learn, or Python."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ekmfast._arguments import shown
from ekmfast._files import replace_file
from ekmfast._optional import require
from ekmfast._version import __version__
from ekmfast.persist import onnx_graph as nodes
from ekmfast.persist.file import CLASSES, KINDS, PIPELINE, _class
from ekmfast.persist.state import FLOATING

__all__ = ["export_onnx"]

DETECTOR = "EKMeansDetector"
SCALER = "StandardScaler"
# A file of protobuf holds less than 2 GiB. The rest of the graph needs less than this margin.
MOST_BYTES = 2**31 - 2**20


def export_onnx(estimator: Any, path: str | os.PathLike[str], *, dtype: Any = None) -> None:
    """Write a fitted estimator to an ONNX file, which other programs run without ekmfast.

    The file needs a runtime of ONNX such as onnxruntime, and no ekmfast, scikit-learn or Python.
    Like `save`, this writes a temporary file and renames it. The same estimator gives the same
    bytes.

    Parameters
    ----------
    estimator : EKMeans or another estimator, EKMeansDetector, or a Pipeline
        A fitted `EKMeans`, `MiniBatchEKMeans`, `SemiSupervisedEKMeans`, `HardKMeans`,
        `FuzzyCMeans`, `MaximumEntropyKMeans` or `ekmfast.anomaly.EKMeansDetector`, not of a
        subclass. In a `sklearn.pipeline.Pipeline` it may follow a
        `sklearn.preprocessing.StandardScaler`; the file then takes rows in their original units.
    path : str or os.PathLike
        The file to write, usually named ``.onnx``.
    dtype : {numpy.float32, numpy.float64}, default=None
        dtype of the input and of the outputs that are not labels. None: that of the rows of
        ``fit``.

    Raises
    ------
    TypeError
        If ``estimator`` is none of those above, or ``dtype`` is no dtype.
    ValueError
        If ``dtype`` is another dtype; if ``estimator`` is not fitted (as NotFittedError), or its
        attributes are inconsistent; or if its arrays need 2 GiB, which an ONNX file cannot hold.
    ImportError
        If onnx is not installed.
    OSError
        If the file cannot be written.

    See Also
    --------
    save : A file from which `ekmfast.load` reads the estimator itself.

    Notes
    -----
    The input is ``X`` of shape (n, D), for any n. Outputs of clusterings are

    ``label`` (n,), int64
        As `predict`.
    ``distances`` (n, K)
        As `transform`.
    ``membership`` (n, K)
        As `membership`.

    and of a detector

    ``score`` (n,)
        As `score_samples`.
    ``label`` (n,), int64
        As `predict`: +1 for inliers, -1 for outliers.

    The metadata has ``ekmfast_version``, ``class``, ``alpha``, ``n_clusters``, ``feature_names``
    (as JSON, if the estimator has them), ``steps`` (as JSON, of a pipeline), ``fuzzifier`` (of
    FuzzyCMeans), ``metric`` (if it is ``cosine``), ``missing`` (if it is
    ``partial``: then NaN in ``X`` is a missing number) and ``offset`` (of a detector).

    The file is of opset 17 and IR version 8. As in Python, distances are summed from differences in
    float64, also for float32 rows. Where two centroids are equally near up to rounding in the dtype
    of the rows, ``label`` may be the other one than that of `predict`. A graph cannot raise errors:
    for rows that are not finite, or so far away that Python says that distances overflow,
    distances and memberships may be infinite or NaN, as for a row of zeros if the metric is
    ``'cosine'``, and for a row without numbers if missing is ``'partial'``. A detector calls such
    rows outliers.

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
    scalers, model = _steps(estimator)
    dtype = _dtype(dtype, model)
    checker = require("onnx.checker", "onnx")
    graph = nodes.Graph(model.n_features_in_, dtype)
    rows = "X"
    for scaler in scalers:
        rows = nodes.scaled(graph, rows, scaler)
    rows = rows if dtype == nodes.DOUBLE else graph.cast(rows, nodes.DOUBLE)
    fill = _detector if type(model).__name__ == DETECTOR else _clusters
    metadata = _metadata(estimator, model) | fill(graph, rows, model)
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


def _steps(estimator: Any) -> tuple[list[Any], Any]:
    """The scalers before an estimator, and the estimator, all fitted and consistent."""
    is_pipeline = type(estimator) is _class(PIPELINE)
    steps = [step for _, step in estimator.steps] if is_pipeline else [estimator]
    *scalers, model = steps or [None]
    for scaler in scalers:
        _check_class(scaler, (SCALER,), f"the Pipeline's steps before the last must be {SCALER}")
    allowed = (*CLASSES, DETECTOR)
    what = "the last step of the Pipeline" if is_pipeline else "estimator"
    words = f"{what} must be one of {', '.join(allowed)}"
    words += "" if is_pipeline else f", or a Pipeline of {SCALER} and one of them"
    _check_class(model, allowed, words)
    for step in steps:
        check_is_fitted(step)
        KINDS[type(step).__name__].check(step)
    sizes = {step.n_features_in_ for step in steps}
    if len(sizes) > 1:
        raise ValueError(f"the steps of the Pipeline have {sorted(sizes)} features: must be equal")
    return scalers, model


def _check_class(value: Any, allowed: tuple[str, ...], words: str) -> None:
    name = type(value).__name__
    if name in allowed and type(value) is _class(name):
        return
    if hasattr(value, "to_local"):
        raise TypeError(f"{words}, got ekmfast.dask.{name}; export what its to_local() returns")
    if name == "AutoencoderDetector":
        raise TypeError(f"{words}, got {name}; for images see ekmfast.autoencoder.export_pipeline")
    raise TypeError(f"{words}, got {shown(value)}")


def _centroids(model: Any) -> Any:
    return vars(model).get("clustering_", model).cluster_centers_


def _dtype(dtype: Any, model: Any) -> np.dtype[Any]:
    if dtype is None:
        found: np.dtype[Any] = _centroids(model).dtype
        return found
    words = f"dtype must be None, float32 or float64, got {shown(dtype)}"
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(words) from None
    if found not in FLOATING:
        raise ValueError(words)
    return found


def _metadata(estimator: Any, model: Any) -> dict[str, str]:
    """What the file says of any model; numbers have all their digits."""
    clustering = vars(model).get("clustering_", model)
    metadata = {
        "ekmfast_version": __version__,
        "class": type(model).__name__,
        "alpha": repr(float(clustering.alpha_)),
        "n_clusters": str(len(clustering.cluster_centers_)),
    }
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
    if cosine:
        metadata["metric"] = model.metric
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
    graph.output("label", nodes.merged_label(graph, index, model._merged_), np.int64)
    distances = graph.add("Mul", d2, graph.constant(0.5)) if cosine else graph.add("Sqrt", d2)
    graph.output("distances", graph.cast(distances, dtype), dtype, n_clusters)
    graph.output("membership", membership, dtype, n_clusters)
    return metadata


def _detector(graph: nodes.Graph, rows: str, model: Any) -> dict[str, str]:
    """Add the outputs of a detector; return further metadata."""
    score = nodes.scores(graph, rows, model._normals)
    graph.output("score", score, graph.dtype)
    graph.output("label", nodes.inlier_label(graph, score, model.offset_), np.int64)
    return {"offset": repr(float(model.offset_))}
