"""Context features of regions: descriptors of the crop and of the photo around it.

The trunk of the adapted tower runs once on the whole photo, and each region pools the cells under its mask.
`ContextHead` turns four descriptors of a region into one feature:

    crop      (1280)   mean patch of its crop, weighted with the region's share of each patch
    photo_32  (1280)   mean of the photo's stride-32 map, weighted with the region's cover of each cell
    photo_16  (120)    the same of the stride-16 map
    geometry  (9)      size, place and extent in the photo, and how much of each edge it touches

All functions of features are differentiable; training and inference share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.minilm import TEXT_WIDTH
from ovseg_demo.regions import CropRecipe, normalise_pixels

DESCRIPTORS: dict[str, int] = {"crop": 1280, "photo_32": 1280, "photo_16": 120, "geometry": 9}
"""Width of each descriptor."""

_COARSE, _FINE = 32, 16
_LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class ContextConfig:
    """Sizes of the head and of the photo it sees; `context` in `config.json` records them."""

    hidden: int = 1024
    """Width of the hidden layer."""
    dropout: float = 0.4
    """Share of inputs that training leaves out, after each norm and before the last layer."""
    photo_short_px: int = 448
    """Shorter side of the photo as the trunk sees it, before rounding to multiples of 32."""
    photo_long_px: int = 896
    """Its longer side is at most this, before rounding."""


class ContextHead(nn.Module):
    """Four descriptors of a region -> one unit vector in the space of its own text map.

    The text side is a `MiniTextTower(384)`: MiniLM's sentence vector through a linear map.
    """

    def __init__(self, config: ContextConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ContextConfig()
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(n) for name, n in DESCRIPTORS.items() if name != "geometry"}
        )
        self.linears = nn.ModuleDict({name: nn.Linear(n, config.hidden) for name, n in DESCRIPTORS.items()})
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.hidden, TEXT_WIDTH)

    def forward(self, descriptors: Mapping[str, Tensor], kept: Mapping[str, Tensor] | None = None) -> Tensor:
        """Embed regions.

        Args:
            descriptors: one tensor (R, width) for each of `DESCRIPTORS`, from `pool_crop` and `pool_photo`.
            kept: for some descriptors (R, 1) of 0 and 1; training leaves a descriptor out where it is 0.

        Returns:
            (R, 384), L2-normalised.
        """
        layers = {name: self._first_layer(name, descriptors[name]) for name in DESCRIPTORS}
        for name, rows in (kept or {}).items():
            layers[name] = layers[name] * rows
        hidden = torch.stack(list(layers.values())).sum(0)
        return functional.normalize(self.projection(self.dropout(functional.gelu(hidden))), dim=-1)

    def _first_layer(self, name: str, descriptor: Tensor) -> Tensor:
        descriptor = descriptor.to(self.projection.weight.dtype)
        if name in self.norms:
            descriptor = self.dropout(self.norms[name](descriptor))
        return cast(Tensor, self.linears[name](descriptor))


def photo_size(height: int, width: int, config: ContextConfig) -> tuple[int, int]:
    """Height and width at which the trunk sees a photo, both multiples of 32."""
    scale = min(config.photo_short_px / min(height, width), config.photo_long_px / max(height, width))
    rows, columns = (max(1, round(side * scale / _COARSE)) for side in (height, width))
    return rows * _COARSE, columns * _COARSE


def photo_input(image: NDArray[np.uint8], recipe: CropRecipe, config: ContextConfig) -> Tensor:
    """The photo as the trunk sees it.

    Args:
        image: (H, W, 3) uint8 RGB.
        recipe: of the crops; its normalisation is the photo's too.
        config: sizes.

    Returns:
        (1, 3, h, w) float32, h and w from `photo_size`.
    """
    return photo_pixels(image, *photo_size(image.shape[0], image.shape[1], config), recipe)[None]


def photo_pixels(image: NDArray[np.uint8], height: int, width: int, recipe: CropRecipe) -> Tensor:
    """A photo at another size: (H, W, 3) uint8 RGB -> (3, height, width) float32, normalised as crops are."""
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None].float()
    if (height, width) != image.shape[:2]:
        pixels = functional.interpolate(
            pixels, (height, width), mode="bicubic", align_corners=False, antialias=True
        )
    return normalise_pixels(pixels[0], recipe)


def region_cover(masks: Tensor, height: int, width: int, cell: int = _FINE) -> Tensor:
    """How much of each cell of a photo each region covers.

    Args:
        masks: (R, H, W) bool on the CPU, at any size; R may be 0.
        height: of the photo as the tower sees it, a multiple of `cell`.
        width: the same.
        cell: side of a cell in pixels of that photo.

    Returns:
        (R, height / cell, width / cell) float32 in 0..1; above 0 somewhere for every mask that has a pixel.
    """
    import cv2

    tall, wide = height // cell, width // cell
    (top, bottom), (left, right) = _bins(masks.shape[1], tall), _bins(masks.shape[2], wide)
    sizes = np.outer(bottom - top, right - left)
    cover = np.zeros((len(masks), tall, wide), np.float32)
    for row, mask in zip(cover, masks.numpy(), strict=True):
        # The sums over all rectangles from the corner give those over the cells, which may share rows.
        sums = cv2.integral(mask.view(np.uint8))
        above, below = sums[top], sums[bottom]
        row[:] = (below[:, right] - below[:, left] - above[:, right] + above[:, left]) / sizes
    return torch.from_numpy(cover)


def _bins(length: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last-plus-one of the pixels that each of `count` cells along a side touches."""
    edges = np.arange(count + 1) * length
    return edges[:-1] // count, -(-edges[1:] // count)


