"""Nodes of ONNX graphs that compute what the methods of estimators and detectors compute.

As in Python, a scaler computes in the dtype of the rows, and all that follows is in float64, also
for float32 rows. Distances are summed from differences ``x - c``, each of which is rounded once.
Therefore they keep their digits at any offset and any scale, without a reference point: a
difference from a reference would be rounded too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from ekmfast._optional import require

Float64 = NDArray[np.float64]

DOUBLE = np.dtype(np.float64)
OPSET = 17  # onnx and onnxruntime know it since their versions 1.12 of 2022
IR_VERSION = 8  # the one that came with opset 17
# The differences of n rows to some k centroids are an array of shape (n, k, D). Centroids are taken
# in parts of such a size that k D is at most this number, or k is 1. Then a row needs 8 KiB.
DIFFERENCES = 1024
# With many centroids the parts are larger, so that there are at most this many: each is two nodes.
PARTS = 256


class Graph:
    """A graph under construction. Values are known by their names, which are strings.

    Parameters
    ----------
    name : str
        Name of the input.
    shape : list of str or int
        Its shape after the axis of rows or images.
    dtype : numpy.dtype
        dtype of the outputs.
    taken : numpy.dtype, default=None
        dtype of the input, if it is another.
    """

    def __init__(
        self,
        name: str,
        shape: list[str | int],
        dtype: np.dtype[Any],
        taken: np.dtype[Any] | None = None,
    ) -> None:
        self.helper = require("onnx.helper", "onnx")
        self.numpy_helper = require("onnx.numpy_helper", "onnx")
        self.dtype = dtype
        self.taken = dtype if taken is None else taken
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs = [self._described(name, self.taken, ["n", *shape])]
        self.outputs: list[Any] = []
        self.n_bytes = 0  # of all constants

    def constant(self, value: Any, dtype: Any = np.float64) -> str:
        """Name of a constant, which the file holds as an array of ``dtype``."""
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        self.n_bytes += array.nbytes
        self.constants.append(self.numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def cast(self, value: str, dtype: Any) -> str:
        return self.add("Cast", value, to=self._type(dtype))

    def output(self, name: str, value: str, dtype: Any, *columns: int) -> None:
        """Make ``value`` an output of the graph, of shape (n, *columns)."""
        self.nodes.append(self.helper.make_node("Identity", [value], [name], name))
        self.outputs.append(self._described(name, dtype, ["n", *columns]))

    def model(self, description: str, metadata: dict[str, str], version: str) -> Any:
        """The finished model, of type onnx.ModelProto."""
        graph = self.helper.make_graph(
            self.nodes, "ekmfast", self.inputs, self.outputs, self.constants
        )
        model = self.helper.make_model(
            graph,
            opset_imports=[self.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="ekmfast",
            producer_version=version,
            doc_string=description,
        )
        self.helper.set_model_props(model, metadata)
        return model

    def _type(self, dtype: Any) -> Any:
        return self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def _described(self, name: str, dtype: Any, shape: list[str | int]) -> Any:
        return self.helper.make_tensor_value_info(name, self._type(dtype), shape)


# ----------------------------------------------------------------------------------------------
# Rows


def scaled(graph: Graph, X: str, scaler: Any) -> str:
    """What ``scaler.transform`` returns, with its roundings: the centroids were fitted to them."""
    own = subtracts_rounded_mean()
    if scaler.with_mean:
        X = _in_dtype(graph, "Sub", X, scaler.mean_, rounded=own)
    if scaler.with_std:
        X = _in_dtype(graph, "Div", X, scaler.scale_, rounded=own)
    return X


def _in_dtype(graph: Graph, operator: str, X: str, value: Float64, *, rounded: bool) -> str:
    """A result of the graph's dtype; only if ``rounded``, it is computed in this dtype."""
    if rounded or graph.dtype == DOUBLE:
        return graph.add(operator, X, graph.constant(value, graph.dtype))
    exact = graph.add(operator, graph.cast(X, DOUBLE), graph.constant(value))
    return graph.cast(exact, graph.dtype)


def subtracts_rounded_mean() -> bool:
    """Whether the installed StandardScaler rounds its mean to float32 before it subtracts it.

    The mean is a float64. Newer versions of scikit-learn (1.9 is one) round it to the dtype of the
    rows first; older ones compute in float64 and round the result.
    """
    third = np.array([[1 / 3]])
    found = StandardScaler(with_std=False).fit(third).transform(third.astype(np.float32))
    return not np.any(np.asarray(found))


