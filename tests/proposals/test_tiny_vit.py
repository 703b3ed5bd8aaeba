"""MobileSAM's encoder on rectangles is the package's on squares, and needs no padding elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ovseg_demo.models import resolve
from ovseg_demo.proposals.mobile_sam import build_mobile_sam
from ovseg_demo.proposals.tiny_vit import RectangularTinyViT
from ovseg_demo.proposals.weights import load_weights


@pytest.fixture(scope="module")
def weighted() -> nn.Module:
    """The package's encoder with MobileSAM's weights."""
    parts = build_mobile_sam(1024)
    load_weights(parts, resolve("mobile-sam").path, "mobile-sam")
    return parts["image_encoder"]


def test_a_square_of_1024_gives_what_the_package_gives(weighted: nn.Module) -> None:
    pixels = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = weighted(pixels)
        encoder = RectangularTinyViT(weighted)  # takes the package's module apart
        found = encoder(pixels)
        assert found.shape == (1, 256, 64, 64)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
        for height, width in ((16, 1024), (112, 160), (224, 48), (16, 16)):
            assert encoder(pixels[..., :height, :width]).shape == (1, 256, height // 16, width // 16)
