"""Drawn scenes with captions, and a small CLIP to mine them with."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ovseg_demo.clip.mini import MiniConfig, MiniImageTower
from ovseg_demo.clip.minilm import TEXT_WIDTH
from tests.train.synthetic_pairs import write_pairs, write_vit
from train.exporting.weights import save_mini
from train.finetune import FinetuneSettings

SCENES = (
    ("red ball", "A ball lies on the grass .", "ellipse", (200, 30, 30)),
    ("blue box", "A box stands on the grass .", "rectangle", (30, 30, 200)),
    ("white ball", "The ball of a child .", "ellipse", (240, 240, 240)),
    ("black box", "A box and nothing else .", "rectangle", (15, 15, 15)),
)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four drawn photos in images/ and captions.csv, one of them with an unreadable photo."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "images").mkdir()
    rows = []
    for number, (name, caption, shape, colour) in enumerate(SCENES):
        noise = np.random.default_rng(number).integers(-12, 12, (120, 160, 3))
        grass = np.clip(np.array([70, 150, 60]) + noise, 0, 255).astype(np.uint8)
        picture = Image.fromarray(grass)
        box = (20 + 20 * number, 30, 80 + 20 * number, 90)
        getattr(ImageDraw.Draw(picture), shape)(box, fill=colour)
        file = f"{name.replace(' ', '_')}.png"
        picture.save(folder / "images" / file)
        rows.append((file, caption))
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    rows.append(("broken.png", "A box that nobody can see ."))
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return folder


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ovseg-mini with a thin random tower."""
    folder = tmp_path_factory.mktemp("small_clip")
    torch.manual_seed(0)
    shape = MiniConfig(width=64, layers=1, pooled_branch_width=64)
    tower = MiniImageTower(shape)
    save_mini(folder, tower, torch.eye(TEXT_WIDTH).repeat(2, 1), "vanilla", score_scale=30.0)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The same sums in the same order, here and in the processes that tests start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn pairs."""
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thin CLIP vision transformer with random weights, as a file."""
    return write_vit(tmp_path_factory.mktemp("vit") / "tiny.pt")


@pytest.fixture
def ft_settings(pairs: Path, vit: Path, tmp_path: Path) -> FinetuneSettings:
    """A short fine-tuning of the thin transformer."""
    numbers = {"rate": 1e-3, "batch": 16, "steps": 12, "warmup": 2, "save_every": 5, "weight_decay": 0.1}
    return FinetuneSettings((pairs,), tmp_path / "ft", model=str(vit), distil=0.0, **numbers)  # type: ignore[arg-type]
