"""New mask prompts in an image tower of any kind."""

from __future__ import annotations

from typing import Any

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mask_prompts import MaskPrompts


def add_prompts(clip: MaskAdaptedCLIP, depth: int) -> MaskPrompts:
    """Replace the tower's prompts by untrained ones (normal, deviation 0.02) and return them."""
    tower: Any = clip.image_tower
    table = tower.positional_embedding if hasattr(tower, "trunk") else tower.visual.positional_embedding
    prompts = MaskPrompts(depth, tower.grid**2, int(table.shape[1])).to(clip.device)
    tower.prompts = prompts
    return prompts
