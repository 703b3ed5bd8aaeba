"""Cut the regions of a picture out in the form CLIP takes: one crop and one mask per region.

Training and inference share this one function. Per mask: tight box, background painted over, channels
normalised, the rectangle stretched to a square (a recipe may limit the stretch and pad the rest).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ovseg_demo.compute.workers import parallel_map

CLIP_PIXEL_MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
CLIP_PIXEL_STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)


@dataclass(frozen=True)
class CropRecipe:
    """How a region becomes a crop; part of a model, since its weights were trained for it.

    Raises:
        ValueError: a number is out of its range.
    """

    size: int = 224
    """Side of the square crop in pixels."""
    fill: Literal["mean", "zero"] = "mean"
    """Colour of the painted-over background: the pixel mean (0 after normalising) or black."""
    expand_ratio: float = 1.0
    """Width and height of the box are multiplied by this, at least 1; its centre stays."""
    pixel_mean: tuple[float, float, float] = CLIP_PIXEL_MEAN
    """Subtracted from R, G, B in 0..255."""
    pixel_std: tuple[float, float, float] = CLIP_PIXEL_STD
    """R, G, B are divided by this afterwards."""
    antialias: bool = False
    """Smooth before making a large region smaller (the published models were made without)."""
    max_stretch: float = math.inf
    """By how much the longer side of the box may shrink against the shorter one; beyond it the box is padded
    with the fill colour instead. Infinite = always stretched to the square, as published."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"CropRecipe.size must be at least 1, not {self.size}.")
        if self.fill not in ("mean", "zero"):
            raise ValueError(f"CropRecipe.fill must be 'mean' or 'zero', not {self.fill!r}.")
        if not self.expand_ratio >= 1:
            raise ValueError(f"CropRecipe.expand_ratio must be at least 1, not {self.expand_ratio}.")
        if not self.max_stretch >= 1:
            raise ValueError(f"CropRecipe.max_stretch must be at least 1, not {self.max_stretch}.")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"CropRecipe.pixel_std must be above 0, not {self.pixel_std}.")


@dataclass(frozen=True)
class Regions:
    """The crops of the masks that hold at least one pixel; all tensors on one device.

    Attributes:
        crops: (R, 3, S, S) float32, normalised.
        masks: (R, S, S) float32 of 0 and 1, the region inside its crop.
        boxes: (R, 4) int64 left, top, right, bottom in pixels of the image, right and bottom exclusive.
        index: (R,) int64, which of the given masks each region is.
    """

    crops: Tensor
    masks: Tensor
    boxes: Tensor
    index: Tensor

    def __len__(self) -> int:
        return self.crops.shape[0]


