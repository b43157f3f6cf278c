"""Encoder and decoder of a file on a CPU, with weights in the layout in which oneDNN computes.

The modules of PyTorch keep weights in a layout of their own, and oneDNN converts them in every
call. For one image of the default model this takes about as long as the convolutions themselves.
Here the weights are converted once. The operators are those that ``torch.compile`` calls; they are
private to PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Step = Callable[[torch.Tensor], torch.Tensor]
Layer = tuple[torch.Tensor, torch.Tensor]

# oneDNN chooses the layout for a number of images; at other numbers the results are the same. This
# is the default of ``batch_size``; the layout for it was as fast as others for a single image too.
N_IMAGES = 256
OPERATORS = (
    "_reorder_convolution_weight",
    "_reorder_convolution_transpose_weight",
    "_reorder_linear_weight",
    "_convolution_pointwise",
    "_convolution_transpose_pointwise",
    "_linear_pointwise",
)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the operators, and this processor instructions for the dtype."""
    operators = torch.ops.mkldnn
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        # On other processors than x86-64 oneDNN calls other libraries; that was not tried.
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and all(hasattr(operators, name) for name in OPERATORS)
        and (dtype == torch.float32 or operators._is_mkldnn_bf16_supported())
    )


def packed_encoder(part: Any, image_size: int, dtype: torch.dtype) -> Step:
    """The encoder of an exported model as one function."""
    *convolutions, (weight, bias) = _layers(part, dtype)
    steps: list[Step] = []
    for i, layer in enumerate(convolutions):
        steps.append(_convolution(layer, image_size // 2**i, stride=2, after="relu"))
    return _chain([*steps, lambda x: x.flatten(1), _linear(weight, bias)])


def packed_decoder(part: Any, image_size: int, dtype: torch.dtype) -> Step:
    """The decoder of an exported model as one function."""
    (weight, bias), *convolutions, last = _layers(part, dtype)
    side = image_size // 16
    steps = [_linear(weight, bias), lambda z: z.unflatten(1, (-1, side, side))]
    for i, layer in enumerate(convolutions):
        steps.append(_transposed(layer, side * 2**i, after="relu"))
    if last[0].shape[-1] == 3:  # a plain convolution and a shuffle compute the last layer
        steps += [
            _convolution(last, image_size // 2, stride=1, after="none"),
            lambda x: torch.pixel_shuffle(x, 2),
        ]
    else:
        steps.append(_transposed(last, image_size // 2, after="none"))
    return _chain([*steps, torch.sigmoid])


def _layers(part: Any, dtype: torch.dtype) -> list[Layer]:
    values = [value.detach().to(dtype) for value in part.state_dict().values()]
    return list(zip(values[::2], values[1::2], strict=True))


def _chain(steps: list[Step]) -> Step:
    def compute(x: torch.Tensor) -> torch.Tensor:
        for step in steps:
            x = step(x)
        return x

    return compute


def _convolution(layer: Layer, size: int, *, stride: int, after: str) -> Step:
    """A convolution of images of this height and width, and what comes after it."""
    weight, bias = layer
    operators: Any = torch.ops.mkldnn
    pads, strides, ones = [1, 1], [stride, stride], [1, 1]
    shape = [N_IMAGES, weight.shape[1], size, size]
    packed = operators._reorder_convolution_weight(weight, pads, strides, ones, 1, shape)

    def compute(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = operators._convolution_pointwise(
            x, packed, bias, pads, strides, ones, 1, after, [], ""
        )
        return result

    return compute


def _transposed(layer: Layer, size: int, *, after: str) -> Step:
    weight, bias = layer
    operators: Any = torch.ops.mkldnn
    zeros, ones, twos = [0, 0], [1, 1], [2, 2]
    shape = [N_IMAGES, weight.shape[0], size, size]
    packed = operators._reorder_convolution_transpose_weight(
        weight, ones, zeros, twos, ones, 1, shape
    )

    def compute(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = operators._convolution_transpose_pointwise(
            x, packed, bias, ones, zeros, twos, ones, 1, after, [], ""
        )
        return result

    return compute


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> Step:
    operators: Any = torch.ops.mkldnn
    packed = operators._reorder_linear_weight(weight, N_IMAGES)

    def compute(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = operators._linear_pointwise(x, packed, bias, "none", [], "")
        return result

    return compute
