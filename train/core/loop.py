"""Loss and training loop of fine-tuning and mask prompt tuning.

Both train on region-noun pairs: the feature of a masked crop moves towards its noun and away from all others.
They differ in the trained parameters only (finetune.py, prompt_tune.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.errors import OvsegError
from train.core import distributed
from train.core.checkpointing import load_training_state, save_training_state
from train.core.progress import Progress
from train.core.recipe import LoopSettings
from train.core.schedule import cosine_rate, ema_model
from train.data.loader import MicroBatch, load_batches
from train.data.pair_batch import PairBatch
from train.data.sampler import PairSampler

HIGHEST_LOG_SCALE = math.log(100)
"""As in CLIP: cosines are multiplied by 100 at most."""


class AdaptationError(OvsegError):
    """Training with these pairs or this model is not possible."""


class PairSource(Protocol):
    """Region-noun pairs that the batches are made of."""

    nouns: list[str]
    """The noun bank."""
    noun_of: np.ndarray
    """(P,) row of the bank for each pair."""

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """The pairs of these rows, as one step sees them."""


def pair_loss(image: Tensor, text: Tensor, nouns: Tensor, log_scale: Tensor) -> Tensor:
    """Cross entropy of each region over the noun bank, plus that of each noun over the batch's regions.

    On the text side the target of a noun is uniform over all regions of the batch with that noun, so pairs of
    one noun are never negatives of each other.

    Args:
        image: (B, D) unit vectors.
        text: (M, D) unit vectors of the bank.
        nouns: (B,) int64.
        log_scale: logarithm of the temperature's inverse.
    """
    logits = log_scale.exp() * image @ text.T
    to_text = functional.cross_entropy(logits, nouns)
    same = (nouns[:, None] == nouns[None, :]).float()
    to_image = functional.cross_entropy(logits[:, nouns].T, same / same.sum(1, keepdim=True))
    return (to_text + to_image) / 2


class AdaptationModel(nn.Module):
    """The model under training: an image tower and a temperature; texts are frozen vectors."""

    text: Tensor

    def __init__(self, clip: MaskAdaptedCLIP, text: Tensor, *, use_prompts: bool) -> None:
        super().__init__()
        self.tower: Any = clip.image_tower
        self.log_scale = nn.Parameter(torch.tensor(math.log(clip.score_scale), device=clip.device))
        self.use_prompts = use_prompts
        self.register_buffer("text", text, persistent=False)

    def forward(self, batch: PairBatch, distil: float, amp: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, its distillation part and the share of regions whose noun is on top of the bank."""
        forward = getattr(self.tower, "from_stem", self.tower) if batch.inputs.shape[1] != 3 else self.tower
        with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=amp):
            features = forward(batch.inputs, batch.token_mask if self.use_prompts else None)
        image = functional.normalize(features.float(), dim=-1)
        pairs = len(batch.nouns)
        # Contrast needs the whole global batch; gradients flow through the local part.
        everyone, nouns = distributed.all_gather(image[:pairs]), distributed.all_gather(batch.nouns)
        loss = pair_loss(everyone, self.text, nouns, self.log_scale)
        extra = loss.new_zeros(())
        logits = self.log_scale.exp() * image @ self.text.T
        if batch.targets is not None and distil:
            extra = functional.kl_div(logits.log_softmax(-1), batch.targets, reduction="sum") / pairs
        right = (logits[:pairs].argmax(1) == batch.nouns).float().mean()
        return loss + distil * extra, extra.detach(), right.detach()


