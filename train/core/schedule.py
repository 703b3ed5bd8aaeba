"""Learning rate, weight decay groups and the moving average, shared by every training command."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


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


class EMA:
    """Exponential moving average of the trainable parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values: dict[str, Tensor] = {n: p.detach().clone() for n, p in _trainable(model)}
        self.frozen = {n: v for n, v in deepcopy(model.state_dict()).items() if n not in self.values}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model; the first updates weigh more, so that the start is soon forgotten."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in _trainable(model):
            self.values[name].lerp_(parameter.detach(), 1 - decay)

    def copy_into(self, model: M) -> M:
        """Load the averaged weights, the frozen ones as they are, into a model of the same shape."""
        model.load_state_dict({**self.frozen, **self.values})
        return model


def _trainable(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
