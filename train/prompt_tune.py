"""Mask prompt tuning: learn the tokens that stand where the blank patches were (the paper's section 3.3).

    python -m train.prompt_tune --pairs runs/pairs --start runs/finetune --out runs/prompt_tune

Every CLIP weight stays bit-identical; only `mask_embedding` and the temperature move. `--start` is where FT
ended (the paper's order, FT then MPT); without it prompts are tuned on the vanilla tower. A context arm
beside the start is copied: its head sees the trunk's patches before prompts, so that these change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ovseg_demo.errors import SettingsError
from train.core import distributed
from train.core.loop import AdaptationModel, run_training
from train.core.options import run_command
from train.core.prompts import add_prompts
from train.core.recipe import AdaptSettings
from train.core.run_record import write_record
from train.data.pairs import open_pairs
from train.exporting.weights import copy_context, save_adapted


@dataclass(frozen=True)
class PromptTuneSettings(AdaptSettings):
    """Tune mask prompts on region-noun pairs (see train/README.md)."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, float]]] = {
        # The paper's: rate 2e-2, no weight decay, batch 256 (1024 for B/16), 5 epochs (scripts: 5e-2, 128).
        "vit-l-14": {"rate": 2e-2, "batch": 256, "epochs": 5.0, "warmup": 100},
        "vit-b-16": {"rate": 2e-2, "batch": 1024, "epochs": 5.0, "warmup": 100},
        "mini": {
            "rate": 1e-2,
            "batch": 128,
            "epochs": 2.5,
            "warmup": 20,
            "distil": 2.0,
            "pseudo_labels": 1.0,
            "jitter": 0.24,
        },
    }

    out: Path = Path("runs/prompt_tune")
    """Folder for the weights, checkpoints and the log."""
    depth: int = 3
    """How many times tokens are replaced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise SettingsError(f"--depth must be at least 1, not {self.depth}.")


def prompt_tune(given: PromptTuneSettings) -> None:
    """Run the training and write the weights."""
    settings = given.filled()
    with distributed.process_group() as device:
        clip = settings.start_clip(device)
        pairs = open_pairs(settings, clip)
        # Anew: what was loaded before may have drawn more or fewer numbers.
        torch.manual_seed(settings.seed)
        prompts = add_prompts(clip, settings.depth)
        model = AdaptationModel(clip, pairs.text, use_prompts=True, prior=pairs.prior)
        model.requires_grad_(False)
        prompts.requires_grad_(True)
        model.log_scale.requires_grad_(True)
        groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
        loop = settings.loop(pairs.source.noun_of, device)
        run_training(model, groups, pairs.source, loop, settings.out, settings.record(pairs.digest))
        if distributed.is_main_process():
            save_adapted(settings.out, clip, score_scale=float(model.log_scale.detach().exp()))
            copy_context(settings.start, settings.out)
            write_record(settings, prog="train.prompt_tune", sha256=clip.weights_sha256)


if __name__ == "__main__":
    run_command(prompt_tune, PromptTuneSettings, prog="train.prompt_tune")
