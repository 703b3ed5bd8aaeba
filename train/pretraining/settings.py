"""The options of the pretraining."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from train.core.options import DEFAULT_DATA


@dataclass(frozen=True)
class PretrainSettings:
    """Train the vanilla ovseg-mini (see train/README.md)."""

    out: Path = Path("checkpoints/ovseg-mini")
    """Folder for the weights, config and model card."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    work: Path = Path("runs/pretrain")
    """Folder for kept features, checkpoints and the log."""
    shards: int = 6
    """Views of every photo that are kept; every second one is wide enough for its captions."""
    pooled_steps: int = 700
    """Steps in which the pooled branch learns alone."""
    pooled_batch: int = 512
    """Views per such step; half of them wide."""
    pooled_rate: float = 6e-4
    """Its highest learning rate."""
    pooled_decay: float = 0.3
    """Its weight decay: captions are few and soon known by heart."""
    steps: int = 900
    """Steps in which the transformer learns."""
    batch: int = 128
    """Views per such step."""
    wide_share: float = 0.625
    """How many of them are wide."""
    rate: float = 8e-4
    """The transformer's highest learning rate."""
    token_weight: float = 0.5
    """Weight of the transformer's half beside the pooled branch's; chosen on COCO train2017's regions."""
    negatives: int = 1024
    """Captions of other photos that each view is also told apart from."""
    weight_decay: float = 0.2
    """AdamW's weight decay on the transformer's matrices."""
    prior: float = 0.5
    """How much of a name's frequency is taken off what the tower must say: 0 = frequent names, like
    "person" and "dog", draw regions to themselves; 1 = all names are equally likely."""
    warmup: int = 50
    """Steps until the highest rate."""
    caption_weight: float = 1.0
    """Weight of the caption loss."""
    name_weight: float = 1.0
    """Weight of the loss over names."""
    class_weight: float = 1.0
    """Weight of the divergence from the classifier's predictions over names (Kullback-Leibler)."""
    save_every: int = 100
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything random."""
