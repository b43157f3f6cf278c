"""Simplify a network for export: the copy needs less arithmetic and is equal up to rounding."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# A transposed convolution with kernel 4, stride 2 and padding 1 computes in one dimension
#   y[2i] = w[3] x[i-1] + w[1] x[i],   y[2i+1] = w[2] x[i] + w[0] x[i+1].
# So even and odd outputs are plain convolutions with kernels of 3. For each parity: index in the
# kernel of 3 -> index in w.
TAPS = ({0: 3, 1: 1}, {1: 2, 2: 0})


def folded(part: nn.Sequential) -> nn.Sequential:
    """A faster copy of an encoder or decoder, in evaluation mode.

    - Batch normalisations are folded into the convolutions before them, that of the code into the
      linear layer. ``torch.jit.freeze`` does this too, but turns the weights into constants, which
      cannot be moved to another device.
    - ReLU works in place, since allocating new memory costs more than the arithmetic.
    - The last transposed convolution, which has one or three output channels, becomes a plain
      convolution with four times as many, followed by a pixel shuffle. PyTorch's transposed
      convolution takes five times as long for so few channels.
    """
    layers: list[nn.Module] = []
    for layer in copy.deepcopy(part).eval():
        if isinstance(layer, nn.BatchNorm2d):
            transposed = isinstance(layers[-1], nn.ConvTranspose2d)
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer, transpose=transposed)
        elif isinstance(layer, nn.BatchNorm1d):
            layers[-1] = _normalized(layers[-1], layer)
        elif isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU(inplace=True))
        else:
            layers.append(layer)
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.ConvTranspose2d) and layer.out_channels <= 4:
            layers[i] = as_convolution(layer)
    return nn.Sequential(*layers)


def _normalized(linear: nn.Linear, norm: nn.BatchNorm1d) -> nn.Linear:
    """A linear layer and a batch normalisation without weights as one linear layer.

    (W x + b - m) / s = (W / s) x + (b - m) / s with s = sqrt(v + eps).
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    linear.weight = nn.Parameter(linear.weight.detach() * scale[:, None])
    linear.bias = nn.Parameter((linear.bias.detach() - norm.running_mean) * scale)
    return linear


def as_convolution(layer: nn.ConvTranspose2d) -> nn.Sequential:
    """A transposed convolution (kernel 4, stride 2, padding 1) as a plain one and a shuffle."""
    channels, out = layer.in_channels, layer.out_channels
    kernel = layer.weight.new_zeros(out, 2, 2, channels, 3, 3)
    for row, row_taps in enumerate(TAPS):
        for column, column_taps in enumerate(TAPS):
            for i, u in row_taps.items():
                for j, v in column_taps.items():
                    kernel[:, row, column, :, i, j] = layer.weight[:, :, u, v].detach().T
    plain = nn.Conv2d(channels, 4 * out, 3, 1, 1)
    plain.weight = nn.Parameter(kernel.reshape(4 * out, channels, 3, 3))
    assert layer.bias is not None
    plain.bias = nn.Parameter(torch.repeat_interleave(layer.bias.detach(), 4))
    return nn.Sequential(plain, nn.PixelShuffle(2))
