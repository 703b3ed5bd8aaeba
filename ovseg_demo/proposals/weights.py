"""From a published SAM checkpoint to modules that hold its weights."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weight_files import (
    check_finite,
    check_names_and_shapes,
    entries_of,
    file_label,
    first_keys,
    read_file,
)


def load_weights(parts: nn.ModuleDict, path: Path, name: str) -> None:
    """Give the modules the weights in a file, for inference; every key and shape has to match.

    Args:
        parts: modules under the names they have in the checkpoint.
        path: a state dict as PyTorch or safetensors saves it.
        name: the model that is wanted, for messages.

    Raises:
        CheckpointError: the file cannot be read, is no state dict, or one of another model.
    """
    entries = entries_of(read_file(path), path)
    state = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    if others := [key for key in entries if key not in state]:
        raise CheckpointError(f"{file_label(path)} has no weights in {first_keys(others)}.")
    wanted = {key: value.shape for key, value in parts.state_dict().items()}
    check_names_and_shapes(state, wanted, f"{path} is not {name}")
    check_finite(state, path)
    parts.load_state_dict(state, assign=True)
    parts.requires_grad_(False).eval()
