"""Training loop of fine-tuning and mask prompt tuning, and the model of the pairs.

Both train on region-noun pairs: the feature of a masked crop moves towards its noun and away from all others.
They differ in the trained parameters only (finetune.py, prompt_tune.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.errors import OvsegError
from train.core import distributed
from train.core.checkpointing import load_training_state, save_training_state
from train.core.loss import pair_loss
from train.core.progress import Progress
from train.core.recipe import LoopSettings
from train.core.schedule import cosine_rate, ema_model
from train.data.loader import MicroBatch, load_batches
from train.data.pair_batch import PairBatch
from train.data.sampler import PairSampler, Sampler

M = TypeVar("M", bound=nn.Module)
HIGHEST_LOG_SCALE = math.log(100)
"""As in CLIP: cosines are multiplied by 100 at most."""


class AdaptationError(OvsegError):
    """Training with these pairs or this model is not possible."""


class PairSource(Protocol):
    """Region-noun pairs that the batches are made of."""

    noun_of: np.ndarray
    """(P,) row of the noun bank for each pair; of several names the natural one."""

    def batch(self, rows: np.ndarray, step: int) -> Any:
        """The pairs of these rows, as one step sees them: a `Batch`."""


class TrainedModel(Protocol):
    """What the loop trains; also an `nn.Module`."""

    def __call__(self, batch: Any, distil: float, amp: bool) -> dict[str, Tensor]:
        """Figures of a batch: `loss`, which is minimised, and detached ones for the log."""

    def clamp_scales(self) -> None:
        """Keep the temperatures in their range; called after every step."""


class AdaptationModel(nn.Module):
    """The model under training: an image tower and a temperature; texts are frozen vectors.

    Args:
        clip: its image tower is trained in place.
        text: (M, D) unit vectors of the noun bank.
        use_prompts: whether the mask prompts are used.
        prior: (M,) added to the logits over the bank in the loss; none by default.
    """

    text: Tensor
    prior: Tensor

    def __init__(
        self, clip: MaskAdaptedCLIP, text: Tensor, *, use_prompts: bool, prior: Tensor | None = None
    ) -> None:
        super().__init__()
        self.tower: Any = clip.image_tower
        self.log_scale = nn.Parameter(torch.tensor(math.log(clip.score_scale), device=clip.device))
        self.use_prompts = use_prompts
        self.register_buffer("text", text, persistent=False)
        prior = torch.zeros(len(text)) if prior is None else prior
        self.register_buffer("prior", prior.to(text.device), persistent=False)

    def forward(self, batch: PairBatch, distil: float, amp: bool) -> dict[str, Tensor]:
        """Loss, its distillation part and the percentage of regions with a right name on top of the bank."""
        forward = getattr(self.tower, "from_stem", self.tower) if batch.inputs.shape[1] != 3 else self.tower
        with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=amp):
            features = forward(batch.inputs, batch.token_mask if self.use_prompts else None)
        image = functional.normalize(features.float(), dim=-1)
        pairs = len(batch.right)
        # Contrast needs the whole global batch; gradients flow through the local part.
        gather = distributed.all_gather
        loss = pair_loss(
            gather(image[:pairs]),
            self.text,
            gather(batch.right),
            self.log_scale,
            None if batch.ignored is None else gather(batch.ignored),
            self.prior,
        )
        extra = loss.new_zeros(())
        logits = self.log_scale.exp() * image @ self.text.T
        if batch.targets is not None and distil:
            extra = functional.kl_div(logits.log_softmax(-1), batch.targets, reduction="sum") / pairs
        best = logits[:pairs].argmax(1)
        top1 = 100 * (batch.right == best[:, None]).any(1).float().mean()
        return {"loss": loss + distil * extra, "distil": extra.detach(), "top1": top1.detach()}

    def clamp_scales(self) -> None:
        """As in CLIP: cosines are multiplied by 1 to 100."""
        with torch.no_grad():  # clamping its use instead would zero the gradient at the limit
            self.log_scale.clamp_(0, HIGHEST_LOG_SCALE)


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
    model: M,
    groups: list[dict[str, Any]],
    pairs: PairSource,
    settings: LoopSettings,
    work: Path,
    record: dict[str, Any],
    on_step: Callable[[int, M], None] | None = None,
    sampler: Sampler | None = None,
) -> M:
    """Train, resume, log; returns the model with averaged weights where averaging is on.

    Args:
        model: what is trained (see `TrainedModel`); it is changed.
        groups: the parameters that move, as AdamW takes them.
        pairs: what it learns from.
        settings: the numbers.
        work: folder for the checkpoint and the log; a checkpoint in it is resumed.
        record: what must be equal to resume.
        on_step: called after every step with its number and the model.
        sampler: says which pairs a step sees; by default a `PairSampler`.

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
    device = str(trained[0].device)
    wrapped = distributed.data_parallel(model)
    if sampler is None:
        sampler = PairSampler(
            pairs.noun_of, batch=settings.batch, most_per_noun=settings.most_per_noun, seed=settings.seed
        )
    batches = load_batches(
        pairs, _micro_batches(sampler, settings, first), workers=settings.workers, device=device
    )
    started = time.monotonic()
    with Progress(work, settings.steps, first) as progress:
        for step in range(first, settings.steps):
            rate = cosine_rate(optimiser, step, settings.steps, settings.warmup, settings.rate)
            totals: dict[str, Tensor] = {}
            for part in range(settings.accumulate):
                last = part + 1 == settings.accumulate
                with nullcontext() if last else distributed.no_sync(wrapped):
                    figures = wrapped(next(batches), settings.distil, settings.amp)
                    torch.autograd.backward(figures["loss"] / settings.accumulate)
                for name, value in figures.items():
                    totals[name] = totals.get(name, 0.0) + value.detach() / settings.accumulate
            norm = nn.utils.clip_grad_norm_(trained, settings.clip_norm)
            optimiser.step()
            optimiser.zero_grad()
            cast(TrainedModel, model).clamp_scales()
            if ema is not None:
                ema.update_parameters(model)
            values = distributed.all_reduce_mean(torch.stack(list(totals.values()))).tolist()
            row = dict(zip(totals, values, strict=True))
            if not np.isfinite(row["loss"]):
                raise AdaptationError(f"The loss is {row['loss']} at step {step + 1}: give a lower --rate.")
            speed = (step + 1 - first) * settings.batch / (time.monotonic() - started)
            progress.report(step + 1, {**row, "rate": rate, "norm": float(norm), "pairs_per_s": speed})
            if distributed.is_main_process() and (
                (step + 1) % settings.save_every == 0 or step + 1 == settings.steps
            ):
                save_training_state(state, model, optimiser, ema, step + 1, record)
                progress.draw(step + 1)
            if on_step is not None:
                on_step(step + 1, model)
    check_frozen(model, before)
    if ema is not None:
        model.load_state_dict(ema.module.state_dict())
    return model


def _micro_batches(sampler: Sampler, settings: LoopSettings, first: int) -> Iterator[MicroBatch]:
    """This process's rows of every part of every step from `first` on."""
    for step in range(first, settings.steps):
        for rows in np.split(sampler.rows(step), settings.accumulate):
            yield distributed.local_rows(rows), step
