"""Segment Anything (Kirillov et al., 2023) with its ViT-B, ViT-L and ViT-H encoders.

Prompts and selection are the same as for MobileSAM. Only the image encoder differs: it takes a square of 1024
pixels, so the picture is padded, and the padding is cut off the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.devices import fast_dtype
from ovseg_demo.proposals.decoder import PointDecoder
from ovseg_demo.proposals.prompting import PointPromptConfig, PointProposer
from ovseg_demo.proposals.weights import load_weights

SIDE = 1024
_CHANNELS = 256


@dataclass(frozen=True)
class SamConfig:
    """Sizes of one published encoder."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    """Blocks that attend to the whole picture; the others to windows of 14 x 14 tokens."""


CONFIGS: dict[str, SamConfig] = {
    "sam-vit-b": SamConfig(768, 12, 12, (2, 5, 8, 11)),
    "sam-vit-l": SamConfig(1024, 24, 16, (5, 11, 17, 23)),
    "sam-vit-h": SamConfig(1280, 32, 16, (7, 15, 23, 31)),
}


class PaddedEncoder(nn.Module):
    """SAM's image encoder on rectangles: pads to its square and cuts the embedding back."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (1, 3, H, W), multiples of 16 up to 1024 -> (1, 256, H / 16, W / 16)."""
        height, width = pixels.shape[-2:]
        square = F.pad(pixels, (0, SIDE - width, 0, SIDE - height))
        embedding: Tensor = self.encoder(square)[..., : height // 16, : width // 16]
        return embedding


def load_sam(
    name: str,
    weights: Path,
    *,
    device: torch.device,
    plan: PointPromptConfig,
    config: SamConfig | None = None,
) -> PointProposer:
    """One published SAM as a proposer.

    Args:
        name: a key of CONFIGS.
        weights: the published checkpoint, a state dict.
        device: "cpu" or a CUDA device.
        plan: density and thresholds.
        config: another encoder than the one the name stands for.

    Raises:
        CheckpointError: the file cannot be read, is no state dict, or one of another model.
    """
    parts = build_sam(config or CONFIGS[name])
    load_weights(parts, weights, name)
    dtype = fast_dtype(device)
    encoder = PaddedEncoder(parts["image_encoder"]).to(device, dtype)

    def encode(pixels: Tensor) -> Tensor:
        embedding: Tensor = encoder(pixels.to(dtype))
        return embedding

    prompts, decoder = parts["prompt_encoder"].to(device), parts["mask_decoder"].to(device)
    return PointProposer(
        name, encode, PointDecoder(prompts, decoder, dtype), side=SIDE, plan=plan, device=device
    )


def build_sam(config: SamConfig) -> nn.ModuleDict:
    """The package's three modules without memory for their weights (on the "meta" device)."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer

    grid = (SIDE // 16, SIDE // 16)
    with torch.device("meta"):
        encoder = ImageEncoderViT(
            img_size=SIDE,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            out_chans=_CHANNELS,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=config.global_blocks,
        )
        prompts = PromptEncoder(
            embed_dim=_CHANNELS, image_embedding_size=grid, input_image_size=(SIDE, SIDE), mask_in_chans=16
        )
        transformer = TwoWayTransformer(depth=2, embedding_dim=_CHANNELS, num_heads=8, mlp_dim=2048)
        decoder = MaskDecoder(transformer_dim=_CHANNELS, transformer=transformer)
    return nn.ModuleDict({"image_encoder": encoder, "prompt_encoder": prompts, "mask_decoder": decoder})
