"""Train the vanilla ovseg-mini: a compact CLIP that has never seen a masked picture.

    python -m train.pretrain --out checkpoints/ovseg-mini

What it learns from: captions (contrastive), the nouns in them and the labels of labelled photos (softmax over
every name at once), and on pieces of photos the trunk's own ImageNet classifier, whose 1,000 classes are also
known by their everyday names (distillation). The glance learns from mean patches (cheap), the transformer
from the patches, each alone in its half of the space: together they would lean on each other's captions.
Resumable: run the same command again. Same settings, same weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.mini import MiniConfig, MiniImageTower
from ovseg_demo.clip.minilm import TEXT_WIDTH
from ovseg_demo.devices import fast_dtype
from train.core.checkpointing import load_training_state, save_training_state
from train.core.options import DEFAULT_DATA, run_command
from train.core.schedule import Average, cosine_rate, parameter_groups
from train.data.sources import Photo, imagenet, read_sources
from train.export import save_known_names, save_mini
from train.mining.photos import order_of
from train.pretraining.text_bank import TextBank, build_text_bank
from train.pretraining.views import Teacher, write_shard


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
    glance_steps: int = 700
    """Steps in which the glance learns alone."""
    glance_batch: int = 512
    """Views per such step; half of them wide."""
    glance_rate: float = 6e-4
    """Its highest learning rate."""
    glance_decay: float = 0.3
    """Its weight decay: captions are few and soon known by heart."""
    steps: int = 900
    """Steps in which the transformer learns."""
    batch: int = 128
    """Views per such step."""
    wide_share: float = 0.625
    """How many of them are wide."""
    rate: float = 8e-4
    """The transformer's highest learning rate."""
    token_trust: float = 0.5
    """How much the transformer's half counts beside the glance's; chosen on COCO train2017's regions."""
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
    """Weight of the classifier's opinion, told in names (Kullback-Leibler)."""
    save_every: int = 100
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything random."""


class Half(nn.Module):
    """The text side of one half of the space: its map and its two temperatures."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        nn.init.eye_(self.projection.weight)
        self.log_scales = nn.Parameter(torch.full((2,), math.log(20.0)))  # captions, names

    def words(self, vectors: Tensor) -> Tensor:
        """MiniLM vectors -> unit vectors (n, D)."""
        return functional.normalize(self.projection(vectors), dim=-1)


class Pretraining(nn.Module):
    """The tower and the text side of its halves: all that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = MiniImageTower(MiniConfig())
        self.tokens, self.glance = Half(), Half()

    @torch.no_grad()
    def joined(self, token_trust: float) -> tuple[MiniImageTower, Tensor, float]:
        """The tower with both halves, the text map, and the temperature.

        A cosine times the temperature is the mean of the halves' cosines, weighted by trust, times the mean
        of their temperatures.
        """
        trust = torch.tensor([token_trust, 1.0])
        self.tower.branch_weights.copy_(trust)
        halves = (self.tokens, self.glance)
        scales = torch.stack([half.log_scales[1].exp() for half in halves])
        lengths = 2**0.5 * trust.norm()  # of a text's vector and a crop's
        scale = lengths / trust.sum() * (trust * scales).sum() / trust.sum()
        return self.tower, torch.cat([half.projection.weight for half in halves]), float(scale)


@dataclass(frozen=True)
class Batch:
    """One step's input: wide views first, then narrow ones."""

    photos: list[int]
    views: list[int]
    wide: int
    """How many of them are wide."""
    captions: list[int]
    """Per wide view a row of the bank's captions, -1 where its photo has none."""
    other_captions: list[int]
    name_targets: Tensor
    """(wide, M) weights that sum to 1, or to 0 where the photo has no names."""
    wording: int
    """Which of the bank's wordings the names have."""


@dataclass(frozen=True)
class Priors:
    """How frequent each name is among the targets, (M,) logarithms times the setting."""

    worded: Tensor
    """Among the names of photos."""
    classifier: Tensor
    """Among what the classifier says of narrow views."""


def name_priors(bank: TextBank, shards: list[dict[str, Tensor]], strength: float) -> Priors:
    """Logit adjustment (Menon et al., 2021): frequent names are told apart from what is merely frequent."""
    worded = torch.zeros(len(bank.names))
    for names in bank.photo_names:
        for name, weight in names.items():
            worded[name] += weight
    says = torch.stack([shard["logits"][::7].float().softmax(-1).mean(0) for shard in shards[1::2]]).mean(0)
    return Priors(*(strength * (p / p.sum() + 1e-5).log() for p in (worded, says @ bank.class_names)))


