"""The context arm of a CLIP without training: one pass over the photo, pooled under each mask.

The photo is resized so that its shorter side is `PhotoView.short_side` times the side of a crop. It goes
through the frozen tower in one piece, with the tower's positional embedding resized. A longer photo is cut
into windows that overlap by half, and so is every photo for a tower that takes its own size only. The
tower's last pooling is then restricted to each region (`region_pooling`). A region in several windows has
the mean of their features, weighted with its share of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip.context import photo_pixels, region_cover
from ovseg_demo.clip.model import MaskAdaptedCLIP, RegionCache
from ovseg_demo.clip.region_pooling import PictureMap, RegionPooling, pooling_of
from ovseg_demo.devices import in_batches

WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class PhotoView:
    """The size at which a tower reads a photo; the unit is the side of the tower's crops.

    Raises:
        ValueError: a photo would be smaller than a crop, or larger than its window.
    """

    short_side: float = 1.5
    """Shorter side of the photo."""
    window: float = 2.0
    """Longest side of one window, for a tower that takes other sizes than its own."""
    class_token: bool = False
    """Whether the class token's own stream takes part, see `region_pooling`."""

    def __post_init__(self) -> None:
        if not 1 <= self.short_side <= self.window:
            raise ValueError(f"1 <= short_side <= window, not {self.short_side} and {self.window}.")


@dataclass(frozen=True)
class Window:
    """A part of the photo that goes through the tower in one piece, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ViewPlan:
    """The photo's size for the tower, and the windows that cover it."""

    height: int
    width: int
    windows: tuple[Window, ...]


def plan_view(height: int, width: int, crop: int, pooling: RegionPooling, view: PhotoView) -> ViewPlan:
    """Size and windows of a photo.

    Args:
        height: of the photo.
        width: of the photo.
        crop: side of the tower's crops in pixels.
        pooling: says which sizes the tower takes.
        view: the size in crops.
    """
    step = pooling.multiple
    largest = view.window * crop if pooling.any_size else crop
    window = max(step, int(largest) // step * step)
    scale = view.short_side * crop / min(height, width)
    sides = [max(crop // step * step, round(side * scale / step) * step) for side in (height, width)]
    rows, columns = (_starts(side, min(side, window), step) for side in sides)
    size = min(sides[0], window), min(sides[1], window)
    return ViewPlan(sides[0], sides[1], tuple(Window(y, x, *size) for y in rows for x in columns))


def _starts(length: int, window: int, step: int) -> list[int]:
    """Where windows start that cover a side and overlap by half or more."""
    count = math.ceil((length - window) / (window / 2)) + 1 if length > window else 1
    return [round((length - window) * i / max(count - 1, 1) / step) * step for i in range(count)]


class PooledCLIP(MaskAdaptedCLIP):
    """A CLIP that embeds all regions of a photo from one pass over it, without training.

    Args:
        plain: the CLIP; its towers are shared, not copied. Mask prompts, if it has some, take no part.
        view: the size of the photo in crops.

    Raises:
        ModelError: the image tower has no pooling that could be restricted.
    """

    sees_photo = True

    def __init__(self, plain: MaskAdaptedCLIP, view: PhotoView | None = None) -> None:
        super().__init__(
            plain.image_tower,
            plain.text_tower,
            embed_dim=plain.embed_dim,
            crop_recipe=plain.crop_recipe,
            score_scale=plain.score_scale,
            score_bias=plain.score_bias,
            name=plain.name,
            weights_sha256=plain.weights_sha256,
        )
        self.view = view or PhotoView()
        self.text_key, self.known_names = plain.text_key, plain.known_names
        self.weights_files = dict(plain.weights_files)
        self.pooling = pooling_of(plain.image_tower, class_token=self.view.class_token)

    @torch.no_grad()
    def encode_photo_regions(
        self,
        image: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        *,
        use_prompts: bool = True,
        cache: RegionCache | None = None,
    ) -> Tensor:
        """See `MaskAdaptedCLIP.encode_photo_regions`; prompts and cache are not used."""
        stack = torch.from_numpy(np.require(masks, requirements=["C", "W"]))
        if stack.dtype != torch.bool or stack.ndim != 3 or stack.shape[1:] != image.shape[:2]:
            raise ValueError(f"The masks must be bool (R, {image.shape[0]}, {image.shape[1]}).")
        if not len(stack):
            return torch.zeros(0, self.embed_dim, device=self.device)
        if not stack.flatten(1).any(1).all():
            raise ValueError("A mask has no pixel.")
        crop = self.crop_recipe.size
        plan = plan_view(image.shape[0], image.shape[1], crop, self.pooling, self.view)
        photo = photo_pixels(image, plan.height, plan.width, self.crop_recipe)
        sums = torch.zeros(len(stack), self.embed_dim, device=self.device)
        covers = region_cover(stack, plan.height, plan.width, self.pooling.multiple).to(self.device)
        seen_by = _times_seen(plan, self.pooling.multiple).to(self.device)

        def pool(some: slice) -> list[tuple[Tensor, Tensor]]:
            windows = plan.windows[some]
            pictures = torch.stack([_cut(photo, window) for window in windows])
            seen = self.pooling.map(pictures.to(self.device, self.dtype))
            return [
                self._features_in(
                    seen,
                    number,
                    _cut(covers, window, self.pooling.multiple),
                    _cut(seen_by, window, self.pooling.multiple),
                )
                for number, window in enumerate(windows)
            ]

        advice = "choose a smaller model"
        windows = in_batches(pool, len(plan.windows), WINDOWS_AT_ONCE, what="one window", advice=advice)
        for inside, features in (found for batch in windows for found in batch):
            sums[inside] += features
        return functional.normalize(sums, dim=-1)

    def _features_in(
        self, seen: PictureMap, number: int, cover: Tensor, seen_by: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which regions a window shows, (R,) bool, and their features times their shares of it."""
        share = (cover / seen_by).sum((1, 2))
        inside = share > 0
        if not inside.any():
            return inside, torch.zeros(0, self.embed_dim, device=self.device)
        cells = functional.adaptive_avg_pool2d(cover[inside], seen.grid).flatten(1)
        found = self.pooling.features(seen, number, cells).float()
        return inside, share[inside, None] * functional.normalize(found, dim=-1)


def _times_seen(plan: ViewPlan, cell: int) -> Tensor:
    """How many windows see each cell."""
    times = torch.zeros(1, plan.height // cell, plan.width // cell)
    for window in plan.windows:
        _cut(times, window, cell).add_(1)
    return times


def _cut(values: Tensor, window: Window, cell: int = 1) -> Tensor:
    top, left = window.top // cell, window.left // cell
    return values[:, top : top + window.height // cell, left : left + window.width // cell]
