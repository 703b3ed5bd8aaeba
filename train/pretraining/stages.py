"""The two stages of the pretraining, each a loop over its own branch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ovseg_demo.devices import fast_dtype
from train.core.checkpointing import load_training_state, save_training_state
from train.core.schedule import cosine_rate, ema_model, parameter_groups
from train.data.sources import Photo
from train.mining.photos import photos_digest
from train.pretraining.batches import load_views, sample_batch
from train.pretraining.loss import name_priors, training_loss
from train.pretraining.model import PretrainingModel, TextHead
from train.pretraining.settings import PretrainSettings
from train.pretraining.text_bank import TextBank
from train.pretraining.views import KEPT_BLOCKS


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
    head: TextHead
    """Whose words it learns to say."""
    groups: list[dict[str, Any]]
    decay: float
    """Of the moving average of the weights."""


def run_stage(
    stage: Stage, model: PretrainingModel, photos: list[Photo], bank: TextBank, settings: PretrainSettings
) -> PretrainingModel:
    """Train, resume, log; returns the model with averaged weights."""
    shards = load_views(photos, settings)
    priors = name_priors(bank, shards, settings.prior)
    optimiser = torch.optim.AdamW(stage.groups, lr=stage.rate, betas=(0.9, 0.98), eps=1e-6)
    ema = ema_model(model, stage.decay)
    state_path = settings.work / f"{stage.name}.pt"
    record = {**asdict(settings), "photos": photos_digest(photos)}
    step = load_training_state(state_path, model, optimiser, ema, record)
    autocast = torch.autocast(
        "cpu", torch.bfloat16, enabled=fast_dtype(torch.device("cpu")) == torch.bfloat16
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    bar = tqdm(total=stage.steps, initial=step, desc=stage.name)
    started, first = time.monotonic(), step
    with (settings.work / "log.jsonl").open("a") as log:
        while step < stage.steps:
            cosine_rate(optimiser, step, stage.steps, settings.warmup, stage.rate)
            rng = np.random.default_rng([settings.seed, len(stage.name), step])
            batch = sample_batch(photos, bank, stage.batch, stage.wide_share, rng, settings)
            where = list(zip(batch.views, batch.photos, strict=True))
            read = torch.stack([shards[v][stage.kept][i] for v, i in where]).float()
            if read.ndim == 4:  # patches of a view and of its mirror image are each other's mirror images
                turned = torch.from_numpy(rng.random(len(read)) < 0.5)
                read[turned] = read[turned].flip(3)
            with autocast:
                image = stage.embed(read)
            logits = torch.stack([shards[v]["logits"][i] for v, i in where]).float()
            unit = functional.normalize(image.float(), dim=-1)
            loss, parts = training_loss(stage.head, bank, unit, logits, batch, priors, settings)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            ema.update_parameters(model)
            step += 1
            bar.update()
            if step % 20 == 0 or step == stage.steps:
                speed = (step - first) / (time.monotonic() - started)
                row = {"stage": stage.name, "step": step, **{k: round(v, 4) for k, v in parts.items()}}
                log.write(json.dumps({**row, "steps_per_s": round(speed, 3)}) + "\n")
                log.flush()
                bar.set_postfix(loss=f"{parts['total']:.3f}")
            if step % settings.save_every == 0 or step == stage.steps:
                save_training_state(state_path, model, optimiser, ema, step, record)
    bar.close()
    model.load_state_dict(ema.module.state_dict())
    return model


def pooled_stage(model: PretrainingModel, settings: PretrainSettings) -> Stage:
    """The pooled branch and the classes' vectors learn from mean patches."""
    tower = model.tower
    model.requires_grad_(False)
    for part in (tower.pooled_branch, model.pooled):
        part.requires_grad_(True)
    tower.class_text.requires_grad_(True)
    return Stage(
        "pooled",
        settings.pooled_steps,
        settings.pooled_batch,
        0.5,
        settings.pooled_rate,
        "pooled",
        tower.from_mean,
        model.pooled,
        parameter_groups(model, settings.pooled_decay),
        0.995,
    )


def token_stage(model: PretrainingModel, settings: PretrainSettings) -> Stage:
    """The transformer learns from kept features, mirrored half the time; the trunk stays."""
    tower = model.tower
    model.requires_grad_(False)
    for part in (tower.patch_embedding, tower.ln_pre, tower.blocks, tower.ln_post, model.tokens):
        part.requires_grad_(True)
    for parameter in (tower.class_embedding, tower.positional_embedding, tower.proj):
        parameter.requires_grad_(True)

    def embed(features: Tensor) -> Tensor:
        with torch.no_grad():
            seen = tower.trunk.top[KEPT_BLOCKS:](features.contiguous(memory_format=torch.channels_last))
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