def training_loss(
    half: Half,
    bank: TextBank,
    image: Tensor,
    logits: Tensor,
    batch: Batch,
    priors: Priors,
    settings: PretrainSettings,
) -> tuple[Tensor, dict[str, float]]:
    """The sum of the losses of one batch and each of them by name.

    Args:
        half: for the words and the temperatures.
        bank: captions and names.
        image: (B, D) unit vectors of the views.
        logits: (B, 1000) what the trunk's classifier says of them.
        batch: whose views they are.
        priors: added to the logits while training, so that the weights need not hold them.
        settings: the weights of the losses.
    """
    wide = image[: batch.wide]
    caption_scale, name_scale = half.log_scales.exp().clamp(max=100)

    with_caption = torch.tensor([row for row, c in enumerate(batch.captions) if c >= 0])
    rows = torch.tensor([c for c in batch.captions if c >= 0] + batch.other_captions)
    to_text = caption_scale * wide[with_caption] @ half.words(bank.captions[rows]).T
    count = len(with_caption)
    target = torch.arange(count)
    caption_loss = functional.cross_entropy(to_text, target)
    caption_loss = (caption_loss + functional.cross_entropy(to_text[:, :count].T, target)) / 2

    names = half.words(bank.name_vectors[batch.wording])
    says = name_scale * image @ names.T
    has_name = batch.name_targets.sum(1) > 0
    of_photo = (says[: batch.wide][has_name] + priors.worded).log_softmax(-1)
    name_loss = -(batch.name_targets[has_name] * of_photo).sum(1).mean()
    teacher = logits.softmax(-1) @ bank.class_names
    class_loss = functional.kl_div((says + priors.classifier).log_softmax(-1), teacher, reduction="batchmean")

    total = (
        settings.caption_weight * caption_loss
        + settings.name_weight * name_loss
        + settings.class_weight * class_loss
    )
    parts = {"caption": caption_loss, "name": name_loss, "class": class_loss, "total": total}
    return total, {key: float(value.detach()) for key, value in parts.items()}


