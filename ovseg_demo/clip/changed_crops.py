"""The first layers of a stem for crops that differ from a known crop in one box each.

A box reaches some pixels of a feature map, and these depend on some pixels around the box: only that window
goes through the layers, and what the box reaches of it is put into the map of the known crop. The result is
that of the whole crops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the crop; right and bottom exclusive."""


@dataclass(frozen=True)
class Reach:
    """Which input pixels an output pixel of some layers depends on, along either axis.

    Output pixel o sees input pixels stride * o - before ... stride * o + after.
    """

    stride: int
    before: int
    after: int


@dataclass(frozen=True)
class _Span:
    """Along one axis: outputs that a box changes, and where the window starts and ends that they need."""

    first: int
    last: int
    start: int
    end: int


def changed_maps(
    layers: Callable[[Tensor], Tensor], reach: Reach, known: Tensor, crops: Tensor, boxes: Sequence[Box]
) -> Tensor:
    """What layers give for crops that equal a known crop outside of a box each.

    Args:
        layers: convolutions that pad a window as they pad a whole crop.
        reach: of the layers.
        known: (1, C, S / stride, S / stride) what they give for the known crop.
        crops: (B, 3, S, S), S a multiple of the stride.
        boxes: B of them, each with at least one pixel.

    Returns:
        (B, C, S / stride, S / stride), the same as `layers(crops)` up to rounding.
    """
    size, stride = crops.shape[-1], reach.stride
    spans = [(_span(left, right, reach), _span(top, bottom, reach)) for left, top, right, bottom in boxes]
    widest = max((one.end - one.start for pair in spans for one in pair), default=0)
    side = min(size, -(-widest // stride) * stride)
    starts = [tuple(min(max(one.start, 0), size - side) for one in pair) for pair in spans]
    windows = [crop[:, y : y + side, x : x + side] for crop, (x, y) in zip(crops, starts, strict=True)]
    maps = known.repeat(len(crops), 1, 1, 1).contiguous(memory_format=torch.channels_last)
    if not windows:
        return maps
    found = layers(torch.stack(windows).contiguous(memory_format=torch.channels_last))
    for number, ((across, down), (x, y)) in enumerate(zip(spans, starts, strict=True)):
        left, top = max(across.first, 0), max(down.first, 0)
        right, bottom = (min(one.last + 1, size // stride) for one in (across, down))
        part = found[number, :, top - y // stride : bottom - y // stride]
        maps[number, :, top:bottom, left:right] = part[..., left - x // stride : right - x // stride]
    return maps


def _span(low: int, high: int, reach: Reach) -> _Span:
    stride = reach.stride
    first, last = -((reach.after - low) // stride), (high - 1 + reach.before) // stride
    start = (stride * first - reach.before) // stride * stride
    return _Span(first, last, start, stride * last + reach.after + 1)
