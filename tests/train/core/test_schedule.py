"""The moving average follows its formula and survives a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from train.core.checkpointing import load_training_state, save_training_state
from train.core.schedule import ema_model, trainable


def walk(model: nn.Linear, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """Move the weights at random; returns them after each step."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(steps):
        model.weight.data += torch.randn(model.weight.shape, generator=generator)
        seen.append(model.weight.detach().clone())
    return seen


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_an_update_keeps_the_decay_and_less_at_the_start(decay: float) -> None:
    model = nn.Linear(3, 2)
    ema = ema_model(model, decay)
    wanted = None
    for count, weight in enumerate(walk(nn.Linear(3, 2), 30)):
        model.weight.data = weight
        ema.update_parameters(model)
        kept = min(decay, (1 + count) / (10 + count))
        wanted = weight if wanted is None else kept * wanted + (1 - kept) * weight
    assert wanted is not None
    torch.testing.assert_close(ema.module.weight.detach(), wanted)


def test_what_is_frozen_stays_bit_for_bit() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    before = model.bias.clone()
    ema = ema_model(model, 0.9)
    for weight in walk(nn.Linear(3, 2), 9):
        model.weight.data = weight
        ema.update_parameters(model)
    assert torch.equal(ema.module.bias, before)
    assert set(trainable(ema.module)) == {"weight"}


def test_a_resumed_average_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    ema = ema_model(model, 0.9)
    walk(model, 1)
    for _ in range(4):
        ema.update_parameters(model)
    save_training_state(tmp_path / "state.pt", model, optimiser, ema, 4, {})
    other = nn.Linear(3, 2)
    resumed = ema_model(other, 0.9)
    optimiser = torch.optim.AdamW(other.parameters())
    assert load_training_state(tmp_path / "state.pt", other, optimiser, resumed, {}) == 4
    for one, average in ((model, ema), (other, resumed)):
        walk(one, 3, seed=1)
        average.update_parameters(one)
    assert torch.equal(ema.module.weight, resumed.module.weight)
    assert int(resumed.n_averaged) == 5
