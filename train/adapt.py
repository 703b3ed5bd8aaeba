"""What fine-tuning and mask prompt tuning share: the loss, the loop, the resume.

Both learn from region-noun pairs: a masked crop should lie close to its noun and far from every other noun.
They differ only in which parameters move (finetune.py, prompt_tune.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.errors import OvsegError
from train import distributed
from train.checkpointing import load_training_state, save_training_state
from train.schedule import Average, cosine_rate


class AdaptationError(OvsegError):
    """The pairs or the model cannot be trained with."""


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one step on one process.

    Attributes:
        inputs: what the image tower's `forward_inputs` takes: crops (B, 3, S, S), or kept stem features.
        token_mask: (B, N) of 0 and 1.
        nouns: (B,) int64 rows of the noun bank.
        targets: (B, M) float32, vanilla's distribution over the bank for the same box unmasked, or None.
    """

    inputs: Tensor
    token_mask: Tensor
    nouns: Tensor
    targets: Tensor | None = None


class Pairs(Protocol):
    """Region-noun pairs that a step can draw from."""

    nouns: list[str]
    """The noun bank."""
    noun_of: np.ndarray
    """(P,) row of the bank for each pair."""

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """The pairs of these rows, as one step sees them."""


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
    amp: bool


def draw_rows(noun_of: np.ndarray, step: int, settings: LoopSettings) -> np.ndarray:
    """The pairs of a step, over all processes; depends on the settings and the step alone.

    Every epoch is a new shuffle in which a noun has at most `most_per_noun` pairs, so that "man" and "dog" do
    not crowd out the rest.
    """
    counts = np.bincount(noun_of)
    per_epoch = int(np.minimum(counts, settings.most_per_noun).sum())
    batches = max(per_epoch // settings.batch, 1)
    epoch, number = divmod(step, batches)
    dice = np.random.default_rng([settings.seed, epoch])
    order = dice.permutation(len(noun_of))
    seen = np.zeros(len(counts), dtype=np.int64)
    ranks = np.empty(len(noun_of), dtype=np.int64)
    for row in order:
        ranks[row] = seen[noun_of[row]]
        seen[noun_of[row]] += 1
    kept = order[ranks[order] < settings.most_per_noun]
    if len(kept) < settings.batch:
        return dice.choice(kept, settings.batch)
    return kept[number * settings.batch : (number + 1) * settings.batch]


def pair_loss(image: Tensor, text: Tensor, nouns: Tensor, log_scale: Tensor) -> Tensor:
    """Cross entropy of each region over the noun bank, plus that of each noun over the batch's regions.

    The text side asks of a noun in the batch: which regions are it? Pairs with the same noun are all right
    answers, never each other's negatives.

    Args:
        image: (B, D) unit vectors.
        text: (M, D) unit vectors of the bank.
        nouns: (B,) int64.
        log_scale: logarithm of the temperature's inverse.
    """
    scale = log_scale.exp().clamp(max=100)
    logits = scale * image @ text.T
    to_text = functional.cross_entropy(logits, nouns)
    same = (nouns[:, None] == nouns[None, :]).float()
    to_image = functional.cross_entropy(logits[:, nouns].T, same / same.sum(1, keepdim=True))
    return (to_text + to_image) / 2


class Adaptation(nn.Module):
    """The model under training: an image tower and a temperature; texts are frozen vectors."""

    def __init__(self, clip: MaskAdaptedCLIP, text: Tensor, *, use_prompts: bool) -> None:
        super().__init__()
        self.tower: Any = clip.image_tower
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(clip.score_scale))))
        self.use_prompts = use_prompts
        self.register_buffer("text", text, persistent=False)

    def forward(self, batch: PairBatch, distil: float, amp: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, its distillation part and the share of regions whose noun is on top of the bank."""
        forward = getattr(self.tower, "from_stem", self.tower) if batch.inputs.shape[1] != 3 else self.tower
        with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=amp):
            features = forward(batch.inputs, batch.token_mask if self.use_prompts else None)
        image = functional.normalize(features.float(), dim=-1)
        # Contrast needs the whole global batch; gradients flow through the local part.
        everyone, nouns = distributed.gather(image), distributed.gather(batch.nouns)
        loss = pair_loss(everyone, self.text, nouns, self.log_scale)
        extra = loss.new_zeros(())
        logits = self.log_scale.exp() * image @ self.text.T
        if batch.targets is not None and distil:
            extra = functional.kl_div(logits.log_softmax(-1), batch.targets, reduction="batchmean")
        right = (logits.argmax(1) == batch.nouns).float().mean()
        return loss + distil * extra, extra.detach(), right.detach()


def frozen_digest(module: nn.Module) -> dict[str, Tensor]:
    """Copies of everything that must not move."""
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


def run(
    model: Adaptation,
    groups: list[dict[str, Any]],
    pairs: Pairs,
    settings: LoopSettings,
    work: Path,
    record: dict[str, Any],
    on_step: Callable[[int, Adaptation], None] | None = None,
) -> Adaptation:
    """Train, resume, log; returns the model with averaged weights where averaging is on."""
    work.mkdir(parents=True, exist_ok=True)
    before = frozen_digest(model)
    optimiser = torch.optim.AdamW(
        groups, lr=settings.rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=settings.weight_decay
    )
    average = Average(model, settings.average) if settings.average else None
    state = work / "state.pt"
    step = load_training_state(state, model, optimiser, average, record)
    trained = [p for p in model.parameters() if p.requires_grad]
    wrapped = distributed.wrap(model)
    started, first = time.monotonic(), step
    with _progress(work, settings.steps, step) as report:
        while step < settings.steps:
            cosine_rate(optimiser, step, settings.steps, settings.warmup, settings.rate)
            rows = distributed.share(draw_rows(pairs.noun_of, step, settings))
            losses = []
            for part in np.array_split(rows, settings.accumulate):
                loss, extra, right = wrapped(pairs.batch(part, step), settings.distil, settings.amp)
                torch.autograd.backward(loss / settings.accumulate)
                losses.append((float(loss.detach()), float(extra), float(right)))
            nn.utils.clip_grad_norm_(trained, settings.clip_norm)
            optimiser.step()
            optimiser.zero_grad()
            if average is not None:
                average.update(model)
            step += 1
            loss_mean, extra_mean, right_mean = (distributed.mean(float(v)) for v in np.mean(losses, axis=0))
            rate = (step - first) / (time.monotonic() - started)
            row = {"loss": loss_mean, "distil": extra_mean, "top1": 100 * right_mean, "steps_per_s": rate}
            report(step, row)
            if distributed.first() and (step % settings.save_every == 0 or step == settings.steps):
                save_training_state(state, model, optimiser, average, step, record)
            if on_step is not None:
                on_step(step, model)
    check_frozen(model, before)
    return average.copy_into(model) if average is not None else model


class _progress:
    """A bar for people, JSONL for programs, TensorBoard where it is installed; only on the first process."""

    def __init__(self, work: Path, steps: int, done: int) -> None:
        self.active = distributed.first()
        self.log = (work / "log.jsonl").open("a") if self.active else None
        self.bar = tqdm(total=steps, initial=done, desc=work.name, disable=not self.active)
        self.board = _tensorboard(work) if self.active else None

    def __enter__(self) -> Callable[[int, dict[str, float]], None]:
        return self.report

    def report(self, step: int, row: dict[str, float]) -> None:
        self.bar.update()
        if self.log is None:
            return
        self.log.write(json.dumps({"step": step, **{k: round(v, 5) for k, v in row.items()}}) + "\n")
        self.log.flush()
        self.bar.set_postfix(loss=f"{row['loss']:.3f}", top1=f"{row['top1']:.0f}%")
        for name, value in row.items() if self.board is not None else ():
            self.board.add_scalar(name, value, step)

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.log is not None:
            self.log.close()
        if self.board is not None:
            self.board.close()


def _tensorboard(work: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an optional extra: the JSONL file holds the same numbers
        return None
    return SummaryWriter(str(work / "tensorboard"))


def epoch_steps(noun_of: np.ndarray, most_per_noun: int, batch: int, epochs: float) -> int:
    """Steps of so many epochs over the capped pairs."""
    counted = int(np.minimum(np.bincount(noun_of), most_per_noun).sum())
    return max(round(epochs * (counted // batch)), 1)


def settings_record(settings: Any) -> dict[str, Any]:
    """What a resume compares."""
    return asdict(settings)


def batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive slices of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
