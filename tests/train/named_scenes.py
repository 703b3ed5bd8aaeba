"""A small data folder with named regions, drawn photos and captions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = (96, 128)
"""Height and width of the photos."""
SHEET = (slice(0, 40), slice(0, 128))
BALL = (slice(50, 90), slice(10, 60))
BAND = (slice(60, 70), slice(10, 60))


def box_mask(window: tuple[slice, slice], size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """A rectangle as a mask."""
    mask = np.zeros(size, dtype=bool)
    mask[window] = True
    return mask


def region(mask: NDArray[np.bool_], **facts: Any) -> dict[str, Any]:
    """One region of `regions.jsonl`."""
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    return {"rle": code, "quality": 0.9, **facts}


def photo_row(name: str, fold: int, regions: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of `regions.jsonl`."""
    return {"photo": name, "fold": fold, "size": [SIZE[1], SIZE[0]], "regions": regions}


def scene_regions(number: int) -> list[dict[str, Any]]:
    """Sky, a ball with a band on it, a near copy of the ball, something unclear, something unnamed."""
    almost = box_mask(BALL)
    almost[BALL[0].start] = False
    sky = ["sky"] if number % 2 else ["blue sky", "sky"]
    return [
        region(box_mask(SHEET), names=sky),
        region(box_mask(BALL), names=["red ball", "ball"]),
        region(almost),
        region(box_mask(BAND), names=["band"], part_of=["ball"]),
        region(box_mask((slice(40, 50), slice(100, 120))), names=[]),
        region(box_mask((slice(80, 90), slice(100, 120)))),
    ]


def write_photo(path: Path, number: int) -> None:
    """The photo that belongs to `scene_regions`."""
    rng = np.random.default_rng(number)
    picture = rng.integers(60, 120, (*SIZE, 3))
    picture[SHEET] = (80, 130, 230)
    picture[BALL] = (210, 40, 30)
    picture[BAND] = (240, 240, 240)
    noisy = np.clip(picture + rng.integers(-15, 15, (*SIZE, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy).save(path)


def write_rows(root: Path, rows: list[dict[str, Any]]) -> Path:
    """`regions.jsonl` of a data folder."""
    path = root / "named_regions" / "regions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_named_scenes(root: Path, count: int = 5) -> Path:
    """A data folder: photos of fold 0, 1, 2 ... with named regions, the same photos with captions."""
    rows, captions = [], []
    for number in range(count):
        name = f"coco_captions/images/{number:04d}.png"
        write_photo(root / name, number)
        rows.append(photo_row(name, number, scene_regions(number)))
        captions += [(Path(name).name, "train", f"A red ball lies below the sky, number {number} .")] * 2
    write_rows(root, rows)
    with (root / "coco_captions" / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "split", "caption"), *captions])
    return root
