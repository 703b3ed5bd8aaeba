"""Files of tensors that are written whole or not at all; text and bytes are `ovseg_demo.files`' own."""

from __future__ import annotations

from pathlib import Path

import torch

from ovseg_demo.files import whole_file, write_text, write_whole
from ovseg_demo.weight_files import write_tensors

__all__ = ["write_saved", "write_tensors", "write_text", "write_whole"]


def write_saved(path: Path, content: object) -> None:
    """Write tensors and plain containers as PyTorch saves them.

    Raises:
        OutputError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what PyTorch's writer makes of a full disk
            raise OSError(str(error)) from error
