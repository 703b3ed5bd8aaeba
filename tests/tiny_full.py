"""A small complete OVSeg file: real modules, random weights."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from ovseg_demo.proposals.maskformer.config import DeepLabResNetConfig, MaskFormerNetworkConfig, SwinConfig
from ovseg_demo.proposals.maskformer.key_mapping import CLIP_PREFIX, NO_OBJECT, places
from ovseg_demo.proposals.maskformer.network import MaskFormerNetwork, text_head
from ovseg_demo.regions import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD

TEXT_WIDTH = 32
TINY = MaskFormerNetworkConfig(
    backbone=SwinConfig(
        embed_dim=8, patch=4, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4), window=4, mlp_ratio=2.0
    ),
    conv_dim=32,
    mask_dim=16,
    queries=7,
    hidden=32,
    decoder_layers=2,
    decoder_heads=2,
    feedforward=48,
)
TINY_RESNET = replace(
    TINY, backbone=DeepLabResNetConfig(stem_width=4, channels=(4, 8, 12, 16), depths=(1, 2, 1, 3))
)


def clip_weights(seed: int = 0) -> dict[str, Tensor]:
    """A CLIP for crops of 16 pixels, OpenAI's names, three levels of mask prompts."""
    torch.manual_seed(seed)
    vision = CLIPVisionCfg(layers=3, width=64, patch_size=4, image_size=16)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=1)
    weights = CLIP(TEXT_WIDTH, vision, text, quick_gelu=True).state_dict()
    return {**weights, "visual.mask_embedding": torch.randn(3, 16, 64)}


def segmenter_weights(
    shape: MaskFormerNetworkConfig = TINY,
    seed: int = 0,
    *,
    text_width: int = TEXT_WIDTH,
    class_hidden: int = 24,
    noise: float = 0.2,
) -> dict[str, Tensor]:
    """The segmenter's part of a complete file under its published names: a new network, and noise."""
    torch.manual_seed(seed)
    network = MaskFormerNetwork(shape, text_head(shape, text_width, class_hidden))
    weights, thirds = {}, {}
    where = places(network.state_dict(), shape.stages)
    for name, value in network.state_dict().items():
        key, part = where[name].key, where[name].part
        if name.endswith("num_batches_tracked"):
            continue  # frozen norms, the published ones, have none
        if name.endswith("running_var"):
            value = value + noise * torch.rand(value.shape)
        elif value.is_floating_point():
            value = value + noise * torch.randn(value.shape)  # biases and tables are zero in a new network
        if part is None:
            weights[key] = value
        else:
            thirds.setdefault(key, {})[part] = value
    weights |= {key: torch.cat([parts[i] for i in range(3)]) for key, parts in thirds.items()}
    return {
        **weights,
        NO_OBJECT: torch.randn(1, text_width),
        "clip_adapter.pixel_mean": torch.tensor(CLIP_PIXEL_MEAN).view(1, 3, 1, 1),
        "clip_adapter.pixel_std": torch.tensor(CLIP_PIXEL_STD).view(1, 3, 1, 1),
        "criterion.empty_weight": torch.ones(172),
    }


def full_weights(shape: MaskFormerNetworkConfig = TINY, seed: int = 0) -> dict[str, Tensor]:
    """MaskFormerNetwork and CLIP together, flat."""
    clip = {CLIP_PREFIX + key: value for key, value in clip_weights(seed).items()}
    return {**segmenter_weights(shape, seed), **clip}


def save_full(path: Path, weights: dict[str, Tensor] | None = None) -> Path:
    """Write a complete file as detectron2 does, version metadata included."""
    model: Any = OrderedDict(full_weights() if weights is None else weights)
    model._metadata = OrderedDict({"sem_seg_head": {"version": 2}})
    torch.save({"model": model, "iteration": 7}, path)
    return path


def other_shape(**sizes: Any) -> MaskFormerNetworkConfig:
    """TINY with other sizes, of its Swin or of the rest."""
    of_swin = {name: sizes.pop(name) for name in set(sizes) & set(SwinConfig.__dataclass_fields__)}
    return replace(TINY, backbone=replace(TINY.backbone, **of_swin), **sizes)