def crop_regions(
    image: NDArray[np.uint8] | Tensor,
    masks: NDArray[np.bool_] | Tensor,
    recipe: CropRecipe | None = None,
    *,
    device: str | torch.device = "cpu",
) -> Regions:
    """Cut every non-empty mask out of the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (K, H, W) bool; K may be 0, masks without a pixel are left out of the result.
        recipe: size, fill and normalisation; CLIP's by default.
        device: where the crops are made and stay.

    Raises:
        ValueError: the image or the masks have another shape or type.
    """
    recipe = recipe or CropRecipe()
    pixels, stack = _tensor(image), _tensor(masks)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != torch.uint8:
        raise ValueError(f"The image must be uint8 (H, W, 3), not {pixels.dtype} {tuple(pixels.shape)}.")
    if stack.ndim != 3 or stack.dtype != torch.bool or stack.shape[1:] != pixels.shape[:2]:
        wanted = f"({', '.join(['K', *map(str, pixels.shape[:2])])})"
        raise ValueError(f"The masks must be bool {wanted}, not {stack.dtype} {tuple(stack.shape)}.")
    height, width = pixels.shape[:2]
    tight = [(k, box) for k, mask in enumerate(stack) if (box := tight_box(mask)) is not None]
    boxes = [expand_box(box, recipe.expand_ratio, width=width, height=height) for _, box in tight]

    size = recipe.size
    crops = torch.empty(len(boxes), 3, size, size, device=device)
    crop_masks = torch.empty(len(boxes), size, size, device=device)
    if boxes:
        # Only the rectangle that holds every box is normalised, and only once. Painting with the normalised
        # fill colour afterwards gives the same numbers as painting first.
        x0, y0 = min(box[0] for box in boxes), min(box[1] for box in boxes)
        x1, y1 = max(box[2] for box in boxes), max(box[3] for box in boxes)
        normalised = normalise_pixels(
            pixels[y0:y1, x0:x1].to(device).permute(2, 0, 1).float(), recipe
        ).contiguous()
        background = background_of(recipe).to(device)

    def cut(row: int) -> None:
        k, (left, top, right, bottom) = tight[row][0], boxes[row]
        inside = stack[k, top:bottom, left:right].to(device)
        crop = torch.where(inside, normalised[:, top - y0 : bottom - y0, left - x0 : right - x0], background)
        if (pad := padding(bottom - top, right - left, recipe.max_stretch)) != (0, 0, 0, 0):
            inside = functional.pad(inside, pad)
            crop = torch.where(inside, functional.pad(crop, pad), background)
        crops[row] = functional.interpolate(
            crop[None], (size, size), mode="bicubic", align_corners=False, antialias=recipe.antialias
        )[0]
        shape = inside.float()[None, None]
        crop_masks[row] = functional.interpolate(shape, (size, size), mode="nearest")[0, 0]

    parallel_map(cut, range(len(boxes)), torch.device(device))
    return Regions(
        crops=crops,
        masks=crop_masks,
        boxes=torch.tensor(boxes, dtype=torch.int64, device=device).reshape(-1, 4),
        index=torch.tensor([k for k, _ in tight], dtype=torch.int64, device=device),
    )


def background_of(recipe: CropRecipe) -> Tensor:
    """What stands around a region in its crop, (3, 1, 1) float32, normalised."""
    fill = torch.tensor(recipe.pixel_mean if recipe.fill == "mean" else (0.0, 0.0, 0.0))
    return normalise_pixels(fill.view(3, 1, 1), recipe)


def tight_box(mask: Tensor) -> tuple[int, int, int, int] | None:
    """Smallest box around the set pixels of a mask; None where it has none.

    Args:
        mask: (H, W) bool.

    Returns:
        left, top, right, bottom; right and bottom exclusive.
    """
    array = mask.cpu().numpy()  # NumPy takes many bytes at once, PyTorch one after the other
    rows = np.flatnonzero(array.any(axis=1))
    if len(rows) == 0:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(array[top:bottom].any(axis=0))
    return int(columns[0]), top, int(columns[-1]) + 1, bottom


def expand_box(
    box: tuple[int, int, int, int], ratio: float, *, width: int, height: int
) -> tuple[int, int, int, int]:
    """Scale a box about its centre, cut its numbers towards zero to whole pixels, keep it in the image."""
    left, top, right, bottom = box
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    half_width, half_height = (right - left) * ratio / 2, (bottom - top) * ratio / 2
    return (
        min(max(int(centre_x - half_width), 0), width),
        min(max(int(centre_y - half_height), 0), height),
        min(max(int(centre_x + half_width), 0), width),
        min(max(int(centre_y + half_height), 0), height),
    )


def padding(height: int, width: int, max_stretch: float) -> tuple[int, int, int, int]:
    """What a rectangle gets on its left, right, top and bottom so that making it square stretches no more."""
    more_width = max(math.ceil(height / max_stretch) - width, 0)
    more_height = max(math.ceil(width / max_stretch) - height, 0)
    return more_width // 2, (more_width + 1) // 2, more_height // 2, (more_height + 1) // 2


def _tensor(array: NDArray[np.uint8] | NDArray[np.bool_] | Tensor) -> Tensor:
    """The same numbers as a tensor; copied only where torch cannot share them (a read-only array)."""
    if isinstance(array, Tensor):
        return array
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def normalise_pixels(pixels: Tensor, recipe: CropRecipe) -> Tensor:
    """Bring (3, h, w) float values of 0..255 to the scale the model was trained on."""
    mean = pixels.new_tensor(recipe.pixel_mean).view(3, 1, 1)
    return (pixels - mean) / pixels.new_tensor(recipe.pixel_std).view(3, 1, 1)
