"""Train the vanilla ovseg-mini: a compact CLIP that has never seen a masked picture.

    python -m train.pretrain --out checkpoints/ovseg-mini

What it learns from: captions (contrastive), the nouns in them and the labels of labelled photos (softmax over
every name at once), and on pieces of photos the trunk's own ImageNet classifier, whose 1,000 class names have
text vectors (distillation). Resumable: run the same command again. Same settings, same weights.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ovseg_demo.clip.mini import MiniImageTower, MiniShape
from ovseg_demo.clip.minilm import TEXT_WIDTH
from train.checkpointing import load_training_state, save_training_state
from train.data.sources import Photo, imagenet, read_sources
from train.export import save_mini
from train.options import DEFAULT_DATA, run_command
from train.schedule import Average, cosine_rate, parameter_groups
from train.texts import TextBank, build_text_bank
from train.views import Teacher, write_shard


@dataclass(frozen=True)
class PretrainSettings:
    """Train the vanilla ovseg-mini (see train/README.md)."""

    out: Path = Path("checkpoints/ovseg-mini")
    """Folder for the weights, config and model card."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    work: Path = Path("runs/pretrain")
    """Folder for kept features, checkpoints and the log."""
    shards: int = 5
    """Views of every photo that are kept; every second one is wide enough for its captions."""
    steps: int = 2300
    """Optimiser steps."""
    restart: int = 1300
    """Step at which the rate starts anew from the averaged weights and the first guess joins in."""
    wide: int = 96
    """Views per step that learn from words (and from the classifier)."""
    narrow: int = 64
    """Views per step that learn from the classifier alone."""
    negatives: int = 2048
    """Captions of other photos that each view is also told apart from."""
    rate: float = 8e-4
    """Highest learning rate."""
    weight_decay: float = 0.1
    """AdamW's weight decay on matrices."""
    warmup: int = 100
    """Steps until the highest rate."""
    caption_weight: float = 1.0
    """Weight of the caption loss."""
    name_weight: float = 1.0
    """Weight of the loss over names."""
    class_weight: float = 1.0
    """Weight of the classifier's distribution (Kullback-Leibler)."""
    mean_weight: float = 2.0
    """Weight of the classifier's mean text vector (cosine)."""
    save_every: int = 200
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything random."""


class Pretraining(nn.Module):
    """The tower, the map on the text side and the three temperatures: all that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = MiniImageTower(MiniShape())
        self.projection = nn.Linear(TEXT_WIDTH, MiniShape().embed_dim, bias=False)
        nn.init.eye_(self.projection.weight)
        self.log_scales = nn.Parameter(torch.full((3,), math.log(20.0)))  # captions, names, classes

    def embed(self, features: Tensor) -> Tensor:
        """Stem features -> unit vectors (B, D) float32."""
        with torch.autocast("cpu", torch.bfloat16):
            image = self.tower.from_stem(features.float())
        return functional.normalize(image.float(), dim=-1)

    def words(self, vectors: Tensor) -> Tensor:
        """MiniLM vectors -> unit vectors (n, D)."""
        return functional.normalize(self.projection(vectors), dim=-1)


@dataclass(frozen=True)
class Batch:
    """One step's input: wide views first, then narrow ones."""

    features: Tensor
    logits: Tensor
    captions: list[int]
    """Per wide view a row of the bank's captions, -1 where its photo has none."""
    other_captions: list[int]
    name_targets: Tensor
    """(wide, M) weights that sum to 1, or to 0 where the photo has no names."""


def training_loss(
    model: Pretraining, bank: TextBank, batch: Batch, settings: PretrainSettings
) -> tuple[Tensor, dict[str, float]]:
    """The sum of the losses of one batch and each of them by name."""
    image = model.embed(batch.features)
    wide = image[: settings.wide]
    caption_scale, name_scale, class_scale = model.log_scales.exp().clamp(max=100)

    with_caption = torch.tensor([row for row, c in enumerate(batch.captions) if c >= 0])
    rows = torch.tensor([c for c in batch.captions if c >= 0] + batch.other_captions)
    captions = model.words(bank.captions[rows])
    logits = caption_scale * wide[with_caption] @ captions.T
    count = len(with_caption)
    target = torch.arange(count)
    caption_loss = (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits[:, :count].T, target)
    ) / 2

    names = model.words(bank.name_vectors)
    has_name = batch.name_targets.sum(1) > 0
    name_logits = name_scale * wide[has_name] @ names.T
    name_loss = functional.cross_entropy(name_logits, batch.name_targets[has_name])

    classes = names[: bank.class_count]
    teacher = batch.logits.float().softmax(-1)
    class_logits = class_scale * image @ classes.T
    class_loss = functional.kl_div(class_logits.log_softmax(-1), teacher, reduction="batchmean")
    mean_vector = functional.normalize(teacher @ classes.detach(), dim=-1)
    mean_loss = (1 - (image * mean_vector).sum(-1)).mean()

    total = (
        settings.caption_weight * caption_loss
        + settings.name_weight * name_loss
        + settings.class_weight * class_loss
        + settings.mean_weight * mean_loss
    )
    parts = {
        "caption": caption_loss,
        "name": name_loss,
        "class": class_loss,
        "mean": mean_loss,
        "total": total,
    }
    return total, {key: float(value.detach()) for key, value in parts.items()}


