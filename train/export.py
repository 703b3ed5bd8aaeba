"""Write trained weights in the layout that the demo loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from ovseg_demo.clip.mini import MiniImageTower, MiniShape, shape_record


def save_mini(
    folder: Path,
    tower: MiniImageTower,
    text_projection: Tensor,
    arm: Literal["vanilla", "adapted"],
    *,
    score_scale: float = 30.0,
    shape: MiniShape | None = None,
) -> Path:
    """Write one arm of ovseg-mini, `<arm>.safetensors` in float16 and `config.json` beside it.

    Returns:
        The path of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"visual.{name}": value for name, value in tower.state_dict().items()}
    tensors["text.projection.weight"] = text_projection
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in tensors.items()}
    path = folder / f"{arm}.safetensors"
    save_file(half, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    config = {
        "architecture": "ovseg-mini",
        "score_scale": round(score_scale, 3),
        **shape_record(shape or MiniShape()),
    }
    temporary = folder / "config.json.part"
    temporary.write_text(json.dumps(config, indent=2) + "\n")
    temporary.replace(folder / "config.json")
    return path
