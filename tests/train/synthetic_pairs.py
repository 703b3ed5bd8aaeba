"""Drawn region-noun pairs and small CLIPs to train on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image, ImageDraw

from ovseg_demo.clip import load_clip
from ovseg_demo.files import file_sha256
from train.data.shards import Pair, cut_pair, shard_bytes, write_manifest
from train.evaluation.curves import read_log
from train.finetune import FinetuneSettings
from train.mining.settings import MineSettings
from train.prompt_tune import PromptTuneSettings

COLOURS = {"tomato": (200, 30, 30), "ocean": (30, 60, 200), "lawn": (40, 160, 60), "snow": (240, 240, 250)}


def drawn_pair(number: int) -> Pair:
    """A stroke of a noun's colour on noise, two corners of its box empty; the number decides everything."""
    rng = np.random.default_rng(number)
    noun, colour = list(COLOURS.items())[number % len(COLOURS)]
    photo = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    mask = Image.new("1", photo.size)
    left, top, size = (int(v) for v in rng.integers((0, 0, 20), (40, 20, 40)))
    for picture, ink in ((photo, colour), (mask, 1)):
        ImageDraw.Draw(picture).line((left, top, left + size, top + size), fill=ink, width=size // 3)
    return cut_pair(
        np.asarray(photo),
        np.asarray(mask),
        noun=noun,
        photo=f"drawn/{number}",
        score=0.5 + number % 5 / 10,
        cosine=0.3,
        margin=0.1,
        quality=0.9,
    )


def write_pairs(folder: Path, count: int = 48) -> Path:
    """A folder with so many drawn pairs in two shards and an empty one."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [drawn_pair(number) for number in range(count)]
    listed = []
    for number, some in enumerate((pairs[: count // 2], [], pairs[count // 2 :])):
        path = folder / f"pairs_{number:06d}.tar"
        path.write_bytes(shard_bytes(some, name=path.stem, image_format="png"))
        listed.append({"name": path.name, "pairs": len(some), "sha256": file_sha256(path)})
    write_manifest(folder, {"shards": listed})
    return folder


def write_vit(path: Path, *, prompts: int = 0, seed: int = 0) -> Path:
    """A thin CLIP vision transformer with random weights, in OpenAI's form."""
    torch.manual_seed(seed)
    vision = CLIPVisionCfg(layers=3, width=64, patch_size=8, image_size=32)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=1)
    weights = CLIP(32, vision, text, quick_gelu=True).state_dict()
    if prompts:
        weights["visual.mask_embedding"] = torch.randn(prompts, 16, 64)
    torch.save(weights, path)
    return path


def prompt_settings(settings: FinetuneSettings, **others: Any) -> PromptTuneSettings:
    """Settings of prompt tuning that go with those of fine-tuning."""
    shared = {name: getattr(settings, name) for name in ("pairs", "out", "model", "batch", "steps", "distil")}
    return PromptTuneSettings(**{**shared, "rate": 0.05, "warmup": 2, "depth": 2, **others})


def mine_settings(folder: Path, scenes: Path, clip: Path, **others: Any) -> MineSettings:
    """Settings that mine the drawn scenes with a small CLIP into two folders below `folder`."""
    settings = MineSettings(
        work=folder / "work",
        out=folder / "pairs",
        captions=scenes / "captions.csv",
        images=scenes / "images",
        model=str(clip),
        proposal_size=256,
        chunk=2,
        shard_chunks=2,
        least_photos=1,
        baseline_photos=2,
    )
    return replace(settings, **others)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Everything in a checkpoint or in the adapted arm of a folder."""
    return load_clip(path).state_dict()


def curve(folder: Path, *names: str) -> list[list[float]]:
    """These columns of a run's log."""
    return [[row[name] for name in names] for row in read_log(folder / "log.jsonl")]
