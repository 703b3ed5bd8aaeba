"""New mask prompts in an image tower of any kind."""

from __future__ import annotations

from typing import Any

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mask_prompts import MaskPrompts
from ovseg_demo.clip.towers import OpenClipImageTower
from ovseg_demo.errors import ModelError


def add_prompts(clip: MaskAdaptedCLIP, depth: int) -> MaskPrompts:
    """Replace the tower's prompts by untrained ones (normal, deviation 0.02) and return them.

    Raises:
        ModelError: the tower has no tokens that prompts could replace.
    """
    tower: Any = clip.image_tower
    if isinstance(tower, OpenClipImageTower):
        raise ModelError(
            f"The image tower of {clip.name} has no tokens that mask prompts could replace; choose a vision "
            "transformer with a class token."
        )
    table = tower.positional_embedding if hasattr(tower, "trunk") else tower.visual.positional_embedding
    prompts = MaskPrompts(depth, tower.grid**2, int(table.shape[1])).to(clip.device)
    tower.prompts = prompts
    return prompts