def draw_batch(
    photos: list[Photo],
    bank: TextBank,
    size: int,
    wide_share: float,
    dice: np.random.Generator,
    settings: PretrainSettings,
) -> Batch:
    """Wide views of photos that have words, the rest narrow ones of any photo."""
    worded = np.array([i for i, photo in enumerate(photos) if photo.captions or photo.names])
    count = round(size * wide_share)
    wide, narrow = dice.choice(worded, count, replace=False), dice.choice(len(photos), size - count)
    views = [2 * int(v) for v in dice.integers((settings.shards + 1) // 2, size=count)]
    views += [1 + 2 * int(v) for v in dice.integers(settings.shards // 2, size=size - count)]
    own = {row for i in wide for row in bank.caption_rows[i]}
    others = dice.choice(len(bank.captions), min(settings.negatives, len(bank.captions)), replace=False)
    targets = torch.zeros(count, len(bank.names))
    for row, i in enumerate(wide):
        for name, weight in bank.photo_names[i].items():
            targets[row, name] = weight
    return Batch(
        photos=[int(i) for i in (*wide, *narrow)],
        views=views,
        wide=count,
        captions=[int(dice.choice(bank.caption_rows[i])) if bank.caption_rows[i] else -1 for i in wide],
        other_captions=[int(row) for row in others if int(row) not in own],
        name_targets=targets,
        wording=int(dice.integers(len(bank.name_vectors))),
    )


def load_shards(photos: list[Photo], settings: PretrainSettings) -> list[dict[str, Tensor]]:
    """Views of every photo, made where they do not exist yet."""
    folder = settings.work / f"views_{order_of(photos)}_{settings.seed}"
    paths = [folder / f"view_{number:02d}.safetensors" for number in range(settings.shards)]
    for number, path in enumerate(paths):
        if not path.exists():
            write_shard(photos, path, wide=number % 2 == 0, seed=settings.seed * 1000 + number)
    return [load_file(path) for path in paths]


@dataclass(frozen=True)
class Stage:
    """One of the two stages of the training."""

    name: str
    steps: int
    batch: int
    wide_share: float
    rate: float
    kept: str
    """What it reads of the views: "pooled" or "features"."""
    embed: Callable[[Tensor], Tensor]
    """From what it reads to (B, D), not normalised."""
    half: Half
    """Whose words it learns to say."""
    groups: list[dict[str, Any]]
    decay: float
    """Of the moving average of the weights."""


def run_stage(
    stage: Stage, model: Pretraining, photos: list[Photo], bank: TextBank, settings: PretrainSettings
) -> Pretraining:
    """Train, resume, log; returns the model with averaged weights."""
    shards = load_shards(photos, settings)
    priors = name_priors(bank, shards, settings.prior)
    optimiser = torch.optim.AdamW(stage.groups, lr=stage.rate, betas=(0.9, 0.98), eps=1e-6)
    average = Average(model, stage.decay)
    state_path = settings.work / f"{stage.name}.pt"
    record = {**asdict(settings), "photos": order_of(photos)}
    step = load_training_state(state_path, model, optimiser, average, record)
    autocast = torch.autocast(
        "cpu", torch.bfloat16, enabled=fast_dtype(torch.device("cpu")) == torch.bfloat16
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    bar = tqdm(total=stage.steps, initial=step, desc=stage.name)
    started, first = time.monotonic(), step
    with (settings.work / "log.jsonl").open("a") as log:
        while step < stage.steps:
            cosine_rate(optimiser, step, stage.steps, settings.warmup, stage.rate)
            dice = np.random.default_rng([settings.seed, len(stage.name), step])
            batch = draw_batch(photos, bank, stage.batch, stage.wide_share, dice, settings)
            where = list(zip(batch.views, batch.photos, strict=True))
            read = torch.stack([shards[v][stage.kept][i] for v, i in where]).float()
            if read.ndim == 4:  # patches of a view and of its mirror image are each other's mirror images
                turned = torch.from_numpy(dice.random(len(read)) < 0.5)
                read[turned] = read[turned].flip(3)
            with autocast:
                image = stage.embed(read)
            logits = torch.stack([shards[v]["logits"][i] for v, i in where]).float()
            unit = functional.normalize(image.float(), dim=-1)
            loss, parts = training_loss(stage.half, bank, unit, logits, batch, priors, settings)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            average.update(model)
            step += 1
            bar.update()
            if step % 20 == 0 or step == stage.steps:
                speed = (step - first) / (time.monotonic() - started)
                row = {"stage": stage.name, "step": step, **{k: round(v, 4) for k, v in parts.items()}}
                log.write(json.dumps({**row, "steps_per_s": round(speed, 3)}) + "\n")
                log.flush()
                bar.set_postfix(loss=f"{parts['total']:.3f}")
            if step % settings.save_every == 0 or step == stage.steps:
                save_training_state(state_path, model, optimiser, average, step, record)
    bar.close()
    return average.copy_into(model)


def glance_stage(model: Pretraining, settings: PretrainSettings) -> Stage:
    """The glance and the classes' vectors learn from mean patches."""
    tower = model.tower
    model.requires_grad_(False)
    for part in (tower.pooled_branch, model.glance):
        part.requires_grad_(True)
    tower.class_text.requires_grad_(True)
    return Stage(
        "glance",
        settings.glance_steps,
        settings.glance_batch,
        0.5,
        settings.glance_rate,
        "pooled",
        tower.from_mean,
        model.glance,
        parameter_groups(model, settings.glance_decay),
        0.995,
    )


def token_stage(model: Pretraining, settings: PretrainSettings) -> Stage:
    """The transformer learns from stem features, mirrored half the time; the trunk stays."""
    tower = model.tower
    model.requires_grad_(False)
    for part in (tower.patch_embedding, tower.ln_pre, tower.blocks, tower.ln_post, model.tokens):
        part.requires_grad_(True)
    for parameter in (tower.class_embedding, tower.positional_embedding, tower.proj):
        parameter.requires_grad_(True)

    def embed(features: Tensor) -> Tensor:
        with torch.no_grad():
            seen = tower.trunk.top(features.contiguous(memory_format=torch.channels_last))
        return tower.from_patches(seen)

    return Stage(
        "tokens",
        settings.steps,
        settings.batch,
        settings.wide_share,
        settings.rate,
        "features",
        embed,
        model.tokens,
        parameter_groups(model, settings.weight_decay),
        0.99,
    )


def pretrain(settings: PretrainSettings) -> None:
    """Run the training and write the model."""
    photos = read_sources(settings.data)
    classes = [photo.names[0] for photo in imagenet(settings.data)]
    settings.work.mkdir(parents=True, exist_ok=True)
    bank = build_text_bank(photos, classes, settings.work)
    torch.manual_seed(settings.seed)
    model, teacher = Pretraining(), Teacher()
    model.tower.trunk.load_state_dict(teacher.trunk.state_dict())
    model.tower.classifier.load_state_dict(teacher.classifier.state_dict())
    class_text = functional.normalize(bank.class_names @ bank.name_vectors[1], dim=-1)
    model.tower.class_text.data.copy_(class_text / 2)
    for make in (glance_stage, token_stage):
        model = run_stage(make(model, settings), model, photos, bank, settings)
    tower, projection, scale = model.joined(settings.token_trust)
    save_mini(settings.out, tower, projection, "vanilla", score_scale=scale)
    save_known_names(settings.out, load_clip(settings.out, weights="vanilla"))


if __name__ == "__main__":
    run_command(pretrain, PretrainSettings, prog="train.pretrain")
