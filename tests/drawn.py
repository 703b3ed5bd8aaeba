"""Results with drawn masks, for tests of pictures and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovseg_demo.imaging import load_image
from ovseg_demo.result import Arm, ClassResult, RegionResult, Segmentation

COLOURS = ((46, 134, 222), (231, 76, 60), (39, 174, 96), (243, 156, 18), (142, 68, 173))

COFFEE = Path(__file__).parents[1] / "examples" / "coffee.jpg"

Mask = npt.NDArray[np.bool_]


def box_mask(shape: tuple[int, int], left: int, top: int, right: int, bottom: int) -> Mask:
    """(H, W) bool, True inside the box."""
    mask = np.zeros(shape, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def drawn_result(
    image: npt.NDArray[np.uint8],
    names: Sequence[str],
    regions: Sequence[tuple[int, Mask]],
    *,
    arm: Arm = "adapted",
) -> Segmentation:
    """A result in which each (class index, mask) is one region; later ones lie on top of earlier ones."""
    labels = np.zeros(image.shape[:2], np.uint16)
    ids = np.zeros(image.shape[:2], np.uint16)
    told = []
    for number, (index, mask) in enumerate(regions, start=1):
        labels[mask], ids[mask] = index, number
        ys, xs = np.nonzero(mask)
        name = names[index - 1] if index else "something else"
        told.append(
            RegionResult(
                id=number,
                box=(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1),
                area_fraction=float(mask.mean()),
                class_index=index,
                confidence=0.8,
                quality=0.9,
                top=((name, 0.8), ("hidden word", 0.1)),
            )
        )
    shares = [float(np.mean(labels == i + 1)) for i in range(len(names))]
    classes = tuple(
        ClassResult(name, (name,), i + 1, COLOURS[i % len(COLOURS)], share > 0, share, 0.8 if share else 0.05)
        for i, (name, share) in enumerate(zip(names, shares, strict=True))
    )
    return Segmentation(
        image=image,
        label_map=labels,
        region_map=ids,
        classes=classes,
        regions=tuple(told),
        timings={"propose": 1.5, "embed": 0.5, "total": 2.0},
        models={"classifier": "drawn by hand", "sha256": "0" * 64},
        settings={"merge": "default", "templates": "vild"},
        arm=arm,
        masks=np.array([mask for _, mask in regions], np.bool_).reshape(-1, *image.shape[:2]),
    )


def drawn_coffee(names: Sequence[str]) -> Segmentation:
    """The coffee photo: names 1 and 2 have a box each, for the cup and the saucer; any other has nothing."""
    photo = load_image(COFFEE)
    shape = photo.shape[:2]
    boxes = [(2, box_mask(shape, 100, 60, 500, 380)), (1, box_mask(shape, 160, 40, 400, 220))]
    return drawn_result(photo, names, boxes)
