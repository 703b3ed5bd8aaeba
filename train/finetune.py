"""Fine-tune CLIP's image tower on masked regions paired with mined nouns (the paper's section 3.2).

    python -m train.finetune --pairs runs/mine/pairs --out runs/ft
    torchrun --nproc-per-node 4 -m train.finetune --model clip-vit-l-14 --pairs ... --recipe vit-l-14

The text tower stays as it is. `--recipe` sets the numbers of a published recipe; single options change them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ovseg_demo.clip import load_clip
from ovseg_demo.devices import fast_dtype
from train import distributed
from train.adapt import Adaptation, LoopSettings, epoch_steps, run, settings_record
from train.export import save_adapted
from train.options import run_command
from train.pair_folder import PairFolder
from train.pairs import CropPairs, StemPairs, noun_text
from train.schedule import parameter_groups

RECIPES: dict[str, dict[str, Any]] = {
    # The paper's: batch 256 (1024 for B/16), 5 epochs, weight decay 0.2; rate 5e-6.
    "vit-l-14": {"rate": 5e-6, "batch": 256, "epochs": 5.0, "weight_decay": 0.2, "warmup": 100},
    "vit-b-16": {"rate": 5e-6, "batch": 1024, "epochs": 5.0, "weight_decay": 0.2, "warmup": 100},
    # The compact tower starts from far fewer photos and moves faster.
    "mini": {"rate": 2e-4, "batch": 128, "epochs": 6.0, "weight_decay": 0.1, "warmup": 50, "distil": 1.0},
}


@dataclass(frozen=True)
class FinetuneSettings:
    """Fine-tune the image tower on region-noun pairs (see train/README.md)."""

    pairs: tuple[Path, ...]
    """Folders of pairs, mined or from true masks."""
    out: Path = Path("runs/finetune")
    """Folder for the weights, checkpoints and the log."""
    least_score: float = 0.0
    """Pairs of a lower confidence are left out."""
    model: str = "ovseg-mini"
    """Name of the model table or a checkpoint to start from (its vanilla arm)."""
    recipe: Literal["mini", "vit-b-16", "vit-l-14"] = "mini"
    """Whose numbers are the defaults of the options below."""
    rate: float | None = None
    """Highest learning rate."""
    batch: int | None = None
    """Pairs per step over all processes."""
    epochs: float | None = None
    """Passes over the (capped) pairs."""
    weight_decay: float | None = None
    """AdamW's weight decay on matrices."""
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
    """Decay of the moving average of the weights; 0 = off."""
    jitter: float = 0.1
    """Largest share cut off a crop's sides (towers that read crops)."""
    save_every: int = 100
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything random."""

    def filled(self) -> FinetuneSettings:
        """With the recipe's numbers where none was given."""
        recipe = {"distil": 0.0, **RECIPES[self.recipe]}
        return replace(self, **{k: v for k, v in recipe.items() if getattr(self, k) is None})


def finetune(given: FinetuneSettings) -> None:
    """Run the training and write the weights."""
    settings = given.filled()
    distributed.start()
    torch.manual_seed(settings.seed)
    folder = PairFolder(*settings.pairs, least_score=settings.least_score)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clip = load_clip(settings.model, weights="vanilla", device=device)
    text = noun_text(clip, folder.nouns)
    pairs: CropPairs | StemPairs
    if hasattr(clip.image_tower, "from_stem"):
        vanilla = load_clip(settings.model, weights="vanilla").compute_in(fast_dtype(torch.device("cpu")))
        pairs = StemPairs(folder, vanilla, text, settings.out, distil=bool(settings.distil))
    else:
        pairs = CropPairs(folder, clip, jitter=settings.jitter, seed=settings.seed)
    model = Adaptation(clip, text, use_prompts=False)
    train_image_tower(model)
    loop = LoopSettings(
        steps=epoch_steps(
            folder.noun_of, settings.most_per_noun, _number(settings.batch), settings.epochs or 1
        ),
        batch=_number(settings.batch),
        accumulate=settings.accumulate,
        rate=settings.rate or 0.0,
        weight_decay=settings.weight_decay or 0.0,
        warmup=_number(settings.warmup),
        clip_norm=settings.clip_norm,
        most_per_noun=settings.most_per_noun,
        distil=settings.distil or 0.0,
        average=settings.average,
        seed=settings.seed,
        save_every=settings.save_every,
        amp=True,
    )
    groups = parameter_groups(model, loop.weight_decay)
    run(model, groups, pairs, loop, settings.out, settings_record(settings))
    if distributed.first():
        save_adapted(settings.out, clip, score_scale=float(model.log_scale.detach().exp()))
    distributed.stop()


def train_image_tower(model: Adaptation) -> None:
    """The whole image tower and the temperature move; the mini tower's stem and any prompts stay."""
    model.requires_grad_(True)
    if hasattr(model.tower, "trunk"):
        model.tower.trunk.stem.requires_grad_(False)
    if model.tower.prompts is not None:
        model.tower.prompts.requires_grad_(False)


def _number(value: int | None) -> int:
    return int(value or 0)


if __name__ == "__main__":
    run_command(finetune, FinetuneSettings, prog="train.finetune")
