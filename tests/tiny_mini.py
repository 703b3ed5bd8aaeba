"""An ovseg-mini of random weights with all its arms."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ovseg_demo.clip.context import ContextConfig, ContextHead, pool_crop, pool_photo
from ovseg_demo.clip.mini import MiniConfig, MiniImageTower
from train.exporting.weights import save_context, save_mini

SMALL = ContextConfig(hidden=32, photo_short_px=64, photo_long_px=160)


def write_mini(folder: Path) -> Path:
    """Write vanilla, adapted and context; returns the folder."""
    torch.manual_seed(3)
    tower = MiniImageTower(MiniConfig(width=64, layers=2, pooled_branch_width=64), prompt_depth=2)
    for values in (tower.class_text, *tower.pooled_branch.parameters()):
        torch.nn.init.normal_(values, std=0.1)
    for part in tower.trunk.modules():
        if isinstance(part, torch.nn.Conv2d):  # by default so small that nothing comes through
            torch.nn.init.kaiming_normal_(part.weight)
    text = torch.eye(384).repeat(2, 1)
    save_mini(folder, tower, text + 0.05 * torch.randn_like(text), "adapted", score_scale=20.0)
    tower.prompts = None
    save_mini(folder, tower, text, "vanilla", score_scale=23.0)
    own_map = torch.eye(384) + 0.05 * torch.randn(384, 384)
    save_context(folder, ContextHead(SMALL), own_map, weight=0.6, score_scale=30.0)
    return folder


def pool_descriptors(
    patches: Tensor, share: Tensor, fine: Tensor, coarse: Tensor, cover: Tensor
) -> dict[str, Tensor]:
    """All descriptors of the regions of one photo, for `ContextHead`.

    Args:
        patches: (R, 1280, 7, 7) the trunk's patches of the crops, before mask prompts.
        share: (R, 7, 7) from `patch_share`.
        fine: (120, h, w) the trunk's stride-16 map of the photo.
        coarse: (1280, h / 2, w / 2) its stride-32 map.
        cover: (R, h, w) from `region_cover`.

    Returns:
        (R, width) for each of `DESCRIPTORS`.
    """
    return {"crop": pool_crop(patches, share), **pool_photo(fine, coarse, cover)}
