"""The options that fine-tuning and mask prompt tuning share, and the numbers of the published recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.devices import fast_dtype
from ovseg_demo.errors import SettingsError
from train.core import distributed
from train.core.options import DEFAULT_DATA
from train.data.sampler import PairSampler

Recipe = Literal["mini", "vit-b-16", "vit-l-14"]
S = TypeVar("S", bound="AdaptSettings")


@dataclass(frozen=True)
class LoopSettings:
    """The numbers of one adaptation run."""

    steps: int
    batch: int
    accumulate: int
    rate: float
    weight_decay: float
    warmup: int
    clip_norm: float
    most_per_noun: int
    distil: float
    average: float
    seed: int
    save_every: int
    workers: int = 0
    amp: bool = False


@dataclass(frozen=True)
class AdaptSettings:
    """Learn from region-noun pairs."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """Values of the options below that are not given, by name of the recipe."""

    pairs: tuple[Path, ...]
    """Folders of pairs, mined or from true masks."""
    out: Path = Path("runs/adapt")
    """Folder for the weights, checkpoints and the log."""
    data: Path = DEFAULT_DATA
    """Data folder; its named regions say which photos are held out."""
    least_score: float = 0.0
    """Pairs of a lower confidence are left out."""
    model: str = "ovseg-mini"
    """Name of the model table or a checkpoint: the vanilla model."""
    start: Path | None = None
    """Adapted weights to start from instead of the vanilla ones."""
    recipe: Recipe = "mini"
    """Recipe with the defaults of the options below."""
    rate: float | None = None
    """Highest learning rate."""
    batch: int | None = None
    """Pairs per step over all processes."""
    epochs: float | None = None
    """Passes over the (capped) pairs."""
    steps: int = 0
    """Steps instead of --epochs; 0 = by --epochs."""
    weight_decay: float | None = None
    """AdamW's weight decay on matrices."""
    warmup: int | None = None
    """Steps until the highest rate."""
    distil: float | None = None
    """Weight of the loss to vanilla's probabilities, and to the labels of unlabeled regions (mini only)."""
    pseudo_labels: float | None = None
    """Regions without a noun per pair that have pseudo-labels, 0 to 1 (mini only, with --distil)."""
    accumulate: int = 1
    """Parts that a batch is computed in."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    most_per_noun: int = 100
    """Pairs of one noun that count in an epoch."""
    prior: float = 0.0
    """Weight of the logarithm of a name's frequency that is added to its logits in training (0 = none)."""
    average: float = 0.99
    """Decay of the moving average of what is trained; 0 = off."""
    jitter: float | None = None
    """Largest share of its height and width that is cut off a crop."""
    views: int = 4
    """Crops of each pair that are cached and take turns: the exact one, then augmented ones (mini only)."""
    float32: bool = False
    """Compute in float32 on processors that have bfloat16 too. In bfloat16 the size of a share changes
    the rounding, so that several processes follow the curve of one only roughly."""
    workers: int = 0
    """Processes that load crops ahead of the steps; 0 = in the training process (towers that read crops)."""
    save_every: int = 100
    """Steps between checkpoints."""
    keep: Path | None = None
    """Folder for the stem features of the pairs, to share them between runs; by default --out (mini only)."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "accumulate", "most_per_noun", "save_every", "clip_norm", "views"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise SettingsError(f"--{name.replace('_', '-')} must be above 0, not {value}.")
        for name in ("rate", "weight_decay", "warmup", "distil", "prior", "workers", "steps"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise SettingsError(f"--{name.replace('_', '-')} must not be negative, but is {value}.")
        if self.pseudo_labels is not None and not 0 <= self.pseudo_labels <= 1:
            raise SettingsError(f"--pseudo-labels must lie in 0 to 1, not {self.pseudo_labels}.")
        for name in ("average", "jitter"):
            if (value := getattr(self, name)) is not None and not 0 <= value < 1:
                raise SettingsError(f"--{name} must be at least 0 and below 1, not {value}.")

    def filled(self: S) -> S:
        """With the recipe's numbers where none was given."""
        unset = {"distil": 0.0, "pseudo_labels": 0.0, "weight_decay": 0.0, "jitter": 0.1}
        recipe: dict[str, Any] = {**unset, **self.RECIPES[self.recipe]}
        return replace(self, **{k: v for k, v in recipe.items() if getattr(self, k) is None})

    def start_clip(self, device: str) -> MaskAdaptedCLIP:
        """The CLIP that the run starts from: the vanilla model, or the adapted weights of `start`."""
        if self.start is None:
            return load_clip(self.model, weights="vanilla", device=device)
        return load_clip(self.start, weights="adapted", device=device)

    def loop(self, noun_of: Any, device: str) -> LoopSettings:
        """The numbers of the loop over these pairs, once they are filled in.

        Raises:
            SettingsError: the batch cannot be split as asked.
        """
        batch = int(self.batch or 1)
        distributed.check_batch(batch, self.accumulate)
        sampler = PairSampler(noun_of, batch=batch, most_per_noun=self.most_per_noun, seed=self.seed)
        return LoopSettings(
            steps=self.steps or sampler.steps(self.epochs or 1),
            batch=batch,
            accumulate=self.accumulate,
            rate=self.rate or 0.0,
            weight_decay=self.weight_decay or 0.0,
            warmup=int(self.warmup or 0),
            clip_norm=self.clip_norm,
            most_per_noun=self.most_per_noun,
            distil=self.distil or 0.0,
            average=self.average,
            seed=self.seed,
            save_every=self.save_every,
            workers=self.workers,
            amp=not self.float32 and fast_dtype(torch.device(device)) == torch.bfloat16,
        )

    def record(self, pairs_digest: str) -> dict[str, Any]:
        """The settings that a resume compares: all that change the result."""
        return {**asdict(self), "pairs": pairs_digest}