# ----------------------------------------------------------------------------------------------
# Clusters


def unit_rows(graph: Graph, x: str) -> str:
    """Rows in float64, each divided by its length; NaN for a row of zeros.

    Rows are first divided by their largest number, so that no square overflows or underflows.
    """
    largest = graph.add("ReduceMax", graph.add("Abs", x), axes=[1], keepdims=1)
    x = graph.add("Div", x, largest)
    return graph.add("Div", x, graph.add("ReduceL2", x, axes=[1], keepdims=1))


def zero_rows(graph: Graph, x: str) -> str:
    """Which rows (n,) hold zeros alone."""
    largest = graph.add("ReduceMax", graph.add("Abs", x), axes=[1], keepdims=0)
    return graph.add("Equal", largest, graph.constant(0.0))


def replaced(graph: Graph, where: str, value: float, values: str, dtype: Any) -> str:
    """The values of this dtype, and ``value`` instead of those for which ``where`` is true."""
    return graph.add("Where", where, graph.constant(value, dtype), values)


def squared_distances(
    graph: Graph, x: str, centroids: NDArray[Any], *, partial: bool = False
) -> str:
    """``||x_n - c_k||^2`` (n, K) of rows in float64, summed from differences.

    With ``partial`` they are over the numbers that are not NaN, scaled to all features.
    Some centroids are subtracted at a time, so that memory for a batch of n rows is bounded by
    `DIFFERENCES` and `PARTS`, not by n K D.
    """
    n_clusters, n_features = centroids.shape
    step = max(1, DIFFERENCES // n_features, math.ceil(n_clusters / PARTS))
    axis = graph.constant([1], np.int64)
    rows = graph.add("Unsqueeze", x, axis)  # (n, 1, D)
    missing = graph.add("IsNaN", rows) if partial else ""
    parts = []
    for start in range(0, n_clusters, step):
        some = graph.constant(centroids[None, start : start + step])
        differences = graph.add("Sub", rows, some)
        if partial:
            differences = graph.add("Where", missing, graph.constant(0.0), differences)
        parts.append(graph.add("ReduceSumSquare", differences, axes=[2], keepdims=0))
    d2 = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    if not partial:
        return d2
    there = graph.cast(graph.add("Not", graph.add("IsNaN", x)), DOUBLE)
    count = graph.add("ReduceSum", there, axis, keepdims=1)
    return graph.add("Mul", d2, graph.add("Div", graph.constant(float(n_features)), count))


def nearest(graph: Graph, d2: str) -> str:
    """Index (n,) of the smallest squared distance; the first one if several are equal."""
    return graph.add("ArgMin", d2, axis=1, keepdims=0)


def merged_label(graph: Graph, index: str, merged: NDArray[Any]) -> str:
    """The label of the nearest centroid: the first of the centroids that are merged with it."""
    if (merged == np.arange(len(merged))).all():
        return index
    return graph.add("Gather", graph.constant(merged, np.int64), index)


def boltzmann_memberships(graph: Graph, d2: str, alpha: float) -> str:
    """``softmax_k(-alpha/2 ||x - c_k||^2)``, from differences to the smallest squared distance."""
    least = graph.add("ReduceMin", d2, axes=[1], keepdims=1)
    exponent = graph.add("Mul", graph.add("Sub", d2, least), graph.constant(-0.5 * alpha))
    p = graph.add("Exp", exponent)
    return divided_by_sum(graph, p)


def fuzzy_memberships(graph: Graph, d2: str, fuzzifier: float) -> str:
    """Memberships of fuzzy c-means; a row that equals a centroid belongs only to it."""
    least = graph.add("ReduceMin", d2, axes=[1], keepdims=1)
    # A row that equals a centroid gives 0 / 0, which Where replaces by 1.
    power = graph.constant(1 / (fuzzifier - 1))
    u = graph.add("Pow", graph.add("Div", least, d2), power)
    u = graph.add("Where", graph.add("Equal", d2, least), graph.constant(1), u)
    return divided_by_sum(graph, u)


def hard_memberships(graph: Graph, index: str, n_clusters: int) -> str:
    """1 for the nearest centroid and 0 for the others, in the graph's dtype."""
    column = graph.add("Unsqueeze", index, graph.constant([1], np.int64))
    equal = graph.add("Equal", column, graph.constant(np.arange(n_clusters), np.int64))
    return graph.cast(equal, graph.dtype)


def divided_by_sum(graph: Graph, values: str) -> str:
    """Each row divided by its sum."""
    total = graph.add("ReduceSum", values, graph.constant([1], np.int64), keepdims=1)
    return graph.add("Div", values, total)


def log_joint(graph: Graph, x: str, mixture: Any, centre: Float64, unit: float) -> str:
    """``log pi_k f_k(x_n)`` (n, K) of rows in float64, without the logarithm of the unit.

    If there is a background, it is the last of K + 1 columns.
    """
    z = graph.add("Sub", x, graph.constant(centre))
    z = graph.add("Div", z, graph.constant(unit))
    whiteners = mixture.whiteners
    names = [graph.constant(w) for w in (whiteners[:1] if mixture.kind == "tied" else whiteners)]
    parts = []
    for k, mean in enumerate(mixture.means):
        y = graph.add("Sub", z, graph.constant(mean))
        y = graph.add("MatMul" if mixture.full else "Mul", y, names[min(k, len(names) - 1)])
        parts.append(graph.add("ReduceSumSquare", y, axes=[1], keepdims=1))
    d2 = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    v, half = float(mixture.degrees), 0.5
    if math.isfinite(v):
        half = (v + mixture.means.shape[1]) / 2
        grown = graph.add("Add", graph.add("Div", d2, graph.constant(v)), graph.constant(1))
        d2 = graph.add("Log", grown)
    falls = graph.add("Mul", d2, graph.constant(half))
    joint = graph.add("Sub", graph.constant(mixture.offsets), falls)
    if not mixture.has_background:
        return joint
    n_rows = graph.add("Shape", x, start=0, end=1)
    shape = graph.add("Concat", n_rows, graph.constant([1], np.int64), axis=0)
    background = graph.add("Expand", graph.constant([[float(mixture.log_background)]]), shape)
    return graph.add("Concat", joint, background, axis=1)


def softmax_and_log_sum(graph: Graph, values: str) -> tuple[str, str]:
    """``softmax_k`` (n, K) and ``log sum_k exp`` (n,) of values (n, K)."""
    most = graph.add("ReduceMax", values, axes=[1], keepdims=1)
    p = graph.add("Exp", graph.add("Sub", values, most))
    axis = graph.constant([1], np.int64)
    total = graph.add("ReduceSum", p, axis, keepdims=1)
    log_sum = graph.add("Add", graph.add("Log", total), most)
    return graph.add("Div", p, total), graph.add("Squeeze", log_sum, axis)


# ----------------------------------------------------------------------------------------------
# Anomalies


def scores(graph: Graph, x: str, normals: Any) -> str:
    """Scores (n,) in the graph's dtype, as from `Normals.scores` of a detector."""
    centred = graph.add("Sub", x, graph.constant(normals.centre))
    z = graph.add("Div", centred, graph.constant(normals.unit))
    whitened = graph.add("MatMul", z, graph.constant(normals.whitener))
    d2 = squared_distances(graph, whitened, normals.means)
    # Of a row that is so far away that products overflow, the sums may be infinity - infinity.
    infinity = graph.constant(np.inf)
    d2 = graph.add("Where", graph.add("IsNaN", d2), infinity, d2)
    half = graph.add("Mul", d2, graph.constant(0.5))
    log_share = graph.constant(np.log(normals.sizes / normals.sizes.sum()))
    # No number is -infinity, so that differences of them are numbers.
    lowest = graph.constant(np.finfo(np.float64).min)
    log_density = graph.add("Max", graph.add("Sub", log_share, half), lowest)
    _, score = softmax_and_log_sum(graph, log_density)
    lowest = graph.constant(np.finfo(graph.dtype).min)
    return graph.cast(graph.add("Max", score, lowest), graph.dtype)


def inlier_label(graph: Graph, score: str, offset: float) -> str:
    """-1 where the score is below the offset, else +1; both are compared in the graph's dtype."""
    below = graph.add("Less", score, graph.constant(offset, graph.dtype))
    outlier, inlier = graph.constant(-1, np.int64), graph.constant(1, np.int64)
    return graph.add("Where", below, outlier, inlier)
