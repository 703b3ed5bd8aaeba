"""Mask prompt tuning: learn the tokens that stand where the blank patches were (the paper's section 3.3).

    python -m train.prompt_tune --pairs runs/mine/pairs --start runs/ft --out runs/ft_mpt

Every CLIP weight stays bit-identical; only `mask_embedding` and the temperature move. `--start` is where FT
ended (the paper's order, FT then MPT); without it prompts are tuned on the vanilla tower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.mask_prompts import MaskPrompts
from ovseg_demo.devices import fast_dtype
from train import distributed
from train.adapt import Adaptation, LoopSettings, epoch_steps, run, settings_record
from train.export import save_adapted
from train.options import run_command
from train.pair_folder import PairFolder
from train.pairs import CropPairs, StemPairs, noun_text

RECIPES: dict[str, dict[str, Any]] = {
    # The paper's: rate 2e-2, no weight decay, batch 256 (1024 for B/16), 5 epochs (the scripts: 5e-2, 128).
    "vit-l-14": {"rate": 2e-2, "batch": 256, "epochs": 5.0, "warmup": 100},
    "vit-b-16": {"rate": 2e-2, "batch": 1024, "epochs": 5.0, "warmup": 100},
    "mini": {"rate": 1e-2, "batch": 128, "epochs": 4.0, "warmup": 50, "distil": 1.0},
}


@dataclass(frozen=True)
class PromptTuneSettings:
    """Tune mask prompts on region-noun pairs (see train/README.md)."""

    pairs: tuple[Path, ...]
    """Folders of pairs, mined or from true masks."""
    out: Path = Path("runs/prompt_tune")
    """Folder for the weights, checkpoints and the log."""
    least_score: float = 0.0
    """Pairs of a lower confidence are left out."""
    model: str = "ovseg-mini"
    """Name of the model table or a checkpoint: the vanilla model."""
    start: Path | None = None
    """Fine-tuned weights to start from instead of the vanilla ones."""
    depth: int = 3
    """How many times tokens are replaced."""
    recipe: Literal["mini", "vit-b-16", "vit-l-14"] = "mini"
    """Whose numbers are the defaults of the options below."""
    rate: float | None = None
    """Highest learning rate."""
    batch: int | None = None
    """Pairs per step over all processes."""
    epochs: float | None = None
    """Passes over the (capped) pairs."""
    warmup: int | None = None
    """Steps until the highest rate."""
    distil: float | None = None
    """Weight of vanilla's opinion of the same box unmasked (mini only)."""
    accumulate: int = 1
    """Parts that a batch is computed in."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    most_per_noun: int = 100
    """Pairs of one noun that count in an epoch."""
    average: float = 0.99
    """Decay of the moving average of the prompts; 0 = off."""
    jitter: float = 0.1
    """Largest share cut off a crop's sides (towers that read crops)."""
    save_every: int = 100
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything random."""

    def filled(self) -> PromptTuneSettings:
        """With the recipe's numbers where none was given."""
        recipe = {"distil": 0.0, **RECIPES[self.recipe]}
        return replace(self, **{k: v for k, v in recipe.items() if getattr(self, k) is None})


def prompt_tune(given: PromptTuneSettings) -> None:
    """Run the training and write the weights."""
    settings = given.filled()
    distributed.start()
    torch.manual_seed(settings.seed)
    folder = PairFolder(*settings.pairs, least_score=settings.least_score)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    arm: Literal["adapted", "vanilla"] = "adapted" if settings.start else "vanilla"
    clip = load_clip(settings.start or settings.model, weights=arm, device=device)
    tower: Any = clip.image_tower
    has_trunk = hasattr(tower, "trunk")
    width = int(tower.positional_embedding.shape[1] if has_trunk else tower.visual.conv1.out_channels)
    tower.prompts = MaskPrompts(settings.depth, tower.grid**2, width).to(device)
    vanilla = load_clip(settings.model, weights="vanilla", device=device)
    text = noun_text(vanilla, folder.nouns)
    pairs: CropPairs | StemPairs
    if hasattr(tower, "from_stem"):
        vanilla.compute_in(fast_dtype(torch.device(device)))
        pairs = StemPairs(folder, vanilla, text, settings.out, distil=bool(settings.distil))
    else:
        pairs = CropPairs(folder, clip, jitter=settings.jitter, seed=settings.seed)
    model = Adaptation(clip, text, use_prompts=True)
    model.requires_grad_(False)
    tower.prompts.requires_grad_(True)
    model.log_scale.requires_grad_(True)
    batch = int(settings.batch or 1)
    loop = LoopSettings(
        steps=epoch_steps(folder.noun_of, settings.most_per_noun, batch, settings.epochs or 1),
        batch=batch,
        accumulate=settings.accumulate,
        rate=settings.rate or 0.0,
        weight_decay=0.0,
        warmup=int(settings.warmup or 0),
        clip_norm=settings.clip_norm,
        most_per_noun=settings.most_per_noun,
        distil=settings.distil or 0.0,
        average=settings.average,
        seed=settings.seed,
        save_every=settings.save_every,
        amp=True,
    )
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    run(model, groups, pairs, loop, settings.out, settings_record(settings))
    if distributed.first():
        save_adapted(settings.out, clip, score_scale=float(model.log_scale.detach().exp()))
    distributed.stop()


if __name__ == "__main__":
    run_command(prompt_tune, PromptTuneSettings, prog="train.prompt_tune")
