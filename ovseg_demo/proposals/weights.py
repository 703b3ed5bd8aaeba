"""From a published SAM checkpoint to modules that hold its weights."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weight_files import check_finite, check_names_and_shapes


def load_weights(parts: nn.ModuleDict, path: Path, name: str) -> None:
    """Give the modules the weights in a file, for inference; every key and shape has to match.

    Args:
        parts: modules under the names they have in the checkpoint.
        path: a state dict saved by PyTorch.
        name: the model that is wanted, for messages.

    Raises:
        CheckpointError: the file cannot be read, is no state dict, or one of another model.
    """
    state = _read(path)
    wanted = {key: value.shape for key, value in parts.state_dict().items()}
    check_names_and_shapes(state, wanted, f"{path} is not {name}")
    check_finite(state, path)
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
