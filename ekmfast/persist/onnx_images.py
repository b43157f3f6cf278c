"""Nodes of ONNX graphs that compute what models of images compute.

The network is the one that `ekmfast.autoencoder.export` writes: batch normalisations are folded
into the layers before them. As in Python it computes in float32, and distances of codes in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ekmfast.persist import onnx_graph as nodes
from ekmfast.persist.onnx_graph import DOUBLE, Graph

SINGLE = np.dtype(np.float32)
BYTES = np.dtype(np.uint8)

Float32 = NDArray[np.float32]
Layers = list[tuple[Float32, Float32]]


class Network:
    """The layers of an autoencoder, each as a weight and a bias, and the sizes of its images."""

    def __init__(self, model: Any) -> None:
        from ekmfast.autoencoder import ConvAutoencoder
        from ekmfast.autoencoder.export import Exported

        module = Exported(model).eval() if isinstance(model, ConvAutoencoder) else model._module
        self.encoder, self.decoder = _layers(module.encoder), _layers(module.decoder)
        self.image_size: int = model.image_size
        self.in_channels: int = model.in_channels
        self.latent_dim: int = model.latent_dim

    def encoded(self, graph: Graph, x: str) -> str:
        """Codes (n, latent_dim), float32, of images in [0, 1]."""
        *convolutions, linear = self.encoder
        for layer in convolutions:
            x = graph.add("Relu", _convolution(graph, "Conv", x, layer, stride=2))
        return _linear(graph, graph.add("Flatten", x, axis=1), linear)

    def decoded(self, graph: Graph, z: str) -> str:
        """Images of codes, in [0, 1]."""
        first, *convolutions, last = self.decoder
        side = self.image_size // 16
        channels = (convolutions or [last])[0][0].shape[0]
        shape = graph.constant([0, channels, side, side], np.int64)  # 0 keeps the number of images
        x = graph.add("Reshape", _linear(graph, z, first), shape)
        for layer in convolutions:
            x = graph.add("Relu", _convolution(graph, "ConvTranspose", x, layer, stride=2))
        if last[0].shape[-1] == 3:  # a plain convolution and a shuffle compute the last layer
            x = _convolution(graph, "Conv", x, last, stride=1)
            x = graph.add("DepthToSpace", x, blocksize=2, mode="CRD")
        else:
            x = _convolution(graph, "ConvTranspose", x, last, stride=2)
        return graph.add("Sigmoid", x)


def _layers(part: Any) -> Layers:
    values = [value.detach().cpu().float().numpy() for value in part.state_dict().values()]
    return list(zip(values[::2], values[1::2], strict=True))


def _convolution(
    graph: Graph, operator: str, x: str, layer: tuple[Float32, Float32], *, stride: int
) -> str:
    weight, bias = (graph.constant(values, SINGLE) for values in layer)
    return graph.add(operator, x, weight, bias, strides=[stride] * 2, pads=[1] * 4)


def _linear(graph: Graph, x: str, layer: tuple[Float32, Float32]) -> str:
    weight, bias = (graph.constant(values, SINGLE) for values in layer)
    return graph.add("Gemm", x, weight, bias, transB=1)


def floats(graph: Graph, images: str) -> str:
    """Images as float32 in [0, 1]."""
    if graph.taken != BYTES:
        return images
    return graph.add("Div", graph.cast(images, SINGLE), graph.constant(255, SINGLE))


def resized(graph: Graph, x: str, size: int) -> str:
    """Images of any height and width in the size of a model: bilinear, antialiased.

    Each pixel is a weighted mean of pixels, separately along the two axes. The weights fall
    linearly to 0 at a distance of one pixel of the coarser of the two pictures. They are computed
    in the graph, since heights and widths are known only there; the operator Resize of onnxruntime
    has other weights when it makes images smaller. If the size is right, the weights are 0 and 1.
    """
    shape = graph.add("Shape", x)
    height, width = (graph.add("Gather", shape, graph.constant(axis, np.int64)) for axis in (2, 3))
    rows = _weights(graph, height, size)
    columns = graph.add("Transpose", _weights(graph, width, size), perm=[1, 0])
    return graph.add("MatMul", graph.add("MatMul", rows, x), columns)


def _weights(graph: Graph, length: str, size: int) -> str:
    """Weights (size, length), float32, of the pixels along one axis."""
    zero, one = (graph.constant(value, np.int64) for value in (0, 1))
    old = graph.cast(graph.add("Range", zero, length, one), DOUBLE)
    half = graph.constant(0.5)
    old = graph.add("Unsqueeze", graph.add("Add", old, half), graph.constant([0], np.int64))
    step = graph.add("Div", graph.cast(length, DOUBLE), graph.constant(size))
    new = graph.add("Mul", graph.constant(np.arange(size)[:, None] + 0.5), step)
    distance = graph.add("Abs", graph.add("Sub", old, new))
    reach = graph.add("Max", step, graph.constant(1))
    share = graph.add("Sub", graph.constant(1), graph.add("Div", distance, reach))
    return graph.cast(nodes.divided_by_sum(graph, graph.add("Relu", share)), SINGLE)


def squared_error(graph: Graph, back: str, x: str) -> str:
    """Mean squared error (n,), float32, of each reconstruction."""
    error = graph.add("Sub", back, x)
    return graph.add("ReduceMean", graph.add("Mul", error, error), axes=[1, 2, 3], keepdims=0)


# ----------------------------------------------------------------------------------------------


def autoencoder(graph: Graph, images: str, model: Any) -> dict[str, str]:
    """Add the outputs of an autoencoder, or of one with clusters; return further metadata."""
    network = Network(model)
    x = floats(graph, images)
    z = network.encoded(graph, x)
    back = network.decoded(graph, z)
    graph.output("codes", z, SINGLE, network.latent_dim)
    metadata = _metadata(network)
    if hasattr(model, "n_clusters"):
        centroids, alpha = np.asarray(model.cluster_centers, np.float64), float(model.alpha)
        metric = getattr(model._module, "metric", "euclidean")  # which older files lack
        rows = graph.cast(z, DOUBLE)
        rows = nodes.unit_rows(graph, rows) if metric == "cosine" else rows
        d2 = nodes.squared_distances(graph, rows, centroids)
        merged = model._module.merged.cpu().numpy()
        label = nodes.merged_label(graph, nodes.nearest(graph, d2), merged)
        graph.output("labels", label, np.int64)
        memberships = graph.cast(nodes.boltzmann_memberships(graph, d2, alpha), SINGLE)
        graph.output("memberships", memberships, SINGLE, len(centroids))
        metadata |= {"alpha": repr(alpha), "n_clusters": str(len(centroids))}
        metadata |= {"metric": metric} if metric == "cosine" else {}
    else:
        shape = [network.in_channels, network.image_size, network.image_size]
        graph.output("reconstructions", back, SINGLE, *shape)
    graph.output("anomaly_loss", squared_error(graph, back, x), SINGLE)
    return metadata


def detector(graph: Graph, images: str, model: Any) -> dict[str, str]:
    """Add the outputs of an AutoencoderDetector; return further metadata."""
    network = Network(model.autoencoder_)
    x = resized(graph, floats(graph, images), network.image_size)
    z = network.encoded(graph, x)
    parts = []
    metadata = _metadata(network) | {"score": model.score, "offset": repr(float(model.offset_))}
    if model.score != "codes":
        parts.append(graph.add("Neg", squared_error(graph, network.decoded(graph, z), x)))
    if model.clusters_ is not None:
        clusters = model.clusters_.clustering_
        metadata["alpha"] = repr(float(clusters.alpha_))
        metadata["n_clusters"] = str(len(clusters.cluster_centers_))
        parts.append(nodes.scores(graph, graph.cast(z, DOUBLE), model.clusters_._normals))
    if len(parts) == 2:
        parts = [
            graph.add(
                "Div",
                graph.add("Sub", graph.cast(part, DOUBLE), graph.constant(middle)),
                graph.constant(spread),
            )
            for part, (middle, spread) in zip(parts, model._units, strict=True)
        ]
        both = graph.add("Mul", graph.add("Add", *parts), graph.constant(0.5))
        parts = [graph.cast(both, SINGLE)]
    (score,) = parts
    graph.output("score", score, SINGLE)
    graph.output("label", nodes.inlier_label(graph, score, model.offset_), np.int64)
    return metadata


def _metadata(network: Network) -> dict[str, str]:
    names = ("image_size", "in_channels", "latent_dim")
    return {name: str(getattr(network, name)) for name in names}
