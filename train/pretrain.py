"""Train the vanilla ovseg-mini: a compact CLIP that has never seen a masked picture.

    python -m train.pretrain --out checkpoints/ovseg-mini

What it learns from: captions (contrastive), the nouns in them and the labels of labelled photos (softmax over
every name at once), and on pieces of photos the trunk's own ImageNet classifier, whose 1,000 classes are also
known by their everyday names (distillation). The pooled branch learns from mean patches (cheap), the
transformer from the patches, each alone in its half of the space: together they would lean on each other's
captions.
Resumable: run the same command again. Same settings, same weights.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ovseg_demo.clip import load_clip
from train.core.options import run_command
from train.data.sources import imagenet, read_sources
from train.exporting.weights import save_known_names, save_mini
from train.pretraining.model import PretrainingModel
from train.pretraining.settings import PretrainSettings
from train.pretraining.stages import pooled_stage, run_stage, token_stage
from train.pretraining.text_bank import build_text_bank
from train.pretraining.views import Teacher


def pretrain(settings: PretrainSettings) -> None:
    """Run the training and write the model."""
    photos = read_sources(settings.data)
    classes = [photo.names[0] for photo in imagenet(settings.data)]
    settings.work.mkdir(parents=True, exist_ok=True)
    bank = build_text_bank(photos, classes, settings.work)
    torch.manual_seed(settings.seed)
    model, teacher = PretrainingModel(), Teacher()
    model.tower.trunk.load_state_dict(teacher.trunk.state_dict())
    model.tower.classifier.load_state_dict(teacher.classifier.state_dict())
    class_text = functional.normalize(bank.class_names @ bank.name_vectors[1], dim=-1)
    model.tower.class_text.data.copy_(class_text / 2)
    for make in (pooled_stage, token_stage):
        model = run_stage(make(model, settings), model, photos, bank, settings)
    tower, projection, scale = model.joined(settings.token_weight)
    save_mini(settings.out, tower, projection, "vanilla", score_scale=scale)
    save_known_names(settings.out, load_clip(settings.out, weights="vanilla"))


if __name__ == "__main__":
    run_command(pretrain, PretrainSettings, prog="train.pretrain")
