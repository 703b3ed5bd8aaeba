"""The README's picture: eight examples and their segmentations, made by the real pipeline.

python -m tests.benchmarks.overview
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo import Segmenter
from ovseg_demo.output.rendering import overlay

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHOSEN = ("street", "mountains", "cow", "horses", "fig", "pagoda", "room", "coffee")
CELL = (480, 320)


def cell(picture: NDArray[np.uint8]) -> Image.Image:
    """The middle of a picture, filling the cell."""
    image = Image.fromarray(picture)
    scale = max(CELL[0] / image.width, CELL[1] / image.height)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - CELL[0]) // 2, (image.height - CELL[1]) // 2
    return image.crop((left, top, left + CELL[0], top + CELL[1]))


def main() -> None:
    """Segment the chosen examples and write examples/results/overview.jpg."""
    words = {
        Path(e["photo"]).stem: e["vocabulary"] for e in json.loads((EXAMPLES / "examples.json").read_text())
    }
    segmenter = Segmenter.from_pretrained("ovseg-mini")
    sheet = Image.new("RGB", (4 * CELL[0], 2 * CELL[1]))
    for place, name in enumerate(CHOSEN):
        result = segmenter(EXAMPLES / f"{name}.jpg", ", ".join(words[name]))
        sheet.paste(cell(overlay(result)), (place % 4 * CELL[0], place // 4 * CELL[1]))
    sheet.save(EXAMPLES / "results" / "overview.jpg", quality=85)


if __name__ == "__main__":
    main()
