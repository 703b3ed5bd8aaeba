"""Learning rate, weight decay groups and the moving average, shared by every training command."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def cosine_rate(
    optimiser: torch.optim.Optimizer, step: int, steps: int, warmup: int, highest: float
) -> float:
    """Set the rate of a step: linear warm-up, then a cosine down to 0 over all steps (open_clip's rule).

    A parameter group may carry a `share` that multiplies it.
    """
    if step < warmup:
        rate = highest * (step + 1) / warmup
    else:
        rate = highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
    return rate


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters, weight decay on matrices only (none on norms, biases and temperatures)."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in trainable if p.ndim < 2 or "embedding" in name]
    decayed = [p for name, p in trainable if not (p.ndim < 2 or "embedding" in name)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def ema_model(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of a model's parameters.

    The decay of update n is at most (1 + n) / (10 + n), so that the start is soon forgotten.

    Args:
        model: what is averaged; its copy is `.module` of the result.
        decay: share of the average that an update keeps, at least 0 and below 1.
    """

    def update(averaged: Any, current: Any, updates: Tensor | int) -> None:
        count = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averaged, current, updates)

    return AveragedModel(model, multi_avg_fn=update)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Name and value of each parameter that takes gradients."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
