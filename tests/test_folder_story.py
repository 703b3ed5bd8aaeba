"""A folder with a person's own words: label it, correct some, apply that to the rest, take it away, go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ovseg_demo.cli import main
from ovseg_demo.corrections import CorrectedRegion, corrections_to_json
from ovseg_demo.output.mask_formats import decode_rle

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"
SIDE = 320
FORMATS = "coco,yolo,corrections,label-map,classes"
OPTIONS = ("--vocabulary", "Bessie, meadow", "--templates", "single", "--formats", FORMATS)


def run(*arguments: str | Path) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def named(folder: Path, mask: np.ndarray) -> float:
    """Share of a place that is called Bessie in a folder of results."""
    facts = json.loads((folder / "result.json").read_text("utf-8"))
    index = next(c["index"] for c in facts["classes"] if c["name"] == "Bessie")
    with Image.open(folder / "label_map.png") as picture:
        return float((np.asarray(picture)[mask] == index).mean())


def test_three_photos_one_of_them_corrected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, first, then = tmp_path / "photos", tmp_path / "first", tmp_path / "then"
    photos.mkdir()
    cow = ImageOps.contain(Image.open(EXAMPLES / "cow.jpg").convert("RGB"), (SIDE, SIDE))
    for name, picture in (("a", cow), ("b", ImageOps.mirror(cow)), ("c", cow.crop((30, 10, *cow.size)))):
        picture.save(photos / f"{name}.png")
    width, height = cow.size
    ys, xs = np.ogrid[:height, :width]
    middle = ((xs / width - 0.5) / 0.1) ** 2 + ((ys / height - 0.5) / 0.12) ** 2 < 1

    # 1. Own words say nothing to a model that was never told them; what is doubtful is listed.
    run("segment", photos, "--out", first, *OPTIONS)
    doubts = json.loads((first / "review.json").read_text("utf-8"))
    assert [one["doubt"] for one in doubts] == sorted((one["doubt"] for one in doubts), reverse=True)
    assert {Path(one["photo"]).name for one in doubts} <= {"a.png", "b.png", "c.png"}
    before = named(first / "b", middle[:, ::-1])

    # 2. One photo is corrected: the cow by its name, and the grass.
    (tmp_path / "corrections").mkdir()
    grass = np.broadcast_to(ys > 0.85 * height, middle.shape).copy()
    regions = [CorrectedRegion.of(middle, "Bessie"), CorrectedRegion.of(grass, "meadow")]
    (tmp_path / "corrections" / "a.json").write_text(json.dumps(corrections_to_json(regions)))

    # 3. It is remembered and applied: the corrected photo is as it was said, another shows it too.
    given, memory = ("--corrections", tmp_path / "corrections"), tmp_path / "memory.safetensors"
    run("remember", photos, *given, "--out", memory)
    assert "2 examples of Bessie, meadow" in capsys.readouterr().out
    run("segment", photos, "--out", then, *given, "--memory", memory, *OPTIONS)
    assert named(then / "a", middle) == 1.0
    after = named(then / "b", middle[:, ::-1])
    assert after > max(0.8, before + 0.3)

    # 4. COCO and YOLO hold the correction, and COCO is opened again with nothing lost.
    labels = then / "a" / "coco.json"
    coco = json.loads(labels.read_text("utf-8"))
    category = next(one["id"] for one in coco["categories"] if one["name"] == "Bessie")
    codes = [one["segmentation"] for one in coco["annotations"] if one["category_id"] == category]
    seen = np.any([decode_rle(code["counts"], tuple(code["size"])) for code in codes], axis=0)
    assert (seen & middle).sum() == middle.sum()
    assert list((then / "a").rglob("*.txt"))
    again = tmp_path / "again"
    run("segment", photos / "a.png", "--corrections", labels, "--out", again, *OPTIONS)
    assert named(again, middle) == 1.0
    with Image.open(then / "a" / "label_map.png") as one, Image.open(again / "label_map.png") as other:
        assert (np.asarray(one) == np.asarray(other)).mean() > 0.99