def patch_share(region_masks: Tensor, patch: int) -> Tensor:
    """The region's share of each patch of its crop: (R, S, S) of 0 and 1 -> (R, S / patch, S / patch)."""
    return functional.avg_pool2d(region_masks.float().unsqueeze(1), patch)[:, 0]


def pool_crop(patches: Tensor, share: Tensor) -> Tensor:
    """The `crop` descriptor: (R, C, h, w) patches and (R, h, w) shares -> (R, C)."""
    weight = share / share.sum((1, 2), keepdim=True).clamp(min=_LEAST_WEIGHT)
    return torch.einsum("rchw,rhw->rc", patches, weight.to(patches.dtype))


def pool_map(features: Tensor, cover: Tensor) -> Tensor:
    """Mean of a photo's map under each region: (C, h, w) and (R, h, w) weights from 0 up -> (R, C)."""
    weight = cover.flatten(1)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=_LEAST_WEIGHT)
    return weight.to(features.dtype) @ features.flatten(1).T


def geometry(cover: Tensor) -> Tensor:
    """Size and place of regions.

    Args:
        cover: (R, h, w) from `region_cover`.

    Returns:
        (R, 9): square root of the area's share of the photo; centre y, 0..1 from the top; distance of the
        centre's x from the middle, 0..0.5, the same for a mirrored photo; standard deviation of y and of x;
        mean cover of the cells along the top, bottom, left and right edge.
    """
    _, height, width = cover.shape
    total = cover.sum((1, 2)).clamp(min=_LEAST_WEIGHT)
    ys = (torch.arange(height, device=cover.device) + 0.5) / height
    xs = (torch.arange(width, device=cover.device) + 0.5) / width
    over_y, over_x = cover.sum(2) / total[:, None], cover.sum(1) / total[:, None]
    centre_y, centre_x = (over_y * ys).sum(1), (over_x * xs).sum(1)
    numbers = [
        (total / (height * width)).sqrt(),
        centre_y,
        (centre_x - 0.5).abs(),
        (over_y * (ys - centre_y[:, None]) ** 2).sum(1).clamp(min=0).sqrt(),
        (over_x * (xs - centre_x[:, None]) ** 2).sum(1).clamp(min=0).sqrt(),
        cover[:, 0].mean(1),
        cover[:, -1].mean(1),
        cover[:, :, 0].mean(1),
        cover[:, :, -1].mean(1),
    ]
    return torch.stack(numbers, dim=1)


def pool_photo(fine: Tensor, coarse: Tensor, cover: Tensor) -> dict[str, Tensor]:
    """The descriptors that come from the photo.

    Args:
        fine: (120, h, w) the trunk's stride-16 map of one photo.
        coarse: (1280, h / 2, w / 2) its stride-32 map.
        cover: (R, h, w) from `region_cover`.

    Returns:
        `photo_32` (R, 1280), `photo_16` (R, 120) and `geometry` (R, 9).
    """
    cover_32 = functional.avg_pool2d(cover.unsqueeze(1), 2)[:, 0]
    return {
        "photo_32": pool_map(coarse, cover_32),
        "photo_16": pool_map(fine, cover),
        "geometry": geometry(cover),
    }