def frozen_copy(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters and buffers that are not trained."""
    trainable = {name for name, p in module.named_parameters() if p.requires_grad}
    return {n: v.clone() for n, v in module.state_dict().items() if n not in trainable}


def check_frozen(module: nn.Module, before: dict[str, Tensor]) -> None:
    """Refuse a result whose frozen part is not bit-identical.

    Raises:
        AdaptationError: names the first tensor that moved.
    """
    now = module.state_dict()
    for name, value in before.items():
        if not torch.equal(value, now[name]):
            raise AdaptationError(f"{name} was to stay frozen but changed during training.")


def run_training(
    model: AdaptationModel,
    groups: list[dict[str, Any]],
    pairs: PairSource,
    settings: LoopSettings,
    work: Path,
    record: dict[str, Any],
    on_step: Callable[[int, AdaptationModel], None] | None = None,
) -> AdaptationModel:
    """Train, resume, log; returns the model with averaged weights where averaging is on.

    Args:
        model: what is trained; it is changed.
        groups: the parameters that move, as AdamW takes them.
        pairs: what it learns from.
        settings: the numbers.
        work: folder for the checkpoint and the log; a run goes on from what it holds.
        record: what must be equal to go on.
        on_step: called after every step with its number and the model.

    Raises:
        ResumeError: the folder belongs to a run of other settings, or its checkpoint cannot be read.
        OutputError: the checkpoint cannot be written.
        AdaptationError: a frozen part moved, or the loss is no number any more.
    """
    before = frozen_copy(model)
    optimiser = torch.optim.AdamW(
        groups, lr=settings.rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=settings.weight_decay
    )
    ema = ema_model(model, settings.average) if settings.average else None
    state = work / "state.pt"
    first = load_training_state(state, model, optimiser, ema, record)
    trained = [p for p in model.parameters() if p.requires_grad]
    device = str(model.log_scale.device)
    wrapped = distributed.data_parallel(model)
    batches = load_batches(
        pairs, _micro_batches(pairs, settings, first), workers=settings.workers, device=device
    )
    started = time.monotonic()
    with Progress(work, settings.steps, first) as progress:
        for step in range(first, settings.steps):
            rate = cosine_rate(optimiser, step, settings.steps, settings.warmup, settings.rate)
            figures = torch.zeros(3, device=device)
            for part in range(settings.accumulate):
                last = part + 1 == settings.accumulate
                with nullcontext() if last else distributed.no_sync(wrapped):
                    loss, extra, right = wrapped(next(batches), settings.distil, settings.amp)
                    torch.autograd.backward(loss / settings.accumulate)
                figures += torch.stack([loss.detach(), extra, right]) / settings.accumulate
            norm = nn.utils.clip_grad_norm_(trained, settings.clip_norm)
            optimiser.step()
            optimiser.zero_grad()
            with torch.no_grad():  # clamping its use instead would zero the gradient at the limit
                model.log_scale.clamp_(0, HIGHEST_LOG_SCALE)
            if ema is not None:
                ema.update_parameters(model)
            loss_now, extra_now, right_now = distributed.all_reduce_mean(figures).tolist()
            if not np.isfinite(loss_now):
                raise AdaptationError(f"The loss is {loss_now} at step {step + 1}: give a lower --rate.")
            speed = (step + 1 - first) * settings.batch / (time.monotonic() - started)
            row = {"loss": loss_now, "distil": extra_now, "top1": 100 * right_now, "rate": rate}
            progress.report(step + 1, {**row, "norm": float(norm), "pairs_per_s": speed})
            if distributed.is_main_process() and (
                (step + 1) % settings.save_every == 0 or step + 1 == settings.steps
            ):
                save_training_state(state, model, optimiser, ema, step + 1, record)
                progress.draw()
            if on_step is not None:
                on_step(step + 1, model)
    check_frozen(model, before)
    if ema is not None:
        model.load_state_dict(ema.module.state_dict())
    return model


def _micro_batches(pairs: PairSource, settings: LoopSettings, first: int) -> Iterator[MicroBatch]:
    """This process's rows of every part of every step from `first` on."""
    sampler = PairSampler(
        pairs.noun_of, batch=settings.batch, most_per_noun=settings.most_per_noun, seed=settings.seed
    )
    for step in range(first, settings.steps):
        for rows in np.split(sampler.rows(step), settings.accumulate):
            yield distributed.local_rows(rows), step
