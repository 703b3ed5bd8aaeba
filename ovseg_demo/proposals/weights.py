"""From a published SAM checkpoint to modules that hold its weights."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from ovseg_demo.errors import CheckpointError


def fill(parts: nn.ModuleDict, path: Path, name: str) -> None:
    """Give the modules the weights in a file, for inference; every key and shape has to match.

    Args:
        parts: modules under the names they have in the checkpoint.
        path: a state dict saved by PyTorch.
        name: the model that is wanted, for messages.

    Raises:
        CheckpointError: the file cannot be read, is no state dict, or one of another model.
    """
    state = _read(path)
    wanted = parts.state_dict()
    for key in sorted(wanted.keys() | state.keys()):
        if key not in state:
            raise CheckpointError(f"{path} is not {name}: it lacks {key}.")
        if key not in wanted:
            raise CheckpointError(f"{path} is not {name}, which has nothing called {key}.")
        if state[key].shape != wanted[key].shape:
            found, right = tuple(state[key].shape), tuple(wanted[key].shape)
            raise CheckpointError(f"{path} is not {name}: {key} has shape {found}, not {right}.")
    if broken := [key for key, value in state.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{path} holds NaN or infinite weights in {', '.join(broken[:5])}.")
    parts.load_state_dict(state, assign=True)
    parts.requires_grad_(False).eval()


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file."""
    try:
        with path.open("rb") as file:  # given a path, torch would go by the ending of its name
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"Cannot read the weights {path}: {error.strerror}.") from None
    except (RuntimeError, EOFError, LookupError, ValueError, pickle.UnpicklingError):
        raise CheckpointError(f"{path} is damaged or no PyTorch checkpoint; get the file again.") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no plain state dict, as the published SAM checkpoints do.")
    return state
