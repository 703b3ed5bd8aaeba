"""The architecture of a published segmenter, read off the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weight_files import file_label, first_keys

_SWIN_TABLE = "backbone.layers.{}.blocks.{}.attn.relative_position_bias_table"
_RESNET_STEM = "backbone.stem.conv{}.weight"
_RESNET_CONV = "backbone.res{}.{}.conv{}.weight"
_PREDICTOR = "sem_seg_head.predictor."
CLASS_HEAD = _PREDICTOR + "class_embed.layers.{}.weight"
_DECODER_LAYER = _PREDICTOR + "transformer.decoder.layers.{}."
LAST_DILATIONS = (1, 2, 4)
"""Of the three blocks of res5 in a ResNet; no weight tells them."""

_TELLING_SWIN = {
    "backbone.patch_embed.proj.weight": 4,
    _SWIN_TABLE.format(0, 0): 2,
    "backbone.layers.0.blocks.0.mlp.fc1.weight": 2,
}
_TELLING_RESNET = {
    **{_RESNET_STEM.format(i): 4 for i in (1, 3)},
    **{_RESNET_CONV.format(stage, 0, 1): 4 for stage in (2, 3, 4, 5)},
}
_TELLING_HEAD = {
    "sem_seg_head.pixel_decoder.layer_1.weight": 4,
    "sem_seg_head.pixel_decoder.mask_features.weight": 4,
    _PREDICTOR + "query_embed.weight": 2,
    _DECODER_LAYER.format(0) + "linear1.weight": 2,
    CLASS_HEAD.format(0): 2,
    CLASS_HEAD.format(1): 2,
}


@dataclass(frozen=True)
class SwinConfig:
    """The sizes of a Swin."""

    embed_dim: int
    patch: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    mlp_ratio: float

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))


@dataclass(frozen=True)
class DeepLabResNetConfig:
    """The sizes of a ResNet in DeepLab's form (R101c): three convolutions first, dilations 1, 2, 4 last."""

    stem_width: int
    """Channels of the first two convolutions; the third has twice as many."""
    channels: tuple[int, ...]
    """Of the 3 x 3 convolutions of each stage."""
    depths: tuple[int, ...]

    EXPANSION: ClassVar[int] = 4
    """How many times wider a block's output is than its 3 x 3 convolution."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(self.EXPANSION * width for width in self.channels)


@dataclass(frozen=True)
class MaskFormerNetworkConfig:
    """The sizes in which one MaskFormer of OVSeg differs from another."""

    backbone: SwinConfig | DeepLabResNetConfig
    conv_dim: int
    mask_dim: int
    queries: int
    hidden: int
    decoder_layers: int
    decoder_heads: int
    feedforward: int
    projects_input: bool = True
    """Whether a convolution brings the deepest features to the width of the queries."""

    @property
    def stages(self) -> int:
        """Of the backbone; the last one's stride is 2 ** (stages + 1)."""
        return len(self.backbone.depths)

    @classmethod
    def of(
        cls, weights: Mapping[str, Tensor], source: Path, decoder_heads: int | None = None
    ) -> MaskFormerNetworkConfig:
        """Read the sizes off the weights.

        Args:
            weights: by their published names.
            source: the file they are from, for messages.
            decoder_heads: attention heads of the queries, which no shape tells. By default the published 8,
                or fewer if a head would be narrower than 16.

        Raises:
            CheckpointError: a telling weight is missing or makes no sense.
        """
        is_resnet = any(key.startswith("backbone.stem.") for key in weights)
        telling = {**(_TELLING_RESNET if is_resnet else _TELLING_SWIN), **_TELLING_HEAD}
        if missing := [key for key in telling if key not in weights]:
            raise CheckpointError(
                f"{file_label(source)} is not a whole segmenter: it lacks {first_keys(missing)}."
            )
        for key, axes in telling.items():
            if weights[key].ndim != axes or 0 in weights[key].shape:
                raise CheckpointError(f"{file_label(source)} has {key} of shape {tuple(weights[key].shape)}.")
        hidden = weights[_PREDICTOR + "query_embed.weight"].shape[1]
        conv_dim = weights["sem_seg_head.pixel_decoder.layer_1.weight"].shape[0]
        config = cls(
            backbone=_resnet(weights, source) if is_resnet else _swin(weights, source),
            conv_dim=conv_dim,
            mask_dim=weights["sem_seg_head.pixel_decoder.mask_features.weight"].shape[0],
            queries=weights[_PREDICTOR + "query_embed.weight"].shape[0],
            hidden=hidden,
            decoder_layers=_count(weights, _DECODER_LAYER.format(r"(\d+)") + r"linear1\.weight"),
            decoder_heads=decoder_heads or max(1, min(8, hidden // 16)),
            feedforward=weights[_DECODER_LAYER.format(0) + "linear1.weight"].shape[0],
            projects_input=_PREDICTOR + "input_proj.weight" in weights,
        )
        _check(
            conv_dim % 32 == 0, f"a pixel decoder of width {conv_dim}, no multiple of its 32 groups", source
        )
        _check(
            hidden % 2 == 0 and hidden % config.decoder_heads == 0,
            f"queries of width {hidden} for {config.decoder_heads} attention heads",
            source,
        )
        return config


def _swin(weights: Mapping[str, Tensor], source: Path) -> SwinConfig:
    """The sizes of the file's Swin."""
    embed_dim = weights["backbone.patch_embed.proj.weight"].shape[0]
    depths = _depths(weights)
    tables = [_SWIN_TABLE.format(stage, 0) for stage in range(len(depths))]
    places = weights[tables[0]].shape[0]
    config = SwinConfig(
        embed_dim=embed_dim,
        patch=weights["backbone.patch_embed.proj.weight"].shape[-1],
        depths=depths,
        heads=tuple(weights[key].shape[-1] for key in tables),
        window=(isqrt(places) + 1) // 2,
        mlp_ratio=weights["backbone.layers.0.blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
    )
    _check(
        (2 * config.window - 1) ** 2 == places, f"{places} relative positions, which make no square", source
    )
    _check(
        all(width % heads == 0 for width, heads in zip(config.widths, config.heads, strict=True)),
        f"{config.heads} attention heads at a width of {embed_dim}",
        source,
    )
    return config


def _resnet(weights: Mapping[str, Tensor], source: Path) -> DeepLabResNetConfig:
    """The sizes of the file's ResNet."""
    stages = (2, 3, 4, 5)
    config = DeepLabResNetConfig(
        stem_width=weights[_RESNET_STEM.format(1)].shape[0],
        channels=tuple(weights[_RESNET_CONV.format(stage, 0, 1)].shape[0] for stage in stages),
        depths=tuple(_count(weights, rf"backbone\.res{stage}\.(\d+)\.conv1\.weight") for stage in stages),
    )
    _check(
        config.depths[-1] == len(LAST_DILATIONS),
        f"{config.depths[-1]} blocks in res5, where dilations {LAST_DILATIONS} need {len(LAST_DILATIONS)}",
        source,
    )
    return config


def _check(fits: bool, what: str, source: Path) -> None:
    if not fits:
        raise CheckpointError(f"{file_label(source)} has {what}; no MaskFormer fits that.")


def _depths(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of each stage of the Swin."""
    stages = _count(weights, _SWIN_TABLE.format(r"(\d+)", r"\d+").replace(".attn", r"\.attn"))
    return tuple(
        _count(weights, _SWIN_TABLE.format(stage, r"(\d+)").replace(".attn", r"\.attn"))
        for stage in range(stages)
    )


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number that the pattern's group finds; 0 if it finds none."""
    found = [match for key in weights if (match := re.fullmatch(pattern, key))]
    return max((int(match[1]) + 1 for match in found), default=0)
