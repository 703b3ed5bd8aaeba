"""A picture of random pairs of a folder."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ovseg_demo.files import atomic_file
from train.data.shards import Pair, read_pairs

CELL_PX, TEXT_PX, GAP_PX = 128, 30, 6
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_VEIL = np.array([165, 135, 200], dtype=np.uint8)


def write_contact_sheet(pairs: Path, out: Path, *, count: int, seed: int) -> int:
    """Draw `count` random pairs of the folder, the most confident first; returns how many there were.

    Raises:
        DataError: the shards are missing or damaged.
    """
    chosen: list[Pair] = []
    generator = random.Random(seed)
    for seen, pair in enumerate(read_pairs(pairs)):  # reservoir sampling: the shards are read once
        if len(chosen) < count:
            chosen.append(pair)
        elif (place := generator.randint(0, seen)) < count:
            chosen[place] = pair
    chosen.sort(key=lambda pair: -pair.facts.score)
    with atomic_file(out) as temporary:
        draw_sheet(chosen).save(temporary, "PNG")
    return len(chosen)


def report_shards(folder: Path, counts: Mapping[str, int], skipped: Sequence[Mapping[str, str]]) -> None:
    """Draw the contact sheet beside the shards, and print what was written and which photos were skipped.

    Args:
        folder: of the shards.
        counts: from `write_shards`.
        skipped: photos that could not be read, with their errors.
    """
    write_contact_sheet(folder, folder / "contact_sheet.png", count=100, seed=0)
    print(
        f"{counts['pairs']:,} pairs of {counts['different_nouns']:,} names from {counts['photos']:,} photos "
        f"in {folder}"
    )
    for one in skipped[:10]:
        print(f"skipped {one['photo']}: {one['error']}")


def draw_sheet(pairs: list[Pair], columns: int = 10) -> Image.Image:
    """Cells of crop, noun, confidence and margin; the background is faded."""
    step_x, step_y = CELL_PX + GAP_PX, CELL_PX + TEXT_PX + GAP_PX
    rows = max(1, -(-len(pairs) // columns))
    sheet = Image.new("RGB", (columns * step_x + GAP_PX, rows * step_y + GAP_PX), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, pair in enumerate(pairs):
        x, y = GAP_PX + number % columns * step_x, GAP_PX + number // columns * step_y
        picture = Image.fromarray(with_faded_background(pair))
        picture.thumbnail((CELL_PX, CELL_PX))
        if max(picture.size) < CELL_PX:
            scale = CELL_PX / max(picture.size)
            picture = picture.resize(
                (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            )
        sheet.paste(picture, (x + (CELL_PX - picture.width) // 2, y + (CELL_PX - picture.height) // 2))
        noun = pair.facts.noun
        while draw.textlength(noun, font) > CELL_PX:
            noun = noun[:-2] + "…"
        draw.text((x, y + CELL_PX + 1), noun, _INK, font)
        numbers = f"{pair.facts.score:.2f}  margin {pair.facts.margin:+.2f}"
        draw.text((x, y + CELL_PX + 15), numbers, _FAINT, font)
    return sheet


def with_faded_background(pair: Pair) -> NDArray[np.uint8]:
    """The crop with its background faded to violet, (h, w, 3) uint8."""
    pale = (pair.image // 5 + _VEIL).astype(np.uint8)
    return np.where(pair.mask[..., None], pair.image, pale)
