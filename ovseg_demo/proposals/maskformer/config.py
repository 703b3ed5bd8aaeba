"""The architecture of a published segmenter, read off the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weight_files import file_label, first_keys

_BACKBONE = "backbone.layers.{}.blocks.{}.attn.relative_position_bias_table"
_PREDICTOR = "sem_seg_head.predictor."
CLASS_HEAD = _PREDICTOR + "class_embed.layers.{}.weight"
_DECODER_LAYER = _PREDICTOR + "transformer.decoder.layers.{}."
_TELLING = {
    "backbone.patch_embed.proj.weight": 4,
    _BACKBONE.format(0, 0): 2,
    "backbone.layers.0.blocks.0.mlp.fc1.weight": 2,
    "sem_seg_head.pixel_decoder.layer_1.weight": 4,
    "sem_seg_head.pixel_decoder.mask_features.weight": 4,
    _PREDICTOR + "query_embed.weight": 2,
    _DECODER_LAYER.format(0) + "linear1.weight": 2,
    CLASS_HEAD.format(0): 2,
    CLASS_HEAD.format(1): 2,
}


@dataclass(frozen=True)
class SwinMaskFormerConfig:
    """The sizes in which one Swin MaskFormer of OVSeg differs from another."""

    embed_dim: int
    patch: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    mlp_ratio: float
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
        """Of the Swin; the last one's stride is patch * 2 ** (stages - 1)."""
        return len(self.depths)

    @classmethod
    def of(
        cls, weights: Mapping[str, Tensor], source: Path, decoder_heads: int | None = None
    ) -> SwinMaskFormerConfig:
        """Read the sizes off the weights.

        Args:
            weights: by their published names.
            source: the file they are from, for messages.
            decoder_heads: attention heads of the queries, which no shape tells. By default the published 8,
                or fewer if a head would be narrower than 16.

        Raises:
            CheckpointError: a telling weight is missing or makes no sense.
        """
        if missing := [key for key in _TELLING if key not in weights]:
            raise CheckpointError(
                f"{file_label(source)} is not a whole segmenter: it lacks {first_keys(missing)}."
            )
        for key, axes in _TELLING.items():
            if weights[key].ndim != axes or 0 in weights[key].shape:
                raise CheckpointError(f"{file_label(source)} has {key} of shape {tuple(weights[key].shape)}.")
        embed_dim = weights["backbone.patch_embed.proj.weight"].shape[0]
        depths = _depths(weights)
        tables = [_BACKBONE.format(stage, 0) for stage in range(len(depths))]
        places = weights[tables[0]].shape[0]
        hidden = weights[_PREDICTOR + "query_embed.weight"].shape[1]
        conv_dim = weights["sem_seg_head.pixel_decoder.layer_1.weight"].shape[0]
        config = cls(
            embed_dim=embed_dim,
            patch=weights["backbone.patch_embed.proj.weight"].shape[-1],
            depths=depths,
            heads=tuple(weights[key].shape[-1] for key in tables),
            window=(isqrt(places) + 1) // 2,
            mlp_ratio=weights["backbone.layers.0.blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
            conv_dim=conv_dim,
            mask_dim=weights["sem_seg_head.pixel_decoder.mask_features.weight"].shape[0],
            queries=weights[_PREDICTOR + "query_embed.weight"].shape[0],
            hidden=hidden,
            decoder_layers=_count(weights, _DECODER_LAYER.format(r"(\d+)") + r"linear1\.weight"),
            decoder_heads=decoder_heads or max(1, min(8, hidden // 16)),
            feedforward=weights[_DECODER_LAYER.format(0) + "linear1.weight"].shape[0],
            projects_input=_PREDICTOR + "input_proj.weight" in weights,
        )
        for fits, what in (
            ((2 * config.window - 1) ** 2 == places, f"{places} relative positions, which make no square"),
            (
                all(embed_dim * 2**i % heads == 0 for i, heads in enumerate(config.heads)),
                f"{config.heads} attention heads at a width of {embed_dim}",
            ),
            (conv_dim % 32 == 0, f"a pixel decoder of width {conv_dim}, no multiple of its 32 groups"),
            (
                hidden % 2 == 0 and hidden % config.decoder_heads == 0,
                f"queries of width {hidden} for {config.decoder_heads} attention heads",
            ),
        ):
            if not fits:
                raise CheckpointError(f"{file_label(source)} has {what}; no MaskFormer fits that.")
        return config


def _depths(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of each stage."""
    stages = _count(weights, _BACKBONE.format(r"(\d+)", r"\d+").replace(".attn", r"\.attn"))
    return tuple(
        _count(weights, _BACKBONE.format(stage, r"(\d+)").replace(".attn", r"\.attn"))
        for stage in range(stages)
    )


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number that the pattern's group finds; 0 if it finds none."""
    found = [match for key in weights if (match := re.fullmatch(pattern, key))]
    return max((int(match[1]) + 1 for match in found), default=0)
