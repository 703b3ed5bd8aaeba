"""A small CLIP: real modules, random weights, crops of 16 pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip

Weights = dict[str, Tensor]


@pytest.fixture(scope="session")
def _random_weights() -> Weights:
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=3, width=128, patch_size=4, image_size=16)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=2)
    weights = CLIP(32, vision, text, quick_gelu=True).state_dict()
    return {**weights, "visual.mask_embedding": torch.randn(3, 16, 128)}


@pytest.fixture
def weights(_random_weights: Weights) -> Weights:
    """OpenAI's names, 3 levels of mask prompts; the dictionary may be changed, the tensors may not."""
    return dict(_random_weights)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[object], Path]:
    """Write an object with torch.save and return the path."""

    def save(content: object, name: str = "clip.pt") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def clip(weights: Weights, saved: Callable[[object], Path]) -> MaskAdaptedCLIP:
    """The small model, loaded from a file."""
    return load_clip(saved(weights))


@pytest.fixture(scope="session")
def crops_and_masks() -> tuple[Tensor, Tensor]:
    """Seven crops; each mask is a band, so that every one leaves whole patches of background."""
    crops = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(7, 16, 16)
    for b in range(7):
        masks[b, :, b : b + 5] = 1
    return crops, masks
