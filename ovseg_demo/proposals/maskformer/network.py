"""A MaskFormer with a Swin, made of transformers' own modules; OVSeg's has queries in CLIP's text space.

    pixels -> Swin -> res2, res3, res4, res5 -> pixel decoder -> mask features F
                                     res5 -> queries, decoder -> q_1 ... q_N
    mask logits of query n   = mask_embed(q_n) . F
    its place among the words = class_embed(q_n), compared with text features by cosine (OVSeg)
    its logits of fixed names = class_embed(q_n)                                       (MaskFormer)

The published network and transformers' agree in all that has weights on this way: window padding after the
norm, the mask of shifted windows, patch merging's order, eps, sine positions. Three things are set here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MaskFormerConfig, MaskFormerModel
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig
from transformers.models.maskformer.configuration_maskformer_swin import MaskFormerSwinConfig
from transformers.models.maskformer.modeling_maskformer import MaskformerMLPPredictionHead

from ovseg_demo.proposals.maskformer.config import MaskFormerShape

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
STRIDE = 32
"""Pictures are padded to multiples of this, whatever the network's own stride."""


class SwinMaskFormer(nn.Module):
    """The segmenter without a loss, with whatever names its queries.

    Args:
        shape: its sizes.
        class_embed: module from (1, N, hidden) to (1, N, D).
    """

    def __init__(self, shape: MaskFormerShape, class_embed: nn.Module) -> None:
        super().__init__()
        self.model = MaskFormerModel(configuration(shape))
        self.class_embed = class_embed
        self.mask_embed = MaskformerMLPPredictionHead(shape.hidden, shape.hidden, shape.mask_dim)
        # This norm and this average serve image classification; nothing here reads them, no file has them.
        swin = self.model.pixel_level_module.encoder.model
        swin.layernorm, swin.pooler = nn.Identity(), None
        if shape.projects_input:
            # transformers leaves the projection out where the widths are equal; the file decides.
            deepest = shape.embed_dim * 2 ** (shape.stages - 1)
            self.model.transformer_module.input_projection = nn.Conv2d(deepest, shape.hidden, 1)

    def features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) from `prepare` -> the Swin's feature maps, finest (stride 4) first."""
        maps: tuple[Tensor, ...] = self.model.pixel_level_module.encoder(pixels).feature_maps
        return maps

    def mask_features(self, features: tuple[Tensor, ...]) -> Tensor:
        """Feature maps -> (1, mask width, H / 4, W / 4)."""
        decoded: Tensor = self.model.pixel_level_module.decoder(features).last_hidden_state
        return decoded

    def queries(self, deepest: Tensor) -> Tensor:
        """The coarsest feature map -> (1, N, hidden), what each query has found."""
        found: Tensor = self.model.transformer_module(deepest).last_hidden_state
        return found

    def heads(self, queries: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and mask features -> (N, D) from `class_embed` and (N, H / 4, W / 4) mask logits."""
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(queries), mask_features)
        return self.class_embed(queries)[0], masks[0]


def text_head(shape: MaskFormerShape, text_width: int, hidden: int) -> nn.Module:
    """OVSeg's class head, to a point of the text space; transformers' is one layer to a list of names."""
    head: nn.Module = MaskformerMLPPredictionHead(shape.hidden, hidden, text_width, num_layers=2)
    return head


def configuration(shape: MaskFormerShape) -> MaskFormerConfig:
    """What transformers must know to build a network of this shape."""
    swin = MaskFormerSwinConfig(  # type: ignore[call-arg]
        patch_size=shape.patch,
        embed_dim=shape.embed_dim,
        depths=list(shape.depths),
        num_heads=list(shape.heads),
        window_size=shape.window,
        mlp_ratio=shape.mlp_ratio,
        out_features=[f"stage{i + 1}" for i in range(shape.stages)],
    )
    decoder = MaskFormerDetrConfig(
        d_model=shape.hidden,
        num_queries=shape.queries,
        encoder_layers=0,
        decoder_layers=shape.decoder_layers,
        decoder_attention_heads=shape.decoder_heads,
        decoder_ffn_dim=shape.feedforward,
    )
    with _without_remarks():
        return MaskFormerConfig(
            backbone_config=swin,
            decoder_config=decoder,
            fpn_feature_size=shape.conv_dim,
            mask_feature_size=shape.mask_dim,
        )


@contextmanager
def _without_remarks() -> Iterator[None]:
    """transformers remarks that its own class for this Swin is not on its own list of backbones."""
    logger = logging.getLogger("transformers.models.maskformer.configuration_maskformer")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def prepare(image: Tensor) -> Tensor:
    """Normalise a picture and pad it with zeros, right and below.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (1, 3, H', W') float32, H' and W' the next multiples of 32.
    """
    mean, std = (torch.tensor(v, device=image.device).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    pixels = (image.permute(2, 0, 1).float() - mean) / std
    height, width = pixels.shape[1:]
    return functional.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE))[None]