def draw_batch(
    shards: list[dict[str, Tensor]],
    photos: list[Photo],
    bank: TextBank,
    step: int,
    settings: PretrainSettings,
) -> Batch:
    """The batch of one step; depends on settings and step alone, so a resumed run sees the same."""
    dice = np.random.default_rng([settings.seed, step])
    worded = np.array([i for i, photo in enumerate(photos) if photo.captions or photo.names])
    wide = dice.choice(worded, settings.wide, replace=False)
    narrow = dice.choice(len(photos), settings.narrow, replace=False)
    views = [(2 * int(dice.integers((len(shards) + 1) // 2)), int(i)) for i in wide]
    views += [(1 + 2 * int(dice.integers(len(shards) // 2)), int(i)) for i in narrow]
    captions = [int(dice.choice(bank.caption_rows[i])) if bank.caption_rows[i] else -1 for i in wide]
    own = {row for i in wide for row in bank.caption_rows[i]}
    others = dice.choice(len(bank.captions), settings.negatives, replace=False)
    targets = torch.zeros(settings.wide, len(bank.names))
    for row, i in enumerate(wide):
        for name, weight in bank.photo_names[i].items():
            targets[row, name] = weight
    return Batch(
        features=torch.stack([shards[v]["features"][i] for v, i in views]),
        logits=torch.stack([shards[v]["logits"][i] for v, i in views]),
        captions=captions,
        other_captions=[int(row) for row in others if int(row) not in own],
        name_targets=targets,
    )


def load_shards(photos: list[Photo], settings: PretrainSettings) -> list[dict[str, Tensor]]:
    """Views of every photo, made where they do not exist yet."""
    folder = settings.work / "views"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"view_{number:02d}.safetensors" for number in range(settings.shards)]
    for number, path in enumerate(paths):
        if not path.exists():
            write_shard(photos, path, wide=number % 2 == 0, seed=settings.seed * 1000 + number)
    return [load_file(path) for path in paths]


def pretrain(settings: PretrainSettings) -> None:
    """Run the training and write the model."""
    photos = read_sources(settings.data)
    shards = load_shards(photos, settings)
    classes = [photo.names[0] for photo in imagenet(settings.data)]
    bank = build_text_bank(photos, classes, settings.work)

    torch.manual_seed(settings.seed)
    model = Pretraining()
    teacher = Teacher()
    model.tower.trunk.load_state_dict(teacher.trunk.state_dict())
    model.tower.classifier.load_state_dict(teacher.classifier.state_dict())
    model.tower.class_text.data.copy_(bank.name_vectors[: bank.class_count])
    for part in (model.tower.trunk, model.tower.classifier):
        part.requires_grad_(False)
    groups = parameter_groups(model, settings.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), eps=1e-6)
    average = Average(model, decay=0.998)
    state_path = settings.work / "state.pt"
    step = load_training_state(state_path, model, optimiser, average, asdict(settings))

    log = (settings.work / "log.jsonl").open("a")
    bar = tqdm(total=settings.steps, initial=step, desc="pretrain")
    started, first = time.monotonic(), step
    while step < settings.steps:
        if step == settings.restart:
            model = average.copy_into(model)
            average = Average(model, decay=0.998)
            optimiser = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), eps=1e-6)
        start, end = (0, settings.restart) if step < settings.restart else (settings.restart, settings.steps)
        cosine_rate(optimiser, step - start, end - start, settings.warmup, settings.rate)
        loss, parts = training_loss(model, bank, draw_batch(shards, photos, bank, step, settings), settings)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        if step < settings.restart:
            model.tower.first_guess.weight.grad = None
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        step += 1
        bar.update()
        if step % 20 == 0 or step == settings.steps:
            rate = (step - first) / (time.monotonic() - started)
            row = {"step": step, **{k: round(v, 4) for k, v in parts.items()}, "steps_per_s": round(rate, 3)}
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.set_postfix(loss=f"{parts['total']:.3f}")
        if step % settings.save_every == 0 or step == settings.steps:
            save_training_state(state_path, model, optimiser, average, step, asdict(settings))
            averaged = average.copy_into(Pretraining())
            scale = averaged.log_scales[1].exp().item()
            save_mini(settings.out, averaged.tower, averaged.projection.weight, "vanilla", score_scale=scale)
    bar.close()


if __name__ == "__main__":
    run_command(pretrain, PretrainSettings, prog="train.pretrain")
