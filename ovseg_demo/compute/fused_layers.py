"""Convolutions and linear layers that apply their activation, or a sum, as they write their output.

PyTorch runs an activation as a step of its own, which reads and writes the whole output again and takes a
third of the time of small networks on a CPU. oneDNN, the library behind PyTorch's layers on x86, does both in
one step; PyTorch's compiler calls it by the operators used here. Where they are missing, elsewhere than on a
CPU, and where gradients are wanted, the plain layers run. Results differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["none", "relu6", "gelu"]

_ONEDNN: dict[Activation, tuple[str, Sequence[float], str]] = {
    "none": ("none", (), ""),
    "relu6": ("hardtanh", (0.0, 6.0), ""),
    "gelu": ("gelu", (), "none"),
}
# Each is called by the name of its overload: to choose one by itself, PyTorch tries to read a bias as a list
# of numbers, element by element, which takes longer than a small layer.
_INTEL_OPERATORS: Any = torch.ops.mkldnn


def runs_fused(x: Tensor) -> bool:
    """Whether layers on this tensor run in one step with their activation."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or not torch.backends.mkldnn.enabled:
        return False
    return x.dtype in _fused_dtypes() and x.numel() > 0


@lru_cache(maxsize=1)
def _fused_dtypes() -> tuple[torch.dtype, ...]:
    """Number types of the fused operators; none where PyTorch was built without them."""
    if not torch.backends.mkldnn.is_available():
        return ()
    if not all(hasattr(_INTEL_OPERATORS, f"_{kind}_pointwise") for kind in ("convolution", "linear")):
        return ()
    in_bfloat16 = getattr(_INTEL_OPERATORS, "_is_mkldnn_bf16_supported", None)
    if in_bfloat16 is not None and in_bfloat16():
        return torch.float32, torch.bfloat16
    return (torch.float32,)


def convolve(
    layer: nn.Conv2d,
    x: Tensor,
    activation: Activation = "none",
    added: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    padding: tuple[int, int] | None = None,
) -> Tensor:
    """A convolution, `added` on top of it, and the activation of their sum.

    Args:
        layer: padded by zeros or not at all.
        x: (B, C, H, W).
        activation: of the sum.
        added: of the output's shape; None = nothing.
        weight: in the place of the layer's.
        padding: rows and columns on each side, in the place of the layer's.
    """
    kernel = layer.weight if weight is None else weight
    pad = cast(tuple[int, int], layer.padding) if padding is None else padding
    if not runs_fused(x):
        out = functional.conv2d(x, kernel, layer.bias, layer.stride, pad, layer.dilation, layer.groups)
        return _activate(out if added is None else out + added, activation)
    name, numbers, kind = _ONEDNN[activation]
    sizes = list(pad), list(layer.stride), list(layer.dilation), layer.groups
    weights = kernel, layer.bias
    if added is None:
        return cast(
            Tensor,
            _INTEL_OPERATORS._convolution_pointwise.default(x, *weights, *sizes, name, list(numbers), kind),
        )
    # The operator has no activation but ReLU behind a sum.
    out = _INTEL_OPERATORS._convolution_pointwise.binary(
        x, added, *weights, *sizes, "add", 1.0, None, [], None
    )
    return _activate(out, activation)


def project(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation = "none",
    added: Tensor | None = None,
) -> Tensor:
    """A linear layer, `added` on top of it, and the activation of their sum.

    Args:
        x: (..., C).
        weight: (D, C).
        bias: (D,); None = none.
        activation: of the sum.
        added: (..., D); None = nothing.

    Returns:
        (..., D).
    """
    if not runs_fused(x):
        out = functional.linear(x, weight, bias)
        return _activate(out if added is None else out + added, activation)
    name, numbers, kind = _ONEDNN[activation]
    if added is None:
        return cast(
            Tensor, _INTEL_OPERATORS._linear_pointwise.default(x, weight, bias, name, list(numbers), kind)
        )
    return _activate(_INTEL_OPERATORS._linear_pointwise.binary(x, added, weight, bias, "add"), activation)


def _activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu6":
        return functional.relu6(x)
    return functional.gelu(x) if activation == "gelu" else x
