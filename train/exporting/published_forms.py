"""One file in OpenAI's or OVSeg's key format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ovseg_demo.clip.checkpoints import build_clip, read_checkpoint, read_entries
from ovseg_demo.errors import CheckpointError
from train.core.files import write_saved
from train.exporting.weights import arm_file, read_config


def write_published(weights: Path, out: Path, form: Literal["openai", "ovseg"]) -> None:
    """Write a CLIP in a published form, every number with the type it has.

    Raises:
        CheckpointError: the weights are no CLIP vision transformer.
        OutputError: the file cannot be written.
    """
    entries = vit_entries(arm_file(weights))
    content: dict[str, Any] = entries
    if form == "ovseg":
        named = {f"module.{key}": value for key, value in entries.items()}
        content = {"epoch": 0, "name": arm_file(weights).stem, "state_dict": named}
    write_saved(out, content)


def vit_entries(path: Path) -> dict[str, Tensor]:
    """The entries of a CLIP vision transformer as they are stored, checked to be a whole one.

    Raises:
        CheckpointError: they are something else.
    """
    if (path.parent / "config.json").is_file() and read_config(path.parent).get(
        "architecture"
    ) == "ovseg-mini":
        raise CheckpointError(f"{path} is an ovseg-mini, which no published form can hold: use --form demo.")
    build_clip(read_checkpoint(path), source=path)
    return read_entries(path)
