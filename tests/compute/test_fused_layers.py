"""Layers in one step with their activations give what the plain layers give, and know when they may."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from ovseg_demo.compute.fused_layers import Activation, convolve, project, runs_fused

PLAIN = {"none": lambda x: x, "relu6": functional.relu6, "gelu": functional.gelu}
ACTIVATIONS: tuple[Activation, ...] = ("none", "relu6", "gelu")


def picture(count: int = 2) -> Tensor:
    """(count, 8, 9, 13), channels last."""
    return (3 * torch.randn(count, 8, 9, 13)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride, padding, groups", [(1, 1, 1), (2, 0, 1), (2, 1, 8)])
def test_convolutions(activation: Activation, stride: int, padding: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 16, 3, stride=stride, padding=padding, groups=groups)
    x = picture()
    expected = layer(x).detach()
    added = torch.randn_like(expected)
    with torch.inference_mode():
        torch.testing.assert_close(convolve(layer, x, activation), PLAIN[activation](expected))
        both = convolve(layer, x, activation, added)
    torch.testing.assert_close(both, PLAIN[activation](expected + added))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_sum", [False, True])
def test_linear_layers(activation: Activation, with_sum: bool) -> None:
    torch.manual_seed(1)
    layer, x = nn.Linear(8, 5), torch.randn(2, 3, 4, 8)
    added = torch.randn(2, 3, 4, 5) if with_sum else None
    expected = PLAIN[activation](layer(x) if added is None else layer(x) + added).detach()
    with torch.no_grad():
        fused = project(x, layer.weight, layer.bias, activation, added)
    torch.testing.assert_close(fused, expected)


def test_gradients_pass_through_the_plain_layers() -> None:
    layer, x = nn.Conv2d(8, 8, 1), picture().requires_grad_()
    assert not runs_fused(x)
    convolve(layer, x, "gelu", added=x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert x.grad.abs().sum() > 0


@torch.inference_mode()
def test_no_layer_with_a_sum_reads_a_bias_number_by_number() -> None:
    # It would if PyTorch had to find out which of an operator's overloads is meant.
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    convolution, seen = nn.Conv2d(8, 8, 1), picture()
    assert runs_fused(x) == torch.backends.mkldnn.is_available()
    with profile(activities=[ProfilerActivity.CPU]) as work:
        project(x, layer.weight, layer.bias, "gelu", added=x)
        convolve(convolution, seen, "relu6", added=seen)
    steps = [step.key for step in work.key_averages()]
    assert any("pointwise" in step or "convolution" in step for step in steps)
    assert "aten::item" not in steps


@torch.inference_mode()
def test_an_empty_batch_has_an_empty_output() -> None:
    assert convolve(nn.Conv2d(8, 4, 1), picture(0), "relu6").shape == (0, 4, 9, 13)


@torch.inference_mode()
def test_number_types_without_fused_operators_run_in_two_steps() -> None:
    layer, x = nn.Linear(8, 4).double(), torch.randn(2, 8, dtype=torch.float64)
    torch.testing.assert_close(project(x, layer.weight, layer.bias, "gelu"), functional.gelu(layer(x)))
