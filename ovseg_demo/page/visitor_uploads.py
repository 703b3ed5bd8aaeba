"""What the viewer uploads beside photos: a visitor's memory and corrections, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_demo.errors import CorrectionError

if TYPE_CHECKING:
    from ovseg_demo.memory import Memory
    from ovseg_demo.teaching import TaughtPrompts

__all__ = ["GoneError", "read_json", "read_memory", "read_prompts", "uploaded_file"]

_MAX_JSON_BYTES = 20_000_000


class GoneError(CorrectionError):
    """An upload is no longer on the server."""


def uploaded_file(path: object, folder: Path) -> Path:
    """A file that was uploaded.

    Args:
        path: from anybody.
        folder: that uploads lie in.

    Raises:
        GoneError: it is not there, or lies elsewhere.
    """
    try:
        file = Path(str(path)).resolve()
        if file.is_relative_to(folder.resolve()) and file.is_file():
            return file
    except (OSError, ValueError, RuntimeError):
        pass
    raise GoneError("What was sent along is no longer on the server; please try again.")


def read_memory(file: Path) -> Memory:
    """A visitor's memory, as the viewer sends it or as `memory.safetensors`.

    Raises:
        CorrectionError: it is no memory, or holds too much.
    """
    from ovseg_demo.memory import Memory

    with file.open("rb") as opened:
        begins = opened.read(1)
    return Memory.from_json(read_json(file)) if begins == b"{" else Memory.load(file)


def read_prompts(file: Path) -> TaughtPrompts:
    """Prompts that a visitor has taught.

    Raises:
        CheckpointError: it is no such file.
    """
    from ovseg_demo.teaching import TaughtPrompts

    return TaughtPrompts.load(file)


def read_json(file: Path) -> Any:
    """Parsed JSON.

    Raises:
        CorrectionError: it is none, or is too large.
    """
    if file.stat().st_size > _MAX_JSON_BYTES:
        raise CorrectionError(f"The file has more than {_MAX_JSON_BYTES / 1e6:.0f} MB; send a smaller one.")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise CorrectionError("The file is no JSON, or is damaged; export it again.") from None
