"""Read a file of weights and take tensors out of it; no code of the file runs."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ovseg_demo.errors import CheckpointError, quoted
from ovseg_demo.weight_files.torchscript import read_torchscript

__all__ = [
    "check_finite",
    "check_names_and_shapes",
    "entries_of",
    "file_label",
    "first_keys",
    "read_file",
    "tensor_of",
]

# What readers raise when bytes are not what they expect.
_DAMAGES = (
    zipfile.BadZipFile,
    SafetensorError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)


def read_file(path: Path) -> object:
    """What the file holds, as plain containers and tensors on the CPU.

    Raises:
        CheckpointError: it cannot be read, is cut short or damaged, or holds more than tensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{file_label(path)} cannot be read: {error.strerror}.") from error
    if not head:
        raise CheckpointError(f"{file_label(path)} is empty; fetch it again.")
    try:
        if head[4:9] == b"\0\0\0\0{":
            _check_safetensors_length(path, size, int.from_bytes(head[:8], "little"))
            return load_file(path)
        if head.startswith(b"PK") and _is_torchscript(path):
            return read_torchscript(path)
        if head.startswith((b"PK", b"\x80")):
            with path.open("rb") as file:  # given a path, torch decides by the ending of its name
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "truncated" not in str(error):
            raise CheckpointError(
                f"{file_label(path)} is refused: it holds more than tensors, and reading that could run code."
            ) from error
        raise CheckpointError(f"{file_label(path)} is cut short; fetch it again.") from error
    except _DAMAGES as error:
        raise CheckpointError(f"{file_label(path)} is cut short or damaged; fetch it again.") from error
    start = quoted(head.decode("latin-1"), 30)
    raise CheckpointError(f"{file_label(path)} is no file of PyTorch or safetensors: it begins with {start}.")


def entries_of(content: object, path: Path) -> dict[str, object]:
    """The named entries of a file's content, without the wrappers of training programs.

    Raises:
        CheckpointError: it holds no dictionary with names.
    """
    if isinstance(content, Mapping):
        wrapped = [content[k] for k in ("state_dict", "model") if isinstance(content.get(k), Mapping)]
        content = wrapped[0] if wrapped else content
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(
            f"{file_label(path)} holds {type(content).__name__}, not a dictionary of weights."
        )
    return {key.removeprefix("module."): value for key, value in content.items()}


def tensor_of(entries: Mapping[str, object], key: str, path: Path, *, as_stored: bool = False) -> Tensor:
    """One entry as float32, or in the number type it is stored in.

    Raises:
        CheckpointError: it is no floating-point tensor.
    """
    value = entries[key]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
        raise CheckpointError(f"{file_label(path)} has {kind} where weights belong: {key}.")
    return (value.detach() if as_stored else value.detach().float()).contiguous()


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise `CheckpointError` if weights are no numbers."""
    broken = [key for key, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{file_label(path)} holds NaN or infinite weights in {first_keys(broken)}.")


def check_names_and_shapes(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Sequence[int]], subject: str
) -> None:
    """Refuse weights that are not exactly the wanted ones.

    Args:
        weights: by name.
        wanted: their shapes by name.
        subject: how the message begins, such as "The checkpoint 'x.pt' is not the CLIP it looks like".

    Raises:
        CheckpointError: names what is missing, unknown or of another shape.
    """
    missing = [key for key in wanted if key not in weights]
    unknown = [key for key in weights if key not in wanted]
    misshapen = [
        f"{key} of shape {tuple(weights[key].shape)} where {tuple(shape)} fits"
        for key, shape in wanted.items()
        if key in weights and tuple(weights[key].shape) != tuple(shape)
    ]
    kinds = (("lacks", missing), ("has unknown", unknown), ("has", misshapen))
    if faults := [f"{what} {first_keys(keys)}" for what, keys in kinds if keys]:
        raise CheckpointError(f"{subject}: it {' and '.join(faults)}.")


def _is_torchscript(path: Path) -> bool:
    """Tell TorchScript's archives from plain ones; `CheckpointError` for a zip file of something else."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(
            f"{file_label(path)} is a zip archive without weights: it has {first_keys(names)}."
        )
    return any(name.endswith("/constants.pkl") for name in names)


def _check_safetensors_length(path: Path, size: int, header: int) -> None:
    """Raise `EOFError` for a file that ends before its header says."""
    with path.open("rb") as file:
        file.seek(8)
        described = file.read(min(header, size))
    if len(described) < header:
        raise EOFError(path)
    ends = [v["data_offsets"][1] for k, v in json.loads(described).items() if k != "__metadata__"]
    if size < 8 + header + max(ends, default=0):
        raise EOFError(path)


def file_label(path: Path) -> str:
    return f"The checkpoint {quoted(path.name)}"


def first_keys(keys: list[str], most: int = 5) -> str:
    """The first few keys and how many there are."""
    if len(keys) <= most:
        return ", ".join(keys)
    return f"{', '.join(keys[:most])} and {len(keys) - most} more ({len(keys)} in all)"
