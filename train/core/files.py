"""Write training states whole or not at all; other writers come from `ovseg_demo`."""

from __future__ import annotations

from pathlib import Path

import torch

from ovseg_demo.files import atomic_file, write_bytes, write_text
from ovseg_demo.weight_files import write_tensors

__all__ = ["write_bytes", "write_saved", "write_tensors", "write_text"]


def write_saved(path: Path, content: object) -> None:
    """Write tensors and plain containers as PyTorch saves them.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # PyTorch's writer raises this on a full disk
            raise OSError(str(error)) from error
