"""The training state in one file, replaced whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ovseg_demo.errors import OvsegError
from train.core.files import write_saved
from train.core.schedule import trainable


class ResumeError(OvsegError):
    """The settings differ from those of the run to resume, or its checkpoint cannot be read."""


MAY_CHANGE = frozenset({"out", "data", "work", "save_every", "workers", "keep"})
"""Settings that do not change what is computed."""


def save_training_state(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: AveragedModel | None,
    step: int,
    settings: dict[str, Any],
) -> None:
    """Write the checkpoint whole: a full disk or a kill leaves the last good file.

    Raises:
        OutputError: the file cannot be written.
    """
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": None if ema is None else {"values": trainable(ema.module), "updates": int(ema.n_averaged)},
        "torch_rng": torch.get_rng_state(),
        "settings": _comparable(settings),
    }
    write_saved(path, state)


def load_training_state(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: AveragedModel | None,
    settings: dict[str, Any],
) -> int:
    """Restore a run where a checkpoint exists; returns the step to resume at, 0 for a new run.

    Raises:
        ResumeError: the checkpoint cannot be read, or belongs to other settings (the first that differs is
            named) or to another architecture.
    """
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before = state["settings"]
    except (OSError, RuntimeError, EOFError, LookupError, TypeError, pickle.UnpicklingError) as error:
        raise ResumeError(f"{path} cannot be read as a checkpoint; delete it to start anew.") from error
    now = _comparable(settings)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise ResumeError(
                f"{path} was made with {name}={before.get(name)} and not {now.get(name)}: "
                "give the same setting to go on, or another folder to start anew."
            )
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ResumeError(
            f"{path} is of another architecture than the model; give another folder to start anew."
        ) from error
    optimiser.load_state_dict(state["optimiser"])
    if ema is not None and state["average"] is not None:
        for name, value in trainable(ema.module).items():
            value.copy_(state["average"]["values"][name])
        ema.n_averaged.fill_(state["average"]["updates"])
    torch.set_rng_state(state["torch_rng"])
    return int(state["step"])


def _comparable(settings: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items() if name not in MAY_CHANGE}
