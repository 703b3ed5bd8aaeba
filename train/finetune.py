"""Fine-tune CLIP's image tower on masked regions paired with mined nouns (the paper's section 3.2).

    python -m train.finetune --pairs runs/pairs --out runs/finetune
    torchrun --nproc-per-node 4 -m train.finetune --model clip-vit-l-14 --recipe vit-l-14 --pairs ...

The text tower stays as it is. `--recipe` sets the numbers of a published recipe; single options change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from ovseg_demo.errors import SettingsError
from train.core import distributed
from train.core.loop import AdaptationModel, run_training
from train.core.options import run_command
from train.core.prompts import add_prompts
from train.core.recipe import AdaptSettings
from train.core.run_record import write_record
from train.core.schedule import parameter_groups
from train.data.pairs import open_pairs
from train.exporting.weights import save_adapted


@dataclass(frozen=True)
class FinetuneSettings(AdaptSettings):
    """Fine-tune the image tower on region-noun pairs (see train/README.md)."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, float]]] = {
        # The paper's: batch 256 (1024 for B/16), 5 epochs, weight decay 0.2; rate 5e-6.
        "vit-l-14": {"rate": 5e-6, "batch": 256, "epochs": 5.0, "weight_decay": 0.2, "warmup": 100},
        "vit-b-16": {"rate": 5e-6, "batch": 1024, "epochs": 5.0, "weight_decay": 0.2, "warmup": 100},
        # The compact tower starts from far fewer photos and moves faster.
        "mini": {
            "rate": 3e-4,
            "batch": 128,
            "epochs": 7.0,
            "weight_decay": 0.1,
            "warmup": 20,
            "distil": 2.0,
            "pseudo_labels": 1.0,
            "jitter": 0.24,
        },
    }

    out: Path = Path("runs/finetune")
    """Folder for the weights, checkpoints and the log."""
    prompt_depth: int = 0
    """Tune new mask prompts of this depth along with the tower (the paper tunes them afterwards)."""
    prompt_rate: float = 1e-2
    """Highest learning rate of those prompts."""

    blend: float = 1.0
    """How far the saved weights stand from the start (0) to what was trained (1); in between they keep more
    of what the start can do (WiSE-FT, Wortsman et al., 2022)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.blend <= 1:
            raise SettingsError(f"--blend must lie in 0..1, not {self.blend}.")
        if self.prompt_depth < 0:
            raise SettingsError(f"--prompt-depth must not be negative, but is {self.prompt_depth}.")


def finetune(given: FinetuneSettings) -> None:
    """Run the training and write the weights."""
    settings = given.filled()
    with distributed.process_group() as device:
        clip = settings.start_clip(device)
        pairs = open_pairs(settings, clip)
        if settings.prompt_depth:
            torch.manual_seed(settings.seed)
            add_prompts(clip, settings.prompt_depth)
        model = AdaptationModel(clip, pairs.text, use_prompts=clip.has_prompts, prior=pairs.prior)
        train_image_tower(model, prompts=bool(settings.prompt_depth))
        loop = settings.loop(pairs.source.noun_of, device)
        groups = _groups(model, loop.weight_decay, settings.prompt_rate / max(loop.rate, 1e-12))
        start = {name: value.detach().clone() for name, value in model.state_dict().items()}
        run_training(model, groups, pairs.source, loop, settings.out, settings.record(pairs.digest))
        model.load_state_dict(
            {k: _between(start[k], v, settings.blend) for k, v in model.state_dict().items()}
        )
        if distributed.is_main_process():
            save_adapted(settings.out, clip, score_scale=float(model.log_scale.detach().exp()))
            write_record(settings, prog="train.finetune", sha256=clip.weights_sha256)


def _between(start: torch.Tensor, end: torch.Tensor, share: float) -> torch.Tensor:
    """Weights on the way from start to end; counters of batch norms are those of the end."""
    return start.lerp(end, share) if end.is_floating_point() else end


def train_image_tower(model: AdaptationModel, *, prompts: bool = False) -> None:
    """Train the image tower and the temperature; the mini tower's stem is frozen, prompts by the settings."""
    model.requires_grad_(True)
    if hasattr(model.tower, "trunk"):
        model.tower.trunk.stem.requires_grad_(False)
    if model.tower.prompts is not None:
        model.tower.prompts.requires_grad_(prompts)


def _groups(model: AdaptationModel, weight_decay: float, prompt_share: float) -> list[dict[str, Any]]:
    """Prompts that are tuned along have a rate of their own."""
    groups: list[dict[str, Any]] = parameter_groups(model, weight_decay)
    if model.tower.prompts is None or not model.tower.prompts.mask_embedding.requires_grad:
        return groups
    prompts = model.tower.prompts.mask_embedding
    for group in groups:
        group["params"] = [p for p in group["params"] if p is not prompts]
    return [*groups, {"params": [prompts], "weight_decay": 0.0, "share": prompt_share}]


if __name__ == "__main__":
    run_command(finetune, FinetuneSettings, prog="train.finetune")
