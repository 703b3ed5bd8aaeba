"""The options of the joint fine-tuning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ovseg_demo.clip.patch_trunk import PatchTrunk
from ovseg_demo.devices import fast_dtype
from ovseg_demo.errors import SettingsError
from train.core.options import DEFAULT_DATA
from train.core.recipe import LoopSettings


@dataclass(frozen=True)
class JointSettings:
    """Fine-tune the adapted tower and the context head together (see train/README.md)."""

    pairs: tuple[Path, ...]
    """Folders of pairs that say where their photos lie: named, true or mined ones."""
    out: Path = Path("runs/joint")
    """Folder for the weights, checkpoints and the log."""
    data: Path = DEFAULT_DATA
    """Folder that holds the photos."""
    least_score: float = 0.0
    """Pairs of a lower confidence are left out."""
    model: str = "ovseg-mini"
    """Name of the model table or a folder: the vanilla model, which is also distilled from."""
    start: Path | None = None
    """Folder of an earlier run, whose tower and head are trained further; or a file of adapted weights, with
    which the head starts from random weights."""
    mean_with: Path | None = None
    """Folder of an earlier run: what is written is the mean of its weights and those trained here."""
    captions: tuple[str, ...] = ("flickr8k", "coco_captions", "food_photos")
    """Data folders whose captioned photos are distilled and told apart by their captions; none = no such
    batches."""
    steps: int = 560
    """Steps, each with a batch of regions and one of captioned photos."""
    photos: int = 10
    """Photos of a step."""
    regions: int = 12
    """Regions of each of them, at most."""
    captioned: int = 24
    """Captioned photos of a step."""
    other_captions: int = 800
    """Captions of other photos that they are told apart from."""
    rate: float = 1e-3
    """Highest learning rate of the context head, its text map and the temperatures."""
    tower_rate: float = 3e-4
    """Of the tower behind its trunk."""
    trunk_rate: float = 1e-4
    """Of the trained part of the trunk."""
    trunk_blocks: int = PatchTrunk.STRIDE_16_BLOCKS
    """Blocks of the trunk behind its stem that stay as they are; depthwise convolutions always do."""
    weight_decay: float = 0.1
    """AdamW's weight decay on matrices."""
    warmup: int = 40
    """Steps until the highest rates."""
    prior: float = 0.5
    """Weight of the logarithm of a name's frequency that is added to its logits in training (0 = none)."""
    most_per_noun: int = 60
    """A name's pairs are drawn as often as if there were at most so many."""
    distil: float = 1.0
    """Weight of staying close to vanilla's features of the captioned photos."""
    caption_weight: float = 0.5
    """Weight of telling them apart by their captions, adapted tower; the head has half of it."""
    photo_weight: float = 1.0
    """Weight of telling the regions and names of one photo apart, head; the adapted tower has half of it."""
    hidden: int = 1024
    """Width of the context head's hidden layer."""
    dropout: float = 0.4
    """Share of inputs that the head leaves out in training."""
    descriptor_dropout: float = 0.1
    """How often the head is trained without one of its descriptors of the photo."""
    context_weight: float = 0.7
    """What the head counts in the context arm against the adapted tower, 0..1."""
    views: int = 2
    """Views of each crop that are kept and drawn from: the crop as it is, then augmented ones."""
    jitter: float = 0.24
    """Largest share of its height and width that is cut off a crop."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.99
    """Decay of the moving average of what is trained; 0 = off."""
    save_every: int = 100
    """Steps between checkpoints."""
    keep: Path | None = None
    """Folder for the kept features, to share them between runs; by default --out."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        for name in ("steps", "photos", "regions", "captioned", "hidden", "views", "most_per_noun"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise SettingsError(f"--{flag} must be at least 1, not {getattr(self, name)}.")
        rates = ("rate", "tower_rate", "trunk_rate")
        for name in (*rates, "weight_decay", "prior", "distil", "caption_weight", "photo_weight"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise SettingsError(f"--{flag} must not be negative, but is {getattr(self, name)}.")
        for name in ("average", "jitter", "dropout", "descriptor_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"--{name} must be at least 0 and below 1, not {getattr(self, name)}.")
        if not 0 <= self.context_weight <= 1:
            raise SettingsError(f"--context-weight must lie in 0 to 1, not {self.context_weight}.")
        if self.rate == 0:
            raise SettingsError("--rate must be above 0.")

    @property
    def work(self) -> Path:
        """Where features are kept."""
        return self.keep or self.out

    def loop(self) -> LoopSettings:
        """The numbers of the loop."""
        return LoopSettings(
            steps=self.steps,
            batch=self.photos * self.regions,
            accumulate=1,
            rate=self.rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            clip_norm=self.clip_norm,
            most_per_noun=self.most_per_noun,
            distil=self.distil,
            average=self.average,
            seed=self.seed,
            save_every=self.save_every,
            amp=fast_dtype(torch.device("cpu")) == torch.bfloat16,
        )

    def record(self, digest: str) -> dict[str, Any]:
        """What a resume compares: everything that decides what is computed."""
        return {**asdict(self), "pairs": digest}
