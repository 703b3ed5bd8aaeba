"""The whole way on eight drawn scenes: captions in, an adapted model that names the scenes better out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ovseg_demo.clip import load_clip
from ovseg_demo.proposals import load_proposer
from ovseg_demo.segmenter import Segmenter
from train.data.shards import read_pairs
from train.evaluate import evaluate
from train.evaluation.curves import read_log
from train.evaluation.settings import EvaluateSettings
from train.export import export
from train.exporting.settings import ExportSettings
from train.exporting.weights import read_hashes
from train.finetune import FinetuneSettings, finetune
from train.mine_pairs import main as mine
from train.mining.settings import MineSettings
from train.prompt_tune import PromptTuneSettings, prompt_tune

# What plain CLIP cannot guess from the shape: the captions alone say what the blobs are.
THINGS = {
    "kettle": ((214, 60, 40), "ellipse"),
    "pillow": ((40, 80, 200), "rectangle"),
    "helmet": ((240, 200, 40), "ellipse"),
    "ladder": ((90, 40, 120), "rectangle"),
}


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two photos of each thing before a plain wall, with captions and truth."""
    rows = []
    wall = np.array([150, 190, 225]) + np.linspace(-20, 20, 128)[:, None, None]
    for number in range(8):
        index = number % len(THINGS)
        name, (colour, shape) = list(THINGS.items())[index]
        photo = Image.fromarray(np.broadcast_to(wall, (128, 160, 3)).astype(np.uint8))
        truth = Image.new("L", photo.size, 255)
        left, top = 30 + 6 * number, 20 + 3 * number
        box = (left, top, left + 80, top + 64 + 4 * index)
        for picture, ink in ((photo, colour), (truth, index)):
            getattr(ImageDraw.Draw(picture), shape)(box, fill=ink)
        for folder, picture in (("images", photo), ("labels", truth)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{number}.png")
        rows.append((f"{number}.png", f"A {name} ."))
    with (tmp_path / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    (tmp_path / "classes.txt").write_text("\n".join(THINGS) + "\n")
    return tmp_path


def test_eight_scenes_from_captions_to_a_better_model(scenes: Path) -> None:
    runs = scenes / "runs"
    mine(
        MineSettings(
            work=runs / "mine",
            out=runs / "pairs",
            captions=scenes / "captions.csv",
            images=scenes / "images",
            proposal_size=256,
            least_area=0.1,
            most_area=0.33,  # neither specks nor the wall
            baseline_photos=4,
        )
    )
    pairs = list(read_pairs(runs / "pairs"))
    assert sorted(pair.facts.noun for pair in pairs) == sorted([*THINGS] * 2)

    shared = {"pairs": (runs / "pairs",), "batch": 8, "average": 0.0, "distil": 0.0, "warmup": 2}
    finetune(FinetuneSettings(out=runs / "ft", steps=16, rate=5e-4, **shared))  # type: ignore[arg-type]
    prompt_tune(
        PromptTuneSettings(out=runs / "mpt", start=runs / "ft", steps=6, depth=1, **shared)  # type: ignore[arg-type]
    )
    losses = [row["loss"] for row in read_log(runs / "ft" / "log.jsonl")]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    before, after = (load_clip(runs / name).state_dict() for name in ("ft", "mpt"))
    moved = [name for name, value in after.items() if not torch.equal(value, before.get(name, value * 0))]
    assert moved == ["image_tower.prompts.mask_embedding"]

    export(ExportSettings(runs / "mpt", scenes / "exported"))
    evaluate(
        EvaluateSettings(
            images=scenes / "images",
            labels=scenes / "labels",
            classes=scenes / "classes.txt",
            masks="truth",
            model=str(scenes / "exported"),
            templates="single",
            draws=50,
            json=scenes / "figures.json",
        )
    )
    report = json.loads((scenes / "figures.json").read_text())
    adapted, vanilla = report["arms"]["adapted"], report["arms"]["vanilla"]
    assert adapted["top1"] > vanilla["top1"]
    assert adapted["miou"] > vanilla["miou"]

    segmenter = Segmenter(scenes / "exported", load_proposer("mobile-sam", size=256, density="low"))
    result = segmenter(scenes / "images" / "0.png", list(THINGS), "adapted", merge="benchmark")
    assert result.models["clip"]["sha256"] == read_hashes(scenes / "exported")["adapted.safetensors"]
    assert result.found
    assert result.label_map.shape == (128, 160)
