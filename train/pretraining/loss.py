"""The losses of the pretraining: captions, names, and distillation from the classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from train.pretraining.batches import Batch
from train.pretraining.model import TextHead
from train.pretraining.settings import PretrainSettings
from train.pretraining.text_bank import TextBank


@dataclass(frozen=True)
class Priors:
    """How frequent each name is among the targets, (M,) logarithms times the setting."""

    worded: Tensor
    """Among the names of photos."""
    classifier: Tensor
    """Among the classifier's predictions for narrow views."""


def name_priors(bank: TextBank, shards: list[dict[str, Tensor]], strength: float) -> Priors:
    """Logit adjustment (Menon et al., 2021): frequent names are not preferred for their frequency."""
    worded = torch.zeros(len(bank.names))
    for names in bank.photo_names:
        for name, weight in names.items():
            worded[name] += weight
    says = torch.stack([shard["logits"][::7].float().softmax(-1).mean(0) for shard in shards[1::2]]).mean(0)
    return Priors(*(strength * (p / p.sum() + 1e-5).log() for p in (worded, says @ bank.class_names)))


def training_loss(
    head: TextHead,
    bank: TextBank,
    image: Tensor,
    logits: Tensor,
    batch: Batch,
    priors: Priors,
    settings: PretrainSettings,
) -> tuple[Tensor, dict[str, float]]:
    """The sum of the losses of one batch and each of them by name.

    Args:
        head: for the words and the temperatures.
        bank: captions and names.
        image: (B, D) unit vectors of the views.
        logits: (B, 1000) of the trunk's classifier.
        batch: whose views they are.
        priors: added to the logits while training, so that the weights need not hold them.
        settings: the weights of the losses.
    """
    wide = image[: batch.wide]
    caption_scale, name_scale = head.log_scales.exp().clamp(max=100)

    with_caption = torch.tensor([row for row, c in enumerate(batch.captions) if c >= 0])
    rows = torch.tensor([c for c in batch.captions if c >= 0] + batch.other_captions)
    to_text = caption_scale * wide[with_caption] @ head.words(bank.captions[rows]).T
    count = len(with_caption)
    target = torch.arange(count)
    caption_loss = functional.cross_entropy(to_text, target)
    caption_loss = (caption_loss + functional.cross_entropy(to_text[:, :count].T, target)) / 2

    names = head.words(bank.name_vectors[batch.wording])
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
