"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ovseg_demo.errors import OutputError


def write_whole(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename; a kill or a full disk leaves no half of a file.

    The folder is made if it is not there. Several processes may write the same file: the last one's stays.

    Raises:
        OutputError: the file cannot be written.
    """
    _write(path, lambda temporary: temporary.write_bytes(content))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """The same with tensors, as safetensors."""
    _write(path, lambda temporary: save_file(dict(tensors), temporary, metadata=metadata))


def write_saved(path: Path, content: object) -> None:
    """The same with tensors and plain containers, as PyTorch saves them."""
    _write(path, lambda temporary: torch.save(content, temporary))


def write_text(path: Path, text: str) -> None:
    """The same with text, as UTF-8."""
    write_whole(path, text.encode("utf-8"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} cannot be written ({reason}); free some space or choose another place."
        ) from error
