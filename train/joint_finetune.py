"""Fine-tune ovseg-mini on regions in their photos: the adapted tower and the context head together.

    python -m train.joint_finetune --pairs runs/named_pairs runs/true_pairs --out runs/joint

The tower sees a region's blanked crop, as in the paper. The head also sees the whole photo, once, through the
same trunk (`ovseg_demo/clip/context.py`). Both learn from the same regions, whose names are right together;
captioned photos are held to vanilla's features. The frozen stem's output for crops and photos is computed
first and kept; a run that was stopped resumes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.context import ContextConfig
from ovseg_demo.clip.context_arm import load_context
from ovseg_demo.clip.mini import MiniImageTower
from ovseg_demo.clip.text import TEMPLATES
from ovseg_demo.devices import fast_dtype
from ovseg_demo.errors import SettingsError
from train.core import distributed
from train.core.loop import run_training
from train.core.loss import name_prior
from train.core.options import run_command
from train.core.run_record import write_record
from train.data.named_regions import refuse_held_out
from train.data.pair_folder import PairFolder
from train.data.stem_features import stem_views
from train.exporting.weights import save_adapted, save_context
from train.joint.batches import JointPairs, PhotoSampler, caption_draws
from train.joint.captions import CaptionedPhotos, captioned_photos, sentence_vectors
from train.joint.model import JointModel
from train.joint.photos import PhotoMaps
from train.joint.settings import JointSettings

NAME_TEMPLATES = (*TEMPLATES["single"], *(TEMPLATES["vild"][i] for i in (0, 2, 5, 10, 12)))
"""Sentences that names stand in during training, the plainest first."""


def joint_finetune(settings: JointSettings) -> None:
    """Keep the features, run the training and write the weights of both arms."""
    if distributed.world_size() > 1:
        raise SettingsError("train.joint_finetune runs in one process: start it without torchrun.")
    config = ContextConfig(hidden=settings.hidden, dropout=settings.dropout)
    folder = PairFolder(*settings.pairs, least_score=settings.least_score)
    refuse_held_out((place.path for place in folder.photos), settings.data)
    vanilla = load_clip(settings.model, weights="vanilla").compute_in(fast_dtype(torch.device("cpu")))
    if not isinstance(vanilla.image_tower, MiniImageTower):
        raise SettingsError(f"--model {settings.model} is no ovseg-mini, the only tower with a context head.")
    pairs, digest = open_joint_pairs(settings, folder, vanilla, config)
    if settings.start is None:
        clip = load_clip(settings.model, weights="vanilla")
    else:
        clip = load_clip(settings.start, weights="adapted")
    torch.manual_seed(settings.seed)
    prior = name_prior(folder.right, len(folder.nouns), settings.prior)
    model = JointModel(
        clip,
        config,
        prior,
        caption_weight=settings.caption_weight,
        descriptor_dropout=settings.descriptor_dropout,
        photo_weight=settings.photo_weight,
    )
    if settings.start is not None and settings.start.is_dir():
        model.load_head(load_context(settings.start / "context.safetensors"))
    groups = train_joint_model(model, settings)
    sampler = PhotoSampler(
        pairs.photos.photo_of,
        pairs.noun_of,
        photos=settings.photos,
        regions=settings.regions,
        most_per_noun=settings.most_per_noun,
        seed=settings.seed,
    )
    record = settings.record(digest)
    run_training(model, groups, pairs, settings.loop(), settings.out, record, sampler=sampler)
    if settings.mean_with is not None:
        earlier = settings.mean_with
        model.mean_with(load_clip(earlier, weights="adapted"), load_context(earlier / "context.safetensors"))
    write_arms(model.eval(), clip, settings.out, weight=settings.context_weight)
    write_record(settings, prog="train.joint_finetune", sha256=clip.weights_sha256)


def open_joint_pairs(
    settings: JointSettings, folder: PairFolder, vanilla: MaskAdaptedCLIP, config: ContextConfig
) -> tuple[JointPairs, str]:
    """The source of batches, from kept features, and a digest of pairs and captioned photos."""
    work = settings.work
    parts = [PairFolder(path, least_score=settings.least_score) for path in settings.pairs]
    each = [stem_views(part, vanilla, work, views=settings.views, jitter=settings.jitter) for part in parts]
    views = [
        {what: torch.cat([part[view][what] for part in each]) for what in ("stems", "share")}
        for view in range(settings.views)
    ]
    photos = PhotoMaps(folder, settings.data, vanilla, config, work)
    sentences = [template.format(name) for template in NAME_TEMPLATES for name in folder.nouns]
    vectors = sentence_vectors(vanilla, sentences, work, "names")
    names = vectors.reshape(len(NAME_TEMPLATES), len(folder.nouns), -1)
    draws, digest = None, folder.digest
    if settings.captions:
        captioned = captioned_photos(settings.data, settings.captions)
        kept = CaptionedPhotos(captioned, vanilla, settings.data, work)
        draws = caption_draws(kept, settings.captioned, settings.other_captions)
        digest += hashlib.sha256("\n".join(photo.path.name for photo in captioned).encode()).hexdigest()
    return JointPairs(folder, views, photos, names, draws, settings.seed), digest


def train_joint_model(model: JointModel, settings: JointSettings) -> list[dict[str, Any]]:
    """Freeze and unfreeze parameters; returns AdamW's groups.

    Frozen are the text tower, mask prompts, the trunk's stem, the blocks behind it that the settings name,
    and depthwise convolutions, which have few weights and whose gradients take most of a step on a CPU.
    """
    model.requires_grad_(True)
    model.text.requires_grad_(False)
    tower = model.tower
    tower.trunk.requires_grad_(False)
    for block in tower.trunk.top[settings.trunk_blocks :]:
        for name, parameter in block.named_parameters():
            parameter.requires_grad_("_depthwise_conv" not in name)
    if tower.prompts is not None:
        tower.prompts.requires_grad_(False)
    model.train()
    of_trunk = [p for p in tower.trunk.top.parameters() if p.requires_grad]
    of_tower = _others(tower, of_trunk)
    rest = _others(model, [*of_trunk, *of_tower])
    groups: list[dict[str, Any]] = []
    for parameters, rate in (
        (of_trunk, settings.trunk_rate),
        (of_tower, settings.tower_rate),
        (rest, settings.rate),
    ):
        for decay, matrices in ((settings.weight_decay, True), (0.0, False)):
            some = [p for p in parameters if (p.ndim > 1) == matrices]
            groups.append({"params": some, "weight_decay": decay, "share": rate / settings.rate})
    return groups


def _others(module: nn.Module, known: list[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters of a module that are trained and not among the known ones."""
    ids = {id(p) for p in known}
    return [p for p in module.parameters() if p.requires_grad and id(p) not in ids]


def write_arms(model: JointModel, clip: MaskAdaptedCLIP, out: Path, *, weight: float) -> None:
    """Write `adapted.safetensors`, `context.safetensors` and `config.json`."""
    save_adapted(out, clip, score_scale=float(model.log_scale.detach().exp()))
    save_context(
        out,
        model.head,
        model.context_text.weight,
        weight=weight,
        score_scale=float(model.context_log_scale.detach().exp()),
    )


if __name__ == "__main__":
    run_command(joint_finetune, JointSettings, prog="train.joint_finetune")
